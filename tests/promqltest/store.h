/* store.h: a storage on a simulated disk, for one script: filled by its load commands, emptied by clear. */
#ifndef TIDALITE_PROMQLTEST_STORE_H
#define TIDALITE_PROMQLTEST_STORE_H

#include <stdbool.h>

#include "base/limits.h"
#include "storage/storage.h"

struct store {
    struct io *io;
    struct clock clock;
    struct limits limits;
    struct storage *storage;
    int64_t now_ms;
};

void store_open(struct store *store);
void store_close(struct store *store);
static inline void store_clear(struct store *store) {
    store_close(store);
    store_open(store);
}

/* What a load command says, series by series, in their order. NULL, or what storage refused (static). */
struct store_series {
    const struct label *labels;
    size_t label_count;
    const int64_t *times_ms;
    const double *values;
    size_t count;
};
const char *store_write(struct store *store, const struct store_series *series, size_t count);

/* Lets time pass until all of it is in blocks; false if that does not come about. */
bool store_flush(struct store *store);

#endif
