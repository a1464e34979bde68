/* Every model family against transformers: tiny random checkpoints with their logits (tools/make_family_goldens.py).
 * SPDX-License-Identifier: MIT
 *
 * test_families DIR... runs the comparisons on other folders of the same form (tools/oracle.sh).
 */
#include "npy.h"

#include "base/base.h"

#include <dirent.h>
#include <jansson.h>
#include <sys/stat.h>
#include <unistd.h>

#define GOLDEN QINS_SOURCE_DIR "/tests/golden/families"

enum { N_PROMPT = 8, PATH_SIZE = 1024 };

static const double MAX_LOGIT_DIFF = 1e-3;
/* Of half the positions: random networks this small amplify errors, and where a router hesitates the last bit decides
 * which expert a token goes to. How much depends on the draw, so that others than the committed ones (tools/oracle.sh)
 * are only held to the share of the KL at 5 bits, which is 1/64 as long as errors are small. */
static const double MAX_KL_AT_8_BITS = 0.01, MAX_SHARE_OF_5_BITS = 1.0 / 8;

static char scratch[PATH_SIZE];

static void join(char *path, const char *folder, const char *format, int k) {
    char name[64];
    snprintf(name, sizeof name, format, k);
    snprintf(path, PATH_SIZE, "%s/%s", folder, name);
}

static qins_model *open_model(const char *path) {
    qins_error err = {0};
    qins_model *m = NULL;
    if (qins_model_open(path, NULL, &m, &err) != QINS_OK) fail_msg("%s", err.message);
    return m;
}

/* A session with an FP32 cache, as transformers has it in FP32: F16 rounds more than the bar allows. */
static qins_status new_session(const qins_model *m, size_t n_ctx, qins_session **s, qins_error *err) {
    const qins_session_options options = {.n_ctx = n_ctx, .key_bits = 32, .value_bits = 32};
    return qins_session_new_with(m, &options, s, err);
}

/* Logits of every position of a sequence, in a session made for n_ctx positions. */
static float *compute_logits_in(const qins_model *m, size_t n_ctx, const int32_t *ids, size_t n, size_t n_vocab) {
    qins_error err = {0};
    qins_session *s = NULL;
    float *logits = calloc(n * n_vocab, sizeof *logits);
    assert_non_null(logits);
    if (new_session(m, n_ctx, &s, &err) != QINS_OK || qins_session_eval(s, ids, n, logits, n, &err) != QINS_OK)
        fail_msg("%s", err.message);
    qins_session_free(s);
    return logits;
}

static float *compute_logits(const qins_model *m, const int32_t *ids, size_t n, size_t n_vocab) {
    return compute_logits_in(m, n, ids, n, n_vocab);
}

static size_t vocabulary(const qins_model *m) {
    qins_model_info info;
    qins_model_get_info(m, &info);
    return info.vocab_size;
}

/* ---- against the reference ---- */

/* Of the logits of sequence k of the folder. */
static double difference_from(const char *folder, int k, const float *logits, size_t n_vocab) {
    char path[PATH_SIZE];
    join(path, folder, "positions_%d.npy", k);
    npy_array positions = npy_load(path, "<i4");
    join(path, folder, "logits_%d.npy", k);
    npy_array expected = npy_load(path, "<f4");
    assert_int_equal(expected.shape[1], n_vocab);
    double largest = 0;
    for (size_t i = 0; i < positions.n_values; i++) {
        const float *row = logits + (size_t)((const int32_t *)positions.data)[i] * n_vocab;
        for (size_t v = 0; v < n_vocab; v++) {
            double diff = fabs((double)row[v] - (double)((const float *)expected.data)[i * n_vocab + v]);
            if (!(diff <= largest)) largest = diff; /* NaN too */
        }
    }
    npy_free(&positions);
    npy_free(&expected);
    return largest;
}

static npy_array load_ids(const char *folder, int k) {
    char path[PATH_SIZE];
    join(path, folder, "ids_%d.npy", k);
    return npy_load(path, "<i4");
}

