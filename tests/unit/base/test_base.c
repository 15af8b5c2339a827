/* test_base.c: the small things everything stands on: checksums, varints, UTF-8, arenas, bufs, numbers, log
 * lines, metrics. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/arena.h"
#include "base/buf.h"
#include "base/bytes.h"
#include "base/clock.h"
#include "base/crc32c.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/matcher.h"
#include "base/metrics.h"
#include "base/rand.h"
#include "base/status.h"
#include "base/utf8.h"

static void test_crc32c(void **state) {
    (void)state;
    assert_int_equal(crc32c(0, "123456789", 9), 0xE3069283u);
    /* RFC 3720, appendix B.4: zeros, ones, ascending, descending. */
    static const uint32_t rfc[] = {0x8A9136AAu, 0x62A8AB43u, 0x46DD794Eu, 0x113FDB5Cu};
    uint8_t vectors[4][32];
    for (size_t i = 0; i < 32; i++) {
        vectors[0][i] = 0;
        vectors[1][i] = 0xff;
        vectors[2][i] = (uint8_t)i;
        vectors[3][i] = (uint8_t)(31 - i);
    }
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(crc32c(0, vectors[i], 32), rfc[i]);
        assert_int_equal(crc32c_portable(0, vectors[i], 32), rfc[i]);
    }
    struct rand rand;
    rand_init(&rand, 1);
    uint8_t bytes[300];
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)rand_u64(&rand);
    for (size_t len = 0; len < sizeof bytes; len++) {
        uint32_t whole = crc32c(7, bytes, len);
        assert_int_equal(whole, crc32c_portable(7, bytes, len));
        assert_int_equal(whole, crc32c(crc32c(7, bytes, len / 3), bytes + len / 3, len - len / 3));
    }
}

static void test_varints(void **state) {
    (void)state;
    struct rand rand;
    rand_init(&rand, 2);
    for (int i = 0; i < 100000; i++) {
        uint64_t v = rand_u64(&rand) >> rand_below(&rand, 64);
        uint8_t bytes[VARINT_BYTES_MAX];
        size_t len = (size_t)(varint_write(bytes, v) - bytes);
        assert_int_equal(len, varint_len(v));
        uint64_t back;
        assert_ptr_equal(varint_read(bytes, bytes + len, &back), bytes + len);
        assert_true(back == v);
        assert_null(varint_read(bytes, bytes + len - 1, &back));
        assert_true(unzigzag(zigzag((int64_t)v)) == (int64_t)v);
    }
    static const uint8_t over[] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02};
    uint64_t v;
    assert_null(varint_read(over, over + sizeof over, &v));
}

/* The published vectors: splitmix64 from seed 0, and xoshiro256** from the state 1, 2, 3, 4. */
static void test_rand(void **state) {
    (void)state;
    struct rand rand;
    rand_init(&rand, 0);
    assert_true(rand.state[0] == 0xe220a8397b1dcdafu && rand.state[1] == 0x6e789e6aa1b965f4u);
    rand = (struct rand){{1, 2, 3, 4}};
    static const uint64_t expected[] = {
        11520u, 0u, 1509978240u, 1215971899390074240u, 1216172134540287360u, 607988272756665600u};
    for (size_t i = 0; i < sizeof expected / sizeof expected[0]; i++)
        assert_true(rand_u64(&rand) == expected[i]);
    rand_init(&rand, 3);
    size_t counts[7] = {0};
    for (int i = 0; i < 70000; i++) {
        uint64_t v = rand_below(&rand, 7);
        assert_true(v < 7);
        counts[v]++;
        double d = rand_double(&rand);
        assert_true(d >= 0 && d < 1);
    }
    for (size_t i = 0; i < 7; i++)
        assert_in_range(counts[i], 9500, 10500);
    assert_int_equal(rand_below(&rand, 1), 0);
    assert_true(rand_seed_from_system() != rand_seed_from_system());
}

static void test_slices(void **state) {
    (void)state;
    static const char *const ascending[] = {"", "A", "Aa", "B", "a", "aa", "ab", "b", "\xff"};
    const size_t count = sizeof ascending / sizeof ascending[0];
    for (size_t i = 0; i < count; i++)
        for (size_t k = 0; k < count; k++) {
            struct slice a = slice_str(ascending[i]), b = slice_str(ascending[k]);
            int order = slice_compare(a, b);
            assert_int_equal((order > 0) - (order < 0), (i > k) - (i < k));
            assert_int_equal(slice_equal(a, b), i == k);
            assert_int_equal(slice_starts_with(a, b), strncmp(ascending[i], ascending[k], b.len) == 0);
        }
    assert_true(slice_equal(slice_of(NULL, 0), slice_str("")));
}

