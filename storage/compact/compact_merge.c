/* compact_merge.c: all series of several blocks, in order, into a new block.
 *
 * Each input has a cursor, and the labels that it stands at, with their shard. The smallest labels are the
 * next series; every input that stands at them adds its chunks. A call does a slice: many short series, or a
 * part of a long one. */
#include "base/alloc.h"
#include "base/assert.h"
#include "storage/compact/compact_private.h"

#define STEP_COST   ((uint64_t)512 << 10) /* bytes and samples; some milliseconds */
#define COST_SERIES 256

enum phase { PHASE_NEXT, PHASE_MERGE, PHASE_FINISH, PHASE_DONE };

struct head {
    struct block_cursor *cursor;
    struct block_series series; /* where it stands; borrowed from the cursor */
    unsigned shard;
    bool ended;
};

struct compact {
    struct compact_input inputs[COMPACT_INPUTS_MAX];
    struct head heads[COMPACT_INPUTS_MAX];
    size_t count;
    enum phase phase;
    struct block_writer *writer;
    struct compact__series series;
    struct buf labels; /* of the series being merged */
    uint64_t id;
    uint64_t chunks_all, chunks_done; /* of the inputs */
    struct compact_stats stats;
    struct block_meta nothing; /* what compact_meta gives if no series was left */
    bool is_empty;
};

static int no_memory(struct error_detail *detail) {
    return error_set(detail, STATUS_NO_MEMORY, "merging blocks: out of memory");
}

/* ---- Opening ------------------------------------------------------------------------------------------ */

static int head_advance(struct head *head, struct error_detail *detail) {
    int status = block_cursor_next(head->cursor, &head->series, detail);
    if (status == STATUS_OK)
        head->shard = block_shard_of_labels(head->series.labels);
    head->ended = status == STATUS_END;
    return status < 0 ? status : STATUS_OK;
}

static int lost_each(void *context, const struct block_damage *damage) {
    (void)context;
    return damage->data_lost ? STATUS_CORRUPT : STATUS_OK;
}

/* A cursor steps over what is lost; whoever throws the input away afterwards would never know. */
static int whole_check(const struct compact *compact, struct error_detail *detail) {
    for (size_t i = 0; i < compact->count; i++) {
        struct block *block = compact->inputs[i].block;
        if (block_damage_each(block, lost_each, NULL) < 0)
            return error_set(detail, STATUS_CORRUPT, "%s is damaged: it is kept as it is", block_dir(block));
    }
    return STATUS_OK;
}

static int writer_open(struct compact *compact, const struct compact_options *options,
                       struct error_detail *detail) {
    uint64_t sources[COMPACT_INPUTS_MAX];
    struct block_writer_options to = {.io = options->io,
                                      .dir = options->dir,
                                      .id = options->id,
                                      .salt = options->salt,
                                      .time_base_ms = INT64_MAX,
                                      .sources = sources,
                                      .source_count = options->input_count};
    for (size_t i = 0; i < options->input_count; i++) {
        const struct block_meta *meta = block_meta(options->inputs[i].block);
        sources[i] = meta->id;
        if (meta->level > to.level)
            to.level = meta->level;
        if (meta->time_min_ms < to.time_base_ms)
            to.time_base_ms = meta->time_min_ms;
        if (meta->position_max > to.position_base)
            to.position_base = meta->position_max;
        compact->chunks_all += meta->chunk_count;
    }
    to.level += to.level < UINT32_MAX;
    return block_writer_open(&to, detail, &compact->writer);
}

int compact_open(const struct compact_options *options, struct error_detail *detail, struct compact **out) {
    int status = STATUS_OK;
    ASSERT(options->input_count > 0 && options->input_count <= COMPACT_INPUTS_MAX);
    struct compact *compact = mem_zalloc(sizeof *compact);
    if (compact == NULL)
        return no_memory(detail);
    compact->count = options->input_count;
    memcpy(compact->inputs, options->inputs, options->input_count * sizeof *options->inputs);
    compact__series_init(&compact->series, compact->inputs, &compact->stats);
    buf_init(&compact->labels);
    for (size_t i = 0; i < compact->count; i++) {
        TRY(block_prepare(compact->inputs[i].block, detail));
        status = block_cursor_open(compact->inputs[i].block, 0, BLOCK_SHARDS - 1, &compact->heads[i].cursor);
        if (status < 0) {
            error_set(detail, status, "merging %s: %s", block_dir(compact->inputs[i].block),
                      status_message(status));
            goto out;
        }
        TRY(head_advance(&compact->heads[i], detail));
    }
    TRY(whole_check(compact, detail));
    TRY(writer_open(compact, options, detail));
out:
    if (status < 0)
        compact_close(compact);
    else
        *out = compact;
    return status;
}

