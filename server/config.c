#include "server/config.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>

enum option_kind {
    OPTION_TEXT,
    OPTION_IO,
    OPTION_DURATION,
    OPTION_COUNT,
    OPTION_LEVEL,
    OPTION_FORMAT,
    OPTION_SWITCH
};

struct option {
    const char *flag;
    enum option_kind kind;
    size_t offset;
    const char *value_default;
    const char *values;
    const char *help;
};

static const struct option options[] = {
#define OPTION(flag, kind, field, value, values, help)                                                       \
    {flag, OPTION_##kind, offsetof(struct config, field), value, values, help},
#include "server/config.def"
#undef OPTION
};
#define OPTION_COUNT_OF (sizeof options / sizeof options[0])

/* Larger than any sensible bound, small enough that sums of a few cannot overflow. */
#define CONFIG_NUMBER_MAX (UINT64_C(1) << 53)

static bool digits_parse(const char **p, uint64_t *out) {
    if (**p < '0' || **p > '9')
        return false;
    uint64_t value = 0;
    for (; **p >= '0' && **p <= '9'; (*p)++) {
        value = value * 10 + (uint64_t)(**p - '0');
        if (value > CONFIG_NUMBER_MAX)
            return false;
    }
    *out = value;
    return true;
}

struct unit {
    const char *text;
    uint64_t factor;
};

/* Takes the longest unit that `*p` starts with. */
static bool unit_take(const char **p, const struct unit *units, size_t count, uint64_t *factor) {
    const struct unit *best = NULL;
    size_t best_len = 0;
    for (size_t i = 0; i < count; i++) {
        size_t len = strlen(units[i].text);
        if (len > best_len && strncmp(*p, units[i].text, len) == 0) {
            best = &units[i];
            best_len = len;
        }
    }
    if (best == NULL)
        return false;
    *p += best_len;
    *factor = best->factor;
    return true;
}

bool config_duration_parse(const char *text, uint64_t *ms_out) {
    static const struct unit units[] = {{"ms", 1},       {"s", 1000},      {"m", 60000},      {"h", 3600000},
                                        {"d", 86400000}, {"w", 604800000}, {"y", 31536000000}};
    uint64_t total = 0;
    const char *p = text;
    if (strcmp(text, "0") == 0) {
        *ms_out = 0;
        return true;
    }
    do {
        uint64_t number, factor;
        if (!digits_parse(&p, &number) || !unit_take(&p, units, sizeof units / sizeof units[0], &factor) ||
            number > CONFIG_NUMBER_MAX / factor)
            return false;
        total += number * factor;
        if (total > CONFIG_NUMBER_MAX)
            return false;
    } while (*p != 0);
    *ms_out = total;
    return true;
}

bool config_count_parse(const char *text, uint64_t *count_out) {
    static const struct unit units[] = {
        {"B", 1},         {"k", 1000},      {"K", 1000},       {"M", 1000000},     {"G", 1000000000},
        {"kB", 1000},     {"KB", 1000},     {"MB", 1000000},   {"GB", 1000000000}, {"Ki", 1u << 10},
        {"Mi", 1u << 20}, {"Gi", 1u << 30}, {"KiB", 1u << 10}, {"MiB", 1u << 20},  {"GiB", 1u << 30}};
    uint64_t number, factor = 1;
    const char *p = text;
    if (!digits_parse(&p, &number))
        return false;
    if (*p != 0 && (!unit_take(&p, units, sizeof units / sizeof units[0], &factor) || *p != 0))
        return false;
    if (number > CONFIG_NUMBER_MAX / factor)
        return false;
    *count_out = number * factor;
    return true;
}

static bool io_parse(const char *text, enum io_backend *out) {
    if (strcmp(text, "auto") == 0)
        *out = IO_BACKEND_AUTO;
    else if (strcmp(text, "uring") == 0)
        *out = IO_BACKEND_URING;
    else if (strcmp(text, "syscall") == 0)
        *out = IO_BACKEND_SYSCALL;
    else
        return false;
    return true;
}

static bool option_set(struct config *config, const struct option *option, const char *text) {
    void *field = (char *)config + option->offset;
    switch (option->kind) {
    case OPTION_TEXT:
        memcpy(field, &text, sizeof text);
        return true;
    case OPTION_IO:
        return io_parse(text, field);
    case OPTION_DURATION:
        return config_duration_parse(text, field);
    case OPTION_COUNT:
        return config_count_parse(text, field);
    case OPTION_LEVEL:
        return log_level_parse(text, field);
    case OPTION_FORMAT:
        return log_format_parse(text, field);
    case OPTION_SWITCH:
        *(bool *)field = strcmp(text, "true") == 0;
        return *(bool *)field || strcmp(text, "false") == 0;
    }
    return false;
}

static bool limit_is_duration(const struct limit_info *info) {
    return strcmp(info->unit, "ms") == 0;
}

static uint64_t *limit_field(const struct limit_info *info, struct limits *limits) {
    return (uint64_t *)(void *)((char *)limits + info->offset);
}

static const char *limit_values(const struct limit_info *info) {
    if (limit_is_duration(info))
        return "DURATION";
    return strcmp(info->unit, "bytes") == 0 ? "BYTES" : "N";
}

static bool limit_set(const struct limit_info *info, struct limits *limits, const char *text) {
    uint64_t value;
    bool ok =
        limit_is_duration(info) ? config_duration_parse(text, &value) : config_count_parse(text, &value);
    if (!ok || (value == 0 && !info->takes_zero))
        return false;
    *limit_field(info, limits) = value;
    return true;
}

static bool flag_is(const char *argument, const char *flag, const char **value) {
    size_t len = strlen(flag);
    if (strncmp(argument, flag, len) != 0)
        return false;
    if (argument[len] != 0 && argument[len] != '=')
        return false;
    *value = argument[len] == '=' ? argument + len + 1 : NULL;
    return true;
}

/* What a client can put in front of a path without escaping anything. */
static bool path_prefix_valid(const char *prefix) {
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/-._~";
    size_t len = strlen(prefix);
    return len == 0 || (prefix[0] == '/' && prefix[len - 1] != '/' && strstr(prefix, "//") == NULL &&
                        strspn(prefix, allowed) == len);
}

static int serve_parse(int argc, char **argv, struct config *config, enum config_action *action,
                       struct error_detail *detail) {
    memset(config, 0, sizeof *config);
    limits_init(&config->limits);
    for (size_t i = 0; i < OPTION_COUNT_OF; i++)
        option_set(config, &options[i], options[i].value_default);
    *action = CONFIG_SERVE;

    uint64_t limit_count;
    const struct limit_info *infos = limits_info(&limit_count);
    for (int i = 0; i < argc; i++) {
        const char *argument = argv[i], *value = NULL, *values = NULL;
        const struct option *option = NULL;
        const struct limit_info *info = NULL;
        if (strcmp(argument, "--help") == 0 || strcmp(argument, "-h") == 0) {
            *action = CONFIG_SERVE_HELP;
            return STATUS_OK;
        }
        for (size_t o = 0; o < OPTION_COUNT_OF && option == NULL; o++)
            if (flag_is(argument, options[o].flag, &value))
                option = &options[o];
        for (size_t l = 0; l < limit_count && option == NULL && info == NULL; l++)
            if (infos[l].flag[0] != 0 && flag_is(argument, infos[l].flag, &value))
                info = &infos[l];
        if (option == NULL && info == NULL)
            return error_set(detail, STATUS_BAD_INPUT,
                             "unknown %s \"%s\"; 'tidalite serve --help' lists the flags",
                             argument[0] == '-' ? "flag" : "argument", argument);
        values = option != NULL ? option->values : limit_values(info);
        const char *flag = option != NULL ? option->flag : info->flag;
        if (value == NULL && option != NULL && option->kind == OPTION_SWITCH)
            value = "true"; /* its value can only be joined to it */
        if (value == NULL && ++i < argc)
            value = argv[i];
        if (value == NULL)
            return error_set(detail, STATUS_BAD_INPUT, "%s needs a value: %s %s", flag, flag, values);
        bool ok =
            option != NULL ? option_set(config, option, value) : limit_set(info, &config->limits, value);
        if (!ok)
            return error_set(detail, STATUS_BAD_INPUT, "bad value \"%s\" for %s; it takes %s%s", value, flag,
                             values,
                             strcmp(values, "DURATION") == 0 ? " such as 15s or 2m"
                             : strcmp(values, "BYTES") == 0  ? " such as 1000000 or 32MiB"
                                                             : "");
    }
    if (config->loops > 256)
        return error_set(detail, STATUS_BAD_INPUT, "--loops takes at most 256");
    if (!path_prefix_valid(config->path_prefix))
        return error_set(detail, STATUS_BAD_INPUT,
                         "bad value \"%s\" for --path-prefix; it takes a path such as /metrics/store",
                         config->path_prefix);
    return STATUS_OK;
}

int config_parse(int argc, char **argv, struct config *config, enum config_action *action,
                 struct error_detail *detail) {
    if (argc < 2 || strcmp(argv[1], "help") == 0 || strcmp(argv[1], "--help") == 0 ||
        strcmp(argv[1], "-h") == 0) {
        *action = argc > 2 && strcmp(argv[1], "help") == 0 && strcmp(argv[2], "serve") == 0
                      ? CONFIG_SERVE_HELP
                      : CONFIG_HELP;
        return STATUS_OK;
    }
    if (strcmp(argv[1], "--version") == 0 || strcmp(argv[1], "version") == 0) {
        *action = CONFIG_VERSION;
        return STATUS_OK;
    }
    if (strcmp(argv[1], "serve") != 0)
        return error_set(detail, STATUS_BAD_INPUT, "unknown %s \"%s\"; 'tidalite help' lists the commands",
                         argv[1][0] == '-' ? "flag" : "command", argv[1]);
    return serve_parse(argc - 2, argv + 2, config, action, detail);
}

/* ---- Printing -------------------------------------------------------------------------------------------
 */

static void duration_text(uint64_t ms, char *out, size_t bytes) {
    if (ms != 0 && ms % 3600000 == 0)
        snprintf(out, bytes, "%lluh", (unsigned long long)(ms / 3600000));
    else if (ms != 0 && ms % 60000 == 0)
        snprintf(out, bytes, "%llum", (unsigned long long)(ms / 60000));
    else if (ms % 1000 == 0)
        snprintf(out, bytes, "%llus", (unsigned long long)(ms / 1000));
    else
        snprintf(out, bytes, "%llums", (unsigned long long)ms);
}

static void limit_text(const struct limit_info *info, uint64_t value, char *out, size_t bytes) {
    bool in_bytes = strcmp(info->unit, "bytes") == 0;
    if (limit_is_duration(info))
        duration_text(value, out, bytes);
    else if (in_bytes && value >= 1u << 20 && value % (1u << 20) == 0)
        snprintf(out, bytes, "%lluMiB", (unsigned long long)(value >> 20));
    else if (in_bytes && value >= 1u << 10 && value % (1u << 10) == 0)
        snprintf(out, bytes, "%lluKiB", (unsigned long long)(value >> 10));
    else
        snprintf(out, bytes, "%llu", (unsigned long long)value);
}

void config_help_print(struct buf *out) {
    buf_append_str(
        out, "Tidalite stores Prometheus metrics: remote write in, Prometheus' HTTP API out.\n"
             "\n"
             "  tidalite serve [flags]    run the server; 'tidalite serve --help' lists the flags\n"
             "  tidalite query 'EXPR'     ask a running server; 'tidalite query --help' lists the flags\n"
             "  tidalite verify DIR       check every checksum of a data directory; --repair\n"
             "  tidalite inspect wal DIR  what stands in its log\n"
             "  tidalite inspect block D  what the block in directory D holds, and whether it is whole\n"
             "  tidalite help             this text\n"
             "  tidalite --version        the version\n");
}

void config_serve_help_print(struct buf *out) {
    char text[64];
    uint64_t count;
    const struct limit_info *infos = limits_info(&count);
    buf_append_str(out, "tidalite serve: run the server until SIGTERM or SIGINT.\n\n");
    for (size_t i = 0; i < OPTION_COUNT_OF; i++)
        buf_printf(out,
                   options[i].kind == OPTION_SWITCH ? "  %s[=%s]\n        %s (default %s)\n"
                                                    : "  %s %s\n        %s (default %s)\n",
                   options[i].flag, options[i].values, options[i].help, options[i].value_default);
    buf_append_str(out, "\nLimits, and what happens where they are reached:\n\n");
    for (uint64_t i = 0; i < count; i++) {
        if (infos[i].flag[0] == 0)
            continue;
        limit_text(&infos[i], infos[i].value_default, text, sizeof text);
        buf_printf(out, "  %s %s\n        %s%s%s (default %s)\n", infos[i].flag, limit_values(&infos[i]),
                   infos[i].name, infos[i].answer[0] != 0 ? ": " : "", infos[i].answer, text);
    }
    buf_append_str(out,
                   "\nDURATION: 250ms, 15s, 2m, 1h30m. BYTES: 1000000, 64KiB, 32MiB. N: 1000, 64k, 50M.\n");
}

static void option_text(const struct config *config, const struct option *option, char *out, size_t bytes) {
    static const char *const levels[] = {"debug", "info", "warn", "error"};
    static const char *const backends[] = {"auto", "uring", "syscall"};
    const void *field = (const char *)config + option->offset;
    const char *text = NULL;
    uint64_t number = 0;
    switch (option->kind) {
    case OPTION_TEXT:
        memcpy(&text, field, sizeof text);
        break;
    case OPTION_IO:
        text = backends[config->io];
        break;
    case OPTION_LEVEL:
        text = levels[config->log_level];
        break;
    case OPTION_SWITCH:
        text = *(const bool *)field ? "true" : "false";
        break;
    case OPTION_FORMAT:
        text = config->log_format == LOG_FORMAT_JSON ? "json" : "logfmt";
        break;
    case OPTION_DURATION:
        memcpy(&number, field, sizeof number);
        duration_text(number, out, bytes);
        return;
    case OPTION_COUNT:
        memcpy(&number, field, sizeof number);
        snprintf(out, bytes, "%llu", (unsigned long long)number);
        return;
    }
    snprintf(out, bytes, "%s", text);
}

void config_each(const struct config *config,
                 void (*each)(void *context, const char *flag, const char *value), void *context) {
    char text[512];
    for (size_t i = 0; i < OPTION_COUNT_OF; i++) {
        option_text(config, &options[i], text, sizeof text);
        each(context, options[i].flag + 2, text);
    }
    uint64_t count;
    const struct limit_info *infos = limits_info(&count);
    for (uint64_t i = 0; i < count; i++) {
        if (infos[i].flag[0] == 0)
            continue;
        uint64_t value;
        memcpy(&value, (const char *)&config->limits + infos[i].offset, sizeof value);
        limit_text(&infos[i], value, text, sizeof text);
        each(context, infos[i].flag + 2, text);
    }
}
