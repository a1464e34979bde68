/*
 * qins: run language models from compressed weights.
 *
 * SPDX-License-Identifier: MIT
 *
 * This header is the manual. It goes from the simple calls to the advanced ones:
 *
 *   1. status and errors            every call that can fail returns a qins_status
 *   2. models                       open a checkpoint, plain or compressed, and look at it
 *   3. text                         token ids from text and back
 *   4. sessions                     logits from token ids (KV cache and scratch)
 *   5. sampling                     next token from logits
 *   6. chat                         conversations in the format that a model knows
 *   7. compress and export          checkpoint in, checkpoint out
 *   8. audit                        where every byte of a checkpoint goes
 *   9. fidelity                     what a compressed model lost against a reference
 *  10. receipts                     what was promised and measured, kept with the model and checked
 *  11. sweep                        the same for many codecs and widths, with a report
 *  12. speed                        beside the limits of the machine
 *  13. single linears               the codecs without a model
 *
 * Conventions
 *   - Strings are UTF-8 and NUL-terminated unless a length is given. Lengths and counts are size_t.
 *   - Matrices are row-major, [n_rows][n_cols] = [outputs][inputs], as in the checkpoints.
 *   - The library never prints, exits or aborts. It reports through qins_error and qins_progress.
 *   - Handles may be used from several threads when the call takes them const; a qins_session
 *     belongs to one thread at a time. There is no global mutable state but the kernel table,
 *     which is filled once.
 *   - Every file is treated as hostile: a malformed one gives QINS_ERR_FORMAT, a damaged one
 *     QINS_ERR_CHECKSUM, and neither can make the library read or write out of bounds.
 */
#ifndef QINS_H
#define QINS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define QINS_VERSION_MAJOR  0
#define QINS_VERSION_MINOR  1
#define QINS_VERSION_PATCH  0
#define QINS_VERSION_STRING "0.1.0"

#if defined(_WIN32)
#define QINS_API
#else
#define QINS_API __attribute__((visibility("default")))
#endif

/* ---- 1. Status and errors -------------------------------------------------------------- */

typedef enum qins_status {
    QINS_OK = 0,
    QINS_ERR_IO = -1,          /* the operating system said no: message has path and reason */
    QINS_ERR_FORMAT = -2,      /* a file does not follow its format */
    QINS_ERR_CHECKSUM = -3,    /* a file follows its format but its bytes changed */
    QINS_ERR_UNSUPPORTED = -4, /* a valid file or option that this version does not implement */
    QINS_ERR_MEMORY = -5,      /* an allocation failed */
    QINS_ERR_ARGUMENT = -6,    /* the caller's argument is out of range */
    QINS_ERR_CANCELLED = -7,   /* the progress callback asked to stop */
    QINS_ERR_EXISTS = -8       /* the target exists and overwriting was not asked for */
} qins_status;

/* Filled on failure. Owned by the caller; may be NULL where only the status matters.
 * The message names file, tensor, what was expected and found, and what to do. */
typedef struct qins_error {
    qins_status code;
    char message[1024];
} qins_error;

/* Called from the calling thread during long work. `stage` is a short static text. done/total are in
 * arbitrary units. Return non-zero to cancel: the call then cleans up and returns QINS_ERR_CANCELLED. */
typedef int (*qins_progress)(void *user, const char *stage, uint64_t done, uint64_t total);

QINS_API const char *qins_version(void);
QINS_API const char *qins_status_name(qins_status status);

/* Number of threads that later calls from this thread use; 0 = all cores. */
QINS_API void qins_set_threads(int n_threads);
QINS_API int qins_get_threads(void);

/* On a machine with several NUMA nodes: pages that this thread, and threads it makes later, touch first are from now on
 * taken from all nodes in turn, so that reading weights uses the bandwidth of all. For programs, before they open a
 * model; qins does it. Returns the number of nodes, 1 when there is nothing to do or the system does not allow it. */
QINS_API int qins_spread_memory(void);

/* Name of the kernel set that runs: "scalar", "generic", "avx2", "avx512", ... Environment variable QINS_CPU
 * forces a lower one (read once, at the first call). */
QINS_API const char *qins_cpu_level(void);

/* ---- 2. Models -------------------------------------------------------------------------- */

typedef struct qins_model qins_model;

typedef struct qins_model_options {
    bool no_check;         /* skip the checksums of a qins directory */
    bool float_arithmetic; /* multiply in FP32 where inputs would be quantised to 16 bits: slower, for comparisons */
    /* May be NULL. Called while an entropy-coded model is decoded into memory; others are only mapped. */
    qins_progress progress;
    void *progress_user;
} qins_model_options;

typedef struct qins_model_info {
    const char *model_type; /* Hugging Face model_type, "llama" */
    const char *codec;      /* "none" for plain checkpoints */
    size_t n_layers, hidden_size, n_heads, n_kv_heads, head_dim, intermediate_size;
    size_t vocab_size;
    size_t max_position;              /* context length the model was trained for */
    uint64_t n_params;                /* tied tensors once */
    uint64_t bytes_touched_per_token; /* weight bytes a decode step reads */
    int64_t bos_id, eos_id;           /* -1 when the model has none */
} qins_model_info;

