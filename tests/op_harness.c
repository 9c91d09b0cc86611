/* SPDX-License-Identifier: Apache-2.0 */
#include "op_harness.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MOST_ARGUMENTS 12
#define DRAWS 3        /* of sizes and values, a case */
#define FD_STEP 1e-5   /* central differences in double: error about 1e-10 */
#define TOLERANCE 1e-6 /* of the largest gradient of the tensor */
#define BEND_STEP 1e-4 /* second differences in double: error about 1e-7 */
#define BEND_TOLERANCE 1e-4
#define PREFILL 0.25 /* what gradients are added to */

/* Exactly as large as asked for, so that sanitizers see an element too many. */
typedef struct {
    void **block;
    int n, room;
} Blocks;

struct OpRun {
    Arena *arena;
    char text[400]; /* the case, for messages */
    Onnx__NodeProto proto;
    OpNode node;
    OpCall call;
    Error err;
    int status;
    Value in[MOST_ARGUMENTS], out[MOST_ARGUMENTS];
    Value *in_list[MOST_ARGUMENTS], *out_list[MOST_ARGUMENTS];
    char kind[MOST_ARGUMENTS]; /* of each input; '-': omitted */
    uint64_t random;
    Blocks passing; /* of the current forward run */
    Blocks lasting; /* inputs, gradients */
};

static double uniform(OpRun *run) /* [0, 1) */
{
    run->random = run->random * 6364136223846793005u + 1442695040888963407u;
    return (double)(run->random >> 11) * 0x1p-53;
}

static void *block(Blocks *blocks, size_t count, size_t size)
{
    if (blocks->n == blocks->room) {
        blocks->room = blocks->room ? 2 * blocks->room : 16;
        blocks->block = realloc(blocks->block, (size_t)blocks->room * sizeof *blocks->block);
        ck_assert_ptr_nonnull(blocks->block);
    }
    void *data;
    ck_assert_int_eq(posix_memalign(&data, 64, count * size), 0);
    memset(data, 0xff, count * size); /* NaN in reals, -1 in integers */
    return blocks->block[blocks->n++] = data;
}

static void drop(Blocks *blocks)
{
    while (blocks->n)
        free(blocks->block[--blocks->n]);
}

/* What kernels call. */
int op_output(const OpCall *call, int k, int dtype, const Shape *shape)
{
    OpRun *run = call->executor;
    Value *value = call->out[k];
    int64_t count;
    if (!shape_count(shape, &count) || count > 1 << 20)
        return op_error(call, ONNXPRESS_MEMORY, "output %d is too large", k);
    *value = (Value){.dtype = dtype, .shape = *shape, .count = count};
    if (dtype_is_real(dtype))
        value->r = block(&run->passing, (size_t)count, sizeof(real));
    else
        value->i = block(&run->passing, (size_t)count, sizeof(int64_t));
    return ONNXPRESS_OK;
}

int op_sequence(const OpCall *call, int k, int dtype, const Shape *items, int64_t n)
{
    OpRun *run = call->executor;
    Shape flat = {.rank = 1};
    for (int64_t j = 0; j < n; j++) {
        int64_t count;
        ck_assert(shape_count(&items[j], &count));
        flat.dim[0] += count;
    }
    int status = op_output(call, k, dtype, &flat);
    if (status)
        return status;
    Shape *copy = block(&run->passing, (size_t)n + 1, sizeof *copy);
    if (n > 0)
        memcpy(copy, items, (size_t)n * sizeof *copy);
    call->out[k]->items = copy;
    call->out[k]->n_items = n;
    return status;
}

int op_alias(const OpCall *call, int k, const Value *source, const Shape *shape)
{
    int64_t count;
    if (!shape_count(shape, &count) || count != source->count)
        return op_error(call, ONNXPRESS_FORMAT, "a view of another size");
    *call->out[k] = *source;
    call->out[k]->shape = *shape;
    return ONNXPRESS_OK;
}

void *op_scratch(const OpCall *call, size_t count, size_t size)
{
    OpRun *run = call->executor;
    return block(&run->passing, count, size);
}

