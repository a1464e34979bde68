/* Qins directories and configs made to do harm, opened without checksums: refused, or used within bounds.
 * SPDX-License-Identifier: MIT */
#include "qins.h"
#include "scratch_dir.h"
#include "testing.h"

#include <jansson.h>

#define TOY    QINS_SOURCE_DIR "/models/toy"
#define LINEAR "gpt_neox.layers.0.attention.dense.weight"
#define NORM   "gpt_neox.layers.0.input_layernorm.weight"
/* of the tensors that are looked for last */
#define LAST_BIAS "gpt_neox.final_layer_norm.bias"
#define WEIGHTS   "model.safetensors"

/* A compressed toy; its weights file in parts. */
typedef struct fixture {
    scratch_dir scratch;
    scratch_dir model; /* in it */
    json_t *header;    /* of the weights file */
    json_t *qins;      /* its metadata, parsed */
    json_t *config;
    char *data; /* what follows the header */
    size_t n_data;
} fixture;

static char *read_file(const char *path, size_t *n) {
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    assert_int_equal(fseek(f, 0, SEEK_END), 0);
    *n = (size_t)ftell(f);
    rewind(f);
    char *data = malloc(*n + 1);
    assert_non_null(data);
    assert_int_equal(fread(data, 1, *n, f), *n);
    fclose(f);
    return data;
}

static int set_up(void **state) {
    fixture *f = calloc(1, sizeof *f);
    qins_error err = {0};
    qins_compress_options options;
    *state = f;
    f->scratch = scratch_new();
    snprintf(f->model.path, sizeof f->model.path, "%.240s/model", f->scratch.path);
    qins_compress_defaults(&options);
    if (qins_compress(TOY, f->model.path, &options, NULL, &err) != QINS_OK) fail_msg("%s", err.message);

    size_t n, n_header;
    char *file = read_file(scratch_path(&f->model, WEIGHTS), &n);
    memcpy(&n_header, file, 8);
    f->header = json_loadb(file + 8, n_header, 0, NULL);
    f->n_data = n - 8 - n_header;
    f->data = malloc(f->n_data);
    assert_non_null(f->data);
    memcpy(f->data, file + 8 + n_header, f->n_data);
    free(file);
    const char *qins = json_string_value(json_object_get(json_object_get(f->header, "__metadata__"), "qins"));
    f->qins = json_loads(qins, 0, NULL);
    f->config = json_load_file(scratch_path(&f->model, "config.json"), 0, NULL);
    assert_non_null(f->qins);
    assert_non_null(f->config);
    return 0;
}

static int tear_down(void **state) {
    fixture *f = *state;
    scratch_free(&f->model);
    scratch_free(&f->scratch);
    json_decref(f->header);
    json_decref(f->qins);
    json_decref(f->config);
    free(f->data);
    free(f);
    return 0;
}

/* A copy of the three documents, to be changed. */
typedef struct edited {
    json_t *header, *qins, *config;
} edited;

static edited edit(const fixture *f) {
    return (edited){json_deep_copy(f->header), json_deep_copy(f->qins), json_deep_copy(f->config)};
}