/* Opens a Hugging Face directory, a qins directory or a .gguf file. Files are mapped, not read.
 * `options` may be NULL. On success *model is owned by the caller. */
QINS_API qins_status qins_model_open(const char *path, const qins_model_options *options, qins_model **model,
                                     qins_error *err);
QINS_API void qins_model_close(qins_model *model);
/* Strings in the result live as long as the model. */
QINS_API void qins_model_get_info(const qins_model *model, qins_model_info *info);

/* ---- 3. Text ----------------------------------------------------------------------------- */

/* Token ids of text[0..n_bytes). Invalid UTF-8 is read as U+FFFD, one per maximal invalid part.
 * add_special: put the BOS/EOS the model's post-processor asks for. parse_special: let strings such as
 * "<|endoftext|>" in the text become the special token (off for untrusted text).
 * *ids is allocated by the library, freed with qins_free. */
QINS_API qins_status qins_tokenize(const qins_model *model, const char *text, size_t n_bytes, bool add_special,
                                   bool parse_special, int32_t **ids, size_t *n_ids, qins_error *err);

/* Text of ids. *text is NUL-terminated (n_bytes excludes the NUL), freed with qins_free.
 * skip_special leaves special tokens out. */
QINS_API qins_status qins_detokenize(const qins_model *model, const int32_t *ids, size_t n_ids, bool skip_special,
                                     char **text, size_t *n_bytes, qins_error *err);

QINS_API void qins_free(void *p);

/* Text of ids as they come, for output while it is generated. Every part is valid UTF-8 and ends with a character: one
 * whose bytes are spread over several tokens comes out with the last of them. For a byte-level vocabulary the parts
 * together are what qins_detokenize gives for all the ids; for one with byte tokens ("<0xE2>") that holds for ids of
 * valid text. To go on after a prompt, push its ids first and drop their text: what a decoder does to the first token
 * of a text, such as taking off its space, then happens there. Not thread-safe; the model must outlive it. */
typedef struct qins_detok qins_detok;

QINS_API qins_status qins_detok_new(const qins_model *model, bool skip_special, qins_detok **detok, qins_error *err);
/* *text is NUL-terminated, possibly empty, and good until the next call. Ids that are no token's give no text. */
QINS_API qins_status qins_detok_push(qins_detok *detok, int32_t id, const char **text, size_t *n_bytes,
                                     qins_error *err);
/* What was held back: an unfinished character comes out as U+FFFD. */
QINS_API qins_status qins_detok_finish(qins_detok *detok, const char **text, size_t *n_bytes, qins_error *err);
QINS_API void qins_detok_free(qins_detok *detok);

/* ---- 4. Sessions --------------------------------------------------------------------------- */

typedef struct qins_session qins_session;

/* A session holds one sequence or several, each with its own positions, and scratch memory. The cache keeps keys and
 * values as F16 unless asked otherwise: 32 (FP32, for comparisons with other programs), 16, or 8, 6, 5, 4 or 3 bits
 * (docs/kv-cache.md says what that costs). Its memory grows with the positions in use. */
typedef struct qins_session_options {
    size_t n_ctx;       /* positions of each sequence, at most. Models whose rotary embedding depends on the length
                           of the sequence (dynamic, longrope) take it for that: docs/families.md */
    size_t n_sequences; /* 0 = 1 */
    int key_bits, value_bits; /* 0 = 16 */
} qins_session_options;

/* The model must outlive the session. The session works with up to the threads that are set when it is made. */
QINS_API qins_status qins_session_new_with(const qins_model *model, const qins_session_options *options,
                                           qins_session **session, qins_error *err);
/* One sequence, cached as F16. */
QINS_API qins_status qins_session_new(const qins_model *model, size_t n_ctx, qins_session **session, qins_error *err);
QINS_API void qins_session_free(qins_session *session);
/* Bytes of KV cache that positions take, of all sequences. */
QINS_API size_t qins_session_kv_bytes(const qins_session *session);

/* Appends ids[0..n) to sequence 0 and computes the logits of the last n_logits of them (n_logits <= n; 0 for none):
 * logits is [n_logits][vocab_size], caller-owned. Ids out of range and a full context are refused
 * before anything changes. */
QINS_API qins_status qins_session_eval(qins_session *session, const int32_t *ids, size_t n, float *logits,
                                       size_t n_logits, qins_error *err);

typedef struct qins_batch_token {
    int32_t id;
    uint32_t sequence; /* below n_sequences */
    bool wants_logits;
} qins_batch_token;

/* The same for tokens of several sequences, which share each pass over the weights. The tokens of a sequence come in
 * their order; logits has one row for every token that wants them, in the order of the tokens. */
QINS_API qins_status qins_session_eval_batch(qins_session *session, const qins_batch_token *tokens, size_t n,
                                             float *logits, qins_error *err);

/* Tokens of sequence 0, and of any. */
QINS_API size_t qins_session_position(const qins_session *session);
QINS_API size_t qins_sequence_length(const qins_session *session, size_t sequence);
/* Ids of a sequence, [qins_sequence_length]; they live until the session next changes. */
QINS_API const int32_t *qins_sequence_tokens(const qins_session *session, size_t sequence);

