/* test_chunk.c: the chunk codec against the arrays it was given, and its bits against a second encoder
 * written from the table in docs/format/chunk.md, one bit at a time. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/bytes.h"
#include "base/rand.h"
#include "storage/chunk/chunk.h"
#include "tests/lib/chunk_grow.h"

#define SERIES_DEFAULT 40000 /* about 2.4 M samples; TIDALITE_CHUNK_SERIES raises it */

/* ---- the second encoder ---- */

struct bits {
    uint8_t bytes[8192];
    size_t count;
};

static void bit(struct bits *b, int one) {
    if (one)
        b->bytes[b->count / 8] |= (uint8_t)(0x80 >> b->count % 8);
    b->count++;
}

static void text_bits(struct bits *b, const char *text) {
    for (; *text != '\0'; text++)
        bit(b, *text == '1');
}

static void number_bits(struct bits *b, uint64_t v, unsigned len) {
    for (unsigned i = len; i > 0; i--)
        bit(b, (v >> (i - 1) & 1) != 0);
}

static void uvarint_bits(struct bits *b, uint64_t v) {
    for (; v >= 128; v /= 128)
        number_bits(b, v % 128 + 128, 8);
    number_bits(b, v, 8);
}

static void varbit_bits(struct bits *b, int64_t v) {
    static const unsigned lens[] = {3, 6, 9, 12, 18, 25, 56};
    static const char *const prefixes[] = {"10", "110", "1110", "11110", "111110", "1111110", "11111110"};
    if (v == 0) {
        text_bits(b, "0");
        return;
    }
    for (int i = 0; i < 7; i++) {
        int64_t top = (int64_t)1 << (lens[i] - 1);
        if (v > -top && v <= top) {
            text_bits(b, prefixes[i]);
            number_bits(b, (uint64_t)v, lens[i]);
            return;
        }
    }
    text_bits(b, "11111111");
    number_bits(b, (uint64_t)v, 64);
}

struct naive {
    uint64_t baseline;
    int leading, trailing; /* −1: none */
};

static void xor_bits(struct bits *b, struct naive *n, uint64_t value, const char *reuse, const char *renew) {
    uint64_t x = value ^ n->baseline;
    int leading = 0, trailing = 0;
    while (leading < 31 && (x >> (63 - leading) & 1) == 0)
        leading++;
    while ((x >> trailing & 1) == 0)
        trailing++;
    if (n->leading >= 0 && leading >= n->leading && trailing >= n->trailing) {
        text_bits(b, reuse);
    } else {
        n->leading = leading;
        n->trailing = trailing;
        text_bits(b, renew);
        number_bits(b, (uint64_t)leading, 5);
        number_bits(b, (uint64_t)(64 - leading - trailing) % 64, 6);
    }
    number_bits(b, x >> n->trailing, (unsigned)(64 - n->leading - n->trailing));
    n->baseline = value;
}

static void value_bits(struct bits *b, struct naive *n, uint64_t value) {
    if (value == STALE_NAN_BITS)
        text_bits(b, "111");
    else if (value == n->baseline)
        text_bits(b, "0");
    else
        xor_bits(b, n, value, "10", "110");
}

