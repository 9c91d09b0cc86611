/* Feed: binds the arrays of a Dataset to a Program's inputs and cuts batches.
 *
 * An array of the input's rank is cut along its first axis; one of one rank more, for an input
 * without a batch axis, holds one input a row and forces a batch of 1; so do samples of different
 * shape, each of which is the inputs of a run as they are. uint8 images for a float
 * input are converted as (x*scale - mean[c]) / std[c] along axis 1 (scale 1/255 when mean, std or
 * scale is given, or by default for uint8 data: said in the report). Shapes, types, NaN and infinite
 * values are checked with the input's name (ONNXPRESS_DATA).
 */
#ifndef ONNXPRESS_AUTODIFF_FEED_H
#define ONNXPRESS_AUTODIFF_FEED_H

#include "autodiff/autodiff.h"
#include "tensor/dataset.h"

typedef struct {
    double scale;           /* 0: 1/255 for uint8 data, 1 otherwise */
    int n_mean, n_std;      /* 0: none; else 1 or the number of channels */
    double mean[16], std[16];
} FeedOptions;

typedef struct Feed Feed;

int feed_create(const Program *program, const Dataset *dataset, const FeedOptions *options,
                Feed **feed, Error *err);
void feed_free(Feed *feed);
int64_t feed_samples(const Feed *feed);
/* The largest batch a run may have: 1 when the graph's input fixes it at 1 or has no batch axis;
 * N when it is declared as N; INT64_MAX when free. */
int64_t feed_max_batch(const Feed *feed);
/* Runs the graph on a sample or two. Where two at once fail or do not answer as each does alone, the
 * largest batch becomes 1, whatever the graph declares; where many would take much memory,
 * feed_block becomes small (INT64_MAX before). `memory` as exec_create's. Errors: those of a run of one
 * sample. */
int feed_fit(Feed *feed, const Program *program, size_t memory, Error *err);
int64_t feed_block(const Feed *feed);
/* Makes values[k] for every program input from the samples sample[0..n). Storage lives in `store`,
 * which the caller keeps (one a thread) and frees with feed_store_free. */
typedef struct FeedStore FeedStore;
FeedStore *feed_store_create(void);
void feed_store_free(FeedStore *store);
int feed_batch(const Feed *feed, const int64_t *sample, int64_t n, FeedStore *store, Value *values,
               Error *err);

#endif
