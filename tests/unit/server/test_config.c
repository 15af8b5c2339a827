#include "unit.h"

#include "server/config.h"

static int parse(char **argv, struct config *config, enum config_action *action,
                 struct error_detail *detail) {
    int argc = 0;
    while (argv[argc] != NULL)
        argc++;
    *detail = (struct error_detail){{0}};
    return config_parse(argc, argv, config, action, detail);
}

static void test_durations(void **state) {
    (void)state;
    static const struct {
        const char *text;
        uint64_t ms;
    } good[] = {{"0", 0},          {"0s", 0},           {"15s", 15000},     {"250ms", 250},
                {"2m", 120000},    {"1h30m", 5400000},  {"1d", 86400000},   {"1m500ms", 60500},
                {"1w", 604800000}, {"1y", 31536000000}, {"1h0m1s", 3601000}};
    static const char *const bad[] = {
        "", "15", "s", "-1s", "1.5s", "1 s", "1x", "1s ", "99999999999999999999s", "300000y"};
    uint64_t ms;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        assert_true(config_duration_parse(good[i].text, &ms));
        assert_int_equal(ms, good[i].ms);
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_false(config_duration_parse(bad[i], &ms));
}

static void test_counts(void **state) {
    (void)state;
    static const struct {
        const char *text;
        uint64_t count;
    } good[] = {{"0", 0},
                {"7", 7},
                {"50M", 50000000},
                {"64k", 64000},
                {"1G", 1000000000},
                {"32MiB", 33554432},
                {"32Mi", 33554432},
                {"4KiB", 4096},
                {"4kB", 4000},
                {"9B", 9},
                {"1GiB", 1073741824}};
    static const char *const bad[] = {
        "", "M", "-1", "1.5M", "1 M", "1MM", "1Mib", "99999999999999999999", "9007199254740993"};
    uint64_t count;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        assert_true(config_count_parse(good[i].text, &count));
        assert_int_equal(count, good[i].count);
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_false(config_count_parse(bad[i], &count));
}

static void test_serve(void **state) {
    (void)state;
    struct config config;
    enum config_action action;
    struct error_detail detail;
    char *plain[] = {"tidalite", "serve", NULL};
    assert_int_equal(parse(plain, &config, &action, &detail), STATUS_OK);
    assert_int_equal(action, CONFIG_SERVE);
    assert_string_equal(config.listen, "127.0.0.1:9201");
    assert_string_equal(config.data_dir, "./data");
    assert_int_equal(config.io, IO_BACKEND_AUTO);
    assert_int_equal(config.self_scrape_ms, 0);
    assert_int_equal(config.log_level, LOG_INFO);
    assert_int_equal(config.limits.connections_max, 512);
    assert_false(config.delayed_name_removal);

    assert_false(config.enable_admin_api);
    char *admin[] = {"tidalite", "serve", "--enable-admin-api", "--listen", ":80", NULL};
    assert_int_equal(parse(admin, &config, &action, &detail), STATUS_OK);
    assert_true(config.enable_admin_api);
    assert_string_equal(config.listen, ":80");
    admin[2] = "--enable-admin-api=false";
    assert_int_equal(parse(admin, &config, &action, &detail), STATUS_OK);
    assert_false(config.enable_admin_api);
    admin[2] = "--enable-admin-api=maybe";
    assert_int_equal(parse(admin, &config, &action, &detail), STATUS_BAD_INPUT);

    char *full[] = {"tidalite",
                    "serve",
                    "--listen",
                    ":80",
                    "--data-dir=d",
                    "--io",
                    "syscall",
                    "--self-scrape",
                    "15s",
                    "--log-level=error",
                    "--log-format",
                    "json",
                    "--query-timeout",
                    "30s",
                    "--max-samples=50M",
                    "--loops",
                    "3",
                    "--cors-origin=",
                    "--promql-delayed-name-removal",
                    "--body-bytes-max",
                    "8MiB",
                    NULL};
    assert_int_equal(parse(full, &config, &action, &detail), STATUS_OK);
    assert_string_equal(config.listen, ":80");
    assert_string_equal(config.data_dir, "d");
    assert_string_equal(config.cors_origin, "");
    assert_int_equal(config.io, IO_BACKEND_SYSCALL);
    assert_int_equal(config.self_scrape_ms, 15000);
    assert_int_equal(config.log_level, LOG_ERROR);
    assert_int_equal(config.log_format, LOG_FORMAT_JSON);
    assert_int_equal(config.limits.query_timeout_ms_max, 30000);
    assert_int_equal(config.limits.query_samples_max, 50000000);
    assert_int_equal(config.limits.body_bytes_max, 8 << 20);
    assert_int_equal(config.loops, 3);
    assert_true(config.delayed_name_removal);
    full[18] = "--promql-delayed-name-removal=false";
    assert_int_equal(parse(full, &config, &action, &detail), STATUS_OK);
    assert_false(config.delayed_name_removal);
}

