/* log.h: one line an event on standard error, as logfmt or JSON.
 *
 *     log_info("log segment opened", LOG_U64("segment", n), LOG_STR("path", path));
 *
 * A line is one write(2), so lines of several threads do not mix; it may block if the terminal does. Lines
 * longer than 4 KiB are cut. Safe from any thread, not from a signal handler. */
#ifndef TIDALITE_BASE_LOG_H
#define TIDALITE_BASE_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR };
enum log_format { LOG_FORMAT_LOGFMT, LOG_FORMAT_JSON };

struct log_field {
    const char *key;
    enum { LOG_FIELD_STR, LOG_FIELD_I64, LOG_FIELD_U64, LOG_FIELD_DOUBLE } kind;
    const char *str;
    int64_t i64;
    uint64_t u64;
    double number;
};

#define LOG_STR(k, v)    ((struct log_field){.key = (k), .kind = LOG_FIELD_STR, .str = (v)})
#define LOG_I64(k, v)    ((struct log_field){.key = (k), .kind = LOG_FIELD_I64, .i64 = (v)})
#define LOG_U64(k, v)    ((struct log_field){.key = (k), .kind = LOG_FIELD_U64, .u64 = (v)})
#define LOG_DOUBLE(k, v) ((struct log_field){.key = (k), .kind = LOG_FIELD_DOUBLE, .number = (v)})

/* For the whole process; any thread, at any time. Defaults: LOG_INFO, logfmt, descriptor 2. */
void log_setup(enum log_level level, enum log_format format, int fd);

/* "debug", "info", "warn", "error" / "logfmt", "json" → the value; false if it is none of them. */
bool log_level_parse(const char *text, enum log_level *out);
bool log_format_parse(const char *text, enum log_format *out);

bool log_enabled(enum log_level level);
void log_write(enum log_level level, const char *message, const struct log_field *fields, size_t count);

#define LOG_AT(level, message, ...)                                                                          \
    do {                                                                                                     \
        if (log_enabled(level)) {                                                                            \
            const struct log_field log_fields_[] = {(struct log_field){.key = NULL}, ##__VA_ARGS__};         \
            log_write((level), (message), log_fields_ + 1, sizeof log_fields_ / sizeof log_fields_[0] - 1);  \
        }                                                                                                    \
    } while (0)

#define log_debug(...) LOG_AT(LOG_DEBUG, __VA_ARGS__)
#define log_info(...)  LOG_AT(LOG_INFO, __VA_ARGS__)
#define log_warn(...)  LOG_AT(LOG_WARN, __VA_ARGS__)
#define log_error(...) LOG_AT(LOG_ERROR, __VA_ARGS__)

#endif
