/* Model-local functions: their bodies in place of the calls, for whoever runs the graph.
 *
 * What torch.onnx and onnxscript write is full of calls. After model_inline the model's graph has none
 * (but those of domain "onnxpress", which are ours to restore, and those whose opset is not the
 * model's); initializers and nodes without a call are shared with the graph as it was, so values that
 * are changed are changed in both, and model_save writes the graph as it was. Constants of function
 * bodies become nodes of domain INLINE_EXACT: they are run, and are no weights of the model.
 */
#ifndef ONNXPRESS_MODEL_INLINE_H
#define ONNXPRESS_MODEL_INLINE_H

#include "model/model.h"

#define INLINE_EXACT "onnxpress.exact"

/* ONNXPRESS_FORMAT: calls without end; ONNXPRESS_UNSUPPORTED: far more nodes than the file has. */
int model_inline(Model *model, Error *err);

#endif