/* 0 is no bound for two, never for the third, and nothing else takes it. */
static void test_zero(void **state) {
    (void)state;
    struct config config;
    enum config_action action;
    struct error_detail detail;
    char *argv[] = {"tidalite", "serve", "--retention", "0", "--retention-bytes=0", "--slow-query=0", NULL};
    assert_int_equal(parse(argv, &config, &action, &detail), STATUS_OK);
    assert_int_equal(config.limits.retention_ms, 0);
    assert_int_equal(config.limits.retention_bytes, 0);
    assert_int_equal(config.limits.query_slow_ms, 0);
    uint64_t count;
    const struct limit_info *infos = limits_info(&count);
    for (uint64_t i = 0; i < count; i++) {
        bool takes = strncmp(infos[i].flag, "--retention", strlen("--retention")) == 0 ||
                     strcmp(infos[i].flag, "--slow-query") == 0;
        char *flag[] = {"tidalite", "serve", (char *)(uintptr_t)infos[i].flag, "0", NULL};
        if (infos[i].flag[0] != 0 && !takes)
            assert_int_equal(parse(flag, &config, &action, &detail), STATUS_BAD_INPUT);
    }
}

static void test_actions(void **state) {
    (void)state;
    struct config config;
    struct error_detail detail;
    static const struct {
        const char *arguments[2];
        enum config_action action;
    } cases[] = {{{NULL, NULL}, CONFIG_HELP},
                 {{"help", NULL}, CONFIG_HELP},
                 {{"--help", NULL}, CONFIG_HELP},
                 {{"-h", NULL}, CONFIG_HELP},
                 {{"help", "serve"}, CONFIG_SERVE_HELP},
                 {{"serve", "--help"}, CONFIG_SERVE_HELP},
                 {{"serve", "-h"}, CONFIG_SERVE_HELP},
                 {{"--version", NULL}, CONFIG_VERSION},
                 {{"version", NULL}, CONFIG_VERSION}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char *argv[] = {"tidalite", (char *)(uintptr_t)cases[i].arguments[0],
                        (char *)(uintptr_t)cases[i].arguments[1], NULL};
        enum config_action action;
        assert_int_equal(parse(argv, &config, &action, &detail), STATUS_OK);
        assert_int_equal(action, cases[i].action);
    }
}

static void test_mistakes(void **state) {
    (void)state;
    struct config config;
    enum config_action action;
    struct error_detail detail;
    static const char *const cases[][3] = {
        {"nonsense", NULL, "unknown command"},         {"--nonsense", NULL, "unknown flag"},
        {"serve", "--nonsense", "unknown flag"},       {"serve", "--listenx=1", "unknown flag"},
        {"serve", "data", "unknown argument"},         {"serve", "--io", "--io needs a value"},
        {"serve", "--io=tape", "auto|uring|syscall"},  {"serve", "--self-scrape=15", "such as 15s"},
        {"serve", "--max-connections=0", "bad value"}, {"serve", "--body-bytes-max=many", "32MiB"},
        {"serve", "--loops=257", "at most 256"}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char *argv[] = {"tidalite", (char *)(uintptr_t)cases[i][0], (char *)(uintptr_t)cases[i][1], NULL};
        assert_int_equal(parse(argv, &config, &action, &detail), STATUS_BAD_INPUT);
        assert_non_null(strstr(detail.text, cases[i][2]));
        assert_null(strchr(detail.text, '\n'));
    }
}

static void help_each(void *context, const char *flag, const char *value) {
    (void)value;
    assert_non_null(strstr(context, flag)); /* every flag is in the help */
}

static void test_help(void **state) {
    (void)state;
    struct config config;
    enum config_action action;
    struct error_detail detail;
    char *argv[] = {"tidalite", "serve", NULL};
    struct buf text;
    buf_init(&text);
    assert_int_equal(parse(argv, &config, &action, &detail), STATUS_OK);
    config_serve_help_print(&text);
    buf_append_byte(&text, 0);
    assert_false(text.failed);
    config_each(&config, help_each, text.data);
    assert_non_null(strstr((const char *)text.data, "(default 32MiB)"));
    assert_non_null(strstr((const char *)text.data, "(default 2m)"));
    buf_release(&text);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_durations), cmocka_unit_test(test_counts),
                                       cmocka_unit_test(test_serve),     cmocka_unit_test(test_zero),
                                       cmocka_unit_test(test_actions),   cmocka_unit_test(test_mistakes),
                                       cmocka_unit_test(test_help)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
