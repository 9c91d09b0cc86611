/* SPDX-License-Identifier: Apache-2.0
 *
 * Loop and Scan. The body's steps work on the same values in every round; for the way back each round
 * leaves a frame with what these held, and frames are put back one after the other, last first. */
#include <stdlib.h>
#include <string.h>

#include "autodiff/loop_internal.h"
#include "ops/support_internal.h"

static Loop loop_of(Exec *exec, const Step *step, Error *err)
{
    const Program *program = exec->program;
    const ProgramBody *place = &program->bodies[step->holds];
    return (Loop){.exec = exec,
                  .step = step,
                  .loop = step->op.params,
                  .body = &program->graph->bodies[step->holds],
                  .place = place,
                  .first_body = step->holds + 1,
                  .n_inner = place->end_body - step->holds - 1,
                  .err = err};
}

static int refuse(const Loop *l, OnnxPressStatus code, const char *what)
{
    return error_set(l->err, code, "%.120s (%.60s): %s", step_name(l->step->op.proto),
                     step_type(l->step->op.proto), what);
}

int loop_no_room(const Loop *l)
{
    return refuse(l, ONNXPRESS_MEMORY,
                  "the memory bound has no room for its rounds; set a larger one (--memory)");
}

/* ---- slices along an axis ---- */

typedef struct {
    Shape shape; /* of one */
    int64_t stride[TENSOR_MAX_RANK], dense[TENSOR_MAX_RANK];
    int64_t step; /* from one to the next */
} Slices;

static bool slices_of(const Shape *whole, int axis, Slices *s)
{
    int64_t stride[TENSOR_MAX_RANK];
    if (axis < 0 || axis >= whole->rank)
        return false;
    shape_strides(whole, stride);
    *s = (Slices){.step = stride[axis]};
    for (int a = 0; a < whole->rank; a++)
        if (a != axis) {
            s->stride[s->shape.rank] = stride[a];
            s->shape.dim[s->shape.rank++] = whole->dim[a];
        }
    shape_strides(&s->shape, s->dense);
    return true;
}

static int64_t number_of(const int64_t *list, int k)
{
    return list ? list[k] : 0;
}

/* Which slice round t of n reads or writes. */
static int64_t slice_at(const int64_t *directions, int k, int64_t t, int64_t n)
{
    return number_of(directions, k) ? n - 1 - t : t;
}

static void *element(const Value *value, int64_t at)
{
    return value->r ? (void *)(value->r + at) : (void *)(value->i + at);
}

/* ---- forward ---- */

typedef struct {
    Value *carried;      /* [n_carried], with references of their own */
    Value *stacked;      /* [round][n_stacked], the same */
    Buffer *storage;     /* of `stacked` */
    int64_t n, room;     /* rounds */
} Rounds;

static void keep_value(Value *to, const Value *from)
{
    *to = *from;
    if (to->buffer)
        buffer_retain(to->buffer);
}

static int new_value(const Loop *l, int dtype, const Shape *shape, Value *value)
{
    Value *out[1] = {value};
    OpCall call = {.node = &l->step->op, .n_out = 1, .out = out, .executor = l->exec,
                   .err = l->err};
    return op_output(&call, 0, dtype, shape);
}

static void rounds_close(const Loop *l, Rounds *rounds)
{
    for (int k = 0; rounds->carried && k < l->loop->n_carried; k++)
        pool_release(l->exec->pool, rounds->carried[k].buffer);
    for (int64_t k = 0; rounds->stacked && k < rounds->n * l->loop->n_stacked; k++)
        pool_release(l->exec->pool, rounds->stacked[k].buffer);
    free(rounds->carried);
    pool_release(l->exec->pool, rounds->storage);
}

/* Room for the results of one more round. */
static int rounds_grow(const Loop *l, Rounds *rounds)
{
    size_t n_stacked = (size_t)l->loop->n_stacked, n = (size_t)rounds->n, bytes;
    if (rounds->n < rounds->room)
        return ONNXPRESS_OK;
    Buffer *larger = size_mul(2 * n + 8, n_stacked * sizeof(Value), &bytes)
                         ? pool_take(l->exec->pool, bytes + 1, true)
                         : NULL;
    if (!larger)
        return loop_no_room(l);
    if (n > 0)
        memcpy(buffer_data(larger), rounds->stacked, n * n_stacked * sizeof(Value));
    pool_release(l->exec->pool, rounds->storage);
    rounds->storage = larger;
    rounds->stacked = buffer_data(larger);
    rounds->room = 2 * rounds->n + 8;
    return ONNXPRESS_OK;
}

