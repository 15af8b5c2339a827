#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/bytes.h"
#include "base/label.h"
#include "proto/proto.h"
#include "tests/unit/proto/generate.h"
#include "tests/unit/proto/oracle.h"

#define MESSAGES 6000
#define MUTANTS  20000

/* A copy with nothing behind it, so that ASan sees a read past the end. */
static struct slice exact_copy(struct slice s) {
    uint8_t *copy = mem_alloc(s.len);
    assert_non_null(copy);
    if (s.len > 0)
        memcpy(copy, s.data, s.len);
    return slice_of(copy, s.len);
}

static void exact_free(struct slice s) {
    mem_free((void *)(uintptr_t)s.data);
}

struct decoded {
    struct arena arena;
    struct error_detail detail;
    struct write_batch batch;
    int status;
};

static void decode(struct slice message, struct decoded *decoded) {
    *decoded = (struct decoded){0};
    arena_init(&decoded->arena, 0, 0);
    decoded->status = proto_write_request_decode(message, &decoded->arena, &decoded->detail, &decoded->batch);
    if (decoded->status == STATUS_OK)
        assert_string_equal(decoded->detail.text, "");
    else
        assert_non_null(strstr(decoded->detail.text, "protobuf: byte "));
}

/* Decodes and asks the oracle; returns whether it could judge. */
static bool decode_and_judge(struct slice message, uint64_t seed, int *status) {
    struct decoded decoded;
    bool compared;
    decode(message, &decoded);
    const char *fault = oracle_judge(message, decoded.status, &decoded.batch, &compared);
    if (fault != NULL)
        fail_msg("seed %llu: %s (%s)", (unsigned long long)seed, fault, decoded.detail.text);
    *status = decoded.status;
    arena_release(&decoded.arena);
    return compared;
}

static void test_same_as_protobuf_c(void **state) {
    (void)state;
    struct buf message;
    buf_init(&message);
    for (uint64_t seed = 1; seed <= MESSAGES; seed++) {
        buf_clear(&message);
        write_request_generate(seed, seed % 3 == 0 ? SPELLING_PLAIN : SPELLING_ODD, &message);
        struct slice copy = exact_copy(buf_slice(&message));
        int status;
        assert_true(decode_and_judge(copy, seed,
                                     &status)); /* what is generated is never in the list of differences */
        assert_int_equal(status, STATUS_OK);
        exact_free(copy);
    }
    buf_release(&message);
}

static void test_mutants_same_as_protobuf_c(void **state) {
    (void)state;
    struct buf message;
    buf_init(&message);
    size_t compared = 0, accepted = 0;
    for (uint64_t seed = 1; seed <= MUTANTS; seed++) {
        buf_clear(&message);
        do
            write_request_generate(seed % 500 + 1, seed % 2 == 0 ? SPELLING_PLAIN : SPELLING_ODD, &message);
        while (message.len == 0 && ++seed > 0);
        bytes_mutate(seed, &message);
        struct slice copy = exact_copy(buf_slice(&message));
        int status;
        compared += decode_and_judge(copy, seed, &status);
        accepted += status == STATUS_OK;
        exact_free(copy);
    }
    buf_release(&message);
    printf("%d mutants: %zu compared, %zu accepted\n", MUTANTS, compared, accepted);
    assert_true(compared > MUTANTS * 3 / 4);
    assert_true(accepted > MUTANTS / 20 && accepted < MUTANTS * 19 / 20);
}

static void test_every_prefix(void **state) {
    (void)state;
    for (uint64_t seed = 1; seed <= 12; seed++) {
        struct buf message;
        buf_init(&message);
        write_request_generate(seed, seed % 2 == 0 ? SPELLING_PLAIN : SPELLING_ODD, &message);
        for (size_t len = 0; len < message.len && len < 2500; len++) {
            struct slice copy = exact_copy(slice_of(message.data, len));
            int status;
            decode_and_judge(copy, seed, &status);
            exact_free(copy);
        }
        buf_release(&message);
    }
}

