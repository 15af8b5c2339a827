/* storage_maintain.c: what goes on behind the log: windows of the head and late windows become blocks, the
 * log is cut behind them, blocks that are too old are dropped. And who may begin, of all that the maintaining
 * thread does (turn_take).
 *
 * One job at a time, as a state machine that storage_maintain advances by a slice a call:
 *
 *     IDLE → BEGIN → GATHER → WRITE → FINISH → OPEN → PUBLISH → READERS → DROP → IDLE
 *
 * BEGIN and DROP touch what the storage thread owns, so it does them, between two groups
 * (storage__maintain_serve). BEGIN fixes what the block will hold: from then on samples of that time are late
 * and go to new windows, and all that are in the head or in the sealed windows were logged below `position`.
 * PUBLISH is the one step by which the block counts: the manifest names it and says what it covers, so that a
 * replay passes over it. Until READERS is over, selections that began before look at the head; those that
 * begin afterwards at the block.
 *
 * A failure anywhere before PUBLISH leaves everything as it was, and the job is tried again later. PUBLISH
 * itself is repeated until it succeeds: a manifest that could not be synced may count or not. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/array.h"
#include "base/assert.h"
#include "base/kill_point.h"
#include "base/log.h"
#include "base/metrics.h"
#include "base/mutation.h"
#include "base/rand.h"
#include "storage/storage_private.h"

#define RETRY_MS_MAX 60000
#define GATHER_SLOTS 16384u
#define WRITE_SERIES 64u
#define DROP_SLOTS   16384u
#define SHARD_NONE   255
/* The head's chunks of a shard lie in one partition of the chunk log (storage.c, partition). */
#define SHARDS_PER_PARTITION (BLOCK_SHARDS / CHUNKLOG_PARTITIONS)

/* Whose turn it is to begin, when nothing is under way. */
enum turn { TURN_SNAPSHOT, TURN_COPY, TURN_BLOCK, TURN_BACKGROUND, TURNS };

enum phase {
    PHASE_IDLE,
    PHASE_BEGIN,
    PHASE_GATHER,
    PHASE_WRITE,
    PHASE_FINISH,
    PHASE_OPEN,
    PHASE_PUBLISH,
    PHASE_READERS,
    PHASE_DROP
};

struct maintain {
    enum phase phase;
    atomic_bool asked; /* the storage thread has something to do for us: phase BEGIN or DROP */
    struct retry retry, chunks_retry;
    struct rand rand;
    uint64_t started_ns;

    enum turn turn;    /* looked at first */
    uint32_t spent;    /* slices of other jobs since the background had some */
    uint32_t left;     /* slices that it has yet */
    bool cleaned_last; /* a block was, rather than some merged */

    /* the job: [begin, end) of time */
    bool cuts; /* the head's windows too; else late windows only */
    int64_t begin_ms;
    int64_t end_ms;
    wal_position position;
    wal_position log_begin;
    struct late_window **lates; /* sealed, by time */
    size_t late_count;

    struct storage_block *block;
    char *dir;
    struct block_writer *writer;
    uint8_t *shards; /* by slot */
    uint32_t slot_end;
    uint32_t slot;
    unsigned shard;
    uint32_t *slots; /* of the shard, in the order of a block */
    size_t slot_count, slot_capacity, slot_at;
    uint32_t drop_slot;
    uint64_t lost; /* series of which a chunk could not be read */

    /* of the series being written */
    struct buf labels, open_bits;
    struct head_chunk *head_chunks;
    size_t head_chunk_capacity;
    struct encoder encoder;
    struct sample_columns columns, late_columns;
};

int storage__maintain_new(struct storage *storage) {
    struct maintain *m = mem_zalloc(sizeof *m);
    if (m == NULL)
        return STATUS_NO_MEMORY;
    rand_init(&m->rand, storage->options.seed ^ UINT64_C(0x9e3779b97f4a7c15));
    buf_init(&m->labels);
    buf_init(&m->open_bits);
    storage->maintain = m;
    return STATUS_OK;
}

static void job_release(struct storage *storage) {
    struct maintain *m = storage->maintain;
    block_writer_close(m->writer);
    m->writer = NULL;
    if (m->block != NULL) {
        block_close(m->block->block);
        mem_free(m->block);
        m->block = NULL;
    }
    mem_free(m->dir);
    mem_free(m->shards);
    mem_free(m->slots);
    mem_free(m->lates);
    m->dir = NULL;
    m->shards = NULL;
    m->slots = NULL;
    m->slot_count = m->slot_capacity = 0;
    m->lates = NULL;
    m->late_count = 0;
    m->lost = 0;
    m->phase = PHASE_IDLE;
}

