/* A typed, shaped view of a TensorProto whose data are in the message itself.
 *
 * proto_view_shape reads type and shape, checks them and tells how many bytes belong to them;
 * proto_view adds the data (raw_data, or the typed field of that type). Elements kept in a wider
 * typed field are converted into the arena, each time it is called; all else is a view into the
 * message. `file` and tensor->name (to be set by the caller) are for errors: ONNXPRESS_FORMAT,
 * _UNSUPPORTED (more axes than TENSOR_MAX_RANK), _MEMORY. String tensors have no data and no bytes.
 */
#ifndef ONNXPRESS_TENSOR_PROTO_VIEW_H
#define ONNXPRESS_TENSOR_PROTO_VIEW_H

#include "onnx.pb-c.h"
#include "tensor/tensor.h"

/* *bytes is what the shape needs; *known is false for strings and types new to this version. */
int proto_view_shape(const Onnx__TensorProto *proto, const char *file, Tensor *tensor,
                     uint64_t *bytes, bool *known, Error *err);
bool proto_is_external(const Onnx__TensorProto *proto);
int proto_view(const Onnx__TensorProto *proto, const char *file, Arena *arena, Tensor *tensor,
               Error *err);

#endif
