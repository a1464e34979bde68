/* What verify measured, as a page. SPDX-License-Identifier: MIT */
#include "base/base.h"
#include "measure/chart.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { TEXT_SIZE = 64 };

static double share(size_t n, size_t of) {
    return of > 0 ? (double)n / (double)of : 0;
}

static void escaped_row(qins_buffer *out, const char *name) {
    qins_buffer_printf(out, "<tr><td>");
    qins_html_escape(out, name);
    qins_buffer_printf(out, "</td>");
}

/* ---- the figures in short ---- */

static void add_interval(qins_buffer *out, qins_interval i, const char *unit) {
    if (isfinite(i.low))
        qins_buffer_printf(out, "<td>%.4g to %.4g%s</td></tr>\n", i.low, i.high, unit);
    else
        qins_buffer_printf(out, "<td></td></tr>\n");
}

static void add_summary(qins_buffer *out, const qins_verify_result *r) {
    qins_buffer_printf(out,
                       "<div class=\"wide\"><table><tr><th>on %zu tokens of text</th><th>measured</th>"
                       "<th>95&nbsp;%% interval</th></tr>\n",
                       r->n_tokens);
    qins_buffer_printf(out, "<tr><td>KL divergence, nats a token</td><td>%.5g</td>", r->kl_mean);
    add_interval(out, r->kl_interval, "");
    qins_buffer_printf(out, "<tr><td>perplexity, %.4f in the reference</td><td>%.4f (%+.3f&nbsp;%%)</td>", r->ppl_ref,
                       r->ppl, r->ppl_delta_pct);
    add_interval(out, r->ppl_delta_interval, " %");
    const struct {
        const char *name;
        double percent, kl; /* one of the two */
    } rows[] = {{"same best token", 100 * r->top1, 0},
                {"ten best tokens shared", 100 * r->top10_overlap, 0},
                {"KL: half of the tokens below", 0, r->kl_p50},
                {"KL: 90 % below", 0, r->kl_p90},
                {"KL: 99 % below", 0, r->kl_p99},
                {"KL: 99.9 % below", 0, r->kl_p999}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        escaped_row(out, rows[i].name);
        if (rows[i].percent > 0)
            qins_buffer_printf(out, "<td>%.3f&nbsp;%%</td><td></td></tr>\n", rows[i].percent);
        else
            qins_buffer_printf(out, "<td>%.3g</td><td></td></tr>\n", rows[i].kl);
    }
    qins_buffer_printf(out, "</table></div>\n");
    if (r->n_blocks > 1)
        qins_buffer_printf(out, "<p class=\"faint\">Intervals are a bootstrap over %zu stretches of text.</p>\n",
                           r->n_blocks);
}

static void add_position_chart(qins_buffer *out, const qins_verify_result *r, const char *title, const char *label,
                               int style, bool top1) {
    qins_chart_point points[QINS_MAX_POSITION_SCORES];
    for (size_t i = 0; i < r->n_positions; i++) {
        const qins_position_score *p = &r->positions[i];
        points[i] = (qins_chart_point){(double)p->from, top1 ? 100 * p->top1 : p->kl_mean, NULL};
    }
    const qins_chart_series series = {
        .name = title, .style = style, .line = true, .points = points, .n_points = r->n_positions};
    const qins_chart chart = {.title = title,
                              .x_label = "tokens of context",
                              .y_label = label,
                              .x_log = true,
                              .y_zero = !top1,
                              .tick_unit = top1 ? "%" : NULL,
                              .series = &series,
                              .n_series = 1};
    qins_chart_lines(out, &chart);
}

/* ---- layers ---- */

static void layer_name(const qins_verify_result *r, size_t i, char *name) {
    if (i + 1 == r->n_layers)
        snprintf(name, TEXT_SIZE, "embedding and head");
    else
        snprintf(name, TEXT_SIZE, "layer %zu", r->layers[i].layer);
}