void storage__maintain_free(struct storage *storage) {
    struct maintain *m = storage->maintain;
    if (m == NULL)
        return;
    job_release(storage);
    buf_release(&m->labels);
    buf_release(&m->open_bits);
    storage__encoder_release(&m->encoder);
    mem_free(m->head_chunks);
    sample_columns_release(&m->columns);
    sample_columns_release(&m->late_columns);
    mem_free(m);
    storage->maintain = NULL;
}

/* Everything as before the job; it comes again later. */
static void job_fail(struct storage *storage, int64_t now_ms, const char *what,
                     const struct error_detail *detail) {
    struct maintain *m = storage->maintain;
    for (size_t i = 0; i < m->late_count; i++)
        late_unseal(m->lates[i]);
    retry_longer(&m->retry, now_ms, RETRY_MS_MAX);
    metric_add(METRIC_maintain_errors, 1);
    log_warn("a block could not be written; trying again", LOG_STR("step", what),
             LOG_STR("error", detail->text), LOG_I64("retry_ms", m->retry.delay_ms));
    job_release(storage);
}

/* ---- windows of time ---- */

struct late_range storage__window_of(int64_t time_ms, int64_t window_ms) {
    int64_t number = time_ms / window_ms - (time_ms % window_ms < 0);
    struct late_range range = {INT64_MIN, INT64_MAX};
    int64_t begin_ms, end_ms;
    if (!__builtin_mul_overflow(number, window_ms, &begin_ms))
        range.begin_ms = begin_ms;
    if (!__builtin_mul_overflow(number + 1, window_ms, &end_ms))
        range.end_ms = end_ms;
    return range;
}

int64_t storage__over_ms(const struct storage *storage, int64_t now_ms) {
    const struct limits *limits = storage->options.limits;
    return storage__window_of(now_ms - (int64_t)limits->window_grace_ms, (int64_t)limits->window_ms).begin_ms;
}

struct late_range storage__range_for(const struct storage *storage, int64_t time_ms, int64_t now_ms) {
    int64_t window_ms = (int64_t)storage->options.limits->window_ms;
    int64_t max_ms = INT64_C(31) * 24 * 3600 * 1000;
    if (storage->options.limits->retention_ms / 10 != 0 &&
        (int64_t)(storage->options.limits->retention_ms / 10) < max_ms)
        max_ms = (int64_t)(storage->options.limits->retention_ms / 10);
    uint64_t age_ms = now_ms > time_ms ? (uint64_t)now_ms - (uint64_t)time_ms : 0;
    int64_t range_ms = window_ms;
    while (range_ms <= max_ms / 3 && age_ms / 12 > (uint64_t)range_ms * 3)
        range_ms *= 3;
    return storage__window_of(time_ms, range_ms);
}

/* ---- BEGIN and DROP: the storage thread ---- */

static void begin(struct storage *storage) {
    struct maintain *m = storage->maintain;
    m->position = wal_durable(storage->wal);
    m->log_begin = wal_begin(storage->wal);
    m->slot_end = series_slot_end(storage->series);
    if (m->cuts && m->end_ms > storage->apply_cut_ms)
        storage->apply_cut_ms = m->end_ms;
    size_t count = late_count(storage->late);
    /* What the block covers must hold each window whole: after a failure one may overlap others. */
    for (bool again = !m->cuts; again;) {
        again = false;
        for (size_t i = 0; i < count; i++) {
            struct late_info info;
            late_info(late_at(storage->late, i), &info);
            if (info.range.begin_ms >= m->end_ms || info.range.end_ms <= m->begin_ms ||
                (info.range.begin_ms >= m->begin_ms && info.range.end_ms <= m->end_ms))
                continue;
            if (info.range.begin_ms < m->begin_ms)
                m->begin_ms = info.range.begin_ms;
            if (info.range.end_ms > m->end_ms)
                m->end_ms = info.range.end_ms;
            again = true;
        }
    }
    m->lates = mem_alloc((count + 1) * sizeof *m->lates);
    m->late_count = 0;
    if (m->lates == NULL)
        return; /* seen by whoever asked */
    for (size_t i = 0; i < count; i++) {
        struct late_window *window = late_at(storage->late, i);
        struct late_info info;
        late_info(window, &info);
        if (info.range.begin_ms < m->begin_ms || info.range.end_ms > m->end_ms)
            continue;
        late_seal(window);
        size_t at = m->late_count++;
        for (; at > 0; at--) {
            struct late_info before;
            late_info(m->lates[at - 1], &before);
            if (before.range.begin_ms <= info.range.begin_ms)
                break;
            m->lates[at] = m->lates[at - 1];
        }
        m->lates[at] = window;
    }
}

