/* SPDX-License-Identifier: Apache-2.0
 *
 * Gradients of half the outputs' sum of squares by every weight, over all samples, to a .npz by weight
 * name:
 *   run_gradients MODEL DATA OUT.npz [THREADS [BLOCK]]
 * Prints the seconds of the computation itself. */
#include <cblas.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "autodiff/blocks.h"
#include "tensor/npy.h"

enum { MOST = 16 };

typedef struct {
    const Program *program;
    float **sum; /* [weights] */
} Gradients;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int backward(void *context, void *state, const Block *block, Error *err)
{
    const Gradients *g = context;
    const real *d_out[MOST];
    (void)state;
    for (int o = 0; o < program_outputs(g->program); o++)
        d_out[o] = exec_output(block->exec, o)->r;
    return exec_backward(block->exec, d_out, err);
}

static int add(void *context, void *state, const Block *block, Error *err)
{
    const Gradients *g = context;
    (void)state, (void)err;
    for (int w = 0; w < program_weights(g->program); w++) {
        const real *d = exec_gradient(block->exec, w);
        for (int64_t i = 0; d && i < program_weight(g->program, w)->count; i++)
            g->sum[w][i] += (float)d[i];
    }
    return ONNXPRESS_OK;
}

static int gradients(const Program *program, const Feed *feed, int threads, int64_t block,
                     const char *path, Arena *arena, Error *err)
{
    int n_weights = program_weights(program);
    int64_t n = feed_samples(feed), most;
    int rc = block_size(feed, &n, &most, err);
    Gradients g = {program, arena_array(arena, (size_t)n_weights + 1, sizeof *g.sum)};
    Tensor *tensors = arena_array(arena, (size_t)n_weights + 1, sizeof *tensors);
    int64_t *sample = arena_array(arena, (size_t)n, sizeof *sample);
    for (int64_t i = 0; i < n; i++)
        sample[i] = i;
    for (int w = 0; w < n_weights; w++) {
        const Weight *weight = program_weight(program, w);
        g.sum[w] = arena_array(arena, (size_t)weight->count, sizeof **g.sum);
        tensors[w] = (Tensor){.name = weight->name,
                              .dtype = DTYPE_FLOAT,
                              .shape = weight->shape,
                              .count = weight->count,
                              .data = g.sum[w],
                              .bytes = (size_t)weight->count * sizeof(float)};
    }
    BlockRun run = {.program = program,
                    .feed = feed,
                    .sample = sample,
                    .n = n,
                    .block = block > 0 && block < most ? block : most,
                    .keep = EXEC_KEEP,
                    .threads = threads};
    BlockVisitor visitor = {.context = &g, .visit = backward, .merge = add};
    double start = now();
    if (!rc)
        rc = blocks_run(&run, &visitor, err);
    if (!rc)
        printf("%.4f\n", now() - start);
    return rc ? rc : npz_write(path, tensors, (size_t)n_weights, err);
}

int main(int argc, char **argv)
{
    Error err = {0};
    Model *model = NULL;
    Program *program = NULL;
    Dataset *dataset = NULL;
    Feed *feed = NULL;
    if (argc < 4) {
        fprintf(stderr, "usage: run_gradients MODEL DATA OUT.npz [THREADS [BLOCK]]\n");
        return 1;
    }
    openblas_set_num_threads(1);
    Arena *arena = arena_create();
    int rc = model_load(argv[1], &model, &err);
    if (!rc)
        rc = program_build(model, &program, &err);
    if (!rc && program_outputs(program) > MOST)
        rc = error_set(&err, ONNXPRESS_UNSUPPORTED, "more than %d outputs", MOST);
    if (!rc)
        rc = dataset_open(argv[2], &dataset, &err);
    if (!rc)
        rc = feed_create(program, dataset, &(FeedOptions){.scale = 0}, &feed, &err);
    if (!rc)
        rc = gradients(program, feed, argc > 4 ? atoi(argv[4]) : 1, argc > 5 ? atoi(argv[5]) : 0,
                       argv[3], arena, &err);
    feed_free(feed);
    dataset_close(dataset);
    program_free(program);
    model_free(model);
    arena_destroy(arena);
    if (rc)
        fprintf(stderr, "run_gradients: %s\n", err.message);
    return rc;
}
