/* GGUF files: parser, translation to Hugging Face form, refusals. SPDX-License-Identifier: MIT */
#include "gguf_file.h"
#include "scratch_dir.h"

/* ---- helpers ---- */

enum { LLAMA_ROWS = 5, WIDTH = 4, FF = 6 };

/* Metadata of a model of one layer, 2 heads of 2. */
static void put_config(gguf_file *f, const char *arch, bool layer_norm) {
    char key[128];
    static const struct {
        const char *key;
        uint32_t value;
    } numbers[] = {{"embedding_length", WIDTH},    {"block_count", 1},     {"attention.head_count", 2},
                   {"attention.head_count_kv", 2}, {"context_length", 64}, {"feed_forward_length", FF}};
    gguf_string(f, "general.architecture", arch);
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        snprintf(key, sizeof key, "%s.%s", arch, numbers[i].key);
        gguf_u32(f, key, numbers[i].value);
    }
    snprintf(key, sizeof key, "%s.attention.layer_norm%s_epsilon", arch, layer_norm ? "" : "_rms");
    gguf_f32(f, key, 1e-5f);
}

static void put_tokenizer(gguf_file *f, const char *pre) {
    static const char *const tokens[] = {"a", "b", "ab", "<s>", "<user>"};
    static const char *const merges[] = {"a b"};
    static const int32_t types[] = {1, 1, 1, 3, 4};
    gguf_string(f, "tokenizer.ggml.model", "gpt2");
    gguf_string(f, "tokenizer.ggml.pre", pre);
    gguf_strings(f, "tokenizer.ggml.tokens", tokens, 5);
    gguf_i32s(f, "tokenizer.ggml.token_type", types, 5);
    gguf_strings(f, "tokenizer.ggml.merges", merges, 1);
    gguf_u32(f, "tokenizer.ggml.bos_token_id", 3);
    gguf_bool(f, "tokenizer.ggml.add_bos_token", true);
    gguf_string(f, "tokenizer.chat_template", "{{ x }}");
}

static void put_llama_tensors(gguf_file *f) {
    gguf_counting(f, "token_embd.weight", LLAMA_ROWS, WIDTH, 0);
    gguf_counting(f, "output_norm.weight", 0, WIDTH, 0);
    gguf_counting(f, "blk.0.attn_norm.weight", 0, WIDTH, 0);
    gguf_counting(f, "blk.0.attn_q.weight", WIDTH, WIDTH, 0);
    gguf_counting(f, "blk.0.attn_k.weight", WIDTH, WIDTH, 0);
    gguf_counting(f, "blk.0.attn_v.weight", WIDTH, WIDTH, 0);
    gguf_counting(f, "blk.0.attn_output.weight", WIDTH, WIDTH, 0);
    gguf_counting(f, "blk.0.ffn_norm.weight", 0, WIDTH, 0);
    gguf_counting(f, "blk.0.ffn_gate.weight", FF, WIDTH, 0);
    gguf_counting(f, "blk.0.ffn_up.weight", FF, WIDTH, 0);
    gguf_counting(f, "blk.0.ffn_down.weight", WIDTH, FF, 0);
}

/* Writes the file (freeing f) and opens it. */
static qins_status open_file(gguf_file *f, qins_checkpoint **c, qins_error *err) {
    scratch_dir dir = scratch_new();
    size_t size;
    uint8_t *bytes = gguf_bytes(f, &size);
    scratch_write(&dir, "m.gguf", bytes, size);
    free(bytes);
    qins_status status = qins_checkpoint_open(scratch_path(&dir, "m.gguf"), c, err);
    scratch_free(&dir); /* the mapping stays */
    return status;
}

static qins_checkpoint *open_good(gguf_file *f) {
    qins_checkpoint *c = NULL;
    qins_error err = {0};
    if (open_file(f, &c, &err) != QINS_OK) fail_msg("%s", err.message);
    return c;
}

static void assert_open_refused(gguf_file *f, qins_status expected, const char *part) {
    qins_checkpoint *c = NULL;
    qins_error err = {0};
    qins_status status = open_file(f, &c, &err);
    qins_checkpoint_close(c);
    if (status != expected) fail_msg("expected status %d (%s), found %d (%s)", expected, part, status, err.message);
    assert_contains(err.message, "m.gguf");
    assert_contains(err.message, part);
}

static void assert_parse_refused(gguf_file *f, qins_status expected, const char *part) {
    size_t size;
    uint8_t *bytes = gguf_bytes(f, &size);
    qins_gguf *g = NULL;
    qins_error err = {0};
    qins_status status = qins_gguf_parse(bytes, size, "f.gguf", &g, &err);
    qins_gguf_free(g);
    free(bytes);
    if (status != expected) fail_msg("expected status %d (%s), found %d (%s)", expected, part, status, err.message);
    assert_contains(err.message, "f.gguf");
    assert_contains(err.message, part);
}

static const char *text_of(const json_t *object, const char *key) {
    const char *s = json_string_value(json_object_get(object, key));
    return s != NULL ? s : "(none)";
}

static json_int_t integer_of(const json_t *object, const char *key) {
    return json_integer_value(json_object_get(object, key));
}

static float value_at(const qins_checkpoint *c, const char *name, size_t row, size_t col) {
    const qins_tensor *t = qins_checkpoint_find(c, name);
    if (t == NULL) fail_msg("no tensor %s", name);
    float v;
    qins_tensor_row(t, row, col, 1, &v);
    return v;
}

/* ---- a whole model ---- */