/* Forgets everything of sequence 0 from position n on. n must not exceed the current position. */
QINS_API qins_status qins_session_truncate(qins_session *session, size_t n, qins_error *err);
QINS_API qins_status qins_sequence_truncate(qins_session *session, size_t sequence, size_t n, qins_error *err);
/* Sequence `to` becomes a copy of `from`. */
QINS_API qins_status qins_sequence_fork(qins_session *session, size_t from, size_t to, qins_error *err);
/* Forgets positions [keep, keep + drop); those behind move up and their keys are turned to the new positions, so that a
 * full context goes on without evaluating it again. What the model computed from the forgotten tokens stays in the
 * others; coded rows are coded once more. Models with learned positions refuse. */
QINS_API qins_status qins_sequence_shift(qins_session *session, size_t sequence, size_t keep, size_t drop,
                                         qins_error *err);

/* Writes a sequence, its tokens and its rows of the cache, to a file (atomically; an existing file is replaced), and
 * reads it back in place of a sequence: a long prompt is evaluated once. A file is accepted by the same model, n_ctx
 * where that changes positions, and bits of the cache; it is checked whole (sizes, checksum, token ids) before anything
 * changes. */
QINS_API qins_status qins_sequence_save(const qins_session *session, size_t sequence, const char *path,
                                        qins_error *err);
QINS_API qins_status qins_sequence_load(qins_session *session, size_t sequence, const char *path, qins_error *err);

/* ---- 5. Sampling ----------------------------------------------------------------------------- */

typedef struct qins_sampling {
    float temperature; /* 0 = greedy: exact argmax, lowest id on ties */
    int top_k;         /* 0 = off */
    float top_p;       /* 1 = off */
    float min_p;       /* 0 = off */
    uint64_t seed;
} qins_sampling;

typedef struct qins_sampler qins_sampler;

QINS_API qins_status qins_sampler_new(const qins_sampling *params, size_t vocab_size, qins_sampler **sampler,
                                      qins_error *err);
QINS_API void qins_sampler_free(qins_sampler *sampler);
/* Order of filters: temperature, top-k, top-p, min-p, as transformers applies them. */
QINS_API int32_t qins_sample(qins_sampler *sampler, const float *logits);

/* ---- 6. Chat ---------------------------------------------------------------------------------- */

typedef enum qins_chat_role { QINS_CHAT_SYSTEM, QINS_CHAT_USER, QINS_CHAT_ASSISTANT } qins_chat_role;

typedef struct qins_chat_message {
    qins_chat_role role;
    const char *text;
    size_t n_bytes;
} qins_chat_message;

/* The format in which a model expects a conversation. Templates (chat_template of tokenizer_config.json,
 * tokenizer.chat_template of a GGUF file) are Jinja programs, which are not run: the format that a template writes is
 * told by the strings in it. */
typedef struct qins_chat qins_chat;

/* Strings live as long as the chat. */
typedef struct qins_chat_info {
    const char *format;         /* "chatml", "llama-3" ...; "plain" (User: ... Assistant: ...) for models without one */
    bool has_template;          /* the model has a template, */
    bool is_own;                /* and this is its format */
    const char *default_system; /* what the template says where there is no system message; NULL for nothing */
    const char *stop_text;      /* ends an answer where no token does; NULL when tokens do */
    bool system_in_user;        /* the system message goes into the first message of the user */
} qins_chat_info;

/* format: NULL for the model's own, or chatml, phi-4, llama-3, llama-2, mistral-v0, mistral-v1, mistral-v3,
 * mistral-v3-tekken, mistral-v7, phi-3, zephyr, gemma, plain. The model must outlive the chat, which the caller owns.
 */
QINS_API qins_status qins_chat_new(const qins_model *model, const char *format, qins_chat **chat, qins_error *err);
QINS_API void qins_chat_free(qins_chat *chat);
QINS_API void qins_chat_get_info(const qins_chat *chat, qins_chat_info *info);
/* Whether this token ends an answer. */
QINS_API bool qins_chat_is_end(const qins_chat *chat, int32_t id);

/* Ids of messages[0..n), for qins_session_eval; after a user's message they open the answer. continues: they follow an
 * answer that is in the session already, without the token that ended it. Texts of messages cannot become special
 * tokens. BOS is where the template puts it, or else where the tokenizer does. *ids is freed with qins_free. */
QINS_API qins_status qins_chat_tokenize(const qins_chat *chat, const qins_chat_message *messages, size_t n,
                                        bool continues, int32_t **ids, size_t *n_ids, qins_error *err);
/* The same as text (NUL-terminated, n_bytes excludes the NUL, freed with qins_free): what the template writes. */
QINS_API qins_status qins_chat_render(const qins_chat *chat, const qins_chat_message *messages, size_t n,
                                      bool continues, char **text, size_t *n_bytes, qins_error *err);

/* ---- 7. Compress and export -------------------------------------------------------------------- */

