/* The frame of a report: report_page.html with the title and the body put in. SPDX-License-Identifier: MIT */
#include "measure/chart.h"
#include "measure/page_template.h"
#include "text/utf8.h"

#include <string.h>

static const char TITLE_MARK[] = "{{title}}", BODY_MARK[] = "{{body}}";

static void escape_character(qins_buffer *out, const char *c, size_t n) {
    static const char replacement[] = "\xEF\xBF\xBD"; /* U+FFFD */
    switch (c[0]) {
    case '&':
        qins_buffer_printf(out, "&amp;");
        return;
    case '<':
        qins_buffer_printf(out, "&lt;");
        return;
    case '>':
        qins_buffer_printf(out, "&gt;");
        return;
    case '"':
        qins_buffer_printf(out, "&quot;");
        return;
    case '\'':
        qins_buffer_printf(out, "&#39;");
        return;
    default:
        break;
    }
    bool control = ((unsigned char)c[0] < 0x20 && c[0] != '\n' && c[0] != '\t') || c[0] == 0x7F;
    if (control)
        qins_buffer_add(out, replacement, sizeof replacement - 1);
    else
        qins_buffer_add(out, c, n);
}

void qins_html_escape(qins_buffer *out, const char *text) {
    qins_buffer clean = {0};
    qins_utf8_repair(text, strlen(text), &clean);
    out->failed = out->failed || clean.failed;
    for (size_t i = 0; i < clean.size;) {
        size_t n = qins_utf8_length(clean.data[i]);
        escape_character(out, clean.data + i, n);
        i += n;
    }
    qins_buffer_free(&clean);
}

void qins_page_begin(qins_buffer *out, const char *title) {
    const char *mark = strstr(qins_page_template, TITLE_MARK), *rest = mark + strlen(TITLE_MARK);
    qins_buffer_add(out, qins_page_template, (size_t)(mark - qins_page_template));
    qins_html_escape(out, title);
    qins_buffer_add(out, rest, (size_t)(strstr(rest, BODY_MARK) - rest));
}

void qins_page_end(qins_buffer *out) {
    const char *rest = strstr(qins_page_template, BODY_MARK) + strlen(BODY_MARK);
    qins_buffer_add(out, rest, strlen(rest));
}
