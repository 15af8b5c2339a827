/* promqltest.c: runs Prometheus' .test scripts.
 *
 *     promqltest [--verbose] [--head] FILE|DIRECTORY...
 *
 * A line for each evaluation that fails; the last line is "N passed, N failed, N skipped"; exit 1 if one
 * failed. An evaluation is skipped if it does not come out as expected and the data loaded for it holds what
 * can't be stored yet: native histograms or start timestamps. Nothing else is a reason, and there is no list.
 *
 * As in Prometheus, each instant query runs many times: with @ written to each of its selectors it has to
 * answer the same at other times, and as a range query its middle point has to be the same. And each script
 * runs twice: with its data in the head, and (not so with --head) with its data in blocks. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/alloc.h"
#include "base/assert.h"
#include "base/log.h"
#include "query/functions.h"
#include "query/parse.h"
#include "query/print.h"
#include "tests/promqltest/check.h"
#include "tests/promqltest/script.h"
#include "tests/promqltest/store.h"

struct run {
    struct store store;
    struct limits limits; /* of parsing */
    struct arena arena;   /* of a script */
    struct arena scratch; /* of an evaluation */
    bool load_failed;
    const char *file;
    bool in_blocks;      /* this is the second run of the script */
    const char **faults; /* of its commands in the first run; NULL: none */
    size_t passed, failed, skipped;
    bool verbose, head_only;
};

/* ---- load -----------------------------------------------------------------------------------------------
 */

/* Does it hold native histograms or start timestamps? */
static bool load_is_unstorable(const struct script_command *command) {
    bool is = command->as_nhcb && command->series_count > 0;
    for (size_t i = 0; i < command->series_count; i++)
        is = is || command->series[i].is_start_times || command->series[i].has_histogram;
    return is;
}

static void load_run(struct run *run, const struct script_command *command) {
    size_t count = 0;
    struct store_series *list = arena_zalloc(&run->scratch, (command->series_count + 1) * sizeof *list);
    ASSERT(list != NULL);
    for (size_t i = 0; i < command->series_count; i++) {
        const struct script_series *from = &command->series[i];
        if (from->is_start_times)
            continue;
        int64_t *times_ms = arena_alloc(&run->scratch, (from->value_count + 1) * sizeof *times_ms);
        double *values = arena_alloc(&run->scratch, (from->value_count + 1) * sizeof *values);
        ASSERT(times_ms != NULL && values != NULL);
        struct store_series *to = &list[count++];
        *to = (struct store_series){from->labels, from->label_count, times_ms, values, 0};
        for (size_t k = 0; k < from->value_count; k++) {
            if (!from->values[k].present)
                continue;
            times_ms[to->count] = (int64_t)k * command->step_ms;
            values[to->count++] = from->values[k].v;
        }
    }
    const char *fault = command->fault != NULL ? command->fault : store_write(&run->store, list, count);
    if (run->in_blocks && fault == NULL && !store_flush(&run->store))
        fault = "it did not go to blocks";
    if (fault != NULL)
        printf("%s:%zu: load: %s\n", run->file, command->line, fault);
    run->load_failed = run->load_failed || fault != NULL;
}

/* ---- @ written to every selector ------------------------------------------------------------------------
 */

static void shift_pin(struct ast_shift *shift, int64_t time_ms) {
    if (shift->at == AT_TIME)
        return;
    shift->at = AT_TIME;
    shift->at_ms = time_ms;
}

