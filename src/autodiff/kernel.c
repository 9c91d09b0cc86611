/* SPDX-License-Identifier: Apache-2.0
 *
 * What kernels call: outputs and scratch space from the executor's storage, and errors. */
#include "autodiff/internal.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int op_error(const OpCall *call, OnnxPressStatus code, const char *format, ...)
{
    char text[400];
    const Onnx__NodeProto *proto = call->node->proto;
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    const char *name = proto->name && *proto->name            ? proto->name
                       : proto->n_output && *proto->output[0] ? proto->output[0]
                                                              : "a node without a name";
    return error_set(call->err, code, "%.120s (%.60s): %s", name,
                     proto->op_type ? proto->op_type : "", text);
}

static int out_of_storage(const OpCall *call, size_t bytes)
{
    const Exec *exec = call->executor;
    if (pool_limit(exec->pool))
        return op_error(
            call, ONNXPRESS_MEMORY,
            "%zu bytes more than the memory bound of %zu%s; use smaller batches or %s", bytes,
            pool_limit(exec->pool),
            exec->bounded ? "" : ", which follows from the sizes of the file and its inputs",
            exec->bounded ? "raise it" : "set one (--memory)");
    return op_error(call, ONNXPRESS_MEMORY, "out of memory for %zu bytes", bytes);
}

/* With `extra` bytes behind the numbers, at a place that is aligned for a Shape. */
static int make_output(const OpCall *call, int k, int dtype, const Shape *shape, size_t extra,
                       void **behind)
{
    Exec *exec = call->executor;
    Value *value = call->out[k];
    bool is_real = dtype_is_real(dtype);
    int64_t count;
    size_t bytes;
    if (!is_real && !dtype_is_integer(dtype))
        return op_error(call, ONNXPRESS_UNSUPPORTED, "output %d is of %s, which is not handled", k,
                        dtype_name(dtype));
    if (!shape_count(shape, &count) ||
        !size_mul((size_t)count, is_real ? sizeof(real) : sizeof(int64_t), &bytes))
        return op_error(call, ONNXPRESS_FORMAT, "the shape of output %d is not possible", k);
    size_t start = extra ? (bytes + sizeof(int64_t) - 1) / sizeof(int64_t) * sizeof(int64_t) : bytes;
    Buffer *buffer = start > SIZE_MAX - extra ? NULL : pool_take(exec->pool, start + extra, true);
    if (!buffer)
        return out_of_storage(call, bytes);
    *value = (Value){.dtype = dtype, .shape = *shape, .count = count, .buffer = buffer};
    if (is_real)
        value->r = buffer_data(buffer);
    else
        value->i = buffer_data(buffer);
    *behind = (unsigned char *)buffer_data(buffer) + start;
    return ONNXPRESS_OK;
}

int op_output(const OpCall *call, int k, int dtype, const Shape *shape)
{
    void *behind;
    return make_output(call, k, dtype, shape, 0, &behind);
}

int op_sequence(const OpCall *call, int k, int dtype, const Shape *items, int64_t n)
{
    Shape flat = {.rank = 1};
    void *behind = NULL;
    size_t bytes;
    for (int64_t j = 0; j < n; j++) {
        int64_t count;
        if (!shape_count(&items[j], &count) ||
            __builtin_add_overflow(flat.dim[0], count, &flat.dim[0]))
            return op_error(call, ONNXPRESS_FORMAT, "the shape of output %d is not possible", k);
    }
    /* One more, so that an empty sequence has a list too. */
    if (!size_mul((size_t)n + 1, sizeof *items, &bytes))
        return op_error(call, ONNXPRESS_MEMORY, "a sequence beyond the address space");
    int status = make_output(call, k, dtype, &flat, bytes, &behind);
    if (status)
        return status;
    if (n > 0)
        memcpy(behind, items, (size_t)n * sizeof *items);
    call->out[k]->items = behind;
    call->out[k]->n_items = n;
    return ONNXPRESS_OK;
}

int op_alias(const OpCall *call, int k, const Value *source, const Shape *shape)
{
    int64_t count;
    if (!shape_count(shape, &count) || count != source->count)
        return op_error(call, ONNXPRESS_FORMAT, "%lld elements do not fit the shape of output %d",
                        (long long)source->count, k);
    Value *value = call->out[k];
    *value = *source;
    value->shape = *shape;
    if (value->buffer)
        buffer_retain(value->buffer);
    return ONNXPRESS_OK;
}

void *op_scratch(const OpCall *call, size_t count, size_t size)
{
    Exec *exec = call->executor;
    size_t bytes;
    if (!size_mul(count, size, &bytes)) {
        op_error(call, ONNXPRESS_MEMORY, "scratch space beyond the address space");
        return NULL;
    }
    if (exec->n_scratch == exec->room_scratch) {
        int room = exec->room_scratch ? 2 * exec->room_scratch : 8;
        Buffer **list = realloc(exec->scratch, (size_t)room * sizeof(Buffer *));
        if (!list) {
            op_error(call, ONNXPRESS_MEMORY, "out of memory");
            return NULL;
        }
        exec->scratch = list;
        exec->room_scratch = room;
    }
    Buffer *buffer = pool_take(exec->pool, bytes, true);
    if (!buffer) {
        out_of_storage(call, bytes);
        return NULL;
    }
    exec->scratch[exec->n_scratch++] = buffer;
    return buffer_data(buffer);
}

void exec_release_scratch(Exec *exec)
{
    while (exec->n_scratch)
        pool_release(exec->pool, exec->scratch[--exec->n_scratch]);
}