static void naive_encode(const struct sample *samples, const int64_t *starts, size_t count, struct bits *b,
                         struct chunk_info *info) {
    memset(b, 0, sizeof *b);
    struct naive n = {.leading = -1};
    unsigned changed = 0;
    uint64_t difference = 0;
    for (size_t i = 0; i < count; i++) {
        uint64_t t = (uint64_t)samples[i].time_ms, v = samples[i].value_bits;
        uint64_t before = i > 0 ? (uint64_t)samples[i - 1].time_ms : 0;
        if (i == 0) {
            uvarint_bits(b, zigzag((int64_t)t));
            number_bits(b, v, 64);
            n.baseline = v == STALE_NAN_BITS ? 0 : v;
            if (starts[0] != START_NONE)
                uvarint_bits(b, zigzag((int64_t)(t - (uint64_t)starts[0])));
            continue;
        }
        if (i == 1) {
            uvarint_bits(b, t - before);
            value_bits(b, &n, v);
        } else {
            int64_t dod = (int64_t)((t - before) - (before - (uint64_t)samples[i - 2].time_ms));
            if (dod == 0 && v == STALE_NAN_BITS) {
                text_bits(b, "11111");
            } else if (dod == 0 && v == n.baseline) {
                text_bits(b, "0");
            } else if (dod == 0) {
                xor_bits(b, &n, v, "100", "101");
            } else {
                if (dod >= -4096 && dod <= 4095) {
                    text_bits(b, "110");
                    number_bits(b, (uint64_t)dod, 13);
                } else if (dod >= -524288 && dod <= 524287) {
                    text_bits(b, "1110");
                    number_bits(b, (uint64_t)dod, 20);
                } else {
                    text_bits(b, "11110");
                    number_bits(b, (uint64_t)dod, 64);
                }
                value_bits(b, &n, v);
            }
        }
        uint64_t now = before - (uint64_t)starts[i];
        if (changed == 0 && starts[i] != starts[i - 1]) {
            changed = (unsigned)i;
            varbit_bits(b, (int64_t)now);
        } else if (changed != 0) {
            varbit_bits(b, (int64_t)(now - difference));
        }
        difference = now;
    }
    *info = (struct chunk_info){(uint8_t)count, (uint8_t)(changed | (starts[0] != START_NONE ? 0x80u : 0u))};
}

/* ---- generated series ---- */

static uint64_t value_make(struct rand *rand, int kind, uint64_t previous) {
    static const uint64_t odd[] = {STALE_NAN_BITS,      NORMAL_NAN_BITS,     0x7ff8dead0000beefu,
                                   0xfff0000000000001u, 0x0000000000000000u, 0x8000000000000000u,
                                   0x7ff0000000000000u, 0xfff0000000000000u, 1u,
                                   0x000fffffffffffffu, 0x7fefffffffffffffu, 0x8000000000000001u};
    double last = bits_double(previous);
    switch (kind) {
    case 0:
        return previous == STALE_NAN_BITS ? double_bits(5) : previous;
    case 1:
        return double_bits((last == last && last < 1e300 ? last : 0) + (double)rand_below(rand, 1000));
    case 2:
        return double_bits((last == last && last < 1e300 && last > -1e300 ? last : 0) +
                           ((double)rand_below(rand, 2000) - 1000) / 100);
    case 3:
        return rand_u64(rand);
    case 4:
        return rand_below(rand, 8) == 0 ? STALE_NAN_BITS : double_bits((double)rand_below(rand, 4));
    default:
        return odd[rand_below(rand, 12)];
    }
}

static int64_t step_make(struct rand *rand, int kind) {
    switch (kind) {
    case 0:
        return 15000;
    case 1:
        return 15000 + (int64_t)rand_below(rand, 7) - 3;
    case 2:
        return (int64_t)rand_below(rand, 20000) - 5000;
    case 3:
        return rand_below(rand, 30) == 0 ? (int64_t)rand_below(rand, 100000000) : 1000;
    case 4:
        return (int64_t)rand_u64(rand);
    default:
        return rand_below(rand, 4) == 0 ? 1000 + (4095 + 524287) * (int64_t)rand_below(rand, 3) : 1000;
    }
}

static void series_make(struct rand *rand, struct sample *samples, int64_t *starts, size_t count) {
    int value_kind = (int)rand_below(rand, 6), step_kind = (int)rand_below(rand, 6);
    int start_kind = (int)rand_below(rand, 6); /* 0–2 none, 3 constant, 4 changing now and then, 5 anything */
    uint64_t t = step_kind == 4 ? rand_u64(rand) : 1700000000000;
    int64_t start = start_kind == 3 || rand_below(rand, 2) == 0 ? 1699999990000 : START_NONE;
    uint64_t v = rand_below(rand, 8) == 0 ? STALE_NAN_BITS : double_bits((double)rand_below(rand, 1000000));
    for (size_t i = 0; i < count; i++) {
        samples[i] = (struct sample){(int64_t)t, v};
        t += (uint64_t)step_make(rand, step_kind);
        v = value_make(rand, value_kind, v);
        if (start_kind == 4 && rand_below(rand, 20) == 0)
            start = samples[i].time_ms;
        if (start_kind == 5)
            start = rand_below(rand, 3) == 0 ? START_NONE : (int64_t)rand_u64(rand);
        starts[i] = start_kind <= 2 ? START_NONE : start;
    }
}

