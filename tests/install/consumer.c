/* A program of someone else's: encodes a small matrix and multiplies with it. Compiles as C and as C++. */
#include <qins.h>
#include <stdio.h>

int main(void) {
    const float weight[8] = {1, 0, 0, 0, 0, 2, 0, 0}, x[4] = {3, 5, 0, 0};
    float y[2] = {0, 0};
    qins_encode_options options;
    qins_error err;
    qins_linear *linear = NULL;
    qins_encode_defaults(&options);
    options.codec = QINS_CODEC_UNIFORM;
    options.bits = 8;
    if (qins_linear_from_float(weight, NULL, 2, 4, &options, &linear, &err) != QINS_OK ||
        qins_linear_forward(linear, x, y, 1, &err) != QINS_OK) {
        fprintf(stderr, "%s\n", err.message);
        return 1;
    }
    qins_linear_free(linear);
    printf("qins %s: %.2f %.2f\n", qins_version(), (double)y[0], (double)y[1]);
    return y[0] > 2.9f && y[0] < 3.1f && y[1] > 9.7f && y[1] < 10.3f ? 0 : 1;
}
