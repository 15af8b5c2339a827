/* log.c: log lines as logfmt or JSON, one write(2) each. */
#include "base/log.h"

#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/utf8.h"

#define LOG_LINE_BYTES 4096

static atomic_int log_level_min = LOG_INFO;
static atomic_int log_format_now = LOG_FORMAT_LOGFMT;
static atomic_int log_fd = STDERR_FILENO;

static const char *const level_names[] = {"debug", "info", "warn", "error"};

void log_setup(enum log_level level, enum log_format format, int fd) {
    atomic_store(&log_level_min, (int)level);
    atomic_store(&log_format_now, (int)format);
    atomic_store(&log_fd, fd);
}

bool log_level_parse(const char *text, enum log_level *out) {
    for (int i = 0; i < 4; i++)
        if (strcmp(text, level_names[i]) == 0) {
            *out = (enum log_level)i;
            return true;
        }
    return false;
}

bool log_format_parse(const char *text, enum log_format *out) {
    if (strcmp(text, "logfmt") == 0)
        *out = LOG_FORMAT_LOGFMT;
    else if (strcmp(text, "json") == 0)
        *out = LOG_FORMAT_JSON;
    else
        return false;
    return true;
}

bool log_enabled(enum log_level level) {
    return (int)level >= atomic_load_explicit(&log_level_min, memory_order_relaxed);
}

/* A line under construction; what does not fit is cut. */
struct line {
    char text[LOG_LINE_BYTES];
    size_t len;
};

static void put_char(struct line *line, char c) {
    if (line->len < sizeof line->text - 2) /* room for "}" and the newline */
        line->text[line->len++] = c;
}

static void put(struct line *line, const char *text) {
    while (*text != '\0')
        put_char(line, *text++);
}

static void put_quoted(struct line *line, const char *text) {
    const uint8_t *end = (const uint8_t *)text + strlen(text);
    put_char(line, '"');
    for (; *text != '\0'; text++) {
        unsigned char c = (unsigned char)*text;
        uint32_t code_point;
        size_t width = c < 0x80 ? 1 : utf8_decode((const uint8_t *)text, end, &code_point);
        if (width == 0) { /* a line is text, also where a client sent something else */
            put(line, "\\ufffd");
            continue;
        }
        for (; width > 1; width--)
            put_char(line, *text++);
        if (c >= 0x80) {
            put_char(line, *text);
            continue;
        }
        if (c == '"' || c == '\\') {
            put_char(line, '\\');
            put_char(line, (char)c);
        } else if (c == '\n') {
            put(line, "\\n");
        } else if (c < 0x20) {
            char escape[8];
            snprintf(escape, sizeof escape, "\\u%04x", c);
            put(line, escape);
        } else {
            put_char(line, (char)c);
        }
    }
    put_char(line, '"');
}

static bool is_bare(const char *text) {
    if (*text == '\0')
        return false;
    for (; *text != '\0'; text++) {
        unsigned char c = (unsigned char)*text;
        if (c <= ' ' || c == '"' || c == '=' || c == '\\' || c == 0x7f)
            return false;
    }
    return true;
}

static void put_pair(struct line *line, bool json, const char *key, const char *value, bool text) {
    if (json) {
        if (line->len > 1)
            put_char(line, ',');
        put_quoted(line, key);
        put_char(line, ':');
    } else {
        if (line->len > 0)
            put_char(line, ' ');
        put(line, key);
        put_char(line, '=');
    }
    if (text && (json || !is_bare(value)))
        put_quoted(line, value);
    else
        put(line, value);
}

void log_write(enum log_level level, const char *message, const struct log_field *fields, size_t count) {
    bool json = atomic_load(&log_format_now) == LOG_FORMAT_JSON;
    struct line line = {.len = 0};
    if (json)
        put_char(&line, '{');

    struct timespec now;
    struct tm parts;
    char when[64];
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &parts);
    snprintf(when, sizeof when, "%04d-%02d-%02dT%02d:%02d:%02d.%03ldZ", parts.tm_year + 1900,
             parts.tm_mon + 1, parts.tm_mday, parts.tm_hour, parts.tm_min, parts.tm_sec,
             now.tv_nsec / 1000000);
    put_pair(&line, json, "ts", when, true);
    put_pair(&line, json, "level", level_names[level], true);
    put_pair(&line, json, "msg", message, true);
    for (size_t i = 0; i < count; i++) {
        const struct log_field *field = &fields[i];
        char number[40];
        switch (field->kind) {
        case LOG_FIELD_STR:
            put_pair(&line, json, field->key, field->str != NULL ? field->str : "", true);
            continue;
        case LOG_FIELD_I64:
            snprintf(number, sizeof number, "%lld", (long long)field->i64);
            break;
        case LOG_FIELD_U64:
            snprintf(number, sizeof number, "%llu", (unsigned long long)field->u64);
            break;
        case LOG_FIELD_DOUBLE:
            snprintf(number, sizeof number, "%.6g", field->number);
            break;
        }
        put_pair(&line, json, field->key, number, false);
    }
    if (json)
        line.text[line.len++] = '}';
    line.text[line.len++] = '\n';
    /* A log that cannot be written has nowhere to say so. */
    ssize_t ignored = write(atomic_load(&log_fd), line.text, line.len);
    (void)ignored;
}
