/* SPDX-License-Identifier: Apache-2.0
 *
 * The decoder of a wavelet block in standard ops of their opset-11 form, with static shapes only,
 * so that onnxruntime folds it into a constant when a session is created. entropy/FORMAT.md defines
 * the streams; here is how each step of it looks in ops. Names are short since every byte ships.
 */
#include <string.h>

#include "rewrite/rewrite_internal.h"

const char role_letter[ROLE_END + 1] = "slnkrtGEcauv";

/* Where nodes go, and what their local names look like there. */
typedef struct {
    Emitter *emit;
    const char *scope; /* NULL: a function's body, where names are local anyway */
    uint32_t *made;    /* constants that are there already */
} Scope;

typedef enum {
    CONSTANT_AXIS,   /* z: 0 */
    CONSTANT_ONE,    /* y: 1 */
    CONSTANT_FLAT,   /* F: the shape [-1] */
    CONSTANT_SHIFTS, /* P: 0..7 */
    CONSTANT_SEVEN   /* Q: 7 */
} Constant;

static const char *local(Scope *s, const char *name)
{
    return s->scope ? emit_name(s->emit, arena_printf(s->emit->scratch, "%s%s", s->scope, name))
                    : name;
}

static const char *local_numbered(Scope *s, char letter, int number)
{
    const char *name =
        arena_printf(s->emit->scratch, "%c%c", letter, "0123456789abcdefghijk"[number]);
    s->emit->failed |= !name;
    return name ? local(s, name) : NULL;
}

/* In a function a Constant node; in the graph an initializer that all blocks share. */
static const char *constant(Scope *s, Constant which)
{
    static const char *const name[] = {"z", "y", "F", "P", "Q"};
    static const uint8_t shift[8] = {0, 1, 2, 3, 4, 5, 6, 7};
    static const int64_t eight = 8, one = 1, minus_one = -1, zero = 0;
    Emitter *e = s->emit;
    const char *output = s->scope ? emit_name(e, name[which]) : name[which];
    uint32_t bit = 1u << which;
    if (*s->made & bit)
        return output;
    *s->made |= bit;
    Onnx__TensorProto *tensor = NULL;
    switch (which) {
    case CONSTANT_AXIS:
        tensor = emit_small(e, output, DTYPE_INT32, 0, &zero, 1);
        break;
    case CONSTANT_ONE:
        tensor = emit_small(e, output, DTYPE_INT32, 0, &one, 1);
        break;
    case CONSTANT_FLAT:
        tensor = emit_raw(e, output, DTYPE_INT64, 1, &one, &minus_one, sizeof minus_one);
        break;
    case CONSTANT_SHIFTS:
        tensor = emit_raw(e, output, DTYPE_UINT8, 1, &eight, shift, sizeof shift);
        break;
    case CONSTANT_SEVEN:
        tensor = emit_raw(e, output, DTYPE_UINT8, 0, NULL, &shift[7], 1);
        break;
    }
    if (s->scope)
        emit_initializer(e, tensor);
    else
        emit_constant(e, tensor, output);
    return output;
}

/* One level of the tree upwards. `below` and `tail` together are what the level's children hold; a
 * true bit in `zero` takes the next from the front, a false one the next from the back (an index
 * below 0 counts from the end). */
static void step_body(Scope *s, const char *zero, const char *below, const char *tail,
                      const char *output)
{
    Emitter *e = s->emit;
    const char *axis = constant(s, CONSTANT_AXIS), *one = constant(s, CONSTANT_ONE);
    const char *front = local(s, "d"), *back = local(s, "c"), *at = local(s, "i");
    const char *zeros = local(s, "n"), *ones = local(s, "m"), *all = local(s, "a");
    emit_cast(e, zero, zeros, DTYPE_INT32);
    emit_node(e, "", "Sub", NAMES(zeros, one), NAMES(ones));
    emit_node(e, "", "CumSum", NAMES(ones, axis), NAMES(back));
    emit_int(e, emit_node(e, "", "CumSum", NAMES(zeros, axis), NAMES(front)), "exclusive", 1);
    emit_node(e, "", "Where", NAMES(zero, front, back), NAMES(at));
    emit_int(e, emit_node(e, "", "Concat", NAMES(below, tail), NAMES(all)), "axis", 0);
    emit_node(e, "", "Gather", NAMES(all, at), NAMES(output));
}

/* An int32 tensor of the shape given, all `value`. */
static void emit_filled(Emitter *e, const char *shape, int64_t value, const char *output)
{
    Onnx__NodeProto *fill = emit_node(e, "", "ConstantOfShape", NAMES(shape), NAMES(output));
    Onnx__TensorProto *tensor = emit_small(e, "", DTYPE_INT32, 1, &value, 1);
    if (tensor)
        tensor->name = NULL;
    e->failed |= !fill || !tensor || !build_attribute_tensor(e->model, fill, "value", tensor);
}