static void llama_file_becomes_a_hugging_face_checkpoint(void **state) {
    (void)state;
    gguf_file f = {0};
    put_config(&f, "llama", false);
    put_tokenizer(&f, "llama-bpe");
    put_llama_tensors(&f);
    qins_checkpoint *c = open_good(&f);
    assert_int_equal(c->source, QINS_SOURCE_GGUF);
    assert_int_equal(c->n_tensors, 11);
    assert_int_equal(c->n_files, 1);
    assert_string_equal(text_of(c->config, "model_type"), "llama");
    assert_int_equal(integer_of(c->config, "hidden_size"), WIDTH);
    assert_int_equal(integer_of(c->config, "num_hidden_layers"), 1);
    assert_int_equal(integer_of(c->config, "head_dim"), 2);
    assert_int_equal(integer_of(c->config, "vocab_size"), LLAMA_ROWS);
    assert_int_equal(integer_of(c->config, "bos_token_id"), 3);
    assert_true(json_is_true(json_object_get(c->config, "tie_word_embeddings")));
    assert_true(json_real_value(json_object_get(c->config, "rms_norm_eps")) == 1e-5);
    assert_true(json_real_value(json_object_get(c->config, "rope_theta")) == 10000.0);
    assert_string_equal(text_of(c->tokenizer_config, "bos_token"), "<s>");
    assert_string_equal(text_of(c->tokenizer_config, "chat_template"), "{{ x }}");
    const qins_tensor *t = qins_checkpoint_find(c, "model.layers.0.mlp.down_proj.weight");
    assert_non_null(t);
    assert_int_equal(t->shape[0], WIDTH);
    assert_int_equal(t->shape[1], FF);
    assert_true(value_at(c, "model.layers.0.mlp.down_proj.weight", 1, 2) == FF + 2.0f);
    uint64_t sum = 0;
    for (size_t i = 0; i < c->n_tensors; i++)
        sum += c->tensors[i].n_bytes;
    assert_int_equal(c->files[0].tensor_bytes, sum);
    qins_checkpoint_close(c);
}

static void version_2_files_are_read_like_version_3(void **state) {
    (void)state;
    gguf_file f = {0};
    gguf_u32(&f, "x", 7);
    gguf_counting(&f, "t", 2, 4, 1);
    size_t size;
    uint8_t *bytes = gguf_bytes(&f, &size);
    bytes[4] = 2;
    qins_gguf *g = NULL;
    assert_int_equal(qins_gguf_parse(bytes, size, "f", &g, NULL), QINS_OK);
    assert_int_equal(g->version, 2);
    assert_int_equal(g->tensors.items[0].shape[0], 2);
    int64_t x = 0;
    assert_true(qins_gguf_get_integer(g, "x", &x) && x == 7);
    qins_gguf_free(g);
    free(bytes);
}

static void metadata_of_every_kind_is_read(void **state) {
    (void)state;
    static const struct {
        uint32_t kind;
        uint64_t bits;
        size_t n_bytes;
        double value;
    } cases[] = {
        {QINS_GGUF_U8, 200, 1, 200},
        {QINS_GGUF_I8, 0xfe, 1, -2},
        {QINS_GGUF_U16, 65535, 2, 65535},
        {QINS_GGUF_I16, 0xfffe, 2, -2},
        {QINS_GGUF_U32, 4000000000u, 4, 4e9},
        {QINS_GGUF_I32, 0xfffffffeu, 4, -2},
        {QINS_GGUF_F32, 0x3fc00000u, 4, 1.5},
        {QINS_GGUF_BOOL, 1, 1, 1},
        {QINS_GGUF_U64, UINT64_C(1) << 40, 8, 1099511627776.0},
        {QINS_GGUF_I64, UINT64_MAX - 1, 8, -2},
        {QINS_GGUF_F64, 0x3ff8000000000000u, 8, 1.5},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        gguf_file f = {0};
        gguf_key(&f, "key", cases[i].kind);
        put_le(&f.head, cases[i].bits, cases[i].n_bytes);
        gguf_string(&f, "name", "text");
        size_t size;
        uint8_t *bytes = gguf_bytes(&f, &size);
        qins_gguf *g = NULL;
        assert_int_equal(qins_gguf_parse(bytes, size, "f", &g, NULL), QINS_OK);
        double value = 0;
        assert_true(qins_gguf_get_number(g, "key", &value));
        assert_true(value == cases[i].value);
        qins_gguf_string s;
        assert_true(qins_gguf_get_string(g, "name", &s));
        assert_int_equal(s.n, 4);
        assert_false(qins_gguf_get_string(g, "key", &s));
        assert_false(qins_gguf_get_number(g, "name", &value));
        assert_null(qins_gguf_find(g, "absent"));
        qins_gguf_free(g);
        free(bytes);
    }
}

/* ---- row order and values ---- */

static void rows_of_llama_q_and_k_come_in_hugging_face_order(void **state) {
    (void)state;
    gguf_file f = {0};
    put_config(&f, "llama", false);
    gguf_counting(&f, "token_embd.weight", LLAMA_ROWS, WIDTH, 0);
    gguf_counting(&f, "blk.0.attn_q.weight", 8, 1, 0); /* 2 heads of 4 rows: 0 2 1 3 */
    gguf_counting(&f, "blk.0.attn_k.bias", 0, 8, 0);
    gguf_counting(&f, "blk.0.attn_v.weight", 8, 1, 0);
    qins_checkpoint *c = open_good(&f);
    static const float expected[8] = {0, 2, 1, 3, 4, 6, 5, 7};
    for (size_t r = 0; r < 8; r++) {
        assert_true(value_at(c, "model.layers.0.self_attn.q_proj.weight", r, 0) == expected[r]);
        assert_true(value_at(c, "model.layers.0.self_attn.k_proj.bias", 0, r) == expected[r]);
        assert_true(value_at(c, "model.layers.0.self_attn.v_proj.weight", r, 0) == (float)r);
    }
    assert_false(qins_tensor_is_verbatim(qins_checkpoint_find(c, "model.layers.0.self_attn.q_proj.weight")));
    assert_true(qins_tensor_is_verbatim(qins_checkpoint_find(c, "model.layers.0.self_attn.v_proj.weight")));
    qins_checkpoint_close(c);
}

