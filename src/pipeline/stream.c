/* SPDX-License-Identifier: Apache-2.0 */
#include "pipeline/stream.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "entropy/entropy.h"

/* Of all memory, when --memory does not say so; the other way holds the weights three times. */
#define MOST_BYTES ((uint64_t)1500000000)
#define HELD_BYTES ((uint64_t)3 * sizeof(float))
/* A tensor with weights beyond so many steps stays exact: all cells are to have a number. */
#define MOST_CELLS 32767
#define NARROW 256 /* levels up to which an index is a byte */
#define ROOM 4096  /* indices written at a time */

typedef struct {
    double squares, largest, step;
} Size;

/* One pass over one tensor. */
typedef struct {
    Session *s;
    Size *size;
    /* Per cell, counted from -MOST_CELLS on: of this tensor, of all, the sum of weights in steps. */
    uint64_t *count, *total;
    double *sum;
    const uint16_t *symbol; /* per cell */
    const float *centre;
    bool narrow;
    double squared; /* change, in steps */
    FileWriter *writer;
} Pass;

bool stream_wanted(const Session *session)
{
    const OnnxPressOptions *o = session->options;
    uint64_t bytes = 0, most = o->memory ? o->memory : MOST_BYTES;
    for (int w = 0; w < program_weights(session->program); w++)
        bytes += (uint64_t)program_weight(session->program, w)->count * HELD_BYTES;
    return bytes > most && !o->calibration && !o->hessian && o->prune == 0 && !o->unweighted &&
           (o->goal == ONNXPRESS_GOAL_DEFAULT || o->goal == ONNXPRESS_GOAL_STEP) &&
           (o->method == ONNXPRESS_METHOD_COMPENSATED || o->method == ONNXPRESS_METHOD_UNIFORM) &&
           (o->form == ONNXPRESS_FORM_AUTO || o->form == ONNXPRESS_FORM_LOOKUP) &&
           o->scope != ONNXPRESS_SCOPE_MODEL;
}

static int run_pass(Pass *pass, int weight, ModelPiece visit)
{
    Session *s = pass->s;
    int v = program_weight(s->program, weight)->value;
    const GraphValue *value = &program_graph(s->program)->values[v];
    return model_visit_floats(s->model, value->init, value->name, visit, pass, s->err);
}

/* ---- sizes ---- */

static int add_sizes(void *context, const float *w, int64_t n, Error *err)
{
    Size *size = ((Pass *)context)->size;
    double squares = 0;
    float largest = 0;
    (void)err;
    for (int64_t i = 0; i < n; i++) {
        squares += (double)w[i] * (double)w[i];
        largest = fmaxf(largest, fabsf(w[i]));
    }
    size->squares += squares; /* not finite if a weight is not */
    size->largest = fmax(size->largest, (double)largest);
    return ONNXPRESS_OK;
}

/* The step that choose.h has without data: a share of each tensor's root mean square; or the user's,
 * with steps in proportion to these and of geometric mean 1. */
static double find_steps(const Session *s, const Selection *selection, Size *size)
{
    double x = CHOOSE_CAUTIOUS_STEP, logs = 0, n = 0;
    for (int t = 0; t < selection->n_coded; t++) {
        double count = (double)program_weight(s->program, selection->weight[t])->count;
        size[t].step = sqrt(size[t].squares / count);
        if (size[t].step > 0) {
            logs += count * log(size[t].step);
            n += count;
        }
    }
    if (s->options->goal == ONNXPRESS_GOAL_STEP)
        x = s->options->goal_value / exp(n > 0 ? logs / n : 0);
    for (int t = 0; t < selection->n_coded; t++)
        size[t].step = size[t].step > 0 ? x * size[t].step : 1;
    return s->options->goal == ONNXPRESS_GOAL_STEP ? s->options->goal_value : x;
}

/* Without those tensors that the grid cannot hold. */
static void leave_out_wide(Selection *selection, Size *size)
{
    int kept = 0;
    for (int t = 0; t < selection->n_coded; t++) {
        int w = selection->weight[t];
        /* The step as the file has it: what is divided by. */
        if (size[t].largest < MOST_CELLS * (double)(float)size[t].step) {
            selection->weight[kept] = w;
            size[kept++] = size[t];
        } else {
            selection->coded[w] = false;
            selection->reason[w] = "its range is too wide for the grid";
        }
    }
    selection->n_coded = kept;
}

