/* A progress bar on standard error, and a clean stop on SIGINT and SIGTERM. SPDX-License-Identifier: MIT */
#ifndef QINS_CLI_PROGRESS_H
#define QINS_CLI_PROGRESS_H

#include "qins.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct progress_bar {
    bool visible;      /* standard error is a terminal */
    bool drawn;        /* something is on the line */
    const char *stage; /* the one that is being timed */
    double patience;   /* seconds of a stage before anything is drawn */
    double started, last_drawn;
} progress_bar;

/* Starts catching SIGINT and SIGTERM: the first one asks for a stop, a second one ends the program at once. */
void catch_interrupts(void);
bool interrupted(void);

void progress_start(progress_bar *bar);
/* Nothing is drawn in the first `patience` seconds of a stage; those of the first one count from now. */
void progress_start_patient(progress_bar *bar, const char *stage, double patience);
/* A qins_progress: `user` is the progress_bar. Asks to stop after an interrupt. */
int progress_update(void *user, const char *stage, uint64_t done, uint64_t total);
/* Opens a model with a bar that shows after two seconds: those that are mapped open at once. */
qins_status open_model(const char *path, bool no_check, qins_model **model, qins_error *err);
/* The same, with all products in FP32. */
qins_status open_model_in_float(const char *path, bool no_check, qins_model **model, qins_error *err);
/* Wipes the line. */
void progress_end(progress_bar *bar);

#endif