int op_error(const OpCall *call, OnnxPressStatus code, const char *format, ...)
{
    char message[400];
    va_list args;
    va_start(args, format);
    vsnprintf(message, sizeof message, format, args);
    va_end(args);
    return error_set(call->err, code, "%s: %s", call->node->proto->op_type, message);
}

/* Text → node and inputs. */
static void substitute(const char *text, const int *sizes, char *out, size_t room)
{
    size_t used = 0;
    for (; *text; text++) {
        ck_assert_uint_lt(used + 3, room);
        if (text[0] == '$' && isupper((unsigned char)text[1]))
            out[used++] = (char)('0' + sizes[*++text - 'A']);
        else
            out[used++] = *text;
    }
    out[used] = 0;
}

static int64_t *parse_ints(Arena *arena, const char *text, char close, size_t *n)
{
    int64_t *list = arena_array(arena, strlen(text) + 1, sizeof *list);
    *n = 0;
    while (*text && *text != close) {
        char *end;
        list[(*n)++] = strtoll(text, &end, 10);
        ck_assert_msg(end != text, "a number is expected at '%s'", text);
        text = *end == ',' ? end + 1 : end;
    }
    return list;
}

static void parse_strings(Arena *arena, char *text, Onnx__AttributeProto *attribute)
{
    attribute->strings = arena_array(arena, strlen(text), sizeof *attribute->strings);
    for (char *save, *word = strtok_r(text, ",]", &save); word; word = strtok_r(NULL, ",]", &save))
        attribute->strings[attribute->n_strings++] =
            (ProtobufCBinaryData){strlen(word), (uint8_t *)word};
}

static void parse_floats(Arena *arena, char *text, Onnx__AttributeProto *attribute)
{
    attribute->floats = arena_array(arena, strlen(text), sizeof *attribute->floats);
    for (char *save, *word = strtok_r(text, ",]", &save); word; word = strtok_r(NULL, ",]", &save))
        attribute->floats[attribute->n_floats++] = strtof(word, NULL);
}

static void parse_attribute(OpRun *run, char *word, Onnx__AttributeProto *attribute)
{
    char *value = strchr(word, '=');
    ck_assert_msg(value != NULL, "%s: '%s' is no attribute", run->text, word);
    *value++ = 0;
    onnx__attribute_proto__init(attribute);
    attribute->name = word;
    if (*value == '[' && isalpha((unsigned char)value[1])) {
        parse_strings(run->arena, value + 1, attribute);
    } else if (*value == '[' && strchr(value, '.')) {
        parse_floats(run->arena, value + 1, attribute);
    } else if (*value == '[') {
        attribute->ints = parse_ints(run->arena, value + 1, ']', &attribute->n_ints);
    } else if (isalpha((unsigned char)*value) || strncmp(value, "...", 3) == 0) {
        attribute->has_s = 1;
        attribute->s.data = (uint8_t *)value;
        attribute->s.len = strlen(value);
    } else if (strchr(value, '.')) {
        attribute->has_f = 1;
        attribute->f = strtof(value, NULL);
    } else {
        attribute->has_i = 1;
        attribute->i = strtoll(value, NULL, 10);
    }
}

static void parse_node(OpRun *run, char *text)
{
    char *save, *word = strtok_r(text, " ", &save);
    onnx__node_proto__init(&run->proto);
    run->proto.op_type = word;
    run->proto.attribute = arena_array(run->arena, 16, sizeof *run->proto.attribute);
    while ((word = strtok_r(NULL, " ", &save))) {
        Onnx__AttributeProto *attribute = arena_array(run->arena, 1, sizeof *attribute);
        ck_assert_uint_lt(run->proto.n_attribute, 16);
        run->proto.attribute[run->proto.n_attribute++] = attribute;
        parse_attribute(run, word, attribute);
    }
}

