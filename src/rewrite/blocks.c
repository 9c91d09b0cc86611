/* SPDX-License-Identifier: Apache-2.0
 *
 * Cuts the symbols into blocks, codes each, and stores its parts as initializers.
 */
#include <string.h>

#include "rewrite/rewrite_internal.h"

#define MIN_REST (REWRITE_BLOCK / 8) /* symbols: less is not worth tables of its own */

uint64_t rewrite_block(uint64_t n, uint64_t first)
{
    uint64_t rest = n - first;
    return rest < REWRITE_BLOCK + MIN_REST ? rest : REWRITE_BLOCK;
}

void digest_add(uint32_t *digest, const void *data, size_t bytes)
{
    uint32_t pair[2] = {*digest, entropy_crc32(data, bytes)};
    *digest = entropy_crc32(pair, sizeof pair);
}

/* Stretches of a block that share a scale. */
typedef struct {
    float *scale;
    int64_t *count; /* elements, the padding not included */
    size_t n;
} Pieces;

static bool find_pieces(const Coded *coded, const Groups *groups, size_t block, Arena *arena,
                        Pieces *pieces)
{
    uint64_t first = groups->first[block], last = groups->first[block + 1], at = 0;
    pieces->scale = arena_array(arena, coded->n_tensors, sizeof *pieces->scale);
    pieces->count = arena_array(arena, coded->n_tensors, sizeof *pieces->count);
    pieces->n = 0;
    if (!pieces->scale || !pieces->count)
        return false;
    for (size_t k = 0; k < coded->n_tensors; k++) {
        const CodedTensor *tensor = &coded->tensors[groups->order[k]];
        uint64_t from = at > first ? at : first;
        at += tensor->count;
        uint64_t to = at < last ? at : last;
        if (from >= to)
            continue;
        if (pieces->n == 0 ||
            memcmp(&pieces->scale[pieces->n - 1], &tensor->scale, sizeof tensor->scale) != 0)
            pieces->scale[pieces->n++] = tensor->scale;
        pieces->count[pieces->n - 1] += (int64_t)(to - from);
    }
    return true;
}

static void block_shape(const WaveletBlock *block, const BlockPlan *plan, const Pieces *pieces,
                        BlockShape *shape)
{
    *shape = (BlockShape){.levels = block->levels,
                          .flat = block->tuple == 1 || plan->gap_limit > 0,
                          .gaps = plan->gap_limit > 0,
                          .skipped = plan->skipped};
    uint64_t bits = 0;
    for (int l = 0; l < block->levels; l++) {
        shape->level_size[l] = (int64_t)block->level_bits[l];
        bits += block->level_bits[l];
    }
    /* Always some padding, so that blocks do not differ in having it. */
    shape->level_size[block->levels] = (int64_t)(8 - bits % 8);
    for (int i = 0; i <= block->levels; i++)
        shape->tail_size[i] = (int64_t)block->tail[i];
    shape->rank_type = block->n_runs <= 256     ? DTYPE_UINT8
                       : block->n_runs <= 65536 ? DTYPE_UINT16
                                                : DTYPE_INT32;
    shape->scales = pieces->n > 1 ? SCALE_MANY : pieces->scale[0] != 1 ? SCALE_ONE : SCALE_NONE;
}

static void store_pieces(Emitter *e, const BlockShape *shape, size_t number, const Pieces *pieces,
                         int64_t elements, uint32_t *digest)
{
    if (shape->scales == SCALE_NONE)
        return;
    int64_t n = (int64_t)pieces->n;
    size_t bytes = pieces->n * sizeof *pieces->scale;
    emit_initializer(e, emit_raw(e, emit_numbered(e, role_letter[ROLE_SCALES], number), DTYPE_FLOAT,
                                 1, &n, pieces->scale, bytes));
    digest_add(digest, pieces->scale, bytes);
    if (shape->scales == SCALE_ONE)
        return;
    emit_initializer(e, emit_small(e, emit_numbered(e, role_letter[ROLE_PIECES], number),
                                   DTYPE_INT64, 1, pieces->count, pieces->n - 1));
    emit_initializer(e, emit_small(e, emit_numbered(e, role_letter[ROLE_COUNT], number),
                                   DTYPE_INT64, 1, &elements, 1));
    digest_add(digest, pieces->count, (pieces->n - 1) * sizeof *pieces->count);
}

