/* SPDX-License-Identifier: Apache-2.0
 *
 * The reports as JSON. Keys are stable: README.md lists them. Numbers that do not apply are null.
 */
#include <cJSON.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "tensor/file.h"

static void add_number(cJSON *object, const char *key, double value)
{
    if (isfinite(value))
        cJSON_AddNumberToObject(object, key, value);
    else
        cJSON_AddNullToObject(object, key);
}

static void add_text(cJSON *object, const char *key, const char *text)
{
    if (text)
        cJSON_AddStringToObject(object, key, text);
    else
        cJSON_AddNullToObject(object, key);
}

static void add_distance(cJSON *object, const OnnxPressDistance *d)
{
    add_number(object, "samples", (double)d->samples);
    add_number(object, "kl", d->kl);
    add_number(object, "entropy", d->entropy);
    add_number(object, "relative_error", d->relative_error);
    add_number(object, "max_error", d->max_error);
    add_number(object, "top1_agreement", d->top1_agreement);
    add_number(object, "accuracy", d->accuracy);
    add_number(object, "accuracy_small", d->accuracy_small);
}

static void add_training(cJSON *object, const OnnxPressReport *r)
{
    const OnnxPressTraining *t = &r->training;
    if (!isnan(r->pruned))
        add_number(object, "pruned", r->pruned);
    if (r->norms)
        add_number(object, "norms", (double)r->norms);
    if (!t->epochs)
        return;
    cJSON *training = cJSON_AddObjectToObject(object, "training");
    add_number(training, "epochs", t->epochs);
    add_number(training, "samples", (double)t->samples);
    add_text(training, "loss", t->loss);
    add_number(training, "first_loss", t->first_loss);
    add_number(training, "first_accuracy", t->first_accuracy);
    add_number(training, "last_loss", t->last_loss);
    add_number(training, "last_accuracy", t->last_accuracy);
    add_number(training, "seconds", t->seconds);
    if (!r->compressed_bytes)
        return;
    cJSON_AddBoolToObject(training, "kept", t->kept);
    add_distance(cJSON_AddObjectToObject(training, "before"), &t->before);
    add_distance(cJSON_AddObjectToObject(training, "after"), &t->after);
}

static void add_tensors(cJSON *object, const OnnxPressReport *r)
{
    cJSON *list = cJSON_AddArrayToObject(object, "tensors");
    for (size_t i = 0; i < r->n_tensors; i++) {
        const OnnxPressTensor *t = &r->tensors[i];
        cJSON *item = cJSON_CreateObject(), *shape = cJSON_AddArrayToObject(item, "shape");
        add_text(item, "name", t->name);
        add_text(item, "dtype", t->dtype);
        for (int d = 0; d < t->rank; d++)
            cJSON_AddItemToArray(shape, cJSON_CreateNumber((double)t->shape[d]));
        add_number(item, "count", (double)t->count);
        add_text(item, "treatment", t->treatment);
        add_text(item, "reason", t->reason);
        add_number(item, "levels", t->levels);
        add_number(item, "bits", t->bits);
        add_number(item, "distortion", t->distortion);
        add_number(item, "importance", t->importance);
        cJSON_AddItemToArray(list, item);
    }
}

static void add_count(cJSON *object, const OnnxPressCount *c)
{
    cJSON_AddBoolToObject(object, "paper_gaps", c->gaps);
    add_number(object, "paper_ratio", c->ratio);
    add_number(object, "paper_bits_per_weight", c->bits_per_weight);
    add_number(object, "position_bits", c->position_bits);
    add_number(object, "value_bits", c->value_bits);
    add_number(object, "table_bits", c->table_bits);
    add_number(object, "exact_bits", c->exact_bits);
    add_number(object, "codeword_bits", c->codeword_bits);
    add_number(object, "fixed_codeword_bits", c->fixed_codeword_bits);
    add_number(object, "fixed_ratio", c->fixed_ratio);
    add_number(object, "fixed_bits_per_weight", c->fixed_bits_per_weight);
}

static void add_parts(cJSON *object, const OnnxPressParts *p)
{
    add_text(object, "position_code", p->position_code);
    cJSON *bytes = cJSON_AddObjectToObject(object, "bytes");
    add_number(bytes, "streams", (double)p->streams);
    add_number(bytes, "positions", p->positions);
    add_number(bytes, "codebook", (double)p->codebook);
    add_number(bytes, "tables", (double)p->tables);
    add_number(bytes, "exact", (double)p->exact);
    add_number(bytes, "graph", (double)p->graph);
}

/* Prints and frees the object. */
static int write_json(cJSON *object, const char *path)
{
    Error err = {0};
    char *text = cJSON_Print(object);
    cJSON_Delete(object);
    if (!text) {
        error_memory(&err, "the JSON report");
        return fail(&err);
    }
    int rc = ONNXPRESS_OK;
    if (strcmp(path, "-") == 0) {
        puts(text);
    } else {
        FileWriter *writer = NULL;
        rc = file_create(path, &writer, &err);
        if (!rc)
            rc = file_write(writer, text, strlen(text), &err);
        if (!rc)
            rc = file_write(writer, "\n", 1, &err);
        if (!rc)
            rc = file_commit(writer, &err);
        else
            file_abort(writer);
    }
    free(text);
    return rc ? fail(&err) : ONNXPRESS_OK;
}

int report_json(const OnnxPressReport *r, const char *path)
{
    cJSON *object = cJSON_CreateObject();
    add_text(object, "onnxpress", onnxpress_version());
    add_text(object, "input", r->input);
    add_text(object, "output", r->output);
    add_number(object, "original_bytes", (double)r->original_bytes);
    if (r->compressed_bytes) {
        add_number(object, "compressed_bytes", (double)r->compressed_bytes);
        add_number(object, "model_bytes", (double)r->model_bytes);
        add_number(object, "sidecar_bytes", (double)r->sidecar_bytes);
        add_number(object, "ratio", r->ratio);
        add_number(object, "bits_per_weight", r->bits_per_weight);
        add_count(object, &r->paper);
        add_parts(object, &r->parts);
        add_text(object, "method", r->method);
        add_text(object, "scope", r->scope);
        add_number(object, "step", r->step);
        add_number(object, "levels", r->levels);
        add_text(object, "goal", r->goal);
        add_text(object, "measured_on", r->measured_on);
        add_distance(object, &r->distance);
    }
    add_text(object, "form", r->form);
    add_text(object, "importance", r->importance);
    add_number(object, "calibration_samples", (double)r->calibration_samples);
    add_number(object, "weights", (double)r->weights);
    add_number(object, "coded_weights", (double)r->coded_weights);
    add_training(object, r);
    add_number(object, "seconds", r->seconds);
    add_number(object, "peak_rss_bytes", (double)r->peak_rss_bytes);
    cJSON *warnings = cJSON_AddArrayToObject(object, "warnings");
    for (size_t i = 0; i < r->n_warnings; i++)
        cJSON_AddItemToArray(warnings, cJSON_CreateString(r->warnings[i]));
    add_tensors(object, r);
    return write_json(object, path);
}

int distance_json(const OnnxPressDistance *distance, const char *path)
{
    cJSON *object = cJSON_CreateObject();
    add_text(object, "onnxpress", onnxpress_version());
    add_distance(object, distance);
    return write_json(object, path);
}
