/* SPDX-License-Identifier: Apache-2.0 */
#include "finetune/finetune_internal.h"

#include <stdlib.h>
#include <string.h>

/* Elements that one thread updates at a time: gradients, weight and state stay in its cache. */
#define CHUNK 4096
/* In a row: what no exporter writes, and no stack minds. */
#define MOST_IDENTITIES 16

/* Batch normalization's running mean and variance: they have derivatives, but are no parameters.
 * Exporters share equal ones through Identity nodes. */
static bool is_statistic(const FinetuneTask *task, int value, int depth)
{
    const Graph *graph = program_graph(task->program);
    const GraphValue *graph_value = &graph->values[value];
    for (int u = 0; u < graph_value->n_uses; u++) {
        const GraphUse *use = &graph_value->uses[u];
        const Onnx__NodeProto *node = graph->nodes[use->node];
        const char *type = node->op_type ? node->op_type : "";
        if (strcmp(type, "BatchNormalization") == 0 && use->input >= 3)
            return true;
        if (strcmp(type, "Identity") == 0 && node->n_output == 1 && depth < MOST_IDENTITIES &&
            graph->outputs[use->node][0] >= 0 &&
            is_statistic(task, graph->outputs[use->node][0], depth + 1))
            return true;
    }
    return false;
}

static const real *start_of(const FinetuneTask *task, int w)
{
    return task->start && task->start[w] ? task->start[w] : program_weight(task->program, w)->data;
}

/* What is trained as it is: reached, not shared, not excluded. */
static int lay_out_free(Parameters *p, Arena *arena, Error *err)
{
    const FinetuneTask *task = p->task;
    bool *shared = arena_array(arena, (size_t)p->n_weights + 1, sizeof *shared);
    p->free = arena_array(arena, (size_t)p->n_weights + 1, sizeof *p->free);
    if (!shared || !p->free)
        return error_memory(err, "the parameters");
    for (size_t t = 0; task->shared && t < task->shared->input->n_tensors; t++) {
        const size_t *offset = task->shared->input->offset;
        int w = task->shared->weight[t];
        if (w < 0 || w >= p->n_weights || shared[w] ||
            (size_t)program_weight(task->program, w)->count != offset[t + 1] - offset[t])
            return error_set(err, ONNXPRESS_INTERNAL, "shared tensor %zu fits no weight", t);
        shared[w] = true;
        p->wanted[w] = true;
    }
    for (int w = 0; w < p->n_weights; w++) {
        const Weight *weight = program_weight(task->program, w);
        if (shared[w] || (task->trained && !task->trained[w]) || !weight->reaches ||
            weight->steers || is_statistic(task, weight->value, 0))
            continue;
        bool matrix = weight->shape.rank >= 2;
        p->free[p->n_free++] = (FreeTensor){w, p->n, (size_t)weight->count, matrix, matrix};
        p->wanted[w] = true;
        p->n += (size_t)weight->count;
        p->prunable += matrix ? (size_t)weight->count : 0;
    }
    p->centre_at = p->scale_at = p->n;
    if (!task->shared)
        return ONNXPRESS_OK;
    p->levels = task->shared->quantized->levels;
    p->n += (size_t)p->levels;
    p->scale_at = p->n;
    p->n += task->shared->input->n_tensors;
    return ONNXPRESS_OK;
}

static void start_free(Parameters *p)
{
    for (int k = 0; k < p->n_free; k++) {
        const FreeTensor *tensor = &p->free[k];
        const real *from = start_of(p->task, tensor->weight);
        const uint8_t *mask = p->task->mask ? p->task->mask[tensor->weight] : NULL;
        real *theta = p->theta + tensor->at;
        for (size_t i = 0; i < tensor->n; i++)
            theta[i] = !mask || mask[i] ? from[i] : 0;
        for (size_t i = 0; p->mask && i < tensor->n; i++)
            p->mask[tensor->at + i] = !mask || mask[i];
        p->weight[tensor->weight] = theta;
    }
}