/* Of the model from the logits in the folder. */
static double difference_of(const char *model, const char *folder) {
    qins_model *m = open_model(model);
    size_t n_vocab = vocabulary(m);
    double largest = 0;
    for (int k = 0; k < 2; k++) {
        npy_array ids = load_ids(folder, k);
        float *logits = compute_logits(m, ids.data, ids.n_values, n_vocab);
        double diff = difference_from(folder, k, logits, n_vocab);
        if (!(diff <= largest)) largest = diff;
        free(logits);
        npy_free(&ids);
    }
    qins_model_close(m);
    return largest;
}

static void computes_the_logits_of_the_reference(void **state) {
    double diff = difference_of(*state, *state);
    print_message("largest logit difference %.2g\n", diff);
    assert_true(diff <= MAX_LOGIT_DIFF);
}

/* Both sequences of the folder, of different lengths, in one session and in the same passes: by turns up to 7 tokens of
 * one and up to 3 of the other. The longer one must have the logits of the reference, the shorter one those that it has
 * alone (in a session for as many positions, on which rope may depend). */
static void computes_a_batch_of_lengths(void **state) {
    qins_model *m = open_model(*state);
    size_t n_vocab = vocabulary(m);
    npy_array ids[2] = {load_ids(*state, 0), load_ids(*state, 1)};
    const size_t n[2] = {ids[0].n_values, ids[1].n_values}, step[2] = {3, 7};
    assert_true(n[0] < n[1]);
    float *logits[2], *rows = calloc((step[0] + step[1]) * n_vocab, sizeof *rows);
    assert_non_null(rows);
    for (int k = 0; k < 2; k++)
        assert_non_null(logits[k] = calloc(n[k] * n_vocab, sizeof **logits));
    const qins_session_options options = {.n_ctx = n[1], .n_sequences = 2, .key_bits = 32, .value_bits = 32};
    qins_session *s = NULL;
    qins_error err = {0};
    if (qins_session_new_with(m, &options, &s, &err) != QINS_OK) fail_msg("%s", err.message);
    for (size_t at[2] = {0, 0}; at[0] < n[0] || at[1] < n[1];) {
        qins_batch_token tokens[16];
        float *to[16];
        size_t n_tokens = 0;
        for (uint32_t k = 0; k < 2; k++)
            for (size_t i = 0; i < step[k] && at[k] < n[k]; i++, at[k]++) {
                to[n_tokens] = logits[k] + at[k] * n_vocab;
                tokens[n_tokens++] = (qins_batch_token){((const int32_t *)ids[k].data)[at[k]], k, true};
            }
        if (qins_session_eval_batch(s, tokens, n_tokens, rows, &err) != QINS_OK) fail_msg("%s", err.message);
        for (size_t i = 0; i < n_tokens; i++)
            memcpy(to[i], rows + i * n_vocab, n_vocab * sizeof *rows);
    }
    assert_true(difference_from(*state, 1, logits[1], n_vocab) <= MAX_LOGIT_DIFF);
    float *alone = compute_logits_in(m, n[1], ids[0].data, n[0], n_vocab);
    for (size_t i = 0; i < n[0] * n_vocab; i++)
        assert_true(fabs((double)alone[i] - (double)logits[0][i]) <= MAX_LOGIT_DIFF);
    qins_session_free(s);
    free(alone);
    free(rows);
    for (int k = 0; k < 2; k++) {
        free(logits[k]);
        npy_free(&ids[k]);
    }
    qins_model_close(m);
}

static int32_t best_of(const float *logits, size_t n) {
    size_t best = 0;
    for (size_t i = 1; i < n; i++)
        if (logits[i] > logits[best]) best = i;
    return (int32_t)best;
}