static void check_decoded(const struct sample_columns *columns, size_t from, const struct sample *samples,
                          const int64_t *starts, size_t count, int64_t min, int64_t max) {
    size_t at = from;
    for (size_t i = 0; i < count; i++) {
        if (samples[i].time_ms < min || samples[i].time_ms > max)
            continue;
        assert_true(at < columns->count);
        assert_true(columns->times_ms[at] == samples[i].time_ms);
        assert_true(double_bits(columns->values[at]) == samples[i].value_bits);
        assert_true(columns->starts_ms[at] == starts[i]);
        at++;
    }
    assert_int_equal(at, columns->count);
}

static void test_round_trip(void **state) {
    (void)state;
    const char *more = getenv("TIDALITE_CHUNK_SERIES");
    long series_count = more != NULL ? strtol(more, NULL, 10) : SERIES_DEFAULT;
    struct rand rand;
    rand_init(&rand, 11);
    static struct sample samples[CHUNK_SAMPLES_MAX];
    static int64_t starts[CHUNK_SAMPLES_MAX];
    static struct bits oracle;
    struct sample_columns columns = {0};
    size_t total = 0;
    for (long series = 0; series < series_count; series++) {
        size_t count = 1 + rand_below(&rand, CHUNK_SAMPLES_MAX);
        series_make(&rand, samples, starts, count);
        struct chunk_open chunk = {0};
        for (size_t i = 0; i < count; i++) {
            assert_int_equal(chunk_append(&chunk, samples[i], starts[i], chunk_grow, NULL), STATUS_OK);
            assert_true(chunk_last_value_bits(&chunk) == samples[i].value_bits);
        }
        struct chunk_info info;
        naive_encode(samples, starts, count, &oracle, &info);
        assert_int_equal(chunk.bit_count, oracle.count);
        assert_int_equal(chunk.info.sample_count, info.sample_count);
        assert_int_equal(chunk.info.start_byte, info.start_byte);
        assert_memory_equal(chunk_bytes(&chunk).data, oracle.bytes, (oracle.count + 7) / 8);

        /* A copy of just its size: a read past the end would be seen. */
        struct slice bytes = chunk_bytes(&chunk);
        uint8_t *exact = mem_alloc(bytes.len);
        memcpy(exact, bytes.data, bytes.len);
        size_t from = series % 3 == 0 ? 1 : 0; /* what stands in the columns already stays */
        columns.count = 0;
        assert_int_equal(sample_columns_reserve(&columns, 1), STATUS_OK);
        columns.count = from;
        assert_int_equal(chunk_decode(slice_of(exact, bytes.len), chunk.info, INT64_MIN, INT64_MAX, &columns),
                         STATUS_OK);
        check_decoded(&columns, from, samples, starts, count, INT64_MIN, INT64_MAX);
        int64_t a = samples[rand_below(&rand, count)].time_ms, b = samples[rand_below(&rand, count)].time_ms;
        columns.count = 0;
        assert_int_equal(chunk_decode(slice_of(exact, bytes.len), chunk.info, a, b, &columns), STATUS_OK);
        check_decoded(&columns, 0, samples, starts, count, a, b);

        /* Cut short anywhere it is refused, and so is a byte too many. */
        size_t cut = rand_below(&rand, bytes.len);
        columns.count = 0;
        assert_int_equal(chunk_decode(slice_of(exact, cut), chunk.info, INT64_MIN, INT64_MAX, &columns),
                         STATUS_CORRUPT);
        assert_int_equal(columns.count, 0);
        uint8_t *longer = mem_alloc(bytes.len + 1);
        memcpy(longer, exact, bytes.len);
        longer[bytes.len] = (uint8_t)rand_u64(&rand);
        assert_int_equal(
            chunk_decode(slice_of(longer, bytes.len + 1), chunk.info, INT64_MIN, INT64_MAX, &columns),
            STATUS_CORRUPT);
        assert_int_equal(columns.count, 0);
        mem_free(longer);
        mem_free(exact);
        mem_free(chunk.bytes);
        total += count;
    }
    sample_columns_release(&columns);
    print_message("%zu samples of %ld series\n", total, series_count);
}

