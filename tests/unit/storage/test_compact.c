/* test_compact.c: merging blocks against a naive model: a table of samples for each series and input, merged
 * by hand. Random inputs that overlap, conflict, repeat and are deleted from; on a real and on a simulated
 * disk; with everything failing; given up halfway. */
#include <fcntl.h>

#include "base/bytes.h"
#include "base/log.h"
#include "storage/compact/compact.h"
#include "storage/io/io_sim.h"
#include "test_block_model.h"
#include "tests/lib/chunk_grow.h"
#include "tests/lib/fault.h"

#define INPUTS_MAX  6
#define SERIES_MAX  12
#define SAMPLES_MAX 2000
#define DELETES_MAX 3

struct kept {
    struct sample sample;
    int64_t start_ms;
    bool deleted;
};

/* What one input has of one series, ascending. */
struct table {
    struct kept *samples;
    size_t count;
};

struct case_ {
    struct io *io;
    char parent[64];
    char dirs[INPUTS_MAX + 1][96]; /* the last is the result's */
    struct rand rand;
    size_t inputs, series;
    struct table tables[INPUTS_MAX][SERIES_MAX];
    struct deleted {
        struct span spans[SERIES_MAX][DELETES_MAX]; /* by ordinal */
        size_t counts[SERIES_MAX];
    } deleted[INPUTS_MAX];
    bool deletes;
    struct block *blocks[INPUTS_MAX];
};

static void series_labels(size_t series, struct buf *out) {
    char text[24];
    buf_clear(out);
    label_bytes_append(out, slice_str("__name__"), slice_str(series % 3 == 0 ? "a" : "b"));
    snprintf(text, sizeof text, "%zu", series);
    label_bytes_append(out, slice_str("i"), slice_str(text));
}

/* The numbers of the series in the order of a block. */
static void series_sorted(size_t count, size_t *order) {
    for (size_t i = 0; i < count; i++) {
        struct buf a, b;
        buf_init(&a);
        buf_init(&b);
        size_t at = i;
        series_labels(i, &a);
        for (; at > 0; at--) {
            series_labels(order[at - 1], &b);
            if (block_series_order(buf_slice(&b), buf_slice(&a)) < 0)
                break;
            order[at] = order[at - 1];
        }
        order[at] = i;
        buf_release(&a);
        buf_release(&b);
    }
}

static uint64_t position_of(size_t input) {
    return (uint64_t)1 << 32 | (input + 1) * 100;
}

/* ---- Inputs ------------------------------------------------------------------------------------------- */

static void table_random(struct case_ *c, size_t input, size_t series) {
    struct table *table = &c->tables[input][series];
    struct rand *rand = &c->rand;
    table->samples = mem_zalloc(SAMPLES_MAX * sizeof *table->samples);
    table->count = 0;
    if (rand_below(rand, 5) == 0)
        return;
    size_t count = rand_below(rand, 4) == 0 ? 1 + (size_t)rand_below(rand, 5)
                                            : 1 + (size_t)rand_below(rand, SAMPLES_MAX - 1);
    /* side by side, one over the other, or anywhere */
    int64_t time_ms =
        1000000 + (rand_below(rand, 2) ? (int64_t)input * 2000000 : (int64_t)rand_below(rand, 4000000));
    unsigned step = rand_below(rand, 2) ? 1000 : 1 + (unsigned)rand_below(rand, 5000);
    bool starts = rand_below(rand, 4) == 0;
    for (size_t i = 0; i < count; i++) {
        double value = (double)(time_ms / 1000 % 50);
        struct sample sample = {time_ms - time_ms % 100, double_bits(value)};
        if (rand_below(rand, 20) == 0)
            sample.value_bits = rand_below(rand, 2) ? STALE_NAN_BITS : rand_u64(rand);
        table->samples[table->count++] =
            (struct kept){sample, starts && i > 10 ? 500 + (int64_t)(i / 100) : START_NONE, false};
        time_ms += 100 + (int64_t)rand_below(rand, step);
        if (rand_below(rand, 200) == 0)
            time_ms += 500000;
    }
}

