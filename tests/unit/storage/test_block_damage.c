/* test_block_damage.c: every byte of every file of a small block flipped, every length it can be cut to,
 * files missing or exchanged: nothing crashes, nothing wrong is answered, the damage is told, the rest is
 * served. */
#include <fcntl.h>

#include "base/bytes.h"
#include "base/crc32c.h"
#include "base/log.h"
#include "test_block_model.h"

/* Sanitizers make a rebuild of the index slow: there a part of its bytes is flipped, each page many times. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define INDEX_STEP 13
#else
#define INDEX_STEP 1
#endif

static const char *const files[] = {"chunks", "index.mdb", "index.sum", "meta.json"};

/* Of one opened block, all of it read. */
struct outcome {
    size_t series_lost;
    size_t chunks_lost;
    uint64_t damage;
    size_t findings;
    bool data_lost; /* some damage says so */
};

static int on_damage(void *context, const struct block_damage *damage) {
    struct outcome *outcome = context;
    assert_non_null(damage->file);
    assert_non_null(damage->what);
    assert_true(damage->time_min_ms <= damage->time_max_ms);
    outcome->data_lost = outcome->data_lost || damage->data_lost;
    return 0;
}

static int on_finding(void *context, const struct block_finding *finding) {
    (void)finding;
    (*(size_t *)context)++;
    return 0;
}

static void read_series(struct model *model, struct block *block, struct block_view *view, uint32_t ordinal,
                        struct outcome *outcome) {
    const struct model_series *expected = &model->series[ordinal];
    struct block_series series;
    struct slice labels;
    struct error_detail detail = {0};
    int status = block_view_series(view, ordinal, INT64_MIN, INT64_MAX, &series, &detail);
    if (status == STATUS_NOT_FOUND) {
        outcome->series_lost++;
        outcome->chunks_lost += expected->chunk_count;
        return;
    }
    assert_int_equal(status, STATUS_OK);
    assert_true(series.id == expected->id);
    size_t at = 0;
    for (size_t i = 0; i < series.chunk_count; i++) {
        struct block_chunk chunk;
        struct error_detail chunk_detail = {0};
        status = block_chunk_read(block, ordinal, &series.chunks[i], &chunk, &chunk_detail);
        if (status == STATUS_CORRUPT) {
            assert_non_null(strstr(chunk_detail.text, "/chunks at offset "));
            continue;
        }
        assert_int_equal(status, STATUS_OK);
        /* what is read stands in the model, in its order */
        while (at < expected->chunk_count && !(slice_equal(chunk.bits, expected->chunks[at].bits) &&
                                               chunk.time_min_ms == expected->chunks[at].time_min_ms))
            at++;
        assert_true(at < expected->chunk_count);
        assert_true(chunk.time_max_ms == expected->chunks[at].time_max_ms);
        assert_true(chunk.log_position == expected->chunks[at].log_position);
        assert_int_equal(chunk.info.sample_count, expected->chunks[at].info.sample_count);
        at++;
        outcome->chunks_lost--; /* from all of them, added below */
    }
    outcome->chunks_lost += expected->chunk_count;
    assert_int_equal(block_view_labels(view, ordinal, &labels, &detail), STATUS_OK);
    assert_true(slice_equal(labels, slice_of(expected->labels, expected->labels_len)));
}

/* What is selected is what a linear scan gives, but for series that are lost. */
static void select_all_ways(struct model *model, struct block *block, const bool *lost) {
    static const struct {
        enum matcher_kind kind;
        const char *name, *value;
    } cases[] = {{MATCHER_EQUAL, "__name__", "metric_1"},
                 {MATCHER_NOT_EQUAL, "az", "1"},
                 {MATCHER_NOT_EQUAL, "pod", ""},
                 {MATCHER_EQUAL, "pod", ""},
                 {MATCHER_EQUAL, "none", "x"},
                 {MATCHER_EQUAL, "az", "2"}};
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        struct matcher matcher = {
            .kind = cases[c].kind, .name = slice_str(cases[c].name), .value = slice_str(cases[c].value)};
        uint32_t *ordinals;
        size_t count, at = 0;
        assert_int_equal(block_select(block, &matcher, 1, INT64_MIN, INT64_MAX, &ordinals, &count, NULL),
                         STATUS_OK);
        for (size_t i = 0; i < model->count; i++) {
            struct slice labels = slice_of(model->series[i].labels, model->series[i].labels_len);
            if (lost[i] || !matcher_match(&matcher, label_bytes_get(labels, matcher.name)))
                continue;
            assert_true(at < count);
            assert_int_equal(ordinals[at++], i);
        }
        assert_int_equal(at, count);
        mem_free(ordinals);
    }
}

