/* script.h: one of Prometheus' .test scripts as commands, in order. Everything borrows from the arena. */
#ifndef TIDALITE_PROMQLTEST_SCRIPT_H
#define TIDALITE_PROMQLTEST_SCRIPT_H

#include <stdbool.h>

#include "base/arena.h"
#include "base/label.h"
#include "base/limits.h"

struct script_value {
    bool present;
    double v;
};

/* A series line: of a load command, or an expected one. */
struct script_series {
    struct label *labels; /* sorted */
    size_t label_count;
    struct script_value *values;
    size_t value_count;
    bool is_start_times; /* series@st */
    bool has_histogram;  /* some are native histograms: missing in `values` */
};

/* What an evaluation may say beside its result: `pattern` is "msg:…", "regex:…", or NULL for anything. */
struct script_notes {
    bool some, none; /* expected */
    const char **patterns;
    size_t count; /* of `expect warn` lines; 0: legacy eval_warn, which wants any */
};

struct script_eval {
    const char *text;
    bool range;
    int64_t start_ms, end_ms, step_ms;
    bool ordered, fail;
    const char *fail_pattern;
    struct script_notes warnings, infos;
    const char *string; /* NULL: none expected */
    bool has_scalar;
    double scalar;
    bool has_grid; /* expect range vector: an instant query whose result is a matrix on this grid */
    int64_t grid_start_ms, grid_step_ms;
    struct script_series *series;
    size_t series_count;
};

enum script_kind { SCRIPT_CLEAR, SCRIPT_LOAD, SCRIPT_EVAL, SCRIPT_FAULT };

struct script_command {
    enum script_kind kind;
    size_t line;       /* from 1 */
    const char *fault; /* what can't be read; the command is not to be run */
    int64_t step_ms;   /* load */
    bool as_nhcb;      /* load_with_nhcb */
    struct script_series *series;
    size_t series_count;
    struct script_eval eval;
};

struct script {
    struct script_command *commands;
    size_t count;
};

/* `text` is changed: cut into lines. */
void script_parse(char *text, const struct limits *limits, struct arena *arena, struct script *out);

#endif