/* Writes chunks of random lengths. */
static void table_encode(struct case_ *c, size_t input, const struct table *table, struct block_chunk *chunks,
                         size_t *count_out) {
    size_t count = 0;
    size_t usual = rand_below(&c->rand, 2) ? CHUNK_SAMPLES_MAX : 1 + rand_below(&c->rand, CHUNK_SAMPLES_MAX);
    for (size_t i = 0; i < table->count;) {
        struct chunk_open open = {0};
        size_t samples = rand_below(&c->rand, 8) == 0 ? 1 + rand_below(&c->rand, 5) : usual;
        chunks[count].time_min_ms = table->samples[i].sample.time_ms;
        for (size_t k = 0; k < samples && i < table->count; k++, i++)
            assert_int_equal(
                chunk_append(&open, table->samples[i].sample, table->samples[i].start_ms, chunk_grow, NULL),
                STATUS_OK);
        struct slice bits = chunk_bytes(&open);
        chunks[count].time_max_ms = open.time_ms;
        chunks[count].info = open.info;
        chunks[count].log_position = position_of(input);
        chunks[count++].bits = bits; /* the buffer goes with it */
    }
    *count_out = count;
}

static void input_write(struct case_ *c, size_t input) {
    struct block_writer_options options = {.io = c->io,
                                           .dir = c->dirs[input],
                                           .id = input + 1,
                                           .level = 1 + (uint32_t)(input % 3),
                                           .salt = rand_u64(&c->rand),
                                           .position_base = position_of(0)};
    struct block_writer *writer;
    size_t order[SERIES_MAX];
    series_sorted(c->series, order);
    assert_int_equal(block_writer_open(&options, NULL, &writer), STATUS_OK);
    struct buf labels;
    buf_init(&labels);
    struct block_chunk *chunks = mem_alloc(SAMPLES_MAX * sizeof *chunks);
    for (size_t i = 0; i < c->series; i++) {
        size_t count;
        table_encode(c, input, &c->tables[input][order[i]], chunks, &count);
        series_labels(order[i], &labels);
        if (count > 0)
            assert_int_equal(block_writer_add(writer, buf_slice(&labels), (input + 1) * 1000 + order[i],
                                              chunks, count, NULL),
                             STATUS_OK);
        for (size_t k = 0; k < count; k++)
            mem_free((void *)(uintptr_t)chunks[k].bits.data);
    }
    mem_free(chunks);
    buf_release(&labels);
    int status;
    while ((status = block_writer_step(writer, NULL)) == STATUS_OK)
        ;
    assert_int_equal(status, STATUS_END);
    block_writer_close(writer);
    assert_int_equal(block_open_later(c->io, c->dirs[input], NULL, &c->blocks[input]), STATUS_OK);
}

/* Any spans of any series, and everything now and then. */
static void deletes_random(struct case_ *c, size_t input) {
    size_t order[SERIES_MAX], ordinal = 0;
    series_sorted(c->series, order);
    for (size_t i = 0; i < c->series; i++) {
        struct table *table = &c->tables[input][order[i]];
        if (table->count == 0)
            continue;
        struct deleted *deleted = &c->deleted[input];
        size_t at = ordinal++,
               count = rand_below(&c->rand, 2) ? 0 : (size_t)rand_below(&c->rand, DELETES_MAX + 1);
        for (size_t k = 0; k < count; k++) {
            int64_t from_ms = (int64_t)rand_below(&c->rand, 8000000);
            struct span span = {from_ms, from_ms + (int64_t)rand_below(&c->rand, 3000000)};
            if (rand_below(&c->rand, 4) == 0)
                span = (struct span){INT64_MIN, INT64_MAX};
            deleted->counts[at] = spans_add(deleted->spans[at], deleted->counts[at], span);
            for (size_t n = 0; n < table->count; n++) /* the model's own judgement */
                table->samples[n].deleted |= table->samples[n].sample.time_ms >= span.min_ms &&
                                             table->samples[n].sample.time_ms <= span.max_ms;
        }
    }
}

