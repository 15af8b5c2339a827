#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <snappy-c.h>

#include "base/alloc.h"
#include "base/rand.h"
#include "proto/proto.h"
#include "proto/proto_private.h"

#define LIMIT ((size_t)1 << 20)

/* A snappy block of `len` bytes of half-repetitive data. */
static struct slice block_make(uint64_t seed, size_t len, uint8_t *plain) {
    struct rand rand;
    rand_init(&rand, seed);
    for (size_t i = 0; i < len; i++)
        plain[i] = i >= 20 && i % 64 >= 20 ? plain[i - 20] : (uint8_t)rand_u64(&rand);
    size_t block_len = snappy_max_compressed_length(len);
    uint8_t *block = mem_alloc(block_len);
    assert_non_null(block);
    assert_int_equal(snappy_compress((const char *)plain, len, (char *)block, &block_len), SNAPPY_OK);
    block = mem_realloc(block, block_len); /* exact, so that ASan sees a read past the end */
    assert_non_null(block);
    return slice_of(block, block_len);
}

static void block_free(struct slice block) {
    mem_free((void *)(uintptr_t)block.data);
}

static void test_round_trip(void **state) {
    (void)state;
    static const size_t lengths[] = {0,   1,   2,    59,    60,    61,    127,   128,
                                     255, 256, 1000, 65535, 65536, 65537, 300000};
    uint8_t *plain = mem_alloc(300000);
    assert_non_null(plain);
    struct buf out;
    buf_init(&out);
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        struct slice block = block_make(i, lengths[i], plain);
        struct error_detail detail = {0};
        size_t size = SIZE_MAX, offset;
        assert_int_equal(proto_snappy_size(block, LIMIT, &detail, &size), STATUS_OK);
        assert_int_equal(size, lengths[i]);
        assert_int_equal(proto_snappy_decode(block, LIMIT, &detail, &out), STATUS_OK);
        assert_true(slice_equal(buf_slice(&out), slice_of(plain, lengths[i])));
        assert_null(snappy_fault_find(block, &offset));
        assert_string_equal(detail.text, "");
        block_free(block);
    }
    buf_release(&out);
    mem_free(plain);
}

static void expect(struct slice block, size_t limit, int status, const char *text) {
    struct error_detail detail = {0};
    struct buf out;
    buf_init(&out);
    buf_append_str(&out, "old");
    assert_int_equal(proto_snappy_decode(block, limit, &detail, &out), status);
    if (strstr(detail.text, text) == NULL)
        fail_msg("\"%s\" is not in \"%s\"", text, detail.text);
    assert_int_equal(out.len, 0);
    assert_false(out.failed);
    buf_release(&out);
}

#define BLOCK(...) slice_of((const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))

static void test_faults_are_told(void **state) {
    (void)state;
    expect(slice_of("", 0), LIMIT, STATUS_BAD_SNAPPY, "byte 0: no valid length");
    expect(BLOCK(0x80), LIMIT, STATUS_BAD_SNAPPY, "byte 0: no valid length");
    expect(BLOCK(0xff, 0xff, 0xff, 0xff, 0x10), SIZE_MAX, STATUS_BAD_SNAPPY, "no valid length"); /* 33 bits */
    expect(BLOCK(0x80, 0x80, 0x80, 0x80, 0x80, 0x01), SIZE_MAX, STATUS_BAD_SNAPPY, "no valid length");
    expect(BLOCK(0xff, 0xff, 0xff, 0xff, 0x0f), LIMIT, STATUS_TOO_LARGE,
           "decoded size 4294967295 exceeds the limit of 1048576 bytes");
    expect(BLOCK(4, 3 << 2, 'a', 'b', 'c', 'd'), 3, STATUS_TOO_LARGE,
           "decoded size 4 exceeds the limit of 3 bytes");
    expect(BLOCK(0xff, 0xff, 0x0f, 0x00, 0x00), LIMIT, STATUS_BAD_SNAPPY,
           "262143 bytes declared, more than the 2 bytes");
    expect(BLOCK(1), LIMIT, STATUS_BAD_SNAPPY, "1 bytes declared, more than the 0 bytes");
    expect(BLOCK(4, 3 << 2, 'a', 'b', 'c'), LIMIT, STATUS_BAD_SNAPPY, "byte 1: a literal runs past the end");
    expect(BLOCK(4, 61 << 2, 3), LIMIT, STATUS_BAD_SNAPPY, "byte 1: a literal's length is cut off");
    expect(BLOCK(5, 0, 'a', 1, 2), LIMIT, STATUS_BAD_SNAPPY, "byte 3: a copy reaches before the start");
    expect(BLOCK(5, 0, 'a', 1, 0), LIMIT, STATUS_BAD_SNAPPY, "byte 3: a copy reaches before the start");
    expect(BLOCK(5, 0, 'a', 1), LIMIT, STATUS_BAD_SNAPPY, "byte 3: a copy's offset is cut off");
    expect(BLOCK(6, 0, 'a', 1, 1), LIMIT, STATUS_BAD_SNAPPY, "byte 5: the data is shorter than declared");
    expect(BLOCK(4, 0, 'a', 1, 1), LIMIT, STATUS_BAD_SNAPPY, "byte 3: the data is longer than declared");
    expect(BLOCK(0, 0, 'a'), LIMIT, STATUS_BAD_SNAPPY, "byte 1: the data is longer than declared");
}