static struct outcome read_all(struct model *model, struct block *block, bool verify) {
    struct outcome outcome = {0};
    struct block_view *view;
    bool lost[64] = {0};
    assert_true(model->count <= 64);
    assert_in_range(block_ordinal_count(block), 0, model->count);
    assert_int_equal(block_view_open(block, &view), STATUS_OK);
    for (uint32_t ordinal = 0; ordinal < model->count; ordinal++) {
        size_t before = outcome.series_lost;
        read_series(model, block, view, ordinal, &outcome);
        lost[ordinal] = outcome.series_lost > before;
    }
    block_view_close(view);
    select_all_ways(model, block, lost);
    struct block_cursor *cursor;
    struct block_series series;
    size_t seen = 0;
    assert_int_equal(block_cursor_open(block, 0, BLOCK_SHARDS - 1, &cursor), STATUS_OK);
    while (block_cursor_next(cursor, &series, NULL) == STATUS_OK)
        seen++;
    assert_int_equal(seen, model->count - outcome.series_lost);
    block_cursor_close(cursor);
    if (verify)
        assert_int_equal(block_verify(block, on_finding, &outcome.findings, NULL), STATUS_OK);
    outcome.damage = block_damage_count(block);
    assert_int_equal(block_damage_each(block, on_damage, &outcome), STATUS_OK);
    if (outcome.series_lost + outcome.chunks_lost > 0)
        assert_true(outcome.data_lost);
    return outcome;
}

/* Opens what is there now; false if it is refused. */
static bool open_and_read(struct model *model, bool verify, struct outcome *outcome) {
    struct block *block;
    struct error_detail detail = {0};
    int status = block_open(model->io, model->dir, &detail, &block);
    if (status < 0) {
        assert_true(status == STATUS_CORRUPT || status == STATUS_NOT_FOUND || status == STATUS_NEWER_FORMAT);
        assert_true(strlen(detail.text) > 0);
        return false;
    }
    *outcome = read_all(model, block, verify);
    block_close(block);
    return true;
}

static void small_block(struct model *model, uint64_t seed, size_t count) {
    model_open(model, IO_BACKEND_SYSCALL, seed);
    model_random(model, count, 3);
    assert_int_equal(model_write(model, NULL), STATUS_OK);
    struct block *block = model_block(model);
    struct outcome outcome = read_all(model, block, true);
    assert_int_equal(outcome.findings + outcome.damage + outcome.series_lost + outcome.chunks_lost, 0);
    block_close(block);
}

static void flip(struct model *model, const char *name, off_t at, uint8_t bits) {
    char path[256];
    uint8_t byte;
    snprintf(path, sizeof path, "%s/%s", model->dir, name);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(pread(fd, &byte, 1, at), 1);
    byte ^= bits;
    assert_int_equal(pwrite(fd, &byte, 1, at), 1);
    close(fd);
}

static size_t file_len(struct model *model, const char *name) {
    size_t len;
    mem_free(model_file_read(model, name, &len));
    return len;
}

static void test_every_byte_flipped(void **state) {
    (void)state;
    struct model model;
    small_block(&model, 11, 12);
    for (size_t f = 0; f < 4; f++) {
        size_t len = file_len(&model, files[f]), lost = 0, step = f == 1 ? INDEX_STEP : 1;
        for (size_t at = 0; at < len; at += step) {
            uint8_t bits = (uint8_t)(1u << rand_below(&model.rand, 8));
            flip(&model, files[f], (off_t)at, bits);
            struct outcome outcome;
            /* Nothing has a single point that the block depends on. */
            assert_true(open_and_read(&model, true, &outcome));
            assert_true(outcome.findings > 0); /* no byte goes unwatched */
            assert_int_equal(outcome.series_lost, 0);
            if (f == 0) {
                assert_in_range(outcome.chunks_lost, 0, 1);
                lost += outcome.chunks_lost;
            } else {
                assert_int_equal(outcome.chunks_lost, 0);
                assert_true(outcome.damage > 0);
            }
            flip(&model, files[f], (off_t)at, bits);
        }
        print_message("%s: %zu bytes flipped, %zu times a chunk was lost\n", files[f], len / step, lost);
        if (f == 0)
            assert_true(lost > len / 2); /* most of the file is chunks */
    }
    struct block *block = model_block(&model); /* all is as it was */
    model_check(&model, block);
    block_close(block);
    model_close(&model);
}