static void windows_forget(struct storage *storage, int64_t end_ms) {
    size_t kept = 0;
    for (size_t i = 0; i < storage->window_count; i++)
        if (storage->windows[i].begin_ms >= end_ms)
            storage->windows[kept++] = storage->windows[i];
    storage->window_count = kept;
    storage->window_noted = (struct late_range){0, 0};
}

/* No sample of the head is older. */
static int64_t windows_oldest(const struct storage *storage) {
    int64_t oldest_ms = INT64_MAX;
    for (size_t i = 0; i < storage->window_count; i++)
        if (storage->windows[i].begin_ms < oldest_ms)
            oldest_ms = storage->windows[i].begin_ms;
    return oldest_ms;
}

/* True when all is done. */
static bool drop(struct storage *storage) {
    struct maintain *m = storage->maintain;
    if (m->cuts && m->drop_slot != UINT32_MAX) {
        if (m->drop_slot == 0)
            windows_forget(storage, m->end_ms);
        hidden_forget(storage->hidden, m->drop_slot, DROP_SLOTS, m->end_ms);
        m->drop_slot = head_drop(storage->head, m->drop_slot, DROP_SLOTS, m->end_ms, windows_oldest(storage));
        if (m->drop_slot == UINT32_MAX)
            chunklog_drop(storage->chunklog, m->end_ms);
        KILL_POINT("window_dropped");
        return false;
    }
    if (m->late_count > 0) {
        late_drop(storage->late, m->lates[--m->late_count]);
        return false;
    }
    if (m->cuts && m->end_ms > storage->dropped_ms)
        storage->dropped_ms = m->end_ms;
    storage->retire_due = true;
    wal_drop_before(storage->wal, storage__log_needed(storage));
    KILL_POINT("block_log_dropped");
    return true;
}

bool storage__maintain_asks(const struct storage *storage) {
    return atomic_load_explicit(&storage->maintain->asked, memory_order_acquire);
}

bool storage__maintain_serve(struct storage *storage) {
    struct maintain *m = storage->maintain;
    if (!storage__maintain_asks(storage))
        return false;
    if (m->phase == PHASE_BEGIN)
        begin(storage);
    else if (!drop(storage))
        return true;
    atomic_store_explicit(&m->asked, false, memory_order_release);
    storage__maintain_poke(storage);
    return true;
}

wal_position storage__log_needed(const struct storage *storage) {
    wal_position needed = wal_durable(storage->wal), deletes = storage__deletes_needed(storage);
    if (storage->snapshot_position > 0 && storage->snapshot_position < needed)
        needed = storage->snapshot_position;
    if (storage->snapshot_spare)
        return deletes < needed ? deletes : needed;
    uint64_t late = late_position_first(storage->late);
    if (late < needed)
        needed = late;
    for (size_t i = 0; i < storage->window_count; i++)
        if (storage->windows[i].position < needed)
            needed = storage->windows[i].position;
    return deletes < needed ? deletes : needed;
}

static void ask(struct storage *storage, enum phase phase) {
    struct maintain *m = storage->maintain;
    m->phase = phase;
    atomic_store_explicit(&m->asked, true, memory_order_release);
    storage__poke(storage);
}

/* ---- IDLE: what is to be done? ---- */