static void rows_of_gptneox_qkv_come_head_by_head(void **state) {
    (void)state;
    gguf_file f = {0};
    put_config(&f, "gptneox", true);
    gguf_u32(&f, "gptneox.rope.dimension_count", 1);
    gguf_bool(&f, "gptneox.use_parallel_residual", false);
    gguf_counting(&f, "token_embd.weight", LLAMA_ROWS, WIDTH, 0);
    gguf_counting(&f, "blk.0.attn_qkv.weight", 12, 1, 0); /* q 0-3, k 4-7, v 8-11; heads of 2 */
    gguf_counting(&f, "blk.0.attn_qkv.bias", 0, 12, 0);
    qins_checkpoint *c = open_good(&f);
    static const float expected[12] = {0, 1, 4, 5, 8, 9, 2, 3, 6, 7, 10, 11};
    for (size_t r = 0; r < 12; r++) {
        assert_true(value_at(c, "gpt_neox.layers.0.attention.query_key_value.weight", r, 0) == expected[r]);
        assert_true(value_at(c, "gpt_neox.layers.0.attention.query_key_value.bias", 0, r) == expected[r]);
    }
    assert_string_equal(text_of(c->config, "model_type"), "gpt_neox");
    assert_true(json_real_value(json_object_get(c->config, "rotary_pct")) == 0.5);
    assert_true(json_real_value(json_object_get(c->config, "rotary_emb_base")) == 10000.0);
    assert_true(json_real_value(json_object_get(c->config, "layer_norm_eps")) == 1e-5);
    assert_true(json_is_false(json_object_get(c->config, "use_parallel_residual")));
    qins_checkpoint_close(c);
}

static void gemma_norms_lose_the_one_that_gguf_adds(void **state) {
    (void)state;
    gguf_file f = {0};
    put_config(&f, "gemma2", false);
    gguf_counting(&f, "token_embd.weight", LLAMA_ROWS, WIDTH, 1);
    gguf_counting(&f, "blk.0.post_ffw_norm.weight", 0, WIDTH, 1);
    qins_checkpoint *c = open_good(&f);
    assert_true(value_at(c, "model.layers.0.post_feedforward_layernorm.weight", 0, 2) == 2.0f);
    assert_true(value_at(c, "model.embed_tokens.weight", 0, 2) == 3.0f);
    assert_int_equal(integer_of(c->config, "query_pre_attn_scalar"), 2);
    qins_checkpoint_close(c);
}

static void stacks_of_experts_are_taken_apart(void **state) {
    (void)state;
    gguf_file f = {0};
    put_config(&f, "llama", false);
    gguf_u32(&f, "llama.expert_count", 3);
    gguf_u32(&f, "llama.expert_used_count", 2);
    gguf_counting(&f, "token_embd.weight", LLAMA_ROWS, WIDTH, 0);
    float values[3 * FF * WIDTH];
    for (size_t i = 0; i < sizeof values / sizeof *values; i++)
        values[i] = (float)i;
    const uint64_t dims[3] = {WIDTH, FF, 3};
    gguf_tensor(&f, "blk.0.ffn_up_exps.weight", 3, dims, 0, values, sizeof values);
    qins_checkpoint *c = open_good(&f);
    assert_string_equal(text_of(c->config, "model_type"), "mixtral");
    assert_int_equal(integer_of(c->config, "num_local_experts"), 3);
    assert_int_equal(integer_of(c->config, "num_experts_per_tok"), 2);
    assert_true(value_at(c, "model.layers.0.block_sparse_moe.experts.2.w3.weight", 1, 3) ==
                2 * FF * WIDTH + WIDTH + 3.0f);
    assert_null(qins_checkpoint_find(c, "model.layers.0.block_sparse_moe.experts.3.w3.weight"));
    qins_checkpoint_close(c);
}

/* ---- names: the mapping of gguf-py, made by tools/make_gguf_names.py ---- */

static void names_agree_with_the_gguf_package(void **state) {
    (void)state;
    FILE *names = fopen(QINS_SOURCE_DIR "/tests/golden/gguf/names.txt", "r");
    assert_non_null(names);
    char arch_name[32], gguf_name[64], hf_name[128];
    size_t n = 0;
    json_t *config = json_pack("{s:i, s:i}", "num_attention_heads", 2, "num_key_value_heads", 2);
    while (fscanf(names, "%31s %63s %127s", arch_name, gguf_name, hf_name) == 3) {
        gguf_file f = {0};
        gguf_string(&f, "general.architecture", arch_name);
        gguf_counting(&f, gguf_name, 12, 1, 0);
        size_t size;
        uint8_t *bytes = gguf_bytes(&f, &size);
        qins_gguf *g = NULL;
        const qins_gguf_arch *arch;
        qins_error err = {0};
        qins_tensor_list out = {0};
        assert_int_equal(qins_gguf_parse(bytes, size, "f", &g, &err), QINS_OK);
        if (qins_gguf_find_arch(g, &arch, &err) != QINS_OK ||
            qins_gguf_translate(arch, config, "f", &g->tensors, &out, &err) != QINS_OK)
            fail_msg("%s", err.message);
        assert_int_equal(out.n, 1);
        assert_string_equal(out.items[0].name, hf_name);
        qins_tensor_list_free(&out);
        qins_gguf_free(g);
        free(bytes);
        n++;
    }
    json_decref(config);
    fclose(names);
    assert_true(n > 150);
}