static int select_all(Session *s, Selection *selection, Size **size, double *step)
{
    Arena *arena = s->arena;
    int n = program_weights(s->program);
    *selection = (Selection){.n_weights = n,
                             .coded = arena_array(arena, (size_t)n + 1, sizeof(bool)),
                             .reason = arena_array(arena, (size_t)n + 1, sizeof(char *)),
                             .importance = arena_array(arena, (size_t)n + 1, sizeof(double)),
                             .weight = arena_array(arena, (size_t)n + 1, sizeof(int))};
    size_t *offset = arena_array(arena, (size_t)n + 1, sizeof *offset);
    *size = arena_array(arena, (size_t)n + 1, sizeof **size);
    if (!selection->coded || !selection->reason || !selection->importance || !selection->weight ||
        !offset || !*size)
        return error_memory(s->err, "the selection of weights");
    for (int w = 0; w < n; w++) {
        const Weight *weight = program_weight(s->program, w);
        selection->total_elements += weight->count;
        selection->reason[w] = select_exact_reason(weight);
        if (selection->reason[w])
            continue;
        selection->coded[w] = true;
        selection->reason[w] = "importance from its size";
        Size *found = &(*size)[selection->n_coded];
        selection->weight[selection->n_coded++] = w;
        int rc = run_pass(&(Pass){.s = s, .size = found}, w, add_sizes);
        if (!rc && !isfinite(found->squares))
            rc = error_set(s->err, ONNXPRESS_DATA,
                           "%s: a weight is NaN or infinite: repair or retrain the model first",
                           weight->name);
        if (rc)
            return rc;
        selection->importance[w] = found->squares > 0 ? (double)weight->count / found->squares : 0;
    }
    *step = find_steps(s, selection, *size);
    leave_out_wide(selection, *size);
    for (int t = 0; t < selection->n_coded; t++)
        offset[t + 1] =
            offset[t] + (size_t)program_weight(s->program, selection->weight[t])->count;
    selection->input = (QuantizeInput){.n_tensors = (size_t)selection->n_coded, .offset = offset};
    return selection->n_coded ? ONNXPRESS_OK
                              : error_set(s->err, ONNXPRESS_UNSUPPORTED,
                                          "%s: holds no float weights worth coding", s->model->path);
}

/* ---- cells ---- */

/* The nearest whole number, halves to the even one, without a call; within MOST_CELLS of 0. */
static int cell_of(float w, double step)
{
    const double magic = 0x1.8p52; /* here doubles are the whole numbers */
    return (int)(((double)w / step + magic) - magic) + MOST_CELLS;
}

static int count_cells(void *context, const float *w, int64_t n, Error *err)
{
    Pass *pass = context;
    double step = (double)(float)pass->size->step;
    (void)err;
    for (int64_t i = 0; i < n; i++) {
        int cell = cell_of(w[i], step);
        pass->count[cell]++;
        pass->sum[cell] += (double)w[i] / step;
    }
    return ONNXPRESS_OK;
}

/* Counts all cells; what each tensor has by itself goes into the report. */
static int count_all(Pass *pass, const Selection *selection, Size *size, Stream *stream)
{
    size_t cells = 2 * MOST_CELLS + 1;
    int rc = ONNXPRESS_OK;
    for (int t = 0; t < selection->n_coded && !rc; t++) {
        memset(pass->count, 0, cells * sizeof *pass->count);
        pass->size = &size[t];
        rc = run_pass(pass, selection->weight[t], count_cells);
        for (size_t c = 0; c < cells; c++) {
            pass->total[c] += pass->count[c];
            stream->levels[t] += pass->count[c] > 0;
        }
        const size_t *offset = &selection->input.offset[t];
        stream->bits[t] = entropy_bits(pass->count, cells) / (double)(offset[1] - offset[0]);
        if (!rc)
            rc = session_progress(pass->s, "search", (t + 1.0) / selection->n_coded);
    }
    return rc;
}

/* A centre is the mean of its cell, that of the zero cell zero. */
static int make_centres(const Pass *pass, Arena *arena, uint16_t *symbol, Quantized *q, Error *err)
{
    size_t cells = 2 * MOST_CELLS + 1;
    q->centre = arena_array(arena, cells, sizeof *q->centre);
    if (!q->centre)
        return error_memory(err, "the grid");
    for (size_t c = 0; c < cells; c++) {
        if (!pass->total[c])
            continue;
        symbol[c] = (uint16_t)q->levels;
        q->centre[q->levels++] =
            c == MOST_CELLS ? 0 : (float)(pass->sum[c] / (double)pass->total[c]);
    }
    return ONNXPRESS_OK;
}

