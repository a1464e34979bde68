/* Charts as SVG inside an HTML page that needs nothing from outside. SPDX-License-Identifier: MIT
 *
 * Everything is appended to a buffer; the buffer's `failed` says whether memory ran out. Colours and fonts come from
 * the page's style (report_page.html), so that charts follow the reader's light or dark setting. All names are escaped
 * here: callers pass them as they are.
 */
#ifndef QINS_CHART_H
#define QINS_CHART_H

#include "base/base.h"

enum { QINS_CHART_STYLES = 8 }; /* colours and marker shapes that differ from each other */

/* text with & < > " ' as entities; bytes that are not UTF-8 and control characters become U+FFFD. */
void qins_html_escape(qins_buffer *out, const char *text);

/* The page up to its body, and from there on. title is plain text. */
void qins_page_begin(qins_buffer *out, const char *title);
void qins_page_end(qins_buffer *out);

typedef struct qins_chart_point {
    double x, y;
    const char *label; /* shown when the pointer rests on it; NULL for none */
} qins_chart_point;

typedef struct qins_chart_series {
    const char *name;
    int style; /* 0 .. QINS_CHART_STYLES - 1 */
    bool line; /* points are joined in their order */
    bool bare; /* no markers, and the line is dashed: a bound, not a measurement */
    const qins_chart_point *points;
    size_t n_points;
} qins_chart_series;

typedef struct qins_chart {
    const char *title, *x_label, *y_label;
    bool x_log, y_log;     /* points that are not positive are left out on such an axis */
    bool x_zero, y_zero;   /* the axis begins at 0 (linear axes) */
    double y_max;          /* > 0: where the axis ends; otherwise at the largest value */
    const char *tick_unit; /* after the numbers of the y axis, "%"; NULL for none */
    const qins_chart_series *series;
    size_t n_series;
} qins_chart;

/* A figure with lines, markers and a legend. Points that are not finite are left out. */
void qins_chart_lines(qins_buffer *out, const qins_chart *chart);

typedef struct qins_bar {
    const char *name, *text; /* text: what stands at the end of the bar */
    double value;            /* >= 0 */
    double limit;            /* > 0: a mark that the bar could reach */
    int style;
} qins_bar;

/* A figure with one horizontal bar a row; the longest value or limit fills the width. */
void qins_chart_bars(qins_buffer *out, const char *title, const qins_bar *bars, size_t n_bars);

/* A figure with n vertical bars without names, heights in proportion to counts. */
void qins_chart_histogram(qins_buffer *out, const char *title, const char *caption, int style, const uint64_t *counts,
                          size_t n);

/* A figure of n_rows x n_cols cells, row-major, stronger the larger on a logarithmic scale from low to high; NaN is an
 * empty cell. */
typedef struct qins_heat_map {
    const char *title, *caption;
    const char *const *row_names, *const *col_names;
    size_t n_rows, n_cols;
    const double *values;
    double low, high;
} qins_heat_map;
void qins_chart_heat_map(qins_buffer *out, const qins_heat_map *map);

#endif