static void assert_decodes_greedily(const char *model, const char *folder) {
    char path[PATH_SIZE];
    join(path, folder, "greedy_ids.npy", 0);
    npy_array expected = npy_load(path, "<i4");
    const int32_t *ids = expected.data;
    qins_model *m = open_model(model);
    qins_error err = {0};
    qins_session *s = NULL;
    size_t n_vocab = vocabulary(m);
    float *logits = calloc(n_vocab, sizeof *logits);
    assert_int_equal(new_session(m, expected.n_values, &s, &err), QINS_OK);
    for (size_t i = 0; i + 1 < expected.n_values; i++) {
        size_t n = i == 0 ? N_PROMPT : 1; /* the prompt at once, then token by token through the cache */
        if (qins_session_eval(s, ids + i, n, logits, 1, &err) != QINS_OK) fail_msg("%s", err.message);
        i += n - 1;
        assert_int_equal(best_of(logits, n_vocab), ids[i + 1]);
    }
    free(logits);
    qins_session_free(s);
    qins_model_close(m);
    npy_free(&expected);
}

static void decodes_greedily_as_the_reference(void **state) {
    assert_decodes_greedily(*state, *state);
}

/* ---- through compress and export ---- */

static const char *output_folder(const char *folder, const char *what) {
    static char path[PATH_SIZE * 2];
    const char *name = strrchr(folder, '/');
    snprintf(path, sizeof path, "%s/%s.%s", scratch, name != NULL ? name + 1 : folder, what);
    return path;
}

static void compress(const char *folder, const char *out, qins_codec codec, int bits, const char *targets) {
    qins_compress_options options;
    qins_compress_defaults(&options);
    options.linear.codec = codec;
    options.linear.bits = bits;
    options.targets = targets;
    options.force = true;
    qins_error err = {0};
    if (qins_compress(folder, out, &options, NULL, &err) != QINS_OK) fail_msg("%s", err.message);
}

/* Mean KL divergence of two models' predictions over sequence 1. */
static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median_kl(const char *reference, const char *other) {
    char path[PATH_SIZE];
    join(path, reference, "ids_1.npy", 0);
    npy_array ids = npy_load(path, "<i4");
    qins_model *a = open_model(reference), *b = open_model(other);
    size_t n_vocab = vocabulary(a), n = ids.n_values;
    float *p = compute_logits(a, ids.data, n, n_vocab), *q = compute_logits(b, ids.data, n, n_vocab);
    double *kl = qins_alloc(n, sizeof *kl);
    assert_non_null(kl);
    for (size_t t = 0; t < n; t++) {
        const float *x = p + t * n_vocab, *y = q + t * n_vocab;
        double sum_x = 0, sum_y = 0, difference = 0;
        for (size_t v = 0; v < n_vocab; v++) {
            sum_x += exp((double)x[v]);
            sum_y += exp((double)y[v]);
        }
        for (size_t v = 0; v < n_vocab; v++)
            difference += exp((double)x[v]) / sum_x * ((double)x[v] - (double)y[v]);
        kl[t] = difference + log(sum_y) - log(sum_x);
    }
    free(p);
    free(q);
    qins_model_close(a);
    qins_model_close(b);
    npy_free(&ids);
    qsort(kl, n, sizeof *kl, ascending);
    double median = kl[n / 2];
    free(kl);
    return median;
}

static void keeps_its_predictions_at_8_bits(void **state) {
    const char *out = output_folder(*state, "gauss8");
    compress(*state, out, QINS_CODEC_GAUSS, 5, NULL);
    double kl_5 = median_kl(*state, out);
    compress(*state, out, QINS_CODEC_GAUSS, 8, NULL);
    double kl = median_kl(*state, out);
    print_message("KL divergence at 8 bits %.2g, at 5 bits %.2g\n", kl, kl_5);
    assert_true(kl > 0 && kl <= MAX_SHARE_OF_5_BITS * kl_5);
    if (strncmp(*state, GOLDEN, sizeof GOLDEN - 1) == 0) assert_true(kl <= MAX_KL_AT_8_BITS);
}

