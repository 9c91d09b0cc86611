/* SPDX-License-Identifier: Apache-2.0 */
#include "autodiff/feed_internal.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ALIGNMENT 64
#define CHECK_CHUNK 1024 /* values converted at a time when looking for NaN */

struct FeedStore {
    int n;
    void **block;
    size_t *bytes;
};

static const char *tensor_name(const Tensor *tensor)
{
    return tensor->name ? tensor->name : "the only array";
}

/* The number of input k's array: by name, else by position when it has none, else the only one there
 * is; -1: none. */
static int find_array(const Dataset *dataset, const char *name, int k, int n_inputs)
{
    size_t n = dataset_inputs(dataset);
    for (size_t j = 0; j < n; j++) {
        const Tensor *tensor = dataset_input(dataset, j);
        if (tensor->name && strcmp(tensor->name, name) == 0)
            return (int)j;
    }
    if (n_inputs == 1 && n == 1)
        return 0;
    bool by_position = n == (size_t)n_inputs;
    for (size_t j = 0; j < n; j++)
        by_position = by_position && !dataset_input(dataset, j)->name;
    return by_position ? k : -1;
}

static int bind_shape(Binding *b, Error *err)
{
    const ProgramInput *input = b->input;
    const Shape *found = &b->tensor->shape;
    bool fits = found->rank >= 1;
    int rank = input->shape_known ? input->shape.rank : found->rank;
    bool more = !b->whole && found->rank == rank + 1;
    b->row_is_input = b->whole || more;
    fits = (fits && more) || ((fits || b->whole) && found->rank == rank);
    b->shape.rank = rank;
    for (int k = 0; fits && k < rank; k++) {
        int64_t declared = input->shape_known ? input->shape.dim[k] : -1;
        b->shape.dim[k] = found->dim[k + more];
        if (b->row_is_input || k > 0)
            fits = declared < 0 || declared == b->shape.dim[k];
    }
    if (fits)
        return ONNXPRESS_OK;
    char expected[160] = "[", shown[160];
    size_t used = 1;
    for (int k = 0; k < input->shape.rank && used < sizeof expected; k++) {
        const char *comma = k ? "," : "";
        int64_t dim = input->shape.dim[k];
        int wrote = dim < 0 ? snprintf(expected + used, sizeof expected - used, "%s?", comma)
                            : snprintf(expected + used, sizeof expected - used, "%s%lld", comma,
                                       (long long)dim);
        used += wrote > 0 ? (size_t)wrote : 0;
    }
    return error_set(err, ONNXPRESS_DATA, "input %s expects shape %s], %s has %s", input->name,
                     expected, tensor_name(b->tensor), shape_text(found, shown, sizeof shown));
}

static int bind_type(Binding *b, Error *err)
{
    bool to_real = dtype_is_real(b->input->dtype), from_real = dtype_is_real(b->tensor->dtype);
    if ((!from_real && !dtype_is_integer(b->tensor->dtype)) || (from_real && !to_real))
        return error_set(err, ONNXPRESS_DATA, "input %s expects %s, %s is of %s", b->input->name,
                         dtype_name(b->input->dtype), tensor_name(b->tensor),
                         dtype_name(b->tensor->dtype));
    return ONNXPRESS_OK;
}

/* Settles (x * scale - mean[c]) / std[c] for a floating input. */
static int bind_scaling(Binding *b, const FeedOptions *options, Error *err)
{
    bool bytes = b->tensor->dtype == DTYPE_UINT8;
    b->scale = options->scale != 0 ? options->scale : bytes ? 1.0 / 255 : 1;
    b->n_mean = options->n_mean;
    b->n_std = options->n_std;
    b->channels = b->shape.rank > 1 ? b->shape.dim[1] : 1;
    b->channel_size = b->channels > 0 ? b->row_count / b->channels : 1;
    if (b->row_is_input && b->shape.rank > 1 && b->shape.dim[0] > 0)
        b->channel_size /= b->shape.dim[0]; /* channels repeat along the input's own axis 0 */
    if (b->channel_size < 1)
        b->channel_size = 1;
    const int given[] = {b->n_mean, b->n_std};
    for (int k = 0; k < 2; k++)
        if (given[k] > 1 && given[k] != b->channels)
            return error_set(err, ONNXPRESS_USAGE,
                             "--%s has %d numbers, input %s has %lld channels", k ? "std" : "mean",
                             given[k], b->input->name, (long long)b->channels);
    for (int k = 0; k < b->n_std; k++)
        if (!(fabs(options->std[k]) > 0) || !isfinite(options->std[k]))
            return error_set(err, ONNXPRESS_USAGE, "--std must not be zero or infinite");
    return ONNXPRESS_OK;
}

