/* How many threads parallel regions use. SPDX-License-Identifier: MIT */
#include "base/base.h"

#include <omp.h>

/* OpenMP keeps this setting per calling thread, which is what qins.h promises. */
void qins_set_threads(int n_threads) {
    omp_set_num_threads(n_threads > 0 ? n_threads : omp_get_num_procs());
}

int qins_get_threads(void) {
    return omp_get_max_threads();
}
