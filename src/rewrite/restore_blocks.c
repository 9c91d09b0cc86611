/* SPDX-License-Identifier: Apache-2.0
 *
 * Reads the coded blocks of a file back, trusting none of its numbers: every size is checked
 * against data that is really there before anything is allocated for it.
 */
#include <string.h>

#include "model/graph.h"
#include "rewrite/rewrite_internal.h"

typedef struct {
    WaveletBlock coded;
    uint64_t elements; /* symbols, padding included */
    bool gaps;
    const float *scale; /* NULL: all 1 */
    int64_t *piece;     /* elements of each stretch of one scale */
    int64_t n_pieces;
} Block;

static int damaged(const Restore *r, size_t block, const char *what, Error *err)
{
    return error_set(err, ONNXPRESS_FORMAT, "%s: stream %zu is damaged: %s", r->model->path, block,
                     what);
}

static const char *role_name(Restore *r, Role role, size_t block)
{
    return emit_numbered(&r->names, role_letter[role], block);
}

/* Below opset 13 a block's level sizes stand in the first Split of its function, or (inlined) in
 * the Split that makes its first level's bits. */
static const Onnx__NodeProto *baked_split(Restore *r, size_t block)
{
    const Onnx__ModelProto *proto = r->model->proto;
    if (r->metadata.form == FORM_INLINED) {
        const char *bits = emit_name(&r->names, arena_printf(r->scratch, "%zu_b1", block));
        for (size_t i = 0; bits && i < proto->graph->n_node; i++) {
            const Onnx__NodeProto *node = proto->graph->node[i];
            if (node->n_output > 0 && strcmp(node->output[0], bits) == 0)
                return node;
        }
        return NULL;
    }
    const char *stream = role_name(r, ROLE_STREAM, block);
    const Onnx__NodeProto *call = stream ? restore_reader(r, stream) : NULL;
    for (size_t i = 0; call && call->op_type && i < proto->n_functions; i++) {
        const Onnx__FunctionProto *f = proto->functions[i];
        if (!f->domain || strcmp(f->domain, REWRITE_DOMAIN) != 0 || !f->name ||
            strcmp(f->name, call->op_type) != 0)
            continue;
        for (size_t k = 0; k < f->n_node; k++)
            if (f->node[k]->op_type && strcmp(f->node[k]->op_type, "Split") == 0)
                return f->node[k];
    }
    return NULL;
}

/* Level sizes; from them the stream's length and the number of tuples, all bounded by the stream.
 */
static int read_levels(Restore *r, size_t block, const Tensor *stream, WaveletBlock *coded,
                       Error *err)
{
    int64_t *size;
    size_t n;
    const Onnx__NodeProto *split = r->model->opset < 13 ? baked_split(r, block) : NULL;
    int status = restore_sizes(r, role_name(r, ROLE_LEVELS, block), split, &size, &n, err);
    if (status)
        return status;
    if (n < 2 || n > WAVELET_MAX_LEVELS + 1)
        return damaged(r, block, "its number of levels is out of range", err);
    coded->levels = (int)n - 1;
    uint64_t *bits = arena_array(r->scratch, n - 1, sizeof *bits), sum = 0;
    uint64_t *tail = arena_array(r->scratch, n, sizeof *tail);
    if (!bits || !tail)
        return error_memory(err, "a coded block");
    for (int l = 0; l < coded->levels; l++) {
        if (size[l] < 1 || size[l] > INT32_MAX || (l > 0 && size[l] > size[l - 1]))
            return damaged(r, block, "a level's size is wrong", err);
        bits[l] = (uint64_t)size[l];
        sum += bits[l];
        if (l > 0)
            tail[coded->levels - l + 1] = bits[l - 1] - bits[l];
    }
    if (stream->count < 1 || sum / 8 + 1 != (uint64_t)stream->count ||
        size[n - 1] != (int64_t)(8 - sum % 8))
        return damaged(r, block, "its length does not fit its levels", err);
    coded->level_bits = bits;
    coded->tail = tail;
    coded->n_tuples = bits[0];
    coded->stream = stream->data;
    coded->stream_bytes = sum / 8 + (sum % 8 != 0);
    return ONNXPRESS_OK;
}

/* Runs (the last follows from the sum) and the deepest tails. */
static int read_runs(Restore *r, size_t block, WaveletBlock *coded, Error *err)
{
    Tensor stored;
    int status = restore_tensor(r, role_name(r, ROLE_RUNS, block), DTYPE_UINT16, 1, &stored, err);
    if (status)
        return status;
    size_t n = (size_t)stored.count + 1;
    uint16_t *run = arena_array(r->scratch, n, sizeof *run);
    if (!run)
        return error_memory(err, "a coded block");
    if (stored.count > 0)
        memcpy(run, stored.data, (n - 1) * sizeof *run);
    digest_add(&r->digest, run, (n - 1) * sizeof *run);
    uint64_t sum = 0, deepest = coded->level_bits[coded->levels - 1];
    for (size_t i = 0; i + 1 < n; i++)
        sum += run[i];
    if (sum >= coded->n_tuples || coded->n_tuples - sum > UINT16_MAX)
        return damaged(r, block, "its runs do not fit its levels", err);
    run[n - 1] = (uint16_t)(coded->n_tuples - sum);
    if (run[0] > deepest)
        return damaged(r, block, "its first run is too long", err);
    uint64_t *tail = (uint64_t *)coded->tail; /* made by read_levels */
    tail[0] = run[0];
    tail[1] = deepest - run[0];
    coded->run = run;
    coded->n_runs = n;
    return ONNXPRESS_OK;
}

