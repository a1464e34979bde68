/* Rounding with error feedback: the codes of a row are chosen one column after another, each making up for the errors
 * before it. SPDX-License-Identifier: MIT
 *
 * With H = sum over inputs x of x x^T, the output error of a row w stored as q is (w-q) H (w-q)^T. Let H = U D U^T, U
 * upper triangular with ones on its diagonal. Then with e = w - q
 *
 *     e H e^T = sum_j D_j (v_j - q_j)^2,   v_j = w_j + sum_{i<j} e_i U_ij
 *
 * so that taking q_j nearest to v_j, for ascending j, leaves only rounding errors of v. This is LDLQ (Chee et al.,
 * QuIP, 2023, theorem 1), the same as GPTQ (Frantar et al., 2022) without its inverse, and successive interference
 * cancellation of communication theory.
 */
#ifndef QINS_FEEDBACK_H
#define QINS_FEEDBACK_H

#include "codec/codec.h"

/* H of some inputs, factored. */
typedef struct qins_feedback {
    size_t n;
    float *u; /* [n][n], row-major; below the diagonal undefined */
    float *d; /* [n] */
} qins_feedback;

/* Factors H + damping * mean(diag H) * I. h[n][n], row-major: its upper triangle is read. Where that is not positive
 * definite, damping grows tenfold until it is; *used (may be NULL) is what was taken. An H without any inputs or with
 * values that are not finite is refused as QINS_ERR_ARGUMENT: there is nothing to feed back. */
qins_status qins_feedback_factor(const float *h, size_t n, double damping, qins_feedback *f, double *used,
                                 qins_error *err);
void qins_feedback_free(qins_feedback *f);

typedef struct qins_feedback_options {
    /* Scales that are tried for a row: n_scales from lo to hi times the one given, in equal ratios. The one of least
     * error by H is kept. */
    size_t n_scales;
    double scale_lo, scale_hi;
    /* Price of a code, [n_levels], in the units of e H e^T divided by the squared scale: of a code and its neighbours
     * the one of least D_j (v_j - q_j)^2 / scale^2 + price is taken. NULL: the nearest. For tables that are sorted. */
    const float *price;
    const uint8_t *price_of; /* [n_rows]: which of several prices, one after another, a row takes; NULL: the first */
    /* Uniform trellis: [n_rows], price of bits as a pull to zero: of (v_j - q_j)^2 D_j + pull * mean(D) * q_j^2 the
     * least is taken, and rows of a panel count alike in units of their scales. NULL: no price. */
    const float *pull;
    /* Share of the weights of a row that becomes 0, for tables that have one: of the whole row, or of every
     * sparse_group neighbours (which divide 128). Those whose loss D_j v_j^2 is least (SparseGPT, Frantar and Alistarh,
     * 2023: D_j is 1 / [H^-1]_jj of the columns from j on), or, by_magnitude, the smallest of w. */
    double sparsity;
    size_t sparse_group;
    bool by_magnitude;
} qins_feedback_options;

/* Rounds rows w[n_rows][f->n]. scales[n_rows]: on entry the best for nearest rounding, on return those chosen; a row
 * whose scale is 0 becomes all zero codes of the table's nearest to 0. codes[n_rows][f->n], of the trellis codecs all
 * rows of its panels. error[n_rows] (may be NULL): (w-q) H' (w-q)^T, H' the damped H. Parallel over rows; needs
 * qins_dense_begin. */
qins_status qins_feedback_round(const qins_feedback *f, const qins_codebook *book, const qins_feedback_options *options,
                                const float *w, size_t n_rows, float *scales, uint16_t *codes, double *error,
                                qins_error *err);

/* ---- between feedback.c and feedback_trellis.c ---- */

/* Scale number i of those tried for a row. */
float qins_feedback_trial_scale(const qins_feedback_options *options, float scale, size_t i);
/* qins_feedback_round for the trellis codecs: the rows of a panel are rounded together, so that the scales tried are
 * the same multiple for all of them. No prices. */
qins_status qins_feedback_round_trellis(const qins_feedback *f, const qins_codebook *book,
                                        const qins_feedback_options *options, const float *w, size_t n_rows,
                                        float *scales, uint16_t *codes, double *error, qins_error *err);

#endif
