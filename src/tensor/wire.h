/* A check of the protobuf wire format before anything is unpacked.
 *
 * wire_check walks the bytes as the descriptor says and refuses what the unpacker would choke on or
 * lose: lengths past the end, nesting deeper than protobuf's own limit (the unpacker recurses),
 * groups, wire types that do not fit the field, strings with a NUL (they would be cut), a message
 * field that should be single given twice (their merge would lose unknown fields and could grow
 * quadratically). What passes can be unpacked in memory bounded by a constant times its size.
 * Allocates nothing. Example: if (wire_check(&onnx__model_proto__descriptor, p, n, path, err)) …
 */
#ifndef ONNXPRESS_TENSOR_WIRE_H
#define ONNXPRESS_TENSOR_WIRE_H

#include <stddef.h>

#include <protobuf-c/protobuf-c.h>

#include "tensor/arena.h"
#include "tensor/error.h"

int wire_check(const ProtobufCMessageDescriptor *descriptor, const unsigned char *data, size_t size,
               const char *path, Error *err);

/* Unpacks into the arena; what is unpacked is never freed by itself, so that parts of a message can be
 * replaced, shared and dropped freely. */
ProtobufCAllocator wire_allocator(Arena *arena);

/* A bytes field's payload, where it lies in the checked message. */
typedef struct {
    const unsigned char *data;
    size_t bytes;
} WirePayload;

/* The checked message once more, with the payloads of the bytes field number `id` of all messages
 * of type `owner` left behind: in place of each stands its index in `payload` (8 bytes, the machine's
 * order), so that unpacking copies none of them. With NULL for out and payload it only counts. */
void wire_outline(const ProtobufCMessageDescriptor *descriptor, const unsigned char *data,
                  size_t size, const ProtobufCMessageDescriptor *owner, unsigned id,
                  unsigned char *out, size_t *out_size, WirePayload *payload, size_t *n_payloads);

#endif
