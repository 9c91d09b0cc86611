/* SPDX-License-Identifier: Apache-2.0 */
#include "autodiff/invent.h"

#include <math.h>
#include <string.h>
#include <strings.h>

#include "autodiff/draws.h"

#define SLOW 0.9          /* correlation of neighbours in slow noise */
#define SLOW_AXIS 16      /* shorter axes are channels or features: no neighbours */
#define PICTURE_CHANNELS 3
#define MOST_BYTES ((size_t)512 << 20) /* of all samples; a few words of a file can declare any size */
#define FOLLOW 8          /* nodes between an input and the table it is looked up in */

typedef struct {
    const Program *program;
    Arena *arena;
    int64_t samples, size;
    uint64_t seed;
    bool free_sizes;
} Invention;

static bool name_has(const char *name, const char *const *words, size_t n)
{
    for (size_t w = 0; name && w < n; w++) {
        size_t length = strlen(words[w]);
        for (const char *at = name; *at; at++)
            if (strncasecmp(at, words[w], length) == 0)
                return true;
    }
    return false;
}
#define NAME_HAS(name, words) name_has(name, words, sizeof(words) / sizeof *(words))

static bool name_is(const char *name, const char *const *words, size_t n)
{
    for (size_t w = 0; name && w < n; w++)
        if (strcasecmp(name, words[w]) == 0)
            return true;
    return false;
}
#define NAME_IS(name, words) name_is(name, words, sizeof(words) / sizeof *(words))

/* ---- shapes ---- */

/* Whether axis k counts samples: by its name, by that of the first axis of another input, or because
 * it is a first axis that is free or 1. */
static bool is_batch(const Invention *it, const ProgramInput *input, int k)
{
    static const char *const batch[] = {"batch"};
    static const char *const length[] = {"seq", "len", "time", "frame", "num", "height", "width"};
    const char *name = input->dim_name[k];
    if (input->shape.dim[k] >= 0)
        return k == 0 && input->shape.dim[k] == 1;
    if (name && NAME_HAS(name, batch))
        return true;
    if (k == 0)
        return !name || !NAME_HAS(name, length);
    for (int i = 0; name && i < program_inputs(it->program); i++) {
        const ProgramInput *other = program_input(it->program, i);
        const char *first = other->shape.rank > 0 ? other->dim_name[0] : NULL;
        if (first && strcmp(first, name) == 0 && is_batch(it, other, 0))
            return true;
    }
    return false;
}

/* The array's shape: samples first, in place of a batch axis or before the input's own. */
static int shape_of(Invention *it, const ProgramInput *input, Shape *shape, Error *err)
{
    bool batched = input->shape.rank > 0 && is_batch(it, input, 0);
    int rank = input->shape.rank;
    if (!input->shape_known || rank + !batched > TENSOR_MAX_RANK)
        return error_set(err, ONNXPRESS_UNSUPPORTED, "input %s declares no shape to invent data for",
                         input->name);
    *shape = (Shape){.rank = rank + !batched};
    shape->dim[0] = it->samples;
    for (int k = batched; k < rank; k++) {
        int64_t dim = input->shape.dim[k];
        if (dim < 0 && is_batch(it, input, k)) {
            dim = 1;
        } else if (dim < 0 && rank == 4 && k == 1) {
            dim = PICTURE_CHANNELS;
        } else if (dim < 0) {
            dim = it->size;
            it->free_sizes = true;
        }
        shape->dim[k + !batched] = dim;
    }
    return ONNXPRESS_OK;
}

/* ---- values ---- */

/* The number of rows of the table that an input's numbers are looked up in; 0: none found. */
static int64_t table_rows(const Program *program, const char *name)
{
    static const char *const passes[] = {"Cast",    "Identity", "Unsqueeze",
                                         "Squeeze", "Reshape",  "Flatten"};
    const Graph *graph = program_graph(program);
    int v = graph_find(graph, name);
    for (int step = 0; step < FOLLOW && v >= 0; step++) {
        int next = -1;
        for (int u = 0; u < graph->values[v].n_uses; u++) {
            GraphUse use = graph->values[v].uses[u];
            const Onnx__NodeProto *node = graph->nodes[use.node];
            const char *op = node->op_type ? node->op_type : "";
            bool gather = strcmp(op, "Gather") == 0 && use.input == 1;
            bool embed = strcmp(op, "EmbedLayerNormalization") == 0 && use.input >= 0 &&
                         use.input <= 1;
            size_t table = embed ? (size_t)use.input * 2 + 2 : 0;
            if ((gather || embed) && table < node->n_input) {
                int data = graph->inputs[use.node][table];
                const Onnx__TensorProto *init = data >= 0 ? graph->values[data].init : NULL;
                const Onnx__AttributeProto *axis = gather ? node_attribute(node, "axis") : NULL;
                if (init && init->n_dims > 0 && (!axis || axis->i == 0))
                    return init->dims[0];
            }
            if (use.input == 0 && NAME_IS(op, passes) && node->n_output > 0)
                next = graph->outputs[use.node][0];
        }
        v = next;
    }
    return 0;
}

static double uniform(uint64_t key, int64_t i)
{
    return (double)(hash_step(key, (uint64_t)i) >> 11) * 0x1p-53;
}