/* The axis of a scanned input, and how long it is. */
static int scan_axis(const Loop *l, int j, const Value **whole, Slices *s, int64_t *length)
{
    int v = l->step->in[l->loop->first_input + l->loop->n_carried + j];
    *whole = v < 0 ? NULL : &l->exec->values[v];
    int axis = *whole ? shape_axis(number_of(l->loop->in_axis, j), (*whole)->shape.rank) : -1;
    if (axis < 0 || !slices_of(&(*whole)->shape, axis, s))
        return refuse(l, ONNXPRESS_FORMAT, "a scanned input has no such axis");
    *length = (*whole)->shape.dim[axis];
    return ONNXPRESS_OK;
}

/* A single number or bool at input k of the node, `fallback` when it is omitted. */
static int single(const Loop *l, const Value *value, int64_t fallback, int64_t *number)
{
    *number = fallback;
    if (value && (!value->i || value->count != 1))
        return refuse(l, ONNXPRESS_FORMAT, "a count or condition is not one whole number");
    if (value)
        *number = value->i[0];
    return ONNXPRESS_OK;
}

static const Value *input_at(const Loop *l, int k)
{
    return l->step->in[k] < 0 ? NULL : &l->exec->values[l->step->in[k]];
}

static int count_rounds(const Loop *l, int64_t *trips, int64_t *go)
{
    int status = ONNXPRESS_OK;
    *trips = INT64_MAX;
    *go = 1;
    if (!l->loop->scan) {
        status = single(l, input_at(l, 0), INT64_MAX, trips);
        return status ? status : single(l, input_at(l, 1), 1, go);
    }
    for (int j = 0; j < l->loop->n_scanned && !status; j++) {
        const Value *whole;
        Slices slices;
        int64_t length;
        status = scan_axis(l, j, &whole, &slices, &length);
        if (!status && j > 0 && length != *trips)
            status = refuse(l, ONNXPRESS_FORMAT, "scanned inputs have different lengths");
        *trips = length;
    }
    return status;
}

static int start_carried(const Loop *l, Rounds *rounds)
{
    rounds->carried = calloc((size_t)l->loop->n_carried + 1, sizeof *rounds->carried);
    if (!rounds->carried)
        return error_memory(l->err, "a loop's values");
    for (int k = 0; k < l->loop->n_carried; k++) {
        const Value *start = input_at(l, l->loop->first_input + k);
        if (!start || (!start->r && !start->i))
            return refuse(l, ONNXPRESS_UNSUPPORTED, "a carried value is not handled");
        keep_value(&rounds->carried[k], start);
    }
    return ONNXPRESS_OK;
}

static void set_formal(const Loop *l, int k, const Value *value)
{
    int v = l->body->inputs[k];
    exec_drop_value(l->exec, v);
    l->exec->values[v] = *value;
}

static int start_round(const Loop *l, Rounds *rounds, int64_t t, int64_t trips)
{
    Exec *exec = l->exec;
    const LoopParams *loop = l->loop;
    int status = ONNXPRESS_OK;
    for (int v = l->body->first_value; v < l->body->end_value; v++)
        exec->pending[v] = exec->program->values[v].n_pending;
    for (int k = 0; k < loop->first_formal && !status; k++) { /* the round's number; the condition */
        Value value;
        status = new_value(l, k ? DTYPE_BOOL : DTYPE_INT64, &(Shape){0}, &value);
        if (status)
            return status;
        value.i[0] = k ? 1 : t;
        set_formal(l, k, &value);
    }
    for (int k = 0; k < loop->n_carried; k++) {
        set_formal(l, loop->first_formal + k, &rounds->carried[k]);
        rounds->carried[k] = (Value){0};
    }
    for (int j = 0; j < loop->n_scanned; j++) {
        const Value *whole;
        Slices s;
        Value value;
        int64_t length;
        if ((status = scan_axis(l, j, &whole, &s, &length)) ||
            (status = new_value(l, whole->dtype, &s.shape, &value)))
            return status;
        int64_t at = slice_at(loop->in_direction, j, t, trips) * s.step;
        move_strided(value.dtype, &s.shape, element(&value, 0), s.dense, element(whole, at),
                     s.stride);
        set_formal(l, loop->first_formal + loop->n_carried + j, &value);
    }
    return ONNXPRESS_OK;
}