/* ---- config ---- */

static void llama3_rope_factors_become_their_parameters(void **state) {
    (void)state;
    /* head_dim 128, theta 500000, factor 8, original context 8192: what the conversion script of llama.cpp writes */
    float factors[64];
    for (int i = 0; i < 64; i++) {
        double wavelength = 2 * M_PI * pow(500000.0, i / 64.0), low = 8192.0, high = 8192.0 / 4;
        double smooth = (8192.0 / wavelength - 1.0) / 3.0;
        factors[i] = (float)(wavelength < high ? 1.0 : wavelength > low ? 8.0 : 1.0 / ((1.0 - smooth) / 8.0 + smooth));
    }
    for (int damaged = 0; damaged < 2; damaged++) {
        gguf_file f = {0};
        put_config(&f, "llama", false);
        gguf_f32(&f, "llama.rope.freq_base", 500000.0f);
        gguf_counting(&f, "token_embd.weight", LLAMA_ROWS, WIDTH, 0);
        if (damaged) factors[40] *= 1.01f;
        const uint64_t dims[1] = {64};
        gguf_tensor(&f, "rope_freqs.weight", 1, dims, 0, factors, sizeof factors);
        if (damaged) {
            assert_open_refused(&f, QINS_ERR_UNSUPPORTED, "does not follow the llama3 rule");
            continue;
        }
        qins_checkpoint *c = open_good(&f);
        const json_t *scaling = json_object_get(c->config, "rope_scaling");
        assert_string_equal(text_of(scaling, "rope_type"), "llama3");
        assert_true(json_real_value(json_object_get(scaling, "factor")) == 8.0);
        assert_int_equal(integer_of(scaling, "original_max_position_embeddings"), 8192);
        assert_null(qins_checkpoint_find(c, "rope_freqs.weight"));
        qins_checkpoint_close(c);
    }
}

static void phi3_rope_factors_become_longrope(void **state) {
    (void)state;
    gguf_file f = {0};
    put_config(&f, "phi3", false);
    gguf_u32(&f, "phi3.rope.scaling.original_context_length", 4096);
    gguf_counting(&f, "token_embd.weight", LLAMA_ROWS, WIDTH, 0);
    gguf_counting(&f, "rope_factors_long.weight", 0, 2, 3);
    gguf_counting(&f, "rope_factors_short.weight", 0, 2, 1);
    gguf_counting(&f, "blk.0.attn_qkv.weight", 12, WIDTH, 0);
    qins_checkpoint *c = open_good(&f);
    const json_t *scaling = json_object_get(c->config, "rope_scaling");
    assert_string_equal(text_of(scaling, "type"), "longrope");
    assert_true(json_real_value(json_array_get(json_object_get(scaling, "long_factor"), 1)) == 4.0);
    assert_true(json_real_value(json_array_get(json_object_get(scaling, "short_factor"), 0)) == 1.0);
    assert_int_equal(integer_of(c->config, "original_max_position_embeddings"), 4096);
    assert_non_null(qins_checkpoint_find(c, "model.layers.0.self_attn.qkv_proj.weight"));
    qins_checkpoint_close(c);
}

static void yarn_scaling_keeps_its_numbers_and_unknown_kinds_are_refused(void **state) {
    (void)state;
    for (int known = 0; known < 2; known++) {
        gguf_file f = {0};
        put_config(&f, "qwen2", false);
        gguf_string(&f, "qwen2.rope.scaling.type", known ? "yarn" : "zigzag");
        gguf_f32(&f, "qwen2.rope.scaling.factor", 4.0f);
        gguf_u32(&f, "qwen2.rope.scaling.original_context_length", 32768);
        gguf_counting(&f, "token_embd.weight", LLAMA_ROWS, WIDTH, 0);
        if (!known) {
            assert_open_refused(&f, QINS_ERR_UNSUPPORTED, "qwen2.rope.scaling.type");
            continue;
        }
        qins_checkpoint *c = open_good(&f);
        const json_t *scaling = json_object_get(c->config, "rope_scaling");
        assert_string_equal(text_of(scaling, "rope_type"), "yarn");
        assert_true(json_real_value(json_object_get(scaling, "factor")) == 4.0);
        assert_int_equal(integer_of(scaling, "original_max_position_embeddings"), 32768);
        qins_checkpoint_close(c);
    }
}

static void ends_of_turn_become_a_list_of_eos_ids(void **state) {
    (void)state;
    gguf_file f = {0};
    put_config(&f, "llama", false);
    put_tokenizer(&f, "llama-bpe");
    gguf_u32(&f, "tokenizer.ggml.eos_token_id", 1);
    gguf_u32(&f, "tokenizer.ggml.eot_token_id", 2);
    put_llama_tensors(&f);
    qins_checkpoint *c = open_good(&f);
    const json_t *ids = json_object_get(c->generation_config, "eos_token_id");
    assert_int_equal(json_array_size(ids), 2);
    assert_int_equal(json_integer_value(json_array_get(ids, 1)), 2);
    qins_checkpoint_close(c);
}

/* ---- tokenizer ---- */

