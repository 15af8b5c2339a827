/* test_base.c: the small things everything stands on: checksums, varints, UTF-8, arenas, bufs, numbers, log
 * lines, metrics. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/arena.h"
#include "base/buf.h"
#include "base/bytes.h"
#include "base/crc32c.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/metrics.h"
#include "base/rand.h"
#include "base/status.h"
#include "base/utf8.h"

static void test_crc32c(void **state) {
    (void)state;
    assert_int_equal(crc32c(0, "123456789", 9), 0xE3069283u);
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
    buf_release(&out);
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
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
