/* SPDX-License-Identifier: Apache-2.0
 *
 * rewrite_restore: any form back to float initializers. All new tensors are made before anything of
 * the model is touched.
 */
#include <string.h>

#include "model/graph.h"
#include "rewrite/rewrite_internal.h"

#define MAX_CHAIN 4 /* our nodes between a coded tensor and its value: Cast, Gather, Mul, Cast */

static bool is_ours(const Restore *r, const char *name)
{
    const char *prefix = r->metadata.prefix;
    return name && strncmp(name, prefix, strlen(prefix)) == 0;
}

int restore_refuse(const Restore *r, const char *what, const char *name, Error *err)
{
    return error_set(err, ONNXPRESS_FORMAT,
                     "%s: cannot be restored: %s%s%s%s; the file is damaged "
                     "or was changed by another tool",
                     r->model->path, what, name ? " ('" : "", name ? name : "", name ? "')" : "");
}

bool restore_has(const Restore *r, const char *name)
{
    return name && name_table_find(r->initializer, name) >= 0;
}

int restore_tensor(Restore *r, const char *name, int dtype, int rank, Tensor *tensor, Error *err)
{
    if (!name)
        return error_memory(err, "a tensor's name");
    int number = name_table_find(r->initializer, name);
    if (number < 0)
        return restore_refuse(r, "a tensor of the decoder is missing", name, err);
    int status =
        model_tensor(r->model, r->model->proto->graph->initializer[number], name, tensor, err);
    if (status)
        return status;
    if (tensor->dtype != dtype || (rank >= 0 && tensor->shape.rank != rank))
        return restore_refuse(r, "a tensor of the decoder has another type or rank", name, err);
    return ONNXPRESS_OK;
}

const Onnx__NodeProto *restore_reader(const Restore *r, const char *name)
{
    int number = name_table_find(r->reader, name);
    return number < 0 ? NULL : r->model->proto->graph->node[number];
}

int restore_check_stream(const Restore *r, size_t number, const Tensor *tensor, Error *err)
{
    const StreamNote *note = &r->metadata.coded.stream[number];
    if (note->bytes != tensor->bytes)
        return error_set(err, ONNXPRESS_FORMAT,
                         "%s: stream %zu is damaged: it has %zu bytes, and "
                         "%llu were written",
                         r->model->path, number, tensor->bytes, (unsigned long long)note->bytes);
    if (note->crc != entropy_crc32(tensor->data, tensor->bytes))
        return error_set(err, ONNXPRESS_FORMAT, "%s: stream %zu is damaged: its checksum is wrong",
                         r->model->path, number);
    return ONNXPRESS_OK;
}

static int read_codebook(Restore *r, Error *err)
{
    Tensor codebook;
    const char *name = emit_numbered(&r->names, role_letter[ROLE_CODEBOOK], 0);
    int status = restore_tensor(r, name, DTYPE_FLOAT, 1, &codebook, err);
    if (status)
        return status;
    if (codebook.count < 1 || codebook.count > UINT16_MAX + 1)
        return restore_refuse(r, "the codebook is empty or too long", name, err);
    r->codebook = codebook.data;
    r->levels = codebook.count;
    return ONNXPRESS_OK;
}

int restore_sizes(Restore *r, const char *name, const Onnx__NodeProto *split, int64_t **size,
                  size_t *n, Error *err)
{
    if (split) {
        const Onnx__AttributeProto *attribute = node_attribute(split, "split");
        if (!attribute)
            return restore_refuse(r, "a Split has no sizes", split->output[0], err);
        *size = attribute->ints;
        *n = attribute->n_ints;
        return ONNXPRESS_OK;
    }
    Tensor tensor;
    int status = restore_tensor(r, name, DTYPE_INT64, 1, &tensor, err);
    if (status)
        return status;
    *n = (size_t)tensor.count;
    *size = arena_array(r->scratch, *n, sizeof **size);
    return *size ? tensor_to_int64(&tensor, *size, err) : error_memory(err, "sizes");
}

/* Follows our nodes from a value of ours to the original value that they make. */
static int follow(Restore *r, const char *value, Tensor *made, Error *err)
{
    for (int i = 0; is_ours(r, value); i++) {
        const Onnx__NodeProto *node = restore_reader(r, value);
        if (!node || i == MAX_CHAIN || node->n_output != 1)
            return restore_refuse(r, "the nodes behind a value are gone", value, err);
        if (node_is(node, "Reshape") && node->n_input == 2) {
            int64_t *size;
            size_t n;
            int status = restore_sizes(r, node->input[1], NULL, &size, &n, err);
            if (status)
                return status;
            if (n > TENSOR_MAX_RANK)
                return restore_refuse(r, "a shape has too many dimensions", node->output[0], err);
            made->shape.rank = (int)n;
            memcpy(made->shape.dim, size, n * sizeof *size);
        } else if (node_is(node, "Cast")) {
            const Onnx__AttributeProto *to = node_attribute(node, "to");
            if (!to)
                return restore_refuse(r, "a Cast has no type", node->output[0], err);
            made->dtype = to->i == (int32_t)to->i ? (int)to->i : DTYPE_UNDEFINED;
        } else if (node_is(node, "Gather")) {
            made->dtype = DTYPE_FLOAT;
        } else if (!node_is(node, "Mul")) {
            return restore_refuse(r, "an unexpected node reads a value", value, err);
        }
        value = node->output[0];
    }
    int64_t count;
    if (!shape_count(&made->shape, &count) || count != made->count || !dtype_is_weight(made->dtype))
        return restore_refuse(r, "a weight's shape or type is wrong", value, err);
    made->name = value;
    return ONNXPRESS_OK;
}