/* A view of `count` elements of the tensor from element `first` on. */
static Tensor slice(const Tensor *tensor, int64_t first, int64_t count)
{
    Tensor part = *tensor;
    size_t width = dtype_bytes(tensor->dtype);
    part.data = (const unsigned char *)tensor->data + (size_t)first * width;
    part.count = count;
    part.bytes = (size_t)count * width;
    return part;
}

static int check_finite(const Binding *b, Error *err)
{
    double chunk[CHECK_CHUNK];
    if (!dtype_is_real(b->tensor->dtype))
        return ONNXPRESS_OK;
    for (int64_t first = 0; first < b->tensor->count; first += CHECK_CHUNK) {
        int64_t left = b->tensor->count - first, n = left < CHECK_CHUNK ? left : CHECK_CHUNK;
        Tensor part = slice(b->tensor, first, n);
        int status = tensor_to_double(&part, chunk, err);
        if (status)
            return status;
        for (int64_t i = 0; i < n; i++)
            if (!isfinite(chunk[i]))
                return error_set(err, ONNXPRESS_DATA,
                                 "input %s: sample %lld of %s holds a value that is not finite",
                                 b->input->name, (long long)((first + i) / b->row_count),
                                 tensor_name(b->tensor));
    }
    return ONNXPRESS_OK;
}

static int bind(Binding *b, Feed *feed, const FeedOptions *options, Error *err)
{
    int status = bind_shape(b, err);
    if (!status)
        status = bind_type(b, err);
    if (status)
        return status;
    int64_t rows = b->whole ? 1 : feed->samples;
    b->row_count = rows ? b->tensor->count / rows : 0;
    int64_t declared = b->input->shape_known && b->shape.rank ? b->input->shape.dim[0] : -1;
    int64_t limit = b->row_is_input ? 1 : declared > 0 ? declared : INT64_MAX;
    if (limit < feed->max_batch)
        feed->max_batch = limit;
    if (dtype_is_real(b->input->dtype))
        status = bind_scaling(b, options, err);
    return status ? status : check_finite(b, err);
}

int feed_create(const Program *program, const Dataset *dataset, const FeedOptions *options,
                Feed **result, Error *err)
{
    static const FeedOptions none;
    Feed *feed = calloc(1, sizeof *feed);
    if (!feed)
        return error_memory(err, "the samples");
    feed->n = program_inputs(program);
    feed->samples = dataset_samples(dataset);
    feed->max_batch = feed->block = INT64_MAX;
    feed->options = options ? *options : none;
    feed->ragged = dataset_is_ragged(dataset);
    int64_t sets = feed->ragged ? feed->samples : 1;
    feed->bindings = calloc((size_t)sets * (size_t)feed->n + 1, sizeof *feed->bindings);
    int status = feed->bindings ? ONNXPRESS_OK : error_memory(err, "the samples");
    if (!status && feed->samples < 1)
        status = error_set(err, ONNXPRESS_DATA, "%s: holds no samples", dataset_path(dataset));
    for (int k = 0; !status && k < feed->n; k++) {
        const ProgramInput *input = program_input(program, k);
        int array = find_array(dataset, input->name, k, feed->n);
        if (array < 0)
            status = error_set(err, ONNXPRESS_DATA,
                               "%s: no array for input %s (name the arrays as the model's inputs)",
                               dataset_path(dataset), input->name);
        for (int64_t s = 0; !status && s < sets; s++) {
            Binding *b = &feed->bindings[s * feed->n + k];
            b->input = input;
            b->whole = feed->ragged;
            b->tensor = feed->ragged ? dataset_sample(dataset, (size_t)array, s)
                                     : dataset_input(dataset, (size_t)array);
            status = bind(b, feed, &feed->options, err);
        }
    }
    if (status) {
        feed_free(feed);
        return status;
    }
    *result = feed;
    return ONNXPRESS_OK;
}

void feed_free(Feed *feed)
{
    if (!feed)
        return;
    free(feed->bindings);
    free(feed);
}

