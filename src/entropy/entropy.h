/* Entropy coding of index sequences: canonical length-limited Huffman codes, and the streams of a
 * Huffman-shaped wavelet matrix that standard tensor ops can decode. FORMAT.md is the definition.
 *
 * Knows symbols and bytes, no weights. Encoders cannot fail but for memory; decoders take hostile
 * input and check every length before use (ONNXPRESS_FORMAT). Results live in the arena given.
 * decode(encode(x)) = x for any x of at least two symbols.
 */
#ifndef ONNXPRESS_ENTROPY_ENTROPY_H
#define ONNXPRESS_ENTROPY_ENTROPY_H

#include "tensor/arena.h"
#include "tensor/error.h"

#define HUFF_MAX_LENGTH 24

/* Optimal code lengths under max_length (package-merge). count[i] = 0 gives length 0. One symbol in
 * use gets length 1. ONNXPRESS_USAGE when 2^max_length is less than the symbols in use. */
int huff_lengths(const uint64_t *count, size_t n, int max_length, uint8_t *length, Arena *scratch,
                 Error *err);
/* Canonical codewords (shorter first, then by symbol), right-aligned in code[i]. */
void huff_canonical(const uint8_t *length, size_t n, uint32_t *code);
/* The paper's stream: one code, MSB first. Decoding checks lengths (Kraft), overrun and trailing
 * bits. */
size_t huff_stream_bytes(const uint64_t *count, const uint8_t *length, size_t n);
void huff_encode(const uint16_t *symbol, size_t n, const uint8_t *length, const uint32_t *code,
                 uint8_t *stream);
int huff_decode(const uint8_t *stream, size_t bytes, const uint8_t *length, size_t n_lengths,
                uint16_t *symbol, size_t n, Error *err);
/* -sum c log2(c / total), bits of the whole sequence. */
double entropy_bits(const uint64_t *count, size_t n);

/* A sequence as the paper counts it, in bits: a codeword a symbol, and in the tables each codeword
 * once and 32 bits a centre. In a pruned network the symbol `pruned` (-1: not pruned) has no codeword:
 * the others' positions are Huffman-coded differences (FORMAT.md, "The paper's stream"). */
typedef struct {
    double position_bits, value_bits; /* codewords of differences and of values */
    double table_bits;
    double fixed_bits; /* the whole, with indices of ceil(log2 levels) bits for values' codewords */
    uint64_t values;   /* symbols that have a codeword */
    size_t levels;     /* different ones among them */
} PaperCount;
int paper_count(const uint16_t *symbol, uint64_t n, size_t levels, int pruned, Arena *scratch,
                PaperCount *count, Error *err);

#define WAVELET_MAX_TUPLE 4
#define WAVELET_MAX_LEVELS 20

/* One block of a coded sequence. Symbols are coded in tuples of `tuple` consecutive ones (what is
 * missing of the last one is made up by the encoder and dropped by the decoder, see FORMAT.md). */
typedef struct {
    int tuple;
    int levels; /* longest codeword, 1..WAVELET_MAX_LEVELS */
    uint64_t n; /* symbols, without padding */
    uint64_t n_tuples;
    uint64_t n_runs;            /* leaves; one with more than 65,535 members takes several runs */
    const uint16_t *run;        /* [n_runs] members of each run, >= 1 */
    const uint16_t *table;      /* [n_runs][tuple] its symbols */
    const uint64_t *level_bits; /* [levels] bits of each level, from the root down */
    const uint64_t *tail;  /* [levels + 1] members of leaf tails, in run order (deepest first) */
    const uint8_t *stream; /* all levels' bits one after another, MSB first, padded with zeros */
    uint64_t stream_bytes;
} WaveletBlock;

/* Encodes symbol[0..n), n >= 2. */
int wavelet_encode(const uint16_t *symbol, uint64_t n, int tuple, int max_length, Arena *arena,
                   WaveletBlock *block, Error *err);
/* Checks everything and fills symbol[0..block->n). */
int wavelet_decode(const WaveletBlock *block, uint16_t *symbol, Error *err);
/* Bytes of stream, tables and level lists as rewrite stores them, and what a level costs there. */
#define WAVELET_LEVEL_BYTES 70 /* a Step node with its names, and two int64 sizes */
uint64_t wavelet_bytes(const WaveletBlock *block);
/* The tuple and length limit with the fewest bytes, from counts only (nothing is encoded);
 * returns those bytes through *bytes. */
int wavelet_choose(const uint16_t *symbol, uint64_t n, int levels_in_use, Arena *scratch,
                   int *tuple, int *max_length, uint64_t *bytes, Error *err);

/* The same for one tuple size; *bytes is UINT64_MAX where it makes no sense (too many tuples). */
int wavelet_choose_length(const uint16_t *symbol, uint64_t n, int tuple, Arena *scratch,
                          int *max_length, uint64_t *bytes, Error *err);

/* Sequences in which one symbol, `skipped`, is frequent, as pairs (gap, symbol): so many skipped
 * ones and then one other; a gap of `limit` before a skipped symbol stands for limit + 1 skipped
 * ones, so that the pairs cover the sequence exactly. Pairs are coded as tuples of two. limit <=
 * 254. */
#define GAPS_MAX_LIMIT 254
/* pair[2 * count]; NULL: only counts them. */
uint64_t gaps_split(const uint16_t *symbol, uint64_t n, uint16_t skipped, int limit,
                    uint16_t *pair);
/* ONNXPRESS_FORMAT unless the pairs fill symbol[0..n) exactly. */
int gaps_join(const uint16_t *pair, uint64_t n_pairs, uint16_t skipped, uint16_t *symbol,
              uint64_t n, Error *err);

/* CRC-32 (IEEE 802.3) of a stream, for the metadata. */
uint32_t entropy_crc32(const void *data, size_t bytes);

#endif
