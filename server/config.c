#include "server/config.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"

#define FILE_BYTES_MAX ((size_t)1 << 20)

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
    enum { SETTING_START, SETTING_LIVE } when;
    const char *help;
};

static const struct option options[] = {
#define OPTION(flag, kind, field, value, values, when, help)                                                 \
    {flag, OPTION_##kind, offsetof(struct config, field), value, values, SETTING_##when, help},
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

/* Limits that are looked at anew with every request, connection or query. */
static bool limit_is_live(const struct limit_info *info) {
#define LIVE(name) offsetof(struct limits, name)
    static const uint64_t live[] = {
        LIVE(body_bytes_max),       LIVE(decoded_bytes_max),     LIVE(connections_max),
        LIVE(request_read_ms_max),  LIVE(response_write_ms_max), LIVE(query_text_bytes_max),
        LIVE(query_timeout_ms_max), LIVE(query_slow_ms),         LIVE(query_samples_max),
        LIVE(query_bytes_max),      LIVE(query_lookback_ms)};
#undef LIVE
    for (size_t i = 0; i < sizeof live / sizeof live[0]; i++)
        if (live[i] == info->offset)
            return true;
    return false;
}

/* ---- One setting ----------------------------------------------------------------------------------------
 */

/* One of the two is set. */
struct setting {
    const struct option *option;
    const struct limit_info *limit;
};

/* By its flag without the dashes. */
static bool setting_find(const char *name, size_t len, struct setting *out) {
    uint64_t limit_count;
    const struct limit_info *limits = limits_info(&limit_count);
    *out = (struct setting){NULL, NULL};
    for (size_t i = 0; i < OPTION_COUNT_OF && out->option == NULL; i++)
        if (strlen(options[i].flag + 2) == len && memcmp(options[i].flag + 2, name, len) == 0)
            out->option = &options[i];
    for (uint64_t i = 0; i < limit_count && out->limit == NULL; i++)
        if (limits[i].flag[0] != 0 && strlen(limits[i].flag + 2) == len &&
            memcmp(limits[i].flag + 2, name, len) == 0)
            out->limit = &limits[i];
    return out->option != NULL || out->limit != NULL;
}

static const char *setting_values(struct setting setting) {
    return setting.option != NULL ? setting.option->values : limit_values(setting.limit);
}

/* `where` stands before what is wrong with the value: a flag, or a line of the file and its name. */
static int setting_set(struct config *config, struct setting setting, const char *value, const char *where,
                       struct error_detail *detail) {
    const char *values = setting_values(setting);
    if (setting.option != NULL ? option_set(config, setting.option, value)
                               : limit_set(setting.limit, &config->limits, value))
        return STATUS_OK;
    return error_set(detail, STATUS_BAD_INPUT, "bad value \"%s\" for %s; it takes %s%s", value, where, values,
                     strcmp(values, "DURATION") == 0 ? " such as 15s or 2m"
                     : strcmp(values, "BYTES") == 0  ? " such as 1000000 or 32MiB"
                                                     : "");
}

/* ---- The file -------------------------------------------------------------------------------------------
 */

static int file_read(const char *path, struct error_detail *detail, char **out) {
    FILE *file = fopen(path, "re");
    int status = STATUS_OK;
    char *text = NULL;
    if (file == NULL)
        return error_set(detail, STATUS_IO, "cannot read --config \"%s\": %s", path, strerror(errno));
    text = mem_alloc(FILE_BYTES_MAX + 1);
    if (text == NULL) {
        status = error_set(detail, STATUS_NO_MEMORY, "out of memory for --config \"%s\"", path);
        goto out;
    }
    size_t len = fread(text, 1, FILE_BYTES_MAX + 1, file);
    if (ferror(file) != 0)
        status = error_set(detail, STATUS_IO, "cannot read --config \"%s\": %s", path, strerror(errno));
    else if (len > FILE_BYTES_MAX)
        status = error_set(detail, STATUS_BAD_INPUT, "--config \"%s\" is larger than %zu bytes", path,
                           FILE_BYTES_MAX);
    else if (memchr(text, 0, len) != NULL)
        status = error_set(detail, STATUS_BAD_INPUT, "--config \"%s\" is no text", path);
    else
        text[len] = 0;
out:
    fclose(file);
    if (status < 0) {
        mem_free(text);
        return status;
    }
    char *fitted = mem_realloc(text, strlen(text) + 1); /* it is kept */
    *out = fitted != NULL ? fitted : text;
    return STATUS_OK;
}

/* Ends the text behind its last byte that is no blank and returns its first. */
static char *blanks_trim(char *text) {
    static const char blanks[] = " \t\r";
    text += strspn(text, blanks);
    size_t len = strlen(text);
    while (len > 0 && strchr(blanks, text[len - 1]) != NULL)
        len--;
    text[len] = 0;
    return text;
}

static int line_parse(struct config *config, char *line, size_t number, bool *seen,
                      struct error_detail *detail) {
    char where[256];
    const char *file = config->config_file;
    line = blanks_trim(line);
    if (line[0] == 0 || line[0] == '#')
        return STATUS_OK;
    char *colon = strchr(line, ':');
    if (colon == NULL)
        return error_set(detail, STATUS_BAD_INPUT, "%s, line %zu: \"%.100s\" is not name: value", file,
                         number, line);
    *colon = 0;
    char *name = blanks_trim(line), *value = blanks_trim(colon + 1);
    size_t len = strlen(value);
    if (len >= 2 && value[0] == '"' && value[len - 1] == '"') {
        value[len - 1] = 0;
        value++;
    }
    struct setting setting;
    uint64_t limit_count;
    if (!setting_find(name, strlen(name), &setting) || strcmp(name, "config") == 0)
        return error_set(
            detail, STATUS_BAD_INPUT,
            "%s, line %zu: there is no setting \"%.100s\"; 'tidalite serve --help' lists them as "
            "flags",
            file, number, name);
    size_t index = setting.option != NULL
                       ? (size_t)(setting.option - options)
                       : OPTION_COUNT_OF + (size_t)(setting.limit - limits_info(&limit_count));
    if (seen[index])
        return error_set(detail, STATUS_BAD_INPUT, "%s, line %zu: \"%s\" a second time", file, number, name);
    seen[index] = true;
    snprintf(where, sizeof where, "%.150s, line %zu: %s", file, number, name);
    return setting_set(config, setting, value, where, detail);
}

static int file_parse(struct config *config, struct error_detail *detail) {
    bool seen[OPTION_COUNT_OF + LIMIT_COUNT] = {false};
    int status = file_read(config->config_file, detail, &config->file_text);
    size_t number = 0;
    for (char *line = config->file_text; status == STATUS_OK && line != NULL;) {
        char *end = strchr(line, '\n');
        if (end != NULL)
            *end = 0;
        status = line_parse(config, line, ++number, seen, detail);
        line = end == NULL ? NULL : end + 1;
    }
    return status;
}

/* ---- The command line -----------------------------------------------------------------------------------
 */

/* What a client can put in front of a path without escaping anything. */
static bool path_prefix_valid(const char *prefix) {
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/-._~";
    size_t len = strlen(prefix);
    return len == 0 || (prefix[0] == '/' && prefix[len - 1] != '/' && strstr(prefix, "//") == NULL &&
                        strspn(prefix, allowed) == len);
}

/* The flag at argv[*index], whose value may be the next argument. */
static int flag_read(int argc, char **argv, int *index, struct setting *setting, const char **value,
                     struct error_detail *detail) {
    const char *argument = argv[*index];
    size_t len = strcspn(argument, "=");
    if (strncmp(argument, "--", 2) != 0 || !setting_find(argument + 2, len - 2, setting))
        return error_set(detail, STATUS_BAD_INPUT,
                         "unknown %s \"%s\"; 'tidalite serve --help' lists the flags",
                         argument[0] == '-' ? "flag" : "argument", argument);
    const char *flag = setting->option != NULL ? setting->option->flag : setting->limit->flag;
    *value = argument[len] == '=' ? argument + len + 1 : NULL;
    if (*value == NULL && setting->option != NULL && setting->option->kind == OPTION_SWITCH)
        *value = "true"; /* its value can only be joined to it */
    if (*value == NULL && ++*index < argc)
        *value = argv[*index];
    if (*value == NULL)
        return error_set(detail, STATUS_BAD_INPUT, "%s needs a value: %s %s", flag, flag,
                         setting_values(*setting));
    return STATUS_OK;
}

static int flags_parse(int argc, char **argv, struct config *config, enum config_action *action,
                       struct error_detail *detail) {
    for (int i = 0; i < argc; i++) {
        struct setting setting;
        const char *value;
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
            *action = CONFIG_SERVE_HELP;
            return STATUS_OK;
        }
        int status = flag_read(argc, argv, &i, &setting, &value, detail);
        if (status == STATUS_OK)
            status = setting_set(config, setting, value,
                                 setting.option != NULL ? setting.option->flag : setting.limit->flag, detail);
        if (status < 0)
            return status;
    }
    return STATUS_OK;
}

static int values_check(const struct config *config, struct error_detail *detail) {
    if (config->loops > 256)
        return error_set(detail, STATUS_BAD_INPUT, "--loops takes at most 256");
    if (!path_prefix_valid(config->path_prefix))
        return error_set(detail, STATUS_BAD_INPUT,
                         "bad value \"%s\" for --path-prefix; it takes a path such as /metrics/store",
                         config->path_prefix);
    return STATUS_OK;
}

/* The flags are read twice: they say which file, and they win over it. */
static int serve_parse(int argc, char **argv, struct config *config, enum config_action *action,
                       struct error_detail *detail) {
    int status = STATUS_OK;
    memset(config, 0, sizeof *config);
    limits_init(&config->limits);
    for (size_t i = 0; i < OPTION_COUNT_OF; i++)
        option_set(config, &options[i], options[i].value_default);
    *action = CONFIG_SERVE;
    TRY(flags_parse(argc, argv, config, action, detail));
    if (*action == CONFIG_SERVE && config->config_file[0] != 0) {
        TRY(file_parse(config, detail));
        TRY(flags_parse(argc, argv, config, action, detail));
    }
    TRY(values_check(config, detail));
out:
    if (status < 0)
        config_release(config);
    return status;
}

void config_release(struct config *config) {
    mem_free(config->file_text);
    config->file_text = NULL;
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

#define TEXT_LIVE "; reloads"
#define TEXT_LIVE_MEANS                                                                                      \
    "reloads: a changed value in the --config file takes effect on SIGHUP and POST /-/reload.\n"

void config_serve_help_print(struct buf *out) {
    char text[64];
    uint64_t count;
    const struct limit_info *infos = limits_info(&count);
    buf_append_str(out, "tidalite serve: run the server until SIGTERM or SIGINT.\n\n");
    for (size_t i = 0; i < OPTION_COUNT_OF; i++)
        buf_printf(out,
                   options[i].kind == OPTION_SWITCH ? "  %s[=%s]\n        %s (default %s)%s\n"
                                                    : "  %s %s\n        %s (default %s)%s\n",
                   options[i].flag, options[i].values, options[i].help, options[i].value_default,
                   options[i].when == SETTING_LIVE ? TEXT_LIVE : "");
    buf_append_str(out, "\nLimits, and what happens where they are reached:\n\n");
    for (uint64_t i = 0; i < count; i++) {
        if (infos[i].flag[0] == 0)
            continue;
        limit_text(&infos[i], infos[i].value_default, text, sizeof text);
        buf_printf(out, "  %s %s\n        %s%s%s (default %s)%s\n", infos[i].flag, limit_values(&infos[i]),
                   infos[i].name, infos[i].answer[0] != 0 ? ": " : "", infos[i].answer, text,
                   limit_is_live(&infos[i]) ? TEXT_LIVE : "");
    }
    buf_append_str(out,
                   "\n" TEXT_LIVE_MEANS
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

static int change_refuse(struct error_detail *detail, const char *flag, const char *from, const char *to) {
    return error_set(
        detail, STATUS_BAD_INPUT,
        "%s can't change while running (now \"%s\", would be \"%s\"): start anew for it; nothing "
        "was changed",
        flag + 2, from, to);
}

/* Of texts `from` and `to` may be only the beginning. */
static bool option_same(const struct config *now, const struct config *next, const struct option *option,
                        const char *from, const char *to) {
    if (option->kind == OPTION_TEXT) {
        memcpy(&from, (const char *)now + option->offset, sizeof from);
        memcpy(&to, (const char *)next + option->offset, sizeof to);
    }
    return strcmp(from, to) == 0;
}

int config_change_check(const struct config *now, const struct config *next, struct error_detail *detail,
                        bool *changed_out) {
    char from[512], to[512];
    bool changed = false;
    for (size_t i = 0; i < OPTION_COUNT_OF; i++) {
        option_text(now, &options[i], from, sizeof from);
        option_text(next, &options[i], to, sizeof to);
        if (option_same(now, next, &options[i], from, to))
            continue;
        if (options[i].when != SETTING_LIVE)
            return change_refuse(detail, options[i].flag, from, to);
        changed = true;
    }
    uint64_t count;
    const struct limit_info *infos = limits_info(&count);
    for (uint64_t i = 0; i < count; i++) {
        uint64_t old_value, new_value;
        memcpy(&old_value, (const char *)&now->limits + infos[i].offset, sizeof old_value);
        memcpy(&new_value, (const char *)&next->limits + infos[i].offset, sizeof new_value);
        if (old_value == new_value)
            continue;
        limit_text(&infos[i], old_value, from, sizeof from);
        limit_text(&infos[i], new_value, to, sizeof to);
        if (!limit_is_live(&infos[i]))
            return change_refuse(detail, infos[i].flag, from, to);
        changed = true;
    }
    *changed_out = changed;
    return STATUS_OK;
}
