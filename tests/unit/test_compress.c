/* Compressing and exporting: cancelled, repeated, and what is left untouched. SPDX-License-Identifier: MIT */
#include "format/checkpoint.h"
#include "format/safetensors_write.h"
#include "scratch_dir.h"
#include "testing.h"

#define TOY QINS_SOURCE_DIR "/models/toy"

static void check(qins_status status, const qins_error *err) {
    if (status != QINS_OK) fail_msg("%s", err->message);
}

static scratch_dir inside(const scratch_dir *parent, const char *name) {
    scratch_dir dir;
    snprintf(dir.path, sizeof dir.path, "%.200s/%.40s", parent->path, name);
    return dir;
}

static qins_compress_result compress(const char *from, const char *to, const qins_compress_options *options) {
    qins_error err = {0};
    qins_compress_result result;
    check(qins_compress(from, to, options, &result, &err), &err);
    return result;
}

static qins_compress_options defaults(void) {
    qins_compress_options options;
    qins_compress_defaults(&options);
    return options;
}

static size_t count_entries(const char *path) {
    size_t n = 0;
    DIR *d = opendir(path);
    assert_non_null(d);
    for (struct dirent *e = readdir(d); e != NULL; e = readdir(d))
        n += strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0;
    closedir(d);
    return n;
}

static uint64_t stored_bytes(const char *path) {
    qins_error err = {0};
    qins_audit *audit = NULL;
    check(qins_audit_open(path, NULL, &audit, &err), &err);
    uint64_t n = qins_audit_get_totals(audit)->stored_bytes;
    qins_audit_close(audit);
    return n;
}

/* ---- cancelling ---- */

/* Cancels at the call that counts down to 0. */
static int count_down(void *user, const char *stage, uint64_t done, uint64_t total) {
    (void)stage;
    assert_true(done <= total);
    return --*(long *)user == 0;
}

static void a_cancelled_compress_leaves_nothing(void **state) {
    (void)state;
    scratch_dir folder = scratch_new(), out = inside(&folder, "out");
    long calls = 0;
    qins_compress_options options = defaults();
    options.progress = count_down;
    options.progress_user = &calls;
    compress(TOY, out.path, &options);
    scratch_free(&out);
    const long at[] = {1, 2, -calls / 2, -calls}; /* calls counted down from 0; the last report comes at the end */
    assert_true(at[2] > 2);
    for (size_t i = 0; i < sizeof at / sizeof at[0]; i++) {
        qins_error err = {0};
        calls = at[i];
        assert_int_equal(qins_compress(TOY, out.path, &options, NULL, &err), QINS_ERR_CANCELLED);
        assert_int_equal(err.code, QINS_ERR_CANCELLED);
        assert_int_equal(count_entries(folder.path), 0);
    }
    scratch_free(&folder);
}

static void a_cancelled_replacement_leaves_the_old_result(void **state) {
    (void)state;
    scratch_dir folder = scratch_new(), out = inside(&folder, "out");
    qins_compress_options options = defaults();
    qins_export_options export_options = {.dtype = QINS_F32, .force = true, .progress = count_down};
    uint64_t stored = compress(TOY, out.path, &options).stored_bytes;
    long calls = 3;
    options.linear.bits = 8;
    options.force = true;
    options.progress = count_down;
    options.progress_user = export_options.progress_user = &calls;
    assert_int_equal(qins_compress(TOY, out.path, &options, NULL, NULL), QINS_ERR_CANCELLED);
    calls = 3;
    assert_int_equal(qins_export(TOY, out.path, &export_options, NULL, NULL), QINS_ERR_CANCELLED);
    assert_int_equal(count_entries(folder.path), 1);
    assert_int_equal(stored_bytes(out.path), stored);
    scratch_free(&out);
    scratch_free(&folder);
}

/* ---- again ---- */

static void compressing_a_compressed_model_again_changes_nothing(void **state) {
    (void)state;
    scratch_dir folder = scratch_new(), once = inside(&folder, "once"), twice = inside(&folder, "twice");
    qins_compress_options options = defaults();
    qins_compress_result first = compress(TOY, once.path, &options), second = compress(once.path, twice.path, &options);
    assert_int_equal(second.source_bytes, first.stored_bytes); /* tables that matrices share count once */
    assert_int_equal(second.stored_bytes, first.stored_bytes);
    assert_true(first.rel_mse > 1e-3);
    assert_true(second.rel_mse < 1e-10);
    scratch_free(&once);
    scratch_free(&twice);
    scratch_free(&folder);
}

/* ---- untouched tensors ---- */

