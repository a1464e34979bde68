/* Hugging Face and qins directories: JSON files and one or more safetensors files. SPDX-License-Identifier: MIT */
#include "format/safetensors.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>

static const char index_name[] = "model.safetensors.index.json";

/* Reads dir/name when it exists; *object stays NULL otherwise. */
static qins_status read_optional_json(const char *dir, const char *name, json_t **object, qins_error *err) {
    char *path = qins_format("%s/%s", dir, name);
    if (path == NULL) return qins_fail_memory(err, strlen(dir) + strlen(name), "a path");
    qins_status status = qins_path_exists(path) ? qins_read_json(path, object, err) : QINS_OK;
    free(path);
    return status;
}

/* Newer tokenizers keep the chat template in a file of its own. */
static qins_status read_chat_template(const char *dir, json_t **tokenizer_config, qins_error *err) {
    char *path = qins_format("%s/chat_template.jinja", dir);
    if (path == NULL) return qins_fail_memory(err, strlen(dir), "a path");
    qins_status status = QINS_OK;
    if (qins_path_exists(path) && json_object_get(*tokenizer_config, "chat_template") == NULL) {
        char *text = NULL;
        size_t n = 0;
        status = qins_read_file(path, QINS_MAX_TEXT_FILE, &text, &n, err);
        if (status == QINS_OK) {
            json_t *value = json_stringn(text, n);
            if (*tokenizer_config == NULL) *tokenizer_config = json_object();
            if (value == NULL)
                status = qins_fail(err, QINS_ERR_FORMAT, "%s: is not valid UTF-8", path);
            else if (json_object_set_new(*tokenizer_config, "chat_template", value) != 0)
                status = qins_fail_memory(err, n, "a chat template");
        }
        free(text);
    }
    free(path);
    return status;
}

static bool has_suffix(const char *s, const char *suffix) {
    size_t n = strlen(s), m = strlen(suffix);
    return n >= m && strcmp(s + n - m, suffix) == 0;
}

/* What to do about a directory that lacks what we read, by the files that are there instead. */
static const struct {
    const char *suffix, *advice;
} advices[] = {
    {"adapter_model.safetensors",
     "it holds an adapter (LoRA), not a model; merge it into its base model first (PEFT merge_and_unload)"},
    {".gguf", "it holds GGUF files; give the path of the .gguf file itself"},
    {".bin", "it holds PyTorch .bin weights; convert them to safetensors first "
             "(AutoModelForCausalLM.from_pretrained(...).save_pretrained(...))"},
    {".pth", "it holds PyTorch .pth weights; convert them to a Hugging Face directory with safetensors first"},
    {".safetensors", "it holds safetensors under other names; a single file must be called model.safetensors"},
};

static qins_status fail_without(const char *dir, const char *missing, qins_error *err) {
    size_t best = sizeof advices / sizeof advices[0];
    DIR *d = opendir(dir);
    if (d != NULL) {
        for (struct dirent *entry = readdir(d); entry != NULL; entry = readdir(d)) {
            for (size_t i = 0; i < best; i++) {
                if (has_suffix(entry->d_name, advices[i].suffix)) best = i;
            }
        }
        closedir(d);
    }
    const char *advice =
        best < sizeof advices / sizeof advices[0] ? advices[best].advice : "is this the directory of a model?";
    return qins_fail(err, QINS_ERR_UNSUPPORTED, "%s: has no %s; %s", dir, missing, advice);
}

static qins_status add_file(qins_checkpoint *checkpoint, const char *dir, const char *name, qins_tensor_list *tensors,
                            qins_error *err) {
    char *path = qins_format("%s/%s", dir, name);
    if (path == NULL) return qins_fail_memory(err, strlen(dir) + strlen(name), "a path");
    const qins_map *map = NULL;
    qins_status status = qins_checkpoint_map(checkpoint, path, &map, err);
    if (status == QINS_OK) {
        json_t *metadata = NULL;
        status = qins_safetensors_parse(map->data, map->size, path, tensors, &metadata, err);
        if (checkpoint->metadata == NULL)
            checkpoint->metadata = metadata;
        else
            json_decref(metadata);
    }
    free(path);
    return status;
}

