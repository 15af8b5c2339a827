#include "unit.h"

#include <stdatomic.h>
#include <unistd.h>

#include "base/status.h"
#include "server/worker.h"

struct counted_job {
    struct job job;
    atomic_int *runs;
    atomic_bool *open; /* waited for, if not NULL */
};

static void job_run(struct job *job) {
    struct counted_job *counted = (struct counted_job *)(void *)job;
    while (counted->open != NULL && !atomic_load(counted->open))
        usleep(100);
    atomic_fetch_add(counted->runs, 1);
}

static void test_all_run(void **state) {
    (void)state;
    enum { COUNT = 2000 };
    static struct counted_job jobs[COUNT];
    struct workers workers;
    atomic_int runs = 0;
    assert_int_equal(workers_init(&workers, 4, COUNT), STATUS_OK);
    for (size_t i = 0; i < COUNT; i++) {
        jobs[i] = (struct counted_job){{.run = job_run}, &runs, NULL};
        assert_int_equal(workers_submit(&workers, &jobs[i].job), STATUS_OK);
    }
    workers_release(&workers); /* finishes what is queued */
    assert_int_equal(atomic_load(&runs), COUNT);
    assert_true(workers.count <= 4);
}

/* 2 run and 3 wait; the sixth is refused, until one ends. */
static void test_bounded(void **state) {
    (void)state;
    struct counted_job jobs[6];
    struct workers workers;
    atomic_int runs = 0;
    atomic_bool open = false;
    assert_int_equal(workers_init(&workers, 2, 3), STATUS_OK);
    for (size_t i = 0; i < 6; i++) {
        jobs[i] = (struct counted_job){{.run = job_run}, &runs, &open};
        /* Let the threads that were made take theirs, so that the queue's length is known. */
        usleep(20000);
        assert_int_equal(workers_submit(&workers, &jobs[i].job), i < 5 ? STATUS_OK : STATUS_BUSY);
    }
    assert_int_equal(workers.count, 2);
    atomic_store(&open, true);
    while (atomic_load(&runs) < 5)
        usleep(100);
    assert_int_equal(workers_submit(&workers, &jobs[5].job), STATUS_OK);
    workers_release(&workers);
    assert_int_equal(atomic_load(&runs), 6);
}

static void test_unused(void **state) {
    (void)state;
    struct workers workers;
    assert_int_equal(workers_init(&workers, 2, 3), STATUS_OK);
    workers_release(&workers);
    assert_int_equal(workers.count, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_all_run), cmocka_unit_test(test_bounded),
                                       cmocka_unit_test(test_unused)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