static void tree_pin(struct ast *ast, int64_t time_ms) {
    switch (ast->kind) {
    case AST_NUMBER:
    case AST_STRING:
        break;
    case AST_SELECTOR:
        shift_pin(&ast->selector.shift, time_ms);
        break;
    case AST_MATRIX:
        shift_pin(&ast->range.expr->selector.shift, time_ms);
        break;
    case AST_SUBQUERY: /* what is below has the subquery's times */
        shift_pin(&ast->range.shift, time_ms);
        break;
    case AST_UNARY:
        tree_pin(ast->unary.expr, time_ms);
        break;
    case AST_BINARY:
        tree_pin(ast->binary.left, time_ms);
        tree_pin(ast->binary.right, time_ms);
        break;
    case AST_AGGREGATE:
        if (ast->aggregate.param != NULL)
            tree_pin(ast->aggregate.param, time_ms);
        tree_pin(ast->aggregate.expr, time_ms);
        break;
    case AST_CALL:
        for (size_t i = 0; i < ast->call.arg_count; i++)
            tree_pin(ast->call.args[i], time_ms);
        break;
    case AST_PAREN:
        tree_pin(ast->paren, time_ms);
        break;
    }
}

static bool function_looks_at_time(const char *name) {
    static const char *const names[] = {
        "days_in_month", "day_of_month", "day_of_week", "day_of_year",    "end",
        "hour",          "minute",       "month",       "predict_linear", "range",
        "start",         "step",         "time",        "timestamp",      "year"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (strcmp(names[i], name) == 0)
            return true;
    }
    return false;
}

static bool tree_looks_at_time(const struct ast *ast) {
    bool looks = false;
    switch (ast->kind) {
    case AST_MATRIX:
    case AST_SUBQUERY:
        return tree_looks_at_time(ast->range.expr);
    case AST_UNARY:
        return tree_looks_at_time(ast->unary.expr);
    case AST_BINARY:
        return tree_looks_at_time(ast->binary.left) || tree_looks_at_time(ast->binary.right);
    case AST_AGGREGATE:
        return (ast->aggregate.param != NULL && tree_looks_at_time(ast->aggregate.param)) ||
               tree_looks_at_time(ast->aggregate.expr);
    case AST_CALL:
        looks = function_looks_at_time(ast->call.function->name);
        for (size_t i = 0; i < ast->call.arg_count; i++)
            looks = looks || tree_looks_at_time(ast->call.args[i]);
        return looks;
    case AST_PAREN:
        return tree_looks_at_time(ast->paren);
    default:
        return false;
    }
}

/* The query with @ everywhere, printed; NULL if its answer depends on when it is asked all the same. */
static const char *text_pinned(struct run *run, const char *text, int64_t time_ms) {
    struct query_error error;
    struct parse_result parsed = {0};
    const char *pinned = NULL;
    ASSERT(query_parse(slice_str(text), &run->store.limits, &run->scratch, &error, &parsed) == STATUS_OK);
    if (!tree_looks_at_time(parsed.root)) {
        struct buf printed;
        buf_init(&printed);
        tree_pin(parsed.root, time_ms);
        ast_print(parsed.root, &printed);
        pinned = arena_str(&run->scratch, buf_slice(&printed));
        buf_release(&printed);
    }
    parse_regexes_release(&parsed.regexes);
    return pinned;
}

/* ---- eval -----------------------------------------------------------------------------------------------
 */

static const char *query_once(struct run *run, const struct script_eval *eval, const char *text,
                              int64_t start_ms, int64_t end_ms, bool is_middle) {
    struct query_request request = {.text = slice_str(text),
                                    .range = eval->range || is_middle,
                                    .start_ms = start_ms,
                                    .end_ms = end_ms,
                                    .step_ms = is_middle ? 60000 : eval->step_ms,
                                    .lookback_ms = 300000,
                                    .timeout_ms = 100000,
                                    .delayed_name_removal = true};
    struct query_error error;
    struct query_result *result = NULL;
    const char *fault;
    if (query_run(run->store.storage, &run->store.limits, clock_system(), &request, &error, &result) < 0) {
        fault = is_middle ? arena_printf(&run->scratch, "it failed: %s", error.text)
                          : check_failure(eval, error.text, &run->scratch);
    } else if (is_middle) {
        fault = check_middle(eval, result, start_ms + 60000, !eval->ordered, &run->scratch);
    } else {
        fault = check_result(eval, result, &run->scratch);
    }
    query_result_free(result);
    return fault;
}

