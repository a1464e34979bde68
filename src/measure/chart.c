/* Line charts as SVG. SPDX-License-Identifier: MIT */
#include "measure/chart.h"

#include <math.h>
#include <stdlib.h>

/* In units of the view box. It is small, so that letters are still legible where the page scales it to a phone. */
enum { WIDTH = 440, HEIGHT = 330, LEFT = 62, RIGHT = 20, TOP = 10, BOTTOM = 46, MAX_TICKS = 16 };

typedef struct axis {
    bool is_log;
    double low, high; /* of log10 of the value when is_log */
    double from, to;  /* where low and high lie in the picture */
    double ticks[MAX_TICKS];
    size_t n_ticks;
} axis;

/* Marker shapes about the origin, as path data. */
static const char *const markers[QINS_CHART_STYLES] = {
    "M-4.5 0a4.5 4.5 0 1 0 9 0a4.5 4.5 0 1 0 -9 0z",
    "M-4-4h8v8h-8z",
    "M0-5.5L5.5 0L0 5.5L-5.5 0z",
    "M0-5.5L5 3.5H-5z",
    "M0 5.5L5-3.5H-5z",
    "M-1.7-5h3.4v3.3h3.3v3.4h-3.3v3.3h-3.4v-3.3h-3.3v-3.4h3.3z",
    "M-5-3.5h10v7h-10z",
    "M-3.5-5h7v10h-7z",
};

static double place(const axis *a, double value) {
    double v = a->is_log ? log10(value) : value;
    return a->from + (v - a->low) / (a->high - a->low) * (a->to - a->from);
}

static bool is_shown(const qins_chart *c, const qins_chart_point *p) {
    return isfinite(p->x) && isfinite(p->y) && (!c->x_log || p->x > 0) && (!c->y_log || p->y > 0);
}

/* Widens [low, high] to values that a reader likes, about `wanted` of them. */
static void linear_ticks(axis *a, int wanted, bool keep_high) {
    double step = pow(10, floor(log10((a->high - a->low) / wanted)));
    static const double multiples[] = {1, 2, 5, 10};
    for (size_t i = 0; i < 4; i++)
        if ((a->high - a->low) / (step * multiples[i]) <= wanted || i == 3) {
            step *= multiples[i];
            break;
        }
    a->low = floor(a->low / step + 1e-9) * step;
    if (!keep_high) a->high = ceil(a->high / step - 1e-9) * step;
    for (double t = a->low; t <= a->high + step * 1e-6 && a->n_ticks < MAX_TICKS; t += step)
        a->ticks[a->n_ticks++] = fabs(t) < step * 1e-6 ? 0 : t;
}

/* Whole decades; 2 and 5 between them when there are few. */
static void log_ticks(axis *a) {
    a->low = floor(a->low + 1e-9);
    a->high = ceil(a->high - 1e-9);
    if (a->high <= a->low) a->high = a->low + 1;
    double every = ceil((a->high - a->low) / 8);
    bool fine = a->high - a->low <= 2;
    for (double d = a->low; d <= a->high && a->n_ticks + 3 <= MAX_TICKS; d += every) {
        a->ticks[a->n_ticks++] = pow(10, d);
        if (!fine || d >= a->high) continue;
        a->ticks[a->n_ticks++] = 2 * pow(10, d);
        a->ticks[a->n_ticks++] = 5 * pow(10, d);
    }
}

static void fit_axis(axis *a, const qins_chart *c, bool is_x) {
    *a = (axis){.is_log = is_x ? c->x_log : c->y_log, .low = INFINITY, .high = -INFINITY};
    a->from = is_x ? LEFT : HEIGHT - BOTTOM;
    a->to = is_x ? WIDTH - RIGHT : TOP;
    for (size_t s = 0; s < c->n_series; s++)
        for (size_t i = 0; i < c->series[s].n_points; i++) {
            const qins_chart_point *p = &c->series[s].points[i];
            if (!is_shown(c, p)) continue;
            double v = is_x ? p->x : p->y;
            v = a->is_log ? log10(v) : v;
            a->low = fmin(a->low, v);
            a->high = fmax(a->high, v);
        }
    if (a->low > a->high) a->low = 0, a->high = 1;
    if (!a->is_log && (is_x ? c->x_zero : c->y_zero)) a->low = fmin(a->low, 0);
    if (!is_x && !a->is_log && c->y_max > 0) a->high = c->y_max;
    if (a->high - a->low < 1e-9 * fmax(1, fabs(a->high))) a->low -= 0.5, a->high += 0.5;
    if (a->is_log)
        log_ticks(a);
    else
        linear_ticks(a, is_x ? 8 : 6, !is_x && c->y_max > 0);
}

/* "0.01", "1e-5": short, for the margin is narrow. */
static void add_number(qins_buffer *out, double value) {
    double exponent = value > 0 ? floor(log10(value) + 1e-9) : 0;
    if (exponent < -3 || exponent > 4)
        qins_buffer_printf(out, "%.3ge%.0f", value / pow(10, exponent), exponent);
    else
        qins_buffer_printf(out, "%.4g", value);
}

