/* SPDX-License-Identifier: Apache-2.0 */
#include "tensor/wire.h"

#include <limits.h>
#include <stdbool.h>
#include <string.h>

#define MAX_DEPTH 101 /* the file and 100 messages in messages, the limit of protobuf itself */

enum { WIRE_VARINT = 0, WIRE_64BIT = 1, WIRE_LENGTH = 2, WIRE_32BIT = 5 };

typedef struct {
    const unsigned char *start, *at; /* of the whole file; the byte that is read now */
    const char *path;
    const ProtobufCFieldDescriptor *field; /* for messages: the field being read, NULL: unknown */
    Error *err;
} Scan;

static int damaged(const Scan *scan, const char *what)
{
    return error_set(scan->err, ONNXPRESS_FORMAT,
                     "%s: not a valid ONNX file: %s (byte %zu%s%s); truncated or damaged?",
                     scan->path, what, (size_t)(scan->at - scan->start),
                     scan->field ? ", field " : "", scan->field ? scan->field->name : "");
}

/* At most `max_bytes` bytes; false when it does not end in time. */
static bool read_varint(Scan *scan, const unsigned char *end, int max_bytes, uint64_t *value)
{
    *value = 0;
    for (int i = 0; i < max_bytes && scan->at < end; i++) {
        unsigned char byte = *scan->at++;
        *value |= (uint64_t)(byte & 0x7f) << 7 * i;
        if (byte < 0x80)
            return true;
    }
    return false;
}

/* The wire type of a field's elements; -1 for one that this schema does not have. */
static int element_wire_type(const ProtobufCFieldDescriptor *field)
{
    switch (field->type) {
    case PROTOBUF_C_TYPE_STRING:
    case PROTOBUF_C_TYPE_BYTES:
    case PROTOBUF_C_TYPE_MESSAGE:
        return WIRE_LENGTH;
    case PROTOBUF_C_TYPE_FLOAT:
    case PROTOBUF_C_TYPE_FIXED32:
    case PROTOBUF_C_TYPE_SFIXED32:
        return WIRE_32BIT;
    case PROTOBUF_C_TYPE_DOUBLE:
    case PROTOBUF_C_TYPE_FIXED64:
    case PROTOBUF_C_TYPE_SFIXED64:
        return WIRE_64BIT;
    default:
        return WIRE_VARINT;
    }
}

static int check_packed(Scan *scan, const unsigned char *end, int element)
{
    size_t bytes = (size_t)(end - scan->at);
    if (element != WIRE_VARINT) {
        if (bytes % (element == WIRE_64BIT ? 8 : 4) != 0)
            return damaged(scan, "a packed list ends inside an element");
        scan->at = end;
        return ONNXPRESS_OK;
    }
    while (scan->at < end) {
        uint64_t value;
        if (!read_varint(scan, end, 10, &value))
            return damaged(scan, "a number does not end");
    }
    return ONNXPRESS_OK;
}

static int check_message(Scan *scan, const ProtobufCMessageDescriptor *descriptor,
                         const unsigned char *end, int depth);

/* The payload of a length-delimited field. */
static int check_payload(Scan *scan, const ProtobufCFieldDescriptor *field,
                         const unsigned char *end, int depth)
{
    int element = field ? element_wire_type(field) : WIRE_LENGTH;
    if (element != WIRE_LENGTH)
        return check_packed(scan, end, element);
    if (field && field->type == PROTOBUF_C_TYPE_MESSAGE) {
        if (depth >= MAX_DEPTH)
            return damaged(scan, "messages are nested too deeply");
        return check_message(scan, field->descriptor, end, depth + 1);
    }
    if (field && field->type == PROTOBUF_C_TYPE_STRING &&
        memchr(scan->at, 0, (size_t)(end - scan->at)))
        return damaged(scan, "a string contains a NUL");
    scan->at = end;
    return ONNXPRESS_OK;
}

static int check_message(Scan *scan, const ProtobufCMessageDescriptor *descriptor,
                         const unsigned char *end, int depth)
{
    uint64_t seen = 0; /* by index in the descriptor; no message of the schema has 64 fields */
    while (scan->at < end) {
        uint64_t tag, value;
        scan->field = NULL;
        if (!read_varint(scan, end, 5, &tag) || tag >> 3 == 0 || tag > UINT32_MAX)
            return damaged(scan, "no valid field starts here");
        const ProtobufCFieldDescriptor *field =
            protobuf_c_message_descriptor_get_field(descriptor, (unsigned)(tag >> 3));
        int wire_type = (int)(tag & 7);
        scan->field = field;
        if (field) {
            int element = element_wire_type(field);
            bool packed = wire_type == WIRE_LENGTH && field->label == PROTOBUF_C_LABEL_REPEATED;
            if (wire_type != element && !packed)
                return damaged(scan, "a field of the wrong type");
            if (field->type == PROTOBUF_C_TYPE_MESSAGE &&
                field->label != PROTOBUF_C_LABEL_REPEATED) {
                uint64_t bit = (uint64_t)1 << (field - descriptor->fields);
                if (seen & bit)
                    return damaged(scan, "a field that should be single is there twice");
                seen |= bit;
            }
        }
        size_t left;
        int status;
        switch (wire_type) {
        case WIRE_VARINT:
            if (!read_varint(scan, end, 10, &value))
                return damaged(scan, "a number does not end");
            break;
        case WIRE_64BIT:
        case WIRE_32BIT:
            left = (size_t)(end - scan->at);
            if (left < (wire_type == WIRE_64BIT ? 8u : 4u))
                return damaged(scan, "a number does not end");
            scan->at += wire_type == WIRE_64BIT ? 8 : 4;
            break;
        case WIRE_LENGTH:
            if (!read_varint(scan, end, 5, &value))
                return damaged(scan, "a length does not end");
            if (value > INT_MAX || value > (uint64_t)(end - scan->at))
                return damaged(scan, "a length runs past the end");
            status = check_payload(scan, field, scan->at + value, depth);
            if (status)
                return status;
            break;
        default:
            return damaged(scan, "a group or an unknown wire type");
        }
    }
    return ONNXPRESS_OK;
}