/* From the members of each run but the last to the run's number for each member. */
static void runs_body(Scope *s, const char *members, const char *total, const char *output)
{
    Emitter *e = s->emit;
    const char *axis = constant(s, CONSTANT_AXIS);
    const char *count = local(s, "a"), *start = local(s, "b"), *ones = local(s, "c");
    const char *none = local(s, "d"), *marks = local(s, "e");
    emit_cast(e, members, count, DTYPE_INT32);
    emit_node(e, "", "CumSum", NAMES(count, axis), NAMES(start));
    emit_node(e, "", "Div", NAMES(count, count), NAMES(ones));
    emit_filled(e, total, 0, none);
    emit_node(e, "", "ScatterElements", NAMES(none, start, ones), NAMES(marks));
    emit_node(e, "", "CumSum", NAMES(marks, axis), NAMES(output));
}

static void step(Scope *s, int level, const char *zero, const char *below, const char *tail,
                 const char *output)
{
    if (!s->scope) {
        emit_node(s->emit, REWRITE_DOMAIN, "Step", NAMES(zero, below, tail), NAMES(output));
        return;
    }
    Scope inner = *s;
    inner.scope = arena_printf(s->emit->scratch, "%s%d_", s->scope, level);
    s->emit->failed |= !inner.scope;
    step_body(&inner, zero, below, tail, output);
}

static void runs(Scope *s, const char *name, const char *members, const char *total,
                 const char *output)
{
    if (!s->scope) {
        emit_node(s->emit, REWRITE_DOMAIN, "Runs", NAMES(members, total), NAMES(output));
        return;
    }
    Scope inner = *s;
    inner.scope = arena_printf(s->emit->scratch, "%s%s_", s->scope, name);
    s->emit->failed |= !inner.scope;
    runs_body(&inner, members, total, output);
}

/* bit[1..levels]: whether each of a level's bits is 0. The stream's bytes become eight rows of
 * their bits, first bit first. */
static void unpack_bits(Scope *s, const BlockShape *shape, const char *const *in, const char **bit)
{
    Emitter *e = s->emit;
    const char *top = local(s, "d"), *bits = local(s, "e"), *ones = local(s, "f");
    const char *zeros = local(s, "g"), *flat = local(s, "h");
    const char *shifts = constant(s, CONSTANT_SHIFTS), *seven = constant(s, CONSTANT_SEVEN);
    emit_string(e, emit_node(e, "", "BitShift", NAMES(in[ROLE_STREAM], shifts), NAMES(top)),
                "direction", "LEFT");
    emit_string(e, emit_node(e, "", "BitShift", NAMES(top, seven), NAMES(bits)), "direction",
                "RIGHT");
    emit_cast(e, bits, ones, DTYPE_BOOL);
    emit_node(e, "", "Not", NAMES(ones), NAMES(zeros));
    emit_node(e, "", "Reshape", NAMES(zeros, constant(s, CONSTANT_FLAT)), NAMES(flat));
    for (int l = 1; l <= shape->levels; l++)
        bit[l] = local_numbered(s, 'b', l);
    bit[shape->levels + 1] = local(s, "b"); /* the padding */
    emit_split(e, flat, in[ROLE_LEVELS], shape->level_size, bit + 1, (size_t)shape->levels + 1);
}

/* From an entry a pair to a symbol an element: the gaps add up to places, and what stands between
 * them is the skipped symbol. */
static void fill_gaps(Scope *s, const BlockShape *shape, const char *const *in, const char *symbols,
                      const char *index, const char *output)
{
    Emitter *e = s->emit;
    const char *width = local(s, "A"), *widths = local(s, "B"), *end = local(s, "C");
    const char *at = local(s, "D"), *picked = local(s, "H"), *filled = local(s, "I");
    emit_cast(e, in[ROLE_GAPS], width, DTYPE_INT32);
    emit_node(e, "", "Gather", NAMES(width, index), NAMES(widths));
    emit_node(e, "", "CumSum", NAMES(widths, constant(s, CONSTANT_AXIS)), NAMES(end));
    emit_node(e, "", "Sub", NAMES(end, constant(s, CONSTANT_ONE)), NAMES(at));
    emit_node(e, "", "Gather", NAMES(symbols, index), NAMES(picked));
    emit_filled(e, in[ROLE_FILLED], shape->skipped, filled);
    emit_node(e, "", "ScatterElements", NAMES(filled, at, picked), NAMES(output));
}