/* Found by fuzz_snappy: the library takes a literal of 2^32 bytes for one of none. */
static void test_literal_of_4_gib(void **state) {
    (void)state;
    struct slice block = BLOCK(0, 63 << 2, 0xff, 0xff, 0xff, 0xff);
    struct buf out;
    size_t offset;
    buf_init(&out);
    assert_int_equal(proto_snappy_decode(block, LIMIT, NULL, &out), STATUS_OK);
    assert_int_equal(out.len, 0);
    assert_null(snappy_fault_find(block, &offset));
    buf_release(&out);
    expect(BLOCK(1, 63 << 2, 0xff, 0xff, 0xff, 0xff), LIMIT, STATUS_BAD_SNAPPY,
           "byte 6: the data is shorter");
}

static void test_every_prefix_is_refused(void **state) {
    (void)state;
    uint8_t plain[3000];
    struct buf out;
    buf_init(&out);
    struct slice block = block_make(7, sizeof plain, plain);
    for (size_t len = 0; len < block.len; len++) {
        uint8_t *copy = mem_alloc(len);
        assert_non_null(copy);
        memcpy(copy, block.data, len);
        struct error_detail detail = {0};
        assert_int_equal(proto_snappy_decode(slice_of(copy, len), LIMIT, &detail, &out), STATUS_BAD_SNAPPY);
        assert_non_null(strstr(detail.text, "byte "));
        assert_int_equal(out.len, 0);
        mem_free(copy);
    }
    block_free(block);
    buf_release(&out);
}

/* The walk over the elements and the library agree on what is a block. */
static void test_walk_agrees_with_the_library(void **state) {
    (void)state;
    uint8_t plain[400], made[4096];
    struct rand rand;
    rand_init(&rand, 3);
    size_t accepted = 0, rounds = 30000;
    for (size_t i = 0; i < rounds; i++) {
        struct slice block = block_make(i % 50, 1 + i % sizeof plain, plain);
        uint8_t *bytes = (uint8_t *)(uintptr_t)block.data;
        for (uint64_t n = rand_below(&rand, 3); n > 0; n--)
            bytes[rand_below(&rand, block.len)] = (uint8_t)rand_u64(&rand);
        size_t len = sizeof made, offset, size;
        bool valid = snappy_uncompressed_length((const char *)bytes, block.len, &size) == SNAPPY_OK &&
                     size <= len &&
                     snappy_uncompress((const char *)bytes, block.len, (char *)made, &len) == SNAPPY_OK;
        struct buf out;
        buf_init(&out);
        int status = proto_snappy_decode(block, sizeof made, NULL, &out);
        assert_int_equal(snappy_fault_find(block, &offset) == NULL && status != STATUS_TOO_LARGE, valid);
        assert_int_equal(status == STATUS_OK, valid);
        if (valid)
            assert_true(slice_equal(buf_slice(&out), slice_of(made, len)));
        accepted += valid;
        buf_release(&out);
        block_free(block);
    }
    assert_true(accepted > rounds / 10 && accepted < rounds * 9 / 10);
}

static void test_out_of_memory(void **state) {
    (void)state;
    uint8_t plain[2000];
    struct slice block = block_make(1, sizeof plain, plain);
    struct buf out;
    struct error_detail detail = {0};
    buf_init(&out);
    mem_fault_set(1, 0);
    assert_int_equal(proto_snappy_decode(block, LIMIT, &detail, &out), STATUS_NO_MEMORY);
    mem_fault_set(0, 0);
    assert_int_equal(out.len, 0);
    assert_int_equal(proto_snappy_decode(block, LIMIT, NULL, &out), STATUS_OK); /* usable afterwards */
    assert_int_equal(out.len, sizeof plain);
    buf_release(&out);
    block_free(block);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_faults_are_told),
        cmocka_unit_test(test_literal_of_4_gib),
        cmocka_unit_test(test_every_prefix_is_refused),
        cmocka_unit_test(test_walk_agrees_with_the_library),
        cmocka_unit_test(test_out_of_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
