/* compact_series.c: one series' chunks from several inputs → chunks that follow each other in time.
 *
 * Chunks are taken in the order of their first sample. One that no other overlaps is copied as it is, if it
 * is worth it. Otherwise it is *opened*: decoded, and its samples merged with those of the others that are
 * open, the earliest first; a chunk is opened when the merge reaches its first sample. So only chunks that
 * overlap are in memory at once. Merged samples gather in `pending` until there are two chunks full of them,
 * and are divided evenly at the end, so that no chunk of two samples is left behind. */
#include <stdlib.h>

#include "base/alloc.h"
#include "base/assert.h"
#include "base/bytes.h"
#include "storage/compact/compact_private.h"

/* A chunk with fewer samples is encoded anew together with its neighbours. */
#define FULL_ENOUGH 80

/* A chunk made here ends when it grows past this. */
#define CHUNK_BYTES 2048

#define COST_CHUNK  64
#define COST_SAMPLE 8

void compact__series_init(struct compact__series *series, const struct compact_input *inputs,
                          struct compact_stats *stats) {
    *series = (struct compact__series){.inputs = inputs, .stats = stats};
    buf_init(&series->bits);
}

void compact__series_release(struct compact__series *series) {
    for (size_t i = 0; i < series->open_capacity; i++)
        sample_columns_release(&series->opens[i].columns);
    sample_columns_release(&series->pending);
    mem_free(series->opens);
    mem_free(series->chunks);
    mem_free(series->out);
    mem_free(series->encoded);
    mem_free(series->encoder.bytes);
    buf_release(&series->bits);
}

#define BITS_KEPT ((size_t)4 << 20)

void compact__series_begin(struct compact__series *series) {
    ASSERT(series->live == 0 || series->next < series->count); /* done, or given up */
    for (size_t i = 0; i < series->open_count; i++)
        series->opens[i].in_use = false;
    series->live = series->open_count = 0;
    series->count = series->next = series->hole_count = series->out_count = 0;
    series->pending.count = 0;
    series->pending.has_starts = 0;
    series->pending_position = 0;
    if (series->bits.capacity > BITS_KEPT)
        buf_release(&series->bits);
    buf_clear(&series->bits);
}

uint64_t compact__series_memory_bytes(const struct compact__series *series) {
    uint64_t bytes = series->capacity * sizeof *series->chunks +
                     series->open_capacity * sizeof *series->opens + series->pending.capacity * 24 +
                     series->out_capacity * (sizeof *series->out + 1) + series->bits.capacity;
    for (size_t i = 0; i < series->open_capacity; i++)
        bytes += series->opens[i].columns.capacity * 24;
    return bytes;
}

/* Room for `count` elements. */
static int room(void **array, size_t *capacity, size_t count, size_t bytes) {
    if (count <= *capacity)
        return STATUS_OK;
    size_t wanted = *capacity == 0 ? 64 : 2 * *capacity;
    if (wanted < count)
        wanted = count;
    void *grown = mem_realloc(*array, wanted * bytes);
    if (grown == NULL)
        return STATUS_NO_MEMORY;
    *array = grown;
    *capacity = wanted;
    return STATUS_OK;
}

/* ---- What there is to merge --------------------------------------------------------------------------- */

int compact__series_add(struct compact__series *series, uint32_t input, const struct block_series *from) {
    int status = STATUS_OK;
    const struct compact_input *of = &series->inputs[input];
    TRY(room((void **)&series->chunks, &series->capacity, series->count + from->chunk_count,
             sizeof *series->chunks));
    for (size_t i = 0; i < from->chunk_count; i++)
        series->chunks[series->count++] = (struct compact__chunk){from->chunks[i], input, from->ordinal};
    if (of->deleted != NULL) {
        struct compact__holes *holes = &series->holes[series->hole_count];
        holes->input = input;
        holes->count = of->deleted(of->context, from->ordinal, &holes->spans);
        series->hole_count += holes->count > 0;
    }
out:
    return status;
}

static int chunk_order(const void *a, const void *b) {
    const struct compact__chunk *x = a, *y = b;
    if (x->ref.time_min_ms != y->ref.time_min_ms)
        return x->ref.time_min_ms < y->ref.time_min_ms ? -1 : 1;
    if (x->input != y->input)
        return x->input < y->input ? -1 : 1;
    return (x->ref.offset > y->ref.offset) - (x->ref.offset < y->ref.offset);
}

