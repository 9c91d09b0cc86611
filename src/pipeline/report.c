/* SPDX-License-Identifier: Apache-2.0 */
#include "pipeline/report.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "entropy/entropy.h"
#include "pipeline/training.h"

/* The public struct stands first, so that a report pointer is an owned report's. */
typedef struct {
    OnnxPressReport report;
    Arena *arena;
} OwnedReport;

int report_create(OnnxPressReport **report, Arena **arena, Error *err)
{
    OwnedReport *owned = calloc(1, sizeof *owned);
    if (owned)
        owned->arena = arena_create();
    if (!owned || !owned->arena) {
        free(owned);
        return error_memory(err, "the report");
    }
    distance_clear(&owned->report.distance);
    owned->report.goal_value = NAN;
    owned->report.step = NAN;
    owned->report.ratio = NAN;
    owned->report.bits_per_weight = NAN;
    owned->report.paper.ratio = NAN;
    owned->report.pruned = NAN;
    training_clear(&owned->report.training);
    *report = &owned->report;
    *arena = owned->arena;
    return ONNXPRESS_OK;
}

void onnxpress_report_free(OnnxPressReport *report)
{
    if (!report)
        return;
    OwnedReport *owned = (OwnedReport *)report;
    arena_destroy(owned->arena);
    free(owned);
}

static const char *copied(Arena *arena, const char *text, bool *failed)
{
    const char *copy = arena_strdup(arena, text ? text : "");
    *failed |= !copy;
    return copy;
}

/* Entropy a symbol and levels in use of one coded tensor. */
static void tensor_rate(const Choice *choice, const size_t *offset, int t, uint64_t *count,
                        OnnxPressTensor *tensor)
{
    const Quantized *q = &choice->quantized;
    memset(count, 0, (size_t)q->levels * sizeof *count);
    for (size_t i = offset[t]; i < offset[t + 1]; i++)
        count[q->symbol[i]]++;
    for (int l = 0; l < q->levels; l++)
        tensor->levels += count[l] > 0;
    tensor->bits = entropy_bits(count, (size_t)q->levels) / (double)(offset[t + 1] - offset[t]);
}

/* Share of exact zeros from which a network is taken as pruned. */
#define PRUNED_SHARE 0.1

/* The symbol of the zeros of a pruned network, -1 for another. */
static int pruned_symbol(const QuantizeInput *in, const Quantized *q)
{
    size_t n = in->offset[in->n_tensors], zeros = 0;
    for (size_t i = 0; i < n; i++)
        zeros += in->w[i] == 0;
    for (int l = 0; l < q->levels && (double)zeros >= PRUNED_SHARE * (double)n; l++)
        if (q->centre[l] == 0)
            return l;
    return -1;
}

static int count_as_paper(const Selection *selection, const Choice *choice, Arena *arena,
                          OnnxPressCount *result, Error *err)
{
    const Quantized *q = &choice->quantized;
    const QuantizeInput *in = &selection->input;
    uint64_t n = in->offset[in->n_tensors];
    double total = (double)selection->total_elements;
    int pruned = pruned_symbol(in, q);
    PaperCount count;
    int rc = paper_count(q->symbol, n, (size_t)q->levels, pruned, arena, &count, err);
    if (rc)
        return rc;
    double scales =
        choice->scope == QUANTIZE_SCOPE_TENSOR ? 32.0 * (double)in->n_tensors : 0;
    double exact = 32.0 * (total - (double)n);
    double bits = count.position_bits + count.value_bits + count.table_bits + scales + exact;
    double fixed = count.fixed_bits + scales + exact;
    double values = count.values > 0 ? (double)count.values : 1;
    *result = (OnnxPressCount){
        .gaps = pruned >= 0,
        .ratio = 32 * total / bits,
        .bits_per_weight = bits / total,
        .position_bits = count.position_bits,
        .value_bits = count.value_bits,
        .table_bits = count.table_bits + scales,
        .exact_bits = exact,
        .codeword_bits = count.value_bits / values,
        .fixed_codeword_bits = count.levels > 0 ? log2((double)count.levels) : 0,
        .fixed_ratio = 32 * total / fixed,
        .fixed_bits_per_weight = fixed / total};
    return ONNXPRESS_OK;
}