static void test_costs(void **state) {
    (void)state;
    struct chunk_open chunk = {0};
    const struct sample regular[] = {{1000, 0}, {2000, 0}, {3000, 0}};
    for (int i = 0; i < 3; i++)
        assert_int_equal(chunk_append(&chunk, regular[i], START_NONE, chunk_grow, NULL), STATUS_OK);
    unsigned before = chunk.bit_count;
    assert_int_equal(chunk_append(&chunk, (struct sample){4000, 0}, START_NONE, chunk_grow, NULL), STATUS_OK);
    assert_int_equal(chunk.bit_count - before, 1);
    before = chunk.bit_count;
    assert_int_equal(
        chunk_append(&chunk, (struct sample){5000, STALE_NAN_BITS}, START_NONE, chunk_grow, NULL), STATUS_OK);
    assert_int_equal(chunk.bit_count - before, 5);
    assert_int_equal(chunk.info.start_byte, 0);
    mem_free(chunk.bytes);
}

/* Golden bytes: 15 s steps, 1, 1, 2.5, stale, 1 — the layout may never change under a version that has it. */
static void test_golden(void **state) {
    (void)state;
    static const uint8_t golden[] = {0x80, 0xa0, 0xab, 0xfe, 0xf9, 0x62, 0x3f, 0xf0, 0x00, 0x00, 0x00, 0x00,
                                     0x00, 0x00, 0x98, 0x75, 0x50, 0x9b, 0xff, 0xdf, 0xcf, 0xfe, 0x80};
    struct chunk_open chunk = {0};
    const uint64_t values[] = {double_bits(1), double_bits(1), double_bits(2.5), STALE_NAN_BITS,
                               double_bits(1)};
    for (int i = 0; i < 5; i++)
        assert_int_equal(chunk_append(&chunk, (struct sample){1700000000000 + i * 15000, values[i]},
                                      START_NONE, chunk_grow, NULL),
                         STATUS_OK);
    assert_int_equal(chunk.bit_count, 177);
    assert_memory_equal(chunk_bytes(&chunk).data, golden, sizeof golden);
    mem_free(chunk.bytes);
}

/* With starts: two alike, a change, absence, and steps of every width. */
static void test_golden_starts(void **state) {
    (void)state;
    static const uint8_t golden[] = {
        0xd0, 0x0f, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0xe8, 0x07, 0xe8, 0x07, 0x5f,
        0xc2, 0x00, 0x00, 0x00, 0x01, 0xc0, 0x01, 0x7b, 0x06, 0x33, 0xe7, 0xa0, 0x00, 0x00, 0x00,
        0x17, 0x8f, 0xa7, 0xc0, 0x00, 0x00, 0x00, 0x00, 0x01, 0x4e, 0xf6, 0x2f, 0x82, 0x32, 0x7f,
        0x7f, 0xff, 0xff, 0xff, 0xff, 0xfa, 0xba, 0x64, 0xc0, 0x00, 0x00, 0x00, 0x3f, 0xc0, 0xa8,
        0xb3, 0x8f, 0x3f, 0xff, 0xff, 0xff, 0xff, 0xfa, 0xa8, 0xce, 0xb7, 0x40,
    };
    static const struct {
        struct sample sample;
        int64_t start_ms;
    } rows[] = {{{1000, 0}, 500},  {{2000, 0}, 500},          {{3000, 1}, 500},          {{4001, 1}, 4000},
                {{9000, 3}, 4000}, {{700000, 3}, START_NONE}, {{700001, 0}, START_NONE}, {{INT64_MAX, 0}, 7}};
    struct chunk_open chunk = {0};
    struct sample samples[8];
    int64_t starts[8];
    for (size_t i = 0; i < 8; i++) {
        samples[i] = rows[i].sample;
        starts[i] = rows[i].start_ms;
        assert_int_equal(chunk_append(&chunk, samples[i], starts[i], chunk_grow, NULL), STATUS_OK);
    }
    assert_int_equal(chunk.info.start_byte, 0x83);
    assert_int_equal(chunk_bytes(&chunk).len, sizeof golden);
    assert_memory_equal(chunk_bytes(&chunk).data, golden, sizeof golden);
    struct sample_columns columns = {0};
    assert_int_equal(chunk_decode(chunk_bytes(&chunk), chunk.info, INT64_MIN, INT64_MAX, &columns),
                     STATUS_OK);
    check_decoded(&columns, 0, samples, starts, 8, INT64_MIN, INT64_MAX);
    assert_int_equal(columns.has_starts, 1);
    sample_columns_release(&columns);
    mem_free(chunk.bytes);
}

