/* test_block_model.c: the naive block. */
#include "test_block_model.h"

#include "base/label.h"
#include "tests/lib/chunk_grow.h"

void model_open(struct model *model, enum io_backend backend, uint64_t seed) {
    memset(model, 0, sizeof *model);
    if (io_open(backend, NULL, &model->io) != STATUS_OK)
        skip();
    rand_init(&model->rand, seed);
    model->salt = rand_u64(&model->rand);
    model->time_base_ms = 1700000000000;
    const char *tmp = getenv("TMPDIR");
    if (tmp == NULL)
        tmp = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
    snprintf(model->parent, sizeof model->parent, "%s/tidalite-block-XXXXXX", tmp);
    assert_non_null(mkdtemp(model->parent));
    snprintf(model->dir, sizeof model->dir, "%s/block-1", model->parent);
}

void model_clear(struct model *model) {
    for (size_t i = 0; i < model->count; i++) {
        for (size_t c = 0; c < model->series[i].chunk_count; c++)
            mem_free((void *)(uintptr_t)model->series[i].chunks[c].bits.data);
        mem_free(model->series[i].chunks);
        mem_free(model->series[i].labels);
    }
    mem_free(model->series);
    model->series = NULL;
    model->count = model->capacity = 0;
}

static int remove_each(void *context, const char *name) {
    char path[512];
    snprintf(path, sizeof path, "%s/%s", (const char *)context, name);
    return remove(path) == 0 ? 0 : STATUS_IO;
}

void model_remove(struct model *model) {
    io_fault_set(model->io, (struct io_fault){0});
    if (access(model->dir, F_OK) != 0)
        return;
    assert_int_equal(io_list_dir(model->io, model->dir, remove_each, model->dir), STATUS_OK);
    assert_int_equal(rmdir(model->dir), 0);
}

void model_close(struct model *model) {
    model_clear(model);
    model_remove(model);
    assert_int_equal(rmdir(model->parent), 0); /* nothing is left beside it */
    io_close(model->io);
}

/* ---- Series ------------------------------------------------------------------------------------------- */

static struct block_chunk chunk_make(struct model *model, int64_t *time_ms) {
    struct chunk_open open = {0};
    struct block_chunk chunk = {.time_min_ms = *time_ms};
    uint64_t samples = 1 + rand_below(&model->rand, CHUNK_SAMPLES_MAX);
    double value = (double)rand_below(&model->rand, 1000);
    for (uint64_t i = 0; i < samples; i++) {
        struct sample sample = {.time_ms = *time_ms};
        memcpy(&sample.value_bits, &value, sizeof value);
        assert_int_equal(chunk_append(&open, sample, START_NONE, chunk_grow, NULL), STATUS_OK);
        chunk.time_max_ms = *time_ms;
        *time_ms += 15000;
        value += (double)rand_below(&model->rand, 3);
    }
    struct slice bits = chunk_bytes(&open);
    uint8_t *copy = mem_alloc(bits.len);
    assert_non_null(copy);
    memcpy(copy, bits.data, bits.len);
    mem_free(open.bytes);
    chunk.bits = slice_of(copy, bits.len);
    chunk.info = open.info;
    chunk.log_position = (uint64_t)3 << 32 | rand_below(&model->rand, 10000) * 4096;
    return chunk;
}

static int chunk_order(const void *a, const void *b) {
    const struct block_chunk *x = a, *y = b;
    if (x->time_min_ms != y->time_min_ms)
        return x->time_min_ms < y->time_min_ms ? -1 : 1;
    return (x->log_position > y->log_position) - (x->log_position < y->log_position);
}

void model_add_bytes(struct model *model, struct slice labels, size_t chunks) {
    if (model->count == model->capacity) {
        model->capacity = model->capacity == 0 ? 64 : 2 * model->capacity;
        model->series = mem_realloc(model->series, model->capacity * sizeof *model->series);
        assert_non_null(model->series);
    }
    struct model_series *series = &model->series[model->count];
    series->labels = mem_alloc(labels.len);
    assert_non_null(series->labels);
    memcpy(series->labels, labels.data, labels.len);
    series->labels_len = labels.len;
    series->id = rand_u64(&model->rand) >> rand_below(&model->rand, 64);
    series->chunks = mem_alloc(chunks * sizeof *series->chunks);
    assert_non_null(series->chunks);
    series->chunk_count = chunks;
    int64_t time_ms = model->time_base_ms + (int64_t)rand_below(&model->rand, 100000);
    for (size_t i = 0; i < chunks; i++) {
        if (i > 0 && rand_below(&model->rand, 8) == 0)
            time_ms -= 600000; /* late data: chunks overlap */
        series->chunks[i] = chunk_make(model, &time_ms);
    }
    qsort(series->chunks, chunks, sizeof *series->chunks, chunk_order);
    model->count++;
}

