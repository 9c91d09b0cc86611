/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"

static void print_bytes(const char *label, uint64_t bytes)
{
    printf("  %-14s %12" PRIu64 " bytes\n", label, bytes);
}

static void print_number(const char *label, const char *format, double value, const char *unit)
{
    if (isnan(value))
        return;
    char text[64];
    snprintf(text, sizeof text, format, value);
    printf("  %-14s %12s %s\n", label, text, unit);
}

void distance_print(const OnnxPressDistance *d, bool two_models)
{
    print_number("samples", "%.0f", (double)d->samples, "");
    if (two_models) {
        print_number("KL", "%.6f", d->kl, "nats from the original's answers");
        print_number("relative error", "%.6f", d->relative_error, "of the outputs' variance");
        print_number("largest change", "%.6g", d->max_error, "of an output element");
        print_number("same top-1", "%.2f", 100 * d->top1_agreement, "%");
    }
    print_number("entropy", "%.6f", d->entropy, "nats, of the original's answers");
    print_number(two_models ? "top-1 before" : "top-1", "%.2f", 100 * d->accuracy, "%");
    if (two_models)
        print_number("top-1 after", "%.2f", 100 * d->accuracy_small, "%");
}

static void print_epoch(const char *label, double loss, double accuracy)
{
    printf("  %-14s %12.5f loss", label, loss);
    if (!isnan(accuracy))
        printf(", top-1 %.2f %%", 100 * accuracy);
    printf(", while training\n");
}

void training_print(const OnnxPressReport *r)
{
    const OnnxPressTraining *t = &r->training;
    if (r->pruned > 0)
        print_number("pruned", "%.2f", 100 * r->pruned, "% of the weights of two axes or more");
    if (r->norms)
        printf("  %-14s %12" PRId64 " with new mean and variance\n", "batch norms", r->norms);
    if (!t->epochs)
        return;
    printf("  %-14s %12d epochs of %" PRId64 " samples, %s, %.1f s\n", "training", t->epochs,
           t->samples, t->loss, t->seconds);
    print_epoch("first epoch", t->first_loss, t->first_accuracy);
    print_epoch("last epoch", t->last_loss, t->last_accuracy);
}

static void print_kept(const OnnxPressTraining *t)
{
    printf("  %-14s %s: without it KL %.6f", "training was", t->kept ? "kept" : "not kept",
           t->before.kl);
    if (!isnan(t->before.accuracy_small))
        printf(", top-1 %.2f %%", 100 * t->before.accuracy_small);
    printf("; with it KL %.6f", t->after.kl);
    if (!isnan(t->after.accuracy_small))
        printf(", top-1 %.2f %%", 100 * t->after.accuracy_small);
    printf("\n");
}

static void parts_print(const OnnxPressParts *p)
{
    printf("  %-14s %12" PRIu64 " bytes of streams (%s)", "spent on", p->streams, p->position_code);
    if (!isnan(p->positions))
        printf(", of which %.0f for positions of zeros", p->positions);
    printf("\n");
    printf("  %-14s %12" PRIu64 " codebook, %" PRIu64 " tables, %" PRIu64 " exact, %" PRIu64
           " graph\n",
           "", p->codebook, p->tables, p->exact, p->graph);
}

static void count_print(const OnnxPressCount *c)
{
    if (isnan(c->ratio)) /* a streamed model is not counted */
        return;
    printf("  %-14s %12.2f times by its count, %.3f bits a weight (fixed length: %.2f, %.3f)\n",
           "the paper's", c->ratio, c->bits_per_weight, c->fixed_ratio, c->fixed_bits_per_weight);
    printf("  %-14s %12.0f bits positions, %.0f values, %.0f tables, %.0f exact\n", "",
           c->position_bits, c->value_bits, c->table_bits, c->exact_bits);
}

void report_print(const OnnxPressReport *r)
{
    printf("%s -> %s\n", r->input, r->output);
    print_bytes("was", r->original_bytes);
    print_bytes("is", r->compressed_bytes);
    if (r->sidecar_bytes)
        printf("  %-14s %12" PRIu64 " + %" PRIu64 " in the sidecar\n", "", r->model_bytes,
               r->sidecar_bytes);
    print_number("ratio", "%.2f", r->ratio, "times smaller, everything counted");
    print_number("", "%.3f", r->bits_per_weight, "bits a weight");
    parts_print(&r->parts);
    count_print(&r->paper);
    printf("  %-14s %s, %s scope, %d levels", "quantization", r->method, r->scope, r->levels);
    printf("\n  %-14s %" PRId64 " of %" PRId64 " weights coded, form %s\n", "", r->coded_weights,
           r->weights, r->form);
    printf("  %-14s %s", "importance", r->importance);
    if (r->calibration_samples)
        printf(", %" PRId64 " samples", r->calibration_samples);
    printf("\n  %-14s %s, measured on %s\n", "goal", r->goal, r->measured_on);
    if (strcmp(r->measured_on, "nothing") != 0)
        distance_print(&r->distance, true);
    training_print(r);
    if (r->training.epochs)
        print_kept(&r->training);
    printf("  %-14s %12.2f s, %.0f MB at the peak\n", "cost", r->seconds,
           (double)r->peak_rss_bytes / 1e6);
}

static void shape_to_text(const OnnxPressTensor *t, char *text, size_t size)
{
    size_t used = 0;
    text[0] = 0;
    for (int i = 0; i < t->rank && used < size; i++)
        used +=
            (size_t)snprintf(text + used, size - used, i ? "x%" PRId64 : "%" PRId64, t->shape[i]);
}

void tensors_print(const OnnxPressReport *r)
{
    printf("%s: %" PRIu64 " bytes, %" PRId64 " float weights in %zu tensors\n", r->input,
           r->original_bytes, r->weights, r->n_tensors);
    if (r->form)
        printf("  written by onnxpress, form %s\n", r->form);
    printf("  %-32s %-18s %-9s %12s  %s\n", "tensor", "shape", "type", "elements", "");
    for (size_t i = 0; i < r->n_tensors; i++) {
        const OnnxPressTensor *t = &r->tensors[i];
        char shape[100];
        shape_to_text(t, shape, sizeof shape);
        printf("  %-32s %-18s %-9s %12" PRId64 "  %s%s%s\n", t->name, shape, t->dtype, t->count,
               t->treatment, t->reason[0] ? ": " : "", t->reason);
    }
    for (size_t i = 0; i < r->n_warnings; i++)
        printf("  note: %s\n", r->warnings[i]);
}