static void assert_same_logits(const char *reference, const char *other) {
    char path[PATH_SIZE];
    join(path, reference, "ids_1.npy", 0);
    npy_array ids = npy_load(path, "<i4");
    qins_model *a = open_model(reference), *b = open_model(other);
    size_t n_vocab = vocabulary(a), n = ids.n_values;
    float *p = compute_logits(a, ids.data, n, n_vocab), *q = compute_logits(b, ids.data, n, n_vocab);
    assert_memory_equal(p, q, n * n_vocab * sizeof *p);
    free(p);
    free(q);
    qins_model_close(a);
    qins_model_close(b);
    npy_free(&ids);
}

static void is_unchanged_by_a_copy_without_codec(void **state) {
    const char *out = output_folder(*state, "none");
    compress(*state, out, QINS_CODEC_NONE, 8, NULL);
    assert_same_logits(*state, out);
}

static void survives_compress_and_export_to_plain_files(void **state) {
    char compressed[PATH_SIZE * 2];
    snprintf(compressed, sizeof compressed, "%s", output_folder(*state, "some"));
    compress(*state, compressed, QINS_CODEC_GAUSS, 8, "down|c_proj|dense|w2"); /* the others stay plain */
    qins_export_options options = {.dtype = QINS_F32, .force = true};
    qins_error err = {0};
    const char *out = output_folder(*state, "export");
    if (qins_export(compressed, out, &options, NULL, &err) != QINS_OK) fail_msg("%s", err.message);
    double kl = median_kl(*state, out);
    print_message("KL divergence of the exported model %.2g\n", kl);
    assert_true(kl > 0 && kl <= MAX_KL_AT_8_BITS);
}

/* What a GGUF file has no room for, and how the refusal calls it. */
static const char *why_no_gguf(const char *folder) {
    static const struct {
        const char *family, *named;
    } refused[] = {
        {"llama_dynamic", "rope scaling \"dynamic\""},       {"llama_yarn", "this rope"}, /* truncate off */
        {"gpt_neox_sequential", "this activation function"}, {"smollm3", "having biases such as model.layers.0."},
        {"qwen2_moe", "which layers have experts"},          {"qwen3_moe", "having biases such as model.layers.0."}};
    const char *name = strrchr(folder, '/') != NULL ? strrchr(folder, '/') + 1 : folder;
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++)
        if (strcmp(refused[i].family, name) == 0) return refused[i].named;
    return NULL;
}

static void computes_the_same_from_a_gguf_file(void **state) {
    const char *out = output_folder(*state, "gguf"), *named = why_no_gguf(*state);
    qins_export_options options = {.format = QINS_FORMAT_GGUF, .dtype = QINS_F32, .force = true};
    qins_error err = {0};
    qins_status status = qins_export(*state, out, &options, NULL, &err);
    if (named != NULL) {
        assert_int_equal(status, QINS_ERR_UNSUPPORTED);
        assert_contains(err.message, named);
        assert_false(qins_path_exists(out));
        return;
    }
    if (status != QINS_OK) fail_msg("%s", err.message);
    assert_true(difference_of(out, *state) <= MAX_LOGIT_DIFF);
    assert_decodes_greedily(out, *state);
    /* and from the GGUF file to another one */
    char again[2 * PATH_SIZE];
    snprintf(again, sizeof again, "%s", output_folder(*state, "again.gguf"));
    if (qins_export(output_folder(*state, "gguf"), again, &options, NULL, &err) != QINS_OK) fail_msg("%s", err.message);
    assert_true(difference_of(again, *state) <= MAX_LOGIT_DIFF);
}

/* Takes the prefix off every tensor name in the header of a safetensors file; spaces fill the room. */
static void remove_prefix(const char *path, const char *prefix) {
    char *file = NULL, quoted[64];
    size_t size, n = strlen(prefix);
    qins_error err = {0};
    assert_int_equal(qins_read_file(path, SIZE_MAX / 2, &file, &size, &err), QINS_OK);
    uint64_t header;
    memcpy(&header, file, sizeof header);
    char *text = file + 8, *end = text + header, *at;
    snprintf(quoted, sizeof quoted, "\"%s", prefix);
    while ((at = memmem(text, (size_t)(end - text), quoted, n + 1)) != NULL) {
        memmove(at + 1, at + 1 + n, (size_t)(end - at) - 1 - n);
        memset(end - n, ' ', n);
    }
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(file, 1, size, f), size);
    assert_int_equal(fclose(f), 0);
    free(file);
}