/* A series that ends before its parts do, while what is missing stands behind it in the message: each length
 * that is too small for the series, with a label of more than 127 bytes and a sample. */
static void test_every_series_length(void **state) {
    (void)state;
    static const uint8_t sample[] = {0x12, 0x10, 0x09, 1,    2,    3,    4,    5,    6,
                                     7,    8,    0x10, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01};
    struct buf text, series;
    buf_init(&text);
    buf_init(&series);
    for (int i = 0; i < 140; i++)
        buf_append_byte(&text, 'x');
    label_bytes_append(&series, slice_str("a"), slice_str("bcd"));
    label_bytes_append(&series, slice_str("long"), buf_slice(&text));
    buf_append(&series, sample, sizeof sample);
    buf_append(&series, sample, sizeof sample);
    size_t compared = 0;
    for (size_t len = 0; len <= series.len; len++) {
        struct buf message;
        buf_init(&message);
        const uint8_t head[] = {0x0a, (uint8_t)(len | 0x80), (uint8_t)(len >> 7)};
        buf_append(&message, head, sizeof head);
        buf_append(&message, series.data, series.len);
        struct slice copy = exact_copy(buf_slice(&message));
        int status;
        compared += decode_and_judge(copy, len, &status);
        /* Between the parts, the rest is a field 2 of WriteRequest, which is unknown. */
        bool between = (series.len - len) % sizeof sample == 0 && len + 2 * sizeof sample >= series.len;
        assert_int_equal(status == STATUS_OK, between);
        exact_free(copy);

        /* And the message with it: now ASan sees a look at what is missing. */
        copy = exact_copy(slice_of(message.data, sizeof head + len));
        assert_true(decode_and_judge(copy, len, &status));
        exact_free(copy);
        buf_release(&message);
    }
    assert_true(compared > series.len / 2);
    buf_release(&text);
    buf_release(&series);
}

/* ---- cases by hand ---- */

/* "0A 02 ..." as bytes. */
static struct buf bytes_of(const char *hex) {
    struct buf bytes;
    buf_init(&bytes);
    for (unsigned value; *hex != '\0'; hex += strspn(hex, " ")) {
        assert_int_equal(sscanf(hex, "%2x", &value), 1);
        buf_append_byte(&bytes, (uint8_t)value);
        hex += 2;
    }
    return bytes;
}

