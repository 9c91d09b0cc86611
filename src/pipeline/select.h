/* Select: which weights are coded, which stay exact, and why; their values and importances as the
 * flat arrays that quantize takes. Lives in the session's arena. The values are those that the program
 * runs with too: there is one copy of a coded weight in memory. Errors: ONNXPRESS_UNSUPPORTED when
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
    QuantizeInput input;    /* tensor t is weight[t]; input.w is `values` */
    float *values;
    bool pruned;            /* the values are no longer the model's */
    int64_t total_elements; /* of all floating weights, coded or not */
} Selection;

/* Why a weight must stay exact; NULL: it may be coded. */
const char *select_exact_reason(const Weight *weight);
/* Whether a weight is coded unless its importance speaks against it. */
bool select_may_code(const Weight *weight);

/* ONNXPRESS_DATA, naming the tensor, when a weight that would be coded is not finite. */
int select_check_finite(Session *session);

/* h[w]: importance a weight, NULL where none was measured; `source` names the estimator. Those of coded
 * weights are moved into the selection: h must not be read afterwards. */
int select_weights(Session *session, float *const *h, const char *source, Selection *selection);

/* Reads the values from the model again: for who has rounded them where they are, so as to run the
 * program with them. */
int select_reread(Session *session, const Selection *selection);

/* Gives back the memory of the values, of which some are zeros until they are read again. */
void select_forget(const Selection *selection);

/* Gives back the memory of values and importances, none of which may be read from here on; nor may the
 * program run. */
void select_release(Selection *selection);

#endif
