/* test_block_fault.c: writing, opening, reading and repairing a block with the n-th allocation or disk
 * operation failing. Whatever fails: an operating error or a right answer, and afterwards the block is whole,
 * or was never there. What LMDB allocates by itself is not swept (docs/testing.md). */
#include <fcntl.h>

#include "base/log.h"
#include "test_block_model.h"
#include "tests/lib/fault.h"

static bool is_operating(int status) {
    return status == STATUS_OK || status == STATUS_NO_MEMORY || status == STATUS_IO ||
           status == STATUS_NO_SPACE;
}

static void remove_quietly(struct model *model) {
    io_fault_set(model->io, (struct io_fault){0});
    model_remove(model);
}

static void sweep_write(struct model *model, struct fault_sweep *sweep) {
    FAULT_SWEEP(sweep) {
        struct error_detail detail = {0};
        fault_arm(sweep, model->io);
        int status = model_write(model, &detail);
        fault_disarm(sweep, model->io);
        assert_true(is_operating(status));
        if (status == STATUS_OK) {
            struct block *block = model_block(model);
            model_check(model, block);
            block_close(block);
        } else {
            assert_true(strlen(detail.text) > 0);
        }
        remove_quietly(model);
    }
}

/* Opens and reads a few things; NULL if it does not open. */
static struct block *open_armed(struct model *model, struct fault_sweep *sweep, bool later) {
    struct block *block = NULL;
    struct error_detail detail = {0};
    uint32_t *ordinals;
    size_t count;
    const struct matcher matcher = {
        .kind = MATCHER_EQUAL, .name = slice_str("__name__"), .value = slice_str("metric_1")};
    fault_arm(sweep, model->io);
    int status = later ? block_open_later(model->io, model->dir, &detail, &block)
                       : block_open(model->io, model->dir, &detail, &block);
    assert_true(is_operating(status));
    if (status == STATUS_OK) {
        status = block_select(block, &matcher, 1, INT64_MIN, INT64_MAX, &ordinals, &count, &detail);
        assert_true(is_operating(status));
        if (status == STATUS_OK)
            mem_free(ordinals);
    } else {
        block = NULL;
    }
    if (status != STATUS_OK)
        assert_true(strlen(detail.text) > 0);
    fault_disarm(sweep, model->io);
    return block;
}

static void sweep_open(struct model *model, struct fault_sweep *sweep, bool later, const char *missing) {
    assert_int_equal(model_write(model, NULL), STATUS_OK);
    if (missing != NULL)
        model_file_remove(model, missing);
    FAULT_SWEEP(sweep) {
        struct block *block = open_armed(model, sweep, later);
        if (block == NULL)
            continue;
        assert_int_equal(block_prepare(block, NULL), STATUS_OK);
        model_check(model, block); /* with the index, or one that was rebuilt because it could not be read */
        block_close(block);
    }
    model_remove(model);
}

static void sweep_repair(struct model *model, struct fault_sweep *sweep) {
    FAULT_SWEEP(sweep) {
        struct block *block;
        assert_int_equal(model_write(model, NULL), STATUS_OK);
        model_file_remove(model, "index.sum");
        model_file_remove(model, "meta.json");
        assert_int_equal(block_open(model->io, model->dir, NULL, &block), STATUS_OK);
        fault_arm(sweep, model->io);
        int status = block_repair(block, NULL);
        fault_disarm(sweep, model->io);
        assert_true(is_operating(status));
        model_check(model, block); /* it goes on as it was */
        block_close(block);
        assert_int_equal(block_open(model->io, model->dir, NULL, &block), STATUS_OK);
        assert_true(status < 0 || block_damage_count(block) == 0);
        model_check(model, block);
        block_close(block);
        remove_quietly(model);
    }
}

static void sweep_all(void (*body)(struct model *model, struct fault_sweep *sweep), const char *what) {
    for (unsigned kind = 0; kind < FAULT_KIND_COUNT; kind++)
        for (unsigned repeat = 0; repeat < 2; repeat++) {
            struct model model;
            struct fault_sweep sweep = {.kind = (enum fault_kind)kind, .repeat = repeat != 0};
            model_open(&model, IO_BACKEND_SYSCALL, 90 + kind);
            model_random(&model, 40, 2);
            body(&model, &sweep);
            print_message("%s, %s%s: %llu runs\n", what, fault_kind_name(sweep.kind),
                          repeat ? " and all behind it" : "", (unsigned long long)sweep.runs);
            model_close(&model);
        }
}

static void body_open(struct model *model, struct fault_sweep *sweep) {
    sweep_open(model, sweep, false, NULL);
}

static void body_open_later(struct model *model, struct fault_sweep *sweep) {
    sweep_open(model, sweep, true, NULL);
}

static void body_rebuild(struct model *model, struct fault_sweep *sweep) {
    sweep_open(model, sweep, false, "index.mdb");
}

static void body_rebuild_later(struct model *model, struct fault_sweep *sweep) {
    sweep_open(model, sweep, true, "index.sum");
}

static void body_no_meta(struct model *model, struct fault_sweep *sweep) {
    sweep_open(model, sweep, true, "meta.json");
}

static void test_write(void **state) {
    (void)state;
    sweep_all(sweep_write, "write");
}

static void test_open(void **state) {
    (void)state;
    sweep_all(body_open, "open");
    sweep_all(body_open_later, "open later");
    sweep_all(body_no_meta, "open without meta.json");
}

static void test_rebuild(void **state) {
    (void)state;
    sweep_all(body_rebuild, "rebuild");
    sweep_all(body_rebuild_later, "rebuild later");
}

static void test_repair(void **state) {
    (void)state;
    sweep_all(sweep_repair, "repair");
}

int main(void) {
    log_setup(LOG_ERROR, LOG_FORMAT_LOGFMT, open("/dev/null", O_WRONLY | O_CLOEXEC));
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_write),
        cmocka_unit_test(test_open),
        cmocka_unit_test(test_rebuild),
        cmocka_unit_test(test_repair),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