/* The toy with 16-bit weights and a head of its own, whose rows are the embedding's in reverse. */
static void write_half_model(const scratch_dir *dir, qins_dtype dtype) {
    enum { HEAD_ROWS = 5000, HEAD_COLS = 256 };
    qins_error err = {0};
    qins_checkpoint *toy = NULL;
    qins_st_writer *w = NULL;
    const char *name = dtype == QINS_F16 ? "F16" : "BF16";
    check(qins_checkpoint_open(TOY, &toy, &err), &err);
    assert_int_equal(mkdir(dir->path, 0777), 0);
    check(qins_st_writer_new(false, &w, &err), &err);
    size_t index, n = toy->n_tensors;
    const qins_tensor *embed = qins_checkpoint_find(toy, "gpt_neox.embed_in.weight");
    assert_non_null(embed);
    for (size_t i = 0; i <= n; i++) {
        const qins_tensor *t = i < n ? &toy->tensors[i] : embed;
        check(qins_st_writer_add(w, i < n ? t->name : "embed_out.weight", name, t->n_dims, t->shape, 2 * t->n_values,
                                 &index, &err),
              &err);
    }
    check(qins_st_writer_begin(w, dir->path, "model.safetensors", NULL, &err), &err);
    for (size_t i = 0; i <= n; i++) {
        const qins_tensor *t = i < n ? &toy->tensors[i] : embed;
        const float *values = (const float *)(const void *)t->data;
        uint16_t *half = malloc((size_t)t->n_values * sizeof *half);
        assert_non_null(half);
        for (size_t k = 0; k < t->n_values; k++) {
            size_t from = i < n ? k : (HEAD_ROWS - 1 - k / HEAD_COLS) * HEAD_COLS + k % HEAD_COLS;
            half[k] = dtype == QINS_F16 ? qins_f32_to_f16(values[from]) : qins_f32_to_bf16(values[from]);
        }
        check(qins_st_writer_put(w, i, 0, half, 2 * (size_t)t->n_values, &err), &err);
        free(half);
    }
    check(qins_st_writer_finish(w, NULL, NULL, &err), &err);
    qins_st_writer_free(w);
    json_object_set_new(toy->config, "tie_word_embeddings", json_false());
    assert_int_equal(json_dump_file(toy->config, scratch_path(dir, "config.json"), 0), 0);
    qins_checkpoint_close(toy);
}

/* Compressing only the qkv matrices and exporting in the source's type gives back all other tensors bit for bit. */
static void untouched_tensors_come_back_bit_for_bit(qins_dtype dtype) {
    scratch_dir folder = scratch_new(), source = inside(&folder, "source"), small = inside(&folder, "small"),
                out = inside(&folder, "out");
    qins_error err = {0};
    qins_compress_options options = defaults();
    qins_export_options export_options = {.dtype = dtype};
    qins_checkpoint *a = NULL, *b = NULL;
    write_half_model(&source, dtype);
    options.targets = "query_key_value";
    options.embed_bits = 0;
    assert_int_equal(compress(source.path, small.path, &options).n_encoded, 3);
    check(qins_export(small.path, out.path, &export_options, NULL, &err), &err);
    check(qins_checkpoint_open(source.path, &a, &err), &err);
    check(qins_checkpoint_open(out.path, &b, &err), &err);
    assert_int_equal(a->n_tensors, b->n_tensors);
    for (size_t i = 0; i < a->n_tensors; i++) {
        const qins_tensor *x = &a->tensors[i], *y = &b->tensors[i];
        assert_string_equal(x->name, y->name);
        assert_int_equal(x->type, y->type);
        assert_int_equal(x->n_bytes, y->n_bytes);
        bool encoded = strstr(x->name, "query_key_value.weight") != NULL;
        assert_true((memcmp(x->data, y->data, (size_t)x->n_bytes) == 0) != encoded);
    }
    qins_checkpoint_close(a);
    qins_checkpoint_close(b);
    scratch_free(&source);
    scratch_free(&small);
    scratch_free(&out);
    scratch_free(&folder);
}

static void untouched_bf16_tensors_come_back_bit_for_bit(void **state) {
    (void)state;
    untouched_tensors_come_back_bit_for_bit(QINS_BF16);
}

static void untouched_f16_tensors_come_back_bit_for_bit(void **state) {
    (void)state;
    untouched_tensors_come_back_bit_for_bit(QINS_F16);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_cancelled_compress_leaves_nothing),
        cmocka_unit_test(a_cancelled_replacement_leaves_the_old_result),
        cmocka_unit_test(compressing_a_compressed_model_again_changes_nothing),
        cmocka_unit_test(untouched_bf16_tensors_come_back_bit_for_bit),
        cmocka_unit_test(untouched_f16_tensors_come_back_bit_for_bit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