void model_add(struct model *model, size_t chunks, ...) {
    struct buf labels;
    buf_init(&labels);
    va_list args;
    va_start(args, chunks);
    const char *name;
    while ((name = va_arg(args, const char *)) != NULL)
        label_bytes_append(&labels, slice_str(name), slice_str(va_arg(args, const char *)));
    va_end(args);
    assert_false(labels.failed);
    model_add_bytes(model, buf_slice(&labels), chunks);
    buf_release(&labels);
}

static void random_text(struct model *model, char *out, size_t len) {
    static const char *const letters[] = {"a", "b", "c", "-", "0", "1", "\xc3\xa9", "\xe2\x82\xac"};
    size_t at = 0;
    while (at < len) {
        const char *letter = letters[rand_below(&model->rand, 8)];
        memcpy(out + at, letter, strlen(letter));
        at += strlen(letter);
    }
    out[at] = '\0';
}

void model_random(struct model *model, size_t count, size_t chunks_max) {
    for (size_t i = 0; i < count; i++) {
        struct buf labels;
        buf_init(&labels);
        char text[64];
        if (rand_below(&model->rand, 10) == 0) /* before __name__ */
            label_bytes_append(&labels, slice_str("Zone"), slice_str("x"));
        snprintf(text, sizeof text, "metric_%d", (int)rand_below(&model->rand, 7));
        label_bytes_append(&labels, slice_str("__name__"), slice_str(text));
        snprintf(text, sizeof text, "%d", (int)rand_below(&model->rand, 3));
        if (rand_below(&model->rand, 4) > 0)
            label_bytes_append(&labels, slice_str("az"), slice_str(text));
        snprintf(text, sizeof text, "pod-%05d", (int)i);
        if (rand_below(&model->rand, 8) > 0)
            label_bytes_append(&labels, slice_str("pod"), slice_str(text));
        if (rand_below(&model->rand, 3) == 0) {
            random_text(model, text, 1 + rand_below(&model->rand, 4));
            label_bytes_append(&labels, slice_str("t\xc3\xa9xt"), slice_str(text));
        }
        if (rand_below(&model->rand, 50) == 0)
            label_bytes_append(&labels, slice_str("zz_rare"), slice_str("r"));
        assert_false(labels.failed);
        model_add_bytes(model, buf_slice(&labels), 1 + (size_t)rand_below(&model->rand, chunks_max));
        buf_release(&labels);
    }
    model_sort(model);
}

static struct slice labels_of(const struct model_series *series) {
    return slice_of(series->labels, series->labels_len);
}

static int series_order(const void *a, const void *b) {
    return block_series_order(labels_of(a), labels_of(b));
}

void model_sort(struct model *model) {
    qsort(model->series, model->count, sizeof *model->series, series_order);
    size_t kept = 0;
    for (size_t i = 0; i < model->count; i++) {
        if (kept > 0 && slice_equal(labels_of(&model->series[kept - 1]), labels_of(&model->series[i]))) {
            for (size_t c = 0; c < model->series[i].chunk_count; c++)
                mem_free((void *)(uintptr_t)model->series[i].chunks[c].bits.data);
            mem_free(model->series[i].chunks);
            mem_free(model->series[i].labels);
            continue;
        }
        model->series[kept++] = model->series[i];
    }
    model->count = kept;
}

/* ---- Writing ------------------------------------------------------------------------------------------ */

int model_write(struct model *model, struct error_detail *detail) {
    static const uint64_t sources[] = {3, UINT64_MAX};
    struct block_writer_options options = {.io = model->io,
                                           .dir = model->dir,
                                           .id = 7,
                                           .level = 2,
                                           .salt = model->salt,
                                           .time_base_ms = model->time_base_ms,
                                           .position_base = (uint64_t)3 << 32,
                                           .sources = sources,
                                           .source_count = 2};
    struct block_writer *writer = NULL;
    int status = block_writer_open(&options, detail, &writer);
    for (size_t i = 0; i < model->count && status == STATUS_OK; i++)
        status = block_writer_add(writer, labels_of(&model->series[i]), model->series[i].id,
                                  model->series[i].chunks, model->series[i].chunk_count, detail);
    while (status == STATUS_OK)
        status = block_writer_step(writer, detail);
    if (status == STATUS_END)
        assert_int_equal(block_writer_meta(writer)->series_count, model->count);
    block_writer_close(writer);
    return status == STATUS_END ? STATUS_OK : status;
}

