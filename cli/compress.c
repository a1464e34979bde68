/* qins compress: options into qins_compress_options, the result into a line or an object. SPDX-License-Identifier: MIT
 */
#include "audit_print.h"
#include "commands.h"
#include "output.h"
#include "progress.h"

#include <stdio.h>
#include <string.h>

enum { BITS_NOT_GIVEN = 0, TRELLIS_ONLY_BITS = 2, LOG_ONLY_BITS = 9, SEED_BITS = 8 };

static const char *const codec_names[] = {"gauss", "log", "rational", "uniform", "trellis", "none", "lossless", NULL};
static const qins_codec codec_values[] = {QINS_CODEC_GAUSS,   QINS_CODEC_LOG,  QINS_CODEC_RATIONAL, QINS_CODEC_UNIFORM,
                                          QINS_CODEC_TRELLIS, QINS_CODEC_NONE, QINS_CODEC_NONE};
enum { LOSSLESS = 6 }; /* place in codec_names: codec none, entropy-coded */
static const char *const storage_names[] = {"packed", "seed", "f32", NULL};
static const qins_storage storage_values[] = {QINS_STORAGE_PACKED, QINS_STORAGE_SEED, QINS_STORAGE_F32};
static const char *const packing_names[] = {"none", "entropy", NULL};
static const char *const switch_names[] = {"auto", "on", "off", NULL};
static const qins_switch switch_values[] = {QINS_AUTO, QINS_ON, QINS_OFF};
enum { ROTATE_AUTO, ROTATE_ON };
static const char *const round_names[] = {"auto", "feedback", "nearest", NULL};
enum { ROUND_AUTO, ROUND_FEEDBACK, ROUND_NEAREST };
static const char *const scale_names[] = {"auto", "row", "tensor", "group:32", NULL};

typedef struct scale_choice {
    qins_scale_kind kind;
    size_t group_size;
} scale_choice;

static bool parse_scale(const char *text, void *value) {
    scale_choice *scale = value;
    uint64_t group = 0;
    if (strcmp(text, "auto") == 0) {
        *scale = (scale_choice){.kind = QINS_SCALE_AUTO};
    } else if (strcmp(text, "row") == 0) {
        *scale = (scale_choice){.kind = QINS_SCALE_ROW};
    } else if (strcmp(text, "tensor") == 0) {
        *scale = (scale_choice){.kind = QINS_SCALE_TENSOR};
    } else if (strncmp(text, "group:", 6) == 0 && parse_u64(text + 6, &group) && group > 0 && group % 4 == 0) {
        *scale = (scale_choice){.kind = QINS_SCALE_GROUP, .group_size = (size_t)group};
    } else {
        return false;
    }
    return true;
}

static const char *const alpha_names[] = {"fit", NULL};

/* 0 stands for "fit", as in qins_encode_options. */
static bool parse_alpha(const char *text, void *value) {
    double alpha = 0;
    if (strcmp(text, "fit") != 0 && (!parse_real(text, &alpha) || alpha <= 0)) return false;
    *(double *)value = alpha;
    return true;
}

/* "1.2GB", "800MiB", "123456". */
static bool parse_size(const char *text, void *value) {
    static const struct {
        const char *name;
        double bytes;
    } units[] = {{"", 1},    {"B", 1},   {"kB", 1e3}, {"KB", 1e3},     {"MB", 1e6},        {"GB", 1e9},
                 {"K", 1e3}, {"M", 1e6}, {"G", 1e9},  {"KiB", 1024.0}, {"MiB", 1048576.0}, {"GiB", 1073741824.0}};
    char number[32];
    size_t digits = strspn(text, "0123456789.");
    double amount;
    if (digits == 0 || digits >= sizeof number) return false;
    memcpy(number, text, digits);
    number[digits] = '\0';
    if (!parse_real(number, &amount)) return false;
    for (size_t i = 0; i < sizeof units / sizeof units[0]; i++) {
        double bytes = amount * units[i].bytes;
        if (strcmp(text + digits, units[i].name) != 0) continue;
        if (!(bytes >= 1 && bytes < 1e18)) return false;
        *(uint64_t *)value = (uint64_t)bytes;
        return true;
    }
    return false;
}

static const char *const embed_names[] = {"auto", "keep", NULL};

