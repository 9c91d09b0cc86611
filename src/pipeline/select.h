/* Select: which weights are coded, which stay exact, and why; their values and importances as the
 * flat arrays that quantize takes. Lives in the session's arena. Errors: ONNXPRESS_UNSUPPORTED when
 * nothing can be coded.
 */
#ifndef ONNXPRESS_PIPELINE_SELECT_H
#define ONNXPRESS_PIPELINE_SELECT_H

#include "pipeline/session.h"
#include "quantize/quantize.h"

/* Tensors with fewer elements cost more bytes coded (nodes, names, a scale) than as they are. */
#define SELECT_MIN_ELEMENTS 48

typedef struct {
    int n_weights;          /* of the program */
    bool *coded;            /* per weight */
    const char **reason;    /* per weight: why it is exact, or where its importance comes from */
    double *importance;     /* per weight: mean over its elements */
    int n_coded;
    int *weight;            /* [n_coded]: weight numbers, in the program's order */
    QuantizeInput input;    /* tensor t is weight[t] */
    float *values;          /* input.w, for pruning */
    int64_t total_elements; /* of all floating weights, coded or not */
} Selection;

/* Whether a weight is coded unless its importance speaks against it. */
bool select_may_code(const Weight *weight);

/* ONNXPRESS_DATA, naming the tensor, when a weight that would be coded is not finite. */
int select_check_finite(Session *session);

/* h[w]: importance a weight, NULL where none was measured; `source` names the estimator. */
int select_weights(Session *session, float *const *h, const char *source, Selection *selection);

#endif
