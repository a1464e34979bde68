/* Safetensors files and the directories they come in. SPDX-License-Identifier: MIT */
#include "scratch_dir.h"

#include "format/safetensors.h"

/* ---- one file in memory ---- */

typedef struct parsed {
    uint8_t *file;
    size_t size;
    qins_tensor_list tensors;
    json_t *metadata;
    qins_status status;
    qins_error err;
} parsed;

static uint8_t *make_file(const char *header, size_t n_data, size_t *size) {
    size_t n = strlen(header);
    uint8_t *file = malloc(8 + n + n_data);
    assert_non_null(file);
    for (size_t i = 0; i < 8; i++)
        file[i] = (uint8_t)(n >> (8 * i));
    memcpy(file + 8, header, n);
    for (size_t i = 0; i < n_data; i++)
        file[8 + n + i] = (uint8_t)(i + 1);
    *size = 8 + n + n_data;
    return file;
}

/* Parses a file of this header and n_data bytes 1, 2, 3 ... */
static parsed parse(const char *header, size_t n_data) {
    parsed p = {0};
    p.file = make_file(header, n_data, &p.size);
    p.status = qins_safetensors_parse(p.file, p.size, "f.safetensors", &p.tensors, &p.metadata, &p.err);
    return p;
}

static void parsed_free(parsed *p) {
    qins_tensor_list_free(&p->tensors);
    json_decref(p->metadata);
    free(p->file);
}

static void assert_refused(const char *header, size_t n_data, qins_status status, const char *part) {
    parsed p = parse(header, n_data);
    if (p.status != status) fail_msg("%s: expected status %d, found %d (%s)", header, status, p.status, p.err.message);
    assert_contains(p.err.message, "f.safetensors");
    assert_contains(p.err.message, part);
    parsed_free(&p);
}

static void tensors_are_found_with_dtype_shape_and_bytes(void **state) {
    (void)state;
    parsed p = parse("{\"__metadata__\":{\"format\":\"pt\"},"
                     "\"b\":{\"dtype\":\"BF16\",\"shape\":[2,3],\"data_offsets\":[8,20]},"
                     "\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}   ",
                     20);
    assert_int_equal(p.status, QINS_OK);
    assert_int_equal(p.tensors.n, 2);
    const qins_tensor *b = &p.tensors.items[0];
    assert_string_equal(b->name, "b");
    assert_int_equal(b->type, QINS_TYPE_BF16);
    assert_int_equal(b->n_dims, 2);
    assert_int_equal(b->shape[0], 2);
    assert_int_equal(b->shape[1], 3);
    assert_int_equal(b->n_values, 6);
    assert_int_equal(b->n_bytes, 12);
    assert_int_equal(b->data[0], 9);
    assert_string_equal(json_string_value(json_object_get(p.metadata, "format")), "pt");
    parsed_free(&p);
}

static void scalars_and_empty_tensors_are_accepted(void **state) {
    (void)state;
    parsed p = parse("{\"s\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]},"
                     "\"e\":{\"dtype\":\"F32\",\"shape\":[0,7],\"data_offsets\":[4,4]}}",
                     4);
    assert_int_equal(p.status, QINS_OK);
    assert_int_equal(p.tensors.items[0].n_values, 1);
    assert_int_equal(p.tensors.items[1].n_values, 0);
    parsed_free(&p);
}

#define ONE(dtype, shape, offsets) "{\"t\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":" offsets "}}"

static void sizes_that_disagree_are_refused(void **state) {
    (void)state;
    assert_refused(ONE("F32", "[3]", "[0,8]"), 8, QINS_ERR_FORMAT, "tensor t: data_offsets span 8 bytes");
    assert_refused(ONE("F32", "[2]", "[0,8]"), 7, QINS_ERR_FORMAT, "truncated");
    assert_refused(ONE("F32", "[2]", "[8,0]"), 8, QINS_ERR_FORMAT, "the end lies before the begin");
    assert_refused(ONE("F32", "[4294967296,4294967296,2]", "[0,8]"), 8, QINS_ERR_FORMAT, "overflows");
    assert_refused(ONE("F32", "[4611686018427387904]", "[0,0]"), 8, QINS_ERR_FORMAT, "overflows");
    assert_refused(ONE("F32", "[-1]", "[0,8]"), 8, QINS_ERR_FORMAT, "dimension 0");
    assert_refused(ONE("F32", "[2]", "[-8,0]"), 8, QINS_ERR_FORMAT, "non-negative");
    assert_refused(ONE("F32", "[2]", "[0,99999999999999999999]"), 8, QINS_ERR_FORMAT, "not valid JSON");
    assert_refused(ONE("F32", "[2]", "[0,8,16]"), 8, QINS_ERR_FORMAT, "data_offsets");
    assert_refused(ONE("F32", "[2.0]", "[0,8]"), 8, QINS_ERR_FORMAT, "dimension 0");
}