/* "[2,3]+[2]" of a sequence; an empty one is "+". */
static void parse_items(OpRun *run, const char *text, Value *value)
{
    Shape *items = arena_array(run->arena, strlen(text), sizeof *items);
    value->items = items;
    value->shape = (Shape){.rank = 1};
    for (; *text == '['; text += *text == '+') {
        Shape *item = &items[value->n_items++];
        int64_t count;
        size_t n;
        int64_t *dims = parse_ints(run->arena, text + 1, ']', &n);
        item->rank = (int)n;
        memcpy(item->dim, dims, n * sizeof *dims);
        ck_assert(shape_count(item, &count));
        value->shape.dim[0] += count;
        text = strchr(text, ']') + 1;
    }
    value->count = value->shape.dim[0];
}

/* "[2,3]" and "{..}" after an input's letter; a list alone has rank 1. Returns the list's text. */
static const char *parse_shape(OpRun *run, const char *text, Value *value)
{
    const char *list = strchr(text, '{');
    if (*text == '[') {
        size_t n;
        int64_t *dims = parse_ints(run->arena, text + 1, ']', &n);
        ck_assert_uint_le(n, TENSOR_MAX_RANK);
        value->shape.rank = (int)n;
        memcpy(value->shape.dim, dims, n * sizeof *dims);
    } else if (list) {
        int64_t n = list[1] != '}';
        for (const char *c = list; *c; c++)
            n += *c == ',';
        value->shape = (Shape){.rank = 1, .dim = {n}};
    }
    ck_assert_msg(shape_count(&value->shape, &value->count), "%s: bad shape", run->text);
    return list ? list + 1 : NULL;
}

static real random_value(OpRun *run, char kind, int64_t e, int64_t count)
{
    double u = uniform(run);
    if (kind == 'p')
        return (real)(0.3 + 1.7 * u);
    if (kind == 'd') /* a step through distinct places, coprime with any count below */
        return (real)((double)(e * 7919 % (count | 1)) * 0.1 - 0.05 * (double)count + 0.08 * u);
    double magnitude = 0.05 + 1.95 * fabs(2 * u - 1);
    return (real)(u < 0.5 ? -magnitude : magnitude);
}

static void parse_input(OpRun *run, int k, const char *word)
{
    Value *value = &run->in[k];
    char kind = run->kind[k] = word[0];
    if (kind == '-')
        return;
    run->in_list[k] = value;
    const char *list = NULL;
    if (kind == 'q')
        parse_items(run, word + 1, value);
    else
        list = parse_shape(run, word + 1, value);
    size_t room = (size_t)value->count;
    bool is_real = strchr("rpdwhcfq", kind) != NULL;
    value->dtype = is_real ? DTYPE_FLOAT : kind == 'b' ? DTYPE_BOOL : DTYPE_INT64;
    if (is_real)
        value->r = block(&run->lasting, room, sizeof *value->r);
    else
        value->i = block(&run->lasting, room, sizeof *value->i);
    for (int64_t e = 0; e < value->count; e++) {
        char *end = NULL;
        double number = 0;
        int64_t whole = 0;
        if (list && is_real)
            number = strtod(list, &end);
        else if (list)
            whole = strtoll(list, &end, 10);
        ck_assert_msg(!list || end != list, "%s: too few values in %s", run->text, word);
        list = list && *end ? end + 1 : NULL;
        if (strchr("cf", kind) && is_real)
            value->r[e] = (real)number;
        else if (is_real)
            value->r[e] = random_value(run, kind, e, value->count);
        else
            value->i[e] = kind == 'b' && !strchr(word, '{') ? uniform(run) < 0.5 : whole;
    }
}

