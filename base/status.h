/* status.h: how functions say that they failed.
 *
 * A function that can fail returns `int`: STATUS_OK (0), or a negative status from status.def; an iterator
 * may return STATUS_END (positive). Out parameters are written only on success. Where more can be said than
 * the status (a file, an offset, a position), the caller passes a `struct error_detail` that takes one line.
 *
 * Three kinds of failure are kept apart: operating errors and bad bytes from outside are statuses; our own
 * mistakes are ASSERTs (assert.h), which stay on in release builds. */
#ifndef TIDALITE_BASE_STATUS_H
#define TIDALITE_BASE_STATUS_H

#include <stdarg.h>
#include <stdint.h>

enum status {
#define STATUS(name, number, http, message) STATUS_##name = (number),
#include "base/status.def"
#undef STATUS
};

/* The name ("NO_SPACE"), the one-line message, and the HTTP code of a status. Static strings. */
const char *status_name(int status);
const char *status_message(int status);
int status_http_code(int status);

/* The status for an errno value (ENOSPC and EDQUOT -> NO_SPACE, ENOMEM -> NO_MEMORY, ENOENT and ENOTDIR ->
 * NOT_FOUND, EEXIST -> EXISTS, everything else -> IO). `error` is positive. */
int status_from_errno(int error);

#define ERROR_DETAIL_BYTES 512

/* One line about the first error, for people: which file, which offset, what to do. Zero-initialise. */
struct error_detail {
    char text[ERROR_DETAIL_BYTES];
};

/* Sets the text unless one is set already (the first error wins) and returns `status`, so that
 * `return error_set(detail, STATUS_CORRUPT, "...")` reads as one step. `detail` may be NULL. */
int error_set(struct error_detail *detail, int status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* STATUS_NEWER_FORMAT, in words: of the file `name` in `dir` (NULL: `name` is its path), of which format it
 * is (0: not known) and which one this program knows. */
int error_newer(struct error_detail *detail, const char *dir, const char *name, uint64_t format,
                unsigned known);

/* TRY(x): evaluates x; on a negative status stores it in the local `status` and goes to the local `out`. */
#define TRY(expression)                                                                                      \
    do {                                                                                                     \
        if ((status = (expression)) < 0)                                                                     \
            goto out;                                                                                        \
    } while (0)

#endif