typedef enum qins_codec {
    QINS_CODEC_NONE = 0,     /* tensors copied as they are */
    QINS_CODEC_LOG = 1,      /* magnitudes equally spaced in log|w| */
    QINS_CODEC_RATIONAL = 2, /* z = sign(w)/(1+alpha|w|), z equally spaced */
    QINS_CODEC_GAUSS = 3,    /* Lloyd-Max levels of N(0,1) */
    QINS_CODEC_UNIFORM = 4,  /* equal steps */
    QINS_CODEC_SPARSE = 5,   /* equal steps with a zero among them: what uniform becomes with sparsity */
    QINS_CODEC_TRELLIS = 6,  /* 2 to 6 bits: twice the levels, half of them at a time; 7 and 8 bits are gauss */
    /* 3 to 7 bits: the trellis with equal steps, for an entropy coder; 8 bits are uniform. What file_bpw makes */
    QINS_CODEC_UNIFORM_TRELLIS = 7
} qins_codec;

typedef enum qins_storage {
    QINS_STORAGE_PACKED = 0, /* b-bit codes in panels of 16 rows, docs/format.md */
    QINS_STORAGE_SEED = 1,   /* log codec only: u8 magnitude + i8 sign, 2 bytes a weight */
    QINS_STORAGE_F32 = 2     /* rational codec only: z as FP32, saves nothing */
} qins_storage;

typedef enum qins_scale_kind {
    QINS_SCALE_AUTO = -1, /* a scale a row for packed storage, one a tensor for seed and f32 */
    QINS_SCALE_ROW = 0,
    QINS_SCALE_TENSOR = 1,
    QINS_SCALE_GROUP = 2
} qins_scale_kind;

typedef enum qins_switch {
    QINS_AUTO = -1, /* rotation: on for packed storage, off for seed and f32 */
    QINS_OFF = 0,
    QINS_ON = 1
} qins_switch;

/* What to do with one matrix. qins_encode_defaults fills in: gauss, 4 bits, packed, rotation and
 * scale automatic (rotated, one scale a row). */
typedef struct qins_encode_options {
    qins_codec codec;
    int bits; /* 3..8; the log codec also takes 9 (sign + 8) */
    qins_storage storage;
    qins_switch rotate;
    uint64_t rotation_seed;
    qins_scale_kind scale;
    size_t group_size; /* for QINS_SCALE_GROUP: a multiple of 4 */
    double alpha;      /* rational codec; 0 = fit to least squared error */
    double rate;       /* codecs of equal steps: > 0: bits a code takes after entropy coding, which sets the step */
    /* Share of the weights that becomes 0, below 1. Log and rational: not rotated. Uniform: of the rotated matrix where
     * it is rotated; becomes codec sparse. */
    double sparsity;
    size_t sparse_group; /* of every so many neighbours in a row (2:4 is 0.5 of 4); 0: of every row */
    /* Uniform with calibration: the smallest weights go, instead of those whose loss on the calibration text is least.
     * All others always lose the smallest. */
    bool prune_by_magnitude;
} qins_encode_options;

QINS_API void qins_encode_defaults(qins_encode_options *options);

typedef enum qins_packing {
    QINS_PACK_NONE = 0,   /* the file is mapped and used in place */
    QINS_PACK_ENTROPY = 1 /* tensors are entropy-coded in the file and decoded when the model is opened */
} qins_packing;

/* Embedding and head: 8 bits, or as bpw, max_bytes or max_kl choose for every matrix. */
#define QINS_EMBED_AUTO (-1)

typedef struct qins_compress_options {
    qins_encode_options linear; /* for every targeted linear */
    /* At most one of the three is > 0. With calibration each matrix gets the width (3 to 8) that predicted loss asks
     * for: */
    double bpw; /* bits a weight of the linears, and of embedding and head when embed_bits is QINS_EMBED_AUTO, scales
                   included. Without calibration: the largest width for all linears within it */
    uint64_t max_bytes; /* of the file of weights */
    double max_kl;      /* KL divergence from the source in nats a token: the smallest file found to be within it */
    /* > 0: codes of equal steps that take this many bits in the file, entropy-coded. Sets bits, pack and the codec:
     * uniform trellis, but uniform where that is asked for, weights are pruned or less than 2.4 bits are wanted. */
    double file_bpw;
    /* "all", "safe" (v, o, gate, up, down) or a PCRE2 regex; NULL = all. It is searched in tensor names and in names of
     * projections ("v_proj" etc. in place of the last component), so that rows of fused matrices can be chosen:
     * docs/codecs.md */
    const char *targets;
    int embed_bits; /* embedding and head; 0 = keep as they are; QINS_EMBED_AUTO */
    /* Text file to calibrate with: the linears are rounded with error feedback on its tokens (docs/codecs.md). NULL: to
     * the nearest code, without data. Packed gauss and uniform codes with a scale a row take part, others are rounded
     * to the nearest. */
    const char *calibrate;
    size_t calibrate_tokens; /* how many of its tokens, spread evenly over it */
    bool no_kv_transform;    /* calibration adds no key transform for coded KV caches (docs/kv-cache.md) */
    qins_packing pack;       /* ENTROPY with codec NONE: lossless, every tensor keeps its bytes */
    bool force;              /* replace an existing target */
    bool no_check;
    qins_progress progress;
    void *progress_user;
} qins_compress_options;

QINS_API void qins_compress_defaults(qins_compress_options *options);