static size_t deleted_spans(void *context, uint32_t ordinal, const struct span **spans_out) {
    const struct deleted *deleted = context;
    assert_true(ordinal < SERIES_MAX);
    *spans_out = deleted->spans[ordinal];
    return deleted->counts[ordinal];
}

static void case_open(struct case_ *c, struct io *io, uint64_t seed) {
    memset(c, 0, sizeof *c);
    c->io = io;
    rand_init(&c->rand, seed);
    c->inputs = 1 + (size_t)rand_below(&c->rand, INPUTS_MAX);
    c->series = 1 + (size_t)rand_below(&c->rand, SERIES_MAX);
}

static void case_fill(struct case_ *c, bool deletes) {
    c->deletes = deletes;
    for (size_t i = 0; i <= INPUTS_MAX; i++)
        snprintf(c->dirs[i], sizeof c->dirs[i], "%s/%zu", c->parent, i);
    for (size_t i = 0; i < c->inputs; i++) {
        for (size_t s = 0; s < c->series; s++)
            table_random(c, i, s);
        input_write(c, i);
        if (deletes)
            deletes_random(c, i);
    }
}

static int remove_each(void *context, const char *name) {
    struct case_ *c = context;
    char path[192];
    for (size_t i = 0; i <= INPUTS_MAX; i++) {
        snprintf(path, sizeof path, "%s/%s", c->dirs[i], name);
        (void)io_remove(c->io, path);
    }
    return STATUS_OK;
}

static void case_close(struct case_ *c) {
    static const char *const files[] = {"chunks", "index.mdb", "index.sum", "meta.json"};
    for (size_t i = 0; i < c->inputs; i++) {
        block_close(c->blocks[i]);
        for (size_t s = 0; s < c->series; s++)
            mem_free(c->tables[i][s].samples);
    }
    for (size_t f = 0; f < 4; f++)
        remove_each(c, files[f]);
    for (size_t i = 0; i <= INPUTS_MAX; i++)
        (void)io_remove_dir(c->io, c->dirs[i]);
}

static void options_of(struct case_ *c, struct compact_options *options, struct compact_input *inputs) {
    for (size_t i = 0; i < c->inputs; i++)
        inputs[i] = (struct compact_input){c->blocks[i], c->deletes ? deleted_spans : NULL, &c->deleted[i]};
    *options = (struct compact_options){.io = c->io,
                                        .dir = c->dirs[INPUTS_MAX],
                                        .id = 99,
                                        .salt = 4711,
                                        .inputs = inputs,
                                        .input_count = c->inputs};
}

/* ---- The model's merge -------------------------------------------------------------------------------- */

struct expected {
    struct kept *samples;
    size_t count;
    uint64_t in, deleted, duplicates, conflicts;
};

static void expect(struct case_ *c, size_t series, struct expected *out) {
    out->samples = mem_alloc(INPUTS_MAX * SAMPLES_MAX * sizeof *out->samples);
    out->count = 0;
    for (size_t i = 0; i < c->inputs; i++)
        for (size_t k = 0; k < c->tables[i][series].count; k++) {
            const struct kept *kept = &c->tables[i][series].samples[k];
            out->in++;
            if (kept->deleted) {
                out->deleted++;
                continue;
            }
            size_t at = out->count;
            while (at > 0 && out->samples[at - 1].sample.time_ms > kept->sample.time_ms)
                at--;
            if (at > 0 && out->samples[at - 1].sample.time_ms == kept->sample.time_ms) {
                bool equal = out->samples[at - 1].sample.value_bits == kept->sample.value_bits &&
                             out->samples[at - 1].start_ms == kept->start_ms;
                out->duplicates += equal;
                out->conflicts += !equal;
                continue;
            }
            memmove(out->samples + at + 1, out->samples + at, (out->count - at) * sizeof *out->samples);
            out->samples[at] = *kept;
            out->count++;
        }
}

