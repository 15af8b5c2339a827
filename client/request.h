/* request.h: one POST of a form over HTTP or HTTPS, by libcurl. */
#ifndef TIDALITE_CLIENT_REQUEST_H
#define TIDALITE_CLIENT_REQUEST_H

#include <stdint.h>

#include "base/buf.h"
#include "base/status.h"

#define ANSWER_BYTES_MAX (UINT64_C(1) << 30) /* a longer answer is refused */

struct request_field {
    const char *name;
    const char *value;
};

/* Posts the fields to `server` + `path`, takes compressed answers, follows no redirects. STATUS_OK with the
 * answer's code and body (any code is an answer); else a status and one line in `detail` that says what to
 * do. `body` is the caller's buf. */
int request_post(const char *server, const char *path, const struct request_field *fields, size_t count,
                 int64_t timeout_ms, struct buf *body, long *code_out, struct error_detail *detail);

#endif