typedef struct qins_compress_result {
    uint64_t n_tensors, n_encoded;
    uint64_t source_bytes; /* tensor bytes of the source */
    uint64_t stored_bytes; /* tensor bytes written */
    double bpw;            /* bits a weight over encoded tensors, scales and tables included */
    double rel_mse;        /* sum of squared error / sum of squares over encoded tensors */
    double codes_used;     /* of the linears: distinct codes that occur in a tensor, mean over tensors */
    double code_entropy;   /* of the linears: bits a code (without the sign byte of seed storage), mean over weights */
    /* KL divergence, nats a token, where bpw, max_bytes or max_kl chose widths on calibration text; else -1. On part of
     * the text that is not rounded on, the eighth sequences; embedding and head only as predicted. */
    double predicted_kl;  /* the sum of what the errors of each matrix cost */
    double measured_kl;   /* of the predictions; -1 when the text is too short to hold a part back */
    uint64_t n_fed_back;  /* matrices rounded with error feedback */
    uint64_t n_fallbacks; /* matrices of experts that too few tokens reached: rounded to the nearest */
} qins_compress_result;

/* Writes a qins directory at out_path, atomically: built under a temporary name in the same folder, synced, renamed.
 * Peak memory follows the largest row block, not the model. */
QINS_API qins_status qins_compress(const char *model_path, const char *out_path, const qins_compress_options *options,
                                   qins_compress_result *result, qins_error *err);

typedef struct qins_pack_options {
    bool unpack; /* the way back */
    bool force;
    bool no_check;
    qins_progress progress;
    void *progress_user;
} qins_pack_options;

/* Entropy-codes the tensors of a qins directory, or takes the coding away; the codes stay the same. Of a plain
 * safetensors checkpoint it makes a lossless directory, and back (any architecture). Atomic like qins_compress. */
QINS_API qins_status qins_pack(const char *model_path, const char *out_path, const qins_pack_options *options,
                               qins_compress_result *result, qins_error *err);

typedef enum qins_dtype {
    QINS_F32 = 0,
    QINS_F16 = 1,
    QINS_BF16 = 2,
    QINS_Q8_0 = 3,      /* GGUF only: 8 bits and an FP16 scale for every 32 values */
    QINS_DTYPE_AUTO = 4 /* of a lossless directory every tensor as it was, bit for bit; else F32 */
} qins_dtype;

typedef enum qins_export_format {
    QINS_FORMAT_SAFETENSORS = 0, /* a plain Hugging Face directory that transformers loads */
    QINS_FORMAT_GGUF = 1         /* one file that llama.cpp loads */
} qins_export_format;

typedef struct qins_export_options {
    qins_export_format format;
    qins_dtype dtype;
    bool force;
    bool no_check;
    qins_progress progress;
    void *progress_user;
} qins_export_options;

/* Decodes any MODEL back to plain files, atomically and a block of rows at a time. In a GGUF file vectors, norms and
 * routers are F32 whatever the dtype, and with QINS_Q8_0 matrices whose rows are no multiple of 32 are F16; what such a
 * file cannot express (docs/families.md) is refused by name before anything is written. Values that overflow the dtype
 * are refused. *stored_bytes (may be NULL): tensor bytes written. */
QINS_API qins_status qins_export(const char *model_path, const char *out_path, const qins_export_options *options,
                                 uint64_t *stored_bytes, qins_error *err);

/* ---- 8. Audit ------------------------------------------------------------------------------------ */

/* Where bytes go. One entry per parameter of the checkpoint; two for a fused matrix of which only some rows are
 * encoded: NAME, the encoded rows, and NAME.rest, the plain ones. */
typedef struct qins_audit_tensor {
    const char *name;    /* Hugging Face name */
    const char *dtype;   /* as stored: "F32", "BF16", "Q4_1", "U8" for codes ... */
    const char *role;    /* "linear", "embedding", "head", "bias", "norm", "other" */
    const char *codec;   /* "none" or codec name */
    const char *storage; /* "plain", "packed", "seed", "f32" */
    double bits;         /* of a code; of a value for plain tensors */
    size_t n_dims;
    uint64_t shape[4];
    uint64_t n_params;
    uint64_t bytes;          /* code_bytes + side_bytes, in the file */
    uint64_t resident_bytes; /* the same in memory: more when the tensor is entropy-coded */
    bool entropy_coded;
    uint64_t code_bytes;   /* payload: codes, or the plain tensor */
    uint64_t side_bytes;   /* scales, tables, log range, alpha */
    uint64_t source_bytes; /* bytes of this tensor before compression */
} qins_audit_tensor;

typedef struct qins_audit_totals {
    uint64_t params, fp32_bytes, source_bytes, stored_bytes;
    uint64_t shared_bytes;      /* tables used by several tensors: part of stored_bytes */
    uint64_t header_bytes;      /* headers, metadata, alignment padding of the weight files */
    uint64_t weight_file_bytes; /* sizes on disk of the files that hold tensors = stored + header, checked */
    uint64_t file_bytes;        /* every file of the model */
    uint64_t resident_bytes;    /* what a run maps or holds of the weights */
    double ratio_fp32, ratio_source;
} qins_audit_totals;

typedef struct qins_audit qins_audit;

QINS_API qins_status qins_audit_open(const char *path, const qins_model_options *options, qins_audit **audit,
                                     qins_error *err);
