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
    owned->report.paper_ratio = NAN;
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

/* The paper's own count for the whole model: one Huffman code over single symbols, a codeword and a
 * 32-bit centre a cluster, a scale a tensor beyond the paper's; exact tensors at 32 bits. */
static double paper_ratio(const Selection *selection, const Choice *choice, Arena *arena)
{
    const Quantized *q = &choice->quantized;
    const QuantizeInput *in = &selection->input;
    size_t n = in->offset[in->n_tensors];
    uint64_t *count = arena_array(arena, (size_t)q->levels, sizeof *count);
    uint8_t *length = arena_array(arena, (size_t)q->levels, 1);
    if (!count || !length)
        return NAN;
    for (size_t i = 0; i < n; i++)
        count[q->symbol[i]]++;
    Error err = {0};
    if (huff_lengths(count, (size_t)q->levels, HUFF_MAX_LENGTH, length, arena, &err))
        return NAN;
    double bits = (double)huff_paper_bits(count, length, (size_t)q->levels);
    bits += 32.0 * (double)(selection->total_elements - (int64_t)n);
    if (choice->scope == QUANTIZE_SCOPE_TENSOR)
        bits += 32.0 * (double)in->n_tensors;
    return 32.0 * (double)selection->total_elements / bits;
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
        report->paper_ratio = paper_ratio(selection, choice, arena);
        report->levels = choice->quantized.levels;
        report->step = choice->x;
        report->scope = choice->scope == QUANTIZE_SCOPE_MODEL ? "model" : "tensor";
    }
    report->seconds = seconds_now() - session->started;
    report->peak_rss_bytes = peak_rss_bytes();
    return failed ? error_memory(session->err, "the report") : ONNXPRESS_OK;
}