static void decode_body(Scope *s, const BlockShape *shape, const char *const *in,
                        const char *output)
{
    Emitter *e = s->emit;
    const char *bit[WAVELET_MAX_LEVELS + 2], *tail[WAVELET_MAX_LEVELS + 1];
    unpack_bits(s, shape, in, bit);

    const char *rank = local(s, "i"), *narrow = local(s, "j");
    runs(s, "r", in[ROLE_RUNS], in[ROLE_TUPLES], rank);
    if (shape->rank_type != DTYPE_INT32)
        emit_cast(e, rank, narrow, shape->rank_type);
    else
        narrow = rank;
    for (int i = 0; i <= shape->levels; i++)
        tail[i] = local_numbered(s, 'r', i);
    emit_split(e, narrow, in[ROLE_TAILS], shape->tail_size, tail, (size_t)shape->levels + 1);
    const char *below = tail[0];
    for (int l = shape->levels; l >= 1; l--) {
        const char *up = local_numbered(s, 'x', l);
        step(s, l, bit[l], below, tail[shape->levels - l + 1], up);
        below = up;
    }

    const char *symbols = local(s, "m"), *entries = local(s, "o"), *index = local(s, "p");
    const char *value = shape->scales == SCALE_NONE ? output : local(s, "x");
    emit_cast(e, in[ROLE_TABLE], symbols, DTYPE_INT32);
    if (shape->rank_type != DTYPE_INT32)
        emit_cast(e, below, index, DTYPE_INT32);
    else
        index = below;
    if (!shape->gaps)
        emit_node(e, "", "Gather", NAMES(in[ROLE_CODEBOOK], symbols), NAMES(entries));
    if (shape->gaps) {
        fill_gaps(s, shape, in, symbols, index, entries);
        emit_node(e, "", "Gather", NAMES(in[ROLE_CODEBOOK], entries), NAMES(value));
    } else if (shape->flat) {
        emit_node(e, "", "Gather", NAMES(entries, index), NAMES(value));
    } else {
        const char *rows = local(s, "q");
        emit_node(e, "", "Gather", NAMES(entries, index), NAMES(rows));
        emit_node(e, "", "Reshape", NAMES(rows, constant(s, CONSTANT_FLAT)), NAMES(value));
    }
    if (shape->scales == SCALE_ONE) {
        emit_node(e, "", "Mul", NAMES(value, in[ROLE_SCALES]), NAMES(output));
    } else if (shape->scales == SCALE_MANY) {
        const char *piece = local(s, "w"), *scale = local(s, "Y");
        runs(s, "p", in[ROLE_PIECES], in[ROLE_COUNT], piece);
        emit_node(e, "", "Gather", NAMES(in[ROLE_SCALES], piece), NAMES(scale));
        emit_node(e, "", "Mul", NAMES(value, scale), NAMES(output));
    }
}

/* Strings into the model's arena. */
static bool copy_names(Model *model, const char *const *names, size_t n, char ***copy)
{
    *copy = arena_array(model->arena, n, sizeof **copy);
    for (size_t i = 0; *copy && i < n; i++)
        if (!((*copy)[i] = arena_strdup(model->arena, names[i])))
            return false;
    return *copy != NULL;
}

static bool import_opset(Model *model, Onnx__OperatorSetIdProto **slot, char *domain,
                         int64_t version)
{
    if (!(*slot = arena_array(model->arena, 1, sizeof **slot)))
        return false;
    onnx__operator_set_id_proto__init(*slot);
    (*slot)->domain = domain;
    (*slot)->has_version = 1;
    (*slot)->version = version;
    return true;
}

static Onnx__FunctionProto *make_function(Model *model, const char *name, const List *body,
                                          const char *const *inputs, size_t n_inputs,
                                          const char *const *outputs, bool calls)
{
    Onnx__FunctionProto *f = arena_array(model->arena, 1, sizeof *f);
    if (!f)
        return NULL;
    onnx__function_proto__init(f);
    f->name = arena_strdup(model->arena, name);
    f->domain = arena_strdup(model->arena, REWRITE_DOMAIN);
    f->node = arena_array(model->arena, body->n, sizeof *f->node);
    f->opset_import = arena_array(model->arena, 2, sizeof *f->opset_import);
    if (!f->name || !f->domain || !f->node || !f->opset_import ||
        !copy_names(model, inputs, n_inputs, &f->input) ||
        !copy_names(model, outputs, 1, &f->output) ||
        !import_opset(model, &f->opset_import[0], NULL, model->opset) ||
        !import_opset(model, &f->opset_import[1], f->domain, REWRITE_OPSET))
        return NULL;
    f->n_input = n_inputs;
    f->n_output = 1;
    f->n_opset_import = calls ? 2 : 1;
    for (size_t i = 0; i < body->n; i++)
        f->node[i] = body->item[i];
    f->n_node = body->n;
    return f;
}

/* A body is collected in an emitter of its own. */
static Emitter body_emitter(const Emitter *outer)
{
    return (Emitter){.model = outer->model,
                     .scratch = outer->scratch,
                     .prefix = outer->prefix,
                     .failed = outer->failed};
}

