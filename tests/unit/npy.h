/* Reads little-endian C-order .npy files of the goldens. SPDX-License-Identifier: MIT */
#ifndef QINS_TEST_NPY_H
#define QINS_TEST_NPY_H

#include "testing.h"

#include "base/base.h"

typedef struct npy_array {
    char dtype[8]; /* "<f4", "|u1" ... */
    size_t n_dims;
    size_t shape[4];
    size_t n_values;
    char *file;       /* the whole file */
    const void *data; /* within it; a multiple of 64 bytes from its start */
} npy_array;

/* The test fails when the file cannot be read or has another dtype. */
static inline npy_array npy_load(const char *path, const char *dtype) {
    npy_array a = {.n_values = 1};
    qins_error err = {0};
    size_t size = 0;
    if (qins_read_file(path, SIZE_MAX / 2, &a.file, &size, &err) != QINS_OK) fail_msg("%s", err.message);
    assert_true(size > 10 && memcmp(a.file, "\x93NUMPY", 6) == 0);
    const uint8_t *bytes = (const uint8_t *)a.file;
    size_t header = bytes[8] + 256u * bytes[9], value_bytes = (size_t)(dtype[2] - '0');
    char text[512] = {0};
    assert_true(header < sizeof text && 10 + header <= size);
    memcpy(text, a.file + 10, header);
    assert_non_null(strstr(text, "'fortran_order': False"));
    const char *at = strstr(text, "'descr': '");
    assert_non_null(at);
    assert_int_equal(sscanf(at, "'descr': '%7[^']'", a.dtype), 1);
    if (strcmp(a.dtype, dtype) != 0) fail_msg("%s: expected dtype %s, found %s", path, dtype, a.dtype);
    at = strstr(text, "'shape': (");
    assert_non_null(at);
    for (at += strlen("'shape': ("); a.n_dims < 4 && *at >= '0' && *at <= '9'; a.n_dims++) {
        char *end;
        a.shape[a.n_dims] = strtoul(at, &end, 10);
        a.n_values *= a.shape[a.n_dims];
        at = end;
        while (*at == ',' || *at == ' ')
            at++;
    }
    a.data = a.file + 10 + header;
    assert_int_equal(size, 10 + header + a.n_values * value_bytes);
    return a;
}

static inline void npy_free(npy_array *a) {
    free(a->file);
    *a = (npy_array){0};
}

#endif
