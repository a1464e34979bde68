/* Pages spread over the nodes of a machine with several. SPDX-License-Identifier: MIT
 *
 * Linux puts a page into the memory of the node that touches it first. Weights are mapped files, so that whoever reads
 * them first, often one thread, would have all of them on its node, and the others would share that node's bandwidth.
 */
#include "base/base.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

size_t qins_parse_nodes(const char *list, unsigned long *mask, size_t n_words) {
    enum { BITS = 8 * sizeof *mask };
    size_t found = 0;
    for (size_t i = 0; i < n_words; i++)
        mask[i] = 0;
    for (const char *p = list; isdigit((unsigned char)*p);) {
        char *end;
        unsigned long first = strtoul(p, &end, 10), last = first;
        if (*end == '-') last = strtoul(end + 1, &end, 10);
        for (unsigned long node = first; node <= last && node < BITS * n_words; node++, found++)
            mask[node / BITS] |= 1UL << node % BITS;
        p = *end == ',' ? end + 1 : end;
    }
    return found;
}

int qins_spread_memory(void) {
#if defined(__linux__) && defined(SYS_set_mempolicy)
    enum { WORDS = 16, MPOL_INTERLEAVE = 3 };
    unsigned long mask[WORDS];
    char list[256] = "";
    FILE *f = fopen("/sys/devices/system/node/online", "re");
    if (f == NULL) return 1;
    if (fgets(list, sizeof list, f) == NULL) list[0] = '\0';
    fclose(f);
    size_t n = qins_parse_nodes(list, mask, WORDS);
    if (n < 2) return 1;
    return syscall(SYS_set_mempolicy, MPOL_INTERLEAVE, mask, 8 * sizeof mask + 1) == 0 ? (int)n : 1;
#else
    return 1;
#endif
}