/* The set of shards of a weight_map, as an object {file name: null}. */
static qins_status list_shards(const json_t *weight_map, const char *dir, json_t **shards, qins_error *err) {
    if (!json_is_object(weight_map) || json_object_size(weight_map) == 0)
        return qins_fail(err, QINS_ERR_FORMAT, "%s/%s: \"weight_map\" is missing, empty or not an object", dir,
                         index_name);
    *shards = json_object();
    const char *tensor;
    const json_t *value;
    json_object_foreach((json_t *)(uintptr_t)weight_map, tensor, value) {
        const char *file = json_string_value(value);
        if (file == NULL || file[0] == '\0' || file[0] == '.' || strchr(file, '/') != NULL)
            return qins_fail(err, QINS_ERR_FORMAT,
                             "%s/%s: tensor %.256s: expected the name of a file in the same directory", dir, index_name,
                             tensor);
        if (json_object_set_new(*shards, file, json_null()) != 0)
            return qins_fail_memory(err, strlen(file), "a list of shards");
    }
    return QINS_OK;
}

/* Every tensor that the index places in this shard must be there. */
static qins_status check_shard(const json_t *weight_map, const char *dir, const char *shard,
                               const qins_tensor_list *tensors, size_t first, qins_error *err) {
    json_t *present = json_object();
    for (size_t i = first; i < tensors->n; i++)
        json_object_set_new_nocheck(present, tensors->items[i].name, json_true());
    qins_status status = QINS_OK;
    const char *name;
    const json_t *value;
    json_object_foreach((json_t *)(uintptr_t)weight_map, name, value) {
        if (strcmp(json_string_value(value), shard) != 0 || json_object_get(present, name) != NULL) continue;
        status = qins_fail(err, QINS_ERR_FORMAT,
                           "%s/%s: tensor %.256s is not in this file, where %s places it; fetch the shards again", dir,
                           shard, name, index_name);
        break;
    }
    json_decref(present);
    return status;
}

static qins_status add_shards(qins_checkpoint *checkpoint, const char *dir, const json_t *index,
                              qins_tensor_list *tensors, qins_error *err) {
    const json_t *weight_map = json_object_get(index, "weight_map");
    json_t *shards = NULL;
    qins_status status = list_shards(weight_map, dir, &shards, err);
    const char *shard;
    json_t *unused;
    if (status == QINS_OK) {
        json_object_foreach(shards, shard, unused) {
            size_t first = tensors->n;
            status = add_file(checkpoint, dir, shard, tensors, err);
            if (status == QINS_OK) status = check_shard(weight_map, dir, shard, tensors, first, err);
            if (status != QINS_OK) break;
        }
    }
    json_decref(shards);
    return status;
}

static qins_status read_weights(qins_checkpoint *checkpoint, const char *dir, qins_error *err) {
    json_t *index = NULL;
    qins_tensor_list tensors = {0};
    qins_status status = QINS_OK;
    char *single = qins_format("%s/model.safetensors", dir);
    if (single == NULL) return qins_fail_memory(err, strlen(dir), "a path");
    if (qins_path_exists(single)) {
        status = add_file(checkpoint, dir, "model.safetensors", &tensors, err);
    } else {
        status = read_optional_json(dir, index_name, &index, err);
        if (status == QINS_OK && index == NULL) status = fail_without(dir, "model.safetensors", err);
        if (status == QINS_OK) status = add_shards(checkpoint, dir, index, &tensors, err);
    }
    if (status == QINS_OK) status = qins_checkpoint_set_tensors(checkpoint, &tensors, err);
    qins_tensor_list_free(&tensors);
    json_decref(index);
    free(single);
    return status;
}

qins_status qins_model_dir_open(const char *path, qins_checkpoint *checkpoint, qins_error *err) {
    checkpoint->source = QINS_SOURCE_SAFETENSORS;
    qins_status status = read_optional_json(path, "config.json", &checkpoint->config, err);
    if (status == QINS_OK && checkpoint->config == NULL) status = fail_without(path, "config.json", err);
    if (status == QINS_OK)
        status = read_optional_json(path, "generation_config.json", &checkpoint->generation_config, err);
    if (status == QINS_OK)
        status = read_optional_json(path, "tokenizer_config.json", &checkpoint->tokenizer_config, err);
    if (status == QINS_OK) status = read_chat_template(path, &checkpoint->tokenizer_config, err);
    if (status == QINS_OK) status = read_weights(checkpoint, path, err);
    return status;
}