/* At one time: as it is, and as the middle of a range. */
static const char *instant_run(struct run *run, const struct script_eval *eval, const char *text,
                               int64_t time_ms) {
    const char *fault = query_once(run, eval, text, time_ms, time_ms, false);
    if (fault != NULL)
        return arena_printf(&run->scratch, "%s\n    at %.3f: %s", text, (double)time_ms / 1000, fault);
    bool no_middle = eval->fail || eval->string != NULL || eval->has_grid ||
                     strstr(text, "start()") != NULL || strstr(text, "end()") != NULL ||
                     strstr(text, "range()") != NULL || strstr(text, "step()") != NULL;
    if (!no_middle)
        fault = query_once(run, eval, text, time_ms - 60000, time_ms + 60000, true);
    return fault == NULL ? NULL
                         : arena_printf(&run->scratch, "%s\n    in a range around %.3f: %s", text,
                                        (double)time_ms / 1000, fault);
}

static const char *eval_check(struct run *run, const struct script_eval *eval) {
    if (eval->range) {
        const char *fault = query_once(run, eval, eval->text, eval->start_ms, eval->end_ms, false);
        return fault == NULL ? NULL : arena_printf(&run->scratch, "%s\n    %s", eval->text, fault);
    }
    int64_t t = eval->start_ms;
    const char *fault = instant_run(run, eval, eval->text, t);
    const char *pinned = text_pinned(run, eval->text, t);
    if (fault != NULL || pinned == NULL)
        return fault;
    int64_t times[5] = {-10 * t, 0, t / 5, t, 10 * t};
    size_t count = 5;
    if (t == 0) {
        times[0] = -1000;
        times[1] = 0;
        times[2] = 1000;
        count = 3;
    }
    for (size_t i = 0; i < count && fault == NULL; i++)
        fault = instant_run(run, eval, pinned, times[i]);
    return fault;
}

/* NULL, or what is wrong. */
static const char *eval_run(struct run *run, const struct script_command *command) {
    const struct script_eval *eval = &command->eval;
    const char *fault = command->fault;
    if (fault == NULL)
        fault = eval_check(run, eval);
    if (fault == NULL && run->load_failed)
        fault = "its data could not be loaded";
    for (size_t i = 0; i < eval->series_count && fault == NULL; i++) {
        if (eval->series[i].has_histogram)
            fault = "a native histogram is expected";
    }
    return fault;
}

/* Passed, failed, or, because of the data loaded before it, skipped. */
static void script_count(struct run *run, const struct script *script) {
    bool has_unstorable = false;
    for (size_t i = 0; i < script->count; i++) {
        const struct script_command *command = &script->commands[i];
        const char *fault = command->kind == SCRIPT_FAULT ? command->fault : run->faults[i];
        if (command->kind == SCRIPT_CLEAR)
            has_unstorable = false;
        if (command->kind == SCRIPT_LOAD)
            has_unstorable = has_unstorable || load_is_unstorable(command);
        bool skip = fault != NULL && command->fault == NULL && has_unstorable;
        run->passed += command->kind == SCRIPT_EVAL && fault == NULL;
        run->skipped += skip;
        run->failed += fault != NULL && !skip;
        if (fault != NULL && (!skip || run->verbose))
            printf("%s:%zu: %s: %s\n", run->file, command->line, skip ? "skipped" : "failed", fault);
    }
}

/* ---- Scripts --------------------------------------------------------------------------------------------
 */

static char *file_read(const char *path, struct arena *arena) {
    FILE *file = fopen(path, "rb");
    if (file == NULL)
        return NULL;
    fseek(file, 0, SEEK_END);
    size_t size = (size_t)ftell(file);
    rewind(file);
    char *text = arena_alloc(arena, size + 1);
    ASSERT(text != NULL);
    text[fread(text, 1, size, file)] = 0;
    fclose(file);
    return text;
}