static bool pattern_is_x(const struct matcher_pattern *pattern, struct slice value) {
    assert_ptr_equal(pattern->context, &pattern_is_x);
    return slice_equal(value, slice_str("x"));
}

static void test_matchers(void **state) {
    (void)state;
    const struct matcher_pattern pattern = {.match = pattern_is_x,
                                            .context = (void *)(uintptr_t)&pattern_is_x};
    static const struct {
        enum matcher_kind kind;
        bool x, other, empty; /* does "x" match, does "y", does a missing label? */
    } rows[] = {{MATCHER_EQUAL, true, false, false},
                {MATCHER_NOT_EQUAL, false, true, true},
                {MATCHER_REGEX, true, false, false},
                {MATCHER_NOT_REGEX, false, true, true}};
    for (size_t i = 0; i < 4; i++) {
        struct matcher matcher = {
            .kind = rows[i].kind, .name = slice_str("l"), .value = slice_str("x"), .pattern = &pattern};
        assert_int_equal(matcher_match(&matcher, slice_str("x")), rows[i].x);
        assert_int_equal(matcher_match(&matcher, slice_str("y")), rows[i].other);
        assert_int_equal(matcher_match(&matcher, slice_of(NULL, 0)), rows[i].empty);
    }
    struct matcher absent = {.kind = MATCHER_EQUAL, .value = slice_str("")};
    assert_true(matcher_match(&absent, slice_of(NULL, 0)));
    assert_false(matcher_match(&absent, slice_str("x")));
}

static void test_clock(void **state) {
    (void)state;
    const struct clock *clock = clock_system();
    uint64_t before = clock_monotonic_ns(clock);
    int64_t wall = clock_wall_ms(clock);
    assert_true(wall / 1000 - (int64_t)time(NULL) <= 1 && (int64_t)time(NULL) - wall / 1000 <= 1);
    for (int i = 0; i < 10000; i++) {
        uint64_t now = clock_monotonic_ns(clock);
        assert_true(now >= before);
        before = now;
    }
}

