/* status.c: names and messages of statuses, from status.def. */
#include "base/status.h"

#include <errno.h>
#include <stdio.h>

const char *status_name(int status) {
    switch (status) {
#define STATUS(name, number, http, message)                                                                  \
    case (number):                                                                                           \
        return #name;
#include "base/status.def"
#undef STATUS
    default:
        return "UNKNOWN";
    }
}

const char *status_message(int status) {
    switch (status) {
#define STATUS(name, number, http, message)                                                                  \
    case (number):                                                                                           \
        return message;
#include "base/status.def"
#undef STATUS
    default:
        return "unknown status";
    }
}

int status_http_code(int status) {
    switch (status) {
#define STATUS(name, number, http, message)                                                                  \
    case (number):                                                                                           \
        return http;
#include "base/status.def"
#undef STATUS
    default:
        return 500;
    }
}

int status_from_errno(int error) {
    switch (error) {
    case ENOSPC:
    case EDQUOT:
        return STATUS_NO_SPACE;
    case ENOMEM:
        return STATUS_NO_MEMORY;
    case ENOENT:
    case ENOTDIR:
        return STATUS_NOT_FOUND;
    case EEXIST:
        return STATUS_EXISTS;
    default:
        return STATUS_IO;
    }
}

int error_set(struct error_detail *detail, int status, const char *format, ...) {
    if (detail == NULL || detail->text[0] != '\0')
        return status;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(detail->text, sizeof detail->text, format, arguments);
    va_end(arguments);
    return status;
}

int error_newer(struct error_detail *detail, const char *dir, const char *name, uint64_t format,
                unsigned known) {
    char of[32] = "another format";
    if (format != 0)
        snprintf(of, sizeof of, "format %llu", (unsigned long long)format);
    return error_set(detail, STATUS_NEWER_FORMAT,
                     "%s%s%s was written by a newer version: it is of %s, this one knows %u",
                     dir == NULL ? "" : dir, dir == NULL ? "" : "/", name, of, known);
}
