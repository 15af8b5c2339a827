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