static void test_faults_are_told(void **state) {
    (void)state;
    static const struct {
        const char *hex;
        const char *text;
    } cases[] = {
        {"0A", "byte 1: no valid length in field 1 of WriteRequest"},
        {"0A 05 00", "byte 1: field 1 of WriteRequest has a length of 5 bytes where 1 are left"},
        {"0A FF FF FF FF FF FF FF FF FF 01",
         "byte 1: field 1 of WriteRequest has a length of 18446744073709551615 bytes"},
        {"0A FF FF FF FF FF FF FF FF FF 02", "byte 1: no valid length"},
        {"0A FF FF FF FF FF FF FF FF FF FF 01", "byte 1: no valid length"},
        {"00 01", "byte 0: no valid tag in WriteRequest"},
        {"80 00 01", "byte 0: no valid tag in WriteRequest"},
        {"80 80 80 80 10 01", "byte 0: no valid tag in WriteRequest"},
        {"80", "byte 0: no valid tag"},
        {"08 01", "byte 0: field 1 of WriteRequest has wire type 0 instead of 2"},
        {"1D 01 02 03 04", "byte 0: field 3 of WriteRequest has wire type 5 instead of 2"},
        {"2B 2C", "byte 0: field 5 of WriteRequest has wire type 3, which is not allowed"},
        {"2C", "byte 0: field 5 of WriteRequest has wire type 4"},
        {"2E", "byte 0: field 5 of WriteRequest has wire type 6"},
        {"2F", "byte 0: field 5 of WriteRequest has wire type 7"},
        {"29 01 02 03 04 05 06 07", "byte 1: field 5 of WriteRequest is cut off"},
        {"2D 01 02 03", "byte 1: field 5 of WriteRequest is cut off"},
        {"28 80", "byte 1: no valid varint in field 5 of WriteRequest"},
        {"0A 02 08 01", "byte 2: field 1 of TimeSeries has wire type 0 instead of 2"},
        {"0A 02 10 01", "byte 2: field 2 of TimeSeries has wire type 0 instead of 2"},
        {"0A 02 0A 01 00", "byte 3: field 1 of TimeSeries has a length of 1 bytes where 0 are left"},
        {"0A 04 0A 02 08 01", "byte 4: field 1 of Label has wire type 0 instead of 2"},
        {"0A 04 0A 02 10 01", "byte 4: field 2 of Label has wire type 0 instead of 2"},
        {"0A 06 0A 04 0A 03 61 62 63", "byte 5: field 1 of Label has a length of 3 bytes where 2 are left"},
        {"0A 04 12 02 08 01", "byte 4: field 1 of Sample has wire type 0 instead of 1"},
        {"0A 05 12 03 12 01 00", "byte 4: field 2 of Sample has wire type 2 instead of 0"},
        {"0A 05 12 03 09 01 00", "byte 5: field 1 of Sample is cut off"},
        {"0A 04 1A 02 10 01", "byte 4: field 2 of Exemplar has wire type 0 instead of 1"},
        {"0A 06 1A 04 0A 02 08 01", "byte 6: field 1 of Label has wire type 0"},
        {"0A 05 22 03 52 01 00", "byte 4: field 10 of Histogram holds 1 bytes, not a multiple of 8"},
        {"0A 05 22 03 4A 01 80", "byte 6: no valid varint in field 9 of Histogram"},
        {"0A 06 22 04 42 02 0A 00", "byte 6: field 1 of BucketSpan has wire type 2 instead of 0"},
        {"1A 02 10 01", "byte 2: field 2 of MetricMetadata has wire type 0 instead of 2"},
        {"0A 00 1A 00 0A 02 0A 09", "byte 7: field 1 of TimeSeries has a length of 9 bytes where 0 are left"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct buf message = bytes_of(cases[i].hex);
        struct slice copy = exact_copy(buf_slice(&message));
        struct decoded decoded;
        decode(copy, &decoded);
        assert_int_equal(decoded.status, STATUS_BAD_PROTOBUF);
        if (strstr(decoded.detail.text, cases[i].text) == NULL)
            fail_msg("%s: \"%s\" is not in \"%s\"", cases[i].hex, cases[i].text, decoded.detail.text);
        assert_null(decoded.batch.series); /* written on success only */
        arena_release(&decoded.arena);
        exact_free(copy);
        buf_release(&message);
    }
}

/* The labels of the first series, as name=value,…; whether they are borrowed. */
static void expect_labels(const char *hex, const char *labels, bool borrowed) {
    struct buf message = bytes_of(hex), text;
    buf_init(&text);
    struct slice copy = exact_copy(buf_slice(&message));
    struct decoded decoded;
    decode(copy, &decoded);
    assert_int_equal(decoded.status, STATUS_OK);
    assert_int_equal(decoded.batch.series_count, 1);
    struct slice rest = decoded.batch.series[0].labels;
    assert_true(label_bytes_well_formed(rest));
    assert_int_equal(rest.data >= copy.data && rest.data + rest.len <= copy.data + copy.len, borrowed);
    struct label label;
    while (label_next(&rest, &label, NULL))
        buf_printf(&text, "%.*s=%.*s,", SLICE_ARGS(label.name), SLICE_ARGS(label.value));
    buf_append_byte(&text, 0);
    assert_string_equal((char *)text.data, labels);
    arena_release(&decoded.arena);
    exact_free(copy);
    buf_release(&message);
    buf_release(&text);
}

static void test_labels_borrowed_or_spelled_anew(void **state) {
    (void)state;
    expect_labels("0A 00", "", true);
    expect_labels("0A 08 0A 06 0A 01 61 12 01 62", "a=b,", true);
    expect_labels("0A 06 0A 04 0A 00 12 00", "=,", true);
    /* two labels, then a sample; the sample first; an unknown field first */
    expect_labels("0A 14 0A 06 0A 01 61 12 01 62 0A 06 0A 01 63 12 01 64 12 02 10 01", "a=b,c=d,", true);
    expect_labels("0A 0C 12 02 10 01 0A 06 0A 01 61 12 01 62", "a=b,", true);
    expect_labels("0A 0A 28 01 0A 06 0A 01 61 12 01 62", "a=b,", true);
    /* split by a sample; value before name; a name left out, a value left out, both; an unknown field inside
     */
    expect_labels("0A 14 0A 06 0A 01 61 12 01 62 12 02 10 01 0A 06 0A 01 63 12 01 64", "a=b,c=d,", false);
    expect_labels("0A 08 0A 06 12 01 62 0A 01 61", "a=b,", false);
    expect_labels("0A 05 0A 03 12 01 62", "=b,", false);
    expect_labels("0A 05 0A 03 0A 01 61", "a=,", false);
    expect_labels("0A 02 0A 00", "=,", false);
    expect_labels("0A 0A 0A 08 0A 01 61 12 01 62 18 01", "a=b,", false);
    /* the last of two names wins */
    expect_labels("0A 0B 0A 09 0A 01 7A 0A 01 61 12 01 62", "a=b,", false);
    /* a length spelled with a byte too many, at each of the three places; a tag */
    expect_labels("0A 09 0A 86 00 0A 01 61 12 01 62", "a=b,", false);
    expect_labels("0A 09 0A 07 0A 81 00 61 12 01 62", "a=b,", false);
    expect_labels("0A 09 0A 07 0A 01 61 12 81 00 62", "a=b,", false);
    expect_labels("0A 09 8A 00 06 0A 01 61 12 01 62", "a=b,", false);
    /* a good label before one that is not, and behind it */
    expect_labels("0A 10 0A 06 0A 01 61 12 01 62 0A 06 12 01 64 0A 01 63", "a=b,c=d,", false);
    expect_labels("0A 10 0A 06 12 01 64 0A 01 63 0A 06 0A 01 61 12 01 62", "c=d,a=b,", false);
}

/* Label lengths around 127 and 16383 in the sender's spelling are borrowed, too. */
static void test_long_labels_borrowed(void **state) {
    (void)state;
    static const size_t lengths[] = {100, 118, 119, 120, 121, 122,   123,   124,  125,
                                     126, 127, 128, 129, 300, 16370, 16380, 16384};
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        struct buf text, labels, message;
        buf_init(&text);
        buf_init(&labels);
        buf_init(&message);
        for (size_t n = 0; n < lengths[i]; n++)
            buf_append_byte(&text, 'x');
        label_bytes_append(&labels, slice_str("n"), buf_slice(&text));
        label_bytes_append(&labels, buf_slice(&text), slice_str("v"));
        uint8_t len[VARINT_BYTES_MAX];
        buf_append_byte(&message, 0x0a);
        buf_append(&message, len, (size_t)(varint_write(len, labels.len) - len));
        buf_append(&message, labels.data, labels.len);
        struct slice copy = exact_copy(buf_slice(&message));
        struct decoded decoded;
        decode(copy, &decoded);
        assert_int_equal(decoded.status, STATUS_OK);
        assert_true(slice_equal(decoded.batch.series[0].labels, buf_slice(&labels)));
        assert_ptr_equal(decoded.batch.series[0].labels.data, copy.data + copy.len - labels.len);
        arena_release(&decoded.arena);
        exact_free(copy);
        buf_release(&text);
        buf_release(&labels);
        buf_release(&message);
    }
}