static void test_refused(void **state) {
    (void)state;
    static const struct {
        const char *what;
        uint8_t bytes[48]; /* zeros behind those that are named */
        size_t len;
        struct chunk_info info;
        int status;
    } rows[] = {
        {"nothing at all", {0}, 0, {0, 0}, STATUS_OK},
        {"a byte of nothing", {0}, 1, {0, 0}, STATUS_CORRUPT},
        {"one sample", {0x02, 1, 2, 3, 4, 5, 6, 7, 8}, 9, {1, 0}, STATUS_OK},
        {"one sample, cut", {0x02, 1, 2, 3, 4, 5, 6, 7}, 8, {1, 0}, STATUS_CORRUPT},
        {"one sample without its start", {0x02, 1, 2, 3, 4, 5, 6, 7, 8}, 9, {1, 0x80}, STATUS_CORRUPT},
        {"one sample with its start", {0x02, 1, 2, 3, 4, 5, 6, 7, 8, 1}, 10, {1, 0x80}, STATUS_OK},
        {"a time of 64 bits", {255, 255, 255, 255, 255, 255, 255, 255, 255, 1}, 18, {1, 0}, STATUS_OK},
        {"a time of more than 64 bits",
         {255, 255, 255, 255, 255, 255, 255, 255, 255, 2},
         18,
         {1, 0},
         STATUS_CORRUPT},
        {"a time that does not end",
         {255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1},
         19,
         {1, 0},
         STATUS_CORRUPT},
        {"two samples", {2, 1, 2, 3, 4, 5, 6, 7, 8, 1, 0}, 11, {2, 0}, STATUS_OK},
        {"a window reused before there is one",
         {2, 1, 2, 3, 4, 5, 6, 7, 8, 1, 0x80},
         43,
         {2, 0},
         STATUS_CORRUPT},
        {"the same, shorter", {2, 1, 2, 3, 4, 5, 6, 7, 8, 1, 0x80}, 11, {2, 0}, STATUS_CORRUPT},
        {"a window of 31 + 33 bits", {2, 1, 2, 3, 4, 5, 6, 7, 8, 1, 0xdf, 0x84}, 16, {2, 0}, STATUS_OK},
        {"a window of 31 + 34 bits", {2, 1, 2, 3, 4, 5, 6, 7, 8, 1, 0xdf, 0x88}, 16, {2, 0}, STATUS_CORRUPT},
        {"a window of 1 + 64 bits", {2, 1, 2, 3, 4, 5, 6, 7, 8, 1, 0xc1, 0}, 20, {2, 0}, STATUS_CORRUPT},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct sample_columns columns = {0};
        int status =
            chunk_decode(slice_of(rows[i].bytes, rows[i].len), rows[i].info, INT64_MIN, INT64_MAX, &columns);
        if (status != rows[i].status)
            fail_msg("%s: %d", rows[i].what, status);
        assert_int_equal(columns.count, status == STATUS_OK ? rows[i].info.sample_count : 0);
        assert_int_equal(columns.has_starts, status == STATUS_OK && rows[i].info.start_byte != 0);
        sample_columns_release(&columns);
    }
    struct sample_columns columns = {0};
    mem_fault_set(1, 0);
    assert_int_equal(chunk_decode(slice_of(rows[2].bytes, 9), rows[2].info, INT64_MIN, INT64_MAX, &columns),
                     STATUS_NO_MEMORY);
    mem_fault_set(0, 0);
    assert_int_equal(columns.count, 0);
    /* A window of time the wrong way round holds nothing. */
    assert_int_equal(chunk_decode(slice_of(rows[2].bytes, 9), rows[2].info, 2, 1, &columns), STATUS_OK);
    assert_int_equal(columns.count, 0);
    assert_int_equal(chunk_decode(slice_of(rows[2].bytes, 9), rows[2].info, INT64_MAX, INT64_MIN, &columns),
                     STATUS_OK);
    assert_int_equal(columns.count, 0);
    sample_columns_release(&columns);
}