/* The oldest window of the head that is over, with time for latecomers. */
static bool cut_due(struct storage *storage, int64_t now_ms) {
    struct maintain *m = storage->maintain;
    const struct limits *limits = storage->options.limits;
    int64_t oldest_ms, newest_ms;
    head_range(storage->head, &oldest_ms, &newest_ms);
    if (oldest_ms > newest_ms)
        return false;
    int64_t cut_ms = storage->manifest.cut_ms;
    if (oldest_ms < cut_ms)
        oldest_ms = cut_ms;
    if (oldest_ms > newest_ms)
        return false;
    struct late_range range = storage__range_for(storage, oldest_ms, now_ms);
    struct late_range newest = storage__window_of(newest_ms, (int64_t)limits->window_ms);
    int64_t over_ms = now_ms - (int64_t)limits->window_grace_ms;
    /* A long range must not reach behind what there is, nor into what is not over. */
    if (range.end_ms > newest.end_ms)
        range.end_ms = newest.end_ms;
    if (range.end_ms > over_ms)
        range = storage__window_of(oldest_ms, (int64_t)limits->window_ms);
    if (range.end_ms > over_ms)
        return false;
    m->cuts = true;
    m->begin_ms = cut_ms;
    m->end_ms = range.end_ms;
    return true;
}

/* A late window of a time that is cut already, if it is old, or the largest if there are too many. */
static bool late_due(struct storage *storage, int64_t now_ms) {
    struct maintain *m = storage->maintain;
    const struct limits *limits = storage->options.limits;
    struct late_info best = {0};
    if (!late_pick(storage->late, storage->manifest.cut_ms, now_ms - (int64_t)limits->late_ms_max,
                   limits->late_bytes_max, &best))
        return false;
    m->cuts = false;
    m->begin_ms = best.range.begin_ms;
    m->end_ms = best.range.end_ms;
    return true;
}

/* Blocks that are over: older than retention, or the oldest while all are larger than retention_bytes. */
static bool retention_run(struct storage *storage, int64_t now_ms) {
    const struct limits *limits = storage->options.limits;
    struct manifest *manifest = &storage->manifest;
    int64_t oldest_ms, newest_ms;
    head_range(storage->head, &oldest_ms, &newest_ms);
    uint64_t bytes = 0;
    for (size_t i = 0; i < manifest->block_count; i++) {
        bytes += manifest->blocks[i].bytes;
        if (manifest->blocks[i].time_max_ms > newest_ms)
            newest_ms = manifest->blocks[i].time_max_ms;
    }
    /* A clock that jumps ahead drops nothing: what counts is the newest sample, if that is older. */
    int64_t from_ms = newest_ms < now_ms ? newest_ms : now_ms;
    const struct manifest_block *victim = NULL;
    for (size_t i = 0; i < manifest->block_count; i++) {
        const struct manifest_block *block = &manifest->blocks[i];
        bool old = limits->retention_ms != 0 && from_ms > INT64_MIN + (int64_t)limits->retention_ms &&
                   block->time_max_ms < from_ms - (int64_t)limits->retention_ms;
        bool much = limits->retention_bytes != 0 && bytes > limits->retention_bytes;
        if ((old || much) && (victim == NULL || block->time_max_ms < victim->time_max_ms))
            victim = block;
    }
    if (victim == NULL)
        return false;
    uint64_t id = victim->id;
    struct manifest next;
    if (manifest_copy(manifest, &next) < 0)
        return false;
    next.generation++;
    manifest_block_remove(&next, id);
    struct error_detail detail = {0};
    /* Whether a failed store counts or not: the block is only named once more, or looked for in vain at the
     * next start. */
    int status = storage__manifest_store(storage, &next, &detail);
    KILL_POINT("retention_stored");
    if (status == STATUS_OK)
        status = storage__version_change(storage, &id, 1, NULL, storage->version->cut_ms);
    if (status < 0) {
        manifest_release(&next);
        retry_after(&storage->maintain->retry, now_ms, RETRY_MS_MIN);
        return false;
    }
    manifest_release(manifest);
    *manifest = next;
    metric_add(METRIC_blocks_dropped, 1);
    log_info("block dropped: out of retention", LOG_U64("id", id));
    return true;
}

/* A block to be dropped or made. After a cut late samples come first: neither waits for all of the other. */
static bool job_choose(struct storage *storage, int64_t now_ms) {
    struct maintain *m = storage->maintain;
    if (retry_waits(&m->retry, now_ms))
        return false;
    if (retention_run(storage, now_ms))
        return true;
    if (!storage__deletes_proven(storage))
        return false; /* what the next start may not find must not be left out of a block */
    bool due = m->cuts ? late_due(storage, now_ms) || cut_due(storage, now_ms)
                       : cut_due(storage, now_ms) || late_due(storage, now_ms);
    if (!due)
        return false;
    m->started_ns = clock_monotonic_ns(storage->options.clock);
    ask(storage, PHASE_BEGIN);
    return true;
}

