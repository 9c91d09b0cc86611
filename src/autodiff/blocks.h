/* Blocks: forward runs over many samples, a block of a fixed number of them at a time, in parallel.
 *
 * Each block is run by one thread with an Exec of its own; `merge` is called for the blocks in their
 * order, one at a time, so that sums come out the same for any number of threads. The first error in
 * block order is kept. Nothing here outlives the call.
 */
#ifndef ONNXPRESS_AUTODIFF_BLOCKS_H
#define ONNXPRESS_AUTODIFF_BLOCKS_H

#include "autodiff/feed.h"

/* Samples a block: long enough for the matrix products, short enough for the caches. */
#define BLOCK_SAMPLES 32

typedef struct {
    const Program *program;
    const Feed *feed;
    const int64_t *sample;
    int64_t n, block;           /* samples in all, and in a block */
    const real *const *weights; /* as exec_set_weights */
    const bool *wanted;         /* as exec_set_wanted */
    int keep;                   /* EXEC_KEEP or EXEC_DISCARD */
    bool by_batch;              /* as exec_set_by_batch */
    int threads;                /* >= 1 */
    size_t memory;              /* bytes for activations, all threads together; 0: no bound */
    int (*progress)(void *context, double share); /* may be NULL; non-zero stops */
    void *progress_context;
} BlockRun;

/* One block's samples, and the Exec that has just run them. */
typedef struct {
    int64_t number;
    const int64_t *sample;
    int64_t n;
    Exec *exec;
    void *worker; /* for block_forward */
} Block;

/* What is done with each block. All but visit may be NULL. */
typedef struct {
    void *context;
    int (*open)(void *context, void **state, Error *err);  /* once a thread */
    int (*visit)(void *context, void *state, const Block *block, Error *err);
    int (*merge)(void *context, void *state, const Block *block, Error *err); /* in block order */
    void (*close)(void *context, void *state);             /* once a thread */
} BlockVisitor;

/* The block that a feed asks for, and n cut to whole blocks where the graph fixes its batch;
 * ONNXPRESS_DATA when that leaves none. */
int block_size(const Feed *feed, int64_t *n, int64_t *block, Error *err);
/* With a bound on memory: sets run->block, then run->threads, to what there is room for when a block
 * is visited as `probe` does (its merge is not called); in this order, since the block decides the
 * sums' last bits and must not depend on the threads. Without a bound nothing changes. */
int blocks_fit(BlockRun *run, const BlockVisitor *probe, Error *err);
int blocks_run(const BlockRun *run, const BlockVisitor *visitor, Error *err);
/* Runs these samples on the block's Exec in place of the block's own: for visitors that need them
 * one at a time. */
int block_forward(const Block *block, const int64_t *sample, int64_t n, Error *err);

#endif