static void fill_integers(const Invention *it, const ProgramInput *input, uint64_t key, int64_t *x,
                          int64_t n)
{
    static const char *const zero[] = {"token_type", "segment", "state", "past"};
    static const char *const rate[] = {"sr", "sample_rate", "sampling_rate", "rate"};
    static const char *const size[] = {"len", "size"};
    int64_t rows = table_rows(it->program, input->name);
    for (int64_t i = 0; i < n; i++) {
        if (NAME_HAS(input->name, zero))
            x[i] = 0;
        else if (rows > 0)
            x[i] = (int64_t)(uniform(key, i) * (double)rows);
        else if (NAME_IS(input->name, rate))
            x[i] = 16000;
        else
            x[i] = NAME_HAS(input->name, size) ? it->size : 1;
    }
}

/* Each number leans on the one before along the axis; the variance stays. */
static void slow_down(float *x, int64_t n, int64_t length, int64_t stride)
{
    const float rest = (float)sqrt(1 - SLOW * SLOW);
    for (int64_t i = 0; i < n; i++)
        if (i / stride % length > 0)
            x[i] = (float)SLOW * x[i - stride] + rest * x[i];
}

static void fill_reals(const ProgramInput *input, const Shape *shape, uint64_t key, float *x,
                       int64_t n)
{
    static const char *const zero[] = {"state", "hidden", "cache", "past"};
    static const char *const also_zero[] = {"h", "c", "h0", "c0", "hx", "cx"};
    static const char *const one[] = {"mask"};
    for (int64_t i = 0; i < n; i++) {
        double angle = 2 * M_PI * uniform(key, 2 * i + 1);
        if (NAME_HAS(input->name, zero) || NAME_IS(input->name, also_zero))
            x[i] = 0;
        else if (NAME_HAS(input->name, one) || input->shape.rank < 2)
            x[i] = 1; /* the few numbers that steer a graph are seldom negative */
        else
            x[i] = (float)(sqrt(-2 * log(1 - uniform(key, 2 * i))) * cos(angle));
    }
    int64_t stride = 1;
    for (int k = shape->rank - 1; k >= 1 && k >= shape->rank - 2 && input->shape.rank >= 2; k--) {
        if (shape->dim[k] >= SLOW_AXIS && stride > 0)
            slow_down(x, n, shape->dim[k], stride);
        stride *= shape->dim[k];
    }
}

/* Type, shape and size of input k. */
static int describe(Invention *it, int k, Tensor *tensor, Error *err)
{
    const ProgramInput *input = program_input(it->program, k);
    bool real_valued = dtype_is_real(input->dtype);
    if (!real_valued && !dtype_is_integer(input->dtype))
        return error_set(err, ONNXPRESS_UNSUPPORTED, "input %s is of %s: no data can be invented",
                         input->name, dtype_name(input->dtype));
    tensor->name = input->name;
    tensor->dtype = real_valued ? DTYPE_FLOAT : DTYPE_INT64;
    int status = shape_of(it, input, &tensor->shape, err);
    if (!status && (!shape_count(&tensor->shape, &tensor->count) ||
                    !size_mul((size_t)tensor->count, dtype_bytes(tensor->dtype), &tensor->bytes)))
        return error_set(err, ONNXPRESS_MEMORY, "input %s declares an impossible size", input->name);
    return status;
}

/* All inputs, of as many samples as there is room for. */
static int describe_all(Invention *it, Tensor *tensors, int n, Error *err)
{
    size_t bytes = 0, wanted = (size_t)it->samples;
    it->samples = 1;
    for (int pass = 0; pass < 2; pass++) {
        for (int k = 0; k < n; k++) {
            int status = describe(it, k, &tensors[k], err);
            if (status)
                return status;
            if (pass == 0 && (tensors[k].bytes > MOST_BYTES - bytes))
                return error_set(err, ONNXPRESS_MEMORY,
                                 "its inputs declare sizes of more than %zu bytes a sample: give "
                                 "samples in place of random ones",
                                 MOST_BYTES);
            bytes += pass ? 0 : tensors[k].bytes;
        }
        size_t room = bytes ? MOST_BYTES / bytes : wanted;
        it->samples = (int64_t)(room < wanted ? room : wanted);
    }
    return ONNXPRESS_OK;
}

static int fill(const Invention *it, int k, Tensor *tensor, Error *err)
{
    const ProgramInput *input = program_input(it->program, k);
    uint64_t key = hash_step(hash_step(0, it->seed), (uint64_t)k);
    bool real_valued = dtype_is_real(input->dtype);
    size_t each = dtype_bytes(tensor->dtype);
    void *data = arena_array(it->arena, (size_t)tensor->count, each);
    if (!data)
        return error_memory(err, "invented samples");
    tensor->data = data;
    if (real_valued)
        fill_reals(input, &tensor->shape, key, data, tensor->count);
    else
        fill_integers(it, input, key, data, tensor->count);
    return ONNXPRESS_OK;
}

int invent_samples(const Program *program, int64_t samples, int64_t size, uint64_t seed,
                   Dataset **dataset, bool *free_sizes, Error *err)
{
    int n = program_inputs(program), rc = ONNXPRESS_OK;
    Invention it = {
        .program = program, .arena = arena_create(), .samples = samples, .size = size, .seed = seed};
    *dataset = NULL;
    Tensor *tensors = it.arena ? arena_array(it.arena, (size_t)n + 1, sizeof *tensors) : NULL;
    if (!tensors)
        rc = error_memory(err, "invented samples");
    if (!rc)
        rc = describe_all(&it, tensors, n, err);
    for (int k = 0; k < n && !rc; k++)
        rc = fill(&it, k, &tensors[k], err);
    *free_sizes = it.free_sizes;
    if (rc) {
        arena_destroy(it.arena);
        return rc;
    }
    return dataset_made("random inputs", it.arena, tensors, (size_t)n, dataset, err);
}