/* No index, and a byte of chunks flipped: at most one series, or one series' chunks, or one chunk is lost. */
static void test_flipped_without_index(void **state) {
    (void)state;
    struct model model;
    small_block(&model, 12, 12);
    model_file_remove(&model, "index.mdb");
    size_t len = file_len(&model, "chunks"), series_lost = 0, tables = 0;
    for (size_t at = 0; at < len; at++) {
        uint8_t bits = (uint8_t)(1u << rand_below(&model.rand, 8));
        flip(&model, "chunks", (off_t)at, bits);
        struct outcome outcome;
        assert_true(open_and_read(&model, false, &outcome));
        assert_in_range(outcome.series_lost, 0, 1);
        assert_in_range(outcome.chunks_lost, 0, 3);
        series_lost += outcome.series_lost;
        tables += outcome.series_lost == 0 && outcome.chunks_lost > 1;
        flip(&model, "chunks", (off_t)at, bits);
    }
    assert_true(series_lost > 0);
    assert_true(tables > 0);
    model_close(&model);
}

/* Cut to every length. Without the index this asks more of `chunks`: what is whole is served. */
static void test_every_length(void **state) {
    (void)state;
    struct model model;
    small_block(&model, 13, 8);
    for (size_t f = 0; f < 4; f++) {
        size_t len;
        uint8_t *data = model_file_read(&model, files[f], &len);
        size_t step = f == 1 ? 16 * INDEX_STEP : 1;
        for (size_t cut = 0; cut < len; cut += step) {
            model_file_write(&model, files[f], data, cut);
            struct outcome outcome;
            if (!open_and_read(&model, true, &outcome)) {
                assert_int_equal(f, 0);
                continue;
            }
            assert_true(outcome.findings > 0);
            assert_true(outcome.damage > 0);
            assert_int_equal(outcome.series_lost, 0);
            if (f > 0)
                assert_int_equal(outcome.chunks_lost, 0);
        }
        /* and longer than it was */
        uint8_t *more = mem_zalloc(len + 4096);
        memcpy(more, data, len);
        static const size_t added[] = {1, 7, 8, 4096};
        for (size_t i = 0; i < 4; i++) {
            model_file_write(&model, files[f], more, len + added[i]);
            struct outcome outcome;
            assert_true(open_and_read(&model, true, &outcome));
            assert_true(outcome.findings > 0);
            assert_int_equal(outcome.series_lost + outcome.chunks_lost, 0);
        }
        mem_free(more);
        model_file_write(&model, files[f], data, len);
        mem_free(data);
    }
    struct outcome outcome;
    assert_true(open_and_read(&model, true, &outcome));
    assert_int_equal(outcome.findings + outcome.damage, 0);
    model_close(&model);
}

/* The index and meta.json missing in every combination; then repaired. */
static void test_missing_files(void **state) {
    (void)state;
    for (unsigned missing = 1; missing < 8; missing++) {
        struct model model;
        small_block(&model, 14, 20);
        struct block_meta before;
        struct block *block = model_block(&model);
        before = *block_meta(block);
        before.sources = NULL;
        block_close(block);
        for (unsigned f = 0; f < 3; f++)
            if (missing >> f & 1)
                model_file_remove(&model, files[f + 1]);
        struct outcome outcome;
        assert_true(open_and_read(&model, true, &outcome));
        assert_int_equal(outcome.series_lost + outcome.chunks_lost, 0);
        assert_true(outcome.damage > 0);
        assert_int_equal(block_open(model.io, model.dir, NULL, &block), STATUS_OK);
        assert_int_equal(block_index_rebuilt(block), (missing & 3) != 0);
        model_check_random_selects(&model, block, 50); /* a rebuilt index answers as the old one */
        assert_int_equal(block_repair(block, NULL), STATUS_OK);
        block_close(block);
        block = model_block(&model); /* no damage any more */
        model_check(&model, block);
        model_check_random_selects(&model, block, 50);
        size_t findings = 0;
        assert_int_equal(block_verify(block, on_finding, &findings, NULL), STATUS_OK);
        assert_int_equal(findings, 0);
        const struct block_meta *after = block_meta(block);
        assert_true(after->id == before.id && after->level == before.level && after->salt == before.salt);
        assert_true(after->time_min_ms == before.time_min_ms && after->time_max_ms == before.time_max_ms);
        assert_int_equal(after->series_count, before.series_count);
        assert_int_equal(after->chunk_count, before.chunk_count);
        assert_int_equal(after->sample_count, before.sample_count);
        assert_true(after->position_min == before.position_min && after->position_max == before.position_max);
        assert_int_equal(after->source_count, 2);
        assert_true(after->sources[0] == 3 && after->sources[1] == UINT64_MAX);
        assert_true(after->chunks.bytes == before.chunks.bytes && after->chunks.crc == before.chunks.crc);
        block_close(block);
        model_close(&model);
    }
}

