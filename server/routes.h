/* routes.h: which function answers which path; the table is routes.def. */
#ifndef TIDALITE_SERVER_ROUTES_H
#define TIDALITE_SERVER_ROUTES_H

#include "base/slice.h"

struct exchange;

enum {
    METHOD_GET = 1,
    METHOD_HEAD = 2,
    METHOD_POST = 4,
    METHOD_OPTIONS = 8,
    METHOD_PUT = 16,
    METHOD_OTHER = 32
};

/* How large a body the route takes. */
enum route_body { BODY_SMALL, BODY_FORM, BODY_WRITE };

enum { ROUTE_TEXT = 1 /* errors are text/plain, and no web page of another origin may read it */ };

struct route {
    const char *path;
    unsigned methods;
    enum route_body body;
    void (*handle)(struct exchange *exchange);
    unsigned flags;
};

enum route_match { ROUTE_FOUND, ROUTE_NOT_FOUND, ROUTE_BAD_METHOD };

/* Finds the row for `path` (as it stands in the request behind --path-prefix, without the query). For
 * ROUTE_FOUND and ROUTE_BAD_METHOD *route is set, and *segment to what stands for '*', still percent-encoded.
 */
enum route_match route_find(struct slice path, unsigned method, const struct route **route,
                            struct slice *segment);

/* "GET, HEAD, OPTIONS" and so on. Static. */
const char *route_allow(const struct route *route);

#endif
