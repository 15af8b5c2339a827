/* test_label.c: label bytes: reading what was written, refusing what is not well-formed, the canonical form,
 * the text. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
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

/* Random sets against the definition spelled out: sort by name, drop empty values, then look for each fault.
 * Texts are so few that duplicates, empties and faults are common. */
static void test_canonical_random(void **state) {
    (void)state;
    static const char *const names[] = {"__name__", "a", "b", "aa", "a_b", "", "\xc3\xbc", "\xff"};
    static const char *const values[] = {"", "1", "x", "\xe2\x82\xac", "\xc3"};
    struct rand rand;
    rand_init(&rand, 3);
    struct buf labels, expected, got;
    buf_init(&labels);
    buf_init(&expected);
    buf_init(&got);
    size_t refused = 0;
    for (int round = 0; round < 100000; round++) {
        const char *pairs[8][2];
        size_t count = rand_below(&rand, 8), name_count = rand_below(&rand, 4) == 0 ? 8 : 5;
        buf_clear(&labels);
        for (size_t i = 0; i < count; i++) {
            pairs[i][0] = names[i == 0 && rand_below(&rand, 4) != 0 ? 0 : rand_below(&rand, name_count)];
            pairs[i][1] = values[rand_below(&rand, name_count == 8 ? 5 : 4)];
            label_bytes_append(&labels, slice_str(pairs[i][0]), slice_str(pairs[i][1]));
        }
        bool valid = true, named = false;
        size_t kept = 0;
        for (size_t i = 0; i < count; i++) {
            if (pairs[i][0][0] == '\0' || strcmp(pairs[i][0], "\xff") == 0 ||
                strcmp(pairs[i][1], "\xc3") == 0)
                valid = false;
            if (pairs[i][1][0] == '\0')
                continue;
            for (size_t k = 0; k < kept; k++)
                if (strcmp(pairs[k][0], pairs[i][0]) == 0)
                    valid = false;
            named = named || strcmp(pairs[i][0], "__name__") == 0;
            memmove(pairs[kept++], pairs[i], sizeof pairs[0]);
        }
        valid = valid && named && kept <= limits.count_max;
        buf_clear(&expected);
        for (bool placed[8] = {false}; valid;) {
            size_t least = 8;
            for (size_t i = 0; i < kept; i++)
                if (!placed[i] && (least == 8 || strcmp(pairs[i][0], pairs[least][0]) < 0))
                    least = i;
            if (least == 8)
                break;
            placed[least] = true;
            label_bytes_append(&expected, slice_str(pairs[least][0]), slice_str(pairs[least][1]));
        }
        enum label_fault fault = canonical(buf_slice(&labels), &got);
        assert_int_equal(fault == LABEL_FAULT_NONE, valid);
        refused += !valid;
        if (!valid)
            continue;
        assert_true(slice_equal(buf_slice(&got), buf_slice(&expected)));
        assert_true(label_bytes_well_formed(buf_slice(&got)));
        /* What is canonical stays as it is, without a copy. */
        struct arena arena;
        arena_init(&arena, 0, 0);
        struct slice again;
        assert_int_equal(label_bytes_canonicalise(buf_slice(&got), &limits, &arena, &fault, &again),
                         STATUS_OK);
        assert_ptr_equal(again.data, got.data);
        assert_int_equal(again.len, got.len);
        arena_release(&arena);
    }
    assert_in_range(refused, 20000, 95000); /* both ways were taken often */
    buf_release(&labels);
    buf_release(&expected);
    buf_release(&got);
}

