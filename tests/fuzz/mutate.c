/* SPDX-License-Identifier: Apache-2.0
 *
 * Changes of ONNX files for libFuzzer that keep them ONNX files: fields are set to telling values,
 * elements of lists removed, doubled, swapped and put elsewhere, names joined to other names, op types
 * replaced by others that the executor knows. Linked into the targets that read models; whoever only
 * replays does not use it. */
#include <stdlib.h>
#include <string.h>

#include "fuzz/fuzz.h"
#include "onnx.pb-c.h"
#include "ops/ops.h"
#include "tensor/wire.h"

enum { MOST_MESSAGES = 2048, MOST_NAMES = 1024, MOST_CHANGES = 4 };

size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t room); /* libFuzzer's */
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t room, unsigned seed);
size_t LLVMFuzzerCustomCrossOver(const uint8_t *a, size_t a_size, const uint8_t *b, size_t b_size,
                                 uint8_t *out, size_t room, unsigned seed);

typedef struct {
    Arena *arena;
    uint64_t random;
    ProtobufCMessage *message[MOST_MESSAGES];
    size_t n_messages;
    char *name[MOST_NAMES]; /* of values, nodes, functions … */
    size_t n_names;
} Mutation;

static ProtobufCMessage *unpack(Mutation *m, const ProtobufCMessageDescriptor *type,
                                const uint8_t *data, size_t size)
{
    Error err = {0};
    ProtobufCAllocator allocator = wire_allocator(m->arena);
    if (wire_check(type, data, size, "", &err))
        return NULL;
    return protobuf_c_message_unpack(type, &allocator, size, data);
}

/* ---- choices ---- */

static uint64_t draw(Mutation *m) /* splitmix64 */
{
    uint64_t z = m->random += 0x9E3779B97F4A7C15u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
}

static size_t below(Mutation *m, size_t n)
{
    return n ? (size_t)(draw(m) % n) : 0;
}

static int64_t telling_integer(Mutation *m, int64_t old)
{
    static const int64_t values[] = {
        0, 1, -1, 2, 3, 4, 5, 7, 8, 9, 16, 17, 64, -2, -8, -9, 255, 256, 65535, 65536, INT32_MAX,
        INT32_MIN, (int64_t)INT32_MAX + 1, (int64_t)1 << 32, (int64_t)1 << 40, (int64_t)1 << 62,
        INT64_MAX, INT64_MIN, INT64_MAX - 1, INT64_MAX / 8 + 1};
    switch (below(m, 4)) {
    case 0:
        return (int64_t)((uint64_t)old + 1);
    case 1:
        return (int64_t)((uint64_t)old - 1);
    case 2:
        return (int64_t)below(m, 12) - 1;
    default:
        return values[below(m, sizeof values / sizeof *values)];
    }
}

static double telling_real(Mutation *m)
{
    static const double values[] = {0,    -0.0, 1,    -1,    0.5,       2,        1e-30,   1e30,
                                    1e38, 3e9,  -3e9, 1e300, 1.0 / 0.0, 0.0 / 0.0, 2.5e-45, 0.9999};
    return values[below(m, sizeof values / sizeof *values)];
}

static char *telling_word(Mutation *m)
{
    static const char *const words[] = {
        "", "axis", "axes", "to", "perm", "keepdims", "kernel_shape", "strides", "pads", "dilations",
        "group", "auto_pad", "ceil_mode", "mode", "value", "alpha", "beta", "epsilon", "transA",
        "transB", "body", "then_branch", "else_branch", "num_scan_inputs", "hidden_size",
        "direction", "activations", "equation", "split", "num_outputs", "blocksize", "exclusive",
        "reverse", "batch_dims", "largest", "sorted", "noop_with_empty_axes", "SAME_UPPER",
        "SAME_LOWER", "VALID", "bidirectional", "linear", "cubic", "nearest", "output_shape",
        "output_padding", "num_heads", "shape", "count_include_pad", "layout", "reduction",
        "nearest_mode", "coordinate_transformation_mode", "NOTSET", "reflect", "edge", "wrap",
        "ai.onnx", "com.microsoft", "location", "offset", "length", "weights.bin", "onnxpress"};
    return (char *)(uintptr_t)words[below(m, sizeof words / sizeof *words)];
}

static char *telling_string(Mutation *m, const char *field)
{
    size_t rows;
    if (strcmp(field, "op_type") == 0) {
        op_row(0, &rows);
        return (char *)(uintptr_t)op_row(below(m, rows), &rows)->type;
    }
    bool word = strcmp(field, "name") == 0 || strcmp(field, "s") == 0 ? below(m, 2) : !below(m, 8);
    return word || !m->n_names ? telling_word(m) : m->name[below(m, m->n_names)];
}

/* ---- fields ---- */

