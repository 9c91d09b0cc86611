/* Integers below 8 bits and floats of 8 or 4 bits: quantized weights, and what scales them.
 *
 * Their tensors are packed, low bits first. Nothing here allocates or fails.
 */
#ifndef ONNXPRESS_TENSOR_SMALL_H
#define ONNXPRESS_TENSOR_SMALL_H

#include <stdbool.h>
#include <stdint.h>

bool small_known(int dtype); /* one of these types */
/* Element i of a tensor's data. Exact in float32. */
double small_read(int dtype, const void *data, int64_t i);
/* The nearest number of a small float type that has a sign, ties to even. What is too large, or
 * infinite: the largest if `saturate`, else infinity or, where the type has none, NaN. A type without
 * NaN takes it for 0. */
double small_round(int dtype, double x, bool saturate);

#endif
