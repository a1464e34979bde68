/* The report of a sweep: charts, heat maps, histograms, a table to copy. SPDX-License-Identifier: MIT */
#include "measure/chart.h"
#include "measure/sweep.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Points beyond are in the table only: they would squeeze the others into a corner. */
static const double MOST_CHARTED_BPW = 10;

/* Of one name; points in the order of the sweep. */
typedef struct series {
    const char *name;
    const qins_sweep_point **points;
    size_t n_points;
    bool entropy_coded;
} series;

typedef struct report {
    const qins_sweep *sweep;
    series *series;
    size_t n_series;
    const qins_sweep_point **order; /* [n_points] by series: what series.points point into */
    qins_chart_point *chart_points; /* [n_points], then BOUND_POINTS */
    char (*labels)[80];             /* [n_points] */
    qins_buffer out;
} report;

enum { BOUND_POINTS = 2 };

static void report_free(report *r) {
    free(r->series);
    free(r->order);
    free(r->chart_points);
    free(r->labels);
    qins_buffer_free(&r->out);
}

static void group_by_series(report *r) {
    size_t n = r->sweep->info.n_points, placed = 0;
    for (size_t i = 0; i < n; i++) {
        const char *name = r->sweep->points[i].series;
        bool known = false;
        for (size_t s = 0; s < r->n_series; s++)
            known = known || strcmp(r->series[s].name, name) == 0;
        if (known) continue;
        series *added = &r->series[r->n_series++];
        *added = (series){.name = name,
                          .points = r->order + placed,
                          .entropy_coded = r->sweep->points[i].file_bpw < r->sweep->points[i].bpw};
        for (size_t j = i; j < n; j++)
            if (strcmp(r->sweep->points[j].series, name) == 0) r->order[placed++] = &r->sweep->points[j];
        added->n_points = (size_t)(r->order + placed - added->points);
    }
}

static qins_status report_new(report *r, const qins_sweep *sweep, qins_error *err) {
    size_t n = sweep->info.n_points;
    *r = (report){.sweep = sweep};
    r->series = qins_alloc(n, sizeof *r->series);
    r->order = qins_alloc(n, sizeof *r->order);
    r->chart_points = qins_alloc(n + BOUND_POINTS, sizeof *r->chart_points);
    r->labels = qins_alloc(n, sizeof *r->labels);
    if (r->series == NULL || r->order == NULL || r->chart_points == NULL || r->labels == NULL)
        return qins_fail_memory(err, n * sizeof *r->labels, "report");
    group_by_series(r);
    return QINS_OK;
}

/* ---- rate charts ---- */

typedef double (*measure_fn)(const qins_sweep_point *p);

static double kl_of(const qins_sweep_point *p) {
    return p->kl_mean;
}
static double top1_of(const qins_sweep_point *p) {
    return 100 * p->top1;
}
static double error_of(const qins_sweep_point *p) {
    return p->rel_mse;
}
static double gap_of(const qins_sweep_point *p) {
    return p->gap_bits;
}

static int by_rate(const void *a, const void *b) {
    double x = ((const qins_chart_point *)a)->x, y = ((const qins_chart_point *)b)->x;
    return (x > y) - (x < y);
}

/* KL over relative squared error of the first series, geometric mean: what an error costs on this model. */
static double kl_per_error(const report *r) {
    double sum = 0;
    size_t n = 0;
    for (size_t i = 0; i < r->series[0].n_points; i++) {
        const qins_sweep_point *p = r->series[0].points[i];
        if (!(p->kl_mean > 0) || !(p->rel_mse > 0)) continue;
        sum += log(p->kl_mean / p->rel_mse);
        n++;
    }
    return n > 0 ? exp(sum / (double)n) : NAN;
}