static void check_series(struct block *block, const struct block_series *series,
                         const struct expected *want) {
    struct sample_columns columns = {0};
    int64_t last_ms = INT64_MIN;
    for (size_t i = 0; i < series->chunk_count; i++) {
        struct block_chunk chunk;
        struct sample_columns one = {0};
        assert_int_equal(block_chunk_read(block, series->ordinal, &series->chunks[i], &chunk, NULL),
                         STATUS_OK);
        assert_true(i == 0 || chunk.time_min_ms > last_ms); /* they follow each other */
        last_ms = chunk.time_max_ms;
        assert_true(chunk.log_position >= position_of(0) && chunk.log_position <= position_of(INPUTS_MAX));
        assert_int_equal(chunk_decode(chunk.bits, chunk.info, INT64_MIN, INT64_MAX, &one), STATUS_OK);
        for (size_t k = 0; k < one.count; k++) {
            assert_true(columns.count < want->count);
            const struct kept *kept = &want->samples[columns.count++];
            assert_true(one.times_ms[k] == kept->sample.time_ms);
            assert_true(double_bits(one.values[k]) == kept->sample.value_bits);
            assert_true((one.has_starts ? one.starts_ms[k] : START_NONE) == kept->start_ms);
        }
        sample_columns_release(&one);
    }
    assert_int_equal(columns.count, want->count);
}

/* The result against the model, and what is counted. */
static void check_result(struct case_ *c, const struct compact_stats *stats) {
    struct block *block = NULL;
    struct block_cursor *cursor = NULL;
    size_t order[SERIES_MAX];
    struct expected all = {0};
    uint64_t out = 0, ids = 0;
    series_sorted(c->series, order);
    if (stats->samples_out > 0) {
        assert_int_equal(block_open(c->io, c->dirs[INPUTS_MAX], NULL, &block), STATUS_OK);
        assert_int_equal(block_damage_count(block), 0);
        assert_int_equal(block_cursor_open(block, 0, BLOCK_SHARDS - 1, &cursor), STATUS_OK);
    }
    for (size_t i = 0; i < c->series; i++) {
        struct expected want = {0};
        struct block_series series;
        struct buf labels;
        expect(c, order[i], &want);
        all.in += want.in;
        all.deleted += want.deleted;
        all.duplicates += want.duplicates;
        all.conflicts += want.conflicts;
        out += want.count;
        if (want.count > 0) {
            buf_init(&labels);
            series_labels(order[i], &labels);
            assert_non_null(cursor);
            assert_int_equal(block_cursor_next(cursor, &series, NULL), STATUS_OK);
            assert_true(slice_equal(series.labels, buf_slice(&labels)));
            buf_release(&labels);
            for (size_t k = 0; k < c->inputs; k++)
                if (c->tables[k][order[i]].count > 0)
                    ids = (k + 1) * 1000 + order[i];
            assert_int_equal(series.id, ids); /* the newest input's */
            check_series(block, &series, &want);
        }
        mem_free(want.samples);
    }
    if (block != NULL) {
        struct block_series series;
        assert_int_equal(block_cursor_next(cursor, &series, NULL), STATUS_END);
        assert_int_equal(block_meta(block)->sample_count, out);
        assert_int_equal(block_meta(block)->id, 99);
        assert_int_equal(block_meta(block)->source_count, c->inputs);
        block_cursor_close(cursor);
        block_close(block);
    }
    assert_int_equal(stats->samples_out, out);
    assert_int_equal(stats->samples_in, all.in);
    assert_int_equal(stats->samples_deleted, all.deleted);
    assert_int_equal(stats->samples_duplicate, all.duplicates);
    assert_int_equal(stats->samples_conflict, all.conflicts);
}