/* What qins_compress(path, ..., options, ...) would write, from shapes alone: no weight is read. Its file_bytes is 0,
 * as only the weight file is laid out. Entropy coding is refused: its sizes depend on the weights. */
QINS_API qins_status qins_compress_preview(const char *path, const qins_compress_options *options, qins_audit **preview,
                                           qins_error *err);
QINS_API void qins_audit_close(qins_audit *audit);
QINS_API size_t qins_audit_count(const qins_audit *audit);
QINS_API const qins_audit_tensor *qins_audit_get(const qins_audit *audit, size_t i);
QINS_API const qins_audit_totals *qins_audit_get_totals(const qins_audit *audit);

/* What the KV cache of one sequence takes. */
typedef struct qins_audit_kv {
    uint64_t code_bytes;    /* codes of keys and values; the values themselves where they are not coded */
    uint64_t side_bytes;    /* scales, means of keys, first tokens kept F16, padding */
    uint64_t bytes;         /* of both, in whole pages of 64 positions */
    double bytes_per_token; /* of a full page */
} qins_audit_kv;

/* With keys and values of so many bits (section 4), after `positions` tokens. */
QINS_API qins_status qins_audit_kv_bytes(const qins_audit *audit, int key_bits, int value_bits, size_t positions,
                                         qins_audit_kv *kv, qins_error *err);
/* Context length the model was trained for. */
QINS_API size_t qins_audit_max_position(const qins_audit *audit);

/* ---- 9. Fidelity ---------------------------------------------------------------------------------- */

typedef struct qins_verify_options {
    const char *text; /* text to score on; NULL = a built-in public-domain one */
    size_t text_bytes;
    size_t ctx;        /* window; every window starts with an empty cache. 0 = 512 */
    size_t stride;     /* from one window to the next; only positions that no earlier window scored count. 0 = ctx */
    size_t max_tokens; /* 0 = all of the text */
    const char *const *prompts; /* for greedy match; NULL = built-in ones */
    size_t n_prompts;
    size_t gen;               /* greedy tokens a prompt; 0 = no greedy match */
    bool no_strategies;       /* leave the sampling strategies out */
    size_t layer_tokens;      /* tokens of the text for the scores of layers; 0 = none. They cost a run of half the
                                 reference for each layer */
    int key_bits, value_bits; /* of the model's KV cache, 0 = 16; the reference has 16 */
    qins_progress progress;
    void *progress_user;
} qins_verify_options;

/* 95 % bootstrap interval; NaN both when there is one block only. */
typedef struct qins_interval {
    double low, high;
} qins_interval;

typedef struct qins_greedy_result {
    const char *kind;            /* of a built-in prompt: "facts", "code" ...; NULL for the caller's */
    size_t matched, of;          /* free-running greedy tokens equal to the reference, up to the first divergence */
    size_t first_divergence;     /* == of when there is none */
    int32_t ref_token, token;    /* at the divergence, -1 without one */
    char ref_text[32], text[32]; /* their text as far as it fits, valid UTF-8: U+FFFD for part of a character */
    double ref_margin;           /* reference logit of its token minus that of the other, at the divergence */
    size_t agreed;               /* teacher-forced: of the `of` tokens of the reference, how many the model would have
                                    taken after the reference's own beginning */
} qins_greedy_result;

/* Positions with from..to tokens of context, themselves included. */
typedef struct qins_position_score {
    size_t from, to, n;
    double kl_mean, top1;
} qins_position_score;

/* One way of sampling, at every n-th position of the text, both models after the same text and with the same draws. */
typedef struct qins_strategy_score {
    const char *name; /* "top-p 0.9" */
    qins_sampling sampling;
    size_t n;         /* positions */
    double agreement; /* share of positions where one draw gives the same token: what `run --seed` does */
    double coupled;   /* the same when every token of the vocabulary has a draw of its own, the same for both models */
    double overlap;   /* 1 - total variation distance of the filtered distributions: no way of drawing agrees more */
    double kl;        /* nats: of the filtered reference from the model on the tokens that the reference keeps */
    double missed;    /* probability that the filtered reference gives to tokens that the model filters out */
} qins_strategy_score;

/* Layers first, then the embedding and head together (layer == n_layers of the model). */
typedef struct qins_layer_score {
    size_t layer;
    double weight_rel_mse; /* of its matrices: |model - reference|^2 / |reference|^2; NaN when they cannot be paired */
    double output_rel_mse; /* of the hidden states after it, everything compressed */
    double cosine;         /* of the same, mean over positions */
    double own_rel_mse;    /* of the hidden states after it when it alone is compressed */
    double own_kl;         /* KL of the predictions when it alone is compressed */
} qins_layer_score;

enum { QINS_MAX_POSITION_SCORES = 40 };