/* A slice of what is in no hurry. One job is ended before another begins: a merge and a block written anew
 * would throw away each other's work. */
static bool background(struct storage *storage, int64_t now_ms) {
    struct maintain *m = storage->maintain;
    storage__scrub_step(storage, now_ms);
    if (storage__version_prepare(storage))
        return true;
    bool proven = storage__deletes_proven(storage);
    if (storage__compact_runs(storage) && storage__compact(storage, now_ms))
        return true;
    if (storage__clean_runs(storage) && proven && storage__clean_step(storage, now_ms))
        return true;
    for (int i = 0; i < 2; i++) {
        bool cleans = m->cleaned_last == (i == 1);
        bool did =
            cleans ? proven && storage__clean_step(storage, now_ms) : storage__compact(storage, now_ms);
        if (did) {
            m->cleaned_last = cleans;
            return true;
        }
    }
    return false;
}

/* One job at a time, in turns: whatever never ends to be due, the others begin in between, and what goes on
 * in the background has as many slices as they had. */
static bool turn_take(struct storage *storage, int64_t now_ms) {
    static bool (*const choose[TURNS])(struct storage *, int64_t) = {
        [TURN_SNAPSHOT] = storage__snapshot_step,
        [TURN_COPY] = storage__copy_step,
        [TURN_BLOCK] = job_choose,
        [TURN_BACKGROUND] = background,
    };
    struct maintain *m = storage->maintain;
    if (storage__snapshot_runs(storage) || storage__copy_runs(storage)) {
        m->spent++;
        return storage__snapshot_runs(storage) ? storage__snapshot_step(storage, now_ms)
                                               : storage__copy_step(storage, now_ms);
    }
    /* Deletes may come faster than they are saved: that puts off nothing. */
    bool saved = storage__deletes_save(storage, now_ms);
    storage__ballast_step(storage, now_ms);
    for (unsigned i = 0; i < TURNS; i++) {
        enum turn turn = (m->turn + i) % TURNS;
        if (!choose[turn](storage, now_ms))
            continue;
        if (turn != TURN_BACKGROUND) {
            m->turn = turn + 1;
            m->spent++;
        } else {
            if (m->turn != TURN_BACKGROUND || m->left == 0)
                m->left = m->spent > 0 ? m->spent : 1;
            m->spent = 0;
            m->left--;
            m->turn = m->left > 0 ? TURN_BACKGROUND : TURN_SNAPSHOT;
        }
        return true;
    }
    return saved;
}

/* ---- GATHER: which series ---- */

static int gather_start(struct storage *storage, struct error_detail *detail) {
    struct maintain *m = storage->maintain;
    int status = STATUS_OK;
    uint64_t id = storage->manifest.block_next++; /* never twice, whatever becomes of this attempt */
    m->slot = 0;
    m->shard = 0;
    m->slot_at = m->slot_count = 0;
    m->drop_slot = 0;
    m->shards = mem_alloc(m->slot_end);
    m->block = mem_zalloc(sizeof *m->block);
    m->dir = storage__block_dir(storage, id);
    if (m->lates == NULL || m->shards == NULL || m->block == NULL || m->dir == NULL)
        return error_set(detail, STATUS_NO_MEMORY, "out of memory");
    m->block->info.id = id;
    memset(m->shards, SHARD_NONE, m->slot_end);
    struct block_writer_options options = {
        .io = storage->options.io_maintain,
        .dir = m->dir,
        .id = id,
        .level = 1,
        .salt = rand_u64(&m->rand),
        .time_base_ms = m->begin_ms == INT64_MIN ? m->end_ms : m->begin_ms,
        .position_base = m->position,
    };
    TRY(block_writer_open(&options, detail, &m->writer));
    m->phase = PHASE_GATHER;
out:
    return status;
}

static bool slot_has(struct storage *storage, uint32_t slot) {
    struct maintain *m = storage->maintain;
    if (m->cuts && head_overlaps(storage->head, slot, m->begin_ms, m->end_ms - 1))
        return true;
    return m->late_count > 0 && late_overlaps(storage->late, slot, m->begin_ms, m->end_ms - 1);
}

