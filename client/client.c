/* client.c: `tidalite query` from the command line to what is printed. */
#include "client/client.h"

#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/float_text.h"
#include "client/answer.h"
#include "client/options.h"
#include "client/request.h"
#include "client/show.h"

#define EXIT_OK     0
#define EXIT_FAILED 1
#define EXIT_USAGE  2

#define SUMMARY_ROWS_MAX 40

static int print(const struct buf *text) {
    if (text->failed) {
        fprintf(stderr, "tidalite: out of memory\n");
        return EXIT_FAILED;
    }
    bool ok =
        (text->len == 0 || fwrite(text->data, 1, text->len, stdout) == text->len) && fflush(stdout) == 0;
    return ok ? EXIT_OK : EXIT_FAILED;
}

static void seconds_text(int64_t ms, char out[32]) {
    out[time_text_json(ms, out)] = 0;
}

/* Unix seconds with a decimal point where there is need: no exponent, as Prometheus' parameters want them. */
static int ask(const struct client_options *options, struct buf *body, long *code,
               struct error_detail *detail) {
    char start[32], end[32], step[32];
    struct request_field fields[4] = {{"query", options->expression}};
    size_t count = 1;
    seconds_text(options->time_ms - options->range_ms, start);
    seconds_text(options->time_ms, end);
    seconds_text(options->step_ms, step);
    if (options->range) {
        fields[count++] = (struct request_field){"start", start};
        fields[count++] = (struct request_field){"end", end};
        fields[count++] = (struct request_field){"step", step};
    } else if (options->time_given) {
        fields[count++] = (struct request_field){"time", end};
    }
    return request_post(options->server, options->range ? "/api/v1/query_range" : "/api/v1/query", fields,
                        count, options->timeout_ms, body, code, detail);
}

/* The line of the expression that the error's "line:column" points into, and a mark below. */
static void error_point(const char *expression, const char *error) {
    unsigned line = 0, column = 0;
    const char *at = strstr(error, ": parse error");
    while (at != NULL && at > error && ((at[-1] >= '0' && at[-1] <= '9') || at[-1] == ':'))
        at--;
    if (at == NULL || sscanf(at, "%u:%u:", &line, &column) != 2 || line == 0 || column == 0)
        return;
    for (; line > 1; line--) {
        expression = strchr(expression, '\n');
        if (expression == NULL)
            return;
        expression++;
    }
    size_t len = strcspn(expression, "\n");
    if (column > len + 1 || len > 500)
        return;
    fprintf(stderr, "  %.*s\n  ", (int)len, expression);
    for (size_t i = 0; i + 1 < column; i++) {
        if (expression[i] == '\t')
            fputc('\t', stderr);
        else if ((expression[i] & 0xc0) != 0x80)
            fputc(' ', stderr);
    }
    fputs("^\n", stderr);
}

static int show(const struct client_options *options, const struct answer *answer, struct buf *out) {
    struct terminal terminal;
    terminal_look(&terminal);
    if (options->format == CLIENT_CSV) {
        show_csv(answer, out);
    } else if (!options->range) {
        show_table(answer, &terminal, out);
    } else {
        bool plot = options->plot == CLIENT_PLOT_ALWAYS ||
                    (options->plot == CLIENT_PLOT_AUTO && terminal.is_terminal);
        if (plot)
            show_plot(answer, &terminal, options->time_ms - options->range_ms, options->time_ms,
                      options->step_ms, out);
        show_summary(answer, &terminal, plot, terminal.is_terminal ? SUMMARY_ROWS_MAX : SIZE_MAX, out);
    }
    if (answer->series_count == 0 && options->format == CLIENT_TABLE)
        fprintf(stderr, "nothing: no series has a value there\n");
    return print(out);
}

static int answer_show(const struct client_options *options, struct slice body, long code,
                       struct error_detail *detail) {
    struct answer answer;
    struct buf out;
    if (answer_read(body, &answer, detail) < 0) {
        fprintf(stderr, "tidalite: %s answered %ld: %s\n", options->server, code, detail->text);
        return EXIT_FAILED;
    }
    int exit_code = EXIT_FAILED;
    for (size_t i = 0; i < answer.note_count; i++)
        fprintf(stderr, "note: %.*s\n", SLICE_ARGS(answer.notes[i]));
    buf_init(&out);
    if (answer.error_type.len > 0) {
        buf_append(&out, answer.error.data, answer.error.len);
        buf_append_byte(&out, 0);
        if (!out.failed) {
            fprintf(stderr, "tidalite: %s\n", (const char *)out.data);
            error_point(options->expression, (const char *)out.data);
        }
    } else if (options->format == CLIENT_JSON) {
        buf_append(&out, body.data, body.len);
        buf_append_byte(&out, '\n');
        exit_code = print(&out);
    } else {
        exit_code = show(options, &answer, &out);
    }
    buf_release(&out);
    answer_release(&answer);
    return exit_code;
}

int client_query(int argc, char **argv) {
    struct client_options options;
    struct error_detail detail = {{0}};
    struct buf body;
    long code = 0;
    if (client_options_parse(argc, argv, clock_wall_ms(clock_system()), &options, &detail) < 0) {
        fprintf(stderr, "tidalite: %s\n", detail.text);
        return EXIT_USAGE;
    }
    if (options.help)
        return fputs(client_help, stdout) >= 0 && fflush(stdout) == 0 ? EXIT_OK : EXIT_FAILED;
    buf_init(&body);
    int exit_code = EXIT_FAILED;
    if (ask(&options, &body, &code, &detail) < 0)
        fprintf(stderr, "tidalite: %s\n", detail.text);
    else
        exit_code = answer_show(&options, buf_slice(&body), code, &detail);
    buf_release(&body);
    return exit_code;
}