int wire_check(const ProtobufCMessageDescriptor *descriptor, const unsigned char *data, size_t size,
               const char *path, Error *err)
{
    Scan scan = {.start = data, .at = data, .path = path, .err = err};
    return check_message(&scan, descriptor, data + size, 1);
}

/* ---- outline ---- */

#define LENGTH_BYTES 5 /* a length that is filled in later, in a varint that is longer than it needs */

typedef struct {
    Scan scan;
    const ProtobufCMessageDescriptor *owner;
    unsigned id;
    unsigned char *out; /* NULL: count */
    size_t size;
    WirePayload *payload;
    size_t n_payloads;
} Outline;

static void put(Outline *o, const void *data, size_t bytes)
{
    if (o->out)
        memcpy(o->out + o->size, data, bytes);
    o->size += bytes;
}

static void put_length(Outline *o, size_t at, uint64_t length)
{
    for (int i = 0; o->out && i < LENGTH_BYTES; i++)
        o->out[at + (size_t)i] =
            (unsigned char)((length >> 7 * i & 0x7f) | (i < LENGTH_BYTES - 1 ? 0x80 : 0));
}

static void put_index(Outline *o, const unsigned char *data, size_t bytes)
{
    uint64_t index = o->n_payloads++;
    unsigned char length = sizeof index;
    if (o->payload)
        o->payload[index] = (WirePayload){data, bytes};
    put(o, &length, 1);
    put(o, &index, sizeof index);
}

/* The message has been checked: nothing in it is malformed, nor nested too deeply. */
static void outline_message(Outline *o, const ProtobufCMessageDescriptor *descriptor,
                            const unsigned char *end)
{
    Scan *scan = &o->scan;
    while (scan->at < end) {
        const unsigned char *start = scan->at;
        uint64_t tag = 0, value = 0;
        read_varint(scan, end, 5, &tag);
        const unsigned char *tag_end = scan->at;
        const ProtobufCFieldDescriptor *field =
            protobuf_c_message_descriptor_get_field(descriptor, (unsigned)(tag >> 3));
        int wire_type = (int)(tag & 7);
        if (wire_type == WIRE_VARINT) {
            read_varint(scan, end, 10, &value);
        } else if (wire_type != WIRE_LENGTH) {
            scan->at += wire_type == WIRE_64BIT ? 8 : 4;
        } else {
            read_varint(scan, end, 5, &value);
            const unsigned char *payload = scan->at;
            if (field && field->type == PROTOBUF_C_TYPE_MESSAGE) {
                put(o, start, (size_t)(tag_end - start));
                size_t length_at = o->size;
                o->size += LENGTH_BYTES;
                outline_message(o, field->descriptor, payload + value);
                put_length(o, length_at, o->size - length_at - LENGTH_BYTES);
                continue;
            }
            scan->at = payload + value;
            if (field && descriptor == o->owner && field->id == o->id) {
                put(o, start, (size_t)(tag_end - start));
                put_index(o, payload, (size_t)value);
                continue;
            }
        }
        put(o, start, (size_t)(scan->at - start));
    }
}

void wire_outline(const ProtobufCMessageDescriptor *descriptor, const unsigned char *data,
                  size_t size, const ProtobufCMessageDescriptor *owner, unsigned id,
                  unsigned char *out, size_t *out_size, WirePayload *payload, size_t *n_payloads)
{
    Outline outline = {.scan = {.start = data, .at = data},
                       .owner = owner,
                       .id = id,
                       .out = out,
                       .payload = payload};
    outline_message(&outline, descriptor, data + size);
    *out_size = outline.size;
    *n_payloads = outline.n_payloads;
}

static void *take(void *arena, size_t bytes)
{
    return arena_array(arena, bytes, 1);
}

static void leave(void *arena, void *block)
{
    (void)arena;
    (void)block;
}

ProtobufCAllocator wire_allocator(Arena *arena)
{
    return (ProtobufCAllocator){take, leave, arena};
}
