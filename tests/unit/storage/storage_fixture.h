/* storage_fixture.h: a storage on a real directory, with a clock of its own, for the tests of the whole of
 * it. */
#ifndef TIDALITE_TESTS_STORAGE_FIXTURE_H
#define TIDALITE_TESTS_STORAGE_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "storage/storage.h"

struct fixture {
    char dir[64];
    struct io *io;
    struct io *io_maintain;
    struct limits limits;
    struct storage *storage;
    _Atomic int64_t now_ms;
    const struct matcher_compiler *compiler;
};

/* A batch of one sample a series m{i="<n>"}, of at most BATCH_SERIES_MAX. */
#define BATCH_SERIES_MAX 4000

struct batch {
    struct write_batch batch;
    struct buf labels;
    size_t offsets[BATCH_SERIES_MAX + 1];
};

struct outcome {
    _Atomic bool done; /* the result is whole */
    struct storage_write_result result;
};

extern struct clock fixture_clock; /* of the fixture opened last */

void fixture_open(struct fixture *f, enum io_backend backend);
void fixture_open_storage(struct fixture *f); /* fails the test if it does not open */
void fixture_reopen(struct fixture *f);
void fixture_close(struct fixture *f); /* removes the directory */

/* Steps and maintains until there is nothing to do. */
void fixture_maintain(struct fixture *f);

/* How many files or directories there are in one of the storage's directories. */
size_t fixture_entries(const struct fixture *f, const char *name);

/* Flips a bit of that byte. */
void file_flip(const char *path, size_t offset);

struct batch *batch_new(void);
void batch_add(struct batch *b, int series, int64_t time_ms, uint64_t value_bits);
void batch_free(struct batch *b);
void batch_submit(struct fixture *f, struct batch *b, struct outcome *outcome);

/* The same for a delete; fails with storage_delete_prepare's status. */
int delete_submit(struct fixture *f, const struct delete_selector *selectors, size_t count,
                  int64_t time_min_ms, int64_t time_max_ms, struct outcome *outcome);

/* Writes it, waits for the answer, and frees it. */
struct storage_write_result batch_write(struct fixture *f, struct batch *b);
struct storage_write_result write_one(struct fixture *f, int series, int64_t time_ms, uint64_t bits);

/* All samples of one series into columns; the caller releases them. */
void series_read(struct fixture *f, int series, struct sample_columns *columns);
void series_expect(struct fixture *f, int series, const struct sample *samples, size_t count);

#endif