typedef struct qins_verify_result {
    size_t n_tokens; /* positions scored */
    size_t n_blocks; /* windows' worth of text that the intervals are drawn from */
    double kl_mean;  /* KL(reference || model) in nats a token */
    double kl_p50, kl_p90, kl_p99, kl_p999;
    qins_interval kl_interval;
    double top1;          /* share of positions with the same argmax */
    double top10_overlap; /* mean share of the reference's ten likeliest in the model's ten */
    double ppl_ref, ppl, ppl_delta_pct;
    qins_interval ppl_delta_interval; /* per cent */
    double max_abs_logit_diff;
    size_t n_positions;
    qins_position_score positions[QINS_MAX_POSITION_SCORES]; /* 1, 2..3, 4..7 ... tokens of context */
    size_t n_strategies;
    qins_strategy_score *strategies;
    size_t greedy_matched, greedy_of, greedy_agreed;
    size_t greedy_identical; /* prompts equal to the end */
    size_t n_greedy;
    qins_greedy_result *greedy; /* [n_greedy] */
    size_t n_layers;
    qins_layer_score *layers; /* [n_layers]: of the model, plus one for embedding and head */
    char text_xxh3_64[17];    /* of the text */
    char prompts_xxh3_64[17]; /* of the prompts, each with its NUL */
} qins_verify_result;

/* Both models must have the same vocabulary size; the reference's tokenizer is used. What every figure means:
 * docs/measuring.md. *result is filled by the call and freed by qins_verify_result_free. */
QINS_API qins_status qins_verify(const qins_model *reference, const qins_model *model,
                                 const qins_verify_options *options, qins_verify_result *result, qins_error *err);
QINS_API void qins_verify_result_free(qins_verify_result *result);
/* A report as one HTML file that needs nothing from outside, written atomically. The names are put into its title. */
QINS_API qins_status qins_verify_write_html(const qins_verify_result *result, const char *reference_name,
                                            const char *model_name, const char *path, qins_error *err);

/* ---- 10. Receipts ------------------------------------------------------------------------------------ */

/* A qins directory carries a receipt, qins_receipt.json: what it was made from and how (written by qins_compress), and
 * what was measured on it. docs/format.md. */

/* Adds a measurement to the receipt of `model`, in the place of an older one on the same reference, text and options;
 * atomically. *recorded is false, and nothing is done, when the model is no qins directory or cannot be written to. */
QINS_API qins_status qins_receipt_record(const qins_model *reference, const qins_model *model,
                                         const qins_verify_options *options, const qins_verify_result *result,
                                         bool *recorded, qins_error *err);

typedef enum qins_verdict {
    QINS_HOLDS = 0,
    QINS_BROKEN = 1,   /* what was found is not what the receipt says */
    QINS_UNCHECKED = 2 /* `found` says what is needed to check it */
} qins_verdict;

typedef struct qins_receipt_line {
    qins_verdict verdict;
    char what[160]; /* "stored bytes" */
    char said[160], found[160];
} qins_receipt_line;

typedef struct qins_receipt_options {
    const char *reference; /* path of the source; NULL leaves what needs it unchecked */
    const char *text;      /* for measurements on other than the built-in text; NULL for none */
    size_t text_bytes;
    const char *const *prompts; /* the same of prompts */
    size_t n_prompts;
    void (*line)(void *user, const qins_receipt_line *line); /* called for each line, in order */
    void *line_user;
    qins_progress progress;
    void *progress_user;
} qins_receipt_options;

/* Recomputes what a receipt says: checksums, sizes, options, and with the reference its hash, the error of every matrix
 * and the measurements. *n_broken: lines that do not hold. */
QINS_API qins_status qins_receipt_check(const char *model_path, const qins_receipt_options *options, size_t *n_broken,
                                        qins_error *err);

/* ---- 11. Sweep -------------------------------------------------------------------------------------- */

/* One way to compress the reference. */
typedef struct qins_sweep_request {
    const char *series;             /* points of one name are joined in the charts: "gauss" */
    qins_compress_options compress; /* force, no_check and progress are set by the sweep */
} qins_sweep_request;

typedef struct qins_sweep_options {
    const qins_sweep_request *requests;
    size_t n_requests;
    const char *work_path; /* of a directory that must not exist: each compressed model lies there in turn */
    const char *text;      /* as in qins_verify_options */
    size_t text_bytes, ctx, max_tokens;
    bool no_check; /* skip the checksums of the reference */
    qins_progress progress;
    void *progress_user;
} qins_sweep_options;

typedef struct qins_sweep_point {
    const char *series, *codec;
    int bits;        /* of a code */
    double bpw;      /* bits a weight of the linears in memory, scales and tables included */
    double file_bpw; /* in the file: less when they are entropy-coded */
    double rel_mse;  /* of the linears: squared error / sum of squares */
    double gap_bits; /* file_bpw - log2(1/rel_mse)/2: distance to the rate-distortion bound of a Gaussian */
    double kl_mean, kl_p99, top1, top10_overlap, ppl; /* as in qins_verify_result */
    double ppl_delta_pct;
    double codes_used, code_entropy; /* as in qins_compress_result */
    size_t n_codes;                  /* 0 when the storage has no codes */
    const uint64_t *histogram;       /* [n_codes] over all linears */
    const double *layer_errors;      /* [n_layers][n_kinds] rel_mse of each linear; NaN where a layer has none */
} qins_sweep_point;

typedef struct qins_sweep_info {
    size_t n_points, n_layers, n_kinds;
    const char *const *kinds; /* "q", "k", "v", "o", "gate" ...: the linears that the model has */
    size_t n_tokens;          /* scored */
    double ppl_ref;
} qins_sweep_info;