static void draw_axes(qins_buffer *out, const qins_chart *c, const axis *x, const axis *y) {
    for (size_t i = 0; i < y->n_ticks; i++) {
        double at = place(y, y->ticks[i]);
        qins_buffer_printf(out, "<path class=\"grid-line\" d=\"M%d %.1fH%d\"/>", LEFT, at, WIDTH - RIGHT);
        qins_buffer_printf(out, "<text class=\"tick\" x=\"%d\" y=\"%.1f\" text-anchor=\"end\">", LEFT - 6, at + 4);
        add_number(out, y->ticks[i]);
        if (c->tick_unit != NULL) qins_html_escape(out, c->tick_unit);
        qins_buffer_printf(out, "</text>\n");
    }
    for (size_t i = 0; i < x->n_ticks; i++) {
        double at = place(x, x->ticks[i]);
        qins_buffer_printf(out, "<path class=\"grid-line\" d=\"M%.1f %dV%d\"/>", at, TOP, HEIGHT - BOTTOM);
        qins_buffer_printf(out, "<text class=\"tick\" x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">", at,
                           HEIGHT - BOTTOM + 17);
        add_number(out, x->ticks[i]);
        qins_buffer_printf(out, "</text>\n");
    }
    qins_buffer_printf(out, "<text x=\"%d\" y=\"%d\" text-anchor=\"middle\">", (LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8);
    qins_html_escape(out, c->x_label);
    qins_buffer_printf(out, "</text>\n<text transform=\"translate(14 %d) rotate(-90)\" text-anchor=\"middle\">",
                       (TOP + HEIGHT - BOTTOM) / 2);
    qins_html_escape(out, c->y_label);
    qins_buffer_printf(out, "</text>\n");
}

static void draw_line(qins_buffer *out, const qins_chart *c, const qins_chart_series *s, const axis *x, const axis *y) {
    bool begun = false;
    qins_buffer_printf(out, "<path class=\"line%s\" d=\"", s->bare ? " bare" : "");
    for (size_t i = 0; i < s->n_points; i++) {
        if (!is_shown(c, &s->points[i])) continue;
        qins_buffer_printf(out, "%c%.1f %.1f", begun ? 'L' : 'M', place(x, s->points[i].x), place(y, s->points[i].y));
        begun = true;
    }
    qins_buffer_printf(out, "\"/>\n");
}

static void draw_markers(qins_buffer *out, const qins_chart *c, const qins_chart_series *s, const axis *x,
                         const axis *y) {
    for (size_t i = 0; i < s->n_points; i++) {
        const qins_chart_point *p = &s->points[i];
        if (!is_shown(c, p)) continue;
        qins_buffer_printf(out, "<path class=\"marker\" transform=\"translate(%.1f %.1f)\" d=\"%s\">", place(x, p->x),
                           place(y, p->y), markers[s->style % QINS_CHART_STYLES]);
        if (p->label != NULL) {
            qins_buffer_printf(out, "<title>");
            qins_html_escape(out, p->label);
            qins_buffer_printf(out, "</title>");
        }
        qins_buffer_printf(out, "</path>\n");
    }
}

static bool is_drawn(const qins_chart *c, const qins_chart_series *s) {
    for (size_t i = 0; i < s->n_points; i++)
        if (is_shown(c, &s->points[i])) return true;
    return false;
}

static void draw_legend(qins_buffer *out, const qins_chart *c) {
    qins_buffer_printf(out, "<ul class=\"legend\">");
    for (size_t i = 0; i < c->n_series; i++) {
        const qins_chart_series *s = &c->series[i];
        if (!is_drawn(c, s)) continue;
        int style = s->style % QINS_CHART_STYLES;
        qins_buffer_printf(out, "<li class=\"k%d\"><svg viewBox=\"-12 -7 24 14\" aria-hidden=\"true\">", style);
        if (s->line) qins_buffer_printf(out, "<path class=\"line%s\" d=\"M-11 0H11\"/>", s->bare ? " bare" : "");
        if (!s->bare) qins_buffer_printf(out, "<path class=\"marker\" d=\"%s\"/>", markers[style]);
        qins_buffer_printf(out, "</svg><span>");
        qins_html_escape(out, s->name);
        qins_buffer_printf(out, "</span></li>\n");
    }
    qins_buffer_printf(out, "</ul>");
}

void qins_chart_lines(qins_buffer *out, const qins_chart *c) {
    axis x, y;
    fit_axis(&x, c, true);
    fit_axis(&y, c, false);
    qins_buffer_printf(out, "<figure><h3>");
    qins_html_escape(out, c->title);
    qins_buffer_printf(out, "</h3><svg viewBox=\"0 0 %d %d\" role=\"img\" aria-label=\"", WIDTH, HEIGHT);
    qins_html_escape(out, c->title);
    qins_buffer_printf(out, "\">\n");
    draw_axes(out, c, &x, &y);
    for (size_t i = 0; i < c->n_series; i++) {
        const qins_chart_series *s = &c->series[i];
        qins_buffer_printf(out, "<g class=\"k%d\">", s->style % QINS_CHART_STYLES);
        if (s->line) draw_line(out, c, s, &x, &y);
        if (!s->bare) draw_markers(out, c, s, &x, &y);
        qins_buffer_printf(out, "</g>\n");
    }
    qins_buffer_printf(out, "</svg>\n");
    draw_legend(out, c);
    qins_buffer_printf(out, "</figure>\n");
}
