/* block_golden.c: the block of tests/golden, and what our own reader says of one.
 *
 *     block_golden make DIR SERIES     writes a block of that many series and a few special ones
 *     block_golden dump DIR            prints all that is in a block, line by line
 *
 * block_reader.py prints the same lines from a reader of its own; block_golden.sh compares. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/bytes.h"
#include "storage/block/block.h"
#include "tests/lib/chunk_grow.h"

static _Noreturn void fail(const char *what, const struct error_detail *detail) {
    fprintf(stderr, "block_golden: %s: %s\n", what, detail->text);
    exit(1);
}

static void check(int status, const char *what, const struct error_detail *detail) {
    if (status < 0)
        fail(what, detail);
}

/* ---- make --------------------------------------------------------------------------------------------- */

#define BASE_MS INT64_C(1700006400000)
#define CHUNKS  700

struct made {
    struct buf labels;
    struct block_chunk chunks[CHUNKS];
    size_t count;
};

/* One chunk: its samples depend on `seed` alone. */
static void chunk_add(struct made *made, unsigned seed, int64_t time_ms, unsigned samples, bool starts) {
    static const uint64_t special[] = {
        STALE_NAN_BITS, NORMAL_NAN_BITS, UINT64_C(0x8000000000000000), UINT64_C(0x7ff0000000000000), 1,
        UINT64_MAX};
    struct chunk_open open = {0};
    struct block_chunk *chunk = &made->chunks[made->count++];
    *chunk = (struct block_chunk){.time_min_ms = time_ms, .log_position = UINT64_C(5) << 32 | seed * 4096};
    for (unsigned i = 0; i < samples; i++) {
        struct sample sample = {time_ms, double_bits((double)(seed * 7 + i / 3) / 4)};
        if ((seed + i) % 11 == 10)
            sample.value_bits = special[(seed + i) / 11 % 6];
        int64_t start_ms = starts ? BASE_MS - 1000 - (int64_t)(i / 4) : START_NONE;
        if (chunk_append(&open, sample, start_ms, chunk_grow, NULL) < 0)
            abort();
        chunk->time_max_ms = time_ms;
        if (i + 1 < samples)
            time_ms += i % 5 == 4 ? 15000 + (int64_t)seed : 15000;
    }
    struct slice bits = chunk_bytes(&open);
    uint8_t *copy = mem_alloc(bits.len);
    memcpy(copy, bits.data, bits.len);
    chunk->bits = slice_of(copy, bits.len);
    chunk->info = open.info;
    mem_free(open.bytes);
}

static void label(struct made *made, const char *name, const char *value) {
    label_bytes_append(&made->labels, slice_str(name), slice_str(value));
}

static struct made *new_series(const char *metric) {
    struct made *made = mem_zalloc(sizeof *made);
    label(made, "__name__", metric);
    return made;
}

static int made_order(const void *a, const void *b) {
    const struct made *x = *(struct made *const *)a, *y = *(struct made *const *)b;
    return block_series_order(buf_slice(&x->labels), buf_slice(&y->labels));
}

static void make(const char *dir, unsigned count) {
    struct made **all = mem_zalloc((count + 4) * sizeof(*all));
    size_t at = 0;
    char text[64];
    for (unsigned i = 0; i < count; i++) { /* two in three have k: their postings are many short runs */
        struct made *made = all[at++] = new_series("many");
        snprintf(text, sizeof text, "%05u", i);
        label(made, "i", text);
        if (i % 3 != 0)
            label(made, "k", i % 6 < 3 ? "1" : "2");
        chunk_add(made, i, BASE_MS + i % 7, 1 + (i % 50 == 0), false);
    }
    all[at] = new_series("long"); /* its entry in the index is longer than a page */
    for (unsigned i = 0; i < CHUNKS; i++)
        chunk_add(all[at], i, BASE_MS + (int64_t)i * 1000, 1, false);
    all[++at] = new_series("overlaps");
    label(all[at], "t\xc3\xa9xt", "\xe2\x82\xac\n\"");
    chunk_add(all[at], 1, BASE_MS, 120, false);
    chunk_add(all[at], 2, BASE_MS + 7500, 100, true);
    chunk_add(all[at], 3, BASE_MS + 7500 + 120 * 15000, 30, true);
    all[++at] = new_series("edges");
    chunk_add(all[at], 4, INT64_MIN, 1, false);
    chunk_add(all[at], 5, INT64_MAX, 1, false);
    at++;
    qsort(all, at, sizeof(*all), made_order);
    static const uint64_t sources[] = {3, 4, UINT64_MAX};
    struct io *io;
    struct error_detail detail = {0};
    struct block_writer *writer;
    check(io_open(IO_BACKEND_SYSCALL, &detail, &io), "io", &detail);
    struct block_writer_options options = {.io = io,
                                           .dir = dir,
                                           .id = 9,
                                           .level = 2,
                                           .salt = UINT64_C(0x0123456789abcdef),
                                           .time_base_ms = BASE_MS,
                                           .position_base = UINT64_C(5) << 32,
                                           .sources = sources,
                                           .source_count = 3};
    check(block_writer_open(&options, &detail, &writer), "writing", &detail);
    for (size_t i = 0; i < at; i++) {
        check(block_writer_add(writer, buf_slice(&all[i]->labels), i * i * 1000 + i, all[i]->chunks,
                               all[i]->count, &detail),
              "adding", &detail);
        for (size_t c = 0; c < all[i]->count; c++)
            mem_free((void *)(uintptr_t)all[i]->chunks[c].bits.data);
        buf_release(&all[i]->labels);
        mem_free(all[i]);
    }
    mem_free(all);
    int status;
    while ((status = block_writer_step(writer, &detail)) == STATUS_OK)
        ;
    check(status, "finishing", &detail);
    block_writer_close(writer);
    io_close(io);
}

