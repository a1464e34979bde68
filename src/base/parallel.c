/* Loops over threads that wait for each other awake. SPDX-License-Identifier: MIT
 *
 * A token passes through hundreds of short loops. Threads of OpenMP either spin between them, and take the time slices
 * of whatever else runs on the machine, or sleep, and waking costs more than many of the loops. These spin for some
 * microseconds, then give their time to whoever wants it, and sleep when nothing came for a while.
 *
 * A calling thread has workers of its own, made when they are first needed. A job is open while `state` is odd. Workers
 * enter it by counting themselves in and looking again; the caller closes it and waits until all have left, so that
 * those who sleep late hold up nobody.
 */
#include "base/base.h"

#include <omp.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>

enum {
    MAX_WORKERS = 255,
    SPINS = 2000,  /* some ten microseconds: longer than what one thread does alone between two loops */
    YIELDS = 4000, /* a millisecond or so on an idle machine */
    LINE = 64      /* of the cache: what different threads write lies apart */
};

typedef struct job {
    qins_task fn;
    void *context;
    size_t n, step, n_threads;
} job;

typedef struct pool pool;

typedef struct worker {
    pool *pool;
    size_t index; /* from 1 */
    pthread_t thread;
} worker;

struct pool {
    job job;
    _Alignas(LINE) atomic_uint state;
    _Alignas(LINE) atomic_size_t next; /* first index that nobody has taken */
    _Alignas(LINE) atomic_uint inside; /* workers that may touch the job */
    _Alignas(LINE) atomic_uint asleep;
    atomic_bool stop;
    pthread_mutex_t mutex;
    pthread_cond_t wake;
    size_t n_workers;
    worker workers[MAX_WORKERS];
};

static _Thread_local pool *own_pool;
static _Thread_local size_t own_index;
static _Thread_local bool in_task;
static pthread_key_t key;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static bool have_key;

static inline void pause_a_moment(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static void take_tasks(pool *p) {
    const job *j = &p->job;
    for (;;) {
        size_t i = atomic_fetch_add(&p->next, j->step);
        if (i >= j->n) return;
        for (size_t end = qins_min_size(i + j->step, j->n); i < end; i++)
            j->fn(j->context, i);
    }
}

/* Until the state is another job's than `done`, or the pool ends. */
static unsigned wait_for_job(pool *p, unsigned done) {
    for (unsigned i = 0;; i++) {
        unsigned state = atomic_load_explicit(&p->state, memory_order_acquire);
        if ((state % 2 == 1 && state != done) || atomic_load_explicit(&p->stop, memory_order_relaxed)) return state;
        if (i < SPINS) {
            pause_a_moment();
        } else if (i < SPINS + YIELDS) {
            sched_yield();
        } else {
            pthread_mutex_lock(&p->mutex);
            atomic_fetch_add(&p->asleep, 1);
            for (state = atomic_load(&p->state); (state % 2 == 0 || state == done) && !atomic_load(&p->stop);
                 state = atomic_load(&p->state))
                pthread_cond_wait(&p->wake, &p->mutex);
            atomic_fetch_sub(&p->asleep, 1);
            pthread_mutex_unlock(&p->mutex);
        }
    }
}

static void *work(void *argument) {
    const worker *w = argument;
    pool *p = w->pool;
    own_index = w->index;
    in_task = true;
    unsigned done = 0;
    for (;;) {
        done = wait_for_job(p, done);
        if (atomic_load(&p->stop)) return NULL;
        atomic_fetch_add(&p->inside, 1);
        if (atomic_load(&p->state) == done && w->index < p->job.n_threads) take_tasks(p);
        atomic_fetch_sub(&p->inside, 1);
    }
}

static void wake_sleepers(pool *p) {
    if (atomic_load(&p->asleep) == 0) return;
    pthread_mutex_lock(&p->mutex);
    pthread_cond_broadcast(&p->wake);
    pthread_mutex_unlock(&p->mutex);
}

static void free_pool(void *argument) {
    pool *p = argument;
    atomic_store(&p->stop, true);
    pthread_mutex_lock(&p->mutex);
    pthread_cond_broadcast(&p->wake);
    pthread_mutex_unlock(&p->mutex);
    for (size_t i = 0; i < p->n_workers; i++)
        pthread_join(p->workers[i].thread, NULL);
    pthread_cond_destroy(&p->wake);
    pthread_mutex_destroy(&p->mutex);
    free(p);
}

static void make_key(void) {
    have_key = pthread_key_create(&key, free_pool) == 0;
}

/* The pool of this thread with workers for n threads, or as many as could be made; NULL when there is none. */
static pool *get_pool(size_t n) {
    pool *p = own_pool;
    if (p == NULL) {
        pthread_once(&once, make_key);
        p = have_key ? qins_alloc_aligned(1, sizeof *p) : NULL;
        if (p == NULL) return NULL;
        pthread_mutex_init(&p->mutex, NULL);
        pthread_cond_init(&p->wake, NULL);
        if (pthread_setspecific(key, p) != 0) {
            free_pool(p);
            return NULL;
        }
        own_pool = p;
    }
    for (; p->n_workers + 1 < n && p->n_workers < MAX_WORKERS; p->n_workers++) {
        worker *w = &p->workers[p->n_workers];
        *w = (worker){.pool = p, .index = p->n_workers + 1};
        if (pthread_create(&w->thread, NULL, work, w) != 0) break;
    }
    return p;
}

void qins_parallel(size_t n, size_t step, qins_task fn, void *context) {
    size_t n_threads = (size_t)qins_get_threads();
    pool *p = n <= step || n_threads <= 1 || in_task || omp_in_parallel() ? NULL : get_pool(n_threads);
    if (p == NULL || p->n_workers == 0) {
        for (size_t i = 0; i < n; i++)
            fn(context, i);
        return;
    }
    p->job = (job){fn, context, n, step, n_threads};
    atomic_store(&p->next, 0);
    atomic_fetch_add(&p->state, 1); /* odd: open */
    wake_sleepers(p);
    in_task = true;
    take_tasks(p);
    in_task = false;
    atomic_fetch_add(&p->state, 1);
    for (unsigned i = 0; atomic_load_explicit(&p->inside, memory_order_acquire) != 0; i++)
        if (i < SPINS)
            pause_a_moment();
        else
            sched_yield();
}

int qins_thread_index(void) {
    return own_index > 0 ? (int)own_index : omp_get_thread_num();
}
