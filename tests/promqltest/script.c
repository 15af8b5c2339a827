#include "tests/promqltest/script.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/batch.h"
#include "base/bytes.h"
#include "query/parse.h"

struct reader {
    char **lines;
    size_t count, at;
    const struct limits *limits;
    struct arena *arena;
};

static void *need(void *memory) {
    ASSERT(memory != NULL);
    return memory;
}

static bool starts(const char *text, const char *prefix) {
    return strncmp(text, prefix, strlen(prefix)) == 0;
}

static const char *skip_space(const char *p) {
    while (*p == ' ' || *p == '\t')
        p++;
    return p;
}

static bool duration_read(const char *text, int64_t *out) {
    return query_duration_parse(slice_str(text), out) && *out >= 0;
}

/* ---- Series lines ------------------------------------------------------------------------------------- */

/* Where the description ends and the values begin: `name`, `name{…}`, `name {…}`, `{…}`, each perhaps with
 * @st. */
static size_t description_end(const char *line) {
    size_t i = 0;
    bool braces = false;
    char quote = 0;
    for (; line[i] != 0; i++) {
        char c = line[i];
        if (quote != 0) {
            if (c == '\\' && quote != '`' && line[i + 1] != 0)
                i++;
            else if (c == quote)
                quote = 0;
        } else if (c == '"' || c == '\'' || c == '`') {
            quote = c;
        } else if (c == '{') {
            braces = true;
        } else if (c == '}') {
            braces = false;
        } else if (!braces && (c == ' ' || c == '\t')) {
            const char *next = skip_space(line + i);
            if (*next != '{' || next[1] == '{')
                break;
        }
    }
    return i;
}

static int label_order(const void *a, const void *b) {
    return slice_compare(((const struct label *)a)->name, ((const struct label *)b)->name);
}

static const char *labels_parse(struct reader *reader, struct slice text, struct script_series *series) {
    struct query_error error;
    struct query_selector selector = {0};
    char *copy = need(arena_str(reader->arena, text));
    /* {} is a series without labels, and no selector. */
    bool is_empty = strcmp(copy, "{}") == 0;
    if (!is_empty) {
        int status = query_selector_parse(slice_str(copy), reader->limits, reader->arena, &error, &selector);
        if (status < 0)
            return arena_printf(reader->arena, "%s: %s", copy, error.text);
    }
    series->labels = need(arena_alloc(reader->arena, (selector.count + 1) * sizeof(struct label)));
    for (size_t i = 0; i < selector.count; i++) {
        if (selector.matchers[i].value.len > 0) /* an empty label is none */
            series->labels[series->label_count++] =
                (struct label){selector.matchers[i].name, selector.matchers[i].value};
    }
    if (series->label_count > 0)
        qsort(series->labels, series->label_count, sizeof(struct label), label_order);
    query_selector_release(&selector);
    return NULL;
}

static bool number_read(const char **p, double *out) {
    if (starts(*p, "stale")) {
        *out = bits_double(STALE_NAN_BITS);
        *p += 5;
        return true;
    }
    /* Without the repetition behind it: strtod would read 0x10 as hexadecimal. */
    char copy[400], *end;
    size_t len = strcspn(*p, "x ");
    if (len >= sizeof copy)
        return false;
    memcpy(copy, *p, len);
    copy[len] = 0;
    *out = strtod(copy, &end);
    *p += end - copy;
    return end != copy;
}

static bool times_read(const char **p, size_t *out) {
    char *end;
    if (!isdigit((unsigned char)**p))
        return false;
    *out = strtoul(*p, &end, 10);
    *p = end;
    return true;
}

struct values {
    struct script_value *items;
    size_t count, capacity;
};

static void value_push(struct reader *reader, struct values *values, bool present, double v) {
    if (values->count == values->capacity) {
        size_t capacity = values->capacity == 0 ? 16 : values->capacity * 2;
        struct script_value *grown = need(arena_alloc(reader->arena, capacity * sizeof *grown));
        if (values->count > 0)
            memcpy(grown, values->items, values->count * sizeof *grown);
        values->items = grown;
        values->capacity = capacity;
    }
    values->items[values->count++] = (struct script_value){present, v};
}

