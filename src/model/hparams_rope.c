/* The rope part of a config.json. SPDX-License-Identifier: MIT
 *
 * Newer configs keep everything in rope_parameters (by layer type where layers differ), older ones in rope_theta,
 * rope_scaling and keys of the family.
 */
#include "model/config_reader.h"
#include "model/families.h"

#include <string.h>

#define MAX_THETA  1e12
#define MAX_FACTOR 1e6

static bool read_type(qins_config_reader *r, const qins_family *family, qins_rope_type *type) {
    static const struct {
        const char *name;
        qins_rope_type type;
    } known[] = {{"default", QINS_ROPE_DEFAULT}, {"linear", QINS_ROPE_LINEAR}, {"dynamic", QINS_ROPE_DYNAMIC},
                 {"llama3", QINS_ROPE_LLAMA3},   {"yarn", QINS_ROPE_YARN},     {"longrope", QINS_ROPE_LONGROPE}};
    const char *name = qins_config_string(r, "rope_type", qins_config_string(r, "type", "default"));
    if (family->yarn_is_longrope && (strcmp(name, "su") == 0 || strcmp(name, "yarn") == 0)) name = "longrope";
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (strcmp(name, known[i].name) == 0) {
            *type = known[i].type;
            return true;
        }
    qins_config_unsupported(r, "rope scaling \"%s\" of model_type \"%s\"", name, family->model_type);
    return false;
}

static const json_t *read_factors(qins_config_reader *r, const char *key, size_t n) {
    const json_t *list = qins_config_list(r, key, n);
    if (list == NULL) qins_config_fail(r, key, "a list", NULL);
    for (size_t i = 0; i < json_array_size(list); i++) {
        double x = json_number_value(json_array_get(list, i));
        if (!(x > 0 && x < MAX_FACTOR)) qins_config_fail(r, key, "positive numbers", json_array_get(list, i));
    }
    return list;
}

/* Keys of one rope_parameters or rope_scaling object. */
static void read_object(qins_config_reader *r, const qins_family *family, size_t head_dim, double fraction,
                        qins_rope_params *rope) {
    if (!read_type(r, family, &rope->type)) return;
    rope->theta = qins_config_number(r, "rope_theta", rope->theta, 1.0, MAX_THETA);
    rope->rotary_dims = (size_t)((double)head_dim * qins_config_number(r, "partial_rotary_factor", fraction, 0.0, 1.0));
    rope->factor = qins_config_number(r, "factor", 0.0, 1e-6, MAX_FACTOR);
    rope->attention_factor = qins_config_number(r, "attention_factor", 0.0, 0.0, MAX_FACTOR);
    rope->low_freq_factor = qins_config_number(r, "low_freq_factor", 0.0, 1e-6, MAX_FACTOR);
    rope->high_freq_factor = qins_config_number(r, "high_freq_factor", 0.0, 1e-6, MAX_FACTOR);
    rope->beta_fast = qins_config_number(r, "beta_fast", 32.0, 1e-6, MAX_FACTOR);
    rope->beta_slow = qins_config_number(r, "beta_slow", 1.0, 1e-6, MAX_FACTOR);
    rope->mscale = qins_config_number(r, "mscale", 0.0, 0.0, MAX_FACTOR);
    rope->mscale_all_dim = qins_config_number(r, "mscale_all_dim", 0.0, 0.0, MAX_FACTOR);
    rope->truncate = qins_config_bool(r, "truncate", true);
    if (rope->original_max_position == 0)
        rope->original_max_position =
            qins_config_size(r, "original_max_position_embeddings", rope->max_position, 1 << 28);
    if (rope->type == QINS_ROPE_LONGROPE) {
        rope->short_factor = read_factors(r, "short_factor", rope->rotary_dims / 2);
        rope->long_factor = read_factors(r, "long_factor", rope->rotary_dims / 2);
    }
}

