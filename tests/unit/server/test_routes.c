#include "unit.h"

#include "server/api.h"
#include "server/routes.h"

static enum route_match find(const char *path, unsigned method, const struct route **route,
                             struct slice *segment) {
    *route = NULL;
    return route_find(slice_str(path), method, route, segment);
}

static void test_found(void **state) {
    (void)state;
    const struct route *route;
    struct slice segment;
    assert_int_equal(find("/api/v1/write", METHOD_POST, &route, &segment), ROUTE_FOUND);
    assert_true(route->handle == api_write);
    assert_int_equal(find("/api/v1/query", METHOD_GET, &route, &segment), ROUTE_FOUND);
    assert_true(route->handle == api_query_instant);
    assert_int_equal(find("/api/v1/query", METHOD_HEAD, &route, &segment), ROUTE_FOUND);
    assert_int_equal(find("/api/v1/query_range", METHOD_POST, &route, &segment), ROUTE_FOUND);
    assert_true(route->handle == api_query_range);
    assert_int_equal(find("/api/v1/label/a%20b/values", METHOD_GET, &route, &segment), ROUTE_FOUND);
    assert_slice(segment, "a%20b");
}

static void test_not_found(void **state) {
    (void)state;
    const struct route *route;
    struct slice segment;
    static const char *const paths[] = {"",
                                        "/",
                                        "/api",
                                        "/api/v1/writ",
                                        "/api/v1/write/",
                                        "/api/v1/WRITE",
                                        "/api/v1/label//values",
                                        "/api/v1/label/values",
                                        "/api/v1/label/a/b/values",
                                        "/api/v1/label/a/value",
                                        "//api/v1/write"};
    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++)
        assert_int_equal(find(paths[i], METHOD_GET, &route, &segment), ROUTE_NOT_FOUND);
}

static void test_method(void **state) {
    (void)state;
    const struct route *route;
    struct slice segment;
    assert_int_equal(find("/api/v1/write", METHOD_GET, &route, &segment), ROUTE_BAD_METHOD);
    assert_string_equal(route_allow(route), "POST, OPTIONS");
    assert_int_equal(find("/api/v1/write", METHOD_HEAD, &route, &segment), ROUTE_BAD_METHOD);
    assert_int_equal(find("/metrics", METHOD_POST, &route, &segment), ROUTE_BAD_METHOD);
    assert_string_equal(route_allow(route), "GET, HEAD, OPTIONS");
    assert_int_equal(find("/api/v1/series", METHOD_OTHER, &route, &segment), ROUTE_BAD_METHOD);
    assert_string_equal(route_allow(route), "GET, HEAD, POST, OPTIONS");
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_found), cmocka_unit_test(test_not_found),
                                       cmocka_unit_test(test_method)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