/* What is deleted of the chunk's input; NULL: nothing that touches the chunk. */
static const struct compact__holes *holes_of(const struct compact__series *series,
                                             const struct compact__chunk *chunk) {
    for (size_t i = 0; i < series->hole_count; i++) {
        const struct compact__holes *holes = &series->holes[i];
        if (holes->input == chunk->input)
            return spans_touch(holes->spans, holes->count, chunk->ref.time_min_ms, chunk->ref.time_max_ms)
                       ? holes
                       : NULL;
    }
    return NULL;
}

/* ---- What comes out ----------------------------------------------------------------------------------- */

static int out_room(struct compact__series *series) {
    size_t capacity = series->out_capacity;
    int status = room((void **)&series->encoded, &capacity, series->out_count + 1, sizeof *series->encoded);
    if (status == STATUS_OK)
        status =
            room((void **)&series->out, &series->out_capacity, series->out_count + 1, sizeof *series->out);
    return status;
}

static uint8_t *encoder_grow(void *context, uint8_t *old, size_t old_capacity, size_t used, size_t bytes,
                             size_t *capacity) {
    (void)context;
    (void)used;
    size_t wanted = old_capacity * 2 > bytes ? old_capacity * 2 : bytes + 64;
    if (wanted > UINT16_MAX)
        wanted = UINT16_MAX;
    uint8_t *grown = mem_realloc(old, wanted);
    if (grown != NULL)
        *capacity = wanted;
    return grown;
}

/* Encodes the first `count` samples that are pending into one chunk, or as many as fit; *done_out says how
 * many. */
static int encode(struct compact__series *series, size_t first, size_t count, size_t *done_out) {
    int status = STATUS_OK;
    const struct sample_columns *from = &series->pending;
    struct chunk_open *open = &series->encoder;
    uint8_t *bytes = open->bytes;
    uint16_t capacity = open->capacity;
    if (bytes != NULL)
        memset(bytes, 0, capacity);
    *open = (struct chunk_open){.bytes = bytes, .capacity = capacity};
    size_t at = 0;
    for (; at < count && open->bit_count / 8 < CHUNK_BYTES; at++) {
        struct sample sample = {.time_ms = from->times_ms[first + at],
                                .value_bits = double_bits(from->values[first + at])};
        TRY(chunk_append(open, sample, from->has_starts ? from->starts_ms[first + at] : START_NONE,
                         encoder_grow, NULL));
    }
    TRY(out_room(series));
    struct slice bits = chunk_bytes(open);
    size_t offset = series->bits.len;
    buf_append(&series->bits, bits.data, bits.len);
    if (series->bits.failed)
        return STATUS_NO_MEMORY;
    series->encoded[series->out_count] = true;
    series->out[series->out_count++] = (struct block_chunk){
        .time_min_ms = from->times_ms[first],
        .time_max_ms = from->times_ms[first + at - 1],
        .info = open->info,
        .log_position = series->pending_position,
        .bits = slice_of((void *)offset, bits.len)}; /* the buffer may move until the end */
    series->stats->chunks_encoded++;
    series->stats->samples_out += at;
    *done_out = at;
out:
    return status;
}

static void columns_move_down(struct sample_columns *columns, size_t from) {
    size_t left = columns->count - from;
    memmove(columns->times_ms, columns->times_ms + from, left * sizeof *columns->times_ms);
    memmove(columns->values, columns->values + from, left * sizeof *columns->values);
    if (columns->has_starts)
        memmove(columns->starts_ms, columns->starts_ms + from, left * sizeof *columns->starts_ms);
    columns->count = left;
}

/* Encodes what is pending: all of it, or all but what may still become part of a full chunk. */
static int pending_encode(struct compact__series *series, bool all) {
    int status = STATUS_OK;
    size_t at = 0;
    for (;;) {
        size_t left = series->pending.count - at, count = CHUNK_SAMPLES_MAX, done = 0;
        if (left == 0 || (!all && left < 2 * CHUNK_SAMPLES_MAX))
            break;
        if (left < 2 * CHUNK_SAMPLES_MAX) /* the last two are equally long */
            count = left <= CHUNK_SAMPLES_MAX ? left : (left + 1) / 2;
        TRY(encode(series, at, count, &done));
        at += done;
    }
    if (at > 0)
        columns_move_down(&series->pending, at);
    if (series->pending.count == 0) {
        series->pending.has_starts = 0;
        series->pending_position = 0;
    }
out:
    return status;
}

