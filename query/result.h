/* result.h: what a query leaves behind, for query.c, which makes it, and json.c, which prints it. */
#ifndef TIDALITE_QUERY_RESULT_H
#define TIDALITE_QUERY_RESULT_H

#include "base/arena.h"
#include "base/label.h"
#include "query/query.h"

struct result_series {
    struct label *labels;
    size_t label_count;
    double *values;    /* `count`: only what is there */
    uint64_t *present; /* which steps they are; NULL: `times_ms` tells */
    int64_t *times_ms;
    size_t count;
};

struct query_result {
    enum query_value_type type;
    struct arena arena;
    int64_t start_ms;
    int64_t step_ms;
    size_t steps;
    struct result_series *series;
    size_t series_count;
    char (*time_texts)[24]; /* of the steps of a range, printed once for all series; NULL if there are none */
    uint8_t *time_lens;
    double scalar;
    struct slice string;
    const char **warnings;
    size_t warning_count;
    const char **infos;
    size_t info_count;
    struct query_stats stats;
};

#endif