static OpRun *run_parse(const char *node, int opset, const char *inputs, int outputs, unsigned seed)
{
    OpRun *run = calloc(1, sizeof *run);
    ck_assert_ptr_nonnull(run);
    run->arena = arena_create();
    ck_assert_ptr_nonnull(run->arena);
    run->random = seed * 0x9e3779b97f4a7c15u + 12345;
    int sizes[26];
    for (int k = 0; k < 26; k++)
        sizes[k] = 1 + (int)(uniform(run) * 4);
    char *node_text = arena_array(run->arena, 400, 1),
         *input_text = arena_array(run->arena, 400, 1);
    substitute(node, sizes, node_text, 400);
    substitute(inputs, sizes, input_text, 400);
    snprintf(run->text, sizeof run->text, "%.180s (opset %d) of %.180s", node_text, opset,
             input_text);
    parse_node(run, node_text);
    int n = 0;
    char *save;
    for (char *word = strtok_r(input_text, " ", &save); word; word = strtok_r(NULL, " ", &save)) {
        ck_assert_int_lt(n, MOST_ARGUMENTS);
        parse_input(run, n++, word);
    }
    ck_assert_int_le(outputs, MOST_ARGUMENTS);
    char *type = strrchr(run->proto.op_type, '.');
    if (type) {
        *type = 0;
        run->proto.domain = run->proto.op_type;
        run->proto.op_type = type + 1;
    }
    const OpRow *row = op_find(type ? run->proto.domain : "", run->proto.op_type, opset);
    ck_assert_msg(row != NULL, "%s: no such op", run->text);
    run->node = (OpNode){.row = row,
                         .proto = &run->proto,
                         .opset = opset,
                         .n_in = n,
                         .n_out = outputs ? outputs : 1};
    for (int k = 0; k < run->node.n_out; k++)
        run->out_list[k] = &run->out[k];
    run->call = (OpCall){.node = &run->node,
                         .n_in = n,
                         .n_out = run->node.n_out,
                         .in = run->in_list,
                         .out = run->out_list,
                         .executor = run,
                         .err = &run->err};
    run->status = row->read ? row->read(&run->node, run->arena, &run->err) : ONNXPRESS_OK;
    return run;
}

static void run_forward(OpRun *run)
{
    drop(&run->passing);
    if (!run->status)
        run->status = run->node.row->forward(&run->call);
}

OpRun *op_run(const char *node, int opset, const char *inputs, int outputs)
{
    OpRun *run = run_parse(node, opset, inputs, outputs, 1);
    run_forward(run);
    return run;
}

void op_run_free(OpRun *run)
{
    drop(&run->passing);
    drop(&run->lasting);
    free(run->passing.block);
    free(run->lasting.block);
    arena_destroy(run->arena);
    free(run);
}

int op_run_status(const OpRun *run)
{
    return run->status;
}

const char *op_run_message(const OpRun *run)
{
    return run->err.message;
}

const Value *op_run_output(const OpRun *run, int k)
{
    return &run->out[k];
}

/* The loss of a case: outputs times fixed random numbers, summed. */
static double weighted_loss(const OpRun *run, real *const *d_out)
{
    double loss = 0;
    for (int k = 0; k < run->call.n_out; k++)
        for (int64_t e = 0; d_out[k] && e < run->out[k].count; e++)
            loss += (double)(run->out[k].r[e] * d_out[k][e]);
    return loss;
}

static bool is_differentiated(const OpRun *run, int k)
{
    return strchr("rpdwhfq", run->kind[k]) != NULL;
}

/* Backward, or with `first` the second-order rule, into fresh gradients that start at PREFILL, with
 * only what the row keeps. */
static void run_rule(OpRun *run, real *const *d_out, real *const *first, real **d_in)
{
    Value in[MOST_ARGUMENTS], out[MOST_ARGUMENTS], *in_list[MOST_ARGUMENTS] = {0},
                                                   *out_list[MOST_ARGUMENTS];
    const real *d_out_list[MOST_ARGUMENTS], *first_list[MOST_ARGUMENTS];
    int keep = run->node.row->keep;
    for (int k = 0; k < run->call.n_in; k++) {
        in[k] = run->in[k];
        if (!(keep & OP_KEEP_INPUTS))
            in[k].r = NULL, in[k].i = NULL;
        in_list[k] = run->in_list[k] ? &in[k] : NULL;
        d_in[k] = NULL;
        if (is_differentiated(run, k))
            d_in[k] = block(&run->lasting, (size_t)run->in[k].count, sizeof **d_in);
        for (int64_t e = 0; d_in[k] && e < run->in[k].count; e++)
            d_in[k][e] = (real)PREFILL;
    }
    for (int k = 0; k < run->call.n_out; k++) {
        out[k] = run->out[k];
        if (!(keep & OP_KEEP_OUTPUTS))
            out[k].r = NULL, out[k].i = NULL;
        out_list[k] = &out[k];
        d_out_list[k] = d_out[k];
        first_list[k] = first ? first[k] : NULL;
    }
    OpCall call = run->call;
    call.in = in_list;
    call.out = out_list;
    call.d_out = d_out_list;
    call.d_in = d_in;
    int status =
        first ? run->node.row->curvature(&call, first_list) : run->node.row->backward(&call);
    ck_assert_msg(status == ONNXPRESS_OK, "%s: backward: %s", run->text, run->err.message);
}