static int copy(struct compact__series *series, const struct block_chunk *chunk) {
    int status = STATUS_OK;
    TRY(pending_encode(series, true));
    TRY(out_room(series));
    series->encoded[series->out_count] = false;
    series->out[series->out_count++] = *chunk;
    series->stats->chunks_copied++;
    series->stats->samples_out += chunk->info.sample_count;
out:
    return status;
}

static int pending_add(struct compact__series *series, const struct sample_columns *from, size_t at) {
    struct sample_columns *pending = &series->pending;
    int status = sample_columns_reserve(pending, 1);
    if (status < 0)
        return status;
    int64_t start_ms = from->has_starts ? from->starts_ms[at] : START_NONE;
    if (start_ms != START_NONE && !pending->has_starts) {
        for (size_t i = 0; i < pending->count; i++)
            pending->starts_ms[i] = START_NONE;
        pending->has_starts = 1;
    }
    pending->times_ms[pending->count] = from->times_ms[at];
    pending->values[pending->count] = from->values[at];
    pending->starts_ms[pending->count++] = start_ms;
    return pending->count >= 4 * CHUNK_SAMPLES_MAX ? pending_encode(series, false) : STATUS_OK;
}

/* ---- Opening and merging ------------------------------------------------------------------------------ */

static int chunk_read(struct compact__series *series, const struct compact__chunk *from,
                      struct block_chunk *chunk, struct error_detail *detail) {
    series->cost += from->ref.bytes + COST_CHUNK;
    series->stats->bytes_read += from->ref.bytes;
    return block_chunk_read(series->inputs[from->input].block, from->ordinal, &from->ref, chunk, detail);
}

static struct compact__open *open_slot(struct compact__series *series) {
    for (size_t i = 0; i < series->open_count; i++)
        if (!series->opens[i].in_use)
            return &series->opens[i];
    size_t before = series->open_capacity;
    if (room((void **)&series->opens, &series->open_capacity, series->open_count + 1, sizeof *series->opens) <
        0)
        return NULL;
    memset(series->opens + before, 0, (series->open_capacity - before) * sizeof *series->opens);
    return &series->opens[series->open_count++];
}

/* Decodes the chunk and leaves out what is deleted; nothing is opened if all of it is. */
static int open_chunk(struct compact__series *series, size_t order, const struct block_chunk *chunk,
                      struct error_detail *detail) {
    const struct compact__chunk *from = &series->chunks[order];
    struct compact__open *open = open_slot(series);
    if (open == NULL)
        return STATUS_NO_MEMORY;
    struct sample_columns *columns = &open->columns;
    columns->count = 0;
    columns->has_starts = 0;
    int status = chunk_decode(chunk->bits, chunk->info, INT64_MIN, INT64_MAX, columns);
    if (status == STATUS_NO_MEMORY)
        return status;
    bool ascends = status == STATUS_OK && columns->count > 0 && columns->times_ms[0] == chunk->time_min_ms &&
                   columns->times_ms[columns->count - 1] == chunk->time_max_ms;
    for (size_t i = 1; i < columns->count; i++)
        ascends &= columns->times_ms[i - 1] < columns->times_ms[i];
    if (!ascends)
        return error_set(detail, STATUS_CORRUPT,
                         "%s/chunks at offset %llu: a chunk whose samples are no series",
                         block_dir(series->inputs[from->input].block), (unsigned long long)from->ref.offset);
    series->cost += columns->count * COST_SAMPLE;
    series->stats->samples_in += columns->count;
    const struct compact__holes *holes = holes_of(series, from);
    if (holes != NULL) {
        spans_filter(holes->spans, holes->count, columns, 0);
        series->stats->samples_deleted += chunk->info.sample_count - columns->count;
    }
    if (columns->count == 0)
        return STATUS_OK;
    open->at = 0;
    open->order = order;
    open->in_use = true;
    series->live++;
    if (chunk->log_position > series->pending_position)
        series->pending_position = chunk->log_position;
    return STATUS_OK;
}