/* Appends what one token stands for; false if it stands for nothing. */
static bool token_expand(struct reader *reader, const char *p, struct values *values) {
    size_t times = 0;
    if (*p == '_') {
        times = 1;
        if (*++p == 'x') {
            p++;
            if (!times_read(&p, &times))
                return false;
        }
        for (size_t i = 0; i < times; i++)
            value_push(reader, values, false, 0);
        return *p == 0;
    }
    double value, step = 0;
    if (!number_read(&p, &value))
        return false;
    if (*p == '+' || *p == '-') {
        double sign = *p++ == '-' ? -1 : 1;
        if (!number_read(&p, &step))
            return false;
        step *= sign;
    }
    if (*p == 'x') {
        p++;
        if (!times_read(&p, &times))
            return false;
    }
    for (size_t i = 0; i <= times; i++) {
        value_push(reader, values, true, value);
        if (step != 0)
            value += step;
    }
    return *p == 0;
}

/* {{…}}, {{…}}xN, {{…}}+{{…}}xN: can't be stored yet, so there is nothing at those times. */
static bool histograms_skip(struct reader *reader, const char **p, struct values *values) {
    size_t times = 0;
    do {
        const char *end = strstr(*p, "}}");
        if (end == NULL)
            return false;
        *p = end + 2;
    } while ((**p == '+' || **p == '-') && starts(++*p, "{{"));
    if (**p == 'x') {
        ++*p;
        if (!times_read(p, &times))
            return false;
    }
    for (size_t i = 0; i <= times; i++)
        value_push(reader, values, false, 0);
    return true;
}

static const char *series_parse(struct reader *reader, const char *line, struct script_series *series) {
    *series = (struct script_series){0};
    size_t end = description_end(line);
    struct slice name = slice_of(line, end);
    if (end >= 3 && memcmp(line + end - 3, "@st", 3) == 0) {
        series->is_start_times = true;
        name.len -= 3;
    }
    const char *fault = labels_parse(reader, name, series);
    if (fault != NULL || series->is_start_times)
        return fault;
    struct values values = {0};
    for (const char *p = skip_space(line + end); *p != 0; p = skip_space(p)) {
        if (starts(p, "{{")) {
            series->has_histogram = true;
            if (!histograms_skip(reader, &p, &values))
                return "a native histogram that does not end";
            continue;
        }
        size_t len = strcspn(p, " \t");
        char *token = need(arena_str(reader->arena, slice_of(p, len)));
        if (!token_expand(reader, token, &values))
            return arena_printf(reader->arena, "what is \"%s\"?", token);
        p += len;
    }
    series->values = values.items;
    series->value_count = values.count;
    return NULL;
}

static bool labels_same(const struct script_series *a, const struct script_series *b) {
    if (a->label_count != b->label_count)
        return false;
    for (size_t i = 0; i < a->label_count; i++) {
        if (!slice_equal(a->labels[i].name, b->labels[i].name) ||
            !slice_equal(a->labels[i].value, b->labels[i].value))
            return false;
    }
    return true;
}

static void series_push(struct reader *reader, struct script_series **items, size_t *count,
                        struct script_series series) {
    if ((*count & (*count - 1)) == 0) {
        size_t capacity = *count == 0 ? 1 : *count * 2;
        struct script_series *grown = need(arena_alloc(reader->arena, capacity * sizeof *grown));
        if (*count > 0)
            memcpy(grown, *items, *count * sizeof *grown);
        *items = grown;
    }
    (*items)[(*count)++] = series;
}

/* ---- load -----------------------------------------------------------------------------------------------
 */

static bool body_next(struct reader *reader, const char **line) {
    if (reader->at == reader->count || reader->lines[reader->at][0] == 0)
        return false;
    *line = reader->lines[reader->at++];
    return true;
}

