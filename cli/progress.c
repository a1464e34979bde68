/* SPDX-License-Identifier: MIT */
#include "progress.h"
#include "output.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* Seconds between two drawings. */
static const double REDRAW_SECONDS = 0.1;
/* No ETA before this: the first steps say little about the rest. */
static const double ETA_AFTER_SECONDS = 0.5;
enum { BAR_WIDTH = 30 };

static volatile sig_atomic_t stop_asked;

static void on_interrupt(int signal_number) {
    (void)signal_number;
    stop_asked = 1;
}

void catch_interrupts(void) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = on_interrupt;
    action.sa_flags = (int)(SA_RESETHAND | (unsigned)SA_RESTART);
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

bool interrupted(void) {
    return stop_asked != 0;
}

void progress_start(progress_bar *bar) {
    *bar = (progress_bar){.visible = isatty(STDERR_FILENO) == 1};
}

void progress_start_patient(progress_bar *bar, const char *stage, double patience) {
    progress_start(bar);
    bar->stage = stage;
    bar->patience = patience;
    bar->started = now_seconds();
}

static void draw(const progress_bar *bar, double share, double now) {
    char cells[BAR_WIDTH + 1], eta[32] = "";
    int filled = (int)(share * BAR_WIDTH);
    memset(cells, '-', BAR_WIDTH);
    memset(cells, '#', (size_t)filled);
    cells[BAR_WIDTH] = '\0';
    double elapsed = now - bar->started;
    if (elapsed > ETA_AFTER_SECONDS && share > 0) {
        long left = (long)(elapsed * (1 - share) / share + 0.5);
        snprintf(eta, sizeof eta, "  ETA %ld:%02ld", left / 60, left % 60);
    }
    /* ESC [ K clears what a longer line left behind. */
    fprintf(stderr, "\r%-22.22s [%s] %3d %%%s\033[K", bar->stage, cells, (int)(100 * share), eta);
    fflush(stderr);
}

int progress_update(void *user, const char *stage, uint64_t done, uint64_t total) {
    progress_bar *bar = user;
    if (bar->visible && total > 0) {
        double now = now_seconds();
        bool new_stage = bar->stage == NULL || strcmp(bar->stage, stage) != 0;
        if (new_stage) {
            bar->stage = stage;
            bar->started = now;
        }
        bool due = new_stage || now - bar->last_drawn >= REDRAW_SECONDS;
        if (due && now - bar->started >= bar->patience) {
            draw(bar, done >= total ? 1.0 : (double)done / (double)total, now);
            bar->last_drawn = now;
            bar->drawn = true;
        }
    }
    return interrupted();
}

static qins_status open_with(const char *path, bool no_check, bool in_float, qins_model **model, qins_error *err) {
    static const double LOAD_PATIENCE = 2.0;
    progress_bar bar;
    progress_start_patient(&bar, "load", LOAD_PATIENCE);
    const qins_model_options options = {
        .no_check = no_check, .float_arithmetic = in_float, .progress = progress_update, .progress_user = &bar};
    qins_status status = qins_model_open(path, &options, model, err);
    progress_end(&bar);
    return status;
}

qins_status open_model(const char *path, bool no_check, qins_model **model, qins_error *err) {
    return open_with(path, no_check, false, model, err);
}

qins_status open_model_in_float(const char *path, bool no_check, qins_model **model, qins_error *err) {
    return open_with(path, no_check, true, model, err);
}

void progress_end(progress_bar *bar) {
    if (bar->drawn) fputs("\r\033[K", stderr);
    bar->drawn = false;
}
