/* storage_fixture.c: see storage_fixture.h. */
#include "tests/unit/storage/storage_fixture.h"

#include <dirent.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/bytes.h"
#include "base/log.h"

static int64_t fixture_wall_ms(void *context) {
    return ((struct fixture *)context)->now_ms;
}

static uint64_t fixture_monotonic_ns(void *context) {
    return (uint64_t)((struct fixture *)context)->now_ms * 1000000;
}

struct clock fixture_clock;

void fixture_open_storage(struct fixture *f) {
    fixture_clock = (struct clock){fixture_wall_ms, fixture_monotonic_ns, f};
    const struct storage_options options = {.dir = f->dir,
                                            .io = f->io,
                                            .io_maintain = f->io_maintain,
                                            .clock = &fixture_clock,
                                            .limits = &f->limits,
                                            .seed = 42,
                                            .compiler = f->compiler};
    struct error_detail detail = {0};
    if (storage_open(&options, &detail, &f->storage) != STATUS_OK)
        fail_msg("storage_open: %s", detail.text);
}

void fixture_open(struct fixture *f, enum io_backend backend) {
    log_setup(LOG_ERROR, LOG_FORMAT_LOGFMT, 2);
    memset(f, 0, sizeof *f);
    f->now_ms = 1700000000000;
    limits_init(&f->limits);
    f->limits.log_group_bytes_max = 128 << 10;
    f->limits.log_segment_bytes = 512 << 10;
    snprintf(f->dir, sizeof f->dir, "/tmp/tidalite-test-XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    struct error_detail detail = {0};
    assert_int_equal(io_open(backend, &detail, &f->io), STATUS_OK);
    assert_int_equal(io_open(IO_BACKEND_SYSCALL, &detail, &f->io_maintain), STATUS_OK);
    fixture_open_storage(f);
}

void fixture_reopen(struct fixture *f) {
    storage_close(f->storage);
    fixture_open_storage(f);
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw) {
    (void)st, (void)type, (void)ftw;
    return remove(path);
}

void fixture_close(struct fixture *f) {
    storage_close(f->storage);
    io_close(f->io);
    io_close(f->io_maintain);
    nftw(f->dir, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
}

void fixture_maintain(struct fixture *f) {
    for (int idle = 0; idle < 3;) {
        bool worked = storage_maintain(f->storage, f->now_ms);
        worked |= storage_step(f->storage, f->now_ms);
        idle = worked ? 0 : idle + 1;
    }
}

size_t fixture_entries(const struct fixture *f, const char *name) {
    char path[128];
    snprintf(path, sizeof path, "%s/%s", f->dir, name);
    DIR *dir = opendir(path);
    assert_non_null(dir);
    size_t count = 0;
    for (struct dirent *entry; (entry = readdir(dir)) != NULL;)
        count += entry->d_name[0] != '.';
    closedir(dir);
    return count;
}

void file_flip(const char *path, size_t offset) {
    FILE *file = fopen(path, "r+b");
    assert_non_null(file);
    assert_int_equal(fseek(file, (long)offset, SEEK_SET), 0);
    int byte = fgetc(file);
    assert_true(byte != EOF);
    assert_int_equal(fseek(file, (long)offset, SEEK_SET), 0);
    fputc(byte ^ 0x10, file);
    fclose(file);
}

struct batch *batch_new(void) {
    struct batch *b = mem_zalloc(sizeof *b);
    b->batch.series = mem_alloc(BATCH_SERIES_MAX * sizeof *b->batch.series);
    b->batch.samples = mem_alloc(BATCH_SERIES_MAX * sizeof *b->batch.samples);
    return b;
}

void batch_add(struct batch *b, int series, int64_t time_ms, uint64_t value_bits) {
    char value[16];
    snprintf(value, sizeof value, "%d", series);
    size_t at = b->batch.series_count++;
    b->offsets[at] = b->labels.len;
    label_bytes_append(&b->labels, slice_str("__name__"), slice_str("m"));
    label_bytes_append(&b->labels, slice_str("i"), slice_str(value));
    b->offsets[at + 1] = b->labels.len;
    b->batch.samples[b->batch.sample_count] = (struct sample){time_ms, value_bits};
    b->batch.series[at] =
        (struct batch_series){.sample_first = (uint32_t)b->batch.sample_count++, .sample_count = 1};
    for (size_t i = 0; i <= at; i++) /* the labels may have moved */
        b->batch.series[i].labels =
            slice_of(b->labels.data + b->offsets[i], b->offsets[i + 1] - b->offsets[i]);
}

void batch_free(struct batch *b) {
    mem_free(b->batch.series);
    mem_free(b->batch.samples);
    buf_release(&b->labels);
    mem_free(b);
}

static void outcome_set(void *context, struct storage_write *write) {
    struct outcome *outcome = context;
    assert_false(outcome->done);
    outcome->result = *storage_write_result(write);
    storage_write_free(write);
    outcome->done = true;
}

void batch_submit(struct fixture *f, struct batch *b, struct outcome *outcome) {
    struct storage_write *write;
    struct error_detail detail = {0};
    outcome->done = false;
    assert_int_equal(storage_write_prepare(f->storage, &b->batch, &detail, &write), STATUS_OK);
    storage_write_submit(f->storage, write, outcome_set, outcome);
}

int delete_submit(struct fixture *f, const struct delete_selector *selectors, size_t count,
                  int64_t time_min_ms, int64_t time_max_ms, struct outcome *outcome) {
    struct storage_write *write;
    struct error_detail detail = {0};
    outcome->done = false;
    int status =
        storage_delete_prepare(f->storage, selectors, count, time_min_ms, time_max_ms, &detail, &write);
    if (status == STATUS_OK)
        storage_write_submit(f->storage, write, outcome_set, outcome);
    return status;
}

struct storage_write_result batch_write(struct fixture *f, struct batch *b) {
    struct outcome outcome;
    batch_submit(f, b, &outcome);
    while (!outcome.done) {
        if (!storage_step(f->storage, f->now_ms))
            storage_wait(f->storage, 10);
    }
    batch_free(b);
    return outcome.result;
}

struct storage_write_result write_one(struct fixture *f, int series, int64_t time_ms, uint64_t bits) {
    struct batch *b = batch_new();
    batch_add(b, series, time_ms, bits);
    return batch_write(f, b);
}

/* All samples of one series into columns; the caller releases them. */
/* The selection of that one series; the caller closes it. */
static struct storage_selection *series_select(struct fixture *f, int series) {
    char value[16];
    snprintf(value, sizeof value, "%d", series);
    const struct matcher matcher = {.kind = MATCHER_EQUAL, .name = slice_str("i"), .value = slice_str(value)};
    struct storage_selection *selection;
    assert_int_equal(storage_select(f->storage, &matcher, 1, INT64_MIN, INT64_MAX, 0, &selection), STATUS_OK);
    assert_true(selection_series_count(selection) <= 1);
    return selection;
}

void series_read(struct fixture *f, int series, struct sample_columns *columns) {
    struct storage_selection *selection = series_select(f, series);
    memset(columns, 0, sizeof *columns);
    if (selection_series_count(selection) == 1)
        assert_int_equal(selection_read(selection, 0, INT64_MIN, INT64_MAX, columns), STATUS_OK);
    selection_close(selection);
}

static void newest_is(struct storage_selection *selection, int64_t time_max_ms, const struct sample *want) {
    struct sample_columns columns = {0};
    assert_int_equal(selection_read_newest(selection, 0, INT64_MIN, time_max_ms, &columns), STATUS_OK);
    assert_true(columns.count > 0);
    assert_int_equal(columns.times_ms[columns.count - 1], want->time_ms);
    assert_int_equal(double_bits(columns.values[columns.count - 1]), want->value_bits);
    sample_columns_release(&columns);
}

/* The newest of all; up to a sample's time, that one; a moment earlier, the one before it. */
static void newest_expect(struct fixture *f, int series, const struct sample *samples, size_t count) {
    struct storage_selection *selection = series_select(f, series);
    if (count > 0)
        newest_is(selection, INT64_MAX, &samples[count - 1]);
    for (size_t i = count > 4 ? count - 4 : 1; i < count; i++) {
        newest_is(selection, samples[i].time_ms, &samples[i]);
        newest_is(selection, samples[i].time_ms - 1, &samples[i - 1]);
    }
    selection_close(selection);
}

void series_expect(struct fixture *f, int series, const struct sample *samples, size_t count) {
    struct sample_columns columns;
    series_read(f, series, &columns);
    assert_int_equal(columns.count, count);
    for (size_t i = 0; i < count; i++) {
        assert_int_equal(columns.times_ms[i], samples[i].time_ms);
        assert_int_equal(double_bits(columns.values[i]), samples[i].value_bits);
    }
    sample_columns_release(&columns);
    newest_expect(f, series, samples, count);
}