/* ---- Comparing ---------------------------------------------------------------------------------------- */

static int damage_print(void *context, const struct block_damage *damage) {
    (void)context;
    print_message("damage: %s at %llu: %s\n", damage->file, (unsigned long long)damage->offset, damage->what);
    return 0;
}

struct block *model_block(struct model *model) {
    struct block *block = NULL;
    struct error_detail detail = {0};
    int status = block_open(model->io, model->dir, &detail, &block);
    if (status != STATUS_OK)
        print_message("%s\n", detail.text);
    assert_int_equal(status, STATUS_OK);
    block_damage_each(block, damage_print, NULL);
    assert_int_equal(block_damage_count(block), 0);
    assert_false(block_index_rebuilt(block));
    return block;
}

static void check_chunk(struct block *block, uint32_t ordinal, const struct block_chunk_ref *ref,
                        const struct block_chunk *expected) {
    struct block_chunk chunk;
    assert_int_equal(block_chunk_read(block, ordinal, ref, &chunk, NULL), STATUS_OK);
    assert_true(ref->time_min_ms == expected->time_min_ms && ref->time_max_ms == expected->time_max_ms);
    assert_true(chunk.time_min_ms == expected->time_min_ms && chunk.time_max_ms == expected->time_max_ms);
    assert_int_equal(chunk.info.sample_count, expected->info.sample_count);
    assert_int_equal(chunk.info.start_byte, expected->info.start_byte);
    assert_true(chunk.log_position == expected->log_position);
    assert_true(slice_equal(chunk.bits, expected->bits));
}

static void check_series(struct block *block, uint32_t ordinal, const struct block_series *series,
                         const struct model_series *expected) {
    assert_int_equal(series->ordinal, ordinal);
    assert_true(series->id == expected->id);
    assert_int_equal(series->chunk_count, expected->chunk_count);
    for (size_t i = 0; i < series->chunk_count; i++)
        check_chunk(block, ordinal, &series->chunks[i], &expected->chunks[i]);
}

void model_check(struct model *model, struct block *block) {
    struct block_view *view;
    struct block_series series;
    struct slice labels;
    assert_int_equal(block_ordinal_count(block), model->count);
    assert_int_equal(block_view_open(block, &view), STATUS_OK);
    for (size_t i = 0; i < model->count; i++) {
        /* in order, and anywhere */
        for (int round = 0; round < 2; round++) {
            uint32_t ordinal = round == 0 ? (uint32_t)i : (uint32_t)rand_below(&model->rand, model->count);
            const struct model_series *expected = &model->series[ordinal];
            assert_int_equal(block_view_series(view, ordinal, INT64_MIN, INT64_MAX, &series, NULL),
                             STATUS_OK);
            check_series(block, ordinal, &series, expected);
            assert_int_equal(block_view_labels(view, ordinal, &labels, NULL), STATUS_OK);
            assert_true(slice_equal(labels, labels_of(expected)));
            /* a range that touches some of its chunks */
            const struct block_chunk *some =
                &expected->chunks[rand_below(&model->rand, expected->chunk_count)];
            int64_t from = some->time_max_ms, to;
            if (__builtin_add_overflow(from, (int64_t)rand_below(&model->rand, 5000000), &to))
                to = INT64_MAX;
            assert_int_equal(block_view_series(view, ordinal, from, to, &series, NULL), STATUS_OK);
            size_t at = 0;
            for (size_t c = 0; c < expected->chunk_count; c++)
                if (expected->chunks[c].time_min_ms <= to && expected->chunks[c].time_max_ms >= from) {
                    assert_true(at < series.chunk_count);
                    assert_true(series.chunks[at].time_min_ms == expected->chunks[c].time_min_ms);
                    at++;
                }
            assert_int_equal(at, series.chunk_count);
        }
    }
    assert_int_equal(block_view_series(view, (uint32_t)model->count, INT64_MIN, INT64_MAX, &series, NULL),
                     STATUS_NOT_FOUND);
    assert_int_equal(block_view_series(view, BLOCK_ORDINAL_NONE, INT64_MIN, INT64_MAX, &series, NULL),
                     STATUS_NOT_FOUND);
    block_view_close(view);

    uint32_t ordinal = 0;
    for (unsigned shard = 0; shard < BLOCK_SHARDS;) {
        unsigned last = shard + (unsigned)rand_below(&model->rand, BLOCK_SHARDS - shard);
        struct block_cursor *cursor;
        assert_int_equal(block_cursor_open(block, shard, last, &cursor), STATUS_OK);
        int status;
        while ((status = block_cursor_next(cursor, &series, NULL)) == STATUS_OK) {
            assert_in_range(block_shard_of_labels(series.labels), shard, last);
            assert_true(slice_equal(series.labels, labels_of(&model->series[ordinal])));
            check_series(block, ordinal, &series, &model->series[ordinal]);
            ordinal++;
        }
        assert_int_equal(status, STATUS_END);
        block_cursor_close(cursor);
        shard = last + 1;
    }
    assert_int_equal(ordinal, model->count);
}

