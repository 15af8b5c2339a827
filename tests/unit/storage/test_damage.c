/* test_damage.c: the names of what was damaged, in the warning of an answer. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "storage/storage_private.h"

static const char *text_of(struct storage *storage, int64_t time_min_ms, int64_t time_max_ms) {
    static char text[256];
    struct damage_names damage = {0};
    storage__losses_name(storage, time_min_ms, time_max_ms, &damage);
    assert_int_equal(atomic_load(&damage.count) > 0, damage.text[0] != '\0');
    storage__damage_text(&damage, text, sizeof text);
    return text;
}

/* There is room for LOSSES_MAX; the last of them stands for all behind it, too. */
static void test_losses(void **state) {
    (void)state;
    struct storage *storage = calloc(1, sizeof *storage);
    assert_non_null(storage);
    pthread_mutex_init(&storage->version_mutex, NULL);
    assert_string_equal(text_of(storage, INT64_MIN, INT64_MAX), "");
    for (int i = 0; i < LOSSES_MAX; i++)
        storage__loss_add(storage, i * 1000, i * 1000 + 99, "head/%08x.chunks", (unsigned)i);
    for (int i = 0; i < LOSSES_MAX; i++) {
        char want[32];
        snprintf(want, sizeof want, "head/%08x.chunks", (unsigned)i);
        assert_string_equal(text_of(storage, i * 1000 + 50, i * 1000 + 60), want);
        assert_string_equal(text_of(storage, i * 1000 + 100, i * 1000 + 999), "");
    }
    char last[32];
    snprintf(last, sizeof last, "head/%08x.chunks", LOSSES_MAX - 1);
    storage__loss_add(storage, 900000, 900099, "head/other.chunks");
    storage__loss_add(storage, -900000, -899000, "wal");
    assert_int_equal(atomic_load(&storage->loss_count), LOSSES_MAX);
    assert_string_equal(text_of(storage, 900050, 900050), last);
    assert_string_equal(text_of(storage, -900000, -900000), last);
    assert_string_equal(text_of(storage, 900100, INT64_MAX), "");
    assert_string_equal(text_of(storage, INT64_MIN, -900001), "");
    pthread_mutex_destroy(&storage->version_mutex);
    free(storage);
}

/* Each name once, as many as there is room for. */
static void test_names(void **state) {
    (void)state;
    struct damage_names damage = {0};
    char text[sizeof damage.text];
    storage__damage_name(&damage, "block %s", "000000000000000a");
    storage__damage_name(&damage, "block %s", "000000000000000a");
    storage__damage_text(&damage, text, sizeof text);
    assert_string_equal(text, "block 000000000000000a");
    for (unsigned i = 0; i < 100; i++)
        storage__damage_name(&damage, "block %016x", i + 16);
    storage__damage_text(&damage, text, sizeof text);
    assert_int_equal(atomic_load(&damage.count), 102);
    assert_non_null(strstr(text, "block 000000000000000a, block 0000000000000010, "));
    assert_true(strlen(text) < sizeof text);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_losses), cmocka_unit_test(test_names)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
