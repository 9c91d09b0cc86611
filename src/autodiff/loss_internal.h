/* What loss.c (distances, factors) and loss_gradient.c share: rows of an output. */
#ifndef ONNXPRESS_AUTODIFF_LOSS_INTERNAL_H
#define ONNXPRESS_AUTODIFF_LOSS_INTERNAL_H

#include "autodiff/draws.h"
#include "autodiff/loss.h"

/* A distribution's row. Logits become probabilities on the fly: exp(z - shift) * factor. */
typedef struct {
    const real *z;
    int64_t classes, stride;
    bool is_logits;
    double shift, factor;
} Row;

Row row_open(OutputKind kind, const OutputLayout *layout, const real *z);
double row_p(const Row *row, int64_t c);

static inline bool is_distribution(OutputKind kind)
{
    return kind == OUTPUT_LOGITS || kind == OUTPUT_PROBABILITIES;
}

#endif
