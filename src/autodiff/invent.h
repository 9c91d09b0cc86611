/* Invent: random inputs for a graph, from the types and shapes that it declares, for a first try
 * without data.
 *
 * Reals are noise that changes slowly along the last two axes, as pictures and sounds do; tokens lie
 * within the tables that they are looked up in; masks are ones, states zeros, sizes what was chosen.
 * Axes without a fixed size get 1 where they count samples, else `size`. There are fewer samples where
 * their sizes are large. The Dataset owns everything. Errors: ONNXPRESS_UNSUPPORTED for an input of
 * unknown rank or a type that no op here takes, ONNXPRESS_MEMORY for a size beyond reason.
 */
#ifndef ONNXPRESS_AUTODIFF_INVENT_H
#define ONNXPRESS_AUTODIFF_INVENT_H

#include "autodiff/autodiff.h"
#include "tensor/dataset.h"

/* *free_sizes: `size` was used, so that another one may do where this one does not. */
int invent_samples(const Program *program, int64_t samples, int64_t size, uint64_t seed,
                   Dataset **dataset, bool *free_sizes, Error *err);

#endif