/* A long label without its value, at the very end of the message. */
static void test_long_label_without_value(void **state) {
    (void)state;
    uint8_t bytes[3 + 3 + 3 + 140] = {0x0a, 0x92, 0x01, 0x0a, 0x8f, 0x01, 0x0a, 0x8c, 0x01};
    struct slice copy = exact_copy(slice_of(bytes, sizeof bytes));
    struct decoded decoded;
    decode(copy, &decoded);
    assert_int_equal(decoded.status, STATUS_OK);
    struct label label;
    struct slice rest = decoded.batch.series[0].labels;
    assert_true(label_next(&rest, &label, NULL));
    assert_int_equal(label.name.len, 140);
    assert_int_equal(label.value.len, 0);
    arena_release(&decoded.arena);
    exact_free(copy);
}

static void test_samples(void **state) {
    (void)state;
    /* empty; time only; last of two wins; the sender's spelling; a time of ten bytes */
    struct buf message = bytes_of(
        "0A 43 12 00 12 02 10 05 12 16 09 01 00 00 00 00 00 00 00 10 07 09 02 00 00 00 00 00 00 00 10 08"
        "12 10 09 02 00 00 00 00 00 F0 7F 10 80 A0 8D B2 C5 32"
        "12 0B 10 FF FF FF FF FF FF FF FF FF 01 12 04 18 01 10 09");
    struct slice copy = exact_copy(buf_slice(&message));
    struct decoded decoded;
    decode(copy, &decoded);
    if (decoded.status != STATUS_OK)
        fail_msg("%s", decoded.detail.text);
    static const struct sample want[] = {{0, 0},  {5, 0}, {8, 2}, {1736614039552, STALE_NAN_BITS},
                                         {-1, 0}, {9, 0}};
    assert_int_equal(decoded.batch.sample_count, sizeof want / sizeof *want);
    for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
        assert_true(decoded.batch.samples[i].time_ms == want[i].time_ms);
        assert_true(decoded.batch.samples[i].value_bits == want[i].value_bits);
    }
    assert_null(decoded.batch.starts_ms);
    arena_release(&decoded.arena);
    exact_free(copy);
    buf_release(&message);
}

