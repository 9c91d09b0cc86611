/* SPDX-License-Identifier: Apache-2.0
 *
 * Writes the importance of a model's weights to a .npz by weight name, for checks in Python:
 *   run_importance MODEL DATA OUT.npz [key=value ...]
 * keys: estimator (a name), labels (a file); numbers: threads, samples (0: all), seed, exact, draws,
 * variance, memory, scale (0: the default).
 * The outputs' kinds are guessed. Prints the seconds of the computation itself.
 */
#include <cblas.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "importance/importance.h"
#include "tensor/npy.h"

static const char *const keys[] = {"threads", "samples",  "seed",   "exact",
                                   "draws",   "variance", "memory", "scale"};
enum { THREADS, SAMPLES, SEED, EXACT, DRAWS, VARIANCE, MEMORY, SCALE, N_KEYS };

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static ImportanceKind estimator = IMPORTANCE_GAUSS_NEWTON;
static const char *labels;

static bool parse_word(const char *word)
{
    if (!strncmp(word, "estimator=", 10))
        return importance_parse(word + 10, &estimator);
    if (strncmp(word, "labels=", 7) != 0)
        return false;
    labels = word + 7;
    return true;
}

static bool parse(int argc, char **argv, double *value)
{
    for (int i = 4; i < argc; i++) {
        if (parse_word(argv[i]))
            continue;
        const char *equals = strchr(argv[i], '=');
        int k = 0;
        while (equals && k < N_KEYS && strncmp(argv[i], keys[k], (size_t)(equals - argv[i])) != 0)
            k++;
        if (!equals || k == N_KEYS) {
            fprintf(stderr, "%s: not understood\n", argv[i]);
            return false;
        }
        value[k] = atof(equals + 1);
    }
    return argc >= 4;
}

/* The shapes that outputs have in a run decide their kinds. */
static int guess_kinds(const Program *program, const Feed *feed, OutputKind *kind, Error *err)
{
    Exec *exec = NULL;
    FeedStore *store = feed_store_create();
    Value *inputs = calloc((size_t)program_inputs(program) + 1, sizeof *inputs);
    int64_t n = feed_max_batch(feed) == INT64_MAX ? 1 : feed_max_batch(feed);
    int64_t *sample = calloc((size_t)n, sizeof *sample);
    int rc = exec_create(program, 0, &exec, err);
    for (int64_t i = 0; i < n; i++)
        sample[i] = i;
    if (!rc)
        rc = feed_batch(feed, sample, n, store, inputs, err);
    if (!rc)
        rc = exec_forward(exec, inputs, EXEC_DISCARD, err);
    for (int o = 0; o < program_outputs(program) && !rc; o++)
        kind[o] = output_kind_guess(program_output(program, o), &exec_output(exec, o)->shape);
    exec_free(exec);
    feed_store_free(store);
    free(inputs);
    free(sample);
    return rc;
}

static int write_npz(const Program *program, const char *path, float *const *h, Arena *arena,
                     Error *err)
{
    size_t count = 0;
    Tensor *tensors = arena_array(arena, (size_t)program_weights(program) + 1, sizeof *tensors);
    for (int w = 0; w < program_weights(program); w++) {
        const Weight *weight = program_weight(program, w);
        if (!h[w])
            continue;
        tensors[count++] = (Tensor){.name = weight->name,
                                    .dtype = DTYPE_FLOAT,
                                    .shape = weight->shape,
                                    .count = weight->count,
                                    .data = h[w],
                                    .bytes = (size_t)weight->count * sizeof(float)};
    }
    return npz_write(path, tensors, count, err);
}

static int run(char **argv, const double *value, Arena *arena, Error *err)
{
    Model *model = NULL;
    Program *program = NULL;
    Dataset *dataset = NULL;
    Feed *feed = NULL;
    FeedOptions scaling = {.scale = value[SCALE]};
    int rc = model_load(argv[1], &model, err);
    if (!rc)
        rc = program_build(model, &program, err);
    if (!rc)
        rc = dataset_open(argv[2], &dataset, err);
    if (!rc)
        rc = feed_create(program, dataset, &scaling, &feed, err);
    if (rc)
        goto done;
    int64_t n = feed_samples(feed);
    if (value[SAMPLES] > 0 && value[SAMPLES] < (double)n)
        n = (int64_t)value[SAMPLES];
    size_t n_outputs = (size_t)program_outputs(program),
           n_weights = (size_t)program_weights(program);
    int64_t *sample = arena_array(arena, (size_t)n, sizeof *sample);
    OutputKind *kind = arena_array(arena, n_outputs + 1, sizeof *kind);
    double *variance = arena_array(arena, n_outputs + 1, sizeof *variance);
    float **h = arena_array(arena, n_weights + 1, sizeof *h);
    for (int64_t i = 0; i < n; i++)
        sample[i] = i;
    for (size_t o = 0; o < n_outputs; o++)
        variance[o] = value[VARIANCE];
    ImportanceOptions options = {.kind = kind,
                                 .variance = variance,
                                 .seed = (uint64_t)value[SEED],
                                 .threads = (int)value[THREADS],
                                 .exact_columns = (int64_t)value[EXACT],
                                 .draws = (int)value[DRAWS],
                                 .memory = (size_t)value[MEMORY]};
    int64_t *label = NULL, n_labels = feed_samples(feed);
    if (labels)
        rc = labels_read(labels, arena, &label, &n_labels, err);
    if (!rc && n_labels != feed_samples(feed))
        rc = error_set(err, ONNXPRESS_DATA, "%s: not one label a sample", labels);
    if (!rc)
        rc = guess_kinds(program, feed, kind, err);
    double start = now();
    if (!rc)
        rc = importance_estimate(estimator, program, feed, sample, n, label, &options, arena, h,
                                 err);
    if (!rc)
        rc = write_npz(program, argv[3], h, arena, err);
    if (!rc)
        printf("%.4f\n", now() - start);
done:
    feed_free(feed);
    dataset_close(dataset);
    program_free(program);
    model_free(model);
    return rc;
}

int main(int argc, char **argv)
{
    double value[N_KEYS] = {[THREADS] = 1,
                            [EXACT] = IMPORTANCE_EXACT_COLUMNS,
                            [DRAWS] = IMPORTANCE_DRAWS,
                            [VARIANCE] = 1};
    Error err = {0};
    if (!parse(argc, argv, value)) {
        fprintf(stderr, "usage: run_importance MODEL DATA OUT.npz [key=value ...]\n");
        return 1;
    }
    openblas_set_num_threads(1);
    Arena *arena = arena_create();
    int rc = run(argv, value, arena, &err);
    arena_destroy(arena);
    if (rc)
        fprintf(stderr, "run_importance: %s\n", err.message);
    return rc;
}