static void write_variant(const char *family, const char *key, const char *value, char *out);

static void names_without_the_prefix_of_the_base_model_are_found(void **state) {
    (void)state;
    const struct { const char *family, *prefix; } cases[] = {{"gpt2", "transformer."}, {"qwen3_moe", "model."}};
    for (size_t i = 0; i < 2; i++) {
        char out[2 * PATH_SIZE], weights[3 * PATH_SIZE];
        write_variant(cases[i].family, "architectures", NULL, out);
        snprintf(weights, sizeof weights, "%s/model.safetensors", out);
        remove_prefix(weights, cases[i].prefix);
        assert_true(difference_of(out, out) <= MAX_LOGIT_DIFF);
    }
}

/* ---- what is refused ---- */

/* A copy of a golden checkpoint whose config.json has one key set to a JSON text (NULL: removed). */
static void write_variant(const char *family, const char *key, const char *value, char *out) {
    char command[8 * PATH_SIZE], path[PATH_SIZE * 3];
    snprintf(out, 2 * PATH_SIZE, "%s/variant", scratch);
    snprintf(command, sizeof command, "rm -rf '%s' && cp -r '%s/%s' '%s'", out, GOLDEN, family, out);
    assert_int_equal(system(command), 0);
    snprintf(path, sizeof path, "%s/config.json", out);
    json_t *config = json_load_file(path, 0, NULL);
    assert_non_null(config);
    json_object_del(config, key);
    if (value != NULL) json_object_set_new(config, key, json_loads(value, JSON_DECODE_ANY, NULL));
    assert_int_equal(json_dump_file(config, path, JSON_INDENT(2)), 0);
    json_decref(config);
}

static void assert_refused(const char *family, const char *key, const char *value, qins_status status,
                           const char *named) {
    char path[2 * PATH_SIZE];
    qins_error err = {0};
    qins_model *m = NULL;
    write_variant(family, key, value, path);
    if (qins_model_open(path, NULL, &m, &err) != status)
        fail_msg("%s with %s = %s: %s", family, key, value, err.message);
    assert_contains(err.message, named);
}

static void unknown_model_types_are_refused_by_name(void **state) {
    (void)state;
    assert_refused("llama", "model_type", "\"mamba\"", QINS_ERR_UNSUPPORTED, "model_type \"mamba\"");
    assert_refused("llama", "model_type", "\"mamba\"", QINS_ERR_UNSUPPORTED, "llama, mistral");
}

static void unknown_rope_types_are_refused_by_name(void **state) {
    (void)state;
    assert_refused("llama", "rope_parameters", "{\"rope_type\": \"spiral\"}", QINS_ERR_UNSUPPORTED,
                   "rope scaling \"spiral\"");
    assert_refused("qwen2", "rope_scaling", "{\"type\": \"mrope\", \"factor\": 2.0}", QINS_ERR_UNSUPPORTED, "mrope");
    assert_refused("llama", "rope_parameters", "{\"rope_type\": \"linear\"}", QINS_ERR_FORMAT, "factor");
    assert_refused("llama", "rope_parameters", "{\"rope_theta\": 1e4, \"partial_rotary_factor\": 0.5}",
                   QINS_ERR_UNSUPPORTED, "partial rope");
    assert_refused("qwen3", "rope_parameters",
                   "{\"full_attention\": {\"rope_theta\": 1e4}, \"sliding_attention\": {\"rope_theta\": 1e3}}",
                   QINS_ERR_UNSUPPORTED, "by layer type");
    assert_refused("phi3", "rope_scaling", "{\"type\": \"longrope\", \"short_factor\": [1], \"long_factor\": [1]}",
                   QINS_ERR_FORMAT, "short_factor");
}

