/* SPDX-License-Identifier: MIT */
#include "sampling.h"

#include <time.h>
#include <unistd.h>

/* Seeds need not be secret, only different from one run to the next. */
static uint64_t seed_of_the_moment(void) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return ((uint64_t)t.tv_sec * 1000003u + (uint64_t)t.tv_nsec + (uint64_t)getpid()) % 4294967296u;
}

sampling_arguments sampling_defaults(void) {
    return (sampling_arguments){.temperature = 0.8, .top_p = 0.95, .seed = seed_of_the_moment()};
}

qins_sampling sampling_of(const sampling_arguments *a) {
    return (qins_sampling){.temperature = (float)a->temperature,
                           .top_k = a->top_k,
                           .top_p = (float)a->top_p,
                           .min_p = (float)a->min_p,
                           .seed = a->seed};
}