/* Every code point, and RFC 3629's forbidden forms. */
static void test_utf8(void **state) {
    (void)state;
    for (uint32_t c = 0; c <= 0x10ffff; c++) {
        if (c >= 0xd800 && c <= 0xdfff)
            continue;
        uint8_t bytes[4];
        size_t len = utf8_encode(bytes, c);
        uint32_t back;
        assert_int_equal(utf8_decode(bytes, bytes + len, &back), len);
        assert_int_equal(back, c);
        if (len > 1)
            assert_int_equal(utf8_decode(bytes, bytes + len - 1, &back), 0);
    }
    static const char *const bad[] = {
        "\xc0\x80", "\xe0\x80\x80", "\xf0\x80\x80\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\x80",
        "\xff",     "a\xc3",        "12345678\xe2\x82"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_false(utf8_valid(slice_str(bad[i])));
    assert_true(utf8_valid(slice_str("plain text, ünïcödé, \xf0\x9f\x8c\x8a")));
    assert_true(utf8_valid(slice_of(NULL, 0)));
    /* All runs of three bytes that start beyond ASCII, against the bit patterns of the RFC's definition. */
    for (uint32_t v = 0x800000; v <= 0xffffff; v++) {
        const uint8_t bytes[3] = {(uint8_t)(v >> 16), (uint8_t)(v >> 8), (uint8_t)v};
        bool two = (v & 0xe0c000) == 0xc08000 && (v >> 16 & 0x1f) >= 2;
        uint32_t three_code = (v >> 4 & 0xf000) | (v >> 2 & 0xfc0) | (v & 0x3f);
        bool three = (v & 0xf0c0c0) == 0xe08080 && three_code >= 0x800 && (three_code & 0xf800) != 0xd800;
        bool valid = three || (two && bytes[2] < 0x80);
        if (utf8_valid(slice_of(bytes, 3)) != valid)
            fail_msg("%06x", v);
    }
}

static void test_arena(void **state) {
    (void)state;
    struct arena arena;
    arena_init(&arena, 100, 1000);
    uint8_t *a = arena_alloc(&arena, 10), *b = arena_alloc(&arena, 200);
    assert_int_equal((uintptr_t)a % 16, 0);
    assert_int_equal((uintptr_t)b % 16, 0);
    memset(a, 1, 10);
    memset(b, 2, 200);
    assert_int_equal(a[9], 1);
    assert_null(arena_alloc(&arena, 900)); /* over bytes_max */
    assert_string_equal(arena_printf(&arena, "%d-%s", 7, "x"), "7-x");
    arena_reset(&arena);
    assert_non_null(arena_alloc(&arena, 700));
    arena_release(&arena);
    mem_fault_set(1, 0);
    assert_null(arena_alloc(&arena, 1));
    mem_fault_set(0, 0);
    arena_release(&arena);
}

static void test_buf(void **state) {
    (void)state;
    struct buf buf;
    buf_init(&buf);
    for (int i = 0; i < 1000; i++)
        buf_printf(&buf, "%d,", i);
    assert_false(buf.failed);
    assert_int_equal(buf.len, 3890);
    mem_fault_set(1, 1);
    buf_append(&buf, buf.data, buf.len);
    buf_append(&buf, "x", 1); /* once failed, nothing is added, even where there is room */
    mem_fault_set(0, 0);
    assert_true(buf.failed);
    assert_int_equal(buf.len, 3890);
    buf_release(&buf);
}

static void test_status(void **state) {
    (void)state;
    assert_string_equal(status_name(STATUS_NO_SPACE), "NO_SPACE");
    assert_int_equal(status_http_code(STATUS_TOO_LARGE), 413);
    struct error_detail detail = {0};
    assert_int_equal(error_set(&detail, STATUS_IO, "first %d", 1), STATUS_IO);
    error_set(&detail, STATUS_IO, "second");
    assert_string_equal(detail.text, "first 1");
    assert_int_equal(error_set(NULL, STATUS_BUSY, "nobody asks"), STATUS_BUSY);
    struct error_detail cut = {0};
    error_set(&cut, STATUS_IO, "%0600d", 1);
    assert_int_equal(strlen(cut.text), ERROR_DETAIL_BYTES - 1);

    static const struct {
        int error, status;
    } errors[] = {{ENOSPC, STATUS_NO_SPACE},  {EDQUOT, STATUS_NO_SPACE},   {ENOMEM, STATUS_NO_MEMORY},
                  {ENOENT, STATUS_NOT_FOUND}, {ENOTDIR, STATUS_NOT_FOUND}, {EEXIST, STATUS_EXISTS},
                  {EIO, STATUS_IO},           {EBADF, STATUS_IO}};
    for (size_t i = 0; i < sizeof errors / sizeof errors[0]; i++)
        assert_int_equal(status_from_errno(errors[i].error), errors[i].status);
    for (int status = -20; status <= 1; status++) {
        assert_string_not_equal(status_name(status), "UNKNOWN");
        assert_in_range(status_http_code(status), 200, 503);
    }
    assert_string_equal(status_name(-1000), "UNKNOWN");
    assert_int_equal(status_http_code(-1000), 500);
}

static void test_log(void **state) {
    (void)state;
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    char line[512];
    log_setup(LOG_INFO, LOG_FORMAT_LOGFMT, ends[1]);
    log_debug("not shown");
    log_info("two words", LOG_STR("path", "/a b"), LOG_U64("n", 3));
    ssize_t len = read(ends[0], line, sizeof line - 1);
    line[len] = '\0';
    assert_non_null(strstr(line, "level=info msg=\"two words\" path=\"/a b\" n=3\n"));
    log_setup(LOG_DEBUG, LOG_FORMAT_JSON, ends[1]);
    log_debug("q\"uote");
    len = read(ends[0], line, sizeof line - 1);
    line[len] = '\0';
    assert_non_null(strstr(line, "\"level\":\"debug\",\"msg\":\"q\\\"uote\"}\n"));
    /* Numbers of every kind, control characters, and a line that is too long. */
    log_write(LOG_ERROR, "m",
              (const struct log_field[]){LOG_I64("i", INT64_MIN), LOG_U64("u", UINT64_MAX),
                                         LOG_DOUBLE("d", 0.5), LOG_STR("s", "a\tb\nc"),
                                         LOG_STR("none", NULL)},
              5);
    len = read(ends[0], line, sizeof line - 1);
    line[len] = '\0';
    assert_non_null(strstr(line, "\"i\":-9223372036854775808,\"u\":18446744073709551615,\"d\":0.5,"
                                 "\"s\":\"a\\u0009b\\nc\",\"none\":\"\"}\n"));
    /* What is no UTF-8 does not stay. */
    log_info("m", LOG_STR("text", "\xc3\xa4\xff\xe2\x82"));
    len = read(ends[0], line, sizeof line - 1);
    line[len] = '\0';
    assert_non_null(strstr(line, "\"text\":\"\xc3\xa4\\ufffd\\ufffd\\ufffd\"}\n"));
    static char longest[6000], got[8000];
    memset(longest, 'x', sizeof longest - 1);
    log_setup(LOG_WARN, LOG_FORMAT_LOGFMT, ends[1]);
    log_info("below the level");
    log_warn(longest, LOG_STR("behind", "it"));
    len = read(ends[0], got, sizeof got);
    assert_in_range(len, 4000, 4096);
    assert_int_equal(got[len - 1], '\n');
    assert_null(memchr(got, '\n', (size_t)len - 1));

    enum log_level level;
    enum log_format format;
    assert_true(log_level_parse("warn", &level) && level == LOG_WARN);
    assert_true(log_format_parse("json", &format) && format == LOG_FORMAT_JSON);
    assert_false(log_level_parse("Warn", &level) || log_level_parse("", &level));
    assert_false(log_format_parse("xml", &format));
    log_setup(LOG_INFO, LOG_FORMAT_LOGFMT, 2);
    close(ends[0]);
    close(ends[1]);
}

static void test_metrics(void **state) {
    (void)state;
    metrics_reset();
    metric_add(METRIC_wal_groups, 3);
    metric_observe_ns(METRIC_query_seconds, 2000000);
    struct buf out;
    buf_init(&out);
    metrics_print(&out);
    buf_append_byte(&out, 0);
    const char *text = (char *)out.data;
    assert_non_null(strstr(text, "# TYPE tidalite_wal_groups_total counter\ntidalite_wal_groups_total 3\n"));
    assert_non_null(strstr(text, "tidalite_query_duration_seconds_bucket{le=\"0.001\"} 0\n"));
    assert_non_null(strstr(text, "tidalite_query_duration_seconds_bucket{le=\"0.0025\"} 1\n"));
    assert_non_null(strstr(text, "tidalite_query_duration_seconds_count 1\n"));
    assert_non_null(strstr(text, "process_resident_memory_bytes "));
    assert_non_null(strstr(text, "tidalite_query_duration_seconds_sum 0.002000000\n"));
    /* Every line is a comment or `name value`; a name's HELP stands once. */
    for (const char *p = text; *p != '\0'; p = strchr(p, '\n') + 1) {
        const char *end = strchr(p, '\n');
        assert_non_null(end);
        if (*p == '#') {
            char help[200];
            size_t name_len = strcspn(p + 7, " ");
            if (strncmp(p, "# HELP ", 7) == 0) {
                snprintf(help, sizeof help, "# HELP %.*s ", (int)name_len, p + 7);
                assert_null(strstr(end, help));
            }
            continue;
        }
        const char *value = memchr(p, '}', (size_t)(end - p));
        value = value != NULL ? value + 1 : p + strcspn(p, " ");
        char *value_end;
        assert_int_equal(*value, ' ');
        assert_true(strtod(value + 1, &value_end) >= 0);
        assert_ptr_equal(value_end, end);
    }
    buf_release(&out);
    metric_set(METRIC_wal_groups, 10);
    metric_sub(METRIC_wal_groups, 4);
    assert_int_equal(metric_get(METRIC_wal_groups), 6);
    metrics_reset();
    assert_int_equal(metric_get(METRIC_wal_groups), 0);
}

static void test_limits(void **state) {
    (void)state;
    struct limits limits;
    limits_init(&limits);
    uint64_t count;
    const struct limit_info *info = limits_info(&count);
    assert_true(count * sizeof(uint64_t) == sizeof limits);
    for (uint64_t i = 0; i < count; i++)
        assert_true(*(uint64_t *)(void *)((uint8_t *)&limits + info[i].offset) == info[i].value_default);
    assert_int_equal(limits.connections_max, 512);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_crc32c), cmocka_unit_test(test_varints), cmocka_unit_test(test_utf8),
        cmocka_unit_test(test_arena),  cmocka_unit_test(test_buf),     cmocka_unit_test(test_status),
        cmocka_unit_test(test_log),    cmocka_unit_test(test_metrics), cmocka_unit_test(test_limits),
        cmocka_unit_test(test_rand),   cmocka_unit_test(test_slices),  cmocka_unit_test(test_matchers),
        cmocka_unit_test(test_clock),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
