/* Widths of matrices for a size, or for a loss. SPDX-License-Identifier: MIT */
#ifndef QINS_ALLOCATE_H
#define QINS_ALLOCATE_H

#include "model/compress_plan.h"

/* Mean squared error of a codec on N(0,1) with its best scale. */
double qins_relative_error(qins_codec codec, int bits);

/* Gives every encoded linear of the plan, and embedding and head where their width is QINS_EMBED_AUTO, the width that
 * the options ask for, 3 to 8 bits or, of linears, QINS_PLAIN_BITS (kl[i]: KL at a relative squared error of 1): by
 * bpw, their average, by max_bytes or by max_kl, whichever is set. All start at 3 bits; again and again the one that
 * saves most KL a byte gets one more, and by max_kl gives back what is not needed. fixed_bytes: what the file takes
 * besides the items. *predicted_kl: the sum over items. Refuses what even 3 bits exceed, or the largest widths do not
 * reach. */
qins_status qins_allocate(const qins_compress_options *options, const double *kl, uint64_t fixed_bytes, qins_plan *plan,
                          double *predicted_kl, qins_error *err);

/* Gives every row of the linears that are made for an entropy coder (options.rate, the same for all) a rate, so that
 * the average stays and KL is least, and every matrix a width that holds them. losses[i][r]: KL that encoded row r of
 * item i costs at a relative squared error of 1. At equal rates errors fall by four a bit whatever the row: the step of
 * a row is in inverse proportion to the root of what its error costs (reverse water-filling). */
qins_status qins_allocate_rates(const float *const *losses, qins_plan *plan, qins_error *err);

/* Sum of kl[i] times the relative error at the item's width. */
double qins_predict_kl(const qins_plan *plan, const double *kl);

#endif
