/* Tensor types: sizes, and conversion to FP32. SPDX-License-Identifier: MIT
 *
 * The block layouts are those of ggml (ggml-common.h). Products and sums are formed in single precision in the order in
 * which gguf-py's quants.py forms them, so that the results are equal bit for bit; for that this file is compiled with
 * -ffp-contract=off (see CMakeLists.txt).
 */
#include "format/checkpoint.h"

#include "base/half.h"

#include <string.h>

enum { QK = 256 }; /* values of a K-quant block */

static uint16_t load_u16(const uint8_t *p) {
    return (uint16_t)(p[0] | p[1] << 8);
}

static uint32_t load_u32(const uint8_t *p) {
    return (uint32_t)load_u16(p) | (uint32_t)load_u16(p + 2) << 16;
}

static float load_f16(const uint8_t *p) {
    return qins_half_to_float(load_u16(p));
}

static float load_f32(const uint8_t *p) {
    uint32_t bits = load_u32(p);
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

/* ---- plain numbers ---- */

static void f32_to_float(const uint8_t *src, float *dst, size_t n) {
    for (size_t i = 0; i < n; i++)
        dst[i] = load_f32(src + 4 * i);
}

static void f16_to_float(const uint8_t *src, float *dst, size_t n) {
    for (size_t i = 0; i < n; i++)
        dst[i] = load_f16(src + 2 * i);
}

static void bf16_to_float(const uint8_t *src, float *dst, size_t n) {
    for (size_t i = 0; i < n; i++)
        dst[i] = qins_bf16_to_f32(load_u16(src + 2 * i));
}

static void f64_to_float(const uint8_t *src, float *dst, size_t n) {
    for (size_t i = 0; i < n; i++) {
        uint64_t bits = load_u32(src + 8 * i) | (uint64_t)load_u32(src + 8 * i + 4) << 32;
        double d;
        memcpy(&d, &bits, sizeof d);
        dst[i] = (float)d;
    }
}

/* OCP 8-bit floating point: E4M3 has no infinity and one NaN a sign; E5M2 is the upper half of an FP16. */
static void f8_e4m3_to_float(const uint8_t *src, float *dst, size_t n) {
    for (size_t i = 0; i < n; i++) {
        uint8_t v = src[i];
        unsigned exponent = v >> 3 & 0xf, fraction = v & 7;
        uint32_t nan = 0x7fc00000u, bits = (exponent + 120u) << 23 | (uint32_t)fraction << 20;
        float magnitude;
        memcpy(&magnitude, (v & 0x7f) == 0x7f ? &nan : &bits, sizeof magnitude);
        if (exponent == 0) magnitude = (float)fraction * 0x1p-9f;
        dst[i] = (v & 0x80) != 0 ? -magnitude : magnitude;
    }
}

static void f8_e5m2_to_float(const uint8_t *src, float *dst, size_t n) {
    for (size_t i = 0; i < n; i++)
        dst[i] = qins_half_to_float((uint16_t)(src[i] << 8));
}

/* ---- blocks of 32: one FP16 scale, for some an FP16 minimum; value j in the low nibble of byte j, j + 16 in the high
 */

static void q4_0_to_float(const uint8_t *src, float *dst, size_t n) {
    for (size_t b = 0; b < n; b += 32, src += 18, dst += 32) {
        float d = load_f16(src);
        const uint8_t *qs = src + 2;
        for (int j = 0; j < 16; j++) {
            dst[j] = d * (float)((qs[j] & 0xf) - 8);
            dst[j + 16] = d * (float)((qs[j] >> 4) - 8);
        }
    }
}

static void q4_1_to_float(const uint8_t *src, float *dst, size_t n) {
    for (size_t b = 0; b < n; b += 32, src += 20, dst += 32) {
        float d = load_f16(src), m = load_f16(src + 2);
        const uint8_t *qs = src + 4;
        for (int j = 0; j < 16; j++) {
            dst[j] = d * (float)(qs[j] & 0xf) + m;
            dst[j + 16] = d * (float)(qs[j] >> 4) + m;
        }
    }
}

static void q5_0_to_float(const uint8_t *src, float *dst, size_t n) {
    for (size_t b = 0; b < n; b += 32, src += 22, dst += 32) {
        float d = load_f16(src);
        uint32_t qh = load_u32(src + 2);
        const uint8_t *qs = src + 6;
        for (int j = 0; j < 16; j++) {
            dst[j] = d * (float)((int)((qs[j] & 0xfu) | (qh >> j & 1u) << 4) - 16);
            dst[j + 16] = d * (float)((int)((uint32_t)qs[j] >> 4 | (qh >> (j + 16) & 1u) << 4) - 16);
        }
    }
}

static void q5_1_to_float(const uint8_t *src, float *dst, size_t n) {
    for (size_t b = 0; b < n; b += 32, src += 24, dst += 32) {
        float d = load_f16(src), m = load_f16(src + 2);
        uint32_t qh = load_u32(src + 4);
        const uint8_t *qs = src + 8;
        for (int j = 0; j < 16; j++) {
            dst[j] = d * (float)((qs[j] & 0xfu) | (qh >> j & 1u) << 4) + m;
            dst[j + 16] = d * (float)((uint32_t)qs[j] >> 4 | (qh >> (j + 16) & 1u) << 4) + m;
        }
    }
}

static void q8_0_to_float(const uint8_t *src, float *dst, size_t n) {
    for (size_t b = 0; b < n; b += 32, src += 34, dst += 32) {
        float d = load_f16(src);
        for (int j = 0; j < 32; j++)
            dst[j] = (float)(int8_t)src[2 + j] * d;
    }
}

static const int8_t iq4_levels[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

static void iq4_nl_to_float(const uint8_t *src, float *dst, size_t n) {
    for (size_t b = 0; b < n; b += 32, src += 18, dst += 32) {
        float d = load_f16(src);
        const uint8_t *qs = src + 2;
        for (int j = 0; j < 16; j++) {
            dst[j] = d * (float)iq4_levels[qs[j] & 0xf];
            dst[j + 16] = d * (float)iq4_levels[qs[j] >> 4];
        }
    }
}

/* E2M1 levels times two; the scale is a power of two (E8M0) over two. */
static void mxfp4_to_float(const uint8_t *src, float *dst, size_t n) {
    static const int8_t levels[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};
    for (size_t b = 0; b < n; b += 32, src += 17, dst += 32) {
        uint32_t bits = src[0] < 2 ? 0x00200000u << src[0] : (uint32_t)(src[0] - 1) << 23;
        float d;
        memcpy(&d, &bits, sizeof d);
        const uint8_t *qs = src + 1;
        for (int j = 0; j < 16; j++) {
            dst[j] = d * (float)levels[qs[j] & 0xf];
            dst[j + 16] = d * (float)levels[qs[j] >> 4];
        }
    }
}

/* ---- blocks of 256 with sub-blocks of 16 or 32 ---- */

static void q2_k_to_float(const uint8_t *src, float *dst, size_t n) {
    for (size_t b = 0; b < n; b += QK, src += 84, dst += QK) {
        const uint8_t *scales = src, *qs = src + 16;
        float d = load_f16(src + 80), dmin = load_f16(src + 82);
        for (int i = 0; i < QK; i++) {
            float dl = d * (float)(scales[i / 16] & 0xf), ml = dmin * (float)(scales[i / 16] >> 4);
            int q = qs[i / 128 * 32 + i % 32] >> (2 * (i / 32 % 4)) & 3;
            dst[i] = dl * (float)q - ml;
        }
    }
}

static void q3_k_to_float(const uint8_t *src, float *dst, size_t n) {
    for (size_t b = 0; b < n; b += QK, src += 110, dst += QK) {
        const uint8_t *high = src, *qs = src + 32, *scales = src + 96;
        float d = load_f16(src + 108);
        for (int sub = 0; sub < 16; sub++) {
            int low4 = (sub < 8 ? scales[sub] : scales[sub - 8] >> 4) & 0xf;
            int high2 = scales[8 + sub % 4] >> (2 * (sub / 4)) & 3;
            float dl = d * (float)((low4 | high2 << 4) - 32);
            for (int i = 16 * sub; i < 16 * sub + 16; i++) {
                int q = qs[i / 128 * 32 + i % 32] >> (2 * (i / 32 % 4)) & 3;
                int subtract = (high[i % 32] >> (i / 32) & 1) != 0 ? 0 : 4;
                dst[i] = dl * (float)(q - subtract);
            }
        }
    }
}

/* 6-bit scale and minimum of sub-block j (of 8), packed in 12 bytes, for Q4_K and Q5_K. */
static void k_scale_min(const uint8_t *packed, int j, int *scale, int *min) {
    if (j < 4) {
        *scale = packed[j] & 0x3f;
        *min = packed[j + 4] & 0x3f;
    } else {
        *scale = (packed[j + 4] & 0xf) | (packed[j - 4] >> 2 & 0x30);
        *min = packed[j + 4] >> 4 | (packed[j] >> 2 & 0x30);
    }
}

static void q4_k_to_float(const uint8_t *src, float *dst, size_t n) {
    for (size_t b = 0; b < n; b += QK, src += 144, dst += QK) {
        float d = load_f16(src), dmin = load_f16(src + 2);
        const uint8_t *qs = src + 16;
        for (int sub = 0; sub < 8; sub++) {
            int scale, min;
            k_scale_min(src + 4, sub, &scale, &min);
            float dl = d * (float)scale, ml = dmin * (float)min;
            for (int l = 0; l < 32; l++)
                dst[32 * sub + l] = dl * (float)(qs[sub / 2 * 32 + l] >> (4 * (sub % 2)) & 0xf) - ml;
        }
    }
}

static void q5_k_to_float(const uint8_t *src, float *dst, size_t n) {
    for (size_t b = 0; b < n; b += QK, src += 176, dst += QK) {
        float d = load_f16(src), dmin = load_f16(src + 2);
        const uint8_t *qh = src + 16, *qs = src + 48;
        for (int sub = 0; sub < 8; sub++) {
            int scale, min;
            k_scale_min(src + 4, sub, &scale, &min);
            float dl = d * (float)scale, ml = dmin * (float)min;
            for (int l = 0; l < 32; l++) {
                int q = (qs[sub / 2 * 32 + l] >> (4 * (sub % 2)) & 0xf) | (qh[l] >> sub & 1) << 4;
                dst[32 * sub + l] = dl * (float)q - ml;
            }
        }
    }
}

static void q6_k_to_float(const uint8_t *src, float *dst, size_t n) {
    for (size_t b = 0; b < n; b += QK, src += 210, dst += QK) {
        const uint8_t *ql = src, *qh = src + 128, *scales = src + 192;
        float d = load_f16(src + 208);
        for (int i = 0; i < QK; i++) {
            float dl = d * (float)(int8_t)scales[i / 16];
            int low4 = ql[i / 128 * 64 + i % 64] >> (4 * (i / 64 % 2)) & 0xf;
            int high2 = qh[i / 128 * 32 + i % 32] >> (2 * (i / 32 % 4)) & 3;
            dst[i] = dl * (float)((low4 | high2 << 4) - 32);
        }
    }
}

/* ggml's intermediate format: an FP32 scale, 256 int8, and sums that dequantisation does not use. */
static void q8_k_to_float(const uint8_t *src, float *dst, size_t n) {
    for (size_t b = 0; b < n; b += QK, src += 292, dst += QK) {
        float d = load_f32(src);
        for (int i = 0; i < QK; i++)
            dst[i] = d * (float)(int8_t)src[4 + i];
    }
}

static void iq4_xs_to_float(const uint8_t *src, float *dst, size_t n) {
    for (size_t b = 0; b < n; b += QK, src += 136, dst += QK) {
        float d = load_f16(src);
        uint16_t scales_high = load_u16(src + 2);
        const uint8_t *scales_low = src + 4, *qs = src + 8;
        for (int sub = 0; sub < 8; sub++) {
            int low4 = scales_low[sub / 2] >> (4 * (sub % 2)) & 0xf;
            int high2 = scales_high >> (2 * sub) & 3;
            float dl = d * (float)((low4 | high2 << 4) - 32);
            for (int l = 0; l < 16; l++) {
                dst[32 * sub + l] = dl * (float)iq4_levels[qs[16 * sub + l] & 0xf];
                dst[32 * sub + l + 16] = dl * (float)iq4_levels[qs[16 * sub + l] >> 4];
            }
        }
    }
}

/* Ternary digit of a byte that holds up to five of them as a fixed-point fraction; pow3 = 3^position. */
static float ternary(uint8_t packed, int pow3) {
    int shifted = (uint8_t)(packed * pow3);
    return (float)((shifted * 3 >> 8) - 1);
}

static void tq1_0_to_float(const uint8_t *src, float *dst, size_t n) {
    static const uint8_t pow3[5] = {1, 3, 9, 27, 81};
    for (size_t b = 0; b < n; b += QK, src += 54, dst += QK) {
        float d = load_f16(src + 52);
        for (int i = 0; i < 160; i++)
            dst[i] = d * ternary(src[i % 32], pow3[i / 32]);
        for (int i = 0; i < 80; i++)
            dst[160 + i] = d * ternary(src[32 + i % 16], pow3[i / 16]);
        for (int i = 0; i < 16; i++)
            dst[240 + i] = d * ternary(src[48 + i % 4], pow3[i / 4]);
    }
}

static void tq2_0_to_float(const uint8_t *src, float *dst, size_t n) {
    for (size_t b = 0; b < n; b += QK, src += 66, dst += QK) {
        float d = load_f16(src + 64);
        for (int i = 0; i < QK; i++)
            dst[i] = d * (float)((src[i / 128 * 32 + i % 32] >> (2 * (i / 32 % 4)) & 3) - 1);
    }
}

const qins_type_info qins_types[QINS_TYPE_COUNT] = {
    [QINS_TYPE_F32] = {"F32", 1, 4, f32_to_float},
    [QINS_TYPE_F16] = {"F16", 1, 2, f16_to_float},
    [QINS_TYPE_BF16] = {"BF16", 1, 2, bf16_to_float},
    [QINS_TYPE_F64] = {"F64", 1, 8, f64_to_float},
    [QINS_TYPE_U8] = {"U8", 1, 1, NULL},
    [QINS_TYPE_I8] = {"I8", 1, 1, NULL},
    [QINS_TYPE_I16] = {"I16", 1, 2, NULL},
    [QINS_TYPE_I32] = {"I32", 1, 4, NULL},
    [QINS_TYPE_I64] = {"I64", 1, 8, NULL},
    [QINS_TYPE_BOOL] = {"BOOL", 1, 1, NULL},
    [QINS_TYPE_F8_E4M3] = {"F8_E4M3", 1, 1, f8_e4m3_to_float},
    [QINS_TYPE_F8_E5M2] = {"F8_E5M2", 1, 1, f8_e5m2_to_float},
    [QINS_TYPE_Q4_0] = {"Q4_0", 32, 18, q4_0_to_float},
    [QINS_TYPE_Q4_1] = {"Q4_1", 32, 20, q4_1_to_float},
    [QINS_TYPE_Q5_0] = {"Q5_0", 32, 22, q5_0_to_float},
    [QINS_TYPE_Q5_1] = {"Q5_1", 32, 24, q5_1_to_float},
    [QINS_TYPE_Q8_0] = {"Q8_0", 32, 34, q8_0_to_float},
    [QINS_TYPE_Q2_K] = {"Q2_K", QK, 84, q2_k_to_float},
    [QINS_TYPE_Q3_K] = {"Q3_K", QK, 110, q3_k_to_float},
    [QINS_TYPE_Q4_K] = {"Q4_K", QK, 144, q4_k_to_float},
    [QINS_TYPE_Q5_K] = {"Q5_K", QK, 176, q5_k_to_float},
    [QINS_TYPE_Q6_K] = {"Q6_K", QK, 210, q6_k_to_float},
    [QINS_TYPE_Q8_K] = {"Q8_K", QK, 292, q8_k_to_float},
    [QINS_TYPE_IQ4_NL] = {"IQ4_NL", 32, 18, iq4_nl_to_float},
    [QINS_TYPE_IQ4_XS] = {"IQ4_XS", QK, 136, iq4_xs_to_float},
    [QINS_TYPE_TQ1_0] = {"TQ1_0", QK, 54, tq1_0_to_float},
    [QINS_TYPE_TQ2_0] = {"TQ2_0", QK, 66, tq2_0_to_float},
    [QINS_TYPE_MXFP4] = {"MXFP4", 32, 17, mxfp4_to_float},
};