static void options_that_are_not_implemented_are_refused_by_name(void **state) {
    (void)state;
    assert_refused("phi", "qk_layernorm", "true", QINS_ERR_UNSUPPORTED, "qk_layernorm");
    assert_refused("gpt2", "scale_attn_by_inverse_layer_idx", "true", QINS_ERR_UNSUPPORTED,
                   "scale_attn_by_inverse_layer_idx");
    assert_refused("gemma3_text", "use_bidirectional_attention", "true", QINS_ERR_UNSUPPORTED,
                   "use_bidirectional_attention");
    assert_refused("olmoe", "clip_qkv", "8.0", QINS_ERR_UNSUPPORTED, "clip_qkv");
    assert_refused("qwen2_moe", "use_sliding_window", "true", QINS_ERR_UNSUPPORTED, "use_sliding_window");
    assert_refused("llama", "hidden_act", "\"xielu\"", QINS_ERR_UNSUPPORTED, "xielu");
    assert_refused("qwen3", "layer_types", "[\"linear_attention\", \"full_attention\"]", QINS_ERR_UNSUPPORTED,
                   "linear_attention");
    assert_refused("llama", "layer_types", "[\"sliding_attention\", \"full_attention\"]", QINS_ERR_UNSUPPORTED,
                   "sliding_attention");
    assert_refused("llama", "quantization_config", "{\"quant_method\": \"gptq\", \"bits\": 4}", QINS_ERR_UNSUPPORTED,
                   "gptq");
}

static void biases_that_config_and_file_disagree_on_are_refused(void **state) {
    (void)state;
    assert_refused("llama", "attention_bias", "false", QINS_ERR_UNSUPPORTED, "self_attn.q_proj.bias");
    assert_refused("qwen3", "attention_bias", "true", QINS_ERR_FORMAT, "self_attn.q_proj.bias is missing");
}

static void tensors_of_another_shape_are_refused_by_whatever_reads_the_model(void **state) {
    (void)state;
    char path[2 * PATH_SIZE], out[2 * PATH_SIZE];
    snprintf(out, sizeof out, "%s", output_folder("llama", "shape"));
    write_variant("llama", "intermediate_size", "64", path); /* the file has 48 */
    static const char named[] = "tensor model.layers.0.mlp.gate_proj.weight: expected 64 x 32, found 48 x 32";
    qins_error err[4] = {0};
    qins_compress_options options;
    qins_compress_defaults(&options);
    assert_int_equal(qins_compress(path, out, &options, NULL, &err[0]), QINS_ERR_FORMAT);
    const qins_export_options to_files = {.dtype = QINS_F32}, to_gguf = {.format = QINS_FORMAT_GGUF};
    assert_int_equal(qins_export(path, out, &to_files, NULL, &err[1]), QINS_ERR_FORMAT);
    assert_int_equal(qins_export(path, out, &to_gguf, NULL, &err[2]), QINS_ERR_FORMAT);
    qins_audit *audit = NULL;
    assert_int_equal(qins_audit_open(path, NULL, &audit, &err[3]), QINS_ERR_FORMAT);
    for (size_t i = 0; i < 4; i++)
        assert_contains(err[i].message, named);
    assert_false(qins_path_exists(out));
}

static void positions_beyond_the_learned_ones_are_refused(void **state) {
    (void)state;
    qins_model *m = open_model(GOLDEN "/gpt2");
    qins_session *s = NULL;
    qins_error err = {0};
    assert_int_equal(qins_session_new(m, 81, &s, &err), QINS_ERR_ARGUMENT);
    assert_contains(err.message, "80 learned positions");
    qins_model_close(m);
}

/* ---- running ---- */

