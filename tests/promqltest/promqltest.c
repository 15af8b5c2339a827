/* promqltest.c: runs Prometheus' .test scripts.
 *
 *     promqltest [--verbose] FILE|DIRECTORY...
 *
 * A line for each evaluation that fails; the last line is "N passed, N failed, N skipped"; exit 1 if one
 * failed. An evaluation is skipped if it does not come out as expected and the data loaded for it holds what
 * can't be stored yet: native histograms or start timestamps. Nothing else is a reason, and there is no list.
 *
 * As in Prometheus, each instant query runs many times: with @ written to each of its selectors it has to
 * answer the same at other times, and as a range query its middle point has to be the same. */
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
#include "tests/promqltest/check.h"
#include "tests/promqltest/script.h"
#include "tests/promqltest/store.h"

struct run {
    struct store store;
    struct arena arena;   /* of a script */
    struct arena scratch; /* of an evaluation */
    bool has_unstorable;  /* native histograms or start timestamps were loaded */
    bool load_failed;
    const char *file;
    size_t passed, failed, skipped;
    bool verbose;
};

/* ---- load -----------------------------------------------------------------------------------------------
 */

static void load_run(struct run *run, const struct script_command *command) {
    size_t count = 0;
    struct store_series *list = arena_zalloc(&run->scratch, (command->series_count + 1) * sizeof *list);
    ASSERT(list != NULL);
    for (size_t i = 0; i < command->series_count; i++) {
        const struct script_series *from = &command->series[i];
        if (command->as_nhcb || from->is_start_times || from->has_histogram)
            run->has_unstorable = true;
        if (from->is_start_times || from->has_histogram)
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
    if (fault != NULL)
        printf("%s:%zu: load: %s\n", run->file, command->line, fault);
    run->load_failed = run->load_failed || fault != NULL;
}

/* ---- @ written to every selector ------------------------------------------------------------------------
 */

struct rewrite {
    struct run *run;
    struct buf text;
    struct slice from;
    size_t copied;
    int64_t time_ms;
    bool looks_at_time; /* some function does: the answer may differ at other times */
    bool has_start_end; /* @ start(), @ end(): they would have to be replaced */
};

static void at_insert(struct rewrite *rewrite, size_t end) {
    buf_append(&rewrite->text, rewrite->from.data + rewrite->copied, end - rewrite->copied);
    buf_printf(&rewrite->text, " @ %.3f", (double)rewrite->time_ms / 1000);
    rewrite->copied = end;
}

static void shift_rewrite(struct rewrite *rewrite, const struct ast_shift *shift, size_t end) {
    if (shift->at == AT_NONE)
        at_insert(rewrite, end);
    rewrite->has_start_end = rewrite->has_start_end || shift->at == AT_START || shift->at == AT_END;
}

/* In the order of the text. */
static void tree_rewrite(struct rewrite *rewrite, const struct ast *ast) {
    switch (ast->kind) {
    case AST_NUMBER:
    case AST_STRING:
        break;
    case AST_SELECTOR:
        shift_rewrite(rewrite, &ast->selector.shift, ast->end);
        break;
    case AST_MATRIX:
        shift_rewrite(rewrite, &ast->range.expr->selector.shift, ast->end);
        break;
    case AST_SUBQUERY: /* what is below has the subquery's times */
        shift_rewrite(rewrite, &ast->range.shift, ast->end);
        break;
    case AST_UNARY:
        tree_rewrite(rewrite, ast->unary.expr);
        break;
    case AST_BINARY:
        tree_rewrite(rewrite, ast->binary.left);
        tree_rewrite(rewrite, ast->binary.right);
        break;
    case AST_AGGREGATE:
        if (ast->aggregate.param != NULL)
            tree_rewrite(rewrite, ast->aggregate.param);
        tree_rewrite(rewrite, ast->aggregate.expr);
        break;
    case AST_CALL:
        for (size_t i = 0; i < ast->call.arg_count; i++)
            tree_rewrite(rewrite, ast->call.args[i]);
        break;
    case AST_PAREN:
        tree_rewrite(rewrite, ast->paren);
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

/* NULL if the query can't be pinned. */
static const char *text_pinned(struct run *run, const char *text, int64_t time_ms) {
    struct query_error error;
    struct parse_result parsed = {0};
    const char *pinned = NULL;
    ASSERT(query_parse(slice_str(text), &run->store.limits, &run->scratch, &error, &parsed) == STATUS_OK);
    struct rewrite rewrite = {.run = run, .from = slice_str(text), .time_ms = time_ms};
    buf_init(&rewrite.text);
    tree_rewrite(&rewrite, parsed.root);
    buf_append(&rewrite.text, rewrite.from.data + rewrite.copied, rewrite.from.len - rewrite.copied);
    if (!tree_looks_at_time(parsed.root) && !rewrite.has_start_end)
        pinned = arena_str(&run->scratch, buf_slice(&rewrite.text));
    buf_release(&rewrite.text);
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

static void eval_run(struct run *run, const struct script_command *command) {
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
    bool skip = fault != NULL && command->fault == NULL && run->has_unstorable;
    run->passed += fault == NULL;
    run->skipped += skip;
    run->failed += fault != NULL && !skip;
    if (fault != NULL && (!skip || run->verbose))
        printf("%s:%zu: %s: %s\n", run->file, command->line, skip ? "skipped" : "failed", fault);
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
    run->has_unstorable = run->load_failed = false;
    store_open(&run->store);
    script_parse(text, &run->store.limits, &run->arena, &script);
    for (size_t i = 0; i < script.count; i++) {
        const struct script_command *command = &script.commands[i];
        arena_reset(&run->scratch);
        switch (command->kind) {
        case SCRIPT_CLEAR:
            store_clear(&run->store);
            run->has_unstorable = run->load_failed = false;
            break;
        case SCRIPT_LOAD:
            load_run(run, command);
            break;
        case SCRIPT_EVAL:
            eval_run(run, command);
            break;
        case SCRIPT_FAULT:
            printf("%s:%zu: %s\n", run->file, command->line, command->fault);
            run->failed++;
            break;
        }
    }
    store_close(&run->store);
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
    arena_init(&run.arena, 1 << 20, 0);
    arena_init(&run.scratch, 1 << 20, 0);
    for (int i = 1; i < argc; i++) {
        struct stat st;
        if (strcmp(argv[i], "--verbose") == 0) {
            run.verbose = true;
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
