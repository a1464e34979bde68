/* qins verify --receipt: does a model's receipt hold? SPDX-License-Identifier: MIT */
#include "progress.h"
#include "verify.h"

#include <stdio.h>
#include <string.h>

typedef struct line_printer {
    json_t *lines; /* NULL: print for people */
    progress_bar *bar;
    size_t n_unchecked;
} line_printer;

static void take_line(void *user, const qins_receipt_line *line) {
    static const char *const verdicts[] = {"holds", "BROKEN", "unchecked"};
    line_printer *p = user;
    p->n_unchecked += line->verdict == QINS_UNCHECKED;
    if (p->lines != NULL) {
        json_array_append_new(p->lines, json_pack("{s:s, s:o, s:o, s:o}", "verdict",
                                                  line->verdict == QINS_BROKEN ? "broken" : verdicts[line->verdict],
                                                  "what", json_text(line->what, strlen(line->what)), "said",
                                                  json_text(line->said, strlen(line->said)), "found",
                                                  json_text(line->found, strlen(line->found))));
        return;
    }
    progress_end(p->bar);
    printf("%-9s  %-40s  %s", verdicts[line->verdict], line->what, line->said);
    if (strcmp(line->said, line->found) != 0) printf("; found %s", line->found);
    printf("\n");
}

int check_receipt(const receipt_arguments *a) {
    progress_bar bar;
    qins_error err = {0};
    size_t n_broken = 0;
    line_printer printer = {.lines = a->common->json ? json_array() : NULL, .bar = &bar};
    progress_start(&bar);
    catch_interrupts();
    const qins_receipt_options options = {.reference = a->reference,
                                          .text = a->text,
                                          .text_bytes = a->text_bytes,
                                          .prompts = a->prompts,
                                          .n_prompts = a->n_prompts,
                                          .line = take_line,
                                          .line_user = &printer,
                                          .progress = progress_update,
                                          .progress_user = &bar};
    qins_status status = qins_receipt_check(a->model, &options, &n_broken, &err);
    progress_end(&bar);
    if (status != QINS_OK) {
        json_decref(printer.lines);
        return status == QINS_ERR_CANCELLED ? report_failure_text(a->common, status, "interrupted")
                                            : report_failure(a->common, &err);
    }
    if (a->common->json) {
        int printed =
            print_json(json_pack("{s:b, s:I, s:I, s:o}", "holds", n_broken == 0, "broken", (json_int_t)n_broken,
                                 "unchecked", (json_int_t)printer.n_unchecked, "lines", printer.lines));
        return n_broken == 0 ? printed : EXIT_FAILED;
    }
    if (n_broken > 0)
        printf("%zu line%s of the receipt %s not hold\n", n_broken, n_broken == 1 ? "" : "s",
               n_broken == 1 ? "does" : "do");
    else
        printf("the receipt holds%s\n", printer.n_unchecked > 0 ? " as far as it was checked" : "");
    return n_broken == 0 ? EXIT_DONE : EXIT_FAILED;
}
