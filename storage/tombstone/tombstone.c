/* tombstone.c: see tombstone.h. */
#include "storage/tombstone/tombstone.h"

#include <string.h>

#include "base/alloc.h"
#include "base/bytes.h"

/* ---- payload ---- */

static void put_varint(struct buf *buf, uint64_t value) {
    uint8_t bytes[VARINT_BYTES_MAX];
    buf_append(buf, bytes, (size_t)(varint_write(bytes, value) - bytes));
}

static void put_text(struct buf *buf, struct slice text) {
    put_varint(buf, text.len);
    buf_append(buf, text.data, text.len);
}

void tombstone_payload_write(struct buf *buf, const struct tombstone_selector *selectors, size_t count,
                             struct span span) {
    put_varint(buf, zigzag(span.min_ms));
    put_varint(buf, zigzag(span.max_ms));
    put_varint(buf, count);
    for (size_t i = 0; i < count; i++) {
        put_varint(buf, selectors[i].count);
        for (size_t j = 0; j < selectors[i].count; j++) {
            const struct matcher *matcher = &selectors[i].matchers[j];
            put_varint(buf, (uint64_t)matcher->kind);
            put_text(buf, matcher->name);
            put_text(buf, matcher->value);
        }
    }
}

struct reader {
    const uint8_t *next;
    const uint8_t *end;
};

static bool take_varint(struct reader *reader, uint64_t *out) {
    const uint8_t *p = varint_read(reader->next, reader->end, out);
    if (p != NULL)
        reader->next = p;
    return p != NULL;
}

static bool take_text(struct reader *reader, struct slice *out) {
    uint64_t len;
    if (!take_varint(reader, &len) || len > (size_t)(reader->end - reader->next))
        return false;
    *out = slice_of(reader->next, (size_t)len);
    reader->next += len;
    return true;
}

static int matcher_take(struct tombstone *tombstone, struct reader *reader, struct matcher *out) {
    uint64_t kind;
    struct matcher matcher = {0};
    if (!take_varint(reader, &kind) || kind > MATCHER_NOT_REGEX || !take_text(reader, &matcher.name) ||
        !take_text(reader, &matcher.value))
        return STATUS_CORRUPT;
    matcher.kind = (enum matcher_kind)kind;
    int status = STATUS_OK;
    if (matcher.kind == MATCHER_REGEX || matcher.kind == MATCHER_NOT_REGEX)
        status = tombstone->compiler == NULL ? STATUS_UNSUPPORTED
                                             : tombstone->compiler->compile(matcher.value, &matcher.pattern);
    if (status == STATUS_OK)
        *out = matcher;
    return status;
}

#define MATCHER_BYTES_MIN  3u
#define SELECTOR_BYTES_MIN (1u + MATCHER_BYTES_MIN)

static int payload_read(struct tombstone *tombstone, struct reader *reader) {
    int status = STATUS_OK;
    uint64_t min, max, selectors, matchers;
    if (!take_varint(reader, &min) || !take_varint(reader, &max) || !take_varint(reader, &selectors) ||
        selectors == 0 || selectors > (size_t)(reader->end - reader->next) / SELECTOR_BYTES_MIN)
        return STATUS_CORRUPT;
    tombstone->span = (struct span){unzigzag(min), unzigzag(max)};
    tombstone->selectors = mem_zalloc((size_t)selectors * sizeof *tombstone->selectors);
    if (tombstone->selectors == NULL)
        return STATUS_NO_MEMORY;
    for (uint64_t i = 0; i < selectors; i++) {
        struct tombstone_selector *selector = &tombstone->selectors[i];
        if (!take_varint(reader, &matchers) || matchers == 0 ||
            matchers > (size_t)(reader->end - reader->next) / MATCHER_BYTES_MIN)
            return STATUS_CORRUPT;
        selector->matchers = mem_zalloc((size_t)matchers * sizeof *selector->matchers);
        if (selector->matchers == NULL)
            return STATUS_NO_MEMORY;
        tombstone->selector_count++;
        for (uint64_t j = 0; j < matchers; j++, selector->count++)
            TRY(matcher_take(tombstone, reader, &selector->matchers[selector->count]));
    }
    if (reader->next != reader->end)
        status = STATUS_CORRUPT;
out:
    return status;
}

int tombstone_new(struct slice payload, uint64_t position, const struct matcher_compiler *compiler,
                  struct tombstone **out) {
    struct tombstone *tombstone = mem_zalloc(sizeof *tombstone);
    if (tombstone == NULL)
        return STATUS_NO_MEMORY;
    atomic_init(&tombstone->references, 1);
    tombstone->position = position;
    tombstone->compiler = compiler;
    tombstone->payload = slice_of(mem_strndup(payload.data, payload.len), payload.len);
    int status = STATUS_NO_MEMORY;
    if (tombstone->payload.data != NULL) {
        struct reader reader = {tombstone->payload.data, tombstone->payload.data + payload.len};
        status = payload_read(tombstone, &reader);
    }
    if (status < 0)
        tombstone_unref(tombstone);
    else
        *out = tombstone;
    return status;
}