/* Header, trailer and meta.json: any one of the three is enough; none is too little. */
static void test_three_copies(void **state) {
    (void)state;
    for (unsigned broken = 1; broken < 8; broken++) {
        struct model model;
        small_block(&model, 15, 20);
        size_t len = file_len(&model, "chunks");
        if (broken & 1)
            flip(&model, "chunks", 20, 1);
        if (broken & 2)
            flip(&model, "chunks", (off_t)len - 3, 1);
        if (broken & 4)
            flip(&model, "meta.json", 50, 1);
        struct block *block;
        struct error_detail detail = {0};
        int status = block_open(model.io, model.dir, &detail, &block);
        if (broken == 7) {
            assert_int_equal(status, STATUS_CORRUPT);
            assert_non_null(strstr(detail.text, "header and trailer"));
            model_close(&model);
            continue;
        }
        assert_int_equal(status, STATUS_OK);
        struct outcome outcome = read_all(&model, block, true);
        assert_int_equal(outcome.series_lost + outcome.chunks_lost, 0);
        assert_true(outcome.damage >= (broken == 1 || broken == 2 || broken == 4 ? 1 : 2));
        assert_true(block_meta(block)->id == 7 && block_meta(block)->salt == model.salt);
        block_close(block);
        model_close(&model);
    }
}

/* Files of another block in the place of this one's. */
static void test_exchanged_files(void **state) {
    (void)state;
    struct model model, other;
    small_block(&model, 16, 20);
    small_block(&other, 17, 20);
    for (size_t f = 0; f < 4; f++) {
        size_t len, other_len;
        uint8_t *data = model_file_read(&model, files[f], &len);
        uint8_t *strange = model_file_read(&other, files[f], &other_len);
        model_file_write(&model, files[f], strange, other_len);
        struct outcome outcome;
        if (f > 0) {
            assert_true(open_and_read(&model, true, &outcome));
            assert_int_equal(outcome.series_lost + outcome.chunks_lost, 0);
            assert_true(outcome.damage > 0);
        } else { /* another block's chunks are that block */
            struct block *block;
            assert_int_equal(block_open(model.io, model.dir, NULL, &block), STATUS_OK);
            assert_true(block_damage_count(block) > 0);
            assert_true(block_index_rebuilt(block));
            model_check(&other, block);
            block_close(block);
        }
        model_file_write(&model, files[f], data, len);
        mem_free(data);
        mem_free(strange);
    }
    model_close(&model);
    model_close(&other);
}

/* A chunk's bytes at another place of the same file are not believed: positions are in the checksum. */
static void test_misplaced_run(void **state) {
    (void)state;
    struct model model;
    model_open(&model, IO_BACKEND_SYSCALL, 18);
    for (int i = 0; i < 2; i++) { /* two series whose runs have the same length */
        model_add(&model, 1, "__name__", "m", "x", i == 0 ? "1" : "2", NULL);
        model.series[i].id = 5;
    }
    struct block_chunk *a = &model.series[0].chunks[0], *b = &model.series[1].chunks[0];
    mem_free((void *)(uintptr_t)b->bits.data);
    *b = *a;
    uint8_t *copy = mem_alloc(a->bits.len);
    memcpy(copy, a->bits.data, a->bits.len);
    b->bits.data = copy;
    model_sort(&model);
    assert_int_equal(model_write(&model, NULL), STATUS_OK);
    struct block *block = model_block(&model);
    struct block_view *view;
    struct block_series series;
    assert_int_equal(block_view_open(block, &view), STATUS_OK);
    uint64_t offsets[2];
    for (uint32_t i = 0; i < 2; i++) {
        assert_int_equal(block_view_series(view, i, INT64_MIN, INT64_MAX, &series, NULL), STATUS_OK);
        offsets[i] = series.chunks[0].offset;
    }
    block_view_close(view);
    size_t len;
    uint8_t *data = model_file_read(&model, "chunks", &len);
    uint32_t bytes = (uint32_t)(a->bits.len + 4);
    memcpy(data + offsets[1], data + offsets[0], bytes);
    block_close(block);
    model_file_write(&model, "chunks", data, len);
    mem_free(data);
    struct outcome outcome;
    assert_true(open_and_read(&model, true, &outcome));
    assert_int_equal(outcome.chunks_lost, 1);
    model_close(&model);
}

