/* SPDX-License-Identifier: Apache-2.0
 *
 * run_finetune MODEL IMAGES.npy LABELS.npy|- OUT.onnx [name=value …]: trains the model's weights
 * and writes it with them ("-" for OUT: nothing is written; for LABELS: distillation). Names are
 * those of FinetuneOptions, with prune.keep and so on as prune_keep; mean and std are lists
 * "a,b,c"; `first` takes only that many samples. For tools/bench and tests. */
#include <cblas.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "autodiff/evaluate.h"
#include "finetune/finetune.h"
#include "rewrite/rewrite_internal.h"

typedef struct {
    FinetuneOptions options;
    FeedOptions feed;
    int64_t first;
} Settings;

static int read_list(char *text, double *values)
{
    int n = 0;
    for (char *part = strtok(text, ","); part && n < 16; part = strtok(NULL, ","))
        values[n++] = atof(part);
    return n;
}

static bool read_setting(Settings *s, char *text)
{
    FinetuneOptions *o = &s->options;
    char *equals = strchr(text, '=');
    if (!equals)
        return false;
    *equals = '\0';
    char *value = equals + 1;
    const struct {
        const char *name;
        double *real;
    } reals[] = {{"rate", &o->rate},
                 {"momentum", &o->momentum},
                 {"decay", &o->decay},
                 {"floor", &o->floor},
                 {"factor", &o->factor},
                 {"prune_keep", &o->prune.keep},
                 {"prune_from", &o->prune.from},
                 {"prune_to", &o->prune.to},
                 {"scale", &s->feed.scale}};
    const struct {
        const char *name;
        int *number;
    } numbers[] = {{"epochs", &o->epochs},
                   {"lanes", &o->lanes},
                   {"step_epochs", &o->step_epochs},
                   {"shift", &o->shift},
                   {"threads", &o->threads}};
    for (size_t k = 0; k < sizeof reals / sizeof reals[0]; k++)
        if (strcmp(text, reals[k].name) == 0)
            return *reals[k].real = atof(value), true;
    for (size_t k = 0; k < sizeof numbers / sizeof numbers[0]; k++)
        if (strcmp(text, numbers[k].name) == 0)
            return *numbers[k].number = atoi(value), true;
    if (strcmp(text, "mean") == 0)
        s->feed.n_mean = read_list(value, s->feed.mean);
    else if (strcmp(text, "std") == 0)
        s->feed.n_std = read_list(value, s->feed.std);
    else if (strcmp(text, "optimizer") == 0)
        o->optimizer = strcmp(value, "sgd") ? FINETUNE_ADAM : FINETUNE_SGD;
    else if (strcmp(text, "schedule") == 0)
        o->schedule = strcmp(value, "cosine") == 0 ? FINETUNE_COSINE
                      : strcmp(value, "step") == 0 ? FINETUNE_STEP
                                                   : FINETUNE_CONSTANT;
    else if (strcmp(text, "prune_scope") == 0)
        o->prune.scope = strcmp(value, "tensor") ? PRUNE_MODEL : PRUNE_TENSOR;
    else if (strcmp(text, "batch") == 0)
        o->batch = atoll(value);
    else if (strcmp(text, "seed") == 0)
        o->seed = (uint64_t)atoll(value);
    else if (strcmp(text, "warmup") == 0)
        o->warmup = atoll(value);
    else if (strcmp(text, "flip") == 0)
        o->flip = atoi(value) != 0;
    else if (strcmp(text, "prune_every") == 0)
        o->prune.every = atoll(value);
    else if (strcmp(text, "checkpoint") == 0)
        o->checkpoint = value;
    else if (strcmp(text, "checkpoint_steps") == 0)
        o->checkpoint_steps = atoll(value);
    else if (strcmp(text, "first") == 0)
        s->first = atoll(value);
    else
        return false;
    return true;
}

