/* Bars, histograms and heat maps as SVG. SPDX-License-Identifier: MIT */
#include "measure/chart.h"

#include <math.h>
#include <string.h>

static void begin_figure(qins_buffer *out, const char *title, double width, double height) {
    qins_buffer_printf(out, "<figure><h3>");
    qins_html_escape(out, title);
    qins_buffer_printf(out, "</h3><svg viewBox=\"0 0 %.0f %.0f\" role=\"img\" aria-label=\"", width, height);
    qins_html_escape(out, title);
    qins_buffer_printf(out, "\">\n");
}

static void end_figure(qins_buffer *out, const char *caption) {
    qins_buffer_printf(out, "</svg>");
    if (caption != NULL) {
        qins_buffer_printf(out, "<figcaption>");
        qins_html_escape(out, caption);
        qins_buffer_printf(out, "</figcaption>");
    }
    qins_buffer_printf(out, "</figure>\n");
}

static void add_text(qins_buffer *out, double x, double y, const char *attributes, const char *text) {
    qins_buffer_printf(out, "<text x=\"%.1f\" y=\"%.1f\" %s>", x, y, attributes);
    qins_html_escape(out, text);
    qins_buffer_printf(out, "</text>\n");
}

void qins_chart_bars(qins_buffer *out, const char *title, const qins_bar *bars, size_t n_bars) {
    enum { WIDTH = 440, ROW = 40, BAR = 12 };
    double longest = 0;
    for (size_t i = 0; i < n_bars; i++)
        longest = fmax(longest, fmax(bars[i].value, bars[i].limit));
    begin_figure(out, title, WIDTH, (double)(n_bars * ROW));
    for (size_t i = 0; i < n_bars; i++) {
        const qins_bar *b = &bars[i];
        double y = (double)(i * ROW), scale = longest > 0 ? WIDTH / longest : 0;
        double length = isfinite(b->value) ? b->value * scale : 0;
        add_text(out, 0, y + 15, "", b->name);
        add_text(out, WIDTH, y + 15, "text-anchor=\"end\"", b->text);
        qins_buffer_printf(out, "<rect class=\"track\" x=\"0\" y=\"%.1f\" width=\"%d\" height=\"%d\" rx=\"2\"/>",
                           y + 21, WIDTH, BAR);
        qins_buffer_printf(
            out,
            "<g class=\"k%d\"><rect class=\"bar\" x=\"0\" y=\"%.1f\" width=\"%.1f\" height=\"%d\" rx=\"2\"/></g>\n",
            b->style % QINS_CHART_STYLES, y + 21, length, BAR);
        if (b->limit > 0)
            qins_buffer_printf(out, "<path class=\"limit\" d=\"M%.1f %.1fv%d\"/>\n", fmin(b->limit * scale, WIDTH - 1),
                               y + 18, BAR + 6);
    }
    end_figure(out, NULL);
}

void qins_chart_histogram(qins_buffer *out, const char *title, const char *caption, int style, const uint64_t *counts,
                          size_t n) {
    enum { WIDTH = 256, HEIGHT = 90 };
    uint64_t most = 1;
    for (size_t i = 0; i < n; i++)
        most = counts[i] > most ? counts[i] : most;
    begin_figure(out, title, WIDTH, HEIGHT);
    qins_buffer_printf(out, "<path class=\"grid-line\" d=\"M0 %d.5H%d\"/><g class=\"k%d\">", HEIGHT - 1, WIDTH,
                       style % QINS_CHART_STYLES);
    double width = n > 0 ? (double)WIDTH / (double)n : 0, gap = width > 3 ? 1 : 0;
    for (size_t i = 0; i < n; i++) {
        if (counts[i] == 0) continue;
        /* A code that occurs at all is seen. */
        double height = fmax(1, (HEIGHT - 2) * (double)counts[i] / (double)most);
        qins_buffer_printf(out, "<rect class=\"bar\" x=\"%.2f\" y=\"%.1f\" width=\"%.2f\" height=\"%.1f\"/>",
                           (double)i * width, HEIGHT - 1 - height, width - gap, height);
    }
    qins_buffer_printf(out, "</g>\n");
    end_figure(out, caption);
}

/* 0 to 1 for low to high. */
static double shade(const qins_heat_map *m, double value) {
    double span = log(m->high) - log(m->low);
    double t = span > 0 ? (log(value) - log(m->low)) / span : 0.5;
    return fmin(1, fmax(0, t));
}

void qins_chart_heat_map(qins_buffer *out, const qins_heat_map *m) {
    enum { LEFT = 30, TOP = 20, CELL_WIDTH = 46, CELL_HEIGHT = 16 };
    begin_figure(out, m->title, LEFT + (double)m->n_cols * CELL_WIDTH, TOP + (double)m->n_rows * CELL_HEIGHT);
    for (size_t c = 0; c < m->n_cols; c++)
        add_text(out, LEFT + ((double)c + 0.5) * CELL_WIDTH, TOP - 6, "class=\"tick\" text-anchor=\"middle\"",
                 m->col_names[c]);
    for (size_t r = 0; r < m->n_rows; r++) {
        double y = TOP + (double)r * CELL_HEIGHT;
        add_text(out, LEFT - 6, y + 12, "class=\"tick\" text-anchor=\"end\"", m->row_names[r]);
        for (size_t c = 0; c < m->n_cols; c++) {
            double value = m->values[r * m->n_cols + c];
            if (!(value > 0) || !isfinite(value)) continue;
            qins_buffer_printf(
                out,
                "<rect class=\"cell\" x=\"%.1f\" y=\"%.1f\" width=\"%d\" height=\"%d\" fill-opacity=\"%.3f\"><title>",
                LEFT + (double)c * CELL_WIDTH, y, CELL_WIDTH - 1, CELL_HEIGHT - 1, 0.06 + 0.94 * shade(m, value));
            qins_html_escape(out, m->row_names[r]);
            qins_buffer_printf(out, " ");
            qins_html_escape(out, m->col_names[c]);
            qins_buffer_printf(out, ": %.3g</title></rect>\n", value);
        }
    }
    end_figure(out, m->caption);
}