/* Writes the directory with the edited documents and releases them. */
static void write_model(const fixture *f, edited *e) {
    char *qins = json_dumps(e->qins, JSON_COMPACT);
    json_object_set_new(json_object_get(e->header, "__metadata__"), "qins", json_string(qins));
    char *header = json_dumps(e->header, JSON_COMPACT), *config = json_dumps(e->config, 0);
    uint64_t n_header = (strlen(header) + 63) / 64 * 64 + 56; /* data on a 64-byte boundary, as qins writes it */
    char *padded = malloc(n_header);
    assert_non_null(padded);
    memset(padded, ' ', n_header);
    memcpy(padded, header, strlen(header));
    FILE *file = fopen(scratch_path(&f->model, WEIGHTS), "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(&n_header, 8, 1, file), 1);
    assert_int_equal(fwrite(padded, 1, n_header, file), n_header);
    assert_int_equal(fwrite(f->data, 1, f->n_data, file), f->n_data);
    assert_int_equal(fclose(file), 0);
    scratch_text(&f->model, "config.json", config);
    free(qins);
    free(header);
    free(config);
    free(padded);
    json_decref(e->header);
    json_decref(e->qins);
    json_decref(e->config);
}

/* Everything that reads a model: logits of some tokens, an audit, an export. Returns the sum of the logits. */
static qins_status use(const fixture *f, double *sum, qins_error *err) {
    const qins_model_options options = {.no_check = true};
    const qins_export_options export_options = {.no_check = true, .force = true};
    const int32_t ids[] = {1, 2, 3};
    qins_model *model = NULL;
    qins_session *session = NULL;
    qins_audit *audit = NULL;
    qins_model_info info = {0};
    char out[512];
    snprintf(out, sizeof out, "%.400s/export", f->scratch.path);
    if (qins_audit_open(f->model.path, &options, &audit, NULL) == QINS_OK) qins_audit_close(audit);
    if (qins_export(f->model.path, out, &export_options, NULL, NULL) == QINS_OK) {
        scratch_dir made;
        snprintf(made.path, sizeof made.path, "%.255s", out);
        scratch_free(&made);
    }
    qins_status status = qins_model_open(f->model.path, &options, &model, err);
    if (status == QINS_OK) status = qins_session_new(model, 8, &session, err);
    if (status == QINS_OK) {
        qins_model_get_info(model, &info);
        float *logits = malloc(3 * info.vocab_size * sizeof *logits);
        assert_non_null(logits);
        status = qins_session_eval(session, ids, 3, logits, 3, err);
        *sum = 0;
        for (size_t i = 0; status == QINS_OK && i < 3 * info.vocab_size; i++)
            *sum += (double)logits[i];
        free(logits);
    }
    qins_session_free(session);
    qins_model_close(model);
    return status;
}

static void assert_refused(const fixture *f, edited *e, const char *says) {
    qins_error err = {0};
    double sum;
    write_model(f, e);
    assert_int_not_equal(use(f, &sum, &err), QINS_OK);
    assert_contains(err.message, says);
}

static json_t *json(const char *text) {
    json_t *value = json_loads(text, JSON_DECODE_ANY, NULL);
    assert_non_null(value);
    return value;
}

static void rename_tensor(json_t *tensors, const char *from, const char *to) {
    json_object_set(tensors, to, json_object_get(tensors, from));
    json_object_del(tensors, from);
}

static void rename_encoded(edited *e, const char *from, const char *to) {
    const char *const parts[] = {".codes", ".scales"};
    for (size_t i = 0; i < 2; i++) {
        char a[256], b[256];
        snprintf(a, sizeof a, "%s%s", from, parts[i]);
        snprintf(b, sizeof b, "%s%s", to, parts[i]);
        rename_tensor(e->header, a, b);
    }
    rename_tensor(json_object_get(e->qins, "tensors"), from, to);
}

/* ---- tests ---- */

static void an_unchanged_directory_is_used(void **state) {
    const fixture *f = *state;
    qins_error err = {0};
    double sum;
    edited e = edit(f);
    write_model(f, &e);
    if (use(f, &sum, &err) != QINS_OK) fail_msg("%s", err.message);
}

static void entries_out_of_range_are_refused(void **state) {
    static const struct {
        const char *key, *value;
    } cases[] = {
        {"shape", "[0, 256]"},
        {"shape", "[256, 0]"},
        {"shape", "[-1, 256]"},
        {"shape", "[256, 4611686018427387904]"},
        {"shape", "[9223372036854775807, 9223372036854775807]"},
        {"shape", "[4611686018427387904, 256]"},
        {"shape", "[257, 256]"},
        {"shape", "[256, 257]"},
        {"shape", "[256]"},
        {"shape", "[256, 256, 1]"},
        {"shape", "\"256\""},
        {"shape", "[256.0, 256.0]"},
        {"bits", "2"},
        {"bits", "9"},
        {"bits", "-4"},
        {"bits", "5"},
        {"bits", "1000"},
        {"codec", "\"none\""},
        {"codec", "\"zstd\""},
        {"codec", "4"},
        {"codec", "\"log\""},
        {"storage", "\"seed\""},
        {"storage", "\"f32\""},
        {"scale", "\"auto\""},
        {"scale", "\"group\""},
        {"source_dtype", "\"a name that is far too long for a dtype\""},
    };
    const fixture *f = *state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        edited e = edit(f);
        json_t *entry = json_object_get(json_object_get(e.qins, "tensors"), LINEAR);
        assert_int_equal(json_object_set_new(entry, cases[i].key, json(cases[i].value)), 0);
        assert_refused(f, &e, LINEAR);
    }
}

static void missing_parts_are_named(void **state) {
    static const char *const parts[] = {LINEAR ".codes", LINEAR ".scales", "qins.table.gauss.4"};
    const fixture *f = *state;
    for (size_t i = 0; i < 3; i++) {
        edited e = edit(f);
        rename_tensor(e.header, parts[i], "something.else");
        assert_refused(f, &e, strstr(parts[i], "table") != NULL ? "table" : LINEAR);
    }
}

static void a_tensor_that_is_encoded_and_plain_is_refused(void **state) {
    const fixture *f = *state;
    edited e = edit(f);
    rename_tensor(e.header, NORM, LINEAR);
    assert_refused(f, &e, LINEAR " is there twice");
}

/* The matrix of 256 x 256 takes the place of a vector of 256. */
static void an_encoded_matrix_is_no_vector(void **state) {
    const fixture *f = *state;
    edited e = edit(f);
    rename_tensor(e.header, NORM, "something.else");
    rename_encoded(&e, LINEAR, NORM);
    assert_refused(f, &e, NORM ": expected 256 values, found 65536");
}