static void run_backward(OpRun *run, real *const *d_out, real **d_in)
{
    run_rule(run, d_out, NULL, d_in);
}

static double largest(const real *x, int64_t n)
{
    double most = 0;
    for (int64_t e = 0; e < n; e++)
        most = fmax(most, fabs((double)x[e] - PREFILL));
    return most;
}

static void check_gradient(OpRun *run, int k, const real *gradient, real *const *d_out)
{
    Value *x = &run->in[k];
    double scale = fmax(largest(gradient, x->count), 1e-2);
    for (int64_t e = 0; e < x->count; e++) {
        real original = x->r[e];
        double loss[2];
        for (int side = 0; side < 2; side++) {
            x->r[e] = original + (real)(side ? FD_STEP : -FD_STEP);
            run_forward(run);
            ck_assert_msg(!run->status, "%s: %s", run->text, run->err.message);
            loss[side] = weighted_loss(run, d_out);
        }
        x->r[e] = original;
        double expected = (loss[1] - loss[0]) / (2 * FD_STEP), got = (double)gradient[e] - PREFILL;
        ck_assert_msg(fabs(got - expected) <= TOLERANCE * scale,
                      "%s: gradient %lld of input %d is %.10g, differences give %.10g", run->text,
                      (long long)e, k, got, expected);
    }
}

/* What element e of input k adds to the sum that curvature is: of every output the squared slope
 * times `second` and the bend times `first`. */
static double bend_of(OpRun *run, int k, int64_t e, real *const *first, real *const *second)
{
    Value *x = &run->in[k];
    real original = x->r[e];
    double *at[3], sum = 0;
    int64_t total = 0;
    for (int o = 0; o < run->call.n_out; o++)
        total += run->out[o].count;
    for (int side = 0; side < 3; side++) {
        at[side] = calloc((size_t)total + 1, sizeof **at);
        x->r[e] = original + (real)((side - 1) * BEND_STEP);
        run_forward(run);
        ck_assert_msg(!run->status, "%s: %s", run->text, run->err.message);
        double *to = at[side];
        for (int o = 0; o < run->call.n_out; o++)
            for (int64_t i = 0; run->out[o].r && i < run->out[o].count; i++)
                *to++ = (double)run->out[o].r[i];
    }
    x->r[e] = original;
    for (int64_t i = 0, o = 0, of = 0; i < total; i++, of++) {
        while (of == run->out[o].count)
            o++, of = 0;
        double slope = (at[2][i] - at[0][i]) / (2 * BEND_STEP);
        double bend = (at[2][i] - 2 * at[1][i] + at[0][i]) / (BEND_STEP * BEND_STEP);
        sum += slope * slope * (double)second[o][of] + bend * (double)first[o][of];
    }
    for (int side = 0; side < 3; side++)
        free(at[side]);
    return sum;
}

/* The row's second-order rule against the sum that it stands for. */
static void check_curvature(OpRun *run, real *const *first)
{
    real *second[MOST_ARGUMENTS] = {0}, *dd_in[MOST_ARGUMENTS];
    for (int o = 0; o < run->call.n_out; o++) {
        if (!first[o] || !run->node.row->curvature)
            return; /* integer outputs have no place in the sum */
        second[o] = block(&run->lasting, (size_t)run->out[o].count, sizeof(real));
        for (int64_t e = 0; e < run->out[o].count; e++)
            second[o][e] = (real)(2 * uniform(run) - 0.5);
    }
    run_forward(run); /* the checks before have moved inputs */
    run_rule(run, second, first, dd_in);
    for (int k = 0; k < run->call.n_in; k++) {
        int64_t count = dd_in[k] && run->kind[k] != 'h' ? run->in[k].count : 0;
        double scale = count ? fmax(largest(dd_in[k], count), 1e-2) : 1;
        for (int64_t e = 0; e < count; e++) {
            double expected = bend_of(run, k, e, first, second);
            double got = (double)dd_in[k][e] - PREFILL;
            ck_assert_msg(fabs(got - expected) <= BEND_TOLERANCE * scale,
                          "%s: curvature %lld of input %d is %.10g, differences give %.10g",
                          run->text, (long long)e, k, got, expected);
        }
    }
}