/* Pairs apart: gaps (one more than each, as the decoder adds them up) and symbols. */
static bool split_table(const WaveletBlock *block, Arena *arena, uint8_t **gap, uint16_t **symbol)
{
    *gap = arena_array(arena, block->n_runs, sizeof **gap);
    *symbol = arena_array(arena, block->n_runs, sizeof **symbol);
    for (uint64_t i = 0; *gap && *symbol && i < block->n_runs; i++) {
        (*gap)[i] = (uint8_t)(block->table[2 * i] + 1);
        (*symbol)[i] = block->table[2 * i + 1];
    }
    return *gap && *symbol;
}

static int store_block(Decoder *decoder, const WaveletBlock *block, const BlockPlan *plan,
                       size_t number, int64_t elements, int levels, const Pieces *pieces,
                       CodedNote *note, const char *output, Arena *scratch, Error *err)
{
    Emitter *e = decoder->emit;
    BlockShape shape;
    block_shape(block, plan, pieces, &shape);
    size_t runs = block->n_runs, entries = runs * (shape.flat ? 1 : (size_t)block->tuple),
           table_bytes;
    int table_type;
    uint8_t *gap = NULL;
    uint16_t *symbol = NULL;
    if (shape.gaps && !split_table(block, scratch, &gap, &symbol))
        return error_memory(err, "a coded block");
    const void *table = symbols_narrow(shape.gaps ? symbol : block->table, entries, levels,
                                       scratch, &table_type, &table_bytes);
    int64_t sizes = shape.levels + 1, tuples = (int64_t)block->n_tuples,
            members = (int64_t)runs - 1, all = (int64_t)runs;
    uint64_t bits = 0;
    for (int l = 0; l < block->levels; l++)
        bits += block->level_bits[l];
    size_t stream_bytes = bits / 8 + 1;
    uint8_t *stream = arena_array(scratch, stream_bytes, 1);
    if (!table || !stream)
        return error_memory(err, "a coded block");
    memcpy(stream, block->stream, block->stream_bytes);

    int64_t stream_dims[2] = {(int64_t)stream_bytes, 1};
    int64_t table_dims[2] = {(int64_t)runs, block->tuple};
    for (Role role = 0; role < ROLE_CODEBOOK; role++) {
        if (!role_used(e->model, &shape, role))
            continue;
        const char *name = emit_numbered(e, role_letter[role], number);
        Onnx__TensorProto *tensor = NULL;
        switch (role) {
        case ROLE_STREAM:
            tensor = emit_raw(e, name, DTYPE_UINT8, 2, stream_dims, stream, stream_bytes);
            break;
        case ROLE_LEVELS:
            tensor = emit_small(e, name, DTYPE_INT64, 1, shape.level_size, (size_t)sizes);
            break;
        case ROLE_RUNS:
            tensor = emit_raw(e, name, DTYPE_UINT16, 1, &members, block->run,
                              (runs - 1) * sizeof *block->run);
            break;
        case ROLE_TUPLES:
            tensor = emit_small(e, name, DTYPE_INT64, 1, &tuples, 1);
            break;
        case ROLE_TAILS:
            tensor = emit_small(e, name, DTYPE_INT64, 1, shape.tail_size, (size_t)sizes);
            break;
        case ROLE_GAPS:
            tensor = emit_raw(e, name, DTYPE_UINT8, 1, &all, gap, runs);
            break;
        case ROLE_FILLED:
            tensor = emit_small(e, name, DTYPE_INT64, 1, &elements, 1);
            break;
        default:
            tensor =
                emit_raw(e, name, table_type, shape.flat ? 1 : 2, table_dims, table, table_bytes);
        }
        emit_initializer(e, tensor);
    }
    note->stream[number] = (StreamNote){stream_bytes, entropy_crc32(stream, stream_bytes)};
    digest_add(&note->tables, block->run, (runs - 1) * sizeof *block->run);
    digest_add(&note->tables, table, table_bytes);
    if (shape.gaps)
        digest_add(&note->tables, gap, runs);
    store_pieces(e, &shape, number, pieces, elements, &note->tables);
    return decoder_block(decoder, &shape, number, output) ? ONNXPRESS_OK
                                                          : error_memory(err, "a coded block");
}