/* The table's pairs, if the block has gaps; its table of symbols becomes one of pairs. */
static int read_gaps(Restore *r, size_t number, Block *block, Error *err)
{
    WaveletBlock *coded = &block->coded;
    const char *name = role_name(r, ROLE_GAPS, number);
    block->elements = coded->n;
    if (!name || !restore_has(r, name))
        return name ? ONNXPRESS_OK : error_memory(err, "a coded block");
    Tensor stored;
    int64_t *size;
    size_t n;
    int status = restore_tensor(r, name, DTYPE_UINT8, 1, &stored, err);
    if (!status)
        status = restore_sizes(r, role_name(r, ROLE_FILLED, number), NULL, &size, &n, err);
    if (status)
        return status;
    /* A pair covers at most 256 elements: what a file may ask for follows from its stream. */
    if (coded->tuple != 1 || stored.count != (int64_t)coded->n_runs || n != 1 || size[0] < 1 ||
        (uint64_t)size[0] > coded->n_tuples * (GAPS_MAX_LIMIT + 2))
        return damaged(r, number, "its gaps do not fit its table", err);
    uint16_t *pairs = arena_array(r->scratch, coded->n_runs, 2 * sizeof *pairs);
    if (!pairs)
        return error_memory(err, "a coded block");
    const uint8_t *gap = stored.data;
    for (uint64_t i = 0; i < coded->n_runs; i++) {
        if (gap[i] < 1)
            return damaged(r, number, "a gap is wrong", err);
        pairs[2 * i] = (uint16_t)(gap[i] - 1);
        pairs[2 * i + 1] = coded->table[i];
    }
    digest_add(&r->digest, stored.data, stored.bytes);
    coded->table = pairs;
    coded->tuple = 2;
    coded->n = 2 * coded->n_tuples;
    block->gaps = true;
    block->elements = (uint64_t)size[0];
    return ONNXPRESS_OK;
}

static int read_table(Restore *r, size_t block, WaveletBlock *coded, Error *err)
{
    Tensor stored;
    int dtype = r->levels <= 256 ? DTYPE_UINT8 : DTYPE_UINT16;
    int status = restore_tensor(r, role_name(r, ROLE_TABLE, block), dtype, -1, &stored, err);
    if (status)
        return status;
    int64_t tuple = stored.shape.rank == 2 ? stored.shape.dim[1] : 1;
    if (stored.shape.rank < 1 || stored.shape.rank > 2 || tuple < 1 || tuple > WAVELET_MAX_TUPLE ||
        stored.shape.dim[0] != (int64_t)coded->n_runs)
        return damaged(r, block, "its table has another shape than its runs", err);
    uint16_t *table = arena_array(r->scratch, (size_t)stored.count, sizeof *table);
    if (!table)
        return error_memory(err, "a coded block");
    for (int64_t i = 0; i < stored.count; i++) {
        table[i] = dtype == DTYPE_UINT8 ? ((const uint8_t *)stored.data)[i]
                                        : ((const uint16_t *)stored.data)[i];
        if (table[i] >= r->levels)
            return damaged(r, block, "its table points past the codebook", err);
    }
    digest_add(&r->digest, stored.data, stored.bytes);
    coded->table = table;
    coded->tuple = (int)tuple;
    coded->n = coded->n_tuples * (uint64_t)tuple;
    return ONNXPRESS_OK;
}

static int expect_sizes(Restore *r, size_t block, Role role, const int64_t *expected, size_t n,
                        Error *err)
{
    int64_t *size;
    size_t stored;
    int status = restore_sizes(r, role_name(r, role, block), NULL, &size, &stored, err);
    if (status)
        return status;
    if (stored != n || memcmp(size, expected, n * sizeof *size) != 0)
        return damaged(r, block, "its sizes do not fit each other", err);
    return ONNXPRESS_OK;
}

/* The sizes that the model's decoder uses and that we can do without must agree too. */
static int check_sizes(Restore *r, size_t block, const WaveletBlock *coded, Error *err)
{
    int64_t tuples = (int64_t)coded->n_tuples, tail[WAVELET_MAX_LEVELS + 1];
    int status = expect_sizes(r, block, ROLE_TUPLES, &tuples, 1, err);
    if (status || r->model->opset < 13)
        return status;
    for (int i = 0; i <= coded->levels; i++)
        tail[i] = (int64_t)coded->tail[i];
    return expect_sizes(r, block, ROLE_TAILS, tail, (size_t)coded->levels + 1, err);
}

