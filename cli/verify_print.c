/* What verify measured, for people. SPDX-License-Identifier: MIT */
#include "verify.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static void print_distributions(const qins_verify_result *r) {
    printf("scored on %s tokens\n", format_count(r->n_tokens).text);
    printf("  KL divergence   %.6g nats a token", r->kl_mean);
    if (isfinite(r->kl_interval.low))
        printf(" (95 %% interval %.4g to %.4g, bootstrap over %zu stretches of text)", r->kl_interval.low,
               r->kl_interval.high, r->n_blocks);
    printf("\n  of the tokens   50 %% below %.3g, 90 %% %.3g, 99 %% %.3g, 99.9 %% %.3g\n", r->kl_p50, r->kl_p90,
           r->kl_p99, r->kl_p999);
    printf("  same best token %.3f %%, top ten shared %.3f %%\n", 100 * r->top1, 100 * r->top10_overlap);
    printf("  perplexity      %.4f -> %.4f (%+.3f %%", r->ppl_ref, r->ppl, r->ppl_delta_pct);
    if (isfinite(r->ppl_delta_interval.low))
        printf("; 95 %% interval %+.3f to %+.3f", r->ppl_delta_interval.low, r->ppl_delta_interval.high);
    printf(")\n  largest logit difference %.4g\n", r->max_abs_logit_diff);
    printf("KL by tokens of context");
    for (size_t i = 0; i < r->n_positions; i++)
        printf("%s %zu: %.3g", i % 8 == 0 ? "\n " : ",", r->positions[i].from, r->positions[i].kl_mean);
    printf("\n");
}

static void print_strategies(const qins_verify_result *r) {
    if (r->n_strategies == 0) return;
    printf("sampling, %s positions    one draw    a draw a token   possible         KL     missed\n",
           format_count(r->strategies[0].n).text);
    for (size_t i = 0; i < r->n_strategies; i++) {
        const qins_strategy_score *s = &r->strategies[i];
        printf("  %-24s %8.2f %%       %8.2f %% %8.2f %% %10.4g %8.3f %%\n", s->name, 100 * s->agreement,
               100 * s->coupled, 100 * s->overlap, s->kl, 100 * s->missed);
    }
}

/* One line a kind of built-in prompts. */
static void print_kinds(const qins_verify_result *r) {
    for (size_t i = 0; i < r->n_greedy;) {
        size_t n = 0, matched = 0, agreed = 0, of = 0, same = 0;
        const char *kind = r->greedy[i].kind;
        for (; i < r->n_greedy && strcmp(r->greedy[i].kind, kind) == 0; i++, n++) {
            const qins_greedy_result *g = &r->greedy[i];
            matched += g->matched;
            agreed += g->agreed;
            of += g->of;
            same += g->matched == g->of;
        }
        printf(
            "  %-12s %5zu of %zu up to the first that differs, %zu after the reference's text; %zu of %zu prompts the "
            "same\n",
            kind, matched, of, agreed, same, n);
    }
}

typedef struct quoted {
    char text[2 * sizeof((qins_greedy_result *)NULL)->text + 3];
} quoted;

/* On one line: line breaks and other control characters as in C. */
static quoted quote(const char *text) {
    quoted q;
    size_t n = 0;
    q.text[n++] = '"';
    for (; *text != '\0'; text++) {
        unsigned char c = (unsigned char)*text;
        if (c < 32 || c == 127 || c == '"' || c == '\\') q.text[n++] = '\\';
        q.text[n++] = c == '\n' ? 'n' : c == '\t' ? 't' : c == '\r' ? 'r' : c < 32 || c == 127 ? '?' : *text;
    }
    q.text[n++] = '"';
    q.text[n] = '\0';
    return q;
}

static void print_greedy(const qins_verify_result *r) {
    if (r->n_greedy == 0) return;
    printf("greedy generation: %s of %s tokens as the reference's, up to the first that differs\n",
           format_count(r->greedy_matched).text, format_count(r->greedy_of).text);
    printf("  the same next token after the reference's own text: %.3f %%; prompts the same to the end: %zu of %zu\n",
           100 * share_of(r->greedy_agreed, r->greedy_of), r->greedy_identical, r->n_greedy);
    if (r->greedy[0].kind != NULL) print_kinds(r);
    for (size_t i = 0; i < r->n_greedy; i++) {
        const qins_greedy_result *g = &r->greedy[i];
        printf("  prompt %-3zu %5zu of %zu", i + 1, g->matched, g->of);
        if (g->first_divergence < g->of)
            printf(", then token %d %s instead of %d %s; the reference preferred its own by %.4g", g->token,
                   quote(g->text).text, g->ref_token, quote(g->ref_text).text, g->ref_margin);
        printf("\n");
    }
}

static void print_layers(const qins_verify_result *r) {
    if (r->n_layers == 0) return;
    size_t worst = 0;
    printf("layer          weights     output     cosine  alone: output         KL\n");
    for (size_t i = 0; i < r->n_layers; i++) {
        const qins_layer_score *l = &r->layers[i];
        char name[24] = "ends";
        if (i + 1 < r->n_layers) snprintf(name, sizeof name, "%zu", l->layer);
        if (l->own_kl > r->layers[worst].own_kl) worst = i;
        if (i + 1 < r->n_layers)
            printf("  %-10s %9.3g  %9.3g  %9.6f     %9.3g  %9.3g\n", name, l->weight_rel_mse, l->output_rel_mse,
                   l->cosine, l->own_rel_mse, l->own_kl);
        else
            printf("  %-10s %9.3g                           %9.3g  %9.3g\n", name, l->weight_rel_mse, l->own_rel_mse,
                   l->own_kl);
    }
    if (worst + 1 < r->n_layers)
        printf("  layer %zu hurts most\n", worst);
    else
        printf("  embedding and head hurt most\n");
}

void print_verification(const qins_verify_result *r) {
    print_distributions(r);
    print_strategies(r);
    print_greedy(r);
    print_layers(r);
}