/* STATUS_OK: done, and *stats_out is what it counted. */
static int run(struct case_ *c, struct compact_stats *stats_out, struct error_detail *detail) {
    struct compact_options options;
    struct compact_input inputs[INPUTS_MAX];
    struct compact *compact = NULL;
    unsigned done = 0, before = 0;
    options_of(c, &options, inputs);
    int status = compact_open(&options, detail, &compact);
    while (status == STATUS_OK) {
        status = compact_step(compact, &done, detail);
        assert_true(status < 0 || (done >= before && done <= 1000));
        before = done;
    }
    if (status == STATUS_END) {
        assert_int_equal(done, 1000);
        *stats_out = *compact_stats(compact);
        assert_true((compact_meta(compact)->series_count == 0) == (stats_out->samples_out == 0));
    }
    compact_close(compact);
    return status == STATUS_END ? STATUS_OK : status;
}

/* ---- Tests -------------------------------------------------------------------------------------------- */

static struct case_ c;

static void parent_real(void) {
    snprintf(c.parent, sizeof c.parent, "/dev/shm/tidalite-compact-XXXXXX");
    assert_non_null(mkdtemp(c.parent));
}

static void test_random(void **state) {
    (void)state;
    uint64_t copied = 0, encoded = 0, conflicts = 0, duplicates = 0, deleted = 0, empty = 0;
    for (uint64_t seed = 1; seed <= 150; seed++) {
        struct io *io;
        struct compact_stats stats;
        bool sim = seed % 2 == 0;
        assert_int_equal(sim ? io_sim_open(seed, &io) : io_open(IO_BACKEND_SYSCALL, NULL, &io), STATUS_OK);
        case_open(&c, io, seed);
        if (sim) {
            snprintf(c.parent, sizeof c.parent, "d");
            assert_int_equal(io_make_dir(io, c.parent, NULL), STATUS_OK);
        } else {
            parent_real();
        }
        case_fill(&c, seed % 3 != 0);
        assert_int_equal(run(&c, &stats, NULL), STATUS_OK);
        if (sim && seed % 4 == 0) { /* what is done is durable */
            for (size_t i = 0; i < c.inputs; i++)
                block_close(c.blocks[i]);
            io_sim_end_now(io, IO_SIM_POWER_CUT);
            io_sim_restart(io);
            for (size_t i = 0; i < c.inputs; i++)
                assert_int_equal(block_open_later(io, c.dirs[i], NULL, &c.blocks[i]), STATUS_OK);
        }
        check_result(&c, &stats);
        copied += stats.chunks_copied;
        encoded += stats.chunks_encoded;
        conflicts += stats.samples_conflict;
        duplicates += stats.samples_duplicate;
        deleted += stats.samples_deleted;
        empty += stats.samples_out == 0;
        case_close(&c);
        if (!sim)
            assert_int_equal(rmdir(c.parent), 0);
        io_close(io);
    }
    print_message(
        "%llu chunks copied, %llu encoded, %llu conflicts, %llu duplicates, %llu deleted, %llu empty\n",
        (unsigned long long)copied, (unsigned long long)encoded, (unsigned long long)conflicts,
        (unsigned long long)duplicates, (unsigned long long)deleted, (unsigned long long)empty);
    assert_true(copied > 100 && encoded > 100 && conflicts > 100 && duplicates > 100 && deleted > 100 &&
                empty > 0);
}

/* Given up after any number of steps: nothing is left of it. */
static void test_cancel(void **state) {
    (void)state;
    struct io *io;
    assert_int_equal(io_open(IO_BACKEND_SYSCALL, NULL, &io), STATUS_OK);
    case_open(&c, io, 7);
    parent_real();
    case_fill(&c, false);
    bool ended = false;
    for (int steps = 0; !ended; steps++) {
        struct compact_options options;
        struct compact_input inputs[INPUTS_MAX];
        struct compact *compact;
        options_of(&c, &options, inputs);
        assert_int_equal(compact_open(&options, NULL, &compact), STATUS_OK);
        for (int i = 0; i < steps && !ended; i++)
            ended = compact_step(compact, NULL, NULL) == STATUS_END;
        compact_close(compact);
        assert_int_equal(access(c.dirs[INPUTS_MAX], F_OK), ended ? 0 : -1);
    }
    case_close(&c);
    assert_int_equal(rmdir(c.parent), 0);
    io_close(io);
}