/* ---- Selecting ---------------------------------------------------------------------------------------- */

static bool series_matches(const struct model_series *series, const struct matcher *matchers, size_t count) {
    for (size_t i = 0; i < count; i++)
        if (!matcher_match(&matchers[i], label_bytes_get(labels_of(series), matchers[i].name)))
            return false;
    return true;
}

struct told {
    struct model *model;
    const struct matcher *matchers;
    size_t count;
    struct slice name; /* of values; empty: names are told */
    struct buf last;
    size_t number;
};

static bool has_it(const struct told *told, const struct model_series *series, struct slice text) {
    struct slice value = label_bytes_get(labels_of(series), told->name.len > 0 ? told->name : text);
    return told->name.len > 0 ? slice_equal(value, text) : value.len > 0;
}

static int on_text(void *context, struct slice text, uint64_t series_count) {
    struct told *told = context;
    assert_true(told->number == 0 || slice_compare(buf_slice(&told->last), text) < 0);
    told->number++;
    buf_clear(&told->last);
    buf_append(&told->last, text.data, text.len);
    uint64_t all = 0;
    bool selected = false;
    for (size_t i = 0; i < told->model->count; i++)
        if (has_it(told, &told->model->series[i], text)) {
            all++;
            selected = selected || series_matches(&told->model->series[i], told->matchers, told->count);
        }
    assert_true(selected);
    assert_int_equal(all, series_count);
    return 0;
}

static int text_order(const void *a, const void *b) {
    return slice_compare(*(const struct slice *)a, *(const struct slice *)b);
}

/* How many distinct names, or values of `name`, the selected series have. */
static size_t distinct(struct model *model, struct slice name, const struct matcher *matchers, size_t count) {
    struct slice *texts = mem_alloc(model->count * 70 * sizeof *texts);
    assert_non_null(texts);
    size_t total = 0, unique = 0;
    for (size_t i = 0; i < model->count; i++) {
        if (!series_matches(&model->series[i], matchers, count))
            continue;
        struct label label;
        for (struct slice rest = labels_of(&model->series[i]); label_next(&rest, &label, NULL);)
            if (name.len == 0)
                texts[total++] = label.name;
            else if (slice_equal(label.name, name))
                texts[total++] = label.value;
    }
    qsort(texts, total, sizeof *texts, text_order);
    for (size_t i = 0; i < total; i++)
        unique += i == 0 || !slice_equal(texts[i - 1], texts[i]);
    mem_free(texts);
    return unique;
}

static void check_told(struct model *model, struct block *block, struct slice name,
                       const struct matcher *matchers, size_t count) {
    struct told told = {.model = model, .matchers = matchers, .count = count, .name = name};
    buf_init(&told.last);
    if (name.len == 0)
        assert_int_equal(block_label_names(block, matchers, count, on_text, &told, NULL), STATUS_OK);
    else
        assert_int_equal(block_label_values(block, name, matchers, count, on_text, &told, NULL), STATUS_OK);
    assert_int_equal(told.number, distinct(model, name, matchers, count));
    buf_release(&told.last);
}

void model_check_select(struct model *model, struct block *block, const struct matcher *matchers,
                        size_t count) {
    uint32_t *ordinals;
    size_t found, at = 0;
    struct error_detail detail = {0};
    int status = block_select(block, matchers, count, INT64_MIN, INT64_MAX, &ordinals, &found, &detail);
    if (status < 0)
        print_message("%s\n", detail.text);
    assert_int_equal(status, STATUS_OK);
    for (size_t i = 0; i < model->count; i++)
        if (series_matches(&model->series[i], matchers, count)) {
            assert_true(at < found);
            assert_int_equal(ordinals[at], i);
            at++;
        }
    assert_int_equal(at, found);
    mem_free(ordinals);
    if (model->count <= 500) {
        static const char *const names[] = {"", "__name__", "az", "pod", "t\xc3\xa9xt", "Zone", "not there"};
        check_told(model, block, slice_str(names[rand_below(&model->rand, 7)]), matchers, count);
    }
}

