#include "client/options.h"

#include <string.h>

#include "query/query.h"

#define TIMEOUT_MS_DEFAULT 150000 /* a little more than the server gives a query */
#define STEPS_DEFAULT      240

const char client_help[] =
    "tidalite query: ask a running server, Tidalite or Prometheus, and show the answer.\n"
    "\n"
    "  tidalite query 'EXPR'                            its value now\n"
    "  tidalite query 'EXPR' --time 2026-01-31T12:00:00Z\n"
    "  tidalite query 'EXPR' --range 1h --step 15s      over time, with a plot\n"
    "\n"
    "  --server URL\n"
    "        where to ask; http or https, a path in front of /api/v1 belongs to it (default "
    "http://127.0.0.1:9201)\n"
    "  --time TIME\n"
    "        at this time; with --range, its end: Unix seconds or RFC 3339 (default now)\n"
    "  --range DURATION\n"
    "        from that long before, instead of at one time\n"
    "  --step DURATION\n"
    "        between two points of a range (default one that gives about 240)\n"
    "  --format table|json|csv\n"
    "        json is the server's answer as it came; csv has a row a sample and a column a label (default "
    "table)\n"
    "  --plot auto|always|never\n"
    "        draw a range above its table; auto: on a terminal. As wide as the terminal, or COLUMNS, or 80 "
    "(default auto)\n"
    "  --timeout DURATION\n"
    "        for the whole request (default 150s)\n"
    "\n"
    "DURATION: 15s, 5m, 1h30m, 7d, or seconds. Exit code: 0; 1 if there is no answer or the query failed; 2 "
    "for a mistake on\n"
    "the command line. Colours follow NO_COLOR and need a terminal; warnings go to standard error.\n";

static int word_set(const char *flag, const char *value, const char *const *words, int count,
                    struct error_detail *detail) {
    for (int i = 0; i < count; i++) {
        if (strcmp(value, words[i]) == 0)
            return i;
    }
    char list[64] = "";
    for (int i = 0; i < count; i++) {
        strncat(list, i == 0 ? "" : i == count - 1 ? " or " : ", ", sizeof list - strlen(list) - 1);
        strncat(list, words[i], sizeof list - strlen(list) - 1);
    }
    return error_set(detail, STATUS_BAD_INPUT, "bad value \"%s\" for %s; it takes %s", value, flag, list);
}

static int duration_set(const char *flag, const char *value, int64_t *out, struct error_detail *detail) {
    if (query_duration_parse(slice_str(value), out) && *out > 0)
        return STATUS_OK;
    return error_set(detail, STATUS_BAD_INPUT,
                     "bad value \"%s\" for %s; it takes a duration such as 15s, 5m or 1h30m", value, flag);
}

static int option_set(struct client_options *options, const char *flag, const char *value,
                      struct error_detail *detail) {
    static const char *const formats[] = {"table", "json", "csv"}, *const plots[] = {"auto", "always",
                                                                                     "never"};
    int status = STATUS_OK;
    if (strcmp(flag, "--server") == 0) {
        if (strncmp(value, "http://", 7) != 0 && strncmp(value, "https://", 8) != 0)
            return error_set(detail, STATUS_BAD_INPUT,
                             "bad value \"%s\" for --server; it takes a URL such as http://127.0.0.1:9201",
                             value);
        options->server = value;
    } else if (strcmp(flag, "--time") == 0) {
        if (!query_time_parse(slice_str(value), &options->time_ms))
            return error_set(detail, STATUS_BAD_INPUT,
                             "bad value \"%s\" for --time; it takes Unix seconds or RFC 3339, such as "
                             "2026-01-31T12:00:00Z",
                             value);
        options->time_given = true;
    } else if (strcmp(flag, "--range") == 0) {
        options->range = true;
        status = duration_set(flag, value, &options->range_ms, detail);
    } else if (strcmp(flag, "--step") == 0) {
        status = duration_set(flag, value, &options->step_ms, detail);
    } else if (strcmp(flag, "--timeout") == 0) {
        status = duration_set(flag, value, &options->timeout_ms, detail);
    } else if (strcmp(flag, "--format") == 0) {
        TRY(word_set(flag, value, formats, 3, detail));
        options->format = (enum client_format)status;
    } else if (strcmp(flag, "--plot") == 0) {
        TRY(word_set(flag, value, plots, 3, detail));
        options->plot = (enum client_plot)status;
    } else {
        return error_set(detail, STATUS_BAD_INPUT,
                         "unknown flag \"%s\"; 'tidalite query --help' lists the flags", flag);
    }
out:
    return status < 0 ? status : STATUS_OK;
}

/* About STEPS_DEFAULT steps of a length that a person would choose. */
static int64_t step_choose(int64_t range_ms) {
    static const int64_t nice_s[] = {1,   2,   5,    10,   15,   30,    60,    120,  300,
                                     600, 900, 1800, 3600, 7200, 21600, 43200, 86400};
    for (size_t i = 0; i < sizeof nice_s / sizeof nice_s[0]; i++) {
        if (range_ms / (nice_s[i] * 1000) <= STEPS_DEFAULT)
            return nice_s[i] * 1000;
    }
    return range_ms / STEPS_DEFAULT;
}

int client_options_parse(int argc, char **argv, int64_t now_ms, struct client_options *out,
                         struct error_detail *detail) {
    struct client_options options = {
        .server = "http://127.0.0.1:9201", .time_ms = now_ms, .timeout_ms = TIMEOUT_MS_DEFAULT};
    bool only_words = false;
    int status = STATUS_OK;
    for (int i = 1; i < argc; i++) {
        char flag[32];
        const char *word = argv[i];
        if (!only_words && (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0)) {
            options.help = true;
            break;
        }
        if (!only_words && strcmp(word, "--") == 0) {
            only_words = true;
            continue;
        }
        if (only_words || strncmp(word, "--", 2) != 0) { /* one dash may begin an expression: -up */
            if (options.expression != NULL)
                return error_set(detail, STATUS_BAD_INPUT,
                                 "more than one expression: \"%s\" and \"%s\"; quote it as one word: "
                                 "tidalite query 'sum(up)'",
                                 options.expression, word);
            options.expression = word;
            continue;
        }
        const char *equals = strchr(word, '='), *value = equals != NULL ? equals + 1
                                                         : i + 1 < argc ? argv[++i]
                                                                        : NULL;
        size_t flag_len = equals != NULL ? (size_t)(equals - word) : strlen(word);
        if (flag_len >= sizeof flag)
            return error_set(detail, STATUS_BAD_INPUT,
                             "unknown flag \"%s\"; 'tidalite query --help' lists the flags", word);
        memcpy(flag, word, flag_len);
        flag[flag_len] = 0;
        if (value == NULL)
            return error_set(detail, STATUS_BAD_INPUT,
                             "%s needs a value; 'tidalite query --help' lists the flags", flag);
        TRY(option_set(&options, flag, value, detail));
    }
    if (!options.help && options.expression == NULL)
        return error_set(detail, STATUS_BAD_INPUT, "no expression; for example: tidalite query 'up'");
    if (options.step_ms > 0 && !options.range)
        return error_set(detail, STATUS_BAD_INPUT, "--step goes with --range, for example --range 1h");
    if (options.range && options.step_ms == 0)
        options.step_ms = step_choose(options.range_ms);
    *out = options;
out:
    return status;
}