static int read_pieces(Restore *r, size_t number, Block *block, Error *err)
{
    const char *name = role_name(r, ROLE_SCALES, number);
    if (!name || !restore_has(r, name))
        return ONNXPRESS_OK;
    Tensor scales;
    int64_t elements = (int64_t)block->elements, sum = 0, *stored = NULL;
    size_t n = 0;
    int status = restore_tensor(r, name, DTYPE_FLOAT, 1, &scales, err);
    if (!status && scales.count < 1)
        status = damaged(r, number, "it has no scales", err);
    if (!status && scales.count > 1)
        status = restore_sizes(r, role_name(r, ROLE_PIECES, number), NULL, &stored, &n, err);
    if (!status && scales.count > 1)
        status = expect_sizes(r, number, ROLE_COUNT, &elements, 1, err);
    if (status)
        return status;
    if ((int64_t)n != scales.count - 1)
        return damaged(r, number, "its scales do not fit its pieces", err);
    digest_add(&r->digest, scales.data, scales.bytes);
    if (n > 0)
        digest_add(&r->digest, stored, n * sizeof *stored);
    block->piece = arena_array(r->scratch, n + 1, sizeof *block->piece);
    if (!block->piece)
        return error_memory(err, "a coded block");
    for (size_t i = 0; i < n; i++) {
        if (stored[i] < 1 || stored[i] >= elements - sum)
            return damaged(r, number, "its pieces are longer than the block", err);
        sum += block->piece[i] = stored[i];
    }
    block->piece[n] = elements - sum;
    block->n_pieces = scales.count;
    block->scale = scales.data;
    return ONNXPRESS_OK;
}

static int read_block(Restore *r, size_t number, Block *block, Error *err)
{
    Tensor stream;
    int status = restore_tensor(r, role_name(r, ROLE_STREAM, number), DTYPE_UINT8, 2, &stream, err);
    if (!status)
        status = restore_check_stream(r, number, &stream, err);
    if (!status)
        status = read_levels(r, number, &stream, &block->coded, err);
    if (!status)
        status = read_runs(r, number, &block->coded, err);
    if (!status)
        status = read_table(r, number, &block->coded, err);
    if (!status)
        status = read_gaps(r, number, block, err);
    if (!status)
        status = check_sizes(r, number, &block->coded, err);
    return status ? status : read_pieces(r, number, block, err);
}

static int decode(Restore *r, size_t number, const Block *block, float *value, Error *err)
{
    Arena *scratch = arena_create();
    uint16_t *read = scratch ? arena_array(scratch, block->coded.n, sizeof *read) : NULL;
    uint16_t *symbol =
        read && block->gaps ? arena_array(scratch, block->elements, sizeof *symbol) : read;
    if (!symbol) {
        arena_destroy(scratch);
        return error_memory(err, "a coded block");
    }
    Error inner = {0};
    int status = wavelet_decode(&block->coded, read, &inner);
    if (!status && block->gaps)
        status = gaps_join(read, block->coded.n_tuples, skipped_symbol(r->codebook, (int)r->levels),
                           symbol, block->elements, &inner);
    if (status)
        error_set(err, inner.code, "%s: stream %zu is damaged: %s", r->model->path, number,
                  inner.message);
    for (uint64_t i = 0; i < block->elements && !status; i++)
        value[i] = r->codebook[symbol[i]];
    if (!status && block->scale)
        for (int64_t p = 0; p < block->n_pieces; p++)
            for (int64_t i = 0; i < block->piece[p]; i++)
                *value++ *= block->scale[p];
    arena_destroy(scratch);
    return status;
}

int restore_blocks(Restore *r, float **value, uint64_t *n, Error *err)
{
    size_t blocks = r->metadata.coded.n_streams;
    Block *block = arena_array(r->scratch, blocks, sizeof *block);
    if (!block)
        return error_memory(err, "coded blocks");
    *n = 0;
    for (size_t b = 0; b < blocks; b++) {
        int status = read_block(r, b, &block[b], err);
        if (status)
            return status;
        *n += block[b].elements; /* each at most 2^39 */
    }
    digest_add(&r->digest, r->codebook, (size_t)r->levels * sizeof *r->codebook);
    if (r->digest != r->metadata.coded.tables)
        return restore_refuse(r, "the tables' checksum is wrong", NULL, err);
    *value = arena_array(r->model->arena, *n, sizeof **value);
    if (!*value)
        return error_memory(err, "decoded weights");
    uint64_t at = 0;
    for (size_t b = 0; b < blocks; b++) {
        int status = decode(r, b, &block[b], *value + at, err);
        if (status)
            return status;
        at += block[b].elements;
    }
    return ONNXPRESS_OK;
}