/* The streams' share that tells where weights are not zero (the value nearest to it): of the
 * symbols' entropy that of zero or not. It is taken for all position codes alike. */
static int share_positions(const Selection *selection, const Choice *choice, Arena *arena,
                           OnnxPressParts *parts, Error *err)
{
    const Quantized *q = &choice->quantized;
    size_t n = selection->input.offset[selection->input.n_tensors];
    uint64_t *count = arena_array(arena, (size_t)q->levels, sizeof *count);
    if (!count)
        return error_memory(err, "the report");
    for (size_t i = 0; i < n; i++)
        count[q->symbol[i]]++;
    int zero = 0;
    for (int l = 1; l < q->levels; l++)
        if (fabsf(q->centre[l]) < fabsf(q->centre[zero]))
            zero = l;
    double mask = entropy_bits((uint64_t[]){count[zero], n - count[zero]}, 2);
    double all = entropy_bits(count, (size_t)q->levels);
    parts->positions = all > 0 ? (double)parts->streams * mask / all : 0;
    return ONNXPRESS_OK;
}

int report_fill(OnnxPressReport *report, Arena *arena, const Session *session,
                const Selection *selection, const Choice *choice)
{
    bool failed = false;
    int n = program_weights(session->program);
    OnnxPressTensor *tensors = arena_array(arena, (size_t)n + 1, sizeof *tensors);
    const char **warnings = arena_array(arena, session->n_warnings + 1, sizeof *warnings);
    uint64_t *count =
        choice ? arena_array(arena, (size_t)choice->quantized.levels, sizeof *count) : NULL;
    if (!tensors || !warnings || (choice && !count))
        return error_memory(session->err, "the report");
    report->weights = report->coded_weights = 0;
    for (int w = 0; w < n; w++) {
        const Weight *weight = program_weight(session->program, w);
        OnnxPressTensor *tensor = &tensors[w];
        tensor->name = copied(arena, weight->name, &failed);
        tensor->dtype = dtype_name(weight->dtype);
        tensor->rank = weight->shape.rank;
        memcpy(tensor->shape, weight->shape.dim, sizeof weight->shape.dim);
        tensor->count = weight->count;
        tensor->treatment = selection && selection->coded[w] ? "coded" : "exact";
        tensor->reason = copied(arena, selection ? selection->reason[w] : NULL, &failed);
        tensor->bits = 8.0 * (double)dtype_bytes(weight->dtype);
        tensor->importance = selection ? selection->importance[w] : NAN;
        report->weights += weight->count;
        if (selection && selection->coded[w])
            report->coded_weights += weight->count;
    }
    for (int t = 0; choice && t < selection->n_coded; t++) {
        OnnxPressTensor *tensor = &tensors[selection->weight[t]];
        tensor_rate(choice, selection->input.offset, t, count, tensor);
        tensor->distortion = quantize_distortion(&selection->input, &choice->quantized, (size_t)t);
        if (choice->finer && choice->finer[t] < 1) {
            tensor->reason = arena_printf(arena, "%s; rounded %.1f times finer: alone it took the "
                                                 "answers too far",
                                          tensor->reason, 1 / (double)choice->finer[t]);
            failed |= !tensor->reason;
        }
    }
    for (size_t i = 0; i < session->n_warnings; i++)
        warnings[i] = copied(arena, session->warnings[i], &failed);
    report->tensors = tensors;
    report->n_tensors = (size_t)n;
    report->warnings = warnings;
    report->n_warnings = session->n_warnings;
    report->input = copied(arena, session->model->path, &failed);
    report->original_bytes = session->model->file_bytes + session->model->external_bytes;
    if (choice) {
        int rc = count_as_paper(selection, choice, arena, &report->paper, session->err);
        if (!rc)
            rc = share_positions(selection, choice, arena, &report->parts, session->err);
        if (rc)
            return rc;
        report->levels = choice->quantized.levels;
        report->step = choice->x;
        report->scope = choice->scope == QUANTIZE_SCOPE_MODEL ? "model" : "tensor";
    }
    report->seconds = seconds_now() - session->started;
    report->peak_rss_bytes = peak_rss_bytes();
    return failed ? error_memory(session->err, "the report") : ONNXPRESS_OK;
}