bool decoder_begin(Decoder *decoder, Emitter *emit, bool inlined)
{
    *decoder = (Decoder){.emit = emit, .inlined = inlined};
    if (inlined)
        return true;
    Emitter body = body_emitter(emit);
    uint32_t made = 0;
    Scope scope = {&body, NULL, &made};
    step_body(&scope, "b", "x", "r", "o");
    Onnx__FunctionProto *function = make_function(
        emit->model, "Step", &body.nodes, NAMES("b", "x", "r"), (const char *[]){"o"}, false);
    emit->failed |= body.failed || !list_add(&decoder->functions, emit->scratch, function);
    body = body_emitter(emit);
    made = 0;
    runs_body(&scope, "n", "k", "o");
    function = make_function(emit->model, "Runs", &body.nodes, NAMES("n", "k"),
                             (const char *[]){"o"}, false);
    emit->failed |= body.failed || !list_add(&decoder->functions, emit->scratch, function);
    return !emit->failed;
}

bool role_used(const Model *model, const BlockShape *shape, Role role)
{
    switch (role) {
    case ROLE_LEVELS:
    case ROLE_TAILS:
        return model->opset >= 13;
    case ROLE_GAPS:
    case ROLE_FILLED:
        return shape->gaps;
    case ROLE_SCALES:
        return shape->scales != SCALE_NONE;
    case ROLE_PIECES:
    case ROLE_COUNT:
        return shape->scales == SCALE_MANY;
    default:
        return true;
    }
}

static bool same_but_name(Onnx__FunctionProto *a, Onnx__FunctionProto *b, Arena *scratch,
                          bool *same)
{
    char *name = b->name;
    b->name = a->name;
    size_t bytes = onnx__function_proto__get_packed_size(a);
    *same = bytes == onnx__function_proto__get_packed_size(b);
    uint8_t *x = NULL, *y = NULL;
    if (*same && (x = arena_array(scratch, bytes, 2)) != NULL) {
        y = x + bytes;
        onnx__function_proto__pack(a, x);
        onnx__function_proto__pack(b, y);
        *same = memcmp(x, y, bytes) == 0;
    }
    b->name = name;
    return !*same || x;
}

/* The function for blocks of this shape: one that is there already, or a new one. */
static const char *decode_function(Decoder *decoder, const BlockShape *shape,
                                   const char *const *inputs, size_t n_inputs,
                                   const char *const *by_role)
{
    Emitter *e = decoder->emit;
    size_t kinds = decoder->functions.n - 2; /* after Step and Runs */
    const char *name =
        kinds ? arena_printf(e->scratch, "HuffmanDecode%zu", kinds + 1) : "HuffmanDecode";
    Emitter body = body_emitter(e);
    uint32_t made = 0;
    Scope scope = {&body, NULL, &made};
    decode_body(&scope, shape, by_role, "Z");
    Onnx__FunctionProto *function = body.failed || !name
                                        ? NULL
                                        : make_function(e->model, name, &body.nodes, inputs,
                                                        n_inputs, (const char *[]){"Z"}, true);
    if (!function)
        return NULL;
    for (size_t i = 2; i < decoder->functions.n; i++) {
        Onnx__FunctionProto *known = decoder->functions.item[i];
        bool same;
        if (!same_but_name(known, function, e->scratch, &same))
            return NULL;
        if (same)
            return known->name;
    }
    return list_add(&decoder->functions, e->scratch, function) ? function->name : NULL;
}

bool decoder_block(Decoder *decoder, const BlockShape *shape, size_t block, const char *output)
{
    Emitter *e = decoder->emit;
    const char *graph_name[ROLE_END], *body_name[ROLE_END], *outer[ROLE_END], *inner[ROLE_END];
    size_t n = 0;
    for (Role role = 0; role < ROLE_END; role++) {
        graph_name[role] = emit_numbered(e, role_letter[role], role == ROLE_CODEBOOK ? 0 : block);
        body_name[role] = arena_printf(e->scratch, "%c", role_letter[role]);
        e->failed |= !body_name[role];
        if (role_used(e->model, shape, role)) {
            outer[n] = graph_name[role];
            inner[n++] = body_name[role];
        }
    }
    if (e->failed)
        return false;
    if (decoder->inlined) {
        Scope scope = {e, arena_printf(e->scratch, "%zu_", block), &decoder->constants};
        e->failed |= !scope.scope;
        decode_body(&scope, shape, graph_name, output);
    } else {
        const char *function = decode_function(decoder, shape, inner, n, body_name);
        e->failed |= !function;
        if (function)
            emit_node(e, REWRITE_DOMAIN, function, outer, n, NAMES(output));
    }
    return !e->failed;
}