/* The weight of element i in its centre's mean. */
static double share_of(const FinetuneShared *shared, size_t i)
{
    bool weighted = shared->gradient == FINETUNE_HESSIAN && shared->input->h;
    return weighted ? (double)shared->input->h[i] : 1;
}

/* The mean size of the centres that the weights have, zeros apart. */
static double centre_unit(const FinetuneShared *shared)
{
    const QuantizeInput *input = shared->input;
    double sum = 0, members = 0;
    for (size_t i = 0; shared->relative && i < input->offset[input->n_tensors]; i++) {
        double size = fabs((double)shared->quantized->centre[shared->quantized->symbol[i]]);
        sum += size;
        members += size > 0;
    }
    return members > 0 ? sum / members : 1;
}

static int start_shared(Parameters *p, Arena *arena, Error *err)
{
    const FinetuneShared *shared = p->task->shared;
    const QuantizeInput *input = shared->input;
    const Quantized *quantized = shared->quantized;
    size_t levels = (size_t)p->levels, tensors = input->n_tensors;
    p->members = arena_array(arena, levels + tensors, sizeof *p->members);
    p->tensor_members = p->members ? p->members + levels : NULL;
    p->sums = arena_array(arena, PARAMETER_PIECES * (levels + tensors), sizeof *p->sums);
    if (!p->members || !p->sums)
        return error_memory(err, "the shared weights");
    for (size_t c = 0; c < levels; c++)
        p->theta[p->centre_at + c] = (real)quantized->centre[c];
    for (size_t t = 0; t < tensors; t++) {
        int w = shared->weight[t];
        p->theta[p->scale_at + t] = (real)quantized->scale[t];
        p->weight[w] = arena_array(arena, input->offset[t + 1] - input->offset[t], sizeof(real));
        if (!p->weight[w])
            return error_memory(err, "the shared weights");
        for (size_t i = input->offset[t]; i < input->offset[t + 1]; i++) {
            if (quantized->symbol[i] >= p->levels)
                return error_set(err, ONNXPRESS_INTERNAL, "symbol %d of only %d",
                                 quantized->symbol[i], p->levels);
            p->members[quantized->symbol[i]] += share_of(shared, i);
            p->tensor_members[t] += share_of(shared, i);
        }
    }
    p->centre_unit = centre_unit(shared);
    return ONNXPRESS_OK;
}

int parameters_create(const FinetuneTask *task, const FinetuneOptions *options, Arena *arena,
                      Parameters *p, Error *err)
{
    *p = (Parameters){.task = task, .n_weights = program_weights(task->program)};
    size_t n_weights = (size_t)p->n_weights + 1;
    p->weight = arena_array(arena, n_weights, sizeof *p->weight);
    p->wanted = arena_array(arena, n_weights, sizeof *p->wanted);
    if (!p->weight || !p->wanted)
        return error_memory(err, "the parameters");
    int status = lay_out_free(p, arena, err);
    if (status)
        return status;
    if (p->n == 0)
        return error_set(err, ONNXPRESS_UNSUPPORTED,
                         "%s: no weight can be trained: no derivative reaches any of them",
                         task->model->path);
    p->theta = arena_array(arena, p->n, sizeof *p->theta);
    p->m = arena_array(arena, p->n, sizeof *p->m);
    if (options->optimizer == FINETUNE_ADAM)
        p->v = arena_array(arena, p->n, sizeof *p->v);
    bool masked = options->prune.every > 0;
    for (int k = 0; task->mask && k < p->n_free; k++)
        masked |= task->mask[p->free[k].weight] != NULL;
    if (masked && p->centre_at)
        p->mask = arena_array(arena, p->centre_at, 1);
    if (!p->theta || !p->m || (options->optimizer == FINETUNE_ADAM && !p->v) ||
        (masked && p->centre_at && !p->mask))
        return error_memory(err, "the parameters");
    for (int w = 0; w < p->n_weights; w++) /* never written through: only read by the executor */
        p->weight[w] = (real *)(uintptr_t)start_of(task, w);
    start_free(p);
    if (task->shared && !(status = start_shared(p, arena, err)))
        parameters_spread(p, 1);
    return status;
}