/* The sum over samples of squared gradients, each sample's from a backward run of its own. */
static void check_square(OpRun *run, int k, real *const *d_out)
{
    const OpRow *row = run->node.row;
    int64_t count = run->in[k].count, samples = run->out[0].shape.dim[0];
    int64_t per_sample = samples ? run->out[0].count / samples : 0;
    ck_assert_msg(row->square != NULL, "%s: the row has no square", run->text);
    double *expected = arena_array(run->arena, (size_t)count, sizeof *expected), most = 0;
    real *acc = block(&run->lasting, (size_t)count, sizeof *acc);
    for (int64_t s = 0; s < samples; s++) {
        real *masked[MOST_ARGUMENTS] = {
            arena_array(run->arena, (size_t)run->out[0].count, sizeof(real))};
        real *d_in[MOST_ARGUMENTS];
        memcpy(masked[0] + s * per_sample, d_out[0] + s * per_sample,
               (size_t)per_sample * sizeof(real));
        run_backward(run, masked, d_in);
        for (int64_t e = 0; e < count; e++)
            expected[e] += pow((double)d_in[k][e] - PREFILL, 2);
    }
    for (int64_t e = 0; e < count; e++) {
        acc[e] = (real)PREFILL;
        most = fmax(most, expected[e]);
    }
    OpCall call = run->call;
    const real *d_out_list[MOST_ARGUMENTS] = {d_out[0]};
    call.d_out = d_out_list;
    ck_assert_msg(row->square(&call, k, NULL) == ONNXPRESS_OK, "%s: square refuses", run->text);
    ck_assert_msg(row->square(&call, k, acc) == ONNXPRESS_OK, "%s: square: %s", run->text,
                  run->err.message);
    for (int64_t e = 0; e < count; e++)
        ck_assert_msg(fabs((double)acc[e] - PREFILL - expected[e]) <= TOLERANCE * fmax(most, 1e-2),
                      "%s: square %lld of input %d is %.10g, single samples give %.10g", run->text,
                      (long long)e, k, (double)acc[e] - PREFILL, expected[e]);
}

static bool row_squares(OpRun *run, int k)
{
    return run->node.row->square(&run->call, k, NULL) == ONNXPRESS_OK;
}

static void check_case(const OpCase *c, unsigned seed)
{
    OpRun *run = run_parse(c->node, c->opset, c->inputs, c->outputs, seed);
    run->call.by_batch = c->by_batch;
    run_forward(run);
    ck_assert_msg(!run->status, "%s: %s", run->text, run->err.message);
    ck_assert_msg(run->node.row->backward != NULL, "%s: the row has no backward", run->text);
    real *d_out[MOST_ARGUMENTS] = {0}, *d_in[MOST_ARGUMENTS];
    for (int k = 0; k < run->call.n_out; k++) {
        if (!dtype_is_real(run->out[k].dtype))
            continue;
        d_out[k] = block(&run->lasting, (size_t)run->out[k].count, sizeof(real));
        for (int64_t e = 0; e < run->out[k].count; e++) {
            d_out[k][e] = (real)(2 * uniform(run) - 1);
            ck_assert_msg(!isnan(run->out[k].r[e]), "%s: element %lld of output %d is not written",
                          run->text, (long long)e, k);
        }
    }
    run_backward(run, d_out, d_in);
    for (int k = 0; k < run->call.n_in; k++)
        if (run->kind[k] == 'w' ||
            (run->kind[k] == 'h' && run->node.row->square && row_squares(run, k)))
            check_square(run, k, d_out);
    for (int k = 0; k < run->call.n_in; k++)
        if (d_in[k])
            check_gradient(run, k, d_in[k], d_out);
    if (!c->by_batch)
        check_curvature(run, d_out);
    op_run_free(run);
}