static void load_parse(struct reader *reader, const char *line, struct script_command *command) {
    const char *rest = line + strcspn(line, " \t");
    command->kind = SCRIPT_LOAD;
    command->as_nhcb = starts(line, "load_with_nhcb");
    if (!duration_read(skip_space(rest), &command->step_ms))
        command->fault = "load takes a step";
    while (body_next(reader, &line)) {
        struct script_series series;
        const char *fault = series_parse(reader, line, &series);
        if (fault != NULL) {
            command->fault = command->fault == NULL ? fault : command->fault;
            continue;
        }
        /* Once more in one load: the later line counts. */
        size_t at = 0;
        while (at < command->series_count && (command->series[at].is_start_times != series.is_start_times ||
                                              !labels_same(&command->series[at], &series)))
            at++;
        if (at < command->series_count)
            command->series[at] = series;
        else
            series_push(reader, &command->series, &command->series_count, series);
    }
}

/* ---- eval -----------------------------------------------------------------------------------------------
 */

static void notes_add(struct reader *reader, struct script_notes *notes, const char *pattern) {
    const char **grown = need(arena_alloc(reader->arena, (notes->count + 1) * sizeof *grown));
    if (notes->count > 0)
        memcpy(grown, notes->patterns, notes->count * sizeof *grown);
    grown[notes->count++] = pattern;
    notes->patterns = grown;
    notes->some = true;
}

static const char *string_unquote(struct reader *reader, const char *text) {
    struct query_error error;
    struct parse_result parsed;
    if (query_parse(slice_str(text), reader->limits, reader->arena, &error, &parsed) < 0 ||
        parsed.root->kind != AST_STRING)
        return NULL;
    return arena_str(reader->arena, parsed.root->string);
}

static const char *expect_parse(struct reader *reader, const char *line, struct script_eval *eval) {
    const char *what = skip_space(line + 6);
    size_t len = strcspn(what, " \t");
    char *word = need(arena_str(reader->arena, slice_of(what, len)));
    const char *rest = skip_space(what + len);
    const char *pattern = *rest == 0 ? NULL : rest;
    if (strcmp(word, "ordered") == 0) {
        eval->ordered = true;
    } else if (strcmp(word, "fail") == 0) {
        if (eval->fail)
            return "expect fail comes once";
        eval->fail = true;
        eval->fail_pattern = pattern;
    } else if (strcmp(word, "warn") == 0) {
        notes_add(reader, &eval->warnings, pattern);
    } else if (strcmp(word, "info") == 0) {
        notes_add(reader, &eval->infos, pattern);
    } else if (strcmp(word, "no_warn") == 0) {
        eval->warnings.none = true;
    } else if (strcmp(word, "no_info") == 0) {
        eval->infos.none = true;
    } else if (strcmp(word, "string") == 0) {
        eval->string = string_unquote(reader, rest);
        if (eval->string == NULL)
            return "expect string takes a quoted string";
    } else if (strcmp(word, "range") == 0) {
        char from[64], to[64], step[64];
        int64_t end_ms;
        if (sscanf(rest, "vector from %63s to %63s step %63s", from, to, step) != 3 ||
            !duration_read(from, &eval->grid_start_ms) || !duration_read(to, &end_ms) ||
            !duration_read(step, &eval->grid_step_ms))
            return "expect range vector from A to B step S";
        eval->has_grid = true;
    } else {
        return "expect what?";
    }
    return NULL;
}

/* As Go's strconv with base 0: a float, or an integer in any base. */
static bool scalar_parse(const char *line, double *out) {
    const char *p = line;
    double sign = 1;
    if (*p == '+' || *p == '-')
        sign = *p++ == '-' ? -1 : 1;
    if (!number_text_parse(slice_str(p), out))
        return false;
    *out *= sign;
    return true;
}

static const char *eval_head(struct reader *reader, const char *line, struct script_eval *eval) {
    const char *rest = line + strcspn(line, " \t");
    eval->fail = starts(line, "eval_fail");
    eval->ordered = starts(line, "eval_ordered");
    eval->warnings.some = starts(line, "eval_warn");
    eval->infos.some = starts(line, "eval_info");
    char from[64], to[64], step[64];
    int used = 0;
    if (sscanf(rest, " instant at %63s %n", from, &used) == 1 && used > 0) {
        if (!duration_read(from, &eval->start_ms))
            return "eval instant at a time";
        eval->end_ms = eval->start_ms;
    } else if (sscanf(rest, " range from %63s to %63s step %63s %n", from, to, step, &used) == 3 &&
               used > 0) {
        eval->range = true;
        if (!duration_read(from, &eval->start_ms) || !duration_read(to, &eval->end_ms) ||
            !duration_read(step, &eval->step_ms))
            return "eval range from A to B step S";
    } else {
        return "eval instant at T EXPR, or eval range from A to B step S EXPR";
    }
    eval->text = arena_str(reader->arena, slice_str(rest + used));
    return NULL;
}