static int code_block(Decoder *decoder, const Coded *coded, const size_t *offset,
                      const Groups *groups, size_t number, CodedNote *note, const char *output,
                      uint64_t *total, Error *err)
{
    uint64_t count = groups->first[number + 1] - groups->first[number];
    Arena *scratch = arena_create();
    uint16_t *gathered = scratch ? arena_array(scratch, count + 1, sizeof *gathered) : NULL;
    Pieces pieces;
    if (!gathered || !find_pieces(coded, groups, number, scratch, &pieces)) {
        arena_destroy(scratch);
        return error_memory(err, "a coded block");
    }
    groups_gather(coded->symbols, offset, groups, number, gathered);
    if (count < 2)
        gathered[count++] = gathered[0];
    const uint16_t *symbol = gathered;
    WaveletBlock block = {0};
    BlockPlan plan;
    int status = block_plan(symbol, count, skipped_symbol(coded->codebook, coded->levels),
                            coded->levels, &plan, err);
    uint64_t coded_symbols = count;
    if (!status && plan.gap_limit > 0) {
        uint64_t pairs = gaps_split(symbol, count, plan.skipped, plan.gap_limit, NULL);
        uint16_t *pair_of = arena_array(scratch, (size_t)pairs, 2 * sizeof *pair_of);
        if (!pair_of)
            status = error_memory(err, "a coded block");
        else
            gaps_split(symbol, count, plan.skipped, plan.gap_limit, pair_of);
        symbol = pair_of;
        coded_symbols = 2 * pairs;
    }
    if (!status)
        status = wavelet_encode(symbol, coded_symbols, plan.tuple, plan.max_length, scratch, &block,
                                err);
    uint64_t elements = plan.gap_limit > 0 ? count : block.n_tuples * (uint64_t)block.tuple;
    if (!status)
        status = store_block(decoder, &block, &plan, number, (int64_t)elements, coded->levels,
                             &pieces, note, output, scratch, err);
    *total += elements;
    arena_destroy(scratch);
    return status;
}

int blocks_emit(Decoder *decoder, const Coded *coded, const size_t *offset, const Groups *groups,
                CodedNote *note, const char **joined, uint64_t *total, Error *err)
{
    Emitter *e = decoder->emit;
    size_t blocks = groups->n_blocks;
    const char **part = arena_array(e->scratch, blocks, sizeof *part);
    note->stream = arena_array(e->scratch, blocks, sizeof *note->stream);
    if (!part || !note->stream)
        return error_memory(err, "coded blocks");
    note->n_streams = blocks;
    note->tables = 0;
    *total = 0;
    for (size_t b = 0; b < blocks; b++) {
        part[b] = emit_numbered(e, 'd', b);
        int status = code_block(decoder, coded, offset, groups, b, note, part[b], total, err);
        if (status)
            return status;
    }
    int64_t levels = coded->levels;
    size_t bytes = (size_t)levels * sizeof *coded->codebook;
    emit_initializer(e, emit_raw(e, emit_numbered(e, role_letter[ROLE_CODEBOOK], 0), DTYPE_FLOAT, 1,
                                 &levels, coded->codebook, bytes));
    digest_add(&note->tables, coded->codebook, bytes);
    *joined = part[0];
    if (blocks > 1) {
        *joined = emit_name(e, "j");
        emit_int(e, emit_node(e, "", "Concat", part, blocks, NAMES(*joined)), "axis", 0);
    }
    return e->failed ? error_memory(err, "coded blocks") : ONNXPRESS_OK;
}