void op_check_cases(const OpCase *cases, size_t count)
{
    ck_assert_msg(sizeof(real) == sizeof(double), "gradients are checked in float64");
    for (size_t c = 0; c < count; c++)
        for (unsigned draw = 0; draw < DRAWS; draw++)
            check_case(&cases[c], (unsigned)c * DRAWS + draw + 1);
}

static void expect_value(OpRun *run, const char *what, const Value *got, const char *text)
{
    Value wanted = {0};
    char expected[100], found[100];
    const char *list = parse_shape(run, text, &wanted);
    ck_assert_msg(shape_equal(&wanted.shape, &got->shape), "%s: %s is %s, not %s", run->text, what,
                  shape_text(&got->shape, found, sizeof found),
                  shape_text(&wanted.shape, expected, sizeof expected));
    for (int64_t e = 0; e < wanted.count; e++) {
        char *end;
        double number = strtod(list, &end);
        ck_assert_msg(end != list, "%s: too few values in '%s'", run->text, text);
        list = *end ? end + 1 : end;
        double value = got->r ? (double)got->r[e] : (double)got->i[e];
        bool same =
            isnan(number) ? isnan(value) != 0 : value == number || fabs(value - number) <= 1e-5;
        ck_assert_msg(same, "%s: element %lld of %s is %g, not %g", run->text, (long long)e, what,
                      value, number);
    }
}

void op_expect(const char *node, int opset, const char *inputs, const char *outputs)
{
    char text[400], what[20], *save;
    int n = 1, k = 0;
    for (const char *c = outputs; *c; c++)
        n += *c == ' ';
    OpRun *run = op_run(node, opset, inputs, n);
    ck_assert_msg(!run->status, "%s: %s", run->text, run->err.message);
    ck_assert_uint_lt(strlen(outputs), sizeof text);
    strcpy(text, outputs);
    for (char *word = strtok_r(text, " ", &save); word; word = strtok_r(NULL, " ", &save)) {
        snprintf(what, sizeof what, "output %d", k);
        expect_value(run, what, &run->out[k++], word);
    }
    op_run_free(run);
}

void op_expect_gradient(const char *node, int opset, const char *inputs, int k,
                        const char *gradient)
{
    real *d_out[MOST_ARGUMENTS] = {0}, *d_in[MOST_ARGUMENTS];
    OpRun *run = op_run(node, opset, inputs, 1);
    ck_assert_msg(!run->status, "%s: %s", run->text, run->err.message);
    d_out[0] = block(&run->lasting, (size_t)run->out[0].count, sizeof(real));
    for (int64_t e = 0; e < run->out[0].count; e++)
        d_out[0][e] = 1;
    run_backward(run, d_out, d_in);
    Value got = run->in[k];
    got.r = d_in[k];
    for (int64_t e = 0; e < got.count; e++)
        got.r[e] -= (real)PREFILL;
    expect_value(run, "the gradient", &got, gradient);
    op_run_free(run);
}

void op_expect_error(const char *node, int opset, const char *inputs, const char *words)
{
    OpRun *run = op_run(node, opset, inputs, 1);
    ck_assert_msg(run->status != ONNXPRESS_OK, "%s: is accepted", run->text);
    ck_assert_int_eq(run->status, (int)run->err.code);
    ck_assert_msg(strstr(run->err.message, words) != NULL, "%s: the message is '%s'", run->text,
                  run->err.message);
    op_run_free(run);
}

int op_suite(const char *name, const TTest *const *tests, size_t count)
{
    Suite *suite = suite_create(name);
    TCase *cases = tcase_create(name);
    tcase_set_timeout(cases, 120);
    for (size_t k = 0; k < count; k++)
        tcase_add_test(cases, tests[k]);
    suite_add_tcase(suite, cases);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
