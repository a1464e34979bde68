/* Loops over threads. SPDX-License-Identifier: MIT */
#include "base/base.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

#include <cmocka.h>

enum { MAX_N = 500 };

typedef struct tally {
    atomic_int calls[MAX_N];
    atomic_int threads[8];
    int n_threads;
    atomic_int outside; /* thread indices that are too large */
} tally;

static void count(void *context, size_t i) {
    tally *t = context;
    atomic_fetch_add(&t->calls[i], 1);
    int index = qins_thread_index();
    if (index < 0 || index >= t->n_threads)
        atomic_fetch_add(&t->outside, 1);
    else
        atomic_fetch_add(&t->threads[index], 1);
}

/* Whether every index was visited once by threads that exist. */
static bool visits_all(int n_threads, size_t n, size_t step) {
    tally *t = calloc(1, sizeof *t);
    if (t == NULL) return false;
    t->n_threads = n_threads;
    qins_set_threads(n_threads);
    qins_parallel(n, step, count, t);
    bool good = atomic_load(&t->outside) == 0;
    for (size_t i = 0; i < MAX_N; i++)
        good = good && atomic_load(&t->calls[i]) == (i < n ? 1 : 0);
    free(t);
    return good;
}

static void every_index_is_visited_once(void **state) {
    (void)state;
    for (int repeat = 0; repeat < 50; repeat++)
        for (int n_threads = 1; n_threads <= 4; n_threads++)
            for (size_t n = 0; n <= MAX_N; n = 3 * n + 1)
                for (size_t step = 1; step <= 64; step *= 8)
                    assert_true(visits_all(n_threads, n, step));
}

static void workers_that_slept_come_back(void **state) {
    (void)state;
    for (int repeat = 0; repeat < 5; repeat++) {
        nanosleep(&(struct timespec){.tv_nsec = 50000000}, NULL);
        assert_true(visits_all(3, MAX_N, 1));
    }
}

static void wait_for_company(void *context, size_t i) {
    (void)i;
    atomic_int *present = context;
    atomic_fetch_add(present, 1);
    for (int k = 0; k < 10000 && atomic_load(present) < 2; k++)
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
}

static void tasks_run_at_the_same_time(void **state) {
    (void)state;
    atomic_int present = 0;
    qins_set_threads(2);
    time_t start = time(NULL);
    qins_parallel(2, 1, wait_for_company, &present);
    assert_true(time(NULL) - start < 9);
    assert_int_equal(atomic_load(&present), 2);
}

static void nested(void *context, size_t i) {
    (void)i;
    qins_parallel(10, 1, count, context);
}

static void loops_inside_tasks_are_run_by_their_thread(void **state) {
    (void)state;
    static tally t;
    t.n_threads = 3;
    qins_set_threads(3);
    qins_parallel(20, 1, nested, &t);
    for (size_t i = 0; i < 10; i++)
        assert_int_equal(atomic_load(&t.calls[i]), 20);
    assert_int_equal(atomic_load(&t.outside), 0);
}

static void *call_often(void *failures) {
    for (int repeat = 0; repeat < 200; repeat++)
        if (!visits_all(1 + repeat % 3, 100, 1 + (size_t)repeat % 4)) atomic_fetch_add((atomic_int *)failures, 1);
    return NULL;
}

static void callers_do_not_meet(void **state) {
    (void)state;
    atomic_int failures = 0;
    pthread_t threads[3];
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, call_often, &failures), 0);
    for (size_t i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(atomic_load(&failures), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_index_is_visited_once), cmocka_unit_test(workers_that_slept_come_back),
        cmocka_unit_test(tasks_run_at_the_same_time), cmocka_unit_test(loops_inside_tasks_are_run_by_their_thread),
        cmocka_unit_test(callers_do_not_meet)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