static void check_layout(const struct sample *samples, const int64_t *starts, size_t count) {
    static struct bits oracle;
    struct chunk_info info;
    struct chunk_open chunk = {0};
    for (size_t i = 0; i < count; i++)
        assert_int_equal(chunk_append(&chunk, samples[i], starts[i], chunk_grow, NULL), STATUS_OK);
    naive_encode(samples, starts, count, &oracle, &info);
    assert_int_equal(chunk.bit_count, oracle.count);
    assert_memory_equal(chunk_bytes(&chunk).data, oracle.bytes, (oracle.count + 7) / 8);
    assert_int_equal(chunk.info.start_byte, info.start_byte);
    struct sample_columns columns = {0};
    assert_int_equal(chunk_decode(chunk_bytes(&chunk), chunk.info, INT64_MIN, INT64_MAX, &columns),
                     STATUS_OK);
    check_decoded(&columns, 0, samples, starts, count, INT64_MIN, INT64_MAX);
    sample_columns_release(&columns);
    mem_free(chunk.bytes);
}

/* Around every border of the codes of times and starts; a stale marker first, and the values after it. */
static void test_borders(void **state) {
    (void)state;
    static const unsigned powers[] = {0, 1, 2, 3, 5, 8, 11, 12, 13, 17, 19, 20, 24, 31, 55, 56, 62, 63};
    static const uint64_t values[] = {0, STALE_NAN_BITS, UINT64_C(0x8000000000000000), 1,
                                      0x3ff0000000000000u};
    for (size_t p = 0; p < sizeof powers / sizeof powers[0]; p++)
        for (int sign = 0; sign < 2; sign++)
            for (uint64_t near = 0; near < 5; near++) {
                uint64_t by = (UINT64_C(1) << powers[p]) + near - 2;
                by = sign != 0 ? 0 - by : by;
                struct sample samples[5];
                int64_t starts[5], none[5] = {START_NONE, START_NONE, START_NONE, START_NONE, START_NONE};
                for (size_t v = 0; v < 5; v++) {
                    for (uint64_t i = 0; i < 5; i++) {
                        uint64_t t = 5000 + 1000 * i;
                        samples[i] =
                            (struct sample){(int64_t)(i == 2 ? t + by : t), values[(v * (i + 1) + i) % 5]};
                        starts[i] = (int64_t)(5000 + 1000 * i + (i == 3 ? by : i == 4 ? 2 * by : 0));
                    }
                    check_layout(samples, none, 5);
                    check_layout(samples, starts, 5);
                    samples[2].time_ms = 7000;
                    check_layout(samples, starts, 5);
                }
            }
}

/* As many bits as a chunk can have: jumping times, values without a common bit, starts far away. */
static void test_worst(void **state) {
    (void)state;
    struct chunk_open chunk = {0};
    static struct sample samples[CHUNK_SAMPLES_MAX];
    static int64_t starts[CHUNK_SAMPLES_MAX];
    for (size_t i = 0; i < CHUNK_SAMPLES_MAX; i++) {
        samples[i] =
            (struct sample){i % 2 == 0 ? INT64_MIN : INT64_MAX / 3,
                            i % 2 == 0 ? UINT64_C(0x8000000000000001) : UINT64_C(0x7000000000000000)};
        starts[i] = i % 3 == 0 ? INT64_MIN : INT64_MAX / 2;
        assert_int_equal(chunk_append(&chunk, samples[i], starts[i], chunk_grow, NULL), STATUS_OK);
    }
    assert_in_range(chunk.bit_count, 24000, 26296);
    struct sample_columns columns = {0};
    assert_int_equal(chunk_decode(chunk_bytes(&chunk), chunk.info, INT64_MIN, INT64_MAX, &columns),
                     STATUS_OK);
    check_decoded(&columns, 0, samples, starts, CHUNK_SAMPLES_MAX, INT64_MIN, INT64_MAX);
    sample_columns_release(&columns);
    mem_free(chunk.bytes);
}

