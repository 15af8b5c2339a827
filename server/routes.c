#include "server/routes.h"

#include <string.h>

#include "server/api.h"

static const struct route routes[] = {
#define ROUTE(path, methods, body, handler, flags) {path, methods, body, handler, flags},
#include "server/routes.def"
#undef ROUTE
};

static bool path_match(const char *pattern, struct slice path, struct slice *segment) {
    const char *star = strchr(pattern, '*');
    if (star == NULL)
        return slice_equal(path, slice_str(pattern));
    struct slice before = slice_of(pattern, (size_t)(star - pattern)), after = slice_str(star + 1);
    if (path.len <= before.len + after.len || !slice_starts_with(path, before))
        return false;
    struct slice middle = slice_of(path.data + before.len, path.len - before.len - after.len);
    if (memchr(middle.data, '/', middle.len) != NULL)
        return false;
    if (!slice_equal(slice_of(middle.data + middle.len, after.len), after))
        return false;
    *segment = middle;
    return true;
}

enum route_match route_find(struct slice path, unsigned method, const struct route **route,
                            struct slice *segment) {
    if (method == METHOD_HEAD)
        method = METHOD_GET;
    *segment = slice_of(NULL, 0);
    for (size_t i = 0; i < sizeof routes / sizeof routes[0]; i++) {
        if (!path_match(routes[i].path, path, segment))
            continue;
        *route = &routes[i];
        return (routes[i].methods & method) != 0 ? ROUTE_FOUND : ROUTE_BAD_METHOD;
    }
    return ROUTE_NOT_FOUND;
}

const char *route_allow(const struct route *route) {
    switch (route->methods) {
    case METHOD_GET:
        return "GET, HEAD, OPTIONS";
    case METHOD_POST:
        return "POST, OPTIONS";
    case METHOD_POST | METHOD_PUT:
        return "POST, PUT, OPTIONS";
    default:
        return "GET, HEAD, POST, OPTIONS";
    }
}