void parameters_spread(const Parameters *p, int threads)
{
    const FinetuneShared *shared = p->task->shared;
    const uint16_t *symbol = shared->quantized->symbol;
    const real *centre = p->theta + p->centre_at;
#pragma omp parallel for num_threads(threads) schedule(dynamic, 1)
    for (size_t t = 0; t < shared->input->n_tensors; t++) {
        size_t first = shared->input->offset[t], n = shared->input->offset[t + 1] - first;
        real scale = p->theta[p->scale_at + t], *weight = p->weight[shared->weight[t]];
        for (size_t i = 0; i < n; i++)
            weight[i] = scale * centre[symbol[first + i]];
    }
}

/* Sum over lanes of elements [at, at + n) of one weight's gradient; false: not finite. */
static bool gather(const real *const *const *gradient, int lanes, int weight, size_t at, size_t n,
                   real *g)
{
    real probe = 0; /* a product with 0 is 0 unless the factor is not finite */
    bool first = true;
    for (int l = 0; l < lanes; l++) {
        const real *from = gradient[l][weight];
        if (!from)
            continue;
        if (first)
            memcpy(g, from + at, n * sizeof *g);
        else
#pragma omp simd
            for (size_t i = 0; i < n; i++)
                g[i] += from[at + i];
        first = false;
    }
    if (first)
        memset(g, 0, n * sizeof *g);
#pragma omp simd reduction(+ : probe)
    for (size_t i = 0; i < n; i++)
        probe += g[i] * 0;
    return probe == 0;
}

/* Adds one piece of the shared weights' gradients to its own sums: by centre, then by scale. */
static bool sum_piece(const Parameters *p, const real *const *const *gradient, int lanes, int piece)
{
    const FinetuneShared *shared = p->task->shared;
    const size_t *offset = shared->input->offset, tensors = shared->input->n_tensors;
    const uint16_t *symbol = shared->quantized->symbol;
    size_t total = offset[tensors], levels = (size_t)p->levels;
    size_t low = total * (size_t)piece / PARAMETER_PIECES;
    size_t high = total * (size_t)(piece + 1) / PARAMETER_PIECES;
    double *by_centre = p->sums + (size_t)piece * (levels + tensors),
           *by_scale = by_centre + levels;
    bool finite = true;
    memset(by_centre, 0, (levels + tensors) * sizeof *by_centre);
    for (size_t t = 0; t < tensors; t++) {
        size_t first = offset[t] > low ? offset[t] : low;
        size_t end = offset[t + 1] < high ? offset[t + 1] : high;
        double scale = (double)p->theta[p->scale_at + t];
        for (size_t at = first; at < end; at += CHUNK) {
            real g[CHUNK];
            size_t n = end - at < CHUNK ? end - at : CHUNK;
            finite &= gather(gradient, lanes, shared->weight[t], at - offset[t], n, g);
            for (size_t i = 0; i < n; i++) {
                uint16_t s = symbol[at + i];
                double part = share_of(shared, at + i) * (double)g[i];
                by_centre[s] += scale * part;
                by_scale[t] += (double)p->theta[p->centre_at + s] * part;
            }
        }
    }
    return finite;
}