static void a_plain_vector_is_no_matrix(void **state) {
    const fixture *f = *state;
    edited e = edit(f);
    rename_encoded(&e, LINEAR, "something.else");
    rename_tensor(e.header, LAST_BIAS, LINEAR);
    assert_refused(f, &e, LINEAR);
}

/* One group wider than the matrix is one scale a row: nothing else changes. */
static void a_group_wider_than_the_matrix_is_one_scale_a_row(void **state) {
    static const char *const sizes[] = {"256", "260", "9223372036854775804"};
    const fixture *f = *state;
    qins_error err = {0};
    double expected, sum;
    edited e = edit(f);
    write_model(f, &e);
    assert_int_equal(use(f, &expected, &err), QINS_OK);
    for (size_t i = 0; i < 3; i++) {
        e = edit(f);
        json_t *entry = json_object_get(json_object_get(e.qins, "tensors"), LINEAR);
        json_object_set_new(entry, "scale", json_string("group"));
        json_object_set_new(entry, "group_size", json(sizes[i]));
        json_object_set_new(json_object_get(e.header, LINEAR ".scales"), "shape", json("[16, 1, 16]"));
        write_model(f, &e);
        if (use(f, &sum, &err) != QINS_OK) fail_msg("%s", err.message);
        assert_close(sum, expected, 1e-2 * fabs(expected));
    }
}

static void metadata_of_another_kind_is_refused(void **state) {
    static const struct {
        const char *key, *value;
    } cases[] = {{"version", "2"}, {"version", "\"1\""}, {"tensors", "[]"}, {"tensors", "null"}};
    const fixture *f = *state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        edited e = edit(f);
        json_object_set_new(e.qins, cases[i].key, json(cases[i].value));
        assert_refused(f, &e, "qins");
    }
}

static void configs_that_do_not_fit_are_refused(void **state) {
    static const struct {
        const char *key, *value;
    } cases[] = {
        {"hidden_size", "0"},
        {"hidden_size", "255"},
        {"hidden_size", "16777216"},
        {"hidden_size", "9223372036854775807"},
        {"hidden_size", "\"256\""},
        {"hidden_size", "null"},
        {"num_attention_heads", "0"},
        {"num_attention_heads", "-4"},
        {"num_attention_heads", "16777216"},
        {"num_key_value_heads", "3"},
        {"head_dim", "16777216"},
        {"head_dim", "65"},
        {"intermediate_size", "1"},
        {"num_hidden_layers", "4"},
        {"num_hidden_layers", "4096"},
        {"num_hidden_layers", "1000000000"},
        {"vocab_size", "4999"},
        {"vocab_size", "67108864"},
        {"rotary_pct", "1.5"},
        {"rotary_pct", "-1"},
        {"rotary_emb_base", "0"},
        {"layer_norm_eps", "-1"},
        {"hidden_act", "\"softmax\""},
        {"hidden_act", "7"},
        {"model_type", "\"unknown\""},
        {"model_type", "\"llama\""},
        {"model_type", "1"},
    };
    const fixture *f = *state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        edited e = edit(f);
        json_object_del(e.config, "rope_parameters"); /* it would hide the older keys */
        json_object_set_new(e.config, cases[i].key, json(cases[i].value));
        assert_refused(f, &e, f->model.path);
    }
}

/* Scales of other methods lie in tensors that qins does not know: the weights alone must not pass for the model. */
static void weights_quantized_by_others_are_refused(void **state) {
    const fixture *f = *state;
    edited e = edit(f);
    json_object_del(json_object_get(e.header, "__metadata__"), "qins_xxh3_64");
    json_object_set_new(e.config, "quantization_config", json("{\"quant_method\": \"fp8\"}"));
    write_model(f, &e);
    /* plain weights: the file of the source */
    size_t n;
    char *plain = read_file(TOY "/" WEIGHTS, &n);
    scratch_write(&f->model, WEIGHTS, plain, n);
    free(plain);
    qins_error err = {0};
    double sum;
    assert_int_equal(use(f, &sum, &err), QINS_ERR_UNSUPPORTED);
    assert_contains(err.message, "quantization method \"fp8\"");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_unchanged_directory_is_used),
        cmocka_unit_test(entries_out_of_range_are_refused),
        cmocka_unit_test(missing_parts_are_named),
        cmocka_unit_test(a_tensor_that_is_encoded_and_plain_is_refused),
        cmocka_unit_test(an_encoded_matrix_is_no_vector),
        cmocka_unit_test(a_plain_vector_is_no_matrix),
        cmocka_unit_test(a_group_wider_than_the_matrix_is_one_scale_a_row),
        cmocka_unit_test(metadata_of_another_kind_is_refused),
        cmocka_unit_test(configs_that_do_not_fit_are_refused),
        cmocka_unit_test(weights_quantized_by_others_are_refused),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