int64_t feed_samples(const Feed *feed)
{
    return feed->samples;
}

int64_t feed_max_batch(const Feed *feed)
{
    return feed->max_batch;
}

int64_t feed_block(const Feed *feed)
{
    return feed->block;
}

FeedStore *feed_store_create(void)
{
    return calloc(1, sizeof(FeedStore));
}

void feed_store_free(FeedStore *store)
{
    if (!store)
        return;
    for (int k = 0; k < store->n; k++)
        free(store->block[k]);
    free(store->block);
    free(store->bytes);
    free(store);
}

/* Block k, of at least `bytes`. */
static void *store_block(FeedStore *store, int k, size_t bytes)
{
    if (k >= store->n) {
        size_t n = (size_t)k + 1;
        void **block = realloc(store->block, n * sizeof *block);
        if (block)
            store->block = block;
        size_t *sizes = realloc(store->bytes, n * sizeof *sizes);
        if (sizes)
            store->bytes = sizes;
        if (!block || !sizes)
            return NULL;
        for (; store->n <= k; store->n++) {
            store->block[store->n] = NULL;
            store->bytes[store->n] = 0;
        }
    }
    if (store->bytes[k] < bytes || !store->block[k]) {
        free(store->block[k]);
        store->block[k] = NULL;
        store->bytes[k] = 0;
        void *block;
        if (posix_memalign(&block, ALIGNMENT, bytes ? bytes : ALIGNMENT))
            return NULL;
        store->block[k] = block;
        store->bytes[k] = bytes;
    }
    return store->block[k];
}

static void scale_row(const Binding *b, const FeedOptions *options, real *x)
{
    if (b->scale == 1 && !b->n_mean && !b->n_std)
        return;
    for (int64_t i = 0; i < b->row_count; i++) {
        int64_t c = i / b->channel_size % b->channels;
        double mean = b->n_mean ? options->mean[b->n_mean > 1 ? c : 0] : 0;
        double std = b->n_std ? options->std[b->n_std > 1 ? c : 0] : 1;
        x[i] = (real)((x[i] * b->scale - mean) / std);
    }
}

static int convert_row(const Binding *b, const FeedOptions *options, int64_t sample, int64_t row,
                       Value *value, Error *err)
{
    Tensor part = slice(b->tensor, sample * b->row_count, b->row_count);
    if (value->i)
        return tensor_to_int64(&part, value->i + row * b->row_count, err);
    real *x = value->r + row * b->row_count;
#ifdef ONNXPRESS_F64
    int status = tensor_to_double(&part, x, err);
#else
    int status = tensor_to_float(&part, x, err);
#endif
    if (!status)
        scale_row(b, options, x);
    return status;
}

int feed_batch(const Feed *feed, const int64_t *sample, int64_t n, FeedStore *store, Value *values,
               Error *err)
{
    for (int64_t j = 0; j < n; j++)
        if (sample[j] < 0 || sample[j] >= feed->samples)
            return error_set(err, ONNXPRESS_INTERNAL, "sample %lld does not exist",
                             (long long)sample[j]);
    if (feed->ragged && n != 1)
        return error_set(err, ONNXPRESS_INTERNAL, "samples of different shape in one batch");
    for (int k = 0; k < feed->n; k++) {
        const Binding *b = &feed->bindings[(feed->ragged ? sample[0] * feed->n : 0) + k];
        Value *value = &values[k];
        *value = (Value){.dtype = b->input->dtype, .shape = b->shape};
        if (b->row_is_input && n != 1)
            return error_set(err, ONNXPRESS_INTERNAL, "input %s has no batch axis", b->input->name);
        if (!b->row_is_input)
            value->shape.dim[0] = n;
        bool is_real = dtype_is_real(b->input->dtype);
        size_t bytes;
        if (!int64_mul(b->row_count, n, &value->count) ||
            !size_mul((size_t)value->count, is_real ? sizeof(real) : sizeof(int64_t), &bytes))
            return error_memory(err, "a batch");
        void *block = store_block(store, k, bytes);
        if (!block)
            return error_memory(err, "a batch");
        if (is_real)
            value->r = block;
        else
            value->i = block;
        for (int64_t j = 0; j < n; j++) {
            int status = convert_row(b, &feed->options, b->whole ? 0 : sample[j], j, value, err);
            if (status)
                return status;
        }
    }
    return ONNXPRESS_OK;
}
