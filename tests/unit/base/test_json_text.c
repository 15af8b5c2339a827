/* test_json_text.c: strings as JSON, as Go's encoder prints them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/json_text.h"

static void check(const void *text, size_t len, enum json_escape escape, const char *expected) {
    struct buf out;
    buf_init(&out);
    json_string_append(&out, slice_of(text, len), escape);
    assert_true(slice_equal(buf_slice(&out), slice_str(expected)));
    buf_release(&out);
}

static void test_strings(void **state) {
    (void)state;
    check("", 0, JSON_HTML, "\"\"");
    check("plain text", 10, JSON_HTML, "\"plain text\"");
    check("a\"b\\c", 5, JSON_PLAIN, "\"a\\\"b\\\\c\"");
    check("\n\r\t\x01\x1f", 5, JSON_PLAIN, "\"\\n\\r\\t\\u0001\\u001f\"");
    check("\0", 1, JSON_PLAIN, "\"\\u0000\"");
    check("<a&b>", 5, JSON_PLAIN, "\"<a&b>\"");
    check("<a&b>", 5, JSON_HTML, "\"\\u003ca\\u0026b\\u003e\"");
}

static void test_utf8(void **state) {
    (void)state;
    check("\xc3\xa4\xf0\x9f\x98\x80", 6, JSON_HTML, "\"\xc3\xa4\xf0\x9f\x98\x80\"");
    check("\xe2\x80\xa8x\xe2\x80\xa9", 7, JSON_HTML, "\"\\u2028x\\u2029\"");
    check("\xe2\x80\xa8x", 4, JSON_PLAIN, "\"\xe2\x80\xa8x\"");
    check("a\xff"
          "b",
          3, JSON_PLAIN, "\"a\\ufffdb\"");
    check("\xe2\x80", 2, JSON_PLAIN, "\"\\ufffd\\ufffd\""); /* cut off: one for each byte, as Go */
    check("\xed\xa0\x80", 3, JSON_PLAIN, "\"\\ufffd\\ufffd\\ufffd\"");
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_strings), cmocka_unit_test(test_utf8)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
