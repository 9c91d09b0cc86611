/* Builders of protobuf messages in a model's arena: tensors, nodes, attributes, functions.
 *
 * Everything returned lives in the model's arena; strings and data are copied. NULL means out of
 * memory. Nothing is attached to the model unless the function's name says append. Tensors carry
 * raw_data. Example:
 *   model_append_initializer(model, build_tensor(model, "s", DTYPE_UINT8, 1, dims, bytes, n));
 */
#ifndef ONNXPRESS_MODEL_BUILD_H
#define ONNXPRESS_MODEL_BUILD_H

#include "model/model.h"

Onnx__TensorProto *build_tensor(Model *model, const char *name, int dtype, int rank,
                                const int64_t *dims, const void *data, size_t bytes);
/* Optional inputs and outputs that are omitted are "". */
Onnx__NodeProto *build_node(Model *model, const char *domain, const char *op_type,
                            const char *const *inputs, size_t n_inputs,
                            const char *const *outputs, size_t n_outputs);
bool build_attribute_int(Model *model, Onnx__NodeProto *node, const char *name, int64_t value);
bool build_attribute_ints(Model *model, Onnx__NodeProto *node, const char *name,
                          const int64_t *values, size_t n);
bool build_attribute_tensor(Model *model, Onnx__NodeProto *node, const char *name,
                            Onnx__TensorProto *value);

bool model_append_initializer(Model *model, Onnx__TensorProto *tensor);
bool model_append_function(Model *model, Onnx__FunctionProto *function);
/* Puts the nodes before all nodes of the graph. */
bool model_prepend_nodes(Model *model, Onnx__NodeProto *const *nodes, size_t n);
bool model_append_opset(Model *model, const char *domain, int64_t version); /* no-op if there */
/* Removes the initializer, and a graph input of its name. */
void model_remove_initializer(Model *model, const Onnx__TensorProto *tensor);
void graph_remove_initializer(Onnx__GraphProto *graph, const Onnx__TensorProto *tensor);
void graph_remove_node(Onnx__GraphProto *graph, const Onnx__NodeProto *node);

/* A name that no value, node or initializer of the model (subgraphs included) has and that this
 * function has not given before: short, "<prefix><number in base 36>". */
const char *model_fresh_name(Model *model, const char *prefix);

#endif
