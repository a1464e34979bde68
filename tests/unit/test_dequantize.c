/* Conversion of every tensor type to FP32, against gguf-py bit for bit. SPDX-License-Identifier: MIT */
#include "npy.h"

#include "format/gguf.h"

#include <unistd.h>

/* ---- goldens: one small tensor of each type ---- */

static void block_types_are_bit_exact_with_the_gguf_package(void **state) {
    (void)state;
    qins_error err = {0};
    qins_map map;
    qins_gguf *g = NULL;
    if (qins_map_open(QINS_SOURCE_DIR "/tests/golden/gguf/types.gguf", &map, &err) != QINS_OK)
        fail_msg("%s", err.message);
    if (qins_gguf_parse(map.data, map.size, map.path, &g, &err) != QINS_OK) fail_msg("%s", err.message);
    assert_int_equal(g->tensors.n, 18);
    bool seen[QINS_TYPE_COUNT] = {false};
    for (size_t i = 0; i < g->tensors.n; i++) {
        const qins_tensor *t = &g->tensors.items[i];
        char path[512];
        snprintf(path, sizeof path, "%s/tests/golden/gguf/%s.npy", QINS_SOURCE_DIR, t->name);
        npy_array expected = npy_load(path, "<f4");
        assert_int_equal(expected.n_values, t->n_values);
        size_t cols = (size_t)t->shape[1];
        float *row = malloc(cols * sizeof *row);
        assert_non_null(row);
        for (size_t r = 0; r < t->shape[0]; r++) {
            qins_tensor_row(t, r, 0, cols, row);
            if (memcmp(row, (const float *)expected.data + r * cols, cols * sizeof *row) != 0)
                fail_msg("%s: row %zu differs", t->name, r);
        }
        /* a part of a row is the same as that part of the whole */
        size_t half = cols / 2;
        qins_tensor_row(t, 1, half, half, row);
        assert_memory_equal(row, (const float *)expected.data + cols + half, half * sizeof *row);
        seen[t->type] = true;
        free(row);
        npy_free(&expected);
    }
    for (int type = 0; type < QINS_TYPE_COUNT; type++) {
        bool weights = qins_types[type].to_float != NULL;
        bool in_gguf_py = type != QINS_TYPE_F64 && type != QINS_TYPE_F8_E4M3 && type != QINS_TYPE_F8_E5M2 &&
                          type != QINS_TYPE_Q8_K; /* gguf cannot dequantize this one either */
        if (weights && in_gguf_py && !seen[type]) fail_msg("no golden of type %s", qins_types[type].name);
    }
    qins_gguf_free(g);
    qins_map_close(&map);
}

static void q8_k_is_scale_times_signed_byte(void **state) {
    (void)state;
    uint8_t block[292] = {0};
    const float scale = 0.375f;
    memcpy(block, &scale, sizeof scale);
    for (int i = 0; i < 256; i++)
        block[4 + i] = (uint8_t)i;
    float out[256];
    qins_types[QINS_TYPE_Q8_K].to_float(block, out, 256);
    for (int i = 0; i < 256; i++)
        assert_true(out[i] == 0.375f * (float)(i < 128 ? i : i - 256));
}

/* ---- halves ---- */

static void every_finite_half_survives_the_way_to_float_and_back(void **state) {
    (void)state;
    for (uint32_t h = 0; h < 65536; h++) {
        float f = qins_f16_to_f32((uint16_t)h);
        bool is_nan = (h & 0x7c00) == 0x7c00 && (h & 0x3ff) != 0;
        assert_int_equal(isnan(f) != 0, is_nan);
        if (is_nan)
            assert_int_equal(qins_f32_to_f16(f), h | 0x200);
        else
            assert_int_equal(qins_f32_to_f16(f), h);
        double exact = (h & 0x7c00) == 0 ? ldexp(h & 0x3ff, -24) : ldexp((h & 0x3ff) + 1024, (int)(h >> 10 & 31) - 25);
        if ((h & 0x7c00) != 0x7c00) assert_true((double)f == ((h & 0x8000) != 0 ? -exact : exact));
    }
}

/* The nearest half by trying both neighbours in double precision, ties to the even one. */
static void floats_round_to_the_nearest_half_ties_to_even(void **state) {
    (void)state;
    rng r = {.state = 1};
    for (int i = 0; i < 300000; i++) {
        uint32_t bits = (uint32_t)rng_bits(&r) & 0x7fffffffu;
        if (i % 3 == 0) bits = 0x33000000u + bits % 0x14800000u; /* the range of halves, subnormals included */
        if (i % 3 == 1) bits &= ~0xfffu;                         /* many exact ties */
        float f;
        memcpy(&f, &bits, sizeof f);
        if (isnan(f)) continue;
        uint16_t h = qins_f32_to_f16(f);
        if (f >= 65520.0f) {
            assert_int_equal(h, 0x7c00);
            continue;
        }
        assert_true(h < 0x7c00);
        double error = fabs((double)qins_f16_to_f32(h) - (double)f);
        double above = h + 1 == 0x7c00 ? 65536.0 : (double)qins_f16_to_f32((uint16_t)(h + 1));
        double error_above = fabs(above - (double)f);
        double error_below = h > 0 ? fabs((double)qins_f16_to_f32((uint16_t)(h - 1)) - (double)f) : INFINITY;
        assert_true(error < error_above || (error == error_above && h % 2 == 0));
        assert_true(error < error_below || (error == error_below && h % 2 == 0));
    }
}

