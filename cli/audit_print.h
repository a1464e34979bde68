/* An audit, or the preview of a compression, on standard output. SPDX-License-Identifier: MIT */
#ifndef QINS_CLI_AUDIT_PRINT_H
#define QINS_CLI_AUDIT_PRINT_H

#include "kv_bits.h"
#include "qins.h"

#include <jansson.h>
#include <stdbool.h>

/* {"totals", "tensors"}; without the tensors for a summary. */
json_t *audit_object(const qins_audit *audit, bool summary);
/* Tables by tensor (not for a summary) and by role. */
void print_audit_tables(const qins_audit *audit, bool summary);
/* Lines on the weights as a whole. */
void print_audit_weights(const qins_audit *audit);

/* KV caches to show, F16 first. */
enum { MAX_CACHES = 8 };

typedef struct audit_caches {
    size_t context, n;
    kv_bits bits[MAX_CACHES];
    qins_audit_kv kv[MAX_CACHES];
} audit_caches;

json_t *audit_caches_object(const audit_caches *caches);
void print_audit_caches(const audit_caches *caches);

#endif
