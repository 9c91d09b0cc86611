/* LeNet-5 with some of the MNIST test images, as a FinetuneTask: for the suites of finetune/. Each
 * has `err` and an arena; failures fail the current test. */
#ifndef ONNXPRESS_TESTS_FINETUNE_SAMPLES_H
#define ONNXPRESS_TESTS_FINETUNE_SAMPLES_H

#include <check.h>
#include <string.h>

#include "finetune/finetune_internal.h"

#define MOST_SAMPLES 600

typedef struct {
    Arena *arena;
    Model *model;
    Program *program;
    Dataset *dataset;
    Feed *feed;
    int64_t *label, n_labels, sample[MOST_SAMPLES];
    const real **start;
    int n_weights;
    FinetuneTask task;
} Lenet;

static const OutputKind lenet_kind[1] = {OUTPUT_LOGITS};

static inline void lenet_open(Lenet *l, int64_t n, Error *error)
{
    static const FeedOptions plain;
    *l = (Lenet){.arena = arena_create()};
    ck_assert_ptr_nonnull(l->arena);
    ck_assert_msg(!model_load("testdata/lenet5_mnist.onnx", &l->model, error), "%s",
                  error->message);
    ck_assert_msg(!program_build(l->model, &l->program, error), "%s", error->message);
    ck_assert_msg(!dataset_open("testdata/mnist_test.npz", &l->dataset, error), "%s",
                  error->message);
    ck_assert_msg(!feed_create(l->program, l->dataset, &plain, &l->feed, error), "%s",
                  error->message);
    ck_assert_msg(!labels_read("testdata/mnist_test.npz", l->arena, &l->label, &l->n_labels, error),
                  "%s", error->message);
    for (int64_t i = 0; i < MOST_SAMPLES; i++)
        l->sample[i] = 7 * i; /* some of all parts of the file */
    l->n_weights = program_weights(l->program);
    l->start = arena_array(l->arena, (size_t)l->n_weights, sizeof *l->start);
    l->task = (FinetuneTask){.model = l->model,
                             .program = l->program,
                             .feed = l->feed,
                             .sample = l->sample,
                             .n = n,
                             .label = l->label,
                             .kind = lenet_kind};
}

static inline void lenet_close(Lenet *l)
{
    feed_free(l->feed);
    dataset_close(l->dataset);
    program_free(l->program);
    model_free(l->model);
    arena_destroy(l->arena);
}

/* -1 to 1, decided by the numbers given. */
static inline double lenet_noise(int w, int64_t i)
{
    return (double)(random_hash(99, (uint64_t)w, (uint64_t)i) >> 11) * 0x1p-52 - 1;
}

/* Starts from weights to which noise of `size` times their tensor's root mean square is added. */
static inline void lenet_perturb(Lenet *l, double size)
{
    for (int w = 0; w < l->n_weights; w++) {
        const Weight *weight = program_weight(l->program, w);
        real *moved = arena_array(l->arena, (size_t)weight->count, sizeof *moved);
        double square = 0;
        for (int64_t i = 0; i < weight->count; i++)
            square += (double)weight->data[i] * (double)weight->data[i];
        double width = size * sqrt(square / (double)weight->count);
        for (int64_t i = 0; i < weight->count; i++)
            moved[i] = (real)((double)weight->data[i] + width * lenet_noise(w, i));
        l->start[w] = moved;
    }
    l->task.start = l->start;
}

/* The two convolutions' and two products' weights on a uniform grid. */
typedef struct {
    int weight[4];
    size_t offset[5];
    QuantizeInput input;
    Quantized quantized;
    FinetuneShared shared;
} LenetShared;

static inline void lenet_share(Lenet *l, LenetShared *s, float step, const float *h, Error *error)
{
    static const float relative[4] = {1, 1, 1, 1};
    size_t n = 0;
    for (int w = 0, t = 0; w < l->n_weights; w++) {
        const Weight *weight = program_weight(l->program, w);
        if (weight->shape.rank < 2)
            continue;
        s->weight[t] = w;
        s->offset[t++] = n;
        n += (size_t)weight->count;
    }
    s->offset[4] = n;
    float *w = arena_array(l->arena, n, sizeof *w);
    for (int t = 0; t < 4; t++)
        for (size_t i = s->offset[t]; i < s->offset[t + 1]; i++) {
            w[i] = (float)program_weight(l->program, s->weight[t])->data[i - s->offset[t]];
            if (fabsf(w[i]) < step / 2)
                w[i] = 0; /* exact zeros: their centre is pinned */
        }
    s->input = (QuantizeInput){.n_tensors = 4, .offset = s->offset, .w = w, .h = h};
    ck_assert_msg(!quantize_uniform(&s->input, step, relative, QUANTIZE_SCOPE_MODEL, h != NULL,
                                    l->arena, &s->quantized, error),
                  "%s", error->message);
    s->shared =
        (FinetuneShared){.weight = s->weight, .input = &s->input, .quantized = &s->quantized};
    l->task.shared = &s->shared;
}

#endif