/* 0 stands for "keep". */
static bool parse_embed_bits(const char *text, void *value) {
    uint64_t bits = 0;
    if (strcmp(text, "auto") == 0) {
        *(int *)value = QINS_EMBED_AUTO;
        return true;
    }
    if (strcmp(text, "keep") != 0 && (!parse_u64(text, &bits) || bits < 3 || bits > 8)) return false;
    *(int *)value = (int)bits;
    return true;
}

typedef struct sparsity_choice {
    double share;
    size_t group;
} sparsity_choice;

static const char *const sparsity_names[] = {"0.5", "2:4", NULL};

static bool parse_sparsity(const char *text, void *value) {
    sparsity_choice *s = value;
    if (strcmp(text, "2:4") == 0) {
        *s = (sparsity_choice){0.5, 4};
        return true;
    }
    double share;
    if (!parse_real(text, &share) || !(share > 0 && share < 1)) return false;
    *s = (sparsity_choice){share, 0};
    return true;
}

static const char *const prune_names[] = {"auto", "loss", "magnitude", NULL};
enum { PRUNE_AUTO, PRUNE_LOSS, PRUNE_MAGNITUDE };

typedef struct compress_arguments {
    common_options common;
    int codec, storage, rotate, bits, packing, prune;
    scale_choice scale;
    sparsity_choice sparsity;
    double bpw, file_bpw, alpha;
    const char *calibrate, *targets;
    double max_kl;
    uint64_t size;
    int embed_bits, round;
    size_t calibrate_tokens;
    bool no_kv_transform;
    uint64_t seed;
    bool force, no_check, dry_run;
} compress_arguments;

static bool calibrates(const compress_arguments *a) {
    return a->calibrate != NULL && strcmp(a->calibrate, "none") != 0 && a->round != ROUND_NEAREST;
}

static bool can_feed_back(const compress_arguments *a, qins_codec codec, qins_storage storage) {
    bool by_row = a->scale.kind == QINS_SCALE_ROW || a->scale.kind == QINS_SCALE_AUTO;
    return storage == QINS_STORAGE_PACKED && by_row &&
           (codec == QINS_CODEC_GAUSS || codec == QINS_CODEC_UNIFORM || codec == QINS_CODEC_TRELLIS);
}

