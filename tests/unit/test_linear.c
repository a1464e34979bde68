/* A single linear saved to a file and loaded again. SPDX-License-Identifier: MIT */
#include "qins.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { N_OUT = 20, N_IN = 96, N_TOKENS = 3 };

static float weight[N_OUT * N_IN], bias[N_OUT], x[N_TOKENS * N_IN];
static char path[64];

static int fill(void **state) {
    (void)state;
    srand(1);
    for (int i = 0; i < N_OUT * N_IN; i++)
        weight[i] = (float)rand() / (float)RAND_MAX - 0.5f;
    for (int i = 0; i < N_OUT; i++)
        bias[i] = (float)i;
    for (int i = 0; i < N_TOKENS * N_IN; i++)
        x[i] = (float)rand() / (float)RAND_MAX - 0.5f;
    snprintf(path, sizeof path, "test_linear_%ld.safetensors", (long)getpid());
    return 0;
}

static int clean(void **state) {
    (void)state;
    unlink(path);
    return 0;
}

static void save(const qins_encode_options *options, const float *with_bias, float *y) {
    qins_error err = {0};
    qins_linear *linear;
    if (qins_linear_from_float(weight, with_bias, N_OUT, N_IN, options, &linear, &err) != QINS_OK)
        fail_msg("%s", err.message);
    assert_int_equal(qins_linear_forward(linear, x, y, N_TOKENS, &err), QINS_OK);
    if (qins_linear_save(linear, path, &err) != QINS_OK) fail_msg("%s", err.message);
    qins_linear_free(linear);
}

static void a_loaded_linear_gives_the_same_outputs_in_every_storage(void **state) {
    (void)state;
    qins_encode_options options[4];
    for (int i = 0; i < 4; i++)
        qins_encode_defaults(&options[i]);
    options[1].codec = QINS_CODEC_LOG;
    options[1].storage = QINS_STORAGE_SEED;
    options[2].codec = QINS_CODEC_RATIONAL;
    options[2].storage = QINS_STORAGE_F32;
    options[3].codec = QINS_CODEC_UNIFORM;
    options[3].scale = QINS_SCALE_GROUP;
    options[3].group_size = 32;
    for (int i = 0; i < 8; i++) {
        float y[N_TOKENS * N_OUT], again[N_TOKENS * N_OUT];
        save(&options[i % 4], i < 4 ? bias : NULL, y);
        qins_error err = {0};
        qins_linear *loaded;
        if (qins_linear_load(path, &loaded, &err) != QINS_OK) fail_msg("%s", err.message);
        assert_int_equal(qins_linear_forward(loaded, x, again, N_TOKENS, &err), QINS_OK);
        assert_memory_equal(y, again, sizeof y);
        qins_linear_free(loaded);
    }
}

/* Flips one byte at `offset` from the end. */
static void damage(long offset) {
    FILE *f = fopen(path, "r+b");
    assert_non_null(f);
    assert_int_equal(fseek(f, -offset, SEEK_END), 0);
    int c = fgetc(f);
    assert_int_equal(fseek(f, -offset, SEEK_END), 0);
    fputc(c ^ 1, f);
    fclose(f);
}

static void a_flipped_bit_in_weights_or_bias_is_refused_by_tensor_name(void **state) {
    (void)state;
    qins_encode_options options;
    qins_encode_defaults(&options);
    float y[N_TOKENS * N_OUT];
    save(&options, bias, y);
    damage(1); /* the bias comes last */
    qins_error err = {0};
    qins_linear *loaded;
    assert_int_equal(qins_linear_load(path, &loaded, &err), QINS_ERR_CHECKSUM);
    assert_non_null(strstr(err.message, "bias"));
    save(&options, NULL, y);
    damage(16 * 4 * 2 + 16 * 4 + 1); /* before the table and the scales of two panels: the codes */
    assert_int_equal(qins_linear_load(path, &loaded, &err), QINS_ERR_CHECKSUM);
    assert_non_null(strstr(err.message, "weight.codes"));
    assert_null(loaded);
}

static void a_file_that_cannot_be_written_leaves_nothing_behind(void **state) {
    (void)state;
    qins_encode_options options;
    qins_encode_defaults(&options);
    qins_error err = {0};
    qins_linear *linear;
    assert_int_equal(qins_linear_from_float(weight, NULL, N_OUT, N_IN, &options, &linear, &err), QINS_OK);
    assert_int_equal(qins_linear_save(linear, "no-such-folder/linear.safetensors", &err), QINS_ERR_IO);
    assert_non_null(strstr(err.message, "no-such-folder"));
    qins_linear_free(linear);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_loaded_linear_gives_the_same_outputs_in_every_storage),
        cmocka_unit_test(a_flipped_bit_in_weights_or_bias_is_refused_by_tensor_name),
        cmocka_unit_test(a_file_that_cannot_be_written_leaves_nothing_behind),
    };
    return cmocka_run_group_tests(tests, fill, clean);
}