static void byte_level_tokenizer_has_vocabulary_merges_and_added_tokens(void **state) {
    (void)state;
    gguf_file f = {0};
    put_config(&f, "llama", false);
    put_tokenizer(&f, "llama-bpe");
    put_llama_tensors(&f);
    qins_checkpoint *c = open_good(&f);
    json_t *t = NULL;
    qins_error err = {0};
    if (qins_checkpoint_tokenizer(c, &t, &err) != QINS_OK) fail_msg("%s", err.message);
    const json_t *model = json_object_get(t, "model"), *added = json_object_get(t, "added_tokens");
    assert_string_equal(text_of(model, "type"), "BPE");
    assert_true(json_is_true(json_object_get(model, "ignore_merges")));
    assert_int_equal(integer_of(json_object_get(model, "vocab"), "ab"), 2);
    assert_int_equal(json_object_size(json_object_get(model, "vocab")), 5);
    assert_int_equal(json_array_size(json_object_get(model, "merges")), 1);
    assert_int_equal(json_array_size(added), 2);
    assert_true(json_is_true(json_object_get(json_array_get(added, 0), "special")));
    assert_true(json_is_false(json_object_get(json_array_get(added, 1), "special")));
    assert_string_equal(text_of(json_array_get(added, 1), "content"), "<user>");
    /* BOS is put in front because the file says so */
    const json_t *post = json_object_get(t, "post_processor");
    assert_string_equal(text_of(post, "type"), "TemplateProcessing");
    assert_int_equal(json_array_size(json_object_get(post, "single")), 2);
    json_decref(t);
    qins_checkpoint_close(c);
}

static void every_pre_tokenizer_is_valid_json(void **state) {
    (void)state;
    static const char *const names[] = {"default", "gpt-2", "smollm",         "llama-bpe",   "qwen2",    "tekken",
                                        "gpt-4o",  "olmo",  "deepseek-coder", "deepseek-v3", "starcoder"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        gguf_file f = {0};
        put_tokenizer(&f, names[i]);
        size_t size;
        uint8_t *bytes = gguf_bytes(&f, &size);
        qins_gguf *g = NULL;
        json_t *t = NULL;
        qins_error err = {0};
        assert_int_equal(qins_gguf_parse(bytes, size, "f", &g, &err), QINS_OK);
        if (qins_gguf_tokenizer(g, &t, &err) != QINS_OK) fail_msg("%s", err.message);
        if (!json_is_object(json_object_get(t, "pre_tokenizer"))) fail_msg("%s has no pre-tokenizer", names[i]);
        json_decref(t);
        qins_gguf_free(g);
        free(bytes);
    }
}

/* spm.gguf and the merges that transformers derives from it are made by tools/make_spm_golden.py. */
static void sentencepiece_scores_become_the_merges_of_transformers(void **state) {
    (void)state;
    qins_error err = {0};
    qins_map map;
    qins_gguf *g = NULL;
    json_t *t = NULL;
    if (qins_map_open(QINS_SOURCE_DIR "/tests/golden/gguf/spm.gguf", &map, &err) != QINS_OK ||
        qins_gguf_parse(map.data, map.size, map.path, &g, &err) != QINS_OK ||
        qins_gguf_tokenizer(g, &t, &err) != QINS_OK)
        fail_msg("%s", err.message);
    json_t *golden = json_load_file(QINS_SOURCE_DIR "/tests/golden/gguf/spm_merges.json", 0, NULL);
    const json_t *model = json_object_get(t, "model"), *merges = json_object_get(model, "merges");
    const json_t *expected = json_object_get(golden, "merges");
    assert_true(json_array_size(expected) > 400);
    assert_int_equal(json_array_size(merges), json_array_size(expected));
    for (size_t i = 0; i < json_array_size(expected); i++)
        if (!json_equal(json_array_get(merges, i), json_array_get(expected, i))) fail_msg("merge %zu differs", i);
    assert_true(json_is_true(json_object_get(model, "byte_fallback")));
    assert_string_equal(text_of(model, "unk_token"), "<unk>");
    assert_string_equal(text_of(json_object_get(t, "post_processor"), "type"), "TemplateProcessing");
    assert_int_equal(json_array_size(json_object_get(t, "added_tokens")), 4);
    json_decref(golden);
    json_decref(t);
    qins_gguf_free(g);
    qins_map_close(&map);
}

static void gemma_runs_of_spaces_are_spelt_as_its_tokenizer_does(void **state) {
    (void)state;
    static const char *const tokens[] = {"<unk>", "\xe2\x96\x81", "  ", "<bos>"};
    static const int32_t types[] = {2, 1, 4, 3};
    static const float scores[] = {0, -1, -2, 0};
    gguf_file f = {0};
    gguf_string(&f, "general.architecture", "gemma2");
    gguf_string(&f, "tokenizer.ggml.model", "llama");
    gguf_strings(&f, "tokenizer.ggml.tokens", tokens, 4);
    gguf_i32s(&f, "tokenizer.ggml.token_type", types, 4);
    gguf_f32s(&f, "tokenizer.ggml.scores", scores, 4);
    gguf_u32(&f, "tokenizer.ggml.bos_token_id", 3);
    size_t size;
    uint8_t *bytes = gguf_bytes(&f, &size);
    qins_gguf *g = NULL;
    json_t *t = NULL;
    qins_error err = {0};
    assert_int_equal(qins_gguf_parse(bytes, size, "f", &g, &err), QINS_OK);
    if (qins_gguf_tokenizer(g, &t, &err) != QINS_OK) fail_msg("%s", err.message);
    const json_t *model = json_object_get(t, "model"), *vocab = json_object_get(model, "vocab");
    assert_int_equal(integer_of(vocab, "\xe2\x96\x81\xe2\x96\x81"), 2);
    assert_null(json_object_get(vocab, "  "));
    assert_int_equal(json_array_size(json_object_get(model, "merges")), 1);
    assert_int_equal(json_array_size(json_object_get(t, "added_tokens")), 2);
    assert_string_equal(text_of(json_object_get(t, "normalizer"), "type"), "Replace"); /* no space in front */
    json_decref(t);
    qins_gguf_free(g);
    free(bytes);
}