static int gather(struct storage *storage) {
    struct maintain *m = storage->maintain;
    for (uint32_t i = 0; i < GATHER_SLOTS && m->slot < m->slot_end; i++, m->slot++) {
        if (!slot_has(storage, m->slot))
            continue;
        buf_clear(&m->labels);
        series_labels_append(storage->series, m->slot, &m->labels);
        if (m->labels.failed)
            return STATUS_NO_MEMORY;
        m->shards[m->slot] = (uint8_t)block_shard_of_labels(buf_slice(&m->labels));
    }
    if (m->slot == m->slot_end)
        m->phase = PHASE_WRITE;
    return STATUS_OK;
}

/* ---- WRITE: shard by shard, series by series ---- */

static int slot_order(const void *a, const void *b, void *context) {
    return series_labels_order(context, *(const uint32_t *)a, *(const uint32_t *)b);
}

static int shard_list(struct storage *storage) {
    struct maintain *m = storage->maintain;
    m->slot_count = m->slot_at = 0;
    for (uint32_t slot = 0; slot < m->slot_end; slot++) {
        if (m->shards[slot] != m->shard)
            continue;
        uint32_t *slots = array_ensure(m->slots, &m->slot_capacity, m->slot_count + 1, sizeof *slots);
        if (slots == NULL)
            return STATUS_NO_MEMORY;
        m->slots = slots;
        m->slots[m->slot_count++] = slot;
    }
    if (m->slot_count > 0)
        qsort_r(m->slots, m->slot_count, sizeof *m->slots, slot_order, storage->series);
    return STATUS_OK;
}

/* Late samples between those of the head; the head's were logged first. */
static int columns_merge(const struct sample_columns *head, const struct sample_columns *late,
                         struct sample_columns *out) {
    int status = sample_columns_reserve(out, head->count + late->count);
    if (status < 0)
        return status;
    out->has_starts = head->has_starts || late->has_starts;
    size_t i = 0, j = 0;
    while (i < head->count || j < late->count) {
        bool from_head = j == late->count || (i < head->count && head->times_ms[i] <= late->times_ms[j]);
        const struct sample_columns *from = from_head ? head : late;
        size_t at = from_head ? i++ : j++;
        if (out->count > 0 && out->times_ms[out->count - 1] == from->times_ms[at])
            continue;
        out->times_ms[out->count] = from->times_ms[at];
        out->values[out->count] = from->values[at];
        out->starts_ms[out->count++] = from->has_starts ? from->starts_ms[at] : START_NONE;
    }
    return STATUS_OK;
}

static int series_write(struct storage *storage, uint32_t slot, struct error_detail *detail) {
    struct maintain *m = storage->maintain;
    struct encoder *encoder = &m->encoder;
    int status = STATUS_OK;
    size_t head_count = 0;
    struct sample_columns merged = {0};
    storage__encoder_clear(encoder);
    if (m->cuts) {
        struct head_damage damage;
        TRY(head_chunks(storage->head, slot, m->begin_ms, m->end_ms, &m->head_chunks, &head_count,
                        &m->head_chunk_capacity, &m->open_bits, &damage));
        metric_add(METRIC_chunklog_damage, damage.count);
        if (damage.count > 0 && m->lost++ == 0)
            storage__loss_add(storage, m->begin_ms, m->end_ms - 1, "head/%08" PRIx32 ".chunks",
                              chunk_ref_file(damage.ref));
    }
    m->late_columns.count = 0;
    m->late_columns.has_starts = 0;
    for (size_t i = 0; i < m->late_count; i++)
        TRY(late_window_read(m->lates[i], slot, m->begin_ms, m->end_ms - 1, &m->late_columns));
    TRY(late_columns_sort(&m->late_columns, 0)); /* windows may overlap after a failed attempt */
    bool hides = hidden_touches(storage->hidden, slot, INT64_MIN, m->end_ms - 1) && !MUTATED(CUT_DELETED);
    if (m->late_columns.count == 0 && !hides) {
        for (size_t i = 0; i < head_count; i++) {
            const struct head_chunk *chunk = &m->head_chunks[i];
            TRY(storage__encoder_copy(encoder, &(struct block_chunk){.time_min_ms = chunk->time_min_ms,
                                                                     .time_max_ms = chunk->time_max_ms,
                                                                     .info = chunk->info,
                                                                     .log_position = m->position,
                                                                     .bits = chunk->bits}));
        }
    } else {
        m->columns.count = 0;
        m->columns.has_starts = 0;
        for (size_t i = 0; i < head_count; i++)
            TRY(chunk_decode(m->head_chunks[i].bits, m->head_chunks[i].info, INT64_MIN, INT64_MAX,
                             &m->columns));
        hidden_filter(storage->hidden, slot, &m->columns, 0);
        TRY(columns_merge(&m->columns, &m->late_columns, &merged));
        TRY(storage__encoder_add(encoder, &merged, m->position));
    }
    if (encoder->count > 0) {
        buf_clear(&m->labels);
        series_labels_append(storage->series, slot, &m->labels);
        if (m->labels.failed) {
            status = STATUS_NO_MEMORY;
            goto out;
        }
        TRY(block_writer_add(m->writer, buf_slice(&m->labels), series_id(storage->series, slot),
                             storage__encoder_chunks(encoder), encoder->count, detail));
    }
out:
    sample_columns_release(&merged);
    return status;
}

