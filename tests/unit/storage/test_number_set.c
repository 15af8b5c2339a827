/* test_number_set.c: sets of numbers against an array of flags, in each of their forms and between them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/rand.h"
#include "storage/series/number_set.h"

#define SPACE 300000u

struct model {
    struct slab slab;
    struct number_set set;
    uint8_t *has;
    uint32_t count;
    struct rand rand;
};

static void model_init(struct model *model, uint64_t seed) {
    *model = (struct model){0};
    slab_init(&model->slab, 8);
    model->has = mem_zalloc(SPACE);
    rand_init(&model->rand, seed);
}

static void model_release(struct model *model) {
    number_set_release(&model->set, &model->slab);
    assert_int_equal(model->slab.bytes, 0);
    slab_release(&model->slab);
    mem_free(model->has);
}

static void model_add(struct model *model, uint32_t number) {
    assert_int_equal(number_set_has(&model->set, number), model->has[number]);
    if (model->has[number])
        return;
    uint32_t above;
    if (number_set_list(&model->set, number, &above, 1) == 0 && rand_below(&model->rand, 2) == 0) {
        assert_int_equal(number_set_push(&model->set, &model->slab, number), STATUS_OK);
    } else {
        assert_int_equal(number_set_reserve(&model->set, &model->slab, number), STATUS_OK);
        number_set_add(&model->set, number);
    }
    model->has[number] = 1;
    model->count++;
}

static void model_remove(struct model *model, uint32_t number) {
    assert_int_equal(number_set_has(&model->set, number), model->has[number]);
    if (!model->has[number])
        return;
    number_set_remove(&model->set, &model->slab, number);
    model->has[number] = 0;
    model->count--;
}

/* Listing from anywhere, in pieces of any size; filtering any list, both ways. */
static void model_check(struct model *model) {
    assert_int_equal(model->set.count, model->count);
    static uint32_t numbers[SPACE], list[SPACE], kept[SPACE];
    uint32_t from = rand_below(&model->rand, 2) == 0 ? 0 : (uint32_t)rand_below(&model->rand, SPACE);
    size_t piece = 1 + rand_below(&model->rand, rand_below(&model->rand, 2) == 0 ? 100 : 100000);
    uint32_t at = from;
    for (;;) {
        size_t count = number_set_list(&model->set, at, numbers, piece);
        for (size_t i = 0; i < count; i++) {
            while (at < numbers[i])
                assert_false(model->has[at++]);
            assert_true(model->has[at++]);
        }
        if (count < piece)
            break;
    }
    while (at < SPACE)
        assert_false(model->has[at++]);
    size_t count = 0;
    uint32_t step = 1 + (uint32_t)rand_below(&model->rand, rand_below(&model->rand, 2) == 0 ? 3 : 3000);
    for (uint32_t i = (uint32_t)rand_below(&model->rand, step); i < SPACE;
         i += 1 + (uint32_t)rand_below(&model->rand, step))
        list[count++] = i;
    for (int inside = 0; inside < 2; inside++) {
        memcpy(kept, list, count * sizeof *kept);
        size_t left = number_set_filter(&model->set, inside != 0, kept, count), k = 0;
        for (size_t i = 0; i < count; i++)
            if (model->has[list[i]] == inside) {
                assert_true(k < left);
                assert_int_equal(kept[k++], list[i]);
            }
        assert_int_equal(k, left);
    }
}

/* Grows to a size and shrinks, over a space that makes it sparse or dense. */
static void walk(uint64_t seed, uint32_t space, uint32_t size, bool ascending) {
    struct model model;
    model_init(&model, seed);
    for (int round = 0; round < 2; round++) {
        for (uint32_t i = 0; model.count < size && i < space * 4; i++) {
            model_add(&model, ascending ? i % space : (uint32_t)rand_below(&model.rand, space));
            if (rand_below(&model.rand, size / 2 + 1) == 0)
                model_check(&model);
        }
        while (model.count > 0) {
            if (rand_below(&model.rand, size / 2 + 1) == 0)
                model_check(&model);
            uint32_t number = (uint32_t)rand_below(&model.rand, space);
            if (rand_below(&model.rand, 8) == 0) { /* from below, so that it ends */
                uint32_t low[64];
                size_t count = number_set_list(&model.set, 0, low, 64);
                for (size_t i = 0; i < count; i++)
                    model_remove(&model, low[i]);
            } else {
                model_remove(&model, number);
            }
        }
        model_check(&model);
    }
    model_release(&model);
}

static void test_set_equals_flags(void **state) {
    (void)state;
    static const uint32_t sizes[] = {1, 2, 3, 10, 127, 128, 129, 300, 4096, 4097, 9000, 70000};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        walk(i, SPACE, sizes[i], false);
        walk(100 + i, sizes[i] * 2, sizes[i], false);
        walk(200 + i, sizes[i] * 3, sizes[i] * 2, true);
    }
}

static void test_take(void **state) {
    (void)state;
    struct model model;
    for (uint64_t seed = 0; seed < 40; seed++) {
        model_init(&model, seed);
        uint32_t size = (uint32_t)rand_below(&model.rand, seed % 2 == 0 ? 300 : 30000);
        uint32_t space = seed % 4 < 2 ? SPACE : size + 1;
        for (uint32_t i = 0; i < size; i++)
            model_add(&model, (uint32_t)rand_below(&model.rand, space));
        static uint32_t taken[SPACE];
        uint32_t last = 0;
        while (model.count > 0) {
            size_t count = number_set_take(&model.set, &model.slab, taken, 1 + rand_below(&model.rand, 5000));
            assert_true(count > 0);
            for (size_t i = 0; i < count; i++) {
                while (last < taken[i])
                    assert_false(model.has[last++]);
                assert_true(model.has[last]);
                model.has[last++] = 0;
                model.count--;
            }
            model_check(&model);
        }
        model_release(&model);
    }
}

/* Whatever allocation fails: the set is as it was, and the number can be added later. */
static void test_no_memory(void **state) {
    (void)state;
    for (uint32_t size = 0; size < 6000; size += size < 140 ? 1 : 487) {
        for (uint64_t fail = 1; fail < 4; fail++) {
            struct model model;
            model_init(&model, size);
            for (uint32_t i = 0; i < size; i++)
                model_add(&model, i * 7);
            uint32_t number = size % 2 == 0 ? size * 7 : 200000 + size;
            mem_fault_set(fail, 0);
            int status = number_set_reserve(&model.set, &model.slab, number);
            mem_fault_set(0, 0);
            assert_true(status == STATUS_OK || status == STATUS_NO_MEMORY);
            assert_false(number_set_has(&model.set, number));
            assert_int_equal(model.set.count, size);
            model_add(&model, number);
            for (uint32_t i = 0; i < size; i++)
                assert_true(number_set_has(&model.set, i * 7));
            mem_fault_set(fail, 1);
            for (uint32_t i = 0; i < size; i += 2)
                model_remove(&model, i * 7);
            mem_fault_set(0, 0);
            for (uint32_t i = 0; i < size; i++)
                assert_int_equal(number_set_has(&model.set, i * 7), i % 2);
            model_release(&model);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_set_equals_flags),
        cmocka_unit_test(test_take),
        cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
