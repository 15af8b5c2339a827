/* test_block.c: blocks against a naive model: what was written is read, every selector gives what a linear
 * scan gives. */
#include "base/crc32c.h"
#include "test_block_model.h"

static void roundtrip(enum io_backend backend, uint64_t seed, size_t count, size_t chunks_max,
                      size_t selects) {
    struct model model;
    model_open(&model, backend, seed);
    model_random(&model, count, chunks_max);
    struct error_detail detail = {0};
    int status = model_write(&model, &detail);
    if (status < 0)
        print_message("%s\n", detail.text);
    assert_int_equal(status, STATUS_OK);
    struct block *block = model_block(&model);
    model_check(&model, block);
    model_check_random_selects(&model, block, selects);
    block_close(block);
    model_close(&model);
}

static void test_roundtrip(void **state) {
    (void)state;
    for (uint64_t seed = 1; seed <= 20; seed++)
        roundtrip(seed % 2 ? IO_BACKEND_SYSCALL : IO_BACKEND_URING, seed, 1 + seed * seed, 5, 300);
    roundtrip(IO_BACKEND_SYSCALL, 100, 5000, 3, 60);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_roundtrip),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
