/* test_wal_record.c: payloads against the arrays they were made from, and every damage that a byte or a cut
 * can do. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/bytes.h"
#include "base/label.h"
#include "base/rand.h"
#include "storage/wal/wal_record.h"

#define SAMPLES_MAX 400

static int64_t odd_time(struct rand *rand) {
    static const int64_t edges[] = {
        0, 1, -1, INT64_MIN, INT64_MAX, INT64_MIN + 1, INT64_MAX - 1, 1700000000000};
    switch (rand_below(rand, 4)) {
    case 0:
        return edges[rand_below(rand, sizeof edges / sizeof edges[0])];
    case 1:
        return (int64_t)rand_u64(rand);
    default:
        return 1700000000000 + (int64_t)rand_below(rand, 100000);
    }
}

static uint32_t odd_slot(struct rand *rand, uint32_t before) {
    switch (rand_below(rand, 6)) {
    case 0:
        return (uint32_t)rand_u64(rand);
    case 1:
        return rand_below(rand, 2) ? 0 : UINT32_MAX;
    default:
        return before + 1; /* wraps: fine, it is only another slot */
    }
}

/* Samples with every kind of time, slot, value and start come back bit for bit; every cut of the payload is
 * refused or, at most, read without going over; nothing may stand behind it. */
static void test_samples(void **state) {
    (void)state;
    struct rand rand;
    rand_init(&rand, 3);
    static uint32_t slots[SAMPLES_MAX];
    static struct sample samples[SAMPLES_MAX];
    static int64_t starts[SAMPLES_MAX];
    for (int round = 0; round < 500; round++) {
        size_t count = 1 + (size_t)rand_below(&rand, round < 400 ? 20 : SAMPLES_MAX);
        bool has_starts = rand_below(&rand, 2);
        uint32_t slot = (uint32_t)rand_below(&rand, 1000);
        for (size_t i = 0; i < count; i++) {
            slots[i] = slot = odd_slot(&rand, slot);
            samples[i] = (struct sample){odd_time(&rand), rand_u64(&rand)};
            starts[i] = rand_below(&rand, 3) == 0 ? START_NONE : odd_time(&rand);
        }
        struct buf buf;
        buf_init(&buf);
        wal_record_samples_write(&buf, slots, samples, has_starts ? starts : NULL, count);
        assert_false(buf.failed);
        for (size_t cut = 0; cut <= buf.len; cut++) {
            /* in memory of its own, so that the sanitizer sees a byte too many */
            uint8_t *copy = mem_alloc(cut);
            assert_non_null(copy);
            if (cut > 0)
                memcpy(copy, buf.data, cut);
            struct wal_samples_reader reader;
            int status = wal_samples_reader_init(&reader, slice_of(copy, cut));
            size_t i = 0;
            uint32_t got_slot;
            struct sample got;
            int64_t got_start;
            while (status == STATUS_OK &&
                   (status = wal_samples_reader_next(&reader, &got_slot, &got, &got_start)) == STATUS_OK) {
                assert_true(i < count);
                assert_int_equal(got_slot, slots[i]);
                assert_true(got.time_ms == samples[i].time_ms && got.value_bits == samples[i].value_bits);
                assert_true(got_start == (has_starts ? starts[i] : START_NONE));
                i++;
            }
            assert_int_equal(status, cut == buf.len ? STATUS_END : STATUS_CORRUPT);
            mem_free(copy);
            if (cut == buf.len)
                assert_int_equal(i, count);
            if (round >= 400 && cut + 50 < buf.len)
                cut += 40;
        }
        buf_append_byte(&buf, 0); /* one byte too many */
        struct wal_samples_reader reader;
        int status = wal_samples_reader_init(&reader, buf_slice(&buf));
        while (status == STATUS_OK)
            status = wal_samples_reader_next(&reader, slots, samples, starts);
        assert_int_equal(status, STATUS_CORRUPT);
        buf_release(&buf);
    }
}