static int refuse_contradictions(const compress_arguments *a, qins_codec codec, qins_storage storage) {
    if (a->round == ROUND_FEEDBACK && !can_feed_back(a, codec, storage))
        return usage_error(
            "option '--round feedback' goes with packed gauss or uniform codes and one scale a row only");
    if (a->round == ROUND_FEEDBACK && !calibrates(a))
        return usage_error("option '--round feedback' needs text: --calibrate FILE");
    if ((a->bpw > 0) + (a->bits != BITS_NOT_GIVEN) + (a->size > 0) + (a->max_kl > 0) + (a->file_bpw > 0) > 1)
        return usage_error(
            "options '--bits', '--bpw', '--size', '--max-kl' and '--file-bpw' all set the width: give one of them");
    if ((a->size > 0 || a->max_kl > 0) && !(calibrates(a) && can_feed_back(a, codec, storage)))
        return usage_error(
            "options '--size' and '--max-kl' choose widths by calibration: they need --calibrate self or "
            "FILE, and packed gauss or uniform codes with one scale a row");
    if (a->file_bpw > 0 && codec != QINS_CODEC_UNIFORM && a->codec != 0)
        return usage_error("option '--file-bpw' makes codes of its own: leave '--codec' out");
    if (a->file_bpw > 0 && (storage != QINS_STORAGE_PACKED || a->scale.kind > QINS_SCALE_ROW))
        return usage_error("option '--file-bpw' goes with packed storage and one scale a row");
    if (storage == QINS_STORAGE_SEED && codec != QINS_CODEC_LOG)
        return usage_error("option '--storage seed' goes with '--codec log' only");
    if (storage == QINS_STORAGE_F32 && codec != QINS_CODEC_RATIONAL)
        return usage_error("option '--storage f32' goes with '--codec rational' only");
    if (storage != QINS_STORAGE_PACKED && a->bpw > 0)
        return usage_error("option '--bpw' goes with '--storage packed' only: the other storages have one width");
    if (storage == QINS_STORAGE_SEED && a->bits != BITS_NOT_GIVEN && a->bits != SEED_BITS)
        return usage_error("option '--storage seed' has 8-bit magnitudes: leave '--bits' out");
    if (a->bits == LOG_ONLY_BITS && codec != QINS_CODEC_LOG)
        return usage_error("option '--bits 9' goes with '--codec log' only; the others take 3 to 8");
    if (a->bits == TRELLIS_ONLY_BITS && codec != QINS_CODEC_TRELLIS)
        return usage_error("option '--bits 2' goes with '--codec trellis' only; the others take 3 to 8");
    bool has_zero = codec == QINS_CODEC_LOG || codec == QINS_CODEC_RATIONAL;
    bool uniform = codec == QINS_CODEC_UNIFORM || a->file_bpw > 0;
    bool rotates = a->rotate == ROTATE_ON || (a->rotate == ROTATE_AUTO && storage == QINS_STORAGE_PACKED);
    if (a->sparsity.share > 0 && !uniform && (!has_zero || rotates))
        return usage_error("option '--sparsity' goes with '--codec uniform' or '--file-bpw', and with '--codec log' or "
                           "'rational' and '--rotate off': a rotation would fill their zeros");
    if (a->sparsity.share > 0 && calibrates(a) && (a->bpw > 0 || a->size > 0 || a->max_kl > 0))
        return usage_error("option '--sparsity' goes with '--bits' or '--file-bpw': what pruning costs is not foreseen "
                           "when widths are chosen");
    if (a->prune != PRUNE_AUTO && a->sparsity.share <= 0)
        return usage_error("option '--prune' says how '--sparsity S' chooses: give both");
    if (a->prune == PRUNE_LOSS && !(calibrates(a) && uniform && can_feed_back(a, QINS_CODEC_UNIFORM, storage)))
        return usage_error(
            "option '--prune loss' needs text, --calibrate FILE, and packed uniform codes with one scale "
            "a row ('--codec uniform' or '--file-bpw')");
    if (a->alpha >= 0 && codec != QINS_CODEC_RATIONAL)
        return usage_error("option '--alpha' goes with '--codec rational' only");
    return EXIT_DONE;
}

static void fill_options(const compress_arguments *a, qins_compress_options *o, progress_bar *bar) {
    qins_compress_defaults(o);
    o->linear.codec = codec_values[a->codec];
    o->linear.storage = storage_values[a->storage];
    if (o->linear.storage == QINS_STORAGE_SEED) o->linear.bits = SEED_BITS;
    if (a->bits != BITS_NOT_GIVEN) o->linear.bits = a->bits;
    o->linear.rotate = switch_values[a->rotate];
    o->linear.rotation_seed = a->seed;
    o->linear.scale = a->scale.kind;
    o->linear.group_size = a->scale.group_size;
    o->linear.alpha = a->alpha > 0 ? a->alpha : 0;
    o->linear.sparsity = a->sparsity.share;
    o->linear.sparse_group = a->sparsity.group;
    o->linear.prune_by_magnitude = a->prune == PRUNE_MAGNITUDE;
    o->bpw = a->bpw;
    o->file_bpw = a->file_bpw;
    o->pack = a->packing == 1 || a->codec == LOSSLESS ? QINS_PACK_ENTROPY : QINS_PACK_NONE;
    o->max_bytes = a->size;
    o->max_kl = a->max_kl;
    o->targets = a->targets;
    o->embed_bits = a->embed_bits;
    o->calibrate = calibrates(a) ? a->calibrate : NULL;
    o->calibrate_tokens = a->calibrate_tokens;
    o->no_kv_transform = a->no_kv_transform;
    o->force = a->force;
    o->no_check = a->no_check;
    o->progress = progress_update;
    o->progress_user = bar;
}