/* A damaged chunk or a lost series: not merged, whoever finds it when. */
static void test_damaged(void **state) {
    (void)state;
    struct io *io;
    assert_int_equal(io_open(IO_BACKEND_SYSCALL, NULL, &io), STATUS_OK);
    unsigned refused = 0, merged = 0;
    for (uint64_t at = 0; at < 40; at++) {
        struct compact_stats stats;
        struct error_detail detail = {0};
        case_open(&c, io, 5);
        parent_real();
        case_fill(&c, false);
        char path[128];
        snprintf(path, sizeof path, "%s/chunks", c.dirs[0]);
        int fd = open(path, O_RDWR | O_CLOEXEC);
        off_t len = lseek(fd, 0, SEEK_END), offset = (off_t)((uint64_t)len * at / 40);
        uint8_t byte;
        assert_int_equal(pread(fd, &byte, 1, offset), 1);
        byte ^= 4;
        assert_int_equal(pwrite(fd, &byte, 1, offset), 1);
        close(fd);
        if (at % 2) { /* then the index is rebuilt, and what is damaged is not in it */
            snprintf(path, sizeof path, "%s/index.mdb", c.dirs[0]);
            unlink(path);
        }
        block_close(c.blocks[0]);
        assert_int_equal(block_open_later(io, c.dirs[0], NULL, &c.blocks[0]), STATUS_OK);
        int status = run(&c, &stats, &detail);
        if (status == STATUS_OK) {
            check_result(&c, &stats); /* a place where nothing is lost: header, trailer, a head */
            merged++;
        } else {
            assert_int_equal(status, STATUS_CORRUPT);
            assert_non_null(strstr(detail.text, c.dirs[0]));
            refused++;
        }
        case_close(&c);
        assert_int_equal(rmdir(c.parent), 0);
    }
    assert_true(refused > 10 && merged > 0);
    io_close(io);
}

static void test_faults(void **state) {
    (void)state;
    for (unsigned kind = 0; kind < FAULT_KIND_COUNT; kind++)
        for (unsigned repeat = 0; repeat < 2; repeat++) {
            struct io *io;
            struct fault_sweep sweep = {.kind = (enum fault_kind)kind, .repeat = repeat != 0};
            assert_int_equal(io_sim_open(kind, &io), STATUS_OK);
            case_open(&c, io, 12);
            snprintf(c.parent, sizeof c.parent, "d");
            assert_int_equal(io_make_dir(io, c.parent, NULL), STATUS_OK);
            case_fill(&c, true);
            FAULT_SWEEP(&sweep) {
                struct compact_stats stats;
                struct error_detail detail = {0};
                fault_arm(&sweep, io);
                int status = run(&c, &stats, &detail);
                fault_disarm(&sweep, io);
                assert_true(status == STATUS_OK || status == STATUS_NO_MEMORY || status == STATUS_IO ||
                            status == STATUS_NO_SPACE);
                if (status == STATUS_OK)
                    check_result(&c, &stats);
                else
                    assert_true(strlen(detail.text) > 0);
                static const char *const files[] = {"chunks", "index.mdb", "index.sum", "meta.json"};
                for (size_t f = 0; f < 4; f++) {
                    char path[128];
                    snprintf(path, sizeof path, "%s/%s", c.dirs[INPUTS_MAX], files[f]);
                    (void)io_remove(io, path);
                }
                (void)io_remove_dir(io, c.dirs[INPUTS_MAX]);
            }
            print_message("%s%s: %llu runs\n", fault_kind_name(sweep.kind),
                          repeat ? " and all behind it" : "", (unsigned long long)sweep.runs);
            case_close(&c);
            io_close(io);
        }
}

