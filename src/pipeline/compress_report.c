/* SPDX-License-Identifier: Apache-2.0
 *
 * The report of a compression. */
#include <math.h>

#include "pipeline/compress_internal.h"
#include "pipeline/report.h"

const char *compress_method(const Compression *c)
{
    static const char *const names[] = {[ONNXPRESS_METHOD_COMPENSATED] = "compensated",
                                        [ONNXPRESS_METHOD_UNIFORM] = "uniform",
                                        [ONNXPRESS_METHOD_KMEANS] = "kmeans",
                                        [ONNXPRESS_METHOD_ECSQ] = "ecsq"};
    return names[c->method];
}

/* Without symbols. */
static void fill_streamed(const Compression *c, OnnxPressReport *r)
{
    stream_report(&c->stream, &c->selection, (OnnxPressTensor *)(uintptr_t)r->tensors);
    r->levels = c->choice.quantized.levels;
    r->step = c->choice.x;
    r->scope = "tensor";
    r->parts.positions = NAN;
    r->paper = (OnnxPressCount){.ratio = NAN,
                                .bits_per_weight = NAN,
                                .position_bits = NAN,
                                .value_bits = NAN,
                                .table_bits = NAN,
                                .exact_bits = NAN,
                                .codeword_bits = NAN,
                                .fixed_codeword_bits = NAN,
                                .fixed_ratio = NAN,
                                .fixed_bits_per_weight = NAN};
}

/* On the goal's samples, or on all where those were no worse only by chance (choose.h). */
static void report_distance(const Compression *c, OnnxPressReport *r)
{
    const Session *s = &c->session;
    session_distance(s, c->choice.distance, c->n_goal, &r->distance);
    if (!c->choice.all)
        return;
    OnnxPressDistance all;
    session_distance(s, c->choice.all, c->n_goal + answers_samples(c->seen), &all);
    if (all.kl > r->distance.kl ||
        (isnan(all.kl) && all.relative_error > r->distance.relative_error)) {
        r->distance = all;
        r->measured_on = "all calibration samples";
    }
}

int compress_report(Compression *c, const char *output, OnnxPressReport **report)
{
    Session *s = &c->session;
    Arena *arena;
    OnnxPressReport *r;
    int rc = report_create(&r, &arena, s->err);
    if (rc)
        return rc;
    r->parts = (OnnxPressParts){.position_code = c->parts.code,
                                .streams = c->parts.streams,
                                .codebook = c->parts.codebook,
                                .tables = c->parts.tables,
                                .exact = c->parts.exact,
                                .graph = c->parts.graph};
    rc = report_fill(r, arena, s, &c->selection, c->stream.on ? NULL : &c->choice);
    if (!rc && c->stream.on)
        fill_streamed(c, r);
    if (rc) {
        onnxpress_report_free(r);
        return rc;
    }
    r->output = arena_strdup(arena, output);
    r->goal = arena_strdup(arena, goal_text(s, c->answers));
    r->goal_value = s->options->goal_value;
    r->method = compress_method(c);
    r->form = rewrite_form_name(c->form);
    r->importance = arena_strdup(arena, c->source);
    r->model_bytes = c->sizes.model_bytes;
    r->sidecar_bytes = c->sizes.sidecar_bytes;
    r->compressed_bytes = r->model_bytes + r->sidecar_bytes;
    r->ratio = (double)r->original_bytes / (double)r->compressed_bytes;
    r->bits_per_weight = 8.0 * (double)r->compressed_bytes / (double)r->weights;
    r->calibration_samples = c->n_importance;
    r->pruned = c->pruned;
    r->training = c->tuned.training;
    r->norms = c->tuned.norms;
    r->measured_on = !c->choice.measured ? "nothing"
                     : c->separate       ? "validation data"
                                         : "held-out calibration samples";
    if (c->choice.measured) {
        report_distance(c, r);
        if (c->label) {
            double n = (double)c->choice.score[0].samples;
            r->distance.accuracy = (double)c->choice.score[0].correct / n;
            r->distance.accuracy_small = (double)c->choice.score[1].correct / n;
        }
    }
    if (!r->output || !r->goal || !r->importance) {
        onnxpress_report_free(r);
        return error_memory(s->err, "the report");
    }
    *report = r;
    return ONNXPRESS_OK;
}
