/* test_label.c: label bytes: reading what was written, refusing what is not well-formed, the canonical form,
 * the text. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/label.h"
#include "base/rand.h"
#include "base/status.h"

static const struct label_limits limits = {.name_bytes_max = 300, .value_bytes_max = 400, .count_max = 5};

/* name, value, name, value …, NULL → label bytes in `buf`. */
static struct slice spell(struct buf *buf, const char *const *texts) {
    buf_clear(buf);
    for (; *texts != NULL; texts += 2)
        label_bytes_append(buf, slice_str(texts[0]), slice_str(texts[1]));
    return buf_slice(buf);
}
#define SPELL(buf, ...) spell(buf, (const char *const[]){__VA_ARGS__, NULL})

static enum label_fault canonical(struct slice labels, struct buf *out) {
    struct arena arena;
    arena_init(&arena, 0, 0);
    enum label_fault fault;
    struct slice bytes = {NULL, 0};
    assert_int_equal(label_bytes_canonicalise(labels, &limits, &arena, &fault, &bytes), STATUS_OK);
    buf_clear(out);
    buf_append(out, bytes.data, bytes.len);
    arena_release(&arena);
    return fault;
}

static void test_canonical(void **state) {
    (void)state;
    struct buf a, b, expected;
    buf_init(&a);
    buf_init(&b);
    buf_init(&expected);
    SPELL(&expected, "__name__", "m", "b", "2", "z", "1");
    assert_int_equal(canonical(SPELL(&a, "z", "1", "__name__", "m", "e", "", "b", "2"), &b),
                     LABEL_FAULT_NONE);
    assert_true(slice_equal(buf_slice(&b), buf_slice(&expected)));
    assert_int_equal(canonical(buf_slice(&expected), &b), LABEL_FAULT_NONE);
    assert_true(slice_equal(buf_slice(&b), buf_slice(&expected)));
    assert_true(slice_equal(label_bytes_get(buf_slice(&b), slice_str("b")), slice_str("2")));

    assert_int_equal(canonical(SPELL(&a, "a", "1"), &b), LABEL_FAULT_NO_METRIC_NAME);
    assert_int_equal(canonical(SPELL(&a, "__name__", "", "a", "1"), &b), LABEL_FAULT_NO_METRIC_NAME);
    assert_int_equal(canonical(SPELL(&a, "__name__", "m", "", "1"), &b), LABEL_FAULT_EMPTY_NAME);
    assert_int_equal(canonical(SPELL(&a, "__name__", "m", "a", "1", "a", "1"), &b),
                     LABEL_FAULT_DUPLICATE_NAME);
    assert_int_equal(canonical(SPELL(&a, "__name__", "m", "a", "1", "a", ""), &b), LABEL_FAULT_NONE);
    assert_int_equal(canonical(SPELL(&a, "__name__", "m\xff"), &b), LABEL_FAULT_INVALID_UTF8);
    assert_int_equal(canonical(SPELL(&a, "__name__", "m", "\xed\xa0\x80", "x"), &b),
                     LABEL_FAULT_INVALID_UTF8);
    assert_int_equal(
        canonical(SPELL(&a, "__name__", "m", "a", "1", "b", "1", "c", "1", "d", "1", "e", "1"), &b),
        LABEL_FAULT_TOO_MANY);
    char longest[402];
    memset(longest, 'x', sizeof longest);
    longest[401] = '\0';
    assert_int_equal(canonical(SPELL(&a, "__name__", "m", "a", longest), &b), LABEL_FAULT_VALUE_TOO_LONG);
    assert_int_equal(canonical(SPELL(&a, "__name__", "m", "a", longest + 1), &b), LABEL_FAULT_NONE);
    assert_int_equal(canonical(SPELL(&a, "__name__", "m", longest + 100, "v"), &b),
                     LABEL_FAULT_NAME_TOO_LONG);
    assert_int_equal(canonical(SPELL(&a, "__name__", "m", longest + 101, "v"), &b), LABEL_FAULT_NONE);
    assert_string_equal(label_fault_name(LABEL_FAULT_TOO_MANY), "too_many_labels");
    buf_release(&a);
    buf_release(&b);
    buf_release(&expected);
}

static void test_well_formed(void **state) {
    (void)state;
    struct rand rand;
    rand_init(&rand, 2);
    struct buf buf;
    buf_init(&buf);
    SPELL(&buf, "__name__", "metric", "a", "", "longer", "value");
    assert_true(label_bytes_well_formed(buf_slice(&buf)));
    size_t ends[] = {0, 0, 0};
    struct slice rest = buf_slice(&buf);
    struct label label;
    for (size_t i = 0; label_next(&rest, &label, NULL); i++)
        ends[i] = buf.len - rest.len;
    for (size_t len = 1; len < buf.len; len++)
        assert_int_equal(label_bytes_well_formed(slice_of(buf.data, len)), len == ends[0] || len == ends[1]);
    /* A length in more bytes than it needs is another spelling, so it is not well-formed. */
    static const uint8_t wide[] = {0x0a, 0x86, 0x00, 0x0a, 1, 'a', 0x12, 1, 'b'};
    assert_false(label_bytes_well_formed(slice_of(wide, sizeof wide)));
    /* Whatever the bytes are, the walk ends and stays inside. */
    for (int i = 0; i < 100000; i++) {
        uint8_t *bytes = mem_alloc(40);
        for (size_t k = 0; k < 40; k++)
            bytes[k] = rand_below(&rand, 3) == 0 ? (uint8_t)rand_u64(&rand)
                                                 : (uint8_t[]){0x0a, 0x12, 4, 1, 0}[rand_below(&rand, 5)];
        (void)label_bytes_well_formed(slice_of(bytes, 40));
        mem_free(bytes);
    }
    buf_release(&buf);
}

static void expect_text(struct slice labels, const char *text) {
    struct buf out;
    buf_init(&out);
    label_bytes_print(&out, labels);
    buf_append_byte(&out, 0);
    assert_string_equal((char *)out.data, text);
    buf_release(&out);
}

static void test_text(void **state) {
    (void)state;
    struct buf buf;
    buf_init(&buf);
    expect_text(SPELL(&buf, "__name__", "m", "a", "b", "c", "d"), "m{a=\"b\", c=\"d\"}");
    expect_text(SPELL(&buf, "__name__", "m"), "m");
    expect_text(SPELL(&buf, "a", "b"), "{a=\"b\"}");
    expect_text((struct slice){NULL, 0}, "{}");
    expect_text(SPELL(&buf, "__name__", "a.b", "c", "x"), "{\"a.b\", c=\"x\"}");
    expect_text(SPELL(&buf, "__name__", "a:b", "c.d", "x"), "a:b{\"c.d\"=\"x\"}");
    expect_text(SPELL(&buf, "__name__", "m", "a", "q\"\\\n\t\x01\x7f\xffü\u2028"),
                "m{a=\"q\\\"\\\\\\n\\t\\x01\\x7f\\xffü\\u2028\"}");
    buf_release(&buf);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_canonical), cmocka_unit_test(test_well_formed),
                                       cmocka_unit_test(test_text)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
