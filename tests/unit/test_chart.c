/* Charts and pages: what is drawn, where, and that no name can break out of its place. SPDX-License-Identifier: MIT */
#include "measure/chart.h"
#include "testing.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static size_t count(const char *text, const char *part) {
    size_t n = 0;
    for (const char *p = text; (p = strstr(p, part)) != NULL; p += strlen(part))
        n++;
    return n;
}

static qins_chart chart_of(const qins_chart_series *series, size_t n_series) {
    return (qins_chart){.title = "t", .x_label = "x", .y_label = "y", .series = series, .n_series = n_series};
}

/* The numbers in the first path of class line, "M x y L x y". */
static size_t line_points(const char *svg, double xy[][2], size_t most) {
    const char *d = strstr(svg, "class=\"line\" d=\"");
    assert_non_null(d);
    size_t n = 0;
    for (d += strlen("class=\"line\" d=\""); *d != '"' && n < most; n++) {
        char *end;
        xy[n][0] = strtod(d + 1, &end);
        xy[n][1] = strtod(end, &end);
        d = end;
    }
    return n;
}

static void names_are_escaped(void **state) {
    (void)state;
    qins_buffer out = {0};
    qins_html_escape(&out, "<b a=\"1\" c='2'>&\xFF\x01");
    assert_string_equal(out.data, "&lt;b a=&quot;1&quot; c=&#39;2&#39;&gt;&amp;\xEF\xBF\xBD\xEF\xBF\xBD");
    qins_buffer_free(&out);
}

static void no_name_becomes_markup(void **state) {
    (void)state;
    static const char evil[] = "<script>\"'&</title>";
    const char *names[] = {evil};
    const double value = 1;
    const uint64_t counts[] = {1, 2};
    const qins_chart_point point = {1, 1, evil};
    const qins_chart_series series = {.name = evil, .line = true, .points = &point, .n_points = 1};
    qins_chart chart = chart_of(&series, 1);
    chart.title = chart.x_label = chart.y_label = chart.tick_unit = evil;
    qins_buffer out = {0};
    qins_page_begin(&out, evil);
    size_t scripts = count(out.data, "<script>");
    qins_chart_lines(&out, &chart);
    qins_chart_bars(&out, evil, &(qins_bar){.name = evil, .text = evil, .value = 1}, 1);
    qins_chart_histogram(&out, evil, evil, 0, counts, 2);
    qins_chart_heat_map(&out, &(qins_heat_map){evil, evil, names, names, 1, 1, &value, 0.5, 2});
    assert_false(out.failed);
    assert_int_equal(count(out.data, "<script>"), scripts);
    assert_int_equal(scripts, 0);
    assert_null(strstr(out.data, evil));
    assert_int_equal(count(out.data, "<figure>"), 4);
    assert_int_equal(count(out.data, "</figure>"), 4);
    qins_buffer_free(&out);
}

static void a_log_axis_places_decades_evenly(void **state) {
    (void)state;
    const qins_chart_point points[] = {{1, 1, NULL}, {2, 0.1, NULL}, {3, 0.01, NULL}};
    const qins_chart_series series = {.name = "s", .line = true, .points = points, .n_points = 3};
    qins_chart chart = chart_of(&series, 1);
    chart.y_log = true;
    qins_buffer out = {0};
    double xy[4][2];
    qins_chart_lines(&out, &chart);
    assert_int_equal(line_points(out.data, xy, 4), 3);
    assert_close(xy[1][0] - xy[0][0], xy[2][0] - xy[1][0], 0.11);
    assert_close(xy[1][1] - xy[0][1], xy[2][1] - xy[1][1], 0.11);
    assert_true(xy[0][1] < xy[2][1]); /* larger values stand higher, at a smaller y */
    qins_buffer_free(&out);
}

static void what_cannot_be_drawn_is_left_out(void **state) {
    (void)state;
    const qins_chart_point points[] = {{1, NAN, NULL}, {2, 0, NULL}, {INFINITY, 1, NULL}, {3, -1, NULL}, {4, 5, NULL}};
    const qins_chart_series series = {.name = "s", .line = true, .points = points, .n_points = 5};
    qins_chart chart = chart_of(&series, 1);
    chart.y_log = true;
    qins_buffer out = {0};
    double xy[8][2];
    qins_chart_lines(&out, &chart);
    assert_int_equal(line_points(out.data, xy, 8), 1);
    assert_int_equal(count(out.data, "class=\"marker\" transform"), 1);
    assert_null(strstr(out.data, "nan"));
    assert_null(strstr(out.data, "inf"));
    qins_buffer_free(&out);
}

static void an_empty_chart_is_a_frame(void **state) {
    (void)state;
    const qins_chart chart = chart_of(NULL, 0);
    qins_buffer out = {0};
    qins_chart_lines(&out, &chart);
    qins_chart_bars(&out, "t", NULL, 0);
    qins_chart_histogram(&out, "t", NULL, 0, NULL, 0);
    assert_false(out.failed);
    assert_null(strstr(out.data, "nan"));
    qins_buffer_free(&out);
}

static void a_histogram_draws_the_codes_that_occur(void **state) {
    (void)state;
    uint64_t counts[256] = {[3] = 1, [4] = 1000000, [200] = 7};
    qins_buffer out = {0};
    qins_chart_histogram(&out, "t", NULL, 0, counts, 256);
    assert_int_equal(count(out.data, "class=\"bar\""), 3);
    qins_buffer_free(&out);
}

static void a_heat_map_shades_between_low_and_high(void **state) {
    (void)state;
    static const char *const rows[] = {"0", "1"}, *const cols[] = {"q", "k"};
    const double values[] = {1e-4, 1e-2, NAN, 1e-3};
    qins_buffer out = {0};
    qins_chart_heat_map(&out, &(qins_heat_map){"t", NULL, rows, cols, 2, 2, values, 1e-4, 1e-2});
    assert_int_equal(count(out.data, "class=\"cell\""), 3);
    assert_non_null(strstr(out.data, "fill-opacity=\"0.060\""));
    assert_non_null(strstr(out.data, "fill-opacity=\"1.000\""));
    assert_non_null(strstr(out.data, "fill-opacity=\"0.530\""));
    qins_buffer_free(&out);
}

static void the_page_needs_nothing_from_outside(void **state) {
    (void)state;
    qins_buffer out = {0};
    qins_page_begin(&out, "A & B");
    qins_page_end(&out);
    assert_non_null(strstr(out.data, "<title>A &amp; B</title>"));
    assert_null(strstr(out.data, "{{"));
    assert_null(strstr(out.data, "http"));
    assert_null(strstr(out.data, "url("));
    assert_null(strstr(out.data, "src="));
    assert_non_null(strstr(out.data, "</html>"));
    qins_buffer_free(&out);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_are_escaped),
        cmocka_unit_test(no_name_becomes_markup),
        cmocka_unit_test(a_log_axis_places_decades_evenly),
        cmocka_unit_test(what_cannot_be_drawn_is_left_out),
        cmocka_unit_test(an_empty_chart_is_a_frame),
        cmocka_unit_test(a_histogram_draws_the_codes_that_occur),
        cmocka_unit_test(a_heat_map_shades_between_low_and_high),
        cmocka_unit_test(the_page_needs_nothing_from_outside),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