static void overlaps_holes_and_trailing_bytes_are_refused(void **state) {
    (void)state;
    assert_refused("{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]},"
                   "\"b\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[2,6]}}",
                   6, QINS_ERR_FORMAT, "tensor b begins at data byte 2, expected 4 (it overlaps");
    assert_refused("{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]},"
                   "\"b\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[4,6]}}",
                   6, QINS_ERR_FORMAT, "there is a hole before it");
    assert_refused(ONE("U8", "[2]", "[0,2]"), 3, QINS_ERR_FORMAT, "1 bytes follow the last tensor");
}

static void malformed_headers_are_refused(void **state) {
    (void)state;
    assert_refused("[]", 0, QINS_ERR_FORMAT, "not a JSON object");
    assert_refused("{", 0, QINS_ERR_FORMAT, "not valid JSON");
    assert_refused("{\"t\":3}", 0, QINS_ERR_FORMAT, "tensor t: expected an object");
    assert_refused("{\"t\":{}}", 0, QINS_ERR_FORMAT, "dtype");
    assert_refused("{\"__metadata__\":{\"n\":1}}", 0, QINS_ERR_FORMAT, "__metadata__.n is not a string");
    assert_refused("{\"__metadata__\":[]}", 0, QINS_ERR_FORMAT, "__metadata__ is not an object");
    assert_refused("{\"\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}}", 0, QINS_ERR_FORMAT, "empty");
    assert_refused("{\"a\\u001b[2J\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}}", 0, QINS_ERR_FORMAT,
                   "control characters");
    assert_refused("{\"t\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]},"
                   "\"t\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}}",
                   0, QINS_ERR_FORMAT, "duplicate");
}

static void unknown_dtypes_and_five_dimensions_are_refused_by_name(void **state) {
    (void)state;
    assert_refused(ONE("C64", "[1]", "[0,8]"), 8, QINS_ERR_UNSUPPORTED, "tensor t: dtype C64");
    assert_refused(ONE("U8", "[1,1,1,1,1]", "[0,1]"), 1, QINS_ERR_UNSUPPORTED, "tensor t has 5 dimensions");
}

static void header_lengths_beyond_the_file_or_the_limit_are_refused(void **state) {
    (void)state;
    static const uint64_t lengths[] = {3, 200000000, UINT64_MAX};
    for (size_t i = 0; i < 3; i++) {
        uint8_t file[10] = {0};
        for (size_t k = 0; k < 8; k++)
            file[k] = (uint8_t)(lengths[i] >> (8 * k));
        file[8] = '{', file[9] = '}';
        qins_tensor_list tensors = {0};
        json_t *metadata;
        qins_error err = {0};
        assert_int_equal(qins_safetensors_parse(file, sizeof file, "f", &tensors, &metadata, &err), QINS_ERR_FORMAT);
        assert_contains(err.message, "header of");
        assert_int_equal(qins_safetensors_parse(file, i, "f", &tensors, &metadata, &err), QINS_ERR_FORMAT);
        assert_contains(err.message, "too few");
        qins_tensor_list_free(&tensors);
    }
}

static void deeply_nested_headers_are_refused(void **state) {
    (void)state;
    enum { DEPTH = 100000 };
    char *header = malloc(DEPTH + 1);
    assert_non_null(header);
    memset(header, '[', DEPTH);
    header[DEPTH] = '\0';
    assert_refused(header, 0, QINS_ERR_FORMAT, "not valid JSON");
    free(header);
}

/* ---- directories ---- */

static void write_weights(const scratch_dir *dir, const char *name, const char *header, size_t n_data) {
    size_t size;
    uint8_t *file = make_file(header, n_data, &size);
    scratch_write(dir, name, file, size);
    free(file);
}

static void assert_open_fails(const scratch_dir *dir, qins_status status, const char *part) {
    qins_checkpoint *c = NULL;
    qins_error err = {0};
    qins_status found = qins_checkpoint_open(dir->path, &c, &err);
    qins_checkpoint_close(c);
    if (found != status) fail_msg("expected status %d, found %d (%s)", status, found, err.message);
    assert_contains(err.message, dir->path);
    assert_contains(err.message, part);
}