/* factor * 2^(-2 R): the least error of a Gaussian at R bits a weight (Shannon 1959), over the rates charted. */
static qins_chart_series bound_series(const report *r, const char *name, double factor) {
    double low = INFINITY, high = 0;
    for (size_t i = 0; i < r->sweep->info.n_points; i++) {
        double x = r->order[i]->bpw;
        if (!(x <= MOST_CHARTED_BPW) || r->order[i]->file_bpw < x) continue;
        low = fmin(low, x);
        high = fmax(high, x);
    }
    qins_chart_point *bound = r->chart_points + r->sweep->info.n_points;
    bound[0] = (qins_chart_point){low, factor * exp2(-2 * low), NULL};
    bound[1] = (qins_chart_point){high, factor * exp2(-2 * high), NULL};
    return (qins_chart_series){
        .name = name, .style = 7, .line = true, .bare = true, .points = bound, .n_points = BOUND_POINTS};
}

/* Fixed widths by what they take in memory; entropy-coded series beside the codec that is best at fixed widths by what
 * they take in the file. */
typedef enum chart_kind { FIXED_WIDTHS, FILES } chart_kind;

static bool has_codec(const report *r, const char *codec) {
    for (size_t i = 0; i < r->sweep->info.n_points; i++)
        if (strcmp(r->sweep->points[i].codec, codec) == 0) return true;
    return false;
}

static bool is_in(const report *r, const series *s, chart_kind kind) {
    if (kind == FIXED_WIDTHS) return !s->entropy_coded;
    const char *best = has_codec(r, "trellis") ? "trellis" : "gauss";
    return s->entropy_coded || strcmp(s->points[0]->codec, best) == 0;
}

typedef struct rate_chart {
    chart_kind kind;
    const char *title, *y_label, *unit;
    measure_fn measure;
    bool y_log, y_zero;
    double y_max;
    const char *bound; /* name of the bound; NULL for none */
    double bound_factor;
} rate_chart;

static void add_rate_chart(report *r, const rate_chart *c) {
    qins_chart_series *drawn = qins_alloc(r->n_series + 1, sizeof *drawn);
    if (drawn == NULL) {
        r->out.failed = true;
        return;
    }
    size_t n_drawn = 0;
    for (size_t s = 0, at = 0; s < r->n_series; at += r->series[s].n_points, s++) {
        if (!is_in(r, &r->series[s], c->kind)) continue;
        for (size_t i = 0; i < r->series[s].n_points; i++) {
            const qins_sweep_point *p = r->series[s].points[i];
            double rate = c->kind == FILES ? p->file_bpw : p->bpw, x = rate <= MOST_CHARTED_BPW ? rate : NAN;
            snprintf(r->labels[at + i], sizeof *r->labels, "%.40s: %.3f bits, %.4g", p->series, rate, c->measure(p));
            r->chart_points[at + i] = (qins_chart_point){x, c->measure(p), r->labels[at + i]};
        }
        qsort(r->chart_points + at, r->series[s].n_points, sizeof *r->chart_points, by_rate);
        size_t n_styles = c->bound != NULL ? QINS_CHART_STYLES - 1 : QINS_CHART_STYLES;
        drawn[n_drawn] = (qins_chart_series){.name = r->series[s].name,
                                             .style = (int)(n_drawn % n_styles),
                                             .line = r->series[s].n_points > 1,
                                             .points = r->chart_points + at,
                                             .n_points = r->series[s].n_points};
        n_drawn++;
    }
    if (c->bound != NULL && isfinite(c->bound_factor)) drawn[n_drawn++] = bound_series(r, c->bound, c->bound_factor);
    const qins_chart chart = {.title = c->title,
                              .x_label = c->kind == FILES ? "bits a weight in the file" : "bits a weight",
                              .y_label = c->y_label,
                              .y_log = c->y_log,
                              .y_zero = c->y_zero,
                              .y_max = c->y_max,
                              .tick_unit = c->unit,
                              .series = drawn,
                              .n_series = n_drawn};
    qins_chart_lines(&r->out, &chart);
    free(drawn);
}