/* A series of two million samples, half of them late and scattered over all of it: bounded steps and memory.
 */
static void long_write(struct io *io, const char *dir, size_t input, int64_t from_ms, int64_t step_ms,
                       size_t samples) {
    struct block_writer_options options = {.io = io, .dir = dir, .id = input + 1, .level = 1, .salt = input};
    struct block_writer *writer;
    assert_int_equal(block_writer_open(&options, NULL, &writer), STATUS_OK);
    size_t count = (samples + CHUNK_SAMPLES_MAX - 1) / CHUNK_SAMPLES_MAX;
    struct block_chunk *chunks = mem_zalloc(count * sizeof *chunks);
    int64_t time_ms = from_ms;
    for (size_t i = 0; i < count; i++) {
        struct chunk_open open = {0};
        chunks[i].time_min_ms = time_ms;
        for (int k = 0; k < CHUNK_SAMPLES_MAX; k++, time_ms += step_ms)
            assert_int_equal(chunk_append(&open,
                                          (struct sample){time_ms, double_bits((double)(time_ms % 97))},
                                          START_NONE, chunk_grow, NULL),
                             STATUS_OK);
        chunks[i].time_max_ms = open.time_ms;
        chunks[i].info = open.info;
        chunks[i].log_position = position_of(input);
        chunks[i].bits = chunk_bytes(&open);
    }
    struct buf labels;
    buf_init(&labels);
    series_labels(0, &labels);
    assert_int_equal(block_writer_add(writer, buf_slice(&labels), 1, chunks, count, NULL), STATUS_OK);
    buf_release(&labels);
    for (size_t i = 0; i < count; i++)
        mem_free((void *)(uintptr_t)chunks[i].bits.data);
    mem_free(chunks);
    while (block_writer_step(writer, NULL) == STATUS_OK)
        ;
    block_writer_close(writer);
}

static void test_long(void **state) {
    (void)state;
    struct io *io;
    assert_int_equal(io_open(IO_BACKEND_SYSCALL, NULL, &io), STATUS_OK);
    case_open(&c, io, 1);
    parent_real();
    for (size_t i = 0; i <= INPUTS_MAX; i++)
        snprintf(c.dirs[i], sizeof c.dirs[i], "%s/%zu", c.parent, i);
    c.inputs = 2;
    c.series = 0;
    size_t samples = 1200000;
    for (size_t i = 0; i < 2; i++) {
        long_write(io, c.dirs[i], i, 1000 + (int64_t)i * 500, 1000, samples);
        assert_int_equal(block_open(io, c.dirs[i], NULL, &c.blocks[i]), STATUS_OK);
    }
    struct compact_options options;
    struct compact_input inputs[INPUTS_MAX];
    struct compact *compact;
    options_of(&c, &options, inputs);
    assert_int_equal(compact_open(&options, NULL, &compact), STATUS_OK);
    uint64_t memory = 0;
    size_t steps = 0;
    while (compact_step(compact, NULL, NULL) == STATUS_OK) {
        uint64_t now = compact_memory_bytes(compact);
        memory = now > memory ? now : memory;
        steps++;
    }
    assert_int_equal(compact_stats(compact)->samples_out, 2 * samples);
    print_message("%zu steps, %llu bytes of memory for %llu bytes of chunks\n", steps,
                  (unsigned long long)memory, (unsigned long long)compact_meta(compact)->chunks.bytes);
    assert_true(steps > 30);
    assert_true(memory < (uint64_t)64 << 20);
    compact_close(compact);
    case_close(&c);
    assert_int_equal(rmdir(c.parent), 0);
    io_close(io);
}

int main(void) {
    log_setup(LOG_ERROR, LOG_FORMAT_LOGFMT, open("/dev/null", O_WRONLY | O_CLOEXEC));
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random), cmocka_unit_test(test_cancel), cmocka_unit_test(test_damaged),
        cmocka_unit_test(test_faults), cmocka_unit_test(test_long),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