static size_t element_size(const ProtobufCFieldDescriptor *field)
{
    switch (field->type) {
    case PROTOBUF_C_TYPE_STRING:
    case PROTOBUF_C_TYPE_MESSAGE:
        return sizeof(void *);
    case PROTOBUF_C_TYPE_BYTES:
        return sizeof(ProtobufCBinaryData);
    case PROTOBUF_C_TYPE_DOUBLE:
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_UINT64:
        return 8;
    default:
        return 4;
    }
}

static void *member(ProtobufCMessage *message, unsigned offset)
{
    return (char *)message + offset;
}

static size_t *list_length(ProtobufCMessage *message, const ProtobufCFieldDescriptor *field)
{
    return member(message, field->quantifier_offset);
}

static ProtobufCMessage *copy_of(Mutation *m, const ProtobufCMessage *message)
{
    size_t size = protobuf_c_message_get_packed_size(message);
    uint8_t *packed = arena_array(m->arena, size, 1);
    protobuf_c_message_pack(message, packed);
    return unpack(m, message->descriptor, packed, size);
}

static void change_bytes(Mutation *m, ProtobufCBinaryData *bytes)
{
    size_t room = bytes->len + 8;
    uint8_t *changed = arena_array(m->arena, room, 1);
    if (bytes->len)
        memcpy(changed, bytes->data, bytes->len);
    size_t size = bytes->len;
    if (size >= 8 && below(m, 2)) { /* a number of a list of int64 */
        int64_t value;
        size_t at = below(m, size / 8) * 8;
        memcpy(&value, changed + at, 8);
        value = telling_integer(m, value);
        memcpy(changed + at, &value, 8);
    } else {
        size = LLVMFuzzerMutate(changed, size, room);
    }
    *bytes = (ProtobufCBinaryData){size, changed};
}

/* A message of that type from anywhere in the model; NULL: there is none. */
static ProtobufCMessage *another(Mutation *m, const ProtobufCMessageDescriptor *type)
{
    size_t start = below(m, m->n_messages);
    for (size_t k = 0; k < m->n_messages; k++) {
        ProtobufCMessage *found = m->message[(start + k) % m->n_messages];
        if (found->descriptor == type)
            return copy_of(m, found);
    }
    return NULL;
}

static void change_value(Mutation *m, const ProtobufCFieldDescriptor *field, void *value)
{
    double number;
    int64_t integer = 0;
    switch (field->type) {
    case PROTOBUF_C_TYPE_STRING:
        *(char **)value = telling_string(m, field->name);
        break;
    case PROTOBUF_C_TYPE_BYTES:
        change_bytes(m, value);
        break;
    case PROTOBUF_C_TYPE_MESSAGE:
        *(ProtobufCMessage **)value = another(m, field->descriptor);
        break;
    case PROTOBUF_C_TYPE_FLOAT:
        *(float *)value = (float)telling_real(m);
        break;
    case PROTOBUF_C_TYPE_DOUBLE:
        number = telling_real(m);
        memcpy(value, &number, sizeof number);
        break;
    default: /* integers and enums, little-endian */
        memcpy(&integer, value, element_size(field));
        integer = field->type == PROTOBUF_C_TYPE_ENUM ? (int64_t)below(m, 24)
                                                      : telling_integer(m, integer);
        memcpy(value, &integer, element_size(field));
    }
}

static void change_list(Mutation *m, ProtobufCMessage *message,
                        const ProtobufCFieldDescriptor *field)
{
    size_t *n = list_length(message, field), each = element_size(field);
    char **list = member(message, field->offset);
    char *larger = arena_array(m->arena, *n + 1, each), spare[sizeof(ProtobufCBinaryData)];
    if (*n)
        memcpy(larger, *list, *n * each);
    *list = larger;
    size_t a = below(m, *n), b = below(m, *n);
    switch (*n ? below(m, 5) : 0) {
    case 0: /* one more, at the end */
        if (field->type == PROTOBUF_C_TYPE_MESSAGE) {
            ProtobufCMessage *more = another(m, field->descriptor);
            if (!more)
                return;
            memcpy(larger + *n * each, &more, each);
        } else if (field->type == PROTOBUF_C_TYPE_STRING) {
            *(char **)(void *)(larger + *n * each) = telling_string(m, field->name);
        }
        ++*n;
        break;
    case 1:
        memmove(larger + a * each, larger + (a + 1) * each, (--*n - a) * each);
        break;
    case 2:
        memcpy(spare, larger + a * each, each);
        memcpy(larger + a * each, larger + b * each, each);
        memcpy(larger + b * each, spare, each);
        break;
    default:
        if (field->type != PROTOBUF_C_TYPE_MESSAGE)
            change_value(m, field, larger + a * each);
    }
}