bool pattern_contains(const struct matcher_pattern *pattern, struct slice value) {
    const char *text = pattern->context;
    return value.len > 0 && memmem(value.data, value.len, text, strlen(text)) != NULL;
}

bool pattern_literals(const struct matcher_pattern *pattern, struct slice value) {
    for (size_t i = 0; i < pattern->literal_count; i++)
        if (slice_equal(pattern->literals[i], value))
            return true;
    return false;
}

bool pattern_prefix(const struct matcher_pattern *pattern, struct slice value) {
    return slice_starts_with(value, pattern->prefix) && value.len % 3 != 0;
}

bool pattern_all(const struct matcher_pattern *pattern, struct slice value) {
    (void)pattern;
    (void)value;
    return true;
}

bool pattern_even(const struct matcher_pattern *pattern, struct slice value) {
    (void)pattern;
    return value.len % 2 == 0;
}

void model_check_random_selects(struct model *model, struct block *block, size_t rounds) {
    static const char *const names[] = {"__name__", "az",      "pod",     "t\xc3\xa9xt",
                                        "Zone",     "zz_rare", "missing", "aa"};
    static const char *const values[] = {"",
                                         "metric_1",
                                         "metric_6",
                                         "0",
                                         "1",
                                         "pod-00007",
                                         "pod",
                                         "x",
                                         "r",
                                         "\xc3\xa9"
                                         "a",
                                         "zzzzzz",
                                         "a"};
    struct slice some_literals[] = {slice_str("1"), slice_str("metric_2"), slice_str("pod-00003"),
                                    slice_str("r")};
    struct slice with_empty[] = {slice_str(""), slice_str("0"), slice_str("a")};
    struct matcher_pattern patterns[] = {
        {.match = pattern_contains, .context = (void *)(uintptr_t) "1"},
        {.match = pattern_contains, .context = (void *)(uintptr_t) "\xc3\xa9"},
        {.match = pattern_literals, .literals = some_literals, .literal_count = 4},
        {.match = pattern_literals, .literals = with_empty, .literal_count = 3},
        {.match = pattern_prefix, .prefix = slice_str("pod-000")},
        {.match = pattern_prefix, .prefix = slice_str("metric_")},
        {.match = pattern_prefix, .prefix = slice_str("zzz")},
        {.match = pattern_all, .matches_all = true},
        {.match = pattern_even},
    };
    for (size_t round = 0; round < rounds; round++) {
        struct matcher matchers[4];
        size_t count = (size_t)rand_below(&model->rand, 5);
        for (size_t i = 0; i < count; i++) {
            matchers[i] = (struct matcher){.kind = (enum matcher_kind)rand_below(&model->rand, 4),
                                           .name = slice_str(names[rand_below(&model->rand, 8)])};
            if (matchers[i].kind == MATCHER_REGEX || matchers[i].kind == MATCHER_NOT_REGEX)
                matchers[i].pattern = &patterns[rand_below(&model->rand, 9)];
            else
                matchers[i].value = slice_str(values[rand_below(&model->rand, 12)]);
        }
        model_check_select(model, block, matchers, count);
    }
}

/* ---- Files -------------------------------------------------------------------------------------------- */

static void path_of(struct model *model, const char *name, char *path, size_t bytes) {
    snprintf(path, bytes, "%s/%s", model->dir, name);
}

uint8_t *model_file_read(struct model *model, const char *name, size_t *len_out) {
    char path[256];
    path_of(model, name, path, sizeof path);
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    struct stat st;
    assert_int_equal(fstat(fileno(file), &st), 0);
    uint8_t *data = mem_alloc((size_t)st.st_size);
    assert_non_null(data);
    assert_int_equal(fread(data, 1, (size_t)st.st_size, file), st.st_size);
    fclose(file);
    *len_out = (size_t)st.st_size;
    return data;
}

void model_file_write(struct model *model, const char *name, const uint8_t *data, size_t len) {
    char path[256];
    path_of(model, name, path, sizeof path);
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    if (len > 0)
        assert_int_equal(fwrite(data, 1, len, file), len);
    assert_int_equal(fclose(file), 0);
}

void model_file_remove(struct model *model, const char *name) {
    char path[256];
    path_of(model, name, path, sizeof path);
    assert_int_equal(unlink(path), 0);
}
