/* The "fidelity" member of a receipt: one object a measurement. SPDX-License-Identifier: MIT */
#ifndef QINS_RECEIPT_ENTRY_H
#define QINS_RECEIPT_ENTRY_H

#include "model/receipt.h"

/* A measurement as an object. source: qins_receipt_source of the reference. NULL when out of memory. */
json_t *qins_receipt_entry(json_t *source, const qins_verify_options *options, const qins_verify_result *result);
/* Both are of the same reference, text, windows and prompts. */
bool qins_receipt_same_conditions(const json_t *a, const json_t *b);

#endif