/* Every time that takes six bytes is read by the fast path: hold it against bytes.h. */
static void test_sample_times(void **state) {
    (void)state;
    for (unsigned shift = 0; shift < 64; shift++) {
        for (int64_t add = -1; add <= 1; add++) {
            int64_t time_ms = (int64_t)((UINT64_C(0x123456789abcdef) << 7 >> 1 >> shift) + (uint64_t)add);
            uint8_t bytes[32] = {0x0a, 0, 0x12, 0, 0x09, 1, 2, 3, 4, 5, 6, 7, 8, 0x10};
            size_t len = (size_t)(varint_write(bytes + 14, (uint64_t)time_ms) - bytes);
            bytes[1] = (uint8_t)(len - 2);
            bytes[3] = (uint8_t)(len - 4);
            struct slice copy = exact_copy(slice_of(bytes, len));
            struct decoded decoded;
            decode(copy, &decoded);
            assert_int_equal(decoded.status, STATUS_OK);
            assert_int_equal(decoded.batch.sample_count, 1);
            assert_true(decoded.batch.samples[0].time_ms == time_ms);
            assert_true(decoded.batch.samples[0].value_bits == UINT64_C(0x0807060504030201));
            arena_release(&decoded.arena);
            exact_free(copy);
        }
    }
}

static void test_empty_message(void **state) {
    (void)state;
    struct decoded decoded;
    decode(slice_of(NULL, 0), &decoded);
    assert_int_equal(decoded.status, STATUS_OK);
    assert_int_equal(decoded.batch.series_count, 0);
    assert_int_equal(decoded.batch.sample_count, 0);
    arena_release(&decoded.arena);
}

/* ---- bounds ---- */