static void floats_round_to_the_nearest_bfloat_ties_to_even(void **state) {
    (void)state;
    static const struct {
        uint32_t bits;
        uint16_t expected;
    } cases[] = {
        {0x3f800000, 0x3f80}, {0x3f808000, 0x3f80}, {0x3f818000, 0x3f82}, {0x3f808001, 0x3f81}, {0x7f7fffff, 0x7f80},
        {0x7f800001, 0x7fc0}, {0xff800000, 0xff80}, {0x00008000, 0x0000}, {0x80018000, 0x8002}, {0x7fc12345, 0x7fc1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        float f;
        memcpy(&f, &cases[i].bits, sizeof f);
        assert_int_equal(qins_f32_to_bf16(f), cases[i].expected);
    }
}

static void eight_bit_floats_follow_the_ocp_specification(void **state) {
    (void)state;
    static const struct {
        uint8_t code;
        float e4m3, e5m2;
    } cases[] = {
        {0x00, 0.0f, 0.0f},        {0x01, 0x1p-9f, 0x1p-16f}, {0x07, 7 * 0x1p-9f, 1.75f * 0x1p-14f},
        {0x08, 0x1p-6f, 0x1p-13f}, {0x38, 1.0f, 0.5f},        {0x7e, 448.0f, NAN},
        {0x7b, 352.0f, 57344.0f},  {0xbc, -1.5f, -1.0f},      {0x7f, NAN, NAN},
        {0x7c, 384.0f, INFINITY},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        float a, b;
        qins_types[QINS_TYPE_F8_E4M3].to_float(&cases[i].code, &a, 1);
        qins_types[QINS_TYPE_F8_E5M2].to_float(&cases[i].code, &b, 1);
        assert_true(isnan(cases[i].e4m3) ? isnan(a) : a == cases[i].e4m3);
        assert_true(isnan(cases[i].e5m2) ? isnan(b) : b == cases[i].e5m2);
    }
}

/* ---- a real model ---- */

static uint32_t crc32(uint32_t crc, const void *data, size_t n) {
    static uint32_t table[256];
    if (table[1] == 0)
        for (uint32_t i = 0; i < 256; i++) {
            table[i] = i;
            for (int k = 0; k < 8; k++)
                table[i] = table[i] >> 1 ^ (table[i] & 1 ? 0xedb88320u : 0);
        }
    const uint8_t *p = data;
    crc = ~crc;
    for (size_t i = 0; i < n; i++)
        crc = crc >> 8 ^ table[(crc ^ p[i]) & 0xff];
    return ~crc;
}

static uint32_t tensor_crc32(const qins_tensor *t) {
    size_t rows = t->n_dims > 1 ? (size_t)t->shape[0] : 1, cols = (size_t)t->n_values / rows;
    float *row = malloc(cols * sizeof *row);
    assert_non_null(row);
    uint32_t crc = 0;
    for (size_t r = 0; r < rows; r++) {
        qins_tensor_row(t, r, 0, cols, row);
        crc = crc32(crc, row, cols * sizeof *row);
    }
    free(row);
    return crc;
}

/* The file that tools/get_smollm2.sh fetches. */
static const char *smollm2_path(void) {
    static char path[1024];
    const char *cache = getenv("QINS_CACHE"), *xdg = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    const char *file = "SmolLM2-135M-Instruct.Q4_1.gguf";
    if (cache != NULL)
        snprintf(path, sizeof path, "%s/%s", cache, file);
    else if (xdg != NULL && xdg[0] != '\0')
        snprintf(path, sizeof path, "%s/qins/%s", xdg, file);
    else
        snprintf(path, sizeof path, "%s/.cache/qins/%s", home != NULL ? home : "", file);
    return access(path, R_OK) == 0 ? path : NULL;
}

static void every_tensor_of_smollm2_is_bit_exact_with_the_gguf_package(void **state) {
    (void)state;
    const char *path = smollm2_path();
    if (path == NULL) {
        print_message("SmolLM2 is absent (tools/get_smollm2.sh fetches it)\n");
        skip();
    }
    qins_checkpoint *c = NULL;
    qins_error err = {0};
    if (qins_checkpoint_open(path, &c, &err) != QINS_OK) fail_msg("%s", err.message);
    FILE *f = fopen(QINS_SOURCE_DIR "/tests/golden/gguf/smollm2_crc32.txt", "r");
    assert_non_null(f);
    char name[128];
    unsigned long long n_values;
    unsigned crc;
    size_t n = 0;
    while (fscanf(f, "%127s %llu %x", name, &n_values, &crc) == 3) {
        const qins_tensor *t = qins_checkpoint_find(c, name);
        if (t == NULL) fail_msg("%s is missing", name);
        assert_int_equal(t->n_values, n_values);
        if (tensor_crc32(t) != crc) fail_msg("%s differs", name);
        n++;
    }
    fclose(f);
    assert_int_equal(n, 272);
    assert_int_equal(n, c->n_tensors);
    qins_checkpoint_close(c);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(block_types_are_bit_exact_with_the_gguf_package),
        cmocka_unit_test(q8_k_is_scale_times_signed_byte),
        cmocka_unit_test(every_finite_half_survives_the_way_to_float_and_back),
        cmocka_unit_test(floats_round_to_the_nearest_half_ties_to_even),
        cmocka_unit_test(floats_round_to_the_nearest_bfloat_ties_to_even),
        cmocka_unit_test(eight_bit_floats_follow_the_ocp_specification),
        cmocka_unit_test(every_tensor_of_smollm2_is_bit_exact_with_the_gguf_package),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