/* Takes the results out of the body. */
static int end_round(const Loop *l, Rounds *rounds, int keep, int64_t *go)
{
    Exec *exec = l->exec;
    const LoopParams *loop = l->loop;
    const int *result = l->body->outputs;
    int status = ONNXPRESS_OK;
    if (!loop->scan)
        status = single(l, &exec->values[result[0]], 1, go);
    if (!status)
        status = rounds_grow(l, rounds);
    if (status)
        return status;
    for (int k = 0; k < loop->n_carried + loop->n_stacked; k++) {
        const Value *value = &exec->values[result[loop->first_result + k]];
        if ((!value->r && !value->i) || (value->items && k >= loop->n_carried))
            status = refuse(l, ONNXPRESS_UNSUPPORTED, "a result of its body is not handled");
        keep_value(k < loop->n_carried
                       ? &rounds->carried[k]
                       : &rounds->stacked[rounds->n * loop->n_stacked + k - loop->n_carried],
                   value);
    }
    rounds->n++;
    bool frame = keep == EXEC_KEEP;
    for (int v = l->body->first_value; v < l->body->end_value; v++)
        if (is_of_round(exec->program, v) && !(frame && exec->retain[v]))
            exec_drop_value(exec, v);
    return status || !frame ? status : frame_save(l);
}

/* What the declared type says of an output that no round has made. */
static void declared_element(const Loop *l, int k, int *dtype, Shape *shape)
{
    const Onnx__ValueInfoProto *info =
        l->body->proto->output[l->loop->first_result + l->loop->n_carried + k];
    *dtype = DTYPE_FLOAT;
    *shape = (Shape){0};
    if (!info->type || info->type->value_case != ONNX__TYPE_PROTO__VALUE_TENSOR_TYPE)
        return;
    *dtype = info->type->tensor_type->elem_type;
    const Onnx__TensorShapeProto *dims = info->type->tensor_type->shape;
    for (size_t a = 0; dims && a < dims->n_dim && a + 1 < TENSOR_MAX_RANK; a++) {
        bool fixed = dims->dim[a]->value_case ==
                         ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_VALUE &&
                     dims->dim[a]->dim_value >= 0;
        shape->dim[shape->rank++] = fixed ? dims->dim[a]->dim_value : 0;
    }
}

static int stack(const Loop *l, const Rounds *rounds, int k)
{
    int v = l->step->out[l->loop->n_carried + k], n_stacked = l->loop->n_stacked;
    if (v < 0)
        return ONNXPRESS_OK;
    int dtype;
    Shape shape;
    if (rounds->n > 0) {
        dtype = rounds->stacked[k].dtype;
        shape = rounds->stacked[k].shape;
    } else {
        declared_element(l, k, &dtype, &shape);
    }
    Shape whole = {.rank = shape.rank + 1};
    int axis = shape_axis(number_of(l->loop->out_axis, k), whole.rank);
    if (whole.rank > TENSOR_MAX_RANK || axis < 0)
        return refuse(l, ONNXPRESS_FORMAT, "results cannot be stacked along that axis");
    for (int a = 0; a < whole.rank; a++)
        whole.dim[a] = a < axis ? shape.dim[a] : a == axis ? rounds->n : shape.dim[a - 1];
    exec_drop_value(l->exec, v);
    int status = new_value(l, dtype, &whole, &l->exec->values[v]);
    Slices s;
    if (!status)
        slices_of(&whole, axis, &s);
    for (int64_t t = 0; t < rounds->n && !status; t++) {
        const Value *one = &rounds->stacked[t * n_stacked + k];
        if (one->dtype != dtype || !shape_equal(&one->shape, &shape))
            return refuse(l, ONNXPRESS_DATA, "its rounds' results have different shapes");
        int64_t at = slice_at(l->loop->out_direction, k, t, rounds->n) * s.step;
        move_strided(dtype, &shape, element(&l->exec->values[v], at), s.stride, element(one, 0),
                     s.dense);
    }
    return status;
}

int loop_forward(Exec *exec, const Step *step, int keep, Error *err)
{
    Loop l = loop_of(exec, step, err);
    Rounds rounds = {0};
    int64_t trips, go;
    int status = count_rounds(&l, &trips, &go);
    if (!status)
        status = start_carried(&l, &rounds);
    for (int64_t t = 0; t < trips && go && !status; t++) {
        if (++exec->rounds > exec->most_rounds)
            status = refuse(&l, ONNXPRESS_UNSUPPORTED,
                            "its loops go more rounds than the sizes of the file and its inputs "
                            "explain");
        if (!status)
            status = start_round(&l, &rounds, t, trips);
        if (!status)
            status = exec_run_steps(exec, l.place->first, l.place->end, step->holds, keep, err);
        if (!status)
            status = end_round(&l, &rounds, keep, &go);
    }
    for (int k = 0; k < l.loop->n_carried && !status; k++)
        if (step->out[k] >= 0) {
            exec_drop_value(exec, step->out[k]);
            exec->values[step->out[k]] = rounds.carried[k];
            rounds.carried[k] = (Value){0};
        }
    for (int k = 0; k < l.loop->n_stacked && !status; k++)
        status = stack(&l, &rounds, k);
    rounds_close(&l, &rounds);
    return status;
}