/* The header's "at most 16 bytes of arena for each byte", on the messages that come nearest to it. */
static void test_memory_is_bounded(void **state) {
    (void)state;
    const size_t len = 1 << 16;
    uint8_t *bytes = mem_alloc(len + 8);
    assert_non_null(bytes);
    for (int kind = 0; kind < 4; kind++) {
        size_t total = len;
        for (size_t i = 0; i < len; i += 2) {
            bytes[i] = kind == 0 ? 0x0a : kind == 1 ? 0x12 : kind == 2 ? 0x0a : (i < len / 2 ? 0x0a : 0x12);
            bytes[i + 1] = 0;
        }
        if (kind > 0) { /* one series around it all: of empty samples, of empty labels, of both */
            memmove(bytes + 4, bytes, len);
            bytes[0] = 0x0a;
            bytes[1] = 0x80;
            bytes[2] = 0x80;
            bytes[3] = 0x04;
            total = len + 4;
        }
        struct arena arena;
        struct error_detail detail = {0};
        struct write_batch batch;
        arena_init(&arena, 256, 16 * total + 4096);
        assert_int_equal(proto_write_request_decode(slice_of(bytes, total), &arena, &detail, &batch),
                         STATUS_OK);
        assert_int_equal(batch.series_count, kind == 0 ? len / 2 : 1);
        assert_int_equal(batch.sample_count, kind == 1 ? len / 2 : kind == 3 ? len / 4 : 0);
        arena_release(&arena);

        arena_init(&arena, 256, 1024);
        assert_int_equal(proto_write_request_decode(slice_of(bytes, total), &arena, &detail, &batch),
                         STATUS_NO_MEMORY);
        assert_non_null(strstr(detail.text, "no memory"));
        arena_release(&arena);
    }
    mem_free(bytes);
}

static void test_message_over_4_gib(void **state) {
    (void)state;
    struct arena arena;
    struct error_detail detail = {0};
    struct write_batch batch;
    arena_init(&arena, 0, 0);
    /* Refused before a byte is read. */
    assert_int_equal(
        proto_write_request_decode(slice_of("", (size_t)UINT32_MAX + 1), &arena, &detail, &batch),
        STATUS_TOO_LARGE);
    arena_release(&arena);
}

/* Each allocation fails in turn: STATUS_NO_MEMORY, and *batch as it was. */
static void test_out_of_memory(void **state) {
    (void)state;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        struct buf message;
        buf_init(&message);
        write_request_generate(seed, SPELLING_ODD, &message);
        int status = STATUS_NO_MEMORY;
        for (uint64_t countdown = 1; status != STATUS_OK; countdown++) {
            struct arena arena;
            struct write_batch batch = {.series_count = 77};
            arena_init(&arena, 64, 0);
            mem_fault_set(countdown, 0);
            status = proto_write_request_decode(buf_slice(&message), &arena, NULL, &batch);
            mem_fault_set(0, 0);
            if (status != STATUS_OK) {
                assert_int_equal(status, STATUS_NO_MEMORY);
                assert_int_equal(batch.series_count, 77);
            }
            assert_true(countdown < 1000);
            arena_release(&arena);
        }
        buf_release(&message);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_as_protobuf_c),
        cmocka_unit_test(test_mutants_same_as_protobuf_c),
        cmocka_unit_test(test_every_prefix),
        cmocka_unit_test(test_every_series_length),
        cmocka_unit_test(test_faults_are_told),
        cmocka_unit_test(test_labels_borrowed_or_spelled_anew),
        cmocka_unit_test(test_long_labels_borrowed),
        cmocka_unit_test(test_long_label_without_value),
        cmocka_unit_test(test_samples),
        cmocka_unit_test(test_sample_times),
        cmocka_unit_test(test_empty_message),
        cmocka_unit_test(test_memory_is_bounded),
        cmocka_unit_test(test_message_over_4_gib),
        cmocka_unit_test(test_out_of_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