static int write_slice(struct storage *storage, struct error_detail *detail) {
    struct maintain *m = storage->maintain;
    int status = STATUS_OK;
    for (uint32_t i = 0; i < WRITE_SERIES; i++) {
        if (m->slot_at < m->slot_count) {
            TRY(series_write(storage, m->slots[m->slot_at++], detail));
            KILL_POINT("block_half");
            continue;
        }
        if (m->shard == BLOCK_SHARDS) {
            if (m->cuts)
                chunklog_unneed(storage->chunklog, CHUNKLOG_PARTITIONS - 1, m->end_ms);
            m->phase = PHASE_FINISH;
            break;
        }
        if (m->cuts && m->shard % SHARDS_PER_PARTITION == 0 && m->shard > 0) /* shards come in order */
            chunklog_unneed(storage->chunklog, m->shard / SHARDS_PER_PARTITION - 1, m->end_ms);
        TRY(shard_list(storage));
        m->shard++;
    }
out:
    return status;
}

/* ---- FINISH, OPEN, PUBLISH ---- */

static int finish(struct storage *storage, struct error_detail *detail) {
    struct maintain *m = storage->maintain;
    if (block_writer_meta(m->writer)->series_count == 0) {
        /* nothing in it after all: the window is only closed */
        block_writer_close(m->writer);
        m->writer = NULL;
        mem_free(m->block);
        m->block = NULL;
        m->phase = PHASE_PUBLISH;
        return STATUS_OK;
    }
    int status = block_writer_step(m->writer, detail);
    if (status == STATUS_END)
        m->phase = PHASE_OPEN;
    return status < 0 ? status : STATUS_OK;
}

static int open_written(struct storage *storage, struct error_detail *detail) {
    struct maintain *m = storage->maintain;
    const struct block_meta *meta = block_writer_meta(m->writer);
    m->block->info = (struct manifest_block){
        .id = meta->id,
        .level = meta->level,
        .time_min_ms = meta->time_min_ms,
        .time_max_ms = meta->time_max_ms,
        .position = m->position,
        .deleted_to = m->position,
        .series_count = meta->series_count,
        .sample_count = meta->sample_count,
        .bytes = meta->chunks.bytes + meta->index.bytes + meta->index_sum.bytes,
    };
    atomic_init(&m->block->deleted_to, m->position);
    /* After a start the durable position may lie below what it was, until what was carried over is durable
     * again. What comes later must not stand before what was logged first. */
    for (size_t i = 0; i < storage->manifest.block_count; i++)
        if (storage->manifest.blocks[i].position > m->block->info.position)
            m->block->info.position = storage->manifest.blocks[i].position;
    /* From here on the writer has nothing to remove any more: what fails now is removed below. */
    int status = block_open(storage->options.io_maintain, m->dir, detail, &m->block->block);
    if (status < 0) {
        block_writer_close(m->writer);
        m->writer = NULL;
        storage__block_remove(storage->options.io_maintain, m->dir);
        return status;
    }
    block_writer_close(m->writer);
    m->writer = NULL;
    m->phase = PHASE_PUBLISH;
    KILL_POINT(m->cuts ? "block_written" : "late_written");
    return STATUS_OK;
}