/* A round of neighbouring series at one time: slot and time take one byte each. */
static void test_samples_size(void **state) {
    (void)state;
    static uint32_t slots[SAMPLES_MAX];
    static struct sample samples[SAMPLES_MAX];
    static int64_t starts[SAMPLES_MAX];
    for (uint32_t i = 0; i < SAMPLES_MAX; i++) {
        slots[i] = 100 + i;
        samples[i] = (struct sample){1700000000000, i};
    }
    struct buf buf;
    buf_init(&buf);
    wal_record_samples_write(&buf, slots, samples, NULL, SAMPLES_MAX);
    assert_true(buf.len <= SAMPLES_MAX * 10 + 12);
    buf_clear(&buf);
    wal_record_samples_write(&buf, slots, samples, starts, SAMPLES_MAX); /* START_NONE: one byte */
    assert_true(buf.len <= SAMPLES_MAX * 11 + 12);
    buf_release(&buf);
}

/* The bytes as docs/format/log.md has them. */
static void test_golden(void **state) {
    (void)state;
    static const uint32_t slots[] = {3, 4, 2};
    static const struct sample samples[] = {{1000, 0x3ff0000000000000}, {1000, 0}, {990, 0x8000000000000000}};
    static const int64_t starts[] = {400, START_NONE, 995};
    static const uint8_t golden[] = {
        1,    3,    0xd0, 0x0f, /* starts follow; 3 samples; from 1000 */
        0x06, 0x00, 0,    0,    0, 0, 0, 0, 0xf0, 0x3f, 0xb1,
        0x09,                                                 /* 3 - -1 - 1 = 3; +0; 1.0; 600 → 1200 + 1 */
        0x00, 0x00, 0,    0,    0, 0, 0, 0, 0,    0,    0x00, /* next slot; +0; 0.0; none */
        0x05, 0x13, 0,    0,    0, 0, 0, 0, 0,    0x80, 0x0a, /* 2 - 4 - 1 = -3; -10; -0.0; -5 → 9 + 1 */
    };
    struct buf buf;
    buf_init(&buf);
    wal_record_samples_write(&buf, slots, samples, starts, 3);
    assert_int_equal(buf.len, sizeof golden);
    assert_memory_equal(buf.data, golden, sizeof golden);
    buf_clear(&buf);
    wal_record_series_begin(&buf, 1);
    wal_record_series_write(&buf, 5, 300, slice_str("\x0a\x06\x0a\x01\x61\x12\x01\x62"));
    static const uint8_t series[] = {1, 5, 0xac, 2, 8, 0x0a, 6, 0x0a, 1, 'a', 0x12, 1, 'b'};
    assert_int_equal(buf.len, sizeof series);
    assert_memory_equal(buf.data, series, sizeof series);
    buf_release(&buf);
}

static void test_series(void **state) {
    (void)state;
    struct rand rand;
    rand_init(&rand, 4);
    for (int round = 0; round < 100; round++) {
        size_t count = (size_t)rand_below(&rand, 12);
        static uint32_t slots[12];
        static uint64_t ids[12];
        static size_t ends[13];
        struct buf labels, buf;
        buf_init(&labels);
        buf_init(&buf);
        wal_record_series_begin(&buf, count);
        ends[0] = 0;
        for (size_t i = 0; i < count; i++) {
            slots[i] = (uint32_t)rand_u64(&rand);
            ids[i] = rand_u64(&rand) >> rand_below(&rand, 64);
            for (uint64_t pairs = rand_below(&rand, 4); pairs > 0; pairs--)
                label_bytes_append(&labels, slice_of("instance", (size_t)rand_below(&rand, 9)),
                                   slice_of("10.1.2.3:9100", (size_t)rand_below(&rand, 14)));
            ends[i + 1] = labels.len;
            wal_record_series_write(&buf, slots[i], ids[i],
                                    slice_of(labels.data + ends[i], ends[i + 1] - ends[i]));
        }
        assert_false(buf.failed || labels.failed);
        for (size_t cut = 0; cut <= buf.len; cut++) {
            uint8_t *copy = mem_alloc(cut);
            assert_non_null(copy);
            memcpy(copy, buf.data, cut);
            struct wal_series_reader reader;
            int status = wal_series_reader_init(&reader, slice_of(copy, cut));
            uint32_t slot;
            uint64_t id;
            struct slice got;
            size_t i = 0;
            while (status == STATUS_OK &&
                   (status = wal_series_reader_next(&reader, &slot, &id, &got)) == STATUS_OK) {
                assert_true(i < count && slot == slots[i] && id == ids[i]);
                assert_true(slice_equal(got, slice_of(labels.data + ends[i], ends[i + 1] - ends[i])));
                i++;
            }
            assert_int_equal(status, cut == buf.len ? STATUS_END : STATUS_CORRUPT);
            mem_free(copy);
        }
        buf_release(&labels);
        buf_release(&buf);
    }
}