static int print_result(const compress_arguments *a, const char *out_path, const qins_compress_result *r) {
    double ratio = r->stored_bytes > 0 ? (double)r->source_bytes / (double)r->stored_bytes : 0;
    if (a->common.json)
        return print_json(json_pack("{s:o, s:o, s:I, s:I, s:o, s:I, s:I, s:o, s:o, s:o, s:I, s:I, s:o, s:o}", "out",
                                    json_text(out_path, strlen(out_path)), "bpw", json_number(r->bpw), "source_bytes",
                                    (json_int_t)r->source_bytes, "stored_bytes", (json_int_t)r->stored_bytes, "ratio",
                                    json_number(ratio), "tensors", (json_int_t)r->n_tensors, "encoded",
                                    (json_int_t)r->n_encoded, "rel_mse", json_number(r->rel_mse), "codes_used",
                                    json_number(r->codes_used), "code_entropy", json_number(r->code_entropy),
                                    "fed_back", (json_int_t)r->n_fed_back, "fallbacks", (json_int_t)r->n_fallbacks,
                                    "predicted_kl", r->predicted_kl >= 0 ? json_number(r->predicted_kl) : json_null(),
                                    "measured_kl", r->measured_kl >= 0 ? json_number(r->measured_kl) : json_null()));
    printf("wrote %s\n", out_path);
    printf("  weights     %s -> %s, %.2fx\n", format_size(r->source_bytes).text, format_size(r->stored_bytes).text,
           ratio);
    printf("  encoded     %s of %s tensors at %.3f bits a weight, scales and tables included\n",
           format_count(r->n_encoded).text, format_count(r->n_tensors).text, r->bpw);
    if (a->file_bpw > 0)
        printf("  in memory   %.3f bits a weight; 'qins audit' lists what each tensor takes in the file\n", r->bpw);
    printf("  error       %.3g of the squared weights\n", r->rel_mse);
    if (r->codes_used > 0)
        printf("  codes       %.1f used in a linear on average, entropy %.2f bits\n", r->codes_used, r->code_entropy);
    if (r->predicted_kl >= 0) printf("  predicted   KL %.3g nats a token\n", r->predicted_kl);
    if (r->measured_kl >= 0) printf("  measured    KL %.3g, on text that was not rounded on\n", r->measured_kl);
    if (r->n_fed_back > 0)
        printf("  calibrated  %s matrices rounded with error feedback\n", format_count(r->n_fed_back).text);
    if (r->n_fallbacks > 0)
        printf("              %s of experts that too few calibration tokens reached: rounded to the nearest\n",
               format_count(r->n_fallbacks).text);
    bool packs = storage_values[a->storage] == QINS_STORAGE_PACKED;
    if (packs && r->stored_bytes > r->source_bytes)
        printf("  larger than the source, which is compressed already: tensors that are not encoded\n"
               "  become FP32 (see --targets, --embed-bits), and fewer --bits take less\n");
    return EXIT_DONE;
}

static int compress(const compress_arguments *a, const char *model_path, const char *out_path) {
    qins_compress_options options;
    qins_compress_result result = {0};
    qins_error err = {0};
    progress_bar bar;
    progress_start(&bar);
    fill_options(a, &options, &bar);
    catch_interrupts();
    qins_status status = qins_compress(model_path, out_path, &options, &result, &err);
    progress_end(&bar);
    if (status == QINS_ERR_CANCELLED)
        return report_failure_text(&a->common, status, "interrupted: nothing was written to %s%s", out_path,
                                   calibrates(a) ? "; the same command goes on from the last finished layer" : "");
    if (status != QINS_OK) return report_failure(&a->common, &err);
    return print_result(a, out_path, &result);
}

/* --dry-run: the same decisions, no weights. */
static int preview(const compress_arguments *a, const char *model_path) {
    qins_compress_options options;
    qins_error err = {0};
    qins_audit *audit = NULL;
    fill_options(a, &options, NULL);
    if (qins_compress_preview(model_path, &options, &audit, &err) != QINS_OK) return report_failure(&a->common, &err);
    const qins_audit_totals *t = qins_audit_get_totals(audit);
    int exit_status = EXIT_DONE;
    if (a->common.json) {
        json_t *object = audit_object(audit, false);
        json_object_set_new(object, "dry_run", json_true());
        json_object_set_new(object, "source_bytes", json_integer((json_int_t)t->source_bytes));
        json_object_set_new(object, "stored_bytes", json_integer((json_int_t)t->stored_bytes));
        exit_status = print_json(object);
    } else {
        print_audit_tables(audit, false);
        print_audit_weights(audit);
        printf("weight file   %s B: tensors %s + header %s; nothing was written\n",
               format_count(t->weight_file_bytes).text, format_count(t->stored_bytes).text,
               format_count(t->header_bytes).text);
    }
    qins_audit_close(audit);
    return exit_status;
}