static const char *eval_line(struct reader *reader, const char *line, struct script_eval *eval) {
    if (starts(line, "expect ") || starts(line, "expect\t"))
        return expect_parse(reader, line, eval);
    if (starts(line, "expected_fail_message")) {
        eval->fail_pattern = arena_printf(reader->arena, "msg:%s", skip_space(line + 21));
        return NULL;
    }
    if (starts(line, "expected_fail_regexp")) {
        eval->fail_pattern = arena_printf(reader->arena, "regex:%s", skip_space(line + 20));
        return NULL;
    }
    if (scalar_parse(line, &eval->scalar)) {
        eval->has_scalar = true;
        return NULL;
    }
    struct script_series series;
    const char *fault = series_parse(reader, line, &series);
    if (fault == NULL && !eval->range && !eval->has_grid && !series.has_histogram && series.value_count != 1)
        fault = "an instant query has one value";
    if (fault == NULL)
        series_push(reader, &eval->series, &eval->series_count, series);
    return fault;
}

static void eval_parse(struct reader *reader, const char *line, struct script_command *command) {
    command->kind = SCRIPT_EVAL;
    command->fault = eval_head(reader, line, &command->eval);
    while (body_next(reader, &line)) {
        const char *fault = eval_line(reader, line, &command->eval);
        command->fault = command->fault == NULL ? fault : command->fault;
    }
    if (command->eval.text == NULL || command->fault != NULL)
        return;
    struct query_error error;
    struct parse_result parsed = {0};
    if (query_parse(slice_str(command->eval.text), reader->limits, reader->arena, &error, &parsed) < 0)
        command->fault = arena_printf(reader->arena, "the expression does not parse: %s", error.text);
    parse_regexes_release(&parsed.regexes);
}

/* ---- Lines ----------------------------------------------------------------------------------------------
 */

static void lines_cut(char *text, struct arena *arena, char ***lines_out, size_t *count_out) {
    size_t count = 1;
    for (const char *p = text; *p != 0; p++)
        count += *p == '\n';
    char **lines = need(arena_alloc(arena, count * sizeof *lines));
    count = 0;
    for (char *p = text; p != NULL;) {
        char *end = strchr(p, '\n');
        if (end != NULL)
            *end = 0;
        char *line = p;
        while (*line != 0 && strchr(" \t\r\v\f", *line) != NULL)
            line++;
        size_t len = strlen(line);
        while (len > 0 && strchr(" \t\r\v\f", line[len - 1]) != NULL)
            line[--len] = 0;
        if (*line == '#')
            *line = 0; /* an empty line: it ends a body */
        lines[count++] = line;
        p = end == NULL ? NULL : end + 1;
    }
    *lines_out = lines;
    *count_out = count;
}

static bool command_is(const char *line, const char *prefix) {
    size_t len = strlen(prefix);
    for (size_t i = 0; i < len; i++) {
        if (tolower((unsigned char)line[i]) != prefix[i])
            return false;
    }
    return true;
}

void script_parse(char *text, const struct limits *limits, struct arena *arena, struct script *out) {
    struct reader reader = {.limits = limits, .arena = arena};
    lines_cut(text, arena, &reader.lines, &reader.count);
    out->commands = need(arena_zalloc(arena, (reader.count + 1) * sizeof *out->commands));
    out->count = 0;
    while (reader.at < reader.count) {
        const char *line = reader.lines[reader.at++];
        if (*line == 0)
            continue;
        struct script_command *command = &out->commands[out->count++];
        command->line = reader.at;
        if (command_is(line, "clear")) {
            command->kind = SCRIPT_CLEAR;
        } else if (command_is(line, "load")) {
            load_parse(&reader, line, command);
        } else if (command_is(line, "eval")) {
            eval_parse(&reader, line, command);
        } else {
            command->kind = SCRIPT_FAULT;
            command->fault = arena_printf(arena, "invalid command \"%s\"", line);
        }
    }
}
