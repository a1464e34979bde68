/* The parts of a verification. SPDX-License-Identifier: MIT */
#ifndef QINS_VERIFY_H
#define QINS_VERIFY_H

#include "base/base.h"
#include "measure/fidelity.h"

/* Two models, a session of each, and logits of up to `chunk` positions of each. */
typedef struct qins_verifier {
    const qins_model *reference, *model;
    const qins_verify_options *options;
    qins_session *ref_session, *session;
    size_t vocab_size, chunk;
    float *ref_logits, *logits;
    qins_logit_comparison *positions; /* [chunk] */
} qins_verifier;

/* Fresh sessions of n_ctx positions; the old ones are freed. */
qins_status qins_verifier_open_sessions(qins_verifier *v, size_t n_ctx, qins_error *err);
void qins_verifier_close_sessions(qins_verifier *v);
/* Both sessions begin anew. */
qins_status qins_verifier_restart(qins_verifier *v, qins_error *err);
/* Logits of the last n_logits <= chunk of ids[0..n) by both. */
qins_status qins_verifier_eval(qins_verifier *v, const int32_t *ids, size_t n, size_t n_logits, qins_error *err);
/* v->positions of n positions whose logits are there. targets may be NULL: none. */
qins_status qins_verifier_compare(qins_verifier *v, const int32_t *targets, size_t n, qins_error *err);
qins_status qins_verifier_report(const qins_verifier *v, const char *stage, size_t done, size_t total, qins_error *err);

/* The text that is scored, as tokens of the reference. */
qins_status qins_verify_tokens(const qins_verifier *v, int32_t **ids, size_t *n_ids, size_t *ctx, qins_error *err);

/* verify_text.c: distributions over the text, window by window. */
qins_status qins_verify_text(qins_verifier *v, qins_verify_result *result, qins_error *err);
/* verify_generate.c: greedy generation. */
qins_status qins_verify_generation(qins_verifier *v, qins_verify_result *result, qins_error *err);
/* verify_layers.c: one layer at a time. */
qins_status qins_verify_layers(qins_verifier *v, qins_verify_result *result, qins_error *err);

#endif
