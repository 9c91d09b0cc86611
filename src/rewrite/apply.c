/* SPDX-License-Identifier: Apache-2.0
 *
 * rewrite_apply: everything new is made first, then the old goes and the new is attached.
 */
#include <math.h>
#include <string.h>

#include "rewrite/rewrite_internal.h"

#define LOOKUP_OPSET 7         /* Mul with broadcasting */
#define FUNCTIONS_IR 8         /* model-local functions */
#define FREE_INITIALIZERS_IR 4 /* initializers that are no inputs */

static int check_tensor(const Graph *graph, const Coded *coded, size_t number, uint64_t first,
                        Error *err)
{
    const CodedTensor *tensor = &coded->tensors[number];
    int64_t count;
    if (tensor->first != first || !shape_count(&tensor->shape, &count) || count < 1 ||
        (uint64_t)count != tensor->count || tensor->count > coded->n_symbols - first)
        return error_set(err, ONNXPRESS_INTERNAL, "tensor '%s': its symbols do not fit its shape",
                         tensor->name);
    if (!dtype_is_weight(tensor->dtype) || !isfinite(tensor->scale))
        return error_set(err, ONNXPRESS_INTERNAL, "tensor '%s': cannot be coded as %s times %g",
                         tensor->name, dtype_name(tensor->dtype), (double)tensor->scale);
    const Onnx__TensorProto *proto = hoist_find(graph, tensor->name);
    if (!proto || proto->data_type != tensor->dtype)
        return error_set(err, ONNXPRESS_INTERNAL, "tensor '%s': is no %s initializer of the model",
                         tensor->name, dtype_name(tensor->dtype));
    return ONNXPRESS_OK;
}

static int check_coded(const Model *model, const Graph *graph, const Coded *coded, RewriteForm form,
                       Error *err)
{
    if (form == FORM_LOOKUP && model->opset < LOOKUP_OPSET)
        return error_set(err, ONNXPRESS_UNSUPPORTED,
                         "%s: has opset %lld, and the form lookup needs %d;"
                         " convert the model first (onnx.version_converter) or write --form plain",
                         model->path, (long long)model->opset, LOOKUP_OPSET);
    if (model_metadata(model, REWRITE_KEY))
        return error_set(err, ONNXPRESS_USAGE, "%s: is compressed already; restore it first",
                         model->path);
    if (coded->n_tensors == 0 || coded->levels < 1 || coded->levels > UINT16_MAX + 1)
        return error_set(err, ONNXPRESS_INTERNAL, "%s: %zu coded tensors of %d levels", model->path,
                         coded->n_tensors, coded->levels);
    if (coded->index && form != FORM_LOOKUP)
        return error_set(err, ONNXPRESS_INTERNAL, "%s: stored indices are for the form lookup",
                         model->path);
    uint64_t first = 0;
    for (size_t t = 0; t < coded->n_tensors; t++) {
        int status = check_tensor(graph, coded, t, first, err);
        if (status)
            return status;
        first += coded->tensors[t].count;
    }
    for (uint64_t i = 0; i < coded->n_symbols && !coded->index; i++)
        if (coded->symbols[i] >= coded->levels)
            return error_set(err, ONNXPRESS_INTERNAL, "symbol %d of only %d", coded->symbols[i],
                             coded->levels);
    return first == coded->n_symbols
               ? ONNXPRESS_OK
               : error_set(err, ONNXPRESS_INTERNAL, "%s: symbols that belong to no tensor",
                           model->path);
}

/* The name of the initializer that holds this shape; equal shapes share one. */
static const char *shape_name(Emitter *e, List *shapes, const Shape *shape)
{
    for (size_t i = 0; i < shapes->n; i++)
        if (shape_equal(shapes->item[i], shape))
            return emit_numbered(e, 'h', i);
    const char *name = emit_numbered(e, 'h', shapes->n);
    Shape *copy = arena_array(e->scratch, 1, sizeof *copy);
    if (copy)
        *copy = *shape;
    e->failed |= !list_add(shapes, e->scratch, copy);
    emit_initializer(e, emit_small(e, name, DTYPE_INT64, 1, shape->dim, (size_t)shape->rank));
    return name;
}

/* The flat value of all weights, in this order → each weight under its own name. */
static int deal_out(Emitter *e, const Coded *coded, const size_t *order, const char *joined,
                    uint64_t total, Error *err)
{
    size_t n = coded->n_tensors, pieces = n + (total > coded->n_symbols);
    const char **part = arena_array(e->scratch, pieces, sizeof *part);
    int64_t *size = arena_array(e->scratch, pieces, sizeof *size);
    if (!part || !size)
        return error_memory(err, "the weights' sizes");
    for (size_t k = 0; k < n; k++) {
        const CodedTensor *tensor = &coded->tensors[order[k]];
        bool as_it_is = tensor->shape.rank == 1 && tensor->dtype == DTYPE_FLOAT;
        part[k] = as_it_is ? tensor->name : emit_numbered(e, 'w', k);
        size[k] = (int64_t)tensor->count;
    }
    if (pieces > n) {
        part[n] = emit_name(e, "W"); /* padding */
        size[n] = (int64_t)(total - coded->n_symbols);
    }
    const char *sizes = emit_name(e, "S");
    if (e->model->opset >= 13)
        emit_initializer(e, emit_small(e, sizes, DTYPE_INT64, 1, size, pieces));
    emit_split(e, joined, sizes, size, part, pieces);

    List shapes = {0};
    for (size_t k = 0; k < n; k++) {
        const CodedTensor *tensor = &coded->tensors[order[k]];
        bool cast = tensor->dtype != DTYPE_FLOAT;
        const char *value = part[k];
        if (tensor->shape.rank != 1) {
            const char *shaped = cast ? emit_numbered(e, 'x', k) : tensor->name;
            emit_node(e, "", "Reshape", NAMES(value, shape_name(e, &shapes, &tensor->shape)),
                      NAMES(shaped));
            value = shaped;
        }
        if (cast)
            emit_cast(e, value, tensor->name, tensor->dtype);
    }
    return e->failed ? error_memory(err, "the weights' nodes") : ONNXPRESS_OK;
}

