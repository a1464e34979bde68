/* What compress would write, from shapes and options alone. SPDX-License-Identifier: MIT */
#include "measure/audit.h"
#include "model/compress_plan.h"

#include <stdlib.h>
#include <string.h>

static void preview_plain(const qins_plan_item *item, qins_audit_tensor *t) {
    const qins_type_info *type = &qins_types[item->type];
    t->dtype = type->name;
    t->codec = "none";
    t->storage = "plain";
    t->bits = 8.0 * (double)type->block_bytes / (double)type->block_values;
    t->bytes = t->code_bytes = t->resident_bytes = qins_plan_plain_bytes(item);
}

static void preview_encoded(const qins_plan_item *item, qins_audit_tensor *t) {
    const qins_encode_options *o = &item->options;
    t->dtype = item->parts[QINS_PART_CODES].dtype;
    t->codec = qins_codec_name(o->codec);
    t->storage = qins_storage_name(o->storage);
    t->bits = o->storage == QINS_STORAGE_SEED ? 16 : o->storage == QINS_STORAGE_F32 ? 32 : o->bits;
    t->shape[0] = qins_plan_encoded_rows(item);
    t->n_params = t->shape[0] * t->shape[1];
    t->bytes = t->resident_bytes = qins_plan_encoded_bytes(item);
    t->code_bytes = item->parts[QINS_PART_CODES].n_bytes + item->parts[QINS_PART_SIGNS].n_bytes;
    t->side_bytes = t->bytes - t->code_bytes;
}

/* The plain rows of a matrix whose other rows are encoded. */
static qins_status preview_rest(qins_audit *a, const qins_plan_item *item, qins_audit_tensor *encoded,
                                qins_error *err) {
    const qins_parameter *p = item->parameter;
    char *name = qins_format("%s.rest", p->name);
    if (name == NULL) return qins_fail_memory(err, strlen(p->name), "a tensor name");
    a->names[a->n_names++] = name;
    qins_audit_tensor *t = &a->tensors[a->n_tensors++];
    *t = (qins_audit_tensor){.name = name, .role = encoded->role, .n_dims = 2};
    t->shape[0] = item->split.n_plain;
    t->shape[1] = p->shape[1];
    t->n_params = t->shape[0] * t->shape[1];
    t->source_bytes = encoded->source_bytes / p->shape[0] * t->shape[0];
    encoded->source_bytes -= t->source_bytes;
    preview_plain(item, t);
    return QINS_OK;
}

static qins_status preview_item(qins_audit *a, const qins_plan_item *item, qins_error *err) {
    const qins_parameter *p = item->parameter;
    qins_audit_tensor *t = &a->tensors[a->n_tensors++];
    *t = (qins_audit_tensor){.name = p->name,
                             .role = qins_role_name(p->role),
                             .n_dims = p->n_dims,
                             .n_params = p->n_values,
                             .source_bytes = qins_plan_source_bytes(p)};
    memcpy(t->shape, p->shape, sizeof t->shape);
    if (item->encode)
        preview_encoded(item, t);
    else
        preview_plain(item, t);
    return item->encode && item->split.n_pieces > 0 ? preview_rest(a, item, t, err) : QINS_OK;
}

static qins_status add_up(qins_audit *a, const qins_plan *plan, const qins_compress_layout *layout, qins_error *err) {
    qins_audit_totals *s = &a->totals;
    for (size_t i = 0; i < a->n_tensors; i++) {
        const qins_audit_tensor *t = &a->tensors[i];
        s->params += t->n_params;
        s->source_bytes += t->source_bytes;
        s->stored_bytes += t->bytes;
        s->resident_bytes += t->bytes + (t->n_dims < 2 ? t->n_params * sizeof(float) : 0);
    }
    s->source_bytes += qins_plan_shared_source_bytes(plan);
    if (layout->tensor_bytes < s->stored_bytes)
        return qins_fail(err, QINS_ERR_FORMAT, "the sizes do not add up: %llu bytes of tensors, %llu in the file",
                         (unsigned long long)s->stored_bytes, (unsigned long long)layout->tensor_bytes);
    s->shared_bytes = layout->tensor_bytes - s->stored_bytes;
    s->stored_bytes += s->shared_bytes;
    s->resident_bytes += s->shared_bytes;
    s->header_bytes = layout->header_bytes;
    s->weight_file_bytes = s->stored_bytes + s->header_bytes;
    qins_audit_finish_totals(s);
    return QINS_OK;
}

qins_status qins_compress_preview(const char *path, const qins_compress_options *options, qins_audit **out,
                                  qins_error *err) {
    *out = NULL;
    qins_audit *a = qins_alloc(1, sizeof *a);
    if (a == NULL) return qins_fail_memory(err, sizeof *a, "a preview");
    qins_plan plan = {0};
    qins_compress_layout layout = {0};
    qins_status status = qins_compress_check_options(options, err);
    if (status == QINS_OK && options->pack == QINS_PACK_ENTROPY)
        status = qins_fail(err, QINS_ERR_ARGUMENT,
                           "a preview cannot know what entropy coding will save: leave it out (pack none)");
    if (status == QINS_OK) status = qins_weights_open(path, true, &a->weights, err); /* checksums would read it all */
    if (status == QINS_OK) status = qins_plan_make(options, a->weights, &plan, err);
    if (status == QINS_OK) status = qins_compress_lay_out(options, a->weights, &plan, &layout, err);
    if (status == QINS_OK) {
        a->tensors = qins_alloc(2 * plan.n_items + 1, sizeof *a->tensors);
        a->names = qins_alloc(plan.n_items, sizeof *a->names);
        if (a->tensors == NULL || a->names == NULL)
            status = qins_fail_memory(err, 2 * plan.n_items * sizeof *a->tensors, "a preview");
    }
    for (size_t i = 0; i < plan.n_items && status == QINS_OK; i++)
        status = preview_item(a, &plan.items[i], err);
    if (status == QINS_OK && layout.kv_transform_bytes > 0)
        qins_audit_kv_transform(&a->weights->hparams, layout.kv_transform_bytes, &a->tensors[a->n_tensors++]);
    if (status == QINS_OK) status = add_up(a, &plan, &layout, err);
    qins_plan_free(&plan);
    if (status == QINS_OK)
        *out = a;
    else
        qins_audit_close(a);
    return status;
}