static int show(void *context, const FinetuneProgress *p)
{
    int *shown = context;
    if (p->step % ((p->steps + p->epochs - 1) / p->epochs) == 0 && ++*shown)
        printf("epoch %d/%d: loss %.5f, accuracy %.4f, kept %.4f, %.1f s, %.0f s left\n", p->epoch,
               p->epochs, p->loss, p->accuracy, p->kept, p->seconds, p->seconds_left);
    fflush(stdout);
    return 0;
}

static int store(Model *model, const Program *program, const Finetuned *tuned, const char *path,
                 Error *err)
{
    for (int w = 0; w < program_weights(program); w++) {
        const Weight *weight = program_weight(program, w);
        size_t node, n = (size_t)weight->count;
        Onnx__TensorProto *proto = values_find(model, weight->name, &node);
        float *value = arena_array(model->arena, n + 1, sizeof *value);
        if (!proto || !value)
            return error_memory(err, "the weights");
        for (size_t i = 0; i < n; i++)
            value[i] = (float)tuned->weight[w][i];
        int status = tuned->weight[w] == weight->data
                         ? ONNXPRESS_OK
                         : values_store(model, proto, value, weight->count, err);
        if (status)
            return status;
    }
    return model_save(model, path, err);
}

static int run(char **argv, Settings *s, Error *err)
{
    Model *model = NULL;
    Program *program = NULL;
    Dataset *dataset = NULL;
    Feed *feed = NULL;
    Answers *answers = NULL;
    Arena *arena = arena_create();
    int64_t *label = NULL, n_labels = 0, probe = 0;
    Finetuned tuned = {0};
    int shown = 0, status = model_load(argv[1], &model, err);
    if (!status)
        status = program_build(model, &program, err);
    if (!status)
        status = dataset_open(argv[2], &dataset, err);
    if (!status)
        status = feed_create(program, dataset, &s->feed, &feed, err);
    if (!status && strcmp(argv[3], "-"))
        status = labels_read(argv[3], arena, &label, &n_labels, err);
    if (!status && label && n_labels != feed_samples(feed))
        status = error_set(err, ONNXPRESS_DATA, "%s: not one label a sample", argv[3]);
    EvaluateOptions one = {.threads = 1};
    if (!status)
        status = answers_create(program, feed, &probe, 1, &one, &answers, err);
    if (!status) {
        int64_t n = feed_samples(feed);
        n = s->first > 0 && s->first < n ? s->first : n;
        int n_outputs = program_outputs(program);
        int64_t *sample = arena_array(arena, (size_t)n, sizeof *sample);
        OutputKind *kind = arena_array(arena, (size_t)n_outputs, sizeof *kind);
        for (int64_t i = 0; i < n; i++)
            sample[i] = i;
        for (int o = 0; o < n_outputs; o++)
            kind[o] = output_kind_guess(program_output(program, o), answers_shape(answers, o));
        FinetuneTask task = {.model = model,
                             .program = program,
                             .feed = feed,
                             .sample = sample,
                             .n = n,
                             .label = label,
                             .kind = kind};
        s->options.progress = show;
        s->options.context = &shown;
        status = finetune_run(&task, &s->options, arena, &tuned, err);
    }
    if (!status)
        printf("%.2f s for %lld steps\n", tuned.seconds, (long long)tuned.steps);
    if (!status && strcmp(argv[4], "-"))
        status = store(model, program, &tuned, argv[4], err);
    answers_free(answers);
    feed_free(feed);
    dataset_close(dataset);
    program_free(program);
    model_free(model);
    arena_destroy(arena);
    return status;
}

int main(int argc, char **argv)
{
    Error err = {0};
    Settings settings = {.options = finetune_defaults()};
    openblas_set_num_threads(1);
    settings.options.threads = 2;
    for (int k = 5; k < argc; k++)
        if (!read_setting(&settings, argv[k])) {
            fprintf(stderr, "%s: not a setting\n", argv[k]);
            return 1;
        }
    if (argc < 5) {
        fprintf(stderr, "usage: run_finetune MODEL IMAGES LABELS|- OUT|- [name=value ...]\n");
        return 1;
    }
    if (run(argv, &settings, &err)) {
        fprintf(stderr, "%s\n", err.message);
        return 1;
    }
    return 0;
}