static int read_all(const uint8_t *data, size_t len) {
    uint32_t slot;
    uint64_t id;
    struct slice labels;
    struct wal_series_reader series;
    int status = wal_series_reader_init(&series, slice_of(data, len));
    while (status == STATUS_OK)
        status = wal_series_reader_next(&series, &slot, &id, &labels);
    return status;
}

static int read_samples(const uint8_t *data, size_t len) {
    uint32_t slot;
    struct sample sample;
    int64_t start_ms;
    struct wal_samples_reader samples;
    int status = wal_samples_reader_init(&samples, slice_of(data, len));
    while (status == STATUS_OK)
        status = wal_samples_reader_next(&samples, &slot, &sample, &start_ms);
    return status;
}

#define REFUSED(reader, ...)                                                                                 \
    do {                                                                                                     \
        static const uint8_t bytes[] = {__VA_ARGS__};                                                        \
        assert_int_equal(reader(bytes, sizeof bytes), STATUS_CORRUPT);                                       \
    } while (0)

static void test_malformed(void **state) {
    (void)state;
    REFUSED(read_samples, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0); /* unknown flag */
    REFUSED(read_samples, 0, 0, 0);                               /* no samples */
    REFUSED(read_samples, 0, 0xff, 0xff, 0xff, 0xff, 0x0f, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0); /* 4 G samples */
    REFUSED(read_samples, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0);                            /* slot -1 */
    REFUSED(read_samples, 0, 1, 0, 0x80, 0x80, 0x80, 0x80, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0); /* slot 2^32 */
    REFUSED(read_samples, 0, 1, 0, 0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 0, 0, 0, 0, 0, 0,
            0, 0, 0); /* slot overflow */
    REFUSED(read_samples, 0, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
            1);                                                                          /* long varint */
    REFUSED(read_all, 0xff, 0xff, 0xff, 0xff, 0x0f, 1, 1, 0);                            /* 4 G series */
    REFUSED(read_all, 1, 1, 1, 2, 0x0a, 5);                                              /* bad labels */
    REFUSED(read_all, 1, 1, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1); /* long labels */
    REFUSED(read_all, 1, 0x80, 0x80, 0x80, 0x80, 0x10, 1, 0);                            /* slot 2^32 */
    REFUSED(read_all, 0, 0); /* a byte left over */
}

/* Random bytes, and valid payloads with flipped bits: never out of bounds, always an end. */
static void test_noise(void **state) {
    (void)state;
    struct rand rand;
    rand_init(&rand, 5);
    for (int round = 0; round < 20000; round++) {
        size_t len = (size_t)rand_below(&rand, 80);
        uint8_t *data = mem_alloc(len);
        assert_non_null(data);
        for (size_t i = 0; i < len; i++)
            data[i] = (uint8_t)(rand_u64(&rand) & (rand_below(&rand, 2) ? 0xff : 3));
        int status = read_all(data, len);
        assert_true(status == STATUS_END || status == STATUS_CORRUPT);
        status = read_samples(data, len);
        assert_true(status == STATUS_END || status == STATUS_CORRUPT);
        mem_free(data);
    }
}

static void test_no_memory(void **state) {
    (void)state;
    static const uint32_t slot = 1;
    static const struct sample sample = {1, 2};
    struct buf buf;
    buf_init(&buf);
    mem_fault_set(1, 1);
    wal_record_samples_write(&buf, &slot, &sample, NULL, 1);
    mem_fault_set(0, 0);
    assert_true(buf.failed);
    buf_clear(&buf);
    mem_fault_set(1, 1);
    wal_record_series_begin(&buf, 1);
    wal_record_series_write(&buf, 1, 1, slice_str(""));
    mem_fault_set(0, 0);
    assert_true(buf.failed);
    buf_release(&buf);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_samples),   cmocka_unit_test(test_samples_size), cmocka_unit_test(test_golden),
        cmocka_unit_test(test_series),    cmocka_unit_test(test_malformed),    cmocka_unit_test(test_noise),
        cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