static void test_damage(void **state) {
    (void)state;
    struct rand rand;
    rand_init(&rand, 12);
    static struct sample samples[CHUNK_SAMPLES_MAX];
    static int64_t starts[CHUNK_SAMPLES_MAX];
    struct sample_columns columns = {0};
    for (int round = 0; round < 20000; round++) {
        size_t count = 1 + rand_below(&rand, CHUNK_SAMPLES_MAX);
        series_make(&rand, samples, starts, count);
        struct chunk_open chunk = {0};
        for (size_t i = 0; i < count; i++)
            assert_int_equal(chunk_append(&chunk, samples[i], starts[i], chunk_grow, NULL), STATUS_OK);
        size_t len = chunk_bytes(&chunk).len;
        uint8_t *bytes = mem_alloc(len);
        memcpy(bytes, chunk.bytes, len);
        for (uint64_t flips = 1 + rand_below(&rand, 5); flips > 0; flips--)
            bytes[rand_below(&rand, len)] ^= (uint8_t)(1u << rand_below(&rand, 8));
        struct chunk_info info = chunk.info;
        if (rand_below(&rand, 4) == 0)
            info = (struct chunk_info){(uint8_t)rand_u64(&rand), (uint8_t)rand_u64(&rand)};
        columns.count = 0;
        int status = chunk_decode(slice_of(bytes, len), info, INT64_MIN, INT64_MAX, &columns);
        assert_true(status == STATUS_OK || status == STATUS_CORRUPT);
        assert_int_equal(columns.count, status == STATUS_OK ? info.sample_count : 0);
        mem_free(bytes);
        mem_free(chunk.bytes);
    }
    sample_columns_release(&columns);
}

static void test_no_memory(void **state) {
    (void)state;
    struct rand rand;
    rand_init(&rand, 13);
    static struct sample samples[CHUNK_SAMPLES_MAX];
    static int64_t starts[CHUNK_SAMPLES_MAX];
    for (int round = 0; round < 200; round++) {
        series_make(&rand, samples, starts, CHUNK_SAMPLES_MAX);
        struct chunk_open chunk = {0};
        for (size_t i = 0; i < CHUNK_SAMPLES_MAX; i++) {
            struct chunk_open before = chunk;
            mem_fault_set(1, 1);
            int status = chunk_append(&chunk, samples[i], starts[i], chunk_grow, NULL);
            mem_fault_set(0, 0);
            if (status == STATUS_OK)
                continue;
            assert_int_equal(status, STATUS_NO_MEMORY);
            assert_memory_equal(&before, &chunk, sizeof chunk);
            assert_int_equal(chunk_append(&chunk, samples[i], starts[i], chunk_grow, NULL), STATUS_OK);
        }
        struct sample_columns columns = {0};
        assert_int_equal(chunk_decode(chunk_bytes(&chunk), chunk.info, INT64_MIN, INT64_MAX, &columns),
                         STATUS_OK);
        check_decoded(&columns, 0, samples, starts, CHUNK_SAMPLES_MAX, INT64_MIN, INT64_MAX);
        sample_columns_release(&columns);
        mem_free(chunk.bytes);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip), cmocka_unit_test(test_costs),
        cmocka_unit_test(test_golden),     cmocka_unit_test(test_damage),
        cmocka_unit_test(test_no_memory),  cmocka_unit_test(test_golden_starts),
        cmocka_unit_test(test_refused),    cmocka_unit_test(test_worst),
        cmocka_unit_test(test_borders),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