/* Floats stay where they are, in the model's arena: they are the bulk of it. */
static int make_initializer(Restore *r, const Tensor *made, const float *value, List *tensors,
                            Error *err)
{
    Onnx__TensorProto *proto =
        build_tensor(r->model, made->name, made->dtype, made->shape.rank, made->shape.dim, NULL, 0);
    if (!list_add(tensors, r->scratch, proto))
        return error_memory(err, "decoded weights");
    if (made->dtype == DTYPE_FLOAT) {
        proto->raw_data = (ProtobufCBinaryData){(size_t)made->count * sizeof *value,
                                                (uint8_t *)(uintptr_t)value};
        return ONNXPRESS_OK;
    }
    return values_store(r->model, proto, value, made->count, err);
}

/* Forms function and inlined: the flat value, its Split, and what follows each part. */
static int restore_coded(Restore *r, List *tensors, Error *err)
{
    float *value;
    uint64_t total;
    int64_t *size;
    size_t n;
    int status = restore_blocks(r, &value, &total, err);
    if (status)
        return status;
    const char *joined = r->metadata.coded.n_streams > 1 ? emit_name(&r->names, "j")
                                                         : emit_numbered(&r->names, 'd', 0);
    const char *padding = emit_name(&r->names, "W"), *sizes = emit_name(&r->names, "S");
    if (r->names.failed)
        return error_memory(err, "names");
    const Onnx__NodeProto *split = restore_reader(r, joined);
    if (!split || !node_is(split, "Split"))
        return restore_refuse(r, "nobody splits the weights", joined, err);
    status = restore_sizes(r, sizes, r->model->opset < 13 ? split : NULL, &size, &n, err);
    if (status)
        return status;
    if (n != split->n_output)
        return restore_refuse(r, "the weights' sizes are of another number", joined, err);
    uint64_t at = 0;
    for (size_t i = 0; i < n && !status; i++) {
        if (size[i] < 0 || (uint64_t)size[i] > total - at)
            return restore_refuse(r, "the weights are larger than their data", split->output[i],
                                  err);
        Tensor made = {.dtype = DTYPE_FLOAT, .shape = {1, {size[i]}}, .count = size[i]};
        if (strcmp(split->output[i], padding) != 0) {
            status = follow(r, split->output[i], &made, err);
            if (!status)
                status = make_initializer(r, &made, value + at, tensors, err);
        }
        at += (uint64_t)size[i];
    }
    if (!status && at != total)
        status = restore_refuse(r, "the weights are smaller than their data", joined, err);
    return status;
}

static int restore_looked_up(Restore *r, size_t number, List *tensors, Error *err)
{
    const char *name = emit_numbered(&r->names, 'i', number);
    const char *factor = emit_numbered(&r->names, role_letter[ROLE_SCALES], number);
    int dtype = r->levels <= 256 ? DTYPE_UINT8 : DTYPE_UINT16;
    Tensor index, scale = {0};
    int status = restore_tensor(r, name, dtype, -1, &index, err);
    if (!status)
        status = restore_check_stream(r, number, &index, err);
    if (!status && restore_has(r, factor)) {
        status = restore_tensor(r, factor, DTYPE_FLOAT, 0, &scale, err);
        if (!status)
            digest_add(&r->digest, scale.data, scale.bytes);
    }
    Tensor made = index;
    if (!status)
        status = follow(r, name, &made, err);
    if (r->only_check)
        model_forget(r->model, &index);
    if (status || r->only_check)
        return status;
    Arena *scratch = arena_create();
    Arena *arena = made.dtype == DTYPE_FLOAT ? r->model->arena : scratch;
    float *value = scratch ? arena_array(arena, (size_t)index.count, sizeof *value) : NULL;
    if (!value)
        status = error_memory(err, "decoded weights");
    for (int64_t i = 0; i < index.count && !status; i++) {
        uint16_t symbol = dtype == DTYPE_UINT8 ? ((const uint8_t *)index.data)[i]
                                               : ((const uint16_t *)index.data)[i];
        if (symbol >= r->levels)
            status = restore_refuse(r, "an index points past the codebook", name, err);
        else
            value[i] = r->codebook[symbol] * (scale.data ? *(const float *)scale.data : 1.0f);
    }
    if (!status)
        status = make_initializer(r, &made, value, tensors, err);
    arena_destroy(scratch);
    return status;
}