/* Keys that a type cannot do without. */
static void check(qins_config_reader *r, const qins_family *family, size_t head_dim, const qins_rope_params *rope) {
    bool needs_factor =
        rope->type == QINS_ROPE_LINEAR || rope->type == QINS_ROPE_DYNAMIC || rope->type == QINS_ROPE_LLAMA3;
    if (needs_factor && rope->factor == 0.0) qins_config_fail(r, "rope_scaling", "a \"factor\"", NULL);
    if (rope->type == QINS_ROPE_LLAMA3 &&
        !(rope->low_freq_factor > 0 && rope->high_freq_factor > rope->low_freq_factor))
        qins_config_fail(r, "rope_scaling", "\"high_freq_factor\" above \"low_freq_factor\"", NULL);
    if (rope->type == QINS_ROPE_DYNAMIC && rope->rotary_dims <= 2)
        qins_config_unsupported(r, "dynamic rope of %zu values", rope->rotary_dims);
    if (rope->type != QINS_ROPE_DEFAULT && rope->theta <= 1.0) qins_config_fail(r, "rope_theta", "more than 1", NULL);
    if (rope->original_max_position < 2 && (rope->type == QINS_ROPE_YARN || rope->type == QINS_ROPE_LONGROPE))
        qins_config_fail(r, "original_max_position_embeddings", "more than 1", NULL);
    if (rope->rotary_dims % 2 != 0)
        qins_config_unsupported(r, "rope over an odd number of values (%zu)", rope->rotary_dims);
    if (family->rotary_fraction_key == NULL && rope->rotary_dims != head_dim)
        qins_config_unsupported(r, "partial rope in model_type \"%s\"", family->model_type);
}

qins_status qins_rope_params_read(const json_t *config, const char *path, const qins_family *family, bool sliding,
                                  size_t head_dim, size_t max_position, qins_rope_params *rope, qins_error *err) {
    qins_config_reader r = {config, path, err, QINS_OK};
    *rope = (qins_rope_params){.max_position = max_position};
    if (family->no_rope) return QINS_OK;
    bool local = family->dual_rope && sliding;
    rope->theta = family->default_rope_theta > 0 && !local ? family->default_rope_theta : 10000.0;
    const char *theta_key = family->rope_theta_key != NULL ? family->rope_theta_key : "rope_theta";
    rope->theta = qins_config_number(&r, local ? "rope_local_base_freq" : theta_key, rope->theta, 1.0, MAX_THETA);
    double whole = family->default_rotary_fraction > 0 ? family->default_rotary_fraction : 1.0;
    double fraction = qins_config_number(&r, family->rotary_fraction_key, whole, 0.0, 1.0);
    if (qins_config_get(&r, "original_max_position_embeddings") != NULL) /* phi3; comes before the one inside */
        rope->original_max_position = qins_config_size(&r, "original_max_position_embeddings", 0, 1 << 28);

    const json_t *parameters = qins_config_get(&r, "rope_parameters"), *scaling = qins_config_get(&r, "rope_scaling");
    const json_t *full = json_object_get(parameters, "full_attention"),
                 *windowed = json_object_get(parameters, "sliding_attention");
    const json_t *object = scaling != NULL ? scaling : parameters;
    if (family->dual_rope) {
        if (scaling != NULL && parameters != NULL)
            qins_config_unsupported(&r, "\"rope_parameters\" beside \"rope_scaling\"");
        object = local ? windowed : full != NULL ? full : scaling; /* older configs scale only full layers */
    } else if (full != NULL || windowed != NULL) {
        qins_config_unsupported(&r, "rope by layer type in model_type \"%s\"", family->model_type);
    }
    json_t *empty = json_object();
    qins_config_reader inner = {object != NULL ? object : empty, path, err, r.status};
    if (object != NULL && !json_is_object(object) && !json_is_null(object))
        qins_config_fail(&inner, "rope_parameters", "an object", object);
    else
        read_object(&inner, family, head_dim, fraction, rope);
    check(&inner, family, head_dim, rope);
    json_decref(empty);
    return inner.status;
}