static void test_no_memory(void **state) {
    (void)state;
    struct buf buf;
    buf_init(&buf);
    struct slice labels = SPELL(&buf, "b", "1", "__name__", "m");
    enum label_fault fault = LABEL_FAULT_COUNT;
    struct slice out = {NULL, 7};
    for (size_t bytes_max = 1; bytes_max < 200; bytes_max++) {
        struct arena arena;
        arena_init(&arena, 1,
                   bytes_max); /* pieces of just what is asked for: the copy needs one of its own */
        int status = label_bytes_canonicalise(labels, &limits, &arena, &fault, &out);
        if (status == STATUS_OK) {
            assert_true(bytes_max > buf.len);
            bytes_max = 1000;
        } else {
            assert_int_equal(status, STATUS_NO_MEMORY);
            assert_int_equal(out.len, 7);
        }
        arena_release(&arena);
    }
    assert_int_equal(out.len, buf.len);
    buf_release(&buf);

    struct buf text;
    buf_init(&text);
    buf_init(&buf);
    SPELL(&buf, "__name__", "m", "a", "b");
    mem_fault_set(1, 1);
    label_bytes_print(&text, buf_slice(&buf));
    mem_fault_set(0, 0);
    assert_true(text.failed);
    buf_release(&text);
    buf_release(&buf);
}

static void test_lengths(void **state) {
    (void)state;
    static char text[70000];
    memset(text, 'v', sizeof text);
    static const size_t borders[] = {0,   1,   59,  60,  61,  118,   121,   122,   123,  124,
                                     125, 126, 127, 128, 129, 16370, 16383, 16384, 69000};
    struct buf buf;
    buf_init(&buf);
    for (size_t i = 0; i < sizeof borders / sizeof borders[0]; i++)
        for (size_t k = 0; k < sizeof borders / sizeof borders[0]; k++) {
            struct slice name = slice_of(text, borders[i]), value = slice_of(text, borders[k]);
            buf_clear(&buf);
            label_bytes_append(&buf, name, value);
            label_bytes_append(&buf, value, name);
            assert_int_equal(buf.len, label_bytes_len(name, value) + label_bytes_len(value, name));
            struct slice rest = buf_slice(&buf), whole;
            struct label label;
            assert_true(label_next(&rest, &label, &whole));
            assert_true(slice_equal(label.name, name) && slice_equal(label.value, value));
            assert_int_equal(whole.len, label_bytes_len(name, value));
            assert_true(label_next(&rest, &label, &whole));
            assert_true(slice_equal(label.name, value) && slice_equal(label.value, name));
            assert_ptr_equal(whole.data + whole.len, buf.data + buf.len);
            assert_false(label_next(&rest, &label, &whole));
            assert_int_equal(rest.len, 0);
        }
    buf_release(&buf);
    assert_true(label_name_is_legacy(slice_str("_aZ09"), false));
    assert_true(label_name_is_legacy(slice_str(":a:b"), true));
    assert_false(label_name_is_legacy(slice_str("a:b"), false));
    assert_false(label_name_is_legacy(slice_str("0a"), false));
    assert_false(label_name_is_legacy(slice_str(""), true));
    assert_false(label_name_is_legacy(slice_str("\xc3\xbc"), true));
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
    const struct label no_value = {.name = slice_str("a")};
    struct buf out;
    buf_init(&out);
    labels_print(&out, &no_value, 1);
    assert_true(slice_equal(buf_slice(&out), slice_str("{a=\"\"}")));
    buf_release(&out);
    expect_text(SPELL(&buf, "__name__", "a.b", "c", "x"), "{\"a.b\", c=\"x\"}");
    expect_text(SPELL(&buf, "__name__", "a:b", "c.d", "x"), "a:b{\"c.d\"=\"x\"}");
    expect_text(SPELL(&buf, "__name__", "m", "a", "q\"\\\n\t\x01\x7f\xffü\u2028"),
                "m{a=\"q\\\"\\\\\\n\\t\\x01\\x7f\\xffü\\u2028\"}");
    buf_release(&buf);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_canonical), cmocka_unit_test(test_well_formed),
        cmocka_unit_test(test_text),      cmocka_unit_test(test_canonical_random),
        cmocka_unit_test(test_no_memory), cmocka_unit_test(test_lengths)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