static void change_message(Mutation *m, ProtobufCMessage *message)
{
    const ProtobufCMessageDescriptor *type = message->descriptor;
    const ProtobufCFieldDescriptor *field = &type->fields[below(m, type->n_fields)];
    for (int tries = 0; tries < 8; tries++) { /* mostly what is there already */
        if (field->label == PROTOBUF_C_LABEL_REPEATED ? *list_length(message, field) > 0
                                                      : below(m, 2))
            break;
        field = &type->fields[below(m, type->n_fields)];
    }
    if (field->label == PROTOBUF_C_LABEL_REPEATED) {
        change_list(m, message, field);
        return;
    }
    bool one_of = field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF;
    if (one_of && *(uint32_t *)member(message, field->quantifier_offset) != field->id)
        memset(member(message, field->offset), 0, sizeof(void *));
    void *value = member(message, field->offset);
    if (field->type == PROTOBUF_C_TYPE_MESSAGE && *(void **)value && below(m, 2))
        *(void **)value = NULL;
    else
        change_value(m, field, value);
    bool there = field->type != PROTOBUF_C_TYPE_MESSAGE || *(void **)value;
    if (one_of)
        *(uint32_t *)member(message, field->quantifier_offset) = there ? field->id : 0;
    else if (field->quantifier_offset)
        *(protobuf_c_boolean *)member(message, field->quantifier_offset) = true;
}

/* ---- whole files ---- */

static void collect(Mutation *m, ProtobufCMessage *message)
{
    if (m->n_messages == MOST_MESSAGES)
        return;
    m->message[m->n_messages++] = message;
    for (unsigned f = 0; f < message->descriptor->n_fields; f++) {
        const ProtobufCFieldDescriptor *field = &message->descriptor->fields[f];
        void *value = member(message, field->offset);
        bool list = field->label == PROTOBUF_C_LABEL_REPEATED;
        size_t n = list ? *list_length(message, field) : 1;
        if (!list && field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF &&
            *(uint32_t *)member(message, field->quantifier_offset) != field->id)
            continue;
        void **items = list ? *(void ***)value : value;
        for (size_t k = 0; k < n && field->type == PROTOBUF_C_TYPE_MESSAGE; k++)
            if (items[k])
                collect(m, items[k]);
        for (size_t k = 0; k < n && field->type == PROTOBUF_C_TYPE_STRING; k++)
            if (items[k] && m->n_names < MOST_NAMES)
                m->name[m->n_names++] = items[k];
    }
}

static size_t pack(const ProtobufCMessage *message, uint8_t *out, size_t room)
{
    size_t size = protobuf_c_message_get_packed_size(message);
    return size <= room ? protobuf_c_message_pack(message, out) : 0;
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t room, unsigned seed)
{
    Mutation *m = calloc(1, sizeof *m);
    FUZZ_CHECK(m && (m->arena = arena_create()));
    m->random = seed;
    size_t packed = 0;
    ProtobufCMessage *model = unpack(m, &onnx__model_proto__descriptor, data, size);
    if (model && size && below(m, 16)) {
        collect(m, model);
        for (size_t k = below(m, MOST_CHANGES) + 1; k > 0; k--)
            change_message(m, m->message[below(m, m->n_messages)]);
        packed = pack(model, data, room);
    }
    arena_destroy(m->arena);
    free(m);
    return packed ? packed : LLVMFuzzerMutate(data, size, room);
}

/* The nodes, weights and functions of one model behind those of another. */
size_t LLVMFuzzerCustomCrossOver(const uint8_t *a, size_t a_size, const uint8_t *b, size_t b_size,
                                 uint8_t *out, size_t room, unsigned seed)
{
    static const char *const lists[] = {"node", "initializer"};
    Mutation *m = calloc(1, sizeof *m);
    FUZZ_CHECK(m && (m->arena = arena_create()));
    m->random = seed;
    size_t packed = 0;
    const ProtobufCMessageDescriptor *type = &onnx__model_proto__descriptor;
    Onnx__ModelProto *first = (void *)unpack(m, type, a, a_size);
    Onnx__ModelProto *second = (void *)unpack(m, type, b, b_size);
    if (first && second && first->graph && second->graph) {
        for (size_t k = 0; k < sizeof lists / sizeof *lists; k++) {
            const ProtobufCFieldDescriptor *field = protobuf_c_message_descriptor_get_field_by_name(
                first->graph->base.descriptor, lists[k]);
            ProtobufCMessage *to = &first->graph->base, *from = &second->graph->base;
            size_t n = *list_length(to, field), more = *list_length(from, field);
            void **joined = arena_array(m->arena, n + more, sizeof *joined);
            if (n)
                memcpy(joined, *(void ***)member(to, field->offset), n * sizeof *joined);
            if (more)
                memcpy(joined + n, *(void ***)member(from, field->offset), more * sizeof *joined);
            *(void ***)member(to, field->offset) = joined;
            *list_length(to, field) = n + more;
        }
        packed = pack(&first->base, out, room);
    }
    arena_destroy(m->arena);
    free(m);
    return packed;
}