static void patch_u32(struct model *model, const char *name, size_t at, uint32_t value, size_t crc_at,
                      size_t crc_len) {
    size_t len;
    uint8_t *data = model_file_read(model, name, &len);
    store_u32(data + at, value);
    if (crc_len > 0)
        store_u32(data + crc_at, crc32c(0, data, crc_len));
    model_file_write(model, name, data, len);
    mem_free(data);
}

static void refused(struct model *model, int expected, const char *words) {
    struct block *block;
    struct error_detail detail = {0};
    assert_int_equal(block_open(model->io, model->dir, &detail, &block), expected);
    if (strstr(detail.text, words) == NULL)
        print_message("%s\n", detail.text);
    assert_non_null(strstr(detail.text, words));
}

static void test_newer_versions(void **state) {
    (void)state;
    struct model model;
    size_t len;
    small_block(&model, 19, 5);
    uint8_t *chunks = model_file_read(&model, "chunks", &len);
    patch_u32(&model, "chunks", 8, 2, 60, 60);
    refused(&model, STATUS_NEWER_FORMAT, "chunks was written by a newer version");
    model_file_write(&model, "chunks", chunks, len);
    mem_free(chunks);

    uint8_t *sums = model_file_read(&model, "index.sum", &len);
    store_u32(sums + 8, 2);
    store_u32(sums + 32, crc32c(crc32c(0, sums, 32), sums + 40, len - 40));
    model_file_write(&model, "index.sum", sums, len);
    refused(&model, STATUS_NEWER_FORMAT, "index.sum was written by a newer version");
    store_u32(sums + 8, 1);
    store_u32(sums + 32, crc32c(crc32c(0, sums, 32), sums + 40, len - 40));
    model_file_write(&model, "index.sum", sums, len);
    mem_free(sums);

    uint8_t *meta = model_file_read(&model, "meta.json", &len);
    char *text = memmem(meta, len, "\"format\": 1", 11);
    assert_non_null(text);
    text[10] = '2';
    char crc[9];
    size_t covered = len - strlen("  \"crc32c\": \"00000000\"\n}\n");
    snprintf(crc, sizeof crc, "%08x", crc32c(0, meta, covered));
    memcpy(meta + len - 12, crc, 8);
    model_file_write(&model, "meta.json", meta, len);
    mem_free(meta);
    refused(&model, STATUS_NEWER_FORMAT, "meta.json was written by a newer version");
    model_close(&model);
}

static void test_no_block(void **state) {
    (void)state;
    struct model model;
    model_open(&model, IO_BACKEND_SYSCALL, 20);
    refused(&model, STATUS_NOT_FOUND, "is not a block");
    assert_int_equal(mkdir(model.dir, 0700), 0);
    refused(&model, STATUS_NOT_FOUND, "is not a block");
    model_file_write(&model, "chunks", NULL, 0);
    refused(&model, STATUS_CORRUPT, "nothing can be believed");
    model_file_write(&model, "chunks", (const uint8_t *)"not a block at all", 18);
    refused(&model, STATUS_CORRUPT, "nothing can be believed");
    model_remove(&model);
    model_random(&model, 5, 2);
    assert_int_equal(model_write(&model, NULL), STATUS_OK);
    model_file_remove(&model, "chunks");
    refused(&model, STATUS_CORRUPT, "the block's data is lost");
    model_close(&model);
}

int main(void) {
    log_setup(LOG_ERROR, LOG_FORMAT_LOGFMT, open("/dev/null", O_WRONLY | O_CLOEXEC));
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_byte_flipped), cmocka_unit_test(test_flipped_without_index),
        cmocka_unit_test(test_every_length),       cmocka_unit_test(test_missing_files),
        cmocka_unit_test(test_three_copies),       cmocka_unit_test(test_exchanged_files),
        cmocka_unit_test(test_misplaced_run),      cmocka_unit_test(test_newer_versions),
        cmocka_unit_test(test_no_block),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
