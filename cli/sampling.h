/* --temp, --top-k, --top-p, --min-p, --seed. SPDX-License-Identifier: MIT */
#ifndef QINS_CLI_SAMPLING_H
#define QINS_CLI_SAMPLING_H

#include "options.h"
#include "qins.h"

typedef struct sampling_arguments {
    double temperature, top_p, min_p;
    int top_k;
    uint64_t seed;
} sampling_arguments;

/* Temperature 0.8, top-p 0.95, and another seed each run. */
sampling_arguments sampling_defaults(void);
qins_sampling sampling_of(const sampling_arguments *a);

#define SAMPLING_OPTIONS(s)                                                                                            \
    {.name = "temp",                                                                                                   \
     .kind = OPTION_REAL,                                                                                              \
     .value = &(s).temperature,                                                                                        \
     .value_name = "T",                                                                                                \
     .max = 100,                                                                                                       \
     .help = "temperature; 0 always takes the likeliest token (default 0.8)"},                                         \
        {.name = "top-k",                                                                                              \
         .kind = OPTION_INT,                                                                                           \
         .value = &(s).top_k,                                                                                          \
         .value_name = "K",                                                                                            \
         .max = 1 << 30,                                                                                               \
         .help = "sample from the K likeliest tokens; 0: from all (default 0)"},                                       \
        {.name = "top-p",                                                                                              \
         .kind = OPTION_REAL,                                                                                          \
         .value = &(s).top_p,                                                                                          \
         .value_name = "P",                                                                                            \
         .max = 1,                                                                                                     \
         .help = "sample from the fewest tokens of total probability P (default 0.95)"},                               \
        {.name = "min-p",                                                                                              \
         .kind = OPTION_REAL,                                                                                          \
         .value = &(s).min_p,                                                                                          \
         .value_name = "P",                                                                                            \
         .max = 1,                                                                                                     \
         .help = "drop tokens less likely than P times the likeliest (default 0)"},                                    \
    {                                                                                                                  \
        .name = "seed", .letter = 's', .kind = OPTION_U64, .value = &(s).seed, .value_name = "S",                      \
        .help = "of the sampling (default: another one each run; printed at the end)"                                  \
    }

#endif
