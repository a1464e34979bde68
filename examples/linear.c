/* A drop-in linear layer: encode a matrix, multiply with it, save it, load it. Build against the installed library:
 *   cc linear.c $(pkg-config --cflags --libs qins) -lm -o linear
 * SPDX-License-Identifier: MIT */
#include <math.h>
#include <qins.h>
#include <stdio.h>
#include <stdlib.h>

enum { N_OUT = 256, N_IN = 512, N_TOKENS = 4 };

static int fail(const qins_error *err) {
    fprintf(stderr, "linear: %s\n", err->message);
    return 1;
}

static float noise(void) {
    return (float)rand() / (float)RAND_MAX - 0.5f;
}

int main(void) {
    static float weight[N_OUT * N_IN], bias[N_OUT], x[N_TOKENS * N_IN], y[N_TOKENS * N_OUT], again[N_TOKENS * N_OUT];
    for (int i = 0; i < N_OUT * N_IN; i++)
        weight[i] = noise();
    for (int i = 0; i < N_OUT; i++)
        bias[i] = noise();
    for (int i = 0; i < N_TOKENS * N_IN; i++)
        x[i] = noise();

    qins_error err = {0};
    qins_linear *linear, *loaded;
    qins_encode_options options;
    qins_encode_defaults(&options); /* rotated gauss, 4 bits, one scale a row */
    if (qins_linear_from_float(weight, bias, N_OUT, N_IN, &options, &linear, &err) != QINS_OK) return fail(&err);
    if (qins_linear_forward(linear, x, y, N_TOKENS, &err) != QINS_OK) return fail(&err);

    double error = 0, square = 0;
    for (int t = 0; t < N_TOKENS; t++)
        for (int n = 0; n < N_OUT; n++) {
            double exact = bias[n];
            for (int k = 0; k < N_IN; k++)
                exact += (double)weight[n * N_IN + k] * x[t * N_IN + k];
            error += (y[t * N_OUT + n] - exact) * (y[t * N_OUT + n] - exact);
            square += exact * exact;
        }
    uint64_t codes, side;
    qins_linear_bytes(linear, &codes, &side);
    printf("%zu B of FP32 in %llu B; relative error of the output %.3f\n", sizeof weight,
           (unsigned long long)(codes + side), sqrt(error / square));

    if (qins_linear_save(linear, "linear.safetensors", &err) != QINS_OK) return fail(&err);
    if (qins_linear_load("linear.safetensors", &loaded, &err) != QINS_OK) return fail(&err);
    if (qins_linear_forward(loaded, x, again, N_TOKENS, &err) != QINS_OK) return fail(&err);
    for (int i = 0; i < N_TOKENS * N_OUT; i++)
        if (again[i] != y[i]) return 1;
    puts("saved, loaded, same outputs");
    qins_linear_free(linear);
    qins_linear_free(loaded);
    return 0;
}
