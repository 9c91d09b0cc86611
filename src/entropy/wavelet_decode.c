/* SPDX-License-Identifier: Apache-2.0
 *
 * Reads a block back, trusting none of its numbers.
 */
#include "entropy/entropy.h"

#include "entropy/bitio.h"

static int refuse(Error *err, const char *what)
{
    return error_set(err, ONNXPRESS_FORMAT,
                     "coded block: %s; the file is damaged or not made by onnxpress", what);
}

/* After this: every level's bits lie inside the stream, the sizes of levels, tails and runs agree,
 * and all of them are bounded by the stream's own length. */
static int block_check(const WaveletBlock *block, Error *err)
{
    if (block->tuple < 1 || block->tuple > WAVELET_MAX_TUPLE)
        return refuse(err, "the tuple size is out of range");
    if (block->levels < 1 || block->levels > WAVELET_MAX_LEVELS)
        return refuse(err, "the number of levels is out of range");
    uint64_t tuple = (uint64_t)block->tuple, n = block->n_tuples;
    if (n < 2 || n > INT32_MAX || n != block->n / tuple + (block->n % tuple != 0))
        return refuse(err, "the number of tuples does not fit the number of symbols");
    if (!block->run || !block->table || !block->level_bits || !block->tail || !block->stream)
        return refuse(err, "a part is missing");

    /* From the root down: what is left after a level's tail is the next level's size. */
    uint64_t left = n, bits = 0;
    for (int l = 1; l <= block->levels; l++) {
        if (block->level_bits[l - 1] != left)
            return refuse(err, "a level's size is wrong");
        bits += left; /* at most 20 * 2^31 */
        uint64_t tail = block->tail[block->levels - l + 1];
        if (tail > left)
            return refuse(err, "a level's leaves are more than its members");
        left -= tail;
    }
    if (block->tail[0] != left || left == 0 || block->tail[1] == 0)
        return refuse(err, "the deepest level's leaves are wrong");
    if (block->stream_bytes != bits / 8 + (bits % 8 != 0))
        return refuse(err, "the stream's length is wrong");
    for (uint64_t i = bits; i < block->stream_bytes * 8; i++)
        if (bit_at(block->stream, i))
            return refuse(err, "the padding is not zero");

    uint64_t members = 0;
    for (uint64_t r = 0; r < block->n_runs; r++) {
        if (block->run[r] == 0)
            return refuse(err, "a run is empty");
        members += block->run[r];
    }
    if (members != n)
        return refuse(err, "the runs do not add up to the number of tuples");
    return ONNXPRESS_OK;
}

/* order holds the tails, deepest first; its first level_bits[l] entries are always what enters
 * level l, the deeper levels' result and then this level's tail, since each level works in place.
 */
static void undo_levels(const WaveletBlock *block, uint32_t *order, uint32_t *spare)
{
    uint64_t position = 0;
    for (int l = 0; l < block->levels; l++)
        position += block->level_bits[l];
    for (int l = block->levels - 1; l >= 0; l--) {
        uint64_t m = block->level_bits[l], zeros = 0, ones = m;
        position -= m;
        for (uint64_t i = 0; i < m; i++)
            spare[i] = bit_at(block->stream, position + i) ? order[--ones] : order[zeros++];
        for (uint64_t i = 0; i < m; i++)
            order[i] = spare[i];
    }
}

int wavelet_decode(const WaveletBlock *block, uint16_t *symbol, Error *err)
{
    int status = block_check(block, err);
    if (status)
        return status;
    Arena *scratch = arena_create();
    uint32_t *order = scratch ? arena_array(scratch, block->n_tuples, sizeof *order) : NULL;
    uint32_t *spare = scratch ? arena_array(scratch, block->n_tuples, sizeof *spare) : NULL;
    if (!order || !spare) {
        arena_destroy(scratch);
        return error_memory(err, "a coded block");
    }
    uint64_t at = 0;
    for (uint64_t r = 0; r < block->n_runs; r++)
        for (uint32_t i = 0; i < block->run[r]; i++)
            order[at++] = (uint32_t)r;
    undo_levels(block, order, spare);
    uint64_t tuple = (uint64_t)block->tuple;
    for (uint64_t i = 0; i < block->n; i++)
        symbol[i] = block->table[order[i / tuple] * tuple + i % tuple];
    arena_destroy(scratch);
    return ONNXPRESS_OK;
}
