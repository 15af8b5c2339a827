/* fake_storage.h: storage.h's reading side as a naive model: lists, and a linear scan for everything. What
 * the evaluator is tested against; it shares no code with the real one. */
#ifndef TIDALITE_TESTS_UNIT_QUERY_FAKE_STORAGE_H
#define TIDALITE_TESTS_UNIT_QUERY_FAKE_STORAGE_H

#include "storage/storage.h"

struct storage *fake_storage_new(void);
void fake_storage_free(struct storage *storage);

/* Forgets all series. */
void fake_storage_clear(struct storage *storage);

/* The series with these labels (in any order, empty values dropped), made if it is not there. */
size_t fake_storage_series(struct storage *storage, const struct label *labels, size_t count);

/* A sample behind those of the series. */
void fake_storage_add(struct storage *storage, size_t series, int64_t time_ms, double value);

/* Takes the series' samples away. */
void fake_storage_empty(struct storage *storage, size_t series);

/* What selection_damaged tells from now on. */
void fake_storage_damage(struct storage *storage, uint64_t pieces);

#endif