/* Does pruning or entropy coding win at the same size? */
static void add_file_charts(report *r) {
    const rate_chart charts[] = {{.kind = FILES,
                                  .title = "File size against divergence",
                                  .y_label = "KL, nats a token",
                                  .measure = kl_of,
                                  .y_log = true},
                                 {.kind = FILES,
                                  .title = "File size against agreement",
                                  .y_label = "same best token",
                                  .unit = " %",
                                  .measure = top1_of,
                                  .y_max = 100}};
    bool any = false;
    for (size_t s = 0; s < r->n_series; s++)
        any = any || r->series[s].entropy_coded;
    if (!any) return;
    qins_buffer_printf(&r->out,
                       "<h2>At the same file size</h2><p>Entropy-coded files take less on disk than in memory; "
                       "zeros take next to nothing there. Fixed widths take the same in both.</p>"
                       "<div class=\"grid\">\n");
    for (size_t i = 0; i < sizeof charts / sizeof *charts; i++)
        add_rate_chart(r, &charts[i]);
    qins_buffer_printf(&r->out, "</div>\n");
}

static bool any_fixed_width(const report *r) {
    bool any = false;
    for (size_t s = 0; s < r->n_series; s++)
        any = any || !r->series[s].entropy_coded;
    return any;
}

static void add_rate_charts(report *r) {
    const rate_chart charts[] = {
        {.title = "Rate against divergence",
         .y_label = "KL, nats a token",
         .measure = kl_of,
         .y_log = true,
         .bound = "Gaussian bound, at the first codec's KL for an error",
         .bound_factor = kl_per_error(r)},
        {.title = "Rate against agreement",
         .y_label = "same best token",
         .unit = " %",
         .measure = top1_of,
         .y_max = 100},
        {.title = "Rate against error",
         .y_label = "squared error / sum of squares",
         .measure = error_of,
         .y_log = true,
         .bound = "Gaussian bound",
         .bound_factor = 1},
        {.title = "Distance to the Gaussian bound",
         .y_label = "bits a weight above it",
         .measure = gap_of,
         .y_zero = true},
    };
    qins_buffer_printf(&r->out, "<div class=\"grid\">\n");
    for (size_t i = 0; i < sizeof charts / sizeof *charts && any_fixed_width(r); i++)
        add_rate_chart(r, &charts[i]);
    qins_buffer_printf(&r->out, "</div>\n");
    for (size_t i = 0; i < r->sweep->info.n_points; i++) {
        const qins_sweep_point *p = &r->sweep->points[i];
        if (p->bpw <= MOST_CHARTED_BPW) continue;
        qins_buffer_printf(&r->out, "<p class=\"faint\">Not charted: ");
        qins_html_escape(&r->out, p->series);
        qins_buffer_printf(&r->out, ", %.2f bits a weight, KL %.3g, same best token %.2f %%.</p>\n", p->bpw, p->kl_mean,
                           100 * p->top1);
    }
}

/* ---- heat maps ---- */

/* Point of a series whose rate in the file is nearest to `bpw`. */
static const qins_sweep_point *nearest_point(const series *s, double bpw) {
    const qins_sweep_point *best = s->points[0];
    for (size_t i = 1; i < s->n_points; i++)
        if (fabs(s->points[i]->file_bpw - bpw) < fabs(best->file_bpw - bpw)) best = s->points[i];
    return best;
}

/* Range of the errors of a point, widened to LEAST_RANGE, so that chance differences stay pale. */
static bool error_range(const report *r, const qins_sweep_point *p, double *low, double *high) {
    static const double LEAST_RANGE = 4; /* what one bit makes */
    *low = INFINITY;
    *high = 0;
    for (size_t i = 0; i < r->sweep->info.n_layers * r->sweep->info.n_kinds; i++)
        if (p->layer_errors[i] > 0 && isfinite(p->layer_errors[i]))
            *low = fmin(*low, p->layer_errors[i]), *high = fmax(*high, p->layer_errors[i]);
    if (!(*high > 0)) return false;
    double widen = sqrt(fmax(1, LEAST_RANGE / (*high / *low)));
    *low /= widen;
    *high *= widen;
    return true;
}