static bool update_shared(Parameters *p, const real *const *const *gradient, int lanes,
                          const OptimizerStep *step, int threads)
{
    const FinetuneShared *shared = p->task->shared;
    size_t levels = (size_t)p->levels, tensors = shared->input->n_tensors;
    size_t n = levels + tensors;
    bool finite = true;
#pragma omp parallel for num_threads(threads) schedule(dynamic, 1) reduction(&& : finite)
    for (int piece = 0; piece < PARAMETER_PIECES; piece++)
        finite = sum_piece(p, gradient, lanes, piece) && finite;
    for (size_t k = 0; k < n; k++) {
        double sum = 0;
        for (size_t piece = 0; piece < PARAMETER_PIECES; piece++)
            sum += p->sums[piece * n + k];
        bool pinned = k < levels ? shared->quantized->centre[k] == 0 : !shared->train_scales;
        real g = p->members[k] > 0 && !pinned ? (real)(sum / p->members[k]) : 0;
        OptimizerStep own = *step;
        if (k < levels)
            own.rate *= (real)p->centre_unit;
        else if (shared->relative)
            own.rate *= (real)fabs((double)shared->quantized->scale[k - levels]);
        if (!pinned)
            optimizer_update(&own, 0, &g, NULL, 1, p->theta + p->centre_at + k,
                             p->m + p->centre_at + k, p->v ? p->v + p->centre_at + k : NULL);
    }
    parameters_spread(p, threads);
    return finite;
}

bool parameters_update(Parameters *p, const real *const *const *gradient, int lanes,
                       const FinetuneOptions *options, double rate, int64_t t)
{
    OptimizerStep step = optimizer_step(options, rate, t);
    bool finite = true;
#pragma omp parallel num_threads(options->threads) reduction(&& : finite)
    for (int k = 0; k < p->n_free; k++) {
        const FreeTensor *tensor = &p->free[k];
        real decay = tensor->decays ? (real)options->decay : 0;
#pragma omp for schedule(static) nowait
        for (size_t at = 0; at < tensor->n; at += CHUNK) {
            real g[CHUNK];
            size_t n = tensor->n - at < CHUNK ? tensor->n - at : CHUNK, here = tensor->at + at;
            finite = gather(gradient, lanes, tensor->weight, at, n, g) && finite;
            optimizer_update(&step, decay, g, p->mask ? p->mask + here : NULL, n, p->theta + here,
                             p->m + here, p->v ? p->v + here : NULL);
        }
    }
    if (p->task->shared)
        finite = update_shared(p, gradient, lanes, &step, options->threads) && finite;
    return finite;
}

int parameters_prune(Parameters *p, const PruneSchedule *schedule, double share, Error *err)
{
    size_t room = (size_t)p->n_free + 1;
    Arena *scratch = arena_create();
    if (!scratch)
        return error_memory(err, "the masks");
    int64_t *count = arena_array(scratch, room, sizeof *count);
    const real **w = arena_array(scratch, room, sizeof *w);
    const float **h = arena_array(scratch, room, sizeof *h);
    uint8_t **mask = arena_array(scratch, room, sizeof *mask);
    PruneInput input = {.count = count, .w = w, .h = h};
    int status = count && w && h && mask ? ONNXPRESS_OK : error_memory(err, "the masks");
    for (int k = 0; !status && k < p->n_free; k++) {
        const FreeTensor *tensor = &p->free[k];
        if (!tensor->prunable)
            continue;
        count[input.n] = (int64_t)tensor->n;
        w[input.n] = p->theta + tensor->at;
        h[input.n] = schedule->h ? schedule->h[tensor->weight] : NULL;
        mask[input.n++] = p->mask + tensor->at;
    }
    if (!status)
        status = prune_masks(&input, schedule->measure, schedule->scope,
                             prune_kept_at(schedule, share), mask, err);
    for (size_t i = 0; !status && i < p->centre_at; i++)
        if (!p->mask[i]) {
            p->theta[i] = p->m[i] = 0;
            if (p->v)
                p->v[i] = 0;
        }
    arena_destroy(scratch);
    return status;
}

double parameters_kept(const Parameters *p)
{
    size_t kept = 0;
    if (!p->mask || !p->prunable)
        return 1;
    for (int k = 0; k < p->n_free; k++)
        for (size_t i = 0; p->free[k].prunable && i < p->free[k].n; i++)
            kept += p->mask[p->free[k].at + i];
    return (double)kept / (double)p->prunable;
}