static void directory_gives_config_tensors_by_name_and_file_sizes(void **state) {
    (void)state;
    scratch_dir dir = scratch_new();
    scratch_text(&dir, "config.json", "{\"model_type\":\"llama\"}");
    scratch_text(&dir, "tokenizer.json", "{\"version\":\"1.0\"}");
    scratch_text(&dir, "tokenizer_config.json", "{\"eos_token\":\"</s>\"}");
    scratch_text(&dir, "chat_template.jinja", "{{ x }}");
    write_weights(&dir, "model.safetensors",
                  "{\"z.weight\":{\"dtype\":\"F16\",\"shape\":[2,2],\"data_offsets\":[0,8]},"
                  "\"a.weight.codes\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[8,11]}}",
                  11);
    qins_checkpoint *c = NULL;
    qins_error err = {0};
    if (qins_checkpoint_open(dir.path, &c, &err) != QINS_OK) fail_msg("%s", err.message);
    assert_int_equal(c->source, QINS_SOURCE_SAFETENSORS);
    assert_string_equal(json_string_value(json_object_get(c->config, "model_type")), "llama");
    assert_string_equal(json_string_value(json_object_get(c->tokenizer_config, "chat_template")), "{{ x }}");
    assert_null(c->generation_config);
    assert_int_equal(c->n_tensors, 2);
    assert_string_equal(c->tensors[0].name, "a.weight.codes");
    assert_int_equal(qins_checkpoint_find(c, "z.weight")->n_bytes, 8);
    assert_null(qins_checkpoint_find(c, "y.weight"));
    assert_int_equal(c->n_files, 1);
    assert_int_equal(c->files[0].tensor_bytes, 11);
    struct stat st;
    assert_int_equal(stat(scratch_path(&dir, "model.safetensors"), &st), 0);
    assert_int_equal(c->files[0].size, st.st_size);
    json_t *tokenizer = NULL;
    assert_int_equal(qins_checkpoint_tokenizer(c, &tokenizer, &err), QINS_OK);
    assert_string_equal(json_string_value(json_object_get(tokenizer, "version")), "1.0");
    json_decref(tokenizer);
    qins_checkpoint_close(c);
    scratch_free(&dir);
}

static const char shard_a[] = "{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]}}";
static const char shard_b[] = "{\"b\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]}}";

static void shards_are_joined_by_the_index(void **state) {
    (void)state;
    scratch_dir dir = scratch_new();
    scratch_text(&dir, "config.json", "{}");
    write_weights(&dir, "m-1.safetensors", shard_a, 2);
    write_weights(&dir, "m-2.safetensors", shard_b, 2);
    scratch_text(&dir, "model.safetensors.index.json",
                 "{\"weight_map\":{\"b\":\"m-2.safetensors\",\"a\":\"m-1.safetensors\"}}");
    qins_checkpoint *c = NULL;
    qins_error err = {0};
    if (qins_checkpoint_open(dir.path, &c, &err) != QINS_OK) fail_msg("%s", err.message);
    assert_int_equal(c->n_tensors, 2);
    assert_int_equal(c->n_files, 2);
    assert_int_equal(c->files[0].tensor_bytes, 2);
    assert_int_equal(c->files[1].tensor_bytes, 2);
    qins_checkpoint_close(c);
    scratch_free(&dir);
}

static void index_that_disagrees_with_the_shards_is_refused(void **state) {
    (void)state;
    static const struct {
        const char *weight_map, *part;
        qins_status status;
    } cases[] = {
        {"{\"a\":\"m-2.safetensors\",\"b\":\"m-2.safetensors\"}", "m-2.safetensors: tensor a is not in this file",
         QINS_ERR_FORMAT},
        {"{\"a\":\"m-1.safetensors\",\"b\":\"m-9.safetensors\"}", "m-9.safetensors", QINS_ERR_IO},
        {"{\"a\":\"../m-1.safetensors\"}", "same directory", QINS_ERR_FORMAT},
        {"{\"a\":7}", "same directory", QINS_ERR_FORMAT},
        {"{}", "weight_map", QINS_ERR_FORMAT},
        {"{\"a\":\"m-1.safetensors\",\"b\":\"m-2.safetensors\",\"c\":\"m-3.safetensors\"}", "tensor a is there twice",
         QINS_ERR_FORMAT},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        scratch_dir dir = scratch_new();
        scratch_text(&dir, "config.json", "{}");
        write_weights(&dir, "m-1.safetensors", shard_a, 2);
        write_weights(&dir, "m-2.safetensors", shard_b, 2);
        write_weights(&dir, "m-3.safetensors",
                      "{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},"
                      "\"c\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[1,2]}}",
                      2);
        char index[512];
        snprintf(index, sizeof index, "{\"weight_map\":%s}", cases[i].weight_map);
        scratch_text(&dir, "model.safetensors.index.json", index);
        assert_open_fails(&dir, cases[i].status, cases[i].part);
        scratch_free(&dir);
    }
}

