/* The roofline of a benchmark as a page. SPDX-License-Identifier: MIT */
#include "measure/chart.h"

#include <stdio.h>
#include <stdlib.h>

enum { ROOF_POINTS = 3, NAME_SIZE = 64 };

/* Weights multiplied a byte read, by a matrix of this width and this many tokens at once. */
static double intensity(int bits, double tokens) {
    return 8.0 / bits * tokens;
}

qins_status qins_bench_page(const qins_bench_result *r, const char *model_name, char **html, size_t *n_bytes,
                            qins_error *err) {
    enum { TOKENS = 126 };
    qins_buffer out = {0};
    qins_chart_point one[QINS_BENCH_WIDTHS], many[QINS_BENCH_WIDTHS], model[2];
    char labels[2 * QINS_BENCH_WIDTHS][NAME_SIZE], texts[QINS_BENCH_WIDTHS][NAME_SIZE],
        names[QINS_BENCH_WIDTHS][NAME_SIZE];
    qins_bar bars[QINS_BENCH_WIDTHS];
    double peak = 0;
    for (size_t i = 0; i < QINS_BENCH_WIDTHS; i++) {
        const qins_bench_gemv *g = &r->gemv[i];
        snprintf(labels[i], NAME_SIZE, "%d bits, one token: %.1f GB/s", g->bits, g->gbps);
        snprintf(labels[QINS_BENCH_WIDTHS + i], NAME_SIZE, "%d bits, %d tokens: %.0f GMAC/s", g->bits, TOKENS,
                 g->gmacs);
        one[i] = (qins_chart_point){intensity(g->bits, 1), g->gbps * intensity(g->bits, 1), labels[i]};
        many[i] = (qins_chart_point){intensity(g->bits, TOKENS), g->gmacs, labels[QINS_BENCH_WIDTHS + i]};
        peak = g->gmacs > peak ? g->gmacs : peak;
        snprintf(names[i], NAME_SIZE, "%d bits", g->bits);
        snprintf(texts[i], NAME_SIZE, "%.1f GB/s, %.0f %%", g->gbps, 100 * g->share);
        bars[i] = (qins_bar){names[i], texts[i], g->gbps, r->read_gbps, 0};
    }
    double params = (double)r->params;
    model[0] = (qins_chart_point){params / r->bytes_per_token, params * r->decode_tps * 1e-9, "generation"};
    model[1] = (qins_chart_point){params / r->bytes_per_token * TOKENS, params * r->prefill_tps * 1e-9, "prompt"};
    const qins_chart_point roof[ROOF_POINTS] = {{0.5, 0.5 * r->read_gbps, "read bandwidth"},
                                                {peak / r->read_gbps, peak, "ridge"},
                                                {1000, peak, "largest product rate measured"}};
    const qins_chart_series series[] = {
        {.name = "limit", .style = 0, .line = true, .bare = true, .points = roof, .n_points = ROOF_POINTS},
        {.name = "matrix, one token", .style = 1, .points = one, .n_points = QINS_BENCH_WIDTHS},
        {.name = "matrix, many tokens", .style = 2, .points = many, .n_points = QINS_BENCH_WIDTHS},
        {.name = "model", .style = 3, .points = model, .n_points = 2}};
    const qins_chart chart = {.title = "Roofline",
                              .x_label = "products of a weight and an input, per byte of weights read",
                              .y_label = "GMAC/s",
                              .x_log = true,
                              .y_log = true,
                              .series = series,
                              .n_series = sizeof series / sizeof series[0]};
    qins_page_begin(&out, "Speed beside this machine's limits");
    qins_buffer_printf(&out, "<h1>Speed beside this machine's limits</h1>\n<p>");
    qins_html_escape(&out, model_name);
    qins_buffer_printf(&out,
                       ": %d threads, kernels %s. Memory reads at %.1f GB/s. Prompt %.1f tokens/s, generation %.1f "
                       "tokens/s, %.0f %% of the %.1f that reading %.1f MB a token allows.</p>\n",
                       r->threads, qins_cpu_level(), r->read_gbps, r->prefill_tps, r->decode_tps, 100 * r->decode_share,
                       r->decode_limit_tps, r->bytes_per_token * 1e-6);
    qins_chart_lines(&out, &chart);
    qins_chart_bars(&out, "Matrix times vector from memory, beside the read bandwidth", bars, QINS_BENCH_WIDTHS);
    qins_page_end(&out);
    if (out.failed) {
        qins_buffer_free(&out);
        return qins_fail_memory(err, out.size, "a page");
    }
    *html = out.data;
    *n_bytes = out.size;
    return QINS_OK;
}