static int restore_lookup(Restore *r, List *tensors, Error *err)
{
    digest_add(&r->digest, r->codebook, (size_t)r->levels * sizeof *r->codebook);
    for (size_t i = 0; i < r->metadata.coded.n_streams; i++) {
        int status = restore_looked_up(r, i, tensors, err);
        if (status)
            return status;
    }
    return r->digest == r->metadata.coded.tables
               ? ONNXPRESS_OK
               : restore_refuse(r, "the tables' checksum is wrong", NULL, err);
}

/* Each node of ours reads something of ours, and no other node does. */
static bool node_is_ours(const Restore *r, const Onnx__NodeProto *node)
{
    for (size_t k = 0; k < node->n_input; k++)
        if (is_ours(r, node->input[k]))
            return true;
    return false;
}

static bool build_index(Restore *r)
{
    const Onnx__GraphProto *graph = r->model->proto->graph;
    r->initializer = name_table_create(r->scratch);
    r->reader = name_table_create(r->scratch);
    if (!r->initializer || !r->reader)
        return false;
    for (size_t i = 0; i < graph->n_initializer; i++) {
        const char *name = graph->initializer[i]->name;
        if (is_ours(r, name) && !name_table_add(r->initializer, name, (int)i))
            return false;
    }
    for (size_t i = 0; i < graph->n_node; i++)
        for (size_t k = 0; k < graph->node[i]->n_input; k++) {
            const char *name = graph->node[i]->input[k];
            if (is_ours(r, name) && !name_table_add(r->reader, name, (int)i))
                return false;
        }
    return true;
}

static bool is_our_domain(const char *domain)
{
    return domain && strcmp(domain, REWRITE_DOMAIN) == 0;
}

static void remove_ours(Restore *r)
{
    Onnx__ModelProto *proto = r->model->proto;
    Onnx__GraphProto *graph = proto->graph;
    size_t kept = 0;
    for (size_t i = 0; i < graph->n_node; i++)
        if (!node_is_ours(r, graph->node[i]))
            graph->node[kept++] = graph->node[i];
    graph->n_node = kept;
    kept = 0;
    for (size_t i = 0; i < graph->n_initializer; i++)
        if (!is_ours(r, graph->initializer[i]->name))
            graph->initializer[kept++] = graph->initializer[i];
    graph->n_initializer = kept;
    kept = 0;
    for (size_t i = 0; i < graph->n_value_info; i++)
        if (!is_ours(r, graph->value_info[i]->name))
            graph->value_info[kept++] = graph->value_info[i];
    graph->n_value_info = kept;
    kept = 0;
    for (size_t i = 0; i < proto->n_functions; i++)
        if (!is_our_domain(proto->functions[i]->domain))
            proto->functions[kept++] = proto->functions[i];
    proto->n_functions = kept;
    kept = 0;
    for (size_t i = 0; i < proto->n_opset_import; i++)
        if (!is_our_domain(proto->opset_import[i]->domain))
            proto->opset_import[kept++] = proto->opset_import[i];
    proto->n_opset_import = kept;
    /* Below 4 an initializer must be an input too, which ours are not. */
    int64_t ir = r->metadata.ir_version;
    if (ir > 0 && ir < proto->ir_version)
        proto->ir_version = ir < 4 ? 4 : ir;
}

static int restore_all(Restore *r, Error *err)
{
    List tensors = {0};
    if (!build_index(r))
        return error_memory(err, "the model's names");
    int status = read_codebook(r, err);
    if (!status)
        status = r->metadata.form == FORM_LOOKUP ? restore_lookup(r, &tensors, err)
                                                 : restore_coded(r, &tensors, err);
    if (status || r->only_check)
        return status;
    remove_ours(r);
    for (size_t i = 0; i < tensors.n; i++)
        if (!model_append_initializer(r->model, tensors.item[i]))
            return error_memory(err, "decoded weights");
    return ONNXPRESS_OK;
}

static int restore(Model *model, bool only_check, Error *err)
{
    Restore r = {.model = model, .scratch = arena_create(), .only_check = only_check};
    if (!r.scratch)
        return error_memory(err, "restoring");
    int status = metadata_read(model, r.scratch, &r.metadata, err);
    r.names = (Emitter){.model = model, .scratch = r.scratch, .prefix = r.metadata.prefix};
    if (!status && r.metadata.form != FORM_PLAIN)
        status = restore_all(&r, err);
    if (!status && !only_check)
        status = model_set_metadata(model, REWRITE_KEY, NULL, err);
    arena_destroy(r.scratch);
    return status;
}

int rewrite_restore(Model *model, Error *err)
{
    return restore(model, false, err);
}

int rewrite_check(Model *model, Error *err)
{
    return restore(model, true, err);
}