static void add_heat_map(report *r, const qins_sweep_point *p, const char *const *names) {
    char caption[160];
    double low, high;
    if (!error_range(r, p, &low, &high)) return;
    snprintf(caption, sizeof caption, "%.2f bits a weight, %.3g over all linears; faint %.2g, strong %.2g", p->file_bpw,
             p->rel_mse, low, high);
    const qins_heat_map map = {.title = p->series,
                               .caption = caption,
                               .row_names = names,
                               .col_names = r->sweep->info.kinds,
                               .n_rows = r->sweep->info.n_layers,
                               .n_cols = r->sweep->info.n_kinds,
                               .values = p->layer_errors,
                               .low = low,
                               .high = high};
    qins_chart_heat_map(&r->out, &map);
}

static void add_heat_maps(report *r) {
    static const double MAPPED_BPW = 4;
    size_t n_layers = r->sweep->info.n_layers;
    char(*numbers)[24] = qins_alloc(n_layers, sizeof *numbers);
    const char **names = qins_alloc(n_layers, sizeof *names);
    if (numbers == NULL || names == NULL) r->out.failed = true;
    if (!r->out.failed) {
        for (size_t i = 0; i < n_layers; i++) {
            snprintf(numbers[i], sizeof numbers[i], "%zu", i);
            names[i] = numbers[i];
        }
        qins_buffer_printf(
            &r->out,
            "<h2>Error of each layer</h2><p>Squared error over sum of squares of each linear, at the width nearest to "
            "%.0f bits, on a logarithmic scale of its own for each codec.</p><div class=\"grid small\">\n",
            MAPPED_BPW);
        for (size_t s = 0; s < r->n_series; s++)
            add_heat_map(r, nearest_point(&r->series[s], MAPPED_BPW), names);
        qins_buffer_printf(&r->out, "</div>\n");
    }
    free(names);
    free(numbers);
}

/* ---- histograms ---- */

static void add_histogram(report *r, const qins_sweep_point *p, int style) {
    if (p->n_codes == 0) return;
    char caption[128], title[128];
    snprintf(title, sizeof title, "%.80s, %d bits", p->series, p->bits);
    snprintf(caption, sizeof caption, "%.1f of %zu codes occur in a linear on average; entropy %.2f bits",
             p->codes_used, p->n_codes, p->code_entropy);
    qins_chart_histogram(&r->out, title, caption, style, p->histogram, p->n_codes);
}

static void add_histograms(report *r) {
    qins_buffer_printf(
        &r->out,
        "<h2>Codes that are used</h2><p>How often each code occurs in the linears, from the first code to the last. "
        "A code that never occurs is a gap.</p><div class=\"grid small\">\n");
    for (size_t s = 0; s < r->n_series; s++) {
        const qins_sweep_point *widest = r->series[s].points[0];
        for (size_t i = 1; i < r->series[s].n_points; i++)
            if (r->series[s].points[i]->bits > widest->bits) widest = r->series[s].points[i];
        const qins_sweep_point *narrow = nearest_point(&r->series[s], 4);
        int style = (int)(s % (QINS_CHART_STYLES - 1));
        add_histogram(r, widest, style);
        if (narrow != widest) add_histogram(r, narrow, style);
    }
    qins_buffer_printf(&r->out, "</div>\n");
}

/* ---- the table ---- */

static void add_markdown_name(qins_buffer *out, const char *name) {
    for (const char *c = name; *c != '\0'; c++)
        qins_buffer_printf(out, *c == '|' ? "\\%c" : "%c", *c);
}