static const struct {
    const char *name;
    void (*run)(void **state);
} behaviours[] = {{"computes_the_logits_of_the_reference", computes_the_logits_of_the_reference},
                  {"computes_a_batch_of_lengths", computes_a_batch_of_lengths},
                  {"decodes_greedily_as_the_reference", decodes_greedily_as_the_reference},
                  {"keeps_its_predictions_at_8_bits", keeps_its_predictions_at_8_bits},
                  {"is_unchanged_by_a_copy_without_codec", is_unchanged_by_a_copy_without_codec},
                  {"survives_compress_and_export_to_plain_files", survives_compress_and_export_to_plain_files},
                  {"computes_the_same_from_a_gguf_file", computes_the_same_from_a_gguf_file}};

enum {
    N_BEHAVIOURS = sizeof behaviours / sizeof behaviours[0],
    MAX_FOLDERS = 64,
    MAX_TESTS = MAX_FOLDERS * N_BEHAVIOURS
};

static struct CMUnitTest tests[MAX_TESTS];
static size_t n_tests;

static void add_folder(const char *folder) {
    char *path = qins_strdup(folder);
    for (size_t n = strlen(path); n > 1 && path[n - 1] == '/'; n--)
        path[n - 1] = '\0';
    const char *name = strrchr(path, '/') != NULL ? strrchr(path, '/') + 1 : path;
    for (size_t i = 0; i < N_BEHAVIOURS && n_tests < MAX_TESTS; i++) {
        char *text = qins_format("%s_%s", name, behaviours[i].name);
        tests[n_tests++] = (struct CMUnitTest){text, behaviours[i].run, NULL, NULL, qins_strdup(path)};
    }
    free(path);
}

static int is_folder(const struct dirent *entry) {
    return entry->d_name[0] != '.' && strchr(entry->d_name, '.') == NULL;
}

static void add_goldens(void) {
    struct dirent **entries;
    int n = scandir(GOLDEN, &entries, is_folder, alphasort);
    for (int i = 0; i < n; i++) {
        char folder[PATH_SIZE];
        snprintf(folder, sizeof folder, "%s/%s", GOLDEN, entries[i]->d_name);
        add_folder(folder);
        free(entries[i]);
    }
    if (n >= 0) free(entries);
}

static int run_all(void) {
    const struct CMUnitTest variants[] = {
        cmocka_unit_test(names_without_the_prefix_of_the_base_model_are_found),
        cmocka_unit_test(unknown_model_types_are_refused_by_name),
        cmocka_unit_test(unknown_rope_types_are_refused_by_name),
        cmocka_unit_test(options_that_are_not_implemented_are_refused_by_name),
        cmocka_unit_test(biases_that_config_and_file_disagree_on_are_refused),
        cmocka_unit_test(tensors_of_another_shape_are_refused_by_whatever_reads_the_model),
        cmocka_unit_test(positions_beyond_the_learned_ones_are_refused),
    };
    return _cmocka_run_group_tests("families", tests, n_tests, NULL, NULL) +
           cmocka_run_group_tests_name("variants", variants, NULL, NULL);
}

int main(int argc, char **argv) {
    const char *temporary = getenv("TMPDIR");
    snprintf(scratch, sizeof scratch, "%s/qins-families-XXXXXX", temporary != NULL ? temporary : "/tmp");
    if (mkdtemp(scratch) == NULL) return 1;
    for (int i = 1; i < argc; i++)
        add_folder(argv[i]);
    if (argc <= 1) add_goldens();
    if (n_tests == 0) fprintf(stderr, "no goldens in %s\n", GOLDEN);
    int failed = n_tests == 0 ? 1
                 : argc > 1   ? _cmocka_run_group_tests("families", tests, n_tests, NULL, NULL)
                              : run_all();
    for (size_t i = 0; i < n_tests; i++) {
        free((void *)(uintptr_t)tests[i].name);
        free(tests[i].initial_state);
    }
    char command[PATH_SIZE + 16];
    snprintf(command, sizeof command, "rm -rf '%s'", scratch);
    return system(command) != 0 || failed != 0;
}