/* ---- indices ---- */

static int write_indices(void *context, const float *w, int64_t n, Error *err)
{
    Pass *pass = context;
    uint8_t byte[ROOM];
    uint16_t wide[ROOM];
    double step = (double)(float)pass->size->step;
    int status = ONNXPRESS_OK;
    for (int64_t i = 0; i < n && !status; i += ROOM) {
        size_t part = (size_t)(n - i < ROOM ? n - i : ROOM);
        for (size_t k = 0; k < part; k++) {
            wide[k] = pass->symbol[cell_of(w[i + (int64_t)k], step)];
            byte[k] = (uint8_t)wide[k];
            double change = (double)w[i + (int64_t)k] / step - (double)pass->centre[wide[k]];
            pass->squared += change * change;
        }
        status = pass->narrow ? file_write(pass->writer, byte, part, err)
                              : file_write(pass->writer, wide, part * sizeof *wide, err);
    }
    return status;
}

static int write_all(Pass *pass, const Selection *selection, Size *size, const char *output,
                     Stream *stream)
{
    Session *s = pass->s;
    const char *path = arena_printf(s->arena, "%s.index", output);
    if (!path)
        return error_memory(s->err, "the indices");
    int rc = file_create(path, &pass->writer, s->err);
    if (rc)
        return rc;
    for (int t = 0; t < selection->n_coded && !rc; t++) {
        pass->size = &size[t];
        pass->squared = 0;
        rc = run_pass(pass, selection->weight[t], write_indices);
        double step = (double)(float)size[t].step;
        stream->distortion[t] =
            selection->importance[selection->weight[t]] * pass->squared * step * step;
        if (!rc)
            rc = session_progress(s, "quantization", (t + 1.0) / selection->n_coded);
    }
    if (!rc)
        return file_map_written(pass->writer, &stream->index, s->err);
    file_abort(pass->writer);
    return rc;
}

int stream_quantize(Session *session, const char *output, Selection *selection, Choice *choice,
                    Stream *stream)
{
    Arena *arena = session->arena;
    Size *size;
    double step = 0;
    int rc = select_all(session, selection, &size, &step);
    if (rc)
        return rc;
    size_t cells = 2 * MOST_CELLS + 1, n = (size_t)selection->n_coded;
    uint16_t *symbol = arena_array(arena, cells, sizeof *symbol);
    Pass pass = {.s = session,
                 .count = arena_array(arena, cells, sizeof *pass.count),
                 .total = arena_array(arena, cells, sizeof *pass.total),
                 .sum = arena_array(arena, cells, sizeof *pass.sum),
                 .symbol = symbol};
    Quantized q = {.scale = arena_array(arena, n, sizeof *q.scale)};
    *stream = (Stream){.on = true,
                       .levels = arena_array(arena, n, sizeof *stream->levels),
                       .bits = arena_array(arena, n, sizeof *stream->bits),
                       .distortion = arena_array(arena, n, sizeof *stream->distortion)};
    if (!symbol || !pass.count || !pass.total || !pass.sum || !q.scale || !stream->levels ||
        !stream->bits || !stream->distortion)
        return error_memory(session->err, "the grid");
    for (size_t t = 0; t < n; t++)
        q.scale[t] = (float)size[t].step;
    rc = count_all(&pass, selection, size, stream);
    if (!rc)
        rc = make_centres(&pass, arena, symbol, &q, session->err);
    pass.centre = q.centre;
    pass.narrow = q.levels <= NARROW;
    if (!rc)
        rc = write_all(&pass, selection, size, output, stream);
    *choice = (Choice){.quantized = q, .scope = QUANTIZE_SCOPE_TENSOR, .x = step};
    return rc;
}

void stream_close(Stream *stream)
{
    file_unmap(&stream->index);
}

void stream_report(const Stream *stream, const Selection *selection, OnnxPressTensor *tensor)
{
    for (int t = 0; t < selection->n_coded; t++) {
        OnnxPressTensor *coded = &tensor[selection->weight[t]];
        coded->levels = stream->levels[t];
        coded->bits = stream->bits[t];
        coded->distortion = stream->distortion[t];
    }
}
