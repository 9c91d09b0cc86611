/* Measure: the importance of a session's weights, measured or read. h[w] is NULL for a weight that
 * has none. Results live in the session's arena. Errors: the estimator's; ONNXPRESS_DATA for a file
 * that does not fit the model. */
#ifndef ONNXPRESS_PIPELINE_MEASURE_H
#define ONNXPRESS_PIPELINE_MEASURE_H

#include "pipeline/select.h"

/* The estimate that the options name, over samples sample[0..n) of `feed`. Needs session_kinds. label:
 * one a sample of the feed, or NULL. wanted: per weight, or NULL for all. *name becomes the
 * estimator's. */
int measure_importance(Session *session, const Feed *feed, const int64_t *sample, int64_t n,
                       const int64_t *label, const bool *wanted, float **h,
                       const char **name);
/* A .npz as onnxpress_hessian writes it. */
int hessian_read(Session *session, const char *path, float **h);

/* The coded weights as matrices, [selection->n_coded], with the factors that error compensation runs
 * on; a weight that is no matrix has none and is rounded plainly. */
int measure_layers(Session *session, const Feed *feed, const int64_t *sample, int64_t n,
                   const Selection *selection, QuantizeMatrix **matrix);

#endif
