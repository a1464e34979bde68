/* Values of a config.json, checked as they are read. SPDX-License-Identifier: MIT */
#ifndef QINS_CONFIG_READER_H
#define QINS_CONFIG_READER_H

#include "base/base.h"

#include <jansson.h>

/* Reads go on after a failure and the first one counts, so that callers check status once. */
typedef struct qins_config_reader {
    const json_t *config;
    const char *path;
    qins_error *err;
    qins_status status;
} qins_config_reader;

/* "PATH: config key "KEY": expected EXPECTED, found VALUE" */
void qins_config_fail(qins_config_reader *r, const char *key, const char *expected, const json_t *found);
void qins_config_unsupported(qins_config_reader *r, const char *fmt, ...) QINS_PRINTF(2, 3);

/* The value of a key, null and absent alike. key may be NULL. */
const json_t *qins_config_get(const qins_config_reader *r, const char *key);
/* An integer in 1..max. fallback 0: the key must be there. */
size_t qins_config_size(qins_config_reader *r, const char *key, size_t fallback, size_t max);
double qins_config_number(qins_config_reader *r, const char *key, double fallback, double lo, double hi);
bool qins_config_bool(qins_config_reader *r, const char *key, bool fallback);
const char *qins_config_string(qins_config_reader *r, const char *key, const char *fallback);
/* A list of n values, NULL when absent. */
const json_t *qins_config_list(qins_config_reader *r, const char *key, size_t n);

#endif
