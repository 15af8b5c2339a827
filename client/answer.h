/* answer.h: what /api/v1/query and /query_range answered. */
#ifndef TIDALITE_CLIENT_ANSWER_H
#define TIDALITE_CLIENT_ANSWER_H

#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/label.h"
#include "base/status.h"

enum answer_kind { ANSWER_SCALAR, ANSWER_STRING, ANSWER_VECTOR, ANSWER_MATRIX };

struct answer_point {
    int64_t time_ms;
    double value;
    struct slice text; /* the value as the server wrote it */
};

struct answer_series {
    struct label *labels; /* in name order; none for scalars and strings */
    size_t label_count;
    struct answer_point *points;
    size_t point_count;
    size_t histogram_count; /* points that are native histograms, which are not shown */
};

/* Everything lives in `arena`. */
struct answer {
    struct arena arena;
    enum answer_kind kind;
    struct answer_series *series;
    size_t series_count;
    struct slice *notes; /* warnings and infos */
    size_t note_count;
    struct slice error_type; /* of a failure; empty: a success */
    struct slice error;
};

/* STATUS_OK also for an answer that says that the query failed (error_type). STATUS_BAD_INPUT with one line
 * in `detail` if the body is none of Prometheus' API. Release it after STATUS_OK. */
int answer_read(struct slice body, struct answer *out, struct error_detail *detail);
void answer_release(struct answer *answer);

#endif