static int publish(struct storage *storage, struct error_detail *detail) {
    struct maintain *m = storage->maintain;
    struct manifest next;
    int status = manifest_copy(&storage->manifest, &next);
    if (status < 0)
        return status;
    next.generation++;
    next.id_next = series_id_next(storage->series);
    if (m->cuts)
        next.cut_ms = m->end_ms;
    manifest_covered_prune(&next, m->log_begin);
    const struct manifest_covered covered = {m->begin_ms, m->end_ms, m->position};
    TRY(manifest_covered_add(&next, &covered));
    if (m->block != NULL)
        TRY(manifest_block_add(&next, &m->block->info));
    TRY(storage__manifest_store(storage, &next, detail));
    KILL_POINT(m->cuts ? "block_stored" : "late_stored");
    TRY(storage__version_change(storage, NULL, 0, m->block, next.cut_ms));
    manifest_release(&storage->manifest);
    storage->manifest = next;
    metric_add(m->cuts ? METRIC_blocks_cut : METRIC_blocks_late, m->block != NULL);
    metric_add(m->cuts ? METRIC_block_written_cut : METRIC_block_written_late,
               m->block == NULL ? 0 : m->block->info.bytes);
    metric_observe_ns(METRIC_cut_seconds, clock_monotonic_ns(storage->options.clock) - m->started_ns);
    if (m->block != NULL)
        log_info("block written", LOG_U64("id", m->block->info.id),
                 LOG_U64("series", m->block->info.series_count),
                 LOG_U64("samples", m->block->info.sample_count), LOG_U64("bytes", m->block->info.bytes),
                 LOG_STR("of", m->cuts ? "head" : "late samples"));
    m->block = NULL; /* the version's */
    m->phase = PHASE_READERS;
    return STATUS_OK;
out:
    manifest_release(&next);
    return status;
}

/* ---- the chunk log ---- */

/* Writes what is full of it, whatever else goes on. */
static bool chunks_write(struct storage *storage, int64_t now_ms) {
    struct maintain *m = storage->maintain;
    struct error_detail detail = {0};
    bool more;
    if (retry_waits(&m->chunks_retry, now_ms))
        return false;
    int status = chunklog_write(storage->chunklog, &more, &detail);
    if (status == STATUS_OK)
        return more;
    retry_after(&m->chunks_retry, now_ms, RETRY_MS_MIN);
    metric_add(METRIC_maintain_errors, 1);
    log_warn("sealed chunks could not be written and stay in memory; trying again",
             LOG_STR("error", detail.text[0] != '\0' ? detail.text : status_message(status)));
    return false;
}

/* ---- one step ---- */

bool storage_maintain(struct storage *storage, int64_t now_ms) {
    struct maintain *m = storage->maintain;
    int status = STATUS_OK;
    struct error_detail detail = {0};
    const char *what = "";
    storage__version_sweep(storage);
    bool more = chunks_write(storage, now_ms);
    if (atomic_load_explicit(&m->asked, memory_order_acquire))
        return more; /* the storage thread is at it */
    m->spent += m->phase != PHASE_IDLE;
    switch (m->phase) {
    case PHASE_IDLE:
        return turn_take(storage, now_ms) || more;
    case PHASE_BEGIN:
        what = "begin";
        status = gather_start(storage, &detail);
        break;
    case PHASE_GATHER:
        what = "gather";
        status = gather(storage);
        break;
    case PHASE_WRITE:
        what = "write";
        status = write_slice(storage, &detail);
        break;
    case PHASE_FINISH:
        what = "finish";
        status = finish(storage, &detail);
        break;
    case PHASE_OPEN:
        what = "open";
        status = open_written(storage, &detail);
        break;
    case PHASE_PUBLISH:
        if (retry_waits(&m->retry, now_ms))
            return false;
        if (publish(storage, &detail) < 0) {
            retry_after(&m->retry, now_ms, RETRY_MS_MIN);
            metric_add(METRIC_maintain_errors, 1);
            log_warn("the manifest could not be written; trying again", LOG_STR("error", detail.text));
            return false;
        }
        return true;
    case PHASE_READERS:
        if (storage__version_old_in_use(storage))
            return false;
        ask(storage, PHASE_DROP);
        return true;
    case PHASE_DROP:
        retry_done(&m->retry);
        job_release(storage);
        return true;
    }
    if (status < 0) {
        error_set(&detail, status, "%s", status_message(status));
        job_fail(storage, now_ms, what, &detail);
    }
    return true;
}
