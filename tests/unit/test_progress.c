/* The progress bar of the program: when it shows, and that it leaves nothing behind. SPDX-License-Identifier: MIT */
#include "testing.h"

#include "../../cli/progress.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static char printed[4096];

static void wait_seconds(double seconds) {
    const struct timespec t = {(time_t)seconds, (long)(1e9 * (seconds - (double)(time_t)seconds))};
    nanosleep(&t, NULL);
}

/* Runs `what` with standard error in a file and reads that into `printed`. */
static void capture(void (*what)(progress_bar *bar), double patience) {
    progress_bar bar;
    FILE *file = tmpfile();
    int saved = dup(STDERR_FILENO);
    assert_non_null(file);
    fflush(stderr);
    dup2(fileno(file), STDERR_FILENO);
    progress_start_patient(&bar, "load", patience);
    bar.visible = true; /* as if it were a terminal */
    what(&bar);
    fflush(stderr);
    dup2(saved, STDERR_FILENO);
    close(saved);
    rewind(file);
    size_t n = fread(printed, 1, sizeof printed - 1, file);
    printed[n] = '\0';
    fclose(file);
}

static void four_chunks(progress_bar *bar) {
    for (uint64_t i = 1; i <= 4; i++) {
        wait_seconds(0.1);
        assert_int_equal(progress_update(bar, "load", i, 4), 0);
    }
    progress_end(bar);
}

static void work_that_is_done_soon_shows_nothing(void **state) {
    (void)state;
    capture(four_chunks, 2.0);
    assert_string_equal(printed, "");
}

/* The time counts from the start, not from the first thing that is reported. */
static void after_the_patience_the_bar_shows_and_is_wiped(void **state) {
    (void)state;
    capture(four_chunks, 0.25);
    assert_non_null(strstr(printed, "\rload"));
    assert_non_null(strstr(printed, " 75 %"));
    assert_non_null(strstr(printed, "100 %"));
    size_t n = strlen(printed);
    assert_true(n > 4 && strcmp(printed + n - 4, "\r\033[K") == 0);
}

static void late_first_report(progress_bar *bar) {
    wait_seconds(0.3);
    progress_update(bar, "load", 1, 4);
    progress_end(bar);
}

static void what_comes_before_the_first_report_counts(void **state) {
    (void)state;
    capture(late_first_report, 0.25);
    assert_non_null(strstr(printed, " 25 %"));
}

static void two_stages(progress_bar *bar) {
    wait_seconds(0.6);
    progress_update(bar, "load", 3, 4);
    progress_update(bar, "verify", 1, 4);
    wait_seconds(0.6);
    progress_update(bar, "verify", 2, 4);
    progress_end(bar);
}

static void another_stage_is_timed_anew(void **state) {
    (void)state;
    capture(two_stages, 1.1);
    assert_string_equal(printed, "");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(work_that_is_done_soon_shows_nothing),
        cmocka_unit_test(after_the_patience_the_bar_shows_and_is_wiped),
        cmocka_unit_test(what_comes_before_the_first_report_counts),
        cmocka_unit_test(another_stage_is_timed_anew),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