/* ---- backward ---- */

static const real *gradient_of(const Exec *exec, int v)
{
    return v >= 0 && exec->gradient[v] ? buffer_data(exec->gradient[v]) : NULL;
}

/* Adds a slice of (from), or all of it, to the gradient of a value, if that is wanted. */
static int add_gradient(const Loop *l, int v, const real *from, const Slices *s)
{
    Exec *exec = l->exec;
    real *to;
    if (v < 0 || !from || !exec->needs[v] || !dtype_is_real(exec->values[v].dtype))
        return ONNXPRESS_OK;
    int status = exec_open_gradient(exec, &exec->gradient[v], v, &to, l->err);
    if (!status && s)
        add_strided(&s->shape, to, s->dense, from, s->stride);
    else if (!status)
        add_dense(exec->values[v].count, to, from);
    return status;
}

/* The gradients of a round's results: of what it hands on, and of its slices of what is stacked. */
static int open_round(const Loop *l, Buffer **carried, int64_t t, int64_t n)
{
    const LoopParams *loop = l->loop;
    const int *result = l->body->outputs + loop->first_result;
    int status = ONNXPRESS_OK;
    for (int k = 0; k < loop->n_carried && !status; k++)
        status = add_gradient(l, result[k], carried[k] ? buffer_data(carried[k]) : NULL, NULL);
    for (int k = 0; k < loop->n_stacked && !status; k++) {
        int v = l->step->out[loop->n_carried + k];
        const real *d = gradient_of(l->exec, v);
        Slices s;
        if (!d)
            continue;
        const Shape *whole = &l->exec->values[v].shape;
        slices_of(whole, shape_axis(number_of(loop->out_axis, k), whole->rank), &s);
        status = add_gradient(l, result[loop->n_carried + k],
                              d + slice_at(loop->out_direction, k, t, n) * s.step, &s);
    }
    return status;
}

/* What arrives at the body's inputs; all other gradients of the round go. */
static int close_round(const Loop *l, Buffer **carried, int64_t t, int64_t n)
{
    Exec *exec = l->exec;
    const LoopParams *loop = l->loop;
    const int *formal = l->body->inputs + loop->first_formal;
    int status = ONNXPRESS_OK;
    for (int k = 0; k < loop->n_carried; k++) {
        pool_release(exec->pool, carried[k]);
        carried[k] = exec->gradient[formal[k]];
        exec->gradient[formal[k]] = NULL;
    }
    for (int j = 0; j < loop->n_scanned && !status; j++) {
        int v = l->step->in[loop->first_input + loop->n_carried + j];
        const real *d = gradient_of(exec, formal[loop->n_carried + j]);
        const Value *whole;
        Slices s;
        real *to;
        int64_t length;
        if (!d || !exec->needs[v])
            continue;
        status = scan_axis(l, j, &whole, &s, &length);
        if (!status)
            status = exec_open_gradient(exec, &exec->gradient[v], v, &to, l->err);
        if (!status)
            add_strided(&s.shape, to + slice_at(loop->in_direction, j, t, n) * s.step, s.stride, d,
                        s.dense);
    }
    for (int v = l->body->first_value; v < l->body->end_value; v++)
        if (is_of_round(exec->program, v))
            exec_drop_gradient(exec, v);
    return status;
}

int loop_backward(Exec *exec, const Step *step, real *const *acc, Error *err)
{
    Loop l = loop_of(exec, step, err);
    int64_t n = frames_count(&l);
    Buffer **carried = calloc((size_t)l.loop->n_carried + 1, sizeof *carried);
    int status = carried ? ONNXPRESS_OK : error_memory(err, "a loop's gradients");
    bool arrives = false;
    for (int k = 0; k < step->op.n_out; k++)
        arrives |= gradient_of(exec, step->out[k]) != NULL;
    for (int k = 0; k < l.loop->n_carried && !status && arrives; k++)
        if (gradient_of(exec, step->out[k])) {
            carried[k] = exec->gradient[step->out[k]];
            buffer_retain(carried[k]);
        }
    for (int64_t t = n - 1; t >= 0 && arrives && !status; t--) {
        frame_show(&l, t);
        status = open_round(&l, carried, t, n);
        if (!status)
            status = exec_sweep_steps(exec, l.place->first, l.place->end, step->holds, acc, err);
        if (!status)
            status = close_round(&l, carried, t, n);
        frame_show(&l, -1);
    }
    for (int k = 0; k < l.loop->n_carried && carried; k++) {
        if (!status && carried[k])
            status = add_gradient(&l, step->in[l.loop->first_input + k], buffer_data(carried[k]),
                                  NULL);
        pool_release(exec->pool, carried[k]);
    }
    free(carried);
    return status;
}