static void unknown_tokenizers_are_refused_by_name(void **state) {
    (void)state;
    static const struct {
        const char *model, *pre, *part;
    } cases[] = {{"gpt2", "klingon", "\"klingon\""}, {"rwkv", "x", "\"rwkv\""}, {"gpt2", NULL, "tokenizer.ggml.pre"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        static const char *const tokens[] = {"a"};
        gguf_file f = {0};
        gguf_string(&f, "tokenizer.ggml.model", cases[i].model);
        if (cases[i].pre != NULL) gguf_string(&f, "tokenizer.ggml.pre", cases[i].pre);
        gguf_strings(&f, "tokenizer.ggml.tokens", tokens, 1);
        gguf_strings(&f, "tokenizer.ggml.merges", tokens, 0);
        size_t size;
        uint8_t *bytes = gguf_bytes(&f, &size);
        qins_gguf *g = NULL;
        json_t *t = NULL;
        qins_error err = {0};
        assert_int_equal(qins_gguf_parse(bytes, size, "f", &g, &err), QINS_OK);
        assert_int_equal(qins_gguf_tokenizer(g, &t, &err), QINS_ERR_UNSUPPORTED);
        assert_contains(err.message, cases[i].part);
        assert_null(t);
        qins_gguf_free(g);
        free(bytes);
    }
}

/* ---- split files ---- */

static void write_part(const scratch_dir *dir, const char *name, int no, int count, bool second_half) {
    gguf_file f = {0};
    if (no == 0) put_config(&f, "llama", false);
    gguf_u32(&f, "split.no", (uint32_t)no);
    gguf_u32(&f, "split.count", (uint32_t)count);
    gguf_u32(&f, "split.tensors.count", 2);
    if (second_half)
        gguf_counting(&f, "token_embd.weight", LLAMA_ROWS, WIDTH, 0);
    else
        gguf_counting(&f, "output_norm.weight", 0, WIDTH, 0);
    size_t size;
    uint8_t *bytes = gguf_bytes(&f, &size);
    scratch_write(dir, name, bytes, size);
    free(bytes);
}

static void split_files_are_joined_whichever_part_is_named(void **state) {
    (void)state;
    scratch_dir dir = scratch_new();
    write_part(&dir, "m-00001-of-00002.gguf", 0, 2, false);
    write_part(&dir, "m-00002-of-00002.gguf", 1, 2, true);
    for (int part = 1; part <= 2; part++) {
        char name[64];
        snprintf(name, sizeof name, "m-%05d-of-00002.gguf", part);
        qins_checkpoint *c = NULL;
        qins_error err = {0};
        if (qins_checkpoint_open(scratch_path(&dir, name), &c, &err) != QINS_OK) fail_msg("%s", err.message);
        assert_int_equal(c->n_tensors, 2);
        assert_int_equal(c->n_files, 2);
        assert_int_equal(c->files[1].tensor_bytes, LLAMA_ROWS * WIDTH * 4);
        qins_checkpoint_close(c);
    }
    scratch_free(&dir);
}

static void incomplete_and_mixed_up_splits_are_refused(void **state) {
    (void)state;
    static const struct {
        const char *second;
        int no, count;
        bool second_half;
        const char *part;
    } cases[] = {
        {"other.gguf", 1, 2, true, "00002-of-00002.gguf: cannot open"},
        {"m-00002-of-00002.gguf", 0, 2, true, "says part 1 of 2"},
        {"m-00002-of-00002.gguf", 1, 3, true, "says part 2 of 3"},
        {"m-00002-of-00002.gguf", 1, 2, false, "token_embd.weight is missing"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        scratch_dir dir = scratch_new();
        write_part(&dir, "m-00001-of-00002.gguf", 0, 2, false);
        write_part(&dir, cases[i].second, cases[i].no, cases[i].count, cases[i].second_half);
        qins_checkpoint *c = NULL;
        qins_error err = {0};
        assert_int_not_equal(qins_checkpoint_open(scratch_path(&dir, "m-00001-of-00002.gguf"), &c, &err), QINS_OK);
        assert_contains(err.message, cases[i].part);
        scratch_free(&dir);
    }
    scratch_dir dir = scratch_new();
    write_part(&dir, "renamed.gguf", 0, 2, true);
    qins_checkpoint *c = NULL;
    qins_error err = {0};
    assert_int_equal(qins_checkpoint_open(scratch_path(&dir, "renamed.gguf"), &c, &err), QINS_ERR_FORMAT);
    assert_contains(err.message, "00001-of-00002");
    scratch_free(&dir);
}

/* ---- refusals ---- */

static void other_files_and_versions_are_refused(void **state) {
    (void)state;
    static const struct {
        size_t at;
        uint8_t value;
        const char *part;
    } cases[] = {{0, 'X', "is not a GGUF file"}, {4, 1, "version 1"}, {4, 99, "version 99"}, {4, 0, "big-endian"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        gguf_file f = {0};
        gguf_counting(&f, "t", 2, 4, 1);
        size_t size;
        uint8_t *bytes = gguf_bytes(&f, &size);
        bytes[cases[i].at] = cases[i].value;
        qins_gguf *g = NULL;
        qins_error err = {0};
        assert_int_not_equal(qins_gguf_parse(bytes, size, "f.gguf", &g, &err), QINS_OK);
        assert_contains(err.message, cases[i].part);
        free(bytes);
    }
}

static void a_file_cut_anywhere_is_refused(void **state) {
    (void)state;
    gguf_file f = {0};
    put_config(&f, "llama", false);
    put_tokenizer(&f, "gpt-2");
    gguf_counting(&f, "t", 3, 5, 1);
    size_t size;
    uint8_t *bytes = gguf_bytes(&f, &size);
    for (size_t n = 0; n < size; n++) {
        uint8_t *cut = malloc(n > 0 ? n : 1); /* of its own size, so that the sanitizer sees reads past the end */
        assert_non_null(cut);
        memcpy(cut, bytes, n);
        qins_gguf *g = NULL;
        qins_error err = {0};
        if (qins_gguf_parse(cut, n, "f.gguf", &g, &err) != QINS_ERR_FORMAT) fail_msg("accepted %zu of %zu", n, size);
        free(cut);
    }
    free(bytes);
}

static void metadata_that_does_not_fit_is_refused(void **state) {
    (void)state;
    gguf_file f = {0};
    gguf_key(&f, "s", QINS_GGUF_STRING);
    put_le(&f.head, UINT64_MAX, 8);
    assert_parse_refused(&f, QINS_ERR_FORMAT, "has length 18446744073709551615");

    gguf_key(&f, "a", QINS_GGUF_ARRAY);
    put_le(&f.head, QINS_GGUF_F64, 4);
    put_le(&f.head, UINT64_MAX / 8 + 2, 8);
    assert_parse_refused(&f, QINS_ERR_FORMAT, "metadata a: 2305843009213693953 items do not fit");

    gguf_key(&f, "a", QINS_GGUF_ARRAY);
    put_le(&f.head, QINS_GGUF_ARRAY, 4);
    put_le(&f.head, 1, 8);
    assert_parse_refused(&f, QINS_ERR_UNSUPPORTED, "metadata a: arrays of arrays");

    gguf_key(&f, "k", 13);
    assert_parse_refused(&f, QINS_ERR_FORMAT, "metadata k: unknown value type 13");

    gguf_u32(&f, "twice", 1);
    gguf_u32(&f, "twice", 2);
    assert_parse_refused(&f, QINS_ERR_FORMAT, "metadata twice is there twice");

    gguf_u32(&f, "", 1);
    assert_parse_refused(&f, QINS_ERR_FORMAT, "key has length 0");

    f.n_values = UINT64_MAX;
    assert_parse_refused(&f, QINS_ERR_FORMAT, "metadata entries are more than the file can hold");

    f.n_tensors = UINT64_MAX / 2;
    assert_parse_refused(&f, QINS_ERR_FORMAT, "tensors are more than the file can hold");
}

static void tensors_out_of_place_are_refused(void **state) {
    (void)state;
    static const uint64_t dims[5] = {32, 1, 1, 1, 1};
    static const uint64_t huge[3] = {UINT64_C(1) << 32, UINT64_C(1) << 32, 2};
    static const uint8_t zeros[256];
    gguf_file f = {0};

    gguf_info(&f, "t", 1, dims, 0, 8);
    qins_buffer_add(&f.data, zeros, 256);
    assert_parse_refused(&f, QINS_ERR_FORMAT, "tensor t: offset 8 is no multiple of the alignment 32");

    gguf_info(&f, "t", 1, dims, 0, 224);
    qins_buffer_add(&f.data, zeros, 256);
    assert_parse_refused(&f, QINS_ERR_FORMAT, "tensor t needs 128 bytes at offset 224");

    gguf_info(&f, "t", 1, dims, 0, UINT64_MAX - 31);
    qins_buffer_add(&f.data, zeros, 256);
    assert_parse_refused(&f, QINS_ERR_FORMAT, "tensor t needs 128 bytes");

    gguf_info(&f, "a", 1, dims, 0, 0);
    gguf_info(&f, "b", 1, dims, 0, 96);
    qins_buffer_add(&f.data, zeros, 256);
    assert_parse_refused(&f, QINS_ERR_FORMAT, "tensors a and b overlap");

    gguf_info(&f, "t", 5, dims, 0, 0);
    assert_parse_refused(&f, QINS_ERR_FORMAT, "tensor t has 5 dimensions");

    gguf_info(&f, "t", 3, huge, 0, 0);
    assert_parse_refused(&f, QINS_ERR_FORMAT, "tensor t: the product of its dimensions overflows");

    gguf_info(&f, "t", 1, dims, 12, 0); /* Q4_K has blocks of 256 */
    assert_parse_refused(&f, QINS_ERR_FORMAT, "tensor t: rows of 32 values are no whole number of Q4_K blocks of 256");

    gguf_info(&f, "t", 1, dims, 16, 0);
    assert_parse_refused(&f, QINS_ERR_UNSUPPORTED, "tensor t: type IQ2_XXS is not supported");

    gguf_info(&f, "t", 1, dims, 1000, 0);
    assert_parse_refused(&f, QINS_ERR_UNSUPPORTED, "tensor t: unknown tensor type 1000");

    gguf_info(&f, "t\x1b[2J", 1, dims, 0, 0);
    qins_buffer_add(&f.data, zeros, 256);
    assert_parse_refused(&f, QINS_ERR_FORMAT, "control characters");
}

static void alignment_must_be_a_power_of_two(void **state) {
    (void)state;
    static const uint32_t bad[] = {0, 48};
    for (size_t i = 0; i < 2; i++) {
        gguf_file f = {0};
        gguf_u32(&f, "general.alignment", bad[i]);
        assert_parse_refused(&f, QINS_ERR_FORMAT, "expected a power of two");
    }
    gguf_file f = {0};
    gguf_bool(&f, "general.alignment", true);
    assert_parse_refused(&f, QINS_ERR_FORMAT, "general.alignment is not a 32-bit unsigned integer");
}

static void models_that_are_not_understood_are_refused_by_name(void **state) {
    (void)state;
    gguf_file f = {0};
    put_config(&f, "mamba", false);
    gguf_counting(&f, "token_embd.weight", LLAMA_ROWS, WIDTH, 0);
    assert_open_refused(&f, QINS_ERR_UNSUPPORTED, "architecture \"mamba\" is not supported");

    put_config(&f, "llama", false);
    gguf_counting(&f, "token_embd.weight", LLAMA_ROWS, WIDTH, 0);
    gguf_counting(&f, "blk.0.ssm_a.weight", LLAMA_ROWS, WIDTH, 0);
    assert_open_refused(&f, QINS_ERR_UNSUPPORTED, "tensor blk.0.ssm_a.weight is not known for the architecture llama");

    gguf_counting(&f, "token_embd.weight", LLAMA_ROWS, WIDTH, 0);
    assert_open_refused(&f, QINS_ERR_FORMAT, "general.architecture is missing");

    gguf_string(&f, "general.architecture", "llama");
    gguf_counting(&f, "token_embd.weight", LLAMA_ROWS, WIDTH, 0);
    assert_open_refused(&f, QINS_ERR_FORMAT, "llama.embedding_length is missing");

    put_config(&f, "llama", false);
    gguf_counting(&f, "token_embd.weight", LLAMA_ROWS, WIDTH, 0);
    gguf_counting(&f, "blk.0.attn_q.weight", 7, WIDTH, 0);
    assert_open_refused(&f, QINS_ERR_FORMAT, "7 rows cannot be divided in 2 heads");

    put_config(&f, "llama", false);
    gguf_counting(&f, "token_embd.weight", LLAMA_ROWS, WIDTH, 0);
    gguf_counting(&f, "token_embd.weight", LLAMA_ROWS, WIDTH, 0);
    assert_open_refused(&f, QINS_ERR_FORMAT, "tensor model.embed_tokens.weight is there twice");

    static const uint64_t dims[1] = {32};
    static const uint8_t block[18];
    put_config(&f, "llama", false);
    gguf_counting(&f, "token_embd.weight", LLAMA_ROWS, WIDTH, 0);
    gguf_tensor(&f, "blk.0.attn_q.bias", 1, dims, 2, block, sizeof block);
    assert_open_refused(&f, QINS_ERR_UNSUPPORTED, "blk.0.attn_q.bias: a vector of type Q4_0");
}

static void a_layer_with_numbers_of_its_own_is_refused(void **state) {
    (void)state;
    for (int32_t last = 2; last <= 3; last++) {
        gguf_file f = {0};
        const int32_t heads[3] = {2, 2, last};
        gguf_string(&f, "general.architecture", "qwen2");
        gguf_u32(&f, "qwen2.embedding_length", WIDTH);
        gguf_u32(&f, "qwen2.block_count", 3);
        gguf_u32(&f, "qwen2.context_length", 64);
        gguf_i32s(&f, "qwen2.attention.head_count", heads, 3);
        gguf_f32(&f, "qwen2.attention.layer_norm_rms_epsilon", 1e-6f);
        gguf_counting(&f, "token_embd.weight", LLAMA_ROWS, WIDTH, 0);
        if (last == 3) {
            assert_open_refused(&f, QINS_ERR_UNSUPPORTED, "qwen2.attention.head_count differs between layers");
        } else {
            qins_checkpoint *c = open_good(&f);
            assert_int_equal(integer_of(c->config, "num_attention_heads"), 2);
            qins_checkpoint_close(c);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(llama_file_becomes_a_hugging_face_checkpoint),
        cmocka_unit_test(version_2_files_are_read_like_version_3),
        cmocka_unit_test(metadata_of_every_kind_is_read),
        cmocka_unit_test(rows_of_llama_q_and_k_come_in_hugging_face_order),
        cmocka_unit_test(rows_of_gptneox_qkv_come_head_by_head),
        cmocka_unit_test(gemma_norms_lose_the_one_that_gguf_adds),
        cmocka_unit_test(stacks_of_experts_are_taken_apart),
        cmocka_unit_test(names_agree_with_the_gguf_package),
        cmocka_unit_test(llama3_rope_factors_become_their_parameters),
        cmocka_unit_test(phi3_rope_factors_become_longrope),
        cmocka_unit_test(yarn_scaling_keeps_its_numbers_and_unknown_kinds_are_refused),
        cmocka_unit_test(ends_of_turn_become_a_list_of_eos_ids),
        cmocka_unit_test(byte_level_tokenizer_has_vocabulary_merges_and_added_tokens),
        cmocka_unit_test(every_pre_tokenizer_is_valid_json),
        cmocka_unit_test(sentencepiece_scores_become_the_merges_of_transformers),
        cmocka_unit_test(gemma_runs_of_spaces_are_spelt_as_its_tokenizer_does),
        cmocka_unit_test(unknown_tokenizers_are_refused_by_name),
        cmocka_unit_test(split_files_are_joined_whichever_part_is_named),
        cmocka_unit_test(incomplete_and_mixed_up_splits_are_refused),
        cmocka_unit_test(other_files_and_versions_are_refused),
        cmocka_unit_test(a_file_cut_anywhere_is_refused),
        cmocka_unit_test(metadata_that_does_not_fit_is_refused),
        cmocka_unit_test(tensors_out_of_place_are_refused),
        cmocka_unit_test(alignment_must_be_a_power_of_two),
        cmocka_unit_test(models_that_are_not_understood_are_refused_by_name),
        cmocka_unit_test(a_layer_with_numbers_of_its_own_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