void compact_close(struct compact *compact) {
    if (compact == NULL)
        return;
    block_writer_close(compact->writer);
    for (size_t i = 0; i < compact->count; i++)
        block_cursor_close(compact->heads[i].cursor);
    compact__series_release(&compact->series);
    buf_release(&compact->labels);
    mem_free(compact);
}

/* ---- Series by series --------------------------------------------------------------------------------- */

static int head_order(const struct head *a, const struct head *b) {
    if (a->shard != b->shard)
        return a->shard < b->shard ? -1 : 1;
    return slice_compare(a->series.labels, b->series.labels);
}

/* Gathers the next series' chunks from every input that has it. The newest input's id is taken: it is the one
 * that new samples of the series are most likely to have. */
static int series_next(struct compact *compact, struct error_detail *detail) {
    int status = STATUS_OK;
    const struct head *first = NULL;
    for (size_t i = 0; i < compact->count; i++)
        if (!compact->heads[i].ended && (first == NULL || head_order(&compact->heads[i], first) < 0))
            first = &compact->heads[i];
    if (first == NULL) {
        compact->phase = PHASE_FINISH;
        return whole_check(compact, detail);
    }
    unsigned shard = first->shard;
    compact__series_begin(&compact->series);
    buf_clear(&compact->labels);
    buf_append(&compact->labels, first->series.labels.data, first->series.labels.len);
    if (compact->labels.failed)
        return no_memory(detail);
    for (size_t i = 0; i < compact->count; i++) {
        struct head *head = &compact->heads[i];
        if (head->ended || head->shard != shard ||
            !slice_equal(head->series.labels, buf_slice(&compact->labels)))
            continue;
        if (compact__series_add(&compact->series, (uint32_t)i, &head->series) < 0)
            return no_memory(detail);
        compact->id = head->series.id;
        compact->chunks_done += head->series.chunk_count;
        TRY(head_advance(head, detail));
    }
    compact->series.cost += COST_SERIES;
    compact->phase = PHASE_MERGE;
out:
    return status;
}

static int series_write(struct compact *compact, struct error_detail *detail) {
    int status = STATUS_OK;
    if (compact->series.out_count > 0)
        TRY(block_writer_add(compact->writer, buf_slice(&compact->labels), compact->id, compact->series.out,
                             compact->series.out_count, detail));
    compact->phase = PHASE_NEXT;
out:
    return status;
}

static int merge(struct compact *compact, struct error_detail *detail) {
    int status = STATUS_OK;
    struct compact__series *series = &compact->series;
    series->cost = 0;
    while (series->cost < STEP_COST && compact->phase != PHASE_FINISH) {
        if (compact->phase == PHASE_NEXT) {
            TRY(series_next(compact, detail));
            continue;
        }
        TRY(compact__series_step(series, STEP_COST - series->cost, detail));
        if (status == STATUS_END)
            TRY(series_write(compact, detail));
    }
out:
    return status < 0 ? status : STATUS_OK;
}

static int finish(struct compact *compact, struct error_detail *detail) {
    const struct block_meta *meta = block_writer_meta(compact->writer);
    if (meta->series_count == 0) {
        block_writer_close(compact->writer);
        compact->writer = NULL;
        compact->is_empty = true;
        compact->phase = PHASE_DONE;
        return STATUS_END;
    }
    int status = block_writer_step(compact->writer, detail);
    if (status == STATUS_END) {
        compact->stats.bytes_written = meta->chunks.bytes + meta->index.bytes + meta->index_sum.bytes;
        compact->phase = PHASE_DONE;
    }
    return status;
}

int compact_step(struct compact *compact, unsigned *done_out, struct error_detail *detail) {
    int status = STATUS_OK;
    switch (compact->phase) {
    case PHASE_NEXT:
    case PHASE_MERGE:
        status = merge(compact, detail);
        break;
    case PHASE_FINISH:
        status = finish(compact, detail);
        break;
    case PHASE_DONE:
        status = STATUS_END;
        break;
    }
    if (done_out != NULL)
        *done_out = compact->phase == PHASE_DONE || compact->chunks_all == 0
                        ? 1000
                        : (unsigned)((double)compact->chunks_done / (double)compact->chunks_all * 900);
    return status;
}

const struct block_meta *compact_meta(const struct compact *compact) {
    return compact->is_empty ? &compact->nothing : block_writer_meta(compact->writer);
}

const struct compact_stats *compact_stats(const struct compact *compact) {
    return &compact->stats;
}

uint64_t compact_memory_bytes(const struct compact *compact) {
    return sizeof *compact + compact->labels.capacity + compact__series_memory_bytes(&compact->series) +
           (compact->writer == NULL ? 0 : block_writer_memory_bytes(compact->writer));
}
