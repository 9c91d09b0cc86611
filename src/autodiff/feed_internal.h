/* What feed.c (binding, batches) and feed_fit.c (batch sizes that work) share. */
#ifndef ONNXPRESS_AUTODIFF_FEED_INTERNAL_H
#define ONNXPRESS_AUTODIFF_FEED_INTERNAL_H

#include "autodiff/feed.h"

typedef struct {
    const ProgramInput *input;
    const Tensor *tensor;
    bool row_is_input; /* a row of the array is a whole input, without a batch axis */
    bool whole;        /* so is the array itself: the input of one sample's run */
    Shape shape;       /* of one run; dim 0 is the batch unless row_is_input */
    int64_t row_count; /* elements of one sample */
    double scale;
    int n_mean, n_std;
    int64_t channel_size, channels; /* elements of one channel of one sample; channels */
} Binding;

struct Feed {
    int64_t samples, max_batch, block;
    int n;
    bool ragged;       /* each sample has bindings of its own */
    Binding *bindings; /* [n], or [samples][n] */
    FeedOptions options;
};

#endif