static void script_run(struct run *run, const struct script *script, bool in_blocks) {
    run->in_blocks = in_blocks;
    run->load_failed = false;
    store_open(&run->store);
    for (size_t i = 0; i < script->count; i++) {
        const struct script_command *command = &script->commands[i];
        arena_reset(&run->scratch);
        switch (command->kind) {
        case SCRIPT_CLEAR:
            store_clear(&run->store);
            run->load_failed = false;
            break;
        case SCRIPT_LOAD:
            load_run(run, command);
            break;
        case SCRIPT_EVAL: {
            const char *fault = run->faults[i] == NULL ? eval_run(run, command) : NULL;
            if (!in_blocks)
                run->faults[i] = fault == NULL ? NULL : arena_str(&run->arena, slice_str(fault));
            else if (run->faults[i] == NULL && fault != NULL)
                run->faults[i] = arena_printf(&run->arena, "with its data in blocks: %s", fault);
            break;
        }
        case SCRIPT_FAULT:
            break;
        }
    }
    store_close(&run->store);
}

static void file_run(struct run *run, const char *path) {
    size_t passed = run->passed, failed = run->failed, skipped = run->skipped;
    struct script script;
    arena_reset(&run->arena);
    const char *slash = strrchr(path, '/');
    run->file = slash == NULL ? path : slash + 1;
    char *text = file_read(path, &run->arena);
    if (text == NULL) {
        printf("%s: can't be read\n", path);
        run->failed++;
        return;
    }
    script_parse(text, &run->limits, &run->arena, &script);
    run->faults = arena_zalloc(&run->arena, (script.count + 1) * sizeof *run->faults);
    ASSERT(run->faults != NULL);
    script_run(run, &script, false);
    if (!run->head_only)
        script_run(run, &script, true);
    script_count(run, &script);
    printf("%-28s %4zu passed, %zu failed, %zu skipped\n", run->file, run->passed - passed,
           run->failed - failed, run->skipped - skipped);
}

static int name_order(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* The .test files of a directory. */
static size_t folder_run(struct run *run, const char *dir) {
    DIR *folder = opendir(dir);
    char *names[256];
    size_t count = 0;
    if (folder == NULL)
        return 0;
    for (struct dirent *entry; (entry = readdir(folder)) != NULL && count < 256;) {
        size_t len = strlen(entry->d_name);
        if (len > 5 && strcmp(entry->d_name + len - 5, ".test") == 0)
            names[count++] = mem_strndup(entry->d_name, len);
    }
    closedir(folder);
    qsort(names, count, sizeof names[0], name_order);
    for (size_t i = 0; i < count; i++) {
        char path[4096];
        snprintf(path, sizeof path, "%s/%s", dir, names[i]);
        file_run(run, path);
        mem_free(names[i]);
    }
    return count;
}

int main(int argc, char **argv) {
    struct run run = {0};
    size_t files = 0;
    log_setup(LOG_ERROR, LOG_FORMAT_LOGFMT, 2);
    limits_init(&run.limits);
    arena_init(&run.arena, 1 << 20, 0);
    arena_init(&run.scratch, 1 << 20, 0);
    for (int i = 1; i < argc; i++) {
        struct stat st;
        if (strcmp(argv[i], "--verbose") == 0) {
            run.verbose = true;
        } else if (strcmp(argv[i], "--head") == 0) {
            run.head_only = true;
        } else if (stat(argv[i], &st) == 0 && S_ISDIR(st.st_mode)) {
            files += folder_run(&run, argv[i]);
        } else if (stat(argv[i], &st) == 0 || i + 1 < argc || files > 0) {
            file_run(&run, argv[i]);
            files++;
        }
    }
    arena_release(&run.arena);
    arena_release(&run.scratch);
    if (files == 0) {
        bool ci = getenv("CI") != NULL && strcmp(getenv("CI"), "true") == 0;
        printf("%s: no scripts (set TIDALITE_PROMQLTEST_DIR)\n", ci ? "failed" : "skipped");
        return ci ? 1 : 77;
    }
    printf("%zu passed, %zu failed, %zu skipped\n", run.passed, run.failed, run.skipped);
    return run.failed == 0 ? 0 : 1;
}
