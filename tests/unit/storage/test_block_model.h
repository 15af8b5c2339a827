/* test_block_model.h: a naive block in memory, to write blocks from and to compare them with. */
#ifndef TIDALITE_TESTS_TEST_BLOCK_MODEL_H
#define TIDALITE_TESTS_TEST_BLOCK_MODEL_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/rand.h"
#include "storage/block/block.h"
#include "storage/io/io.h"

struct model_series {
    uint8_t *labels;
    size_t labels_len;
    uint64_t id;
    struct block_chunk *chunks;
    size_t chunk_count;
};

struct model {
    struct io *io;
    char parent[64]; /* of the block's directory; removed by model_close */
    char dir[80];
    struct rand rand;
    uint64_t salt;
    struct model_series *series;
    size_t count;
    size_t capacity;
    int64_t time_base_ms;
};

void model_open(struct model *model, enum io_backend backend, uint64_t seed);
void model_close(struct model *model);

/* Forgets the series. */
void model_clear(struct model *model);

/* "name", "value", …, NULL → canonical label bytes: the caller gives the names sorted. Adds a series with
 * `chunks` chunks of random samples. */
void model_add(struct model *model, size_t chunks, ...) __attribute__((sentinel));
void model_add_bytes(struct model *model, struct slice labels, size_t chunks);

/* `count` random series of a few metrics with all kinds of labels. */
void model_random(struct model *model, size_t count, size_t chunks_max);

/* Sorts the series as a block does; drops those that stand there twice. */
void model_sort(struct model *model);

/* Writes the block to model->dir: the status of the first call that failed, or STATUS_OK. */
int model_write(struct model *model, struct error_detail *detail);

/* Removes the block's directory. */
void model_remove(struct model *model);

/* Opens it, and asserts that there was no damage. */
struct block *model_block(struct model *model);

/* Every series of the model is in the block with its chunks, and no other. */
void model_check(struct model *model, struct block *block);

/* All matchers against a linear scan. */
void model_check_select(struct model *model, struct block *block, const struct matcher *matchers,
                        size_t count);
void model_check_random_selects(struct model *model, struct block *block, size_t rounds);

/* Whole files. */
uint8_t *model_file_read(struct model *model, const char *name, size_t *len_out);
void model_file_write(struct model *model, const char *name, const uint8_t *data, size_t len);
void model_file_remove(struct model *model, const char *name);

/* Patterns. */
bool pattern_contains(const struct matcher_pattern *pattern, struct slice value); /* context: a C string */
bool pattern_literals(const struct matcher_pattern *pattern, struct slice value);
bool pattern_prefix(const struct matcher_pattern *pattern, struct slice value);
bool pattern_all(const struct matcher_pattern *pattern, struct slice value);
bool pattern_even(const struct matcher_pattern *pattern,
                  struct slice value); /* even length; the empty one too */

#endif
