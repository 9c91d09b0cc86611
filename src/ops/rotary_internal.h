/* The rotation of RotaryEmbedding, one row at a time. */
#ifndef ONNXPRESS_OPS_ROTARY_INTERNAL_H
#define ONNXPRESS_OPS_ROTARY_INTERNAL_H

#include "ops/real.h"

#include <stdbool.h>
#include <stdint.h>

typedef enum { FORWARD, BACKWARD, SQUARED } Turn;

/* Turns the first 2 * half of `size` numbers, in pairs of neighbours (interleaved) or of the two
 * halves, by angles with these cosines and sines, and passes on the others. `to` gets the rotation;
 * or its transpose of `from`, or that with every number squared, is added to it. */
void rotary_turn(bool interleaved, int64_t half, int64_t size, Turn turn, const real *cosine,
                 const real *sine, const real *from, real *to);

#endif