/* ---- dump --------------------------------------------------------------------------------------------- */

static void print_hex(struct slice s) {
    for (size_t i = 0; i < s.len; i++)
        printf("%02x", s.data[i]);
}

static void dump_meta(const struct block_meta *meta) {
    printf("block id=%" PRIu64 " level=%" PRIu32 " salt=%016" PRIx64 "\n", meta->id, meta->level, meta->salt);
    printf("times %" PRId64 " %" PRId64 "\n", meta->time_min_ms, meta->time_max_ms);
    printf("counts series=%" PRIu64 " chunks=%" PRIu64 " samples=%" PRIu64 "\n", meta->series_count,
           meta->chunk_count, meta->sample_count);
    printf("positions %016" PRIx64 " %016" PRIx64 "\n", meta->position_min, meta->position_max);
    printf("sources");
    for (size_t i = 0; i < meta->source_count; i++)
        printf(" %" PRIu64, meta->sources[i]);
    printf("\n");
}

static void dump_chunk(struct block *block, uint32_t ordinal, const struct block_chunk_ref *ref) {
    struct error_detail detail = {0};
    struct block_chunk chunk;
    struct sample_columns columns = {0};
    check(block_chunk_read(block, ordinal, ref, &chunk, &detail), "a chunk", &detail);
    check(chunk_decode(chunk.bits, chunk.info, INT64_MIN, INT64_MAX, &columns), "decoding", &detail);
    printf("chunk %" PRId64 " %" PRId64 " position=%016" PRIx64 " samples=%u\n", chunk.time_min_ms,
           chunk.time_max_ms, chunk.log_position, chunk.info.sample_count);
    for (size_t i = 0; i < columns.count; i++)
        printf("%" PRId64 " %016" PRIx64 " %" PRId64 "\n", columns.times_ms[i],
               double_bits(columns.values[i]), columns.has_starts ? columns.starts_ms[i] : 0);
    sample_columns_release(&columns);
}

static void dump_ordinals(struct block *block, const struct matcher *matcher) {
    uint32_t *ordinals;
    size_t count;
    struct error_detail detail = {0};
    check(block_select(block, matcher, 1, INT64_MIN, INT64_MAX, &ordinals, &count, &detail), "select",
          &detail);
    for (size_t i = 0; i < count; i++)
        printf(" %" PRIu32, ordinals[i]);
    printf("\n");
    mem_free(ordinals);
}

struct dump {
    struct block *block;
    struct slice name;
};

static int dump_value(void *context, struct slice value, uint64_t series_count) {
    const struct dump *dump = context;
    const struct matcher matcher = {.kind = MATCHER_EQUAL, .name = dump->name, .value = value};
    printf("value ");
    print_hex(value);
    printf(" series=%" PRIu64 ":", series_count);
    dump_ordinals(dump->block, &matcher);
    return STATUS_OK;
}

static int dump_name(void *context, struct slice name, uint64_t series_count) {
    struct dump *dump = context;
    struct error_detail detail = {0};
    dump->name = name;
    const struct matcher matcher = {.kind = MATCHER_NOT_EQUAL, .name = name};
    printf("name ");
    print_hex(name);
    printf(" series=%" PRIu64 ":", series_count);
    dump_ordinals(dump->block, &matcher);
    check(block_label_values(dump->block, name, NULL, 0, dump_value, dump, &detail), "values", &detail);
    return STATUS_OK;
}

static void dump(const char *dir) {
    struct io *io;
    struct error_detail detail = {0};
    struct dump dump = {0};
    check(io_open(IO_BACKEND_SYSCALL, &detail, &io), "io", &detail);
    check(block_open(io, dir, &detail, &dump.block), "opening", &detail);
    if (block_damage_count(dump.block) > 0)
        fail("damaged", &detail);
    dump_meta(block_meta(dump.block));
    struct block_cursor *cursor;
    struct block_series series;
    int status = block_cursor_open(dump.block, 0, BLOCK_SHARDS - 1, &cursor);
    check(status, "cursor", &detail);
    while ((status = block_cursor_next(cursor, &series, &detail)) == STATUS_OK) {
        printf("series %" PRIu32 " id=%" PRIu64 " ", series.ordinal, series.id);
        print_hex(series.labels);
        printf("\n");
        for (size_t i = 0; i < series.chunk_count; i++)
            dump_chunk(dump.block, series.ordinal, &series.chunks[i]);
    }
    check(status, "next", &detail);
    block_cursor_close(cursor);
    check(block_label_names(dump.block, NULL, 0, dump_name, &dump, &detail), "names", &detail);
    block_close(dump.block);
    io_close(io);
}

int main(int argc, char **argv) {
    if (argc == 4 && strcmp(argv[1], "make") == 0)
        make(argv[2], (unsigned)strtoul(argv[3], NULL, 10));
    else if (argc == 3 && strcmp(argv[1], "dump") == 0)
        dump(argv[2]);
    else
        return 2;
    return 0;
}