static void add_table(report *r) {
    qins_buffer *out = &r->out, markdown = {0};
    qins_buffer_printf(
        out,
        "<h2>Table</h2><div class=\"wide\"><table><tr><th>codec</th><th>bits</th><th>bits a weight</th><th>in the "
        "file</th><th>rel. "
        "MSE</th>"
        "<th>gap, bits</th><th>KL</th><th>KL 99 %%</th><th>top-1</th><th>top-10 shared</th><th>perplexity</th></tr>\n");
    qins_buffer_printf(
        &markdown,
        "| codec | bits | bits a weight | in the file | rel. MSE | gap, bits | KL | KL 99 %% | top-1 | top-10 shared | "
        "perplexity |\n|---|---|---|---|---|---|---|---|---|---|---|\n");
    for (size_t i = 0; i < r->sweep->info.n_points; i++) {
        const qins_sweep_point *p = r->order[i];
        qins_buffer_printf(out, "<tr><td>");
        qins_html_escape(out, p->series);
        qins_buffer_printf(out,
                           "</td><td>%d</td><td>%.3f</td><td>%.3f</td><td>%.2e</td><td>%.3f</td><td>%.5g</td><td>%.4g</"
                           "td><td>%.2f %%</td>"
                           "<td>%.2f %%</td><td>%+.2f %%</td></tr>\n",
                           p->bits, p->bpw, p->file_bpw, p->rel_mse, p->gap_bits, p->kl_mean, p->kl_p99, 100 * p->top1,
                           100 * p->top10_overlap, p->ppl_delta_pct);
        qins_buffer_printf(&markdown, "| ");
        add_markdown_name(&markdown, p->series);
        qins_buffer_printf(&markdown,
                           " | %d | %.3f | %.3f | %.2e | %.3f | %.5g | %.4g | %.2f %% | %.2f %% | %+.2f %% |\n",
                           p->bits, p->bpw, p->file_bpw, p->rel_mse, p->gap_bits, p->kl_mean, p->kl_p99, 100 * p->top1,
                           100 * p->top10_overlap, p->ppl_delta_pct);
    }
    qins_buffer_printf(out, "</table></div>\n<h2>The same as Markdown</h2><p><button "
                            "data-copy=\"markdown\">Copy</button></p><pre id=\"markdown\">");
    if (markdown.data != NULL) qins_html_escape(out, markdown.data);
    out->failed = out->failed || markdown.failed;
    qins_buffer_printf(out, "</pre>\n");
    qins_buffer_free(&markdown);
}

/* ---- the file ---- */

static qins_status replace_path(const char *path, const qins_buffer *data, qins_error *err) {
    const char *slash = strrchr(path, '/');
    char *dir = slash == NULL ? qins_strdup(".") : qins_format("%.*s", (int)(slash == path ? 1 : slash - path), path);
    if (dir == NULL) return qins_fail_memory(err, strlen(path), "path");
    qins_status status = qins_replace_file(dir, slash == NULL ? path : slash + 1, data->data, data->size, err);
    free(dir);
    return status;
}

qins_status qins_sweep_write_html(const qins_sweep *sweep, const char *path, const char *title, const char *about,
                                  qins_error *err) {
    report r;
    qins_status status = report_new(&r, sweep, err);
    if (status == QINS_OK) {
        qins_page_begin(&r.out, title);
        qins_buffer_printf(&r.out, "<h1>");
        qins_html_escape(&r.out, title);
        qins_buffer_printf(&r.out, "</h1>\n");
        if (about != NULL) {
            qins_buffer_printf(&r.out, "<p class=\"faint\">");
            qins_html_escape(&r.out, about);
            qins_buffer_printf(&r.out, "</p>\n");
        }
        add_rate_charts(&r);
        add_file_charts(&r);
        add_heat_maps(&r);
        add_histograms(&r);
        add_table(&r);
        qins_page_end(&r.out);
        status = r.out.failed ? qins_fail_memory(err, r.out.size, "report") : replace_path(path, &r.out, err);
    }
    report_free(&r);
    return status;
}