/* Streams and decoder of all weights. */
static int emit_streams(Decoder *decoder, const Coded *coded, CodedNote *note, Error *err)
{
    Emitter *e = decoder->emit;
    size_t *offset = arena_array(e->scratch, coded->n_tensors + 1, sizeof *offset);
    if (!offset)
        return error_memory(err, "the choice of blocks");
    for (size_t t = 0; t < coded->n_tensors; t++)
        offset[t + 1] = offset[t] + coded->tensors[t].count;
    const char *joined;
    uint64_t total;
    Groups groups;
    int status = groups_find(coded->symbols, offset, coded->n_tensors, coded->codebook, coded->levels,
                             e->scratch, &groups, err);
    if (!status)
        status = blocks_emit(decoder, coded, offset, &groups, note, &joined, &total, err);
    return status ? status : deal_out(e, coded, groups.order, joined, total, err);
}

static int apply_plain(Model *model, const Graph *graph, const Coded *coded, Error *err)
{
    for (size_t t = 0; t < coded->n_tensors; t++) {
        const CodedTensor *tensor = &coded->tensors[t];
        Arena *scratch = arena_create();
        float *value = scratch ? arena_array(scratch, tensor->count, sizeof *value) : NULL;
        if (!value) {
            arena_destroy(scratch);
            return error_memory(err, "rounded weights");
        }
        for (uint64_t i = 0; i < tensor->count; i++)
            value[i] = tensor->scale * coded->codebook[coded->symbols[tensor->first + i]];
        int status = values_store(model, hoist_find(graph, tensor->name), value,
                                  (int64_t)tensor->count, err);
        arena_destroy(scratch);
        if (status)
            return status;
    }
    return ONNXPRESS_OK;
}

static int64_t needed_ir(RewriteForm form)
{
    return form == FORM_FUNCTION ? FUNCTIONS_IR : form == FORM_PLAIN ? 0 : FREE_INITIALIZERS_IR;
}

/* From here on only memory can be short. */
static int attach(Emitter *e, Decoder *decoder, const Coded *coded, RewriteForm form, Error *err)
{
    Onnx__ModelProto *proto = e->model->proto;
    for (size_t t = 0; t < coded->n_tensors; t++)
        values_remove(e->model, coded->tensors[t].name);
    int status = emit_attach(e, err);
    for (size_t i = 0; i < decoder->functions.n && !status; i++)
        if (!model_append_function(e->model, decoder->functions.item[i]))
            status = error_memory(err, "the decoder's functions");
    if (!status && form == FORM_FUNCTION &&
        !model_append_opset(e->model, REWRITE_DOMAIN, REWRITE_OPSET))
        status = error_memory(err, "the decoder's functions");
    if (proto->ir_version < needed_ir(form)) {
        proto->ir_version = needed_ir(form);
        proto->has_ir_version = 1;
    }
    return status;
}

static int apply(Model *model, Arena *scratch, const Coded *coded, RewriteForm form,
                 const char *note, Error *err)
{
    Graph *graph;
    int status = graph_build(model, scratch, &graph, err);
    if (!status)
        status = check_coded(model, graph, coded, form, err);
    if (!status && (form == FORM_FUNCTION || form == FORM_INLINED))
        status = rewrite_lift(model, err);
    if (status)
        return status;
    const char *prefix = choose_prefix(model, scratch);
    if (!prefix)
        return error_memory(err, "the rewritten model");
    Emitter emitter = {.model = model, .scratch = scratch, .prefix = prefix};
    Metadata metadata = {.form = form, .prefix = prefix, .note = note};
    Decoder decoder = {.emit = &emitter};
    if (form == FORM_PLAIN) {
        metadata.prefix = "";
    } else if (form == FORM_LOOKUP) {
        status = lookup_emit(&emitter, coded, &metadata.coded, err);
    } else if (!decoder_begin(&decoder, &emitter, form == FORM_INLINED)) {
        status = error_memory(err, "the decoder");
    } else {
        status = emit_streams(&decoder, coded, &metadata.coded, err);
    }
    if (model->proto->ir_version < needed_ir(form))
        metadata.ir_version = model->proto->ir_version;
    if (!status)
        status = metadata_write(model, &metadata, err);
    if (!status && form == FORM_PLAIN)
        return apply_plain(model, graph, coded, err);
    if (!status)
        status = hoist_weights(model, graph, coded, err);
    return status ? status : attach(&emitter, &decoder, coded, form, err);
}

int rewrite_apply(Model *model, const Coded *coded, RewriteForm form, const char *note, Error *err)
{
    Arena *scratch = arena_create();
    int status = scratch ? apply(model, scratch, coded, form, note, err)
                         : error_memory(err, "the rewritten model");
    arena_destroy(scratch);
    return status;
}