/* Nothing is open: copies the next chunk, or opens it. */
static int next_alone(struct compact__series *series, struct error_detail *detail) {
    int status = STATUS_OK;
    size_t order = series->next++;
    const struct compact__chunk *from = &series->chunks[order];
    struct block_chunk chunk;
    TRY(chunk_read(series, from, &chunk, detail));
    bool overlapped =
        series->next < series->count && series->chunks[series->next].ref.time_min_ms <= from->ref.time_max_ms;
    if (overlapped || chunk.info.sample_count < FULL_ENOUGH || holes_of(series, from) != NULL) {
        TRY(open_chunk(series, order, &chunk, detail));
    } else {
        series->stats->samples_in += chunk.info.sample_count;
        TRY(copy(series, &chunk));
    }
out:
    return status;
}

static int64_t time_of(const struct compact__open *open) {
    return open->columns.times_ms[open->at];
}

/* The earliest sample that is open; of several with one time the one that was logged first: its input, then
 * its place in there, decide. */
static bool comes_before(const struct compact__series *series, const struct compact__open *a,
                         const struct compact__open *b) {
    if (time_of(a) != time_of(b))
        return time_of(a) < time_of(b);
    const struct compact__chunk *x = &series->chunks[a->order], *y = &series->chunks[b->order];
    return x->input != y->input ? x->input < y->input : a->order < b->order;
}

static void advance(struct compact__series *series, struct compact__open *open) {
    if (++open->at == open->columns.count) {
        open->in_use = false;
        series->live--;
    }
}

/* Passes over the samples that have the winner's time. */
static void pass_over(struct compact__series *series, const struct compact__open *winner) {
    int64_t time_ms = time_of(winner);
    const struct sample_columns *kept = &winner->columns;
    int64_t start_ms = kept->has_starts ? kept->starts_ms[winner->at] : START_NONE;
    for (size_t i = 0; i < series->open_count; i++) {
        struct compact__open *open = &series->opens[i];
        if (!open->in_use || open == winner || time_of(open) != time_ms)
            continue;
        const struct sample_columns *other = &open->columns;
        bool equal = double_bits(kept->values[winner->at]) == double_bits(other->values[open->at]) &&
                     start_ms == (other->has_starts ? other->starts_ms[open->at] : START_NONE);
        series->stats->samples_duplicate += equal;
        series->stats->samples_conflict += !equal;
        advance(series, open);
    }
}

static int merge_one(struct compact__series *series, struct error_detail *detail) {
    int status = STATUS_OK;
    struct compact__open *first = NULL;
    for (size_t i = 0; i < series->open_count; i++) {
        struct compact__open *open = &series->opens[i];
        if (open->in_use && (first == NULL || comes_before(series, open, first)))
            first = open;
    }
    if (series->next < series->count && series->chunks[series->next].ref.time_min_ms <= time_of(first)) {
        struct block_chunk chunk;
        size_t order = series->next++;
        TRY(chunk_read(series, &series->chunks[order], &chunk, detail));
        return open_chunk(series, order, &chunk, detail); /* the next turn looks again */
    }
    if (series->live > 1)
        pass_over(series, first);
    TRY(pending_add(series, &first->columns, first->at));
    series->cost += series->open_count;
    advance(series, first);
out:
    return status;
}

static void out_finish(struct compact__series *series) {
    for (size_t i = 0; i < series->out_count; i++)
        if (series->encoded[i])
            series->out[i].bits.data = series->bits.data + (uintptr_t)series->out[i].bits.data;
}

int compact__series_step(struct compact__series *series, uint64_t cost_max, struct error_detail *detail) {
    int status = STATUS_OK;
    uint64_t stop = series->cost + cost_max;
    if (series->next == 0 && series->count > 1)
        qsort(series->chunks, series->count, sizeof *series->chunks, chunk_order);
    while (series->live > 0 || series->next < series->count) {
        if (series->cost >= stop)
            return STATUS_OK;
        TRY(series->live > 0 ? merge_one(series, detail) : next_alone(series, detail));
    }
    TRY(pending_encode(series, true));
    out_finish(series);
    return STATUS_END;
out:
    return status == STATUS_NO_MEMORY ? error_set(detail, status, "merging blocks: out of memory") : status;
}