typedef struct qins_sweep qins_sweep;

/* Compresses the model at `path` in every way asked for, one after the other, and scores each against it. Takes as much
 * disk as the largest of them. On success *sweep is owned by the caller. */
QINS_API qins_status qins_sweep_run(const char *path, const qins_sweep_options *options, qins_sweep **sweep,
                                    qins_error *err);
QINS_API void qins_sweep_free(qins_sweep *sweep);
/* Pointers in the results live as long as the sweep. */
QINS_API const qins_sweep_info *qins_sweep_get_info(const qins_sweep *sweep);
QINS_API const qins_sweep_point *qins_sweep_get(const qins_sweep *sweep, size_t i);
/* Writes the charts and the table as one HTML page that needs nothing from outside, atomically (an existing file is
 * replaced). about: a line on what was measured, plain text; NULL for none. */
QINS_API qins_status qins_sweep_write_html(const qins_sweep *sweep, const char *path, const char *title,
                                           const char *about, qins_error *err);

/* ---- 12. Speed --------------------------------------------------------------------------------------- */

enum {
    QINS_BENCH_WIDTHS = 6, /* 3 to 8 bits */
    QINS_BENCH_BATCHES = 5 /* 1, 2, 4, 8 and 16 sequences */
};

typedef struct qins_bench_options {
    size_t prompt, gen;       /* tokens, at least 1 each */
    int key_bits, value_bits; /* of the KV cache, 0 = 16 */
    bool model_only;          /* skip bandwidth, gemv and batches; shares and limits are then 0 */
    bool no_check;
    qins_progress progress;
    void *progress_user;
} qins_bench_options;

QINS_API void qins_bench_defaults(qins_bench_options *options);

/* One width. GB/s are 1e9 bytes of codes a second from memory, for one vector; shares are of the read bandwidth with as
 * many threads. */
typedef struct qins_bench_gemv {
    int bits;
    double gbps_one, share_one; /* one thread */
    double gbps, share;         /* all threads */
    double gmacs;               /* 1e9 products a second with 126 vectors, all threads */
} qins_bench_gemv;

/* Several sequences that each generate a token in the same pass. */
typedef struct qins_bench_batch {
    size_t sequences;
    double tps; /* tokens a second, of all of them together */
} qins_bench_batch;

typedef struct qins_bench_result {
    int threads;
    double read_gbps_one, read_gbps; /* one thread, all threads */
    qins_bench_gemv gemv[QINS_BENCH_WIDTHS];
    double amx_gmacs;               /* 1e9 products a second of tdpbsud from registers, all threads; 0 without AMX */
    double prefill_tps, decode_tps; /* tokens a second; decode: the median token */
    double open_seconds, first_token_seconds; /* opening; opening and evaluating the prompt */
    uint64_t params;
    double bytes_per_token;                /* weights, and the part of the KV cache that is in use */
    double decode_limit_tps, decode_share; /* read_gbps / bytes_per_token, and how much of it was reached */
    qins_bench_batch batch[QINS_BENCH_BATCHES];
    double first_token_overhead; /* seconds that the first token of the prompt takes beyond its second evaluation */
} qins_bench_result;

/* Measures the machine and the model at model_path with qins_get_threads() threads. `options` may be NULL. */
QINS_API qins_status qins_bench(const char *model_path, const qins_bench_options *options, qins_bench_result *result,
                                qins_error *err);
/* A page with a roofline chart that needs nothing from outside; *html is freed with qins_free. */
QINS_API qins_status qins_bench_page(const qins_bench_result *result, const char *model_name, char **html,
                                     size_t *n_bytes, qins_error *err);

/* ---- 13. Single linears ----------------------------------------------------------------------------- */

typedef struct qins_linear qins_linear;

/* Encodes weight[n_out][n_in] (FP32, finite) and keeps a copy of bias[n_out] (NULL for none).
 * NaN and infinity are refused, naming the index. */
QINS_API qins_status qins_linear_from_float(const float *weight, const float *bias, size_t n_out, size_t n_in,
                                            const qins_encode_options *options, qins_linear **linear, qins_error *err);
QINS_API void qins_linear_free(qins_linear *linear);
/* y[n_tokens][n_out] = x[n_tokens][n_in] W^T + bias, decoded on the fly. */
QINS_API qins_status qins_linear_forward(const qins_linear *linear, const float *x, float *y, size_t n_tokens,
                                         qins_error *err);
/* Decoded weights, weight[n_out][n_in]. */
QINS_API qins_status qins_linear_decode(const qins_linear *linear, float *weight, qins_error *err);
/* Writes the linear as one safetensors file with checksums, atomically (an existing file is replaced). */
QINS_API qins_status qins_linear_save(const qins_linear *linear, const char *path, qins_error *err);
/* Reads it back; checksums are compared. *linear is owned by the caller. */
QINS_API qins_status qins_linear_load(const char *path, qins_linear **linear, qins_error *err);
/* Bytes of codes, and of scales + tables. */
QINS_API void qins_linear_bytes(const qins_linear *linear, uint64_t *code_bytes, uint64_t *side_bytes);

#ifdef __cplusplus
}
#endif

#endif /* QINS_H */