int command_compress(int argc, char **argv) {
    compress_arguments a = {.targets = "all",
                            .embed_bits = QINS_EMBED_AUTO,
                            .alpha = -1,
                            .calibrate_tokens = 32768,
                            .scale = {.kind = QINS_SCALE_AUTO}};
    qins_encode_options defaults;
    qins_encode_defaults(&defaults);
    a.seed = defaults.rotation_seed;
    const option options[] = {
        {.name = "codec",
         .kind = OPTION_CHOICE,
         .value = &a.codec,
         .value_name = "C",
         .choices = codec_names,
         .help = "gauss, log, rational, uniform, trellis (least error for the bits; slower without AVX-512), none, or "
                 "lossless: every tensor keeps its bytes, entropy-coded "
                 "(default gauss)"},
        {.name = "bits",
         .kind = OPTION_INT,
         .value = &a.bits,
         .value_name = "B",
         .min = 2,
         .max = LOG_ONLY_BITS,
         .help = "bits of a code, 3 to 8; log also 9, trellis 2 (default 4)"},
        {.name = "bpw",
         .kind = OPTION_REAL,
         .value = &a.bpw,
         .value_name = "X",
         .min = 2,
         .max = 32,
         .help =
             "instead of --bits: at most X bits a weight, scales included, over the linears, and embedding and head "
             "unless --embed-bits is given; with --calibrate the widths that lose least, else one for all linears"},
        {.name = "file-bpw",
         .kind = OPTION_REAL,
         .value = &a.file_bpw,
         .value_name = "X",
         .min = 1.1,
         .max = 7,
         .help = "instead of --bits: codes of equal steps, entropy-coded, whose linears take X bits a weight in the "
                 "file; in "
                 "memory they take one or two bits more"},
        {.name = "storage",
         .kind = OPTION_CHOICE,
         .value = &a.storage,
         .value_name = "S",
         .choices = storage_names,
         .help = "packed; seed: log in two bytes a weight; f32: rational coordinates, saves nothing (default packed)"},
        {.name = "pack",
         .kind = OPTION_CHOICE,
         .value = &a.packing,
         .value_name = "none|entropy",
         .choices = packing_names,
         .help = "entropy: a smaller file that is decoded into memory when it is opened (default none: mapped)"},
        {.name = "rotate",
         .kind = OPTION_CHOICE,
         .value = &a.rotate,
         .value_name = "on|off",
         .choices = switch_names,
         .help = "spread outliers over the row by a random Hadamard rotation (default auto: on for packed storage)"},
        {.name = "seed",
         .kind = OPTION_U64,
         .value = &a.seed,
         .value_name = "S",
         .help = "of the rotation's random signs (default: fixed)"},
        {.name = "scale",
         .kind = OPTION_PARSED,
         .value = &a.scale,
         .value_name = "G",
         .choices = scale_names,
         .parse = parse_scale,
         .expects = "auto, row, tensor or group:G with G a multiple of 4",
         .help = "one scale a row, a tensor, or group:G for G weights (default auto: row for packed storage, tensor "
                 "for the "
                 "others)"},
        {.name = "alpha",
         .kind = OPTION_PARSED,
         .value = &a.alpha,
         .value_name = "A|fit",
         .choices = alpha_names,
         .parse = parse_alpha,
         .expects = "a number above 0, or fit",
         .help = "of the rational codec; fit: the one of least squared error (default fit)"},
        {.name = "sparsity",
         .kind = OPTION_PARSED,
         .value = &a.sparsity,
         .value_name = "S",
         .choices = sparsity_names,
         .parse = parse_sparsity,
         .expects = "a share between 0 and 1, or 2:4",
         .help = "uniform codes (of the rotated matrix), log and rational codes without rotation: this share of every "
                 "row becomes 0, or two of every four; saves bytes with --pack entropy or --file-bpw only (default "
                 "none)"},
        {.name = "prune",
         .kind = OPTION_CHOICE,
         .value = &a.prune,
         .value_name = "R",
         .choices = prune_names,
         .help = "which weights --sparsity takes: magnitude, the smallest; loss, those that cost least on the "
                 "calibration text, later ones making up for them (default: loss for uniform codes with --calibrate)"},
        {.name = "targets",
         .kind = OPTION_TEXT,
         .value = &a.targets,
         .value_name = "T",
         .help = "which linears: all, safe (v, o, gate, up, down) or a regular expression on tensor names and names of "
                 "projections, such as v_proj: its rows of a fused matrix (default all)"},
        {.name = "embed-bits",
         .kind = OPTION_PARSED,
         .value = &a.embed_bits,
         .value_name = "B|auto|keep",
         .choices = embed_names,
         .parse = parse_embed_bits,
         .expects = "3 to 8, auto or keep",
         .help = "embedding and head: bits, keep them as they are, or auto: 8, or what --bpw, --size or --max-kl "
                 "choose (default auto)"},
        {.name = "calibrate",
         .kind = OPTION_TEXT,
         .value = &a.calibrate,
         .value_name = "FILE|self|none",
         .help =
             "text to measure the inputs of every matrix on, for --round feedback: a file, or what the model writes "
             "itself (default none)"},
        {.name = "calibrate-tokens",
         .kind = OPTION_SIZE,
         .value = &a.calibrate_tokens,
         .value_name = "N",
         .min = 2,
         .help = "tokens of it, spread evenly (default 32768)"},
        {.name = "no-kv-transform",
         .kind = OPTION_FLAG,
         .value = &a.no_kv_transform,
         .help = "do not store what calibration learns for coded KV caches (docs/kv-cache.md)"},
        {.name = "round",
         .kind = OPTION_CHOICE,
         .value = &a.round,
         .value_name = "R",
         .choices = round_names,
         .help = "feedback: every code makes up for the errors of those before it, on the calibration text; nearest "
                 "(default: feedback with --calibrate)"},
        {.name = "size",
         .kind = OPTION_PARSED,
         .value = &a.size,
         .value_name = "S",
         .parse = parse_size,
         .expects = "a number of bytes such as 1.2GB, 900MB or 800MiB",
         .help = "instead of --bits: the widths that lose least with a file of weights of at most S bytes"},
        {.name = "max-kl",
         .kind = OPTION_REAL,
         .value = &a.max_kl,
         .value_name = "K",
         .min = 1e-6,
         .max = 100,
         .help =
             "instead of --bits: the smallest file whose predictions are at most K nats a token (KL divergence) from "
             "the source's, as measured on part of the calibration text"},
        {.name = "force", .kind = OPTION_FLAG, .value = &a.force, .help = "replace OUT when it exists"},
        {.name = "no-check", .kind = OPTION_FLAG, .value = &a.no_check, .help = "skip the checksums of the source"},
        {.name = "dry-run",
         .kind = OPTION_FLAG,
         .value = &a.dry_run,
         .help = "list what would be written and its size, without reading weights; OUT can be left out"},
        COMMON_OPTIONS(a.common)};
    static const char *const names[] = {"MODEL", "[OUT]", NULL};
    const command_syntax syntax = {
        "compress", names,
        "Writes a compressed copy of MODEL to the directory OUT. OUT appears whole or not at "
        "all: interrupt it at any time. The default, 4-bit gauss codes of rotated rows with "
        "one scale a row, needs no data and takes about 4.04 bits a weight.",
        options,
        "The original QINS codecs:\n"
        "  qins compress MODEL OUT --codec log --storage seed --embed-bits keep \\\n"
        "                          --rotate off --scale tensor\n"
        "  qins compress MODEL OUT --codec rational --bits 8 --rotate off --scale tensor"};
    const char *paths[2];
    parse_outcome outcome = options_parse(&syntax, &a.common, argc, argv, paths);
    if (outcome != PARSE_GO) return options_exit_status(outcome);
    int refused = refuse_contradictions(&a, codec_values[a.codec], storage_values[a.storage]);
    if (refused != EXIT_DONE) return refused;
    qins_set_threads(a.common.threads);
    if (a.dry_run) return preview(&a, paths[0]);
    if (paths[1] == NULL) return usage_error("'qins compress' needs OUT, or --dry-run (see 'qins compress --help')");
    return compress(&a, paths[0], paths[1]);
}