static void incomplete_directories_say_what_is_missing_and_what_to_do(void **state) {
    (void)state;
    scratch_dir dir = scratch_new();
    assert_open_fails(&dir, QINS_ERR_UNSUPPORTED, "config.json");
    scratch_text(&dir, "config.json", "{\"a\":\n 1,}");
    assert_open_fails(&dir, QINS_ERR_FORMAT, "line 2");
    scratch_text(&dir, "config.json", "[]");
    assert_open_fails(&dir, QINS_ERR_FORMAT, "expected a JSON object");
    scratch_text(&dir, "config.json", "{}");
    assert_open_fails(&dir, QINS_ERR_UNSUPPORTED, "has no model.safetensors");
    scratch_text(&dir, "pytorch_model.bin", "x");
    assert_open_fails(&dir, QINS_ERR_UNSUPPORTED, "convert them to safetensors");
    scratch_text(&dir, "x-Q4_K.gguf", "x");
    assert_open_fails(&dir, QINS_ERR_UNSUPPORTED, ".gguf file itself");
    scratch_text(&dir, "adapter_model.safetensors", "x");
    assert_open_fails(&dir, QINS_ERR_UNSUPPORTED, "adapter");
    write_weights(&dir, "model.safetensors", "{}", 0);
    assert_open_fails(&dir, QINS_ERR_FORMAT, "holds no tensors");
    write_weights(&dir, "model.safetensors", shard_a, 2);
    qins_checkpoint *c = NULL;
    qins_error err = {0};
    assert_int_equal(qins_checkpoint_open(dir.path, &c, &err), QINS_OK);
    json_t *tokenizer = NULL;
    assert_int_equal(qins_checkpoint_tokenizer(c, &tokenizer, &err), QINS_ERR_UNSUPPORTED);
    assert_contains(err.message, "no tokenizer.json");
    qins_checkpoint_close(c);
    scratch_free(&dir);
}

/* ---- rows ---- */

static void rows_of_plain_tensors_come_as_floats(void **state) {
    (void)state;
    static const uint16_t halves[6] = {0x3c00, 0x4000, 0x4200, 0x4400, 0x4500, 0x4600}; /* 1 .. 6 */
    qins_tensor t = {.type = QINS_TYPE_F16, .n_dims = 2, .shape = {2, 3}, .n_values = 6, .n_bytes = 12};
    t.data = (const uint8_t *)halves;
    float row[3];
    qins_tensor_row(&t, 1, 1, 2, row);
    assert_true(row[0] == 5.0f && row[1] == 6.0f);
    t.n_dims = 1;
    qins_tensor_row(&t, 0, 3, 3, row);
    assert_true(row[0] == 4.0f && row[2] == 6.0f);
    t.type = QINS_TYPE_I16;
    qins_tensor_row(&t, 0, 0, 1, row);
    assert_true(isnan(row[0]));
}

static void rope_pairs_puts_rows_and_biases_back_in_order(void **state) {
    (void)state;
    /* two heads of four rows; the file has rows 0 2 1 3 of each head (pairs j, j + 2) */
    static const float stored[8] = {0, 2, 1, 3, 4, 6, 5, 7};
    qins_tensor t = {
        .type = QINS_TYPE_F32, .n_dims = 2, .shape = {8, 1}, .n_values = 8, .n_bytes = 32, .rope_pairs = 4};
    t.data = (const uint8_t *)stored;
    for (size_t r = 0; r < 8; r++) {
        float value;
        qins_tensor_row(&t, r, 0, 1, &value);
        assert_true(value == (float)r);
    }
    t.n_dims = 1;
    t.shape[0] = 8;
    float bias[8];
    qins_tensor_row(&t, 0, 0, 8, bias);
    for (size_t r = 0; r < 8; r++)
        assert_true(bias[r] == (float)r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tensors_are_found_with_dtype_shape_and_bytes),
        cmocka_unit_test(scalars_and_empty_tensors_are_accepted),
        cmocka_unit_test(sizes_that_disagree_are_refused),
        cmocka_unit_test(overlaps_holes_and_trailing_bytes_are_refused),
        cmocka_unit_test(malformed_headers_are_refused),
        cmocka_unit_test(unknown_dtypes_and_five_dimensions_are_refused_by_name),
        cmocka_unit_test(header_lengths_beyond_the_file_or_the_limit_are_refused),
        cmocka_unit_test(deeply_nested_headers_are_refused),
        cmocka_unit_test(directory_gives_config_tensors_by_name_and_file_sizes),
        cmocka_unit_test(shards_are_joined_by_the_index),
        cmocka_unit_test(index_that_disagrees_with_the_shards_is_refused),
        cmocka_unit_test(incomplete_directories_say_what_is_missing_and_what_to_do),
        cmocka_unit_test(rows_of_plain_tensors_come_as_floats),
        cmocka_unit_test(rope_pairs_puts_rows_and_biases_back_in_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