/* Bars of one of the layers' figures. */
static void add_layer_bars(qins_buffer *out, const qins_verify_result *r, const char *title, int style,
                           double (*value)(const qins_layer_score *)) {
    qins_bar *bars = qins_alloc(r->n_layers, sizeof *bars);
    char(*names)[TEXT_SIZE] = qins_alloc(r->n_layers, TEXT_SIZE);
    char(*texts)[TEXT_SIZE] = qins_alloc(r->n_layers, TEXT_SIZE);
    size_t n = 0;
    out->failed = out->failed || bars == NULL || names == NULL || texts == NULL;
    for (size_t i = 0; !out->failed && i < r->n_layers; i++) {
        double v = value(&r->layers[i]);
        if (!isfinite(v)) continue;
        layer_name(r, i, names[n]);
        snprintf(texts[n], TEXT_SIZE, "%.3g", v);
        bars[n] = (qins_bar){.name = names[n], .text = texts[n], .value = v, .style = style};
        n++;
    }
    if (n > 0) qins_chart_bars(out, title, bars, n);
    free(bars);
    free(names);
    free(texts);
}

static double own_kl(const qins_layer_score *l) {
    return l->own_kl;
}
static double weight_error(const qins_layer_score *l) {
    return l->weight_rel_mse;
}
static double output_error(const qins_layer_score *l) {
    return l->output_rel_mse;
}

static void add_layers(qins_buffer *out, const qins_verify_result *r) {
    if (r->n_layers == 0) return;
    char name[TEXT_SIZE];
    size_t worst = 0;
    for (size_t i = 0; i < r->n_layers; i++)
        if (r->layers[i].own_kl > r->layers[worst].own_kl) worst = i;
    layer_name(r, worst, name);
    qins_buffer_printf(out,
                       "<h2>Layers</h2>\n<p>By itself, %s hurts most: KL %.4g when nothing else is compressed.</p>\n"
                       "<div class=\"grid\">\n",
                       name, r->layers[worst].own_kl);
    add_layer_bars(out, r, "KL when only this is compressed", 1, own_kl);
    add_layer_bars(out, r, "Error of the weights, relative MSE", 0, weight_error);
    add_layer_bars(out, r, "Error of the hidden states after it, everything compressed", 2, output_error);
    qins_buffer_printf(
        out, "</div>\n<p></p><div class=\"wide\"><table><tr><th>compressed</th><th>error of weights</th><th>of hidden "
             "states after it</th><th>their cosine</th><th>error alone</th><th>KL alone</th></tr>\n");
    for (size_t i = 0; i < r->n_layers; i++) {
        const qins_layer_score *l = &r->layers[i];
        layer_name(r, i, name);
        qins_buffer_printf(out, "<tr><td>%s</td>", name);
        const double values[] = {l->weight_rel_mse, l->output_rel_mse, l->cosine, l->own_rel_mse, l->own_kl};
        for (size_t k = 0; k < sizeof values / sizeof values[0]; k++)
            if (isfinite(values[k]))
                qins_buffer_printf(out, k == 2 ? "<td>%.6f</td>" : "<td>%.3g</td>", values[k]);
            else
                qins_buffer_printf(out, "<td></td>");
        qins_buffer_printf(out, "</tr>\n");
    }
    qins_buffer_printf(out, "</table></div>\n");
}

/* ---- sampling and generation ---- */

static void add_strategies(qins_buffer *out, const qins_verify_result *r) {
    if (r->n_strategies == 0) return;
    qins_buffer_printf(
        out,
        "<h2>Sampling with the same random draws</h2>\n<div class=\"wide\"><table><tr><th>%zu positions</th>"
        "<th>same token, one draw</th><th>a draw for each token</th><th>most that is possible</th>"
        "<th>KL of what is kept</th><th>probability missed</th></tr>\n",
        r->strategies[0].n);
    for (size_t i = 0; i < r->n_strategies; i++) {
        const qins_strategy_score *s = &r->strategies[i];
        escaped_row(out, s->name);
        qins_buffer_printf(out,
                           "<td>%.2f&nbsp;%%</td><td>%.2f&nbsp;%%</td><td>%.2f&nbsp;%%</td><td>%.4g</td>"
                           "<td>%.3f&nbsp;%%</td></tr>\n",
                           100 * s->agreement, 100 * s->coupled, 100 * s->overlap, s->kl, 100 * s->missed);
    }
    qins_buffer_printf(out, "</table></div>\n");
}

