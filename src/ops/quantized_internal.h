/* How numbers become integers of few bits, which the quantized ops share. */
#ifndef ONNXPRESS_OPS_QUANTIZED_INTERNAL_H
#define ONNXPRESS_OPS_QUANTIZED_INTERNAL_H

#include "ops/support_internal.h"

/* The range of an integer type that holds quantized numbers; false for another type. */
bool quantized_range(int dtype, double *least, double *most);
/* To the nearest integer, ties to even, and into the range; NaN to the zero point. */
int64_t quantize_number(double scaled, int64_t zero, double least, double most);
/* Scale and zero point of uint8 such that the range of x, widened to hold 0, is covered. */
void dynamic_scale(const Value *x, real *scale, int64_t *zero);

#endif
