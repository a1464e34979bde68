/* Codes of a matrix, chosen from the second moments of its inputs. SPDX-License-Identifier: MIT */
#ifndef QINS_CALIBRATE_ROUND_H
#define QINS_CALIBRATE_ROUND_H

#include "codec/feedback.h"
#include "model/calibrate.h"

typedef struct qins_rounding {
    qins_codebook book;
    qins_codebook scalar; /* trellis: the Gauss codebook that scales are fitted with */
    uint16_t *codes;      /* [panels * 16][n_cols] */
    float *scales;        /* [panels * 16] */
    uint8_t *packed;
    qins_encode_stats stats;
    qins_matrix matrix; /* of packed, scales and the book's table: for who keeps it to multiply with */
} qins_rounding;

void qins_rounding_free(qins_rounding *r);

/* Second moments of n inputs that nothing is rounded on. */
typedef struct qins_held_inputs {
    const float *moments; /* NULL: none */
    size_t n;
} qins_held_inputs;

/* Rounds the rows w of an item, which become what their codes say, and puts them into `rounded`. feedback NULL: to the
 * nearest. losses: NULL, or gets what that costs on the held inputs. *out: the caller's, also after an error. */
qins_status qins_round_rows(const qins_plan_item *item, float *w, const qins_feedback *feedback,
                            const qins_held_inputs *held, qins_losses *losses, qins_rounded *rounded,
                            qins_rounding **out, qins_error *err);

#endif