static void add_token(qins_buffer *out, int32_t id, const char *text) {
    char line[2 * sizeof((qins_greedy_result *)NULL)->text]; /* with line breaks as in C */
    size_t n = 0;
    for (; *text != '\0'; text++) {
        if (*text == '\n') line[n++] = '\\';
        line[n++] = *text == '\n' ? 'n' : *text;
    }
    line[n] = '\0';
    qins_buffer_printf(out, "<td><code>");
    qins_html_escape(out, line);
    qins_buffer_printf(out, "</code> %d</td>", id);
}

static void add_divergence(qins_buffer *out, const qins_greedy_result *g) {
    add_token(out, g->ref_token, g->ref_text);
    add_token(out, g->token, g->text);
    qins_buffer_printf(out, "<td>%.4g</td></tr>\n", g->ref_margin);
}

static void add_greedy(qins_buffer *out, const qins_verify_result *r) {
    if (r->n_greedy == 0) return;
    qins_buffer_printf(
        out,
        "<h2>Greedy generation</h2>\n<p>%zu of %zu tokens (%.2f&nbsp;%%) are the reference's up to the first "
        "that differs; after the reference's own text %.2f&nbsp;%% are. %zu of %zu prompts are the same to "
        "the end.</p>\n<div class=\"wide\"><table><tr><th>prompt</th><th>same up to the first difference</th>"
        "<th>after the reference's text</th><th>reference's token</th><th>the model's</th><th>margin</th></tr>\n",
        r->greedy_matched, r->greedy_of, 100 * share(r->greedy_matched, r->greedy_of),
        100 * share(r->greedy_agreed, r->greedy_of), r->greedy_identical, r->n_greedy);
    for (size_t i = 0; i < r->n_greedy; i++) {
        const qins_greedy_result *g = &r->greedy[i];
        qins_buffer_printf(out, "<tr><td>%zu ", i + 1);
        qins_html_escape(out, g->kind != NULL ? g->kind : "");
        qins_buffer_printf(out, "</td><td>%zu of %zu</td><td>%zu</td>", g->matched, g->of, g->agreed);
        if (g->first_divergence < g->of)
            add_divergence(out, g);
        else
            qins_buffer_printf(out, "<td></td><td></td><td></td></tr>\n");
    }
    qins_buffer_printf(out, "</table></div>\n");
}

/* ---- the page ---- */

static qins_status write_page(const char *path, const qins_buffer *page, qins_error *err) {
    const char *slash = strrchr(path, '/');
    char *dir = slash == NULL   ? qins_strdup(".")
                : slash == path ? qins_strdup("/")
                                : strndup(path, (size_t)(slash - path));
    if (dir == NULL) return qins_fail_memory(err, strlen(path), "a path");
    qins_status status = qins_replace_file(dir, slash != NULL ? slash + 1 : path, page->data, page->size, err);
    free(dir);
    return status;
}

qins_status qins_verify_write_html(const qins_verify_result *r, const char *reference, const char *model,
                                   const char *path, qins_error *err) {
    qins_buffer page = {0};
    char *title = qins_format("%s against %s", model, reference);
    if (title == NULL) return qins_fail_memory(err, strlen(model) + strlen(reference), "a title");
    qins_page_begin(&page, title);
    qins_buffer_printf(&page, "<h1>");
    qins_html_escape(&page, title);
    qins_buffer_printf(
        &page,
        "</h1>\n<p class=\"faint\">Measured by qins %s with %s kernels, on the text with XXH3-64 %s. What "
        "every figure means: docs/measuring.md of qins.</p>\n",
        QINS_VERSION_STRING, qins_cpu_level(), r->text_xxh3_64);
    add_summary(&page, r);
    qins_buffer_printf(&page, "<h2>Along the context</h2>\n<div class=\"grid\">\n");
    add_position_chart(&page, r, "mean KL", "nats", 0, false);
    add_position_chart(&page, r, "same best token", "share", 2, true);
    qins_buffer_printf(&page, "</div>\n");
    add_layers(&page, r);
    add_strategies(&page, r);
    add_greedy(&page, r);
    qins_page_end(&page);
    qins_status status = page.failed ? qins_fail_memory(err, page.size, "a report") : write_page(path, &page, err);
    qins_buffer_free(&page);
    free(title);
    return status;
}
