/* What the quantizers share once every weight has its cell: internal to quantize/. */
#ifndef ONNXPRESS_QUANTIZE_INTERNAL_H
#define ONNXPRESS_QUANTIZE_INTERNAL_H

#include "quantize/quantize.h"

/* Fits centres and scales to the cells given by out->symbol (0..cells-1, each with a member; all of
 * it allocated) and fills in the rest of out, ascending centres and symbols to match. zero_cell:
 * the one whose centre is exactly 0, or -1. relative NULL: 1. Scope model takes every scale as 1.
 */
int quantize_fit(const QuantizeInput *in, const float *relative, QuantizeScope scope, bool weighted,
                 int cells, int zero_cell, Arena *arena, Quantized *out, Error *err);

#endif
