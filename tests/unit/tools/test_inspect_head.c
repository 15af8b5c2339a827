/* test_inspect_head.c: `tidalite inspect head` says of a snapshot what went into it. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "storage/manifest/manifest.h"
#include "tests/unit/tools/head_fixture.h"
#include "tools/tools.h"

static int inspect(const char *path) {
    const char *const arguments[] = {"inspect", "head", path, NULL};
    return command_run(&head_fixture, tools_inspect, arguments);
}

/* The number behind a text. */
static uint64_t number_behind(const char *from, const char *text) {
    const char *at = strstr(from, text);
    if (at == NULL)
        fail_msg("no \"%s\" in %s", text, from);
    return strtoull(at + strlen(text), NULL, 10);
}

/* The number before a text. */
static uint64_t number_before(const char *from, const char *text) {
    const char *at = strstr(from, text);
    if (at == NULL)
        fail_msg("no \"%s\" in %s", text, from);
    while (at > from && at[-1] >= '0' && at[-1] <= '9')
        at--;
    return strtoull(at, NULL, 10);
}

/* All samples before the snapshot's position are open, sealed or late: one a series and second, and late
 * ones. */
static void test_counts(void **state) {
    (void)state;
    struct manifest manifest;
    struct error_detail detail = {{0}};
    assert_int_equal(inspect(head_fixture.storage.dir), 0);
    const char *newest = head_fixture.output, *older = strstr(newest + 1, "snapshot   ");
    assert_non_null(older);
    for (int i = 0; i < 2; i++) {
        const char *text = i == 0 ? newest : older;
        char expected[300];
        snprintf(expected, sizeof expected, "snapshot   %s, ", head_fixture.snapshots[i]);
        assert_memory_equal(text, expected, strlen(expected));
        uint64_t series = number_behind(text, "holds      "), late = number_before(text, " late samples, ");
        const char *time = strstr(text, "\ntime ");
        assert_non_null(time);
        int64_t min_ms = (int64_t)number_behind(time, "time       ");
        int64_t max_ms = (int64_t)number_behind(time, " to ");
        assert_int_equal(series, HEAD_SERIES);
        assert_int_equal(number_before(text, " open chunks with"), HEAD_SERIES);
        uint64_t samples =
            number_behind(text, "open chunks with ") + number_behind(text, "sealed chunks with ");
        assert_int_equal(samples, (uint64_t)((max_ms - min_ms) / 1000 + 1) * HEAD_SERIES);
        assert_true(late > 0 && late <= 6);
        assert_int_equal(number_before(text, " hidden spans"), 1);
        assert_int_equal(number_behind(text, "slots      "), HEAD_SERIES);
        assert_int_equal(number_behind(text, "samples; "), 0);
    }
    /* Every byte of the file is one of something. */
    static const char *const rows[] = {"  open chunks ",  "  series ",          "  late samples ",
                                       "  hidden spans ", "  chunk log table ", "  end ",
                                       "  frames "};
    uint64_t sum = 0;
    const char *bytes = strstr(newest, "\nbytes\n");
    assert_non_null(bytes);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        sum += number_behind(bytes, rows[i]);
    assert_int_equal(manifest_load(head_fixture.io, head_fixture.storage.dir, &detail, &manifest), STATUS_OK);
    assert_int_equal(sum, manifest.snapshots[0].bytes);
    char position[64];
    snprintf(position, sizeof position, "position   %016" PRIx64, manifest.snapshots[0].position);
    assert_non_null(strstr(newest, position));
    manifest_release(&manifest);
    /* 30 series of two pairs: one is shared. */
    assert_non_null(strstr(newest, "30 times a series named, 0 a slot freed; 31 label pairs of "));
    assert_non_null(strstr(newest, " bytes, twice\n"));
    assert_non_null(strstr(newest, "00000001.chunks, times from "));
}

/* One file alone, named or not. */
static void test_file(void **state) {
    (void)state;
    char other[256];
    assert_int_equal(inspect(head_fixture.snapshots[1]), 0);
    assert_null(strstr(head_fixture.output, "names it"));
    assert_int_equal(number_behind(head_fixture.output, "holds      "), HEAD_SERIES);
    assert_null(strstr(strstr(head_fixture.output, "snapshot   ") + 1, "snapshot   "));
    struct file_copy copy = file_keep(head_fixture.snapshots[1]);
    snprintf(other, sizeof other, "%s/head/00000000000000ff.snapshot", head_fixture.storage.dir);
    assert_int_equal(rename(head_fixture.snapshots[1], other), 0);
    assert_int_equal(inspect(other), 1); /* frames know whose they are */
    assert_non_null(strstr(head_fixture.output, "no manifest names it"));
    assert_int_equal(inspect(head_fixture.snapshots[1]), 1);
    assert_int_equal(unlink(other), 0);
    file_restore(&copy);
    assert_int_equal(inspect("/nowhere"), 1);
}

static void test_damage(void **state) {
    (void)state;
    char line[300];
    const char *const paths[] = {head_fixture.snapshots[0], head_fixture.labels[0], head_fixture.labels[1]};
    for (size_t i = 0; i < 3; i++) {
        file_flip(paths[i], 30);
        assert_int_equal(inspect(head_fixture.storage.dir), 1);
        snprintf(line, sizeof line, "damage: %s, offset 0: frame: wrong checksum\n", paths[i]);
        assert_non_null(strstr(head_fixture.output, line));
        file_flip(paths[i], 30);
    }
    file_flip(head_fixture.chunks, 80);
    assert_int_equal(inspect(head_fixture.storage.dir), 1);
    snprintf(line, sizeof line, "damage: %s, offset 64: record: wrong checksum\n", head_fixture.chunks);
    assert_non_null(strstr(head_fixture.output, line));
    assert_int_equal(number_behind(head_fixture.output, "samples; "), 1);
    file_flip(head_fixture.chunks, 80);
    assert_int_equal(inspect(head_fixture.storage.dir), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_counts),
        cmocka_unit_test(test_file),
        cmocka_unit_test(test_damage),
    };
    return cmocka_run_group_tests(tests, head_fixture_setup, head_fixture_teardown);
}