struct tombstone *tombstone_ref(struct tombstone *tombstone) {
    atomic_fetch_add_explicit(&tombstone->references, 1, memory_order_relaxed);
    return tombstone;
}

void tombstone_unref(struct tombstone *tombstone) {
    if (tombstone == NULL || atomic_fetch_sub_explicit(&tombstone->references, 1, memory_order_acq_rel) > 1)
        return;
    for (size_t i = 0; i < tombstone->selector_count; i++) {
        struct tombstone_selector *selector = &tombstone->selectors[i];
        for (size_t j = 0; j < selector->count; j++)
            if (selector->matchers[j].pattern != NULL)
                tombstone->compiler->release(selector->matchers[j].pattern);
        mem_free(selector->matchers);
    }
    mem_free(tombstone->selectors);
    mem_free((void *)(uintptr_t)tombstone->payload.data);
    mem_free(tombstone);
}

/* ---- sets ---- */

int tombstone_set_new(const struct tombstone_set *from,
                      bool (*keep)(void *context, const struct tombstone *tombstone), void *context,
                      struct tombstone *added, struct tombstone_set **out) {
    size_t room = (from == NULL ? 0 : from->count) + 1;
    struct tombstone_set *set = mem_zalloc(sizeof *set + room * sizeof set->items[0]);
    if (set == NULL)
        return STATUS_NO_MEMORY;
    set->references = 1;
    for (size_t i = 0; from != NULL && i < from->count; i++) {
        if (added != NULL && from->items[i]->position == added->position)
            added = NULL;
        if (keep == NULL || keep(context, from->items[i]))
            set->items[set->count++] = tombstone_ref(from->items[i]);
    }
    if (added != NULL) {
        size_t at = set->count++;
        for (; at > 0 && set->items[at - 1]->position > added->position; at--)
            set->items[at] = set->items[at - 1];
        set->items[at] = tombstone_ref(added);
    }
    *out = set;
    return STATUS_OK;
}

void tombstone_set_free(struct tombstone_set *set) {
    if (set == NULL)
        return;
    for (size_t i = 0; i < set->count; i++)
        tombstone_unref(set->items[i]);
    mem_free(set);
}

/* ---- spans ---- */

/* Does `b` begin at or before the end of `a`, or just behind it? */
static bool reaches(const struct span *a, const struct span *b) {
    return b->min_ms <= a->max_ms || (a->max_ms != INT64_MAX && b->min_ms == a->max_ms + 1);
}

size_t spans_add(struct span *spans, size_t count, struct span span) {
    size_t from = 0;
    while (from < count && !reaches(&spans[from], &span))
        from++;
    size_t to = from;
    while (to < count && reaches(&span, &spans[to])) {
        if (spans[to].min_ms < span.min_ms)
            span.min_ms = spans[to].min_ms;
        if (spans[to].max_ms > span.max_ms)
            span.max_ms = spans[to].max_ms;
        to++;
    }
    memmove(spans + from + 1, spans + to, (count - to) * sizeof *spans);
    spans[from] = span;
    return count - (to - from) + 1;
}

/* The first that ends at or behind the time. */
static size_t spans_find(const struct span *spans, size_t count, int64_t time_ms) {
    size_t low = 0, high = count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (spans[middle].max_ms < time_ms)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

bool spans_hold(const struct span *spans, size_t count, int64_t time_ms) {
    return spans_cover(spans, count, time_ms, time_ms);
}

bool spans_cover(const struct span *spans, size_t count, int64_t min_ms, int64_t max_ms) {
    size_t at = spans_find(spans, count, min_ms);
    return at < count && spans[at].min_ms <= min_ms && spans[at].max_ms >= max_ms;
}

bool spans_touch(const struct span *spans, size_t count, int64_t min_ms, int64_t max_ms) {
    size_t at = spans_find(spans, count, min_ms);
    return at < count && spans[at].min_ms <= max_ms;
}

void spans_filter(const struct span *spans, size_t count, struct sample_columns *columns, size_t from) {
    size_t kept = from;
    if (count == 0)
        return;
    for (size_t i = from; i < columns->count; i++) {
        if (spans_hold(spans, count, columns->times_ms[i]))
            continue;
        columns->times_ms[kept] = columns->times_ms[i];
        columns->values[kept] = columns->values[i];
        columns->starts_ms[kept++] = columns->starts_ms[i];
    }
    columns->count = kept;
}
