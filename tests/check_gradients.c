/* SPDX-License-Identifier: Apache-2.0
 *
 * check_gradients MODEL INPUT.npz: in float64, the gradients by every weight of a random sum of all
 * outputs against central differences, for some elements of each. Prints the number of elements, or
 * what differs. For tests/test_control.py. */
#include <cblas.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "autodiff/autodiff.h"
#include "tensor/npy.h"

enum { MOST = 16, ELEMENTS = 6 };

#define STEP 1e-5
#define TOLERANCE 1e-5 /* of the tensor's largest gradient */

typedef struct {
    Model *model;
    Program *program;
    Exec *exec;
    NpyFile *file;
    Arena *arena;
    Value inputs[MOST];
    real *factor[MOST]; /* of each output */
    uint64_t random;
    Error err;
} Check;

static double draw(Check *c)
{
    c->random = c->random * 6364136223846793005u + 1442695040888963407u;
    return (double)(c->random >> 11) * 0x1p-53;
}

static int read_input(Check *c, int k)
{
    const ProgramInput *input = program_input(c->program, k);
    const Tensor *tensor = npy_find(c->file, input->name);
    Value *value = &c->inputs[k];
    if (!tensor)
        return error_set(&c->err, ONNXPRESS_DATA, "no array for input %s", input->name);
    *value = (Value){.dtype = tensor->dtype, .shape = tensor->shape, .count = tensor->count};
    if (dtype_is_real(tensor->dtype)) {
        value->r = arena_array(c->arena, (size_t)tensor->count, sizeof(real));
        return tensor_to_double(tensor, (double *)value->r, &c->err);
    }
    value->i = arena_array(c->arena, (size_t)tensor->count, sizeof(int64_t));
    return tensor_to_int64(tensor, value->i, &c->err);
}

static int open_check(Check *c, const char *model, const char *inputs)
{
    c->arena = arena_create();
    c->random = 7;
    int status = model_load(model, &c->model, &c->err);
    if (!status)
        status = program_build(c->model, &c->program, &c->err);
    if (!status)
        status = npy_open(inputs, &c->file, &c->err);
    if (!status)
        status = exec_create(c->program, 0, &c->exec, &c->err);
    for (int k = 0; k < program_inputs(c->program) && k < MOST && !status; k++)
        status = read_input(c, k);
    if (!status)
        status = exec_forward(c->exec, c->inputs, EXEC_KEEP, &c->err);
    for (int o = 0; o < program_outputs(c->program) && o < MOST && !status; o++) {
        const Value *y = exec_output(c->exec, o);
        if (!y->r)
            continue;
        c->factor[o] = arena_array(c->arena, (size_t)y->count, sizeof(real));
        for (int64_t i = 0; i < y->count; i++)
            c->factor[o][i] = (real)(2 * draw(c) - 1);
    }
    return status;
}

static double loss(Check *c, const real *const *weights)
{
    double sum = 0;
    exec_set_weights(c->exec, weights);
    if (exec_forward(c->exec, c->inputs, EXEC_DISCARD, &c->err))
        return NAN;
    for (int o = 0; o < program_outputs(c->program) && o < MOST; o++)
        for (int64_t i = 0; c->factor[o] && i < exec_output(c->exec, o)->count; i++)
            sum += (double)(c->factor[o][i] * exec_output(c->exec, o)->r[i]);
    return sum;
}

static bool check_weight(Check *c, int w, const real *gradient, const real **weights, int *checked)
{
    const Weight *weight = program_weight(c->program, w);
    size_t bytes = (size_t)weight->count * sizeof(real);
    real *copy = arena_array(c->arena, (size_t)weight->count, sizeof *copy);
    double largest = 1e-6;
    for (int64_t i = 0; i < weight->count; i++)
        largest = fmax(largest, fabs((double)gradient[i]));
    for (int n = 0; n < ELEMENTS; n++) {
        int64_t i = (int64_t)(draw(c) * (double)weight->count);
        double side[2];
        memcpy(copy, weight->data, bytes);
        weights[w] = copy;
        for (int s = 0; s < 2; s++) {
            copy[i] = weight->data[i] + (real)(s ? STEP : -STEP);
            side[s] = loss(c, weights);
        }
        weights[w] = NULL;
        double expected = (side[1] - side[0]) / (2 * STEP);
        if (!(fabs(expected - (double)gradient[i]) <= TOLERANCE * largest)) {
            fprintf(stderr, "gradient %lld of %s is %.10g, differences give %.10g %s\n",
                    (long long)i, weight->name, (double)gradient[i], expected, c->err.message);
            return false;
        }
        *checked += gradient[i] != 0;
    }
    return true;
}

int main(int argc, char **argv)
{
    Check c = {0};
    openblas_set_num_threads(1);
    if (argc != 3 || open_check(&c, argv[1], argv[2]) ||
        exec_backward(c.exec, (const real *const *)c.factor, &c.err)) {
        fprintf(stderr, "%s\n", argc == 3 ? c.err.message : "usage: check_gradients MODEL INPUT");
        return 1;
    }
    int n = program_weights(c.program), checked = 0;
    bool good = true;
    const real **gradient = calloc((size_t)n + 1, sizeof *gradient);
    const real **weights = calloc((size_t)n + 1, sizeof *weights);
    for (int w = 0; w < n; w++) {
        const Weight *weight = program_weight(c.program, w);
        const real *from = exec_gradient(c.exec, w);
        real *copy = arena_array(c.arena, (size_t)weight->count, sizeof *copy);
        if (from)
            memcpy(copy, from, (size_t)weight->count * sizeof *copy);
        gradient[w] = copy;
    }
    for (int w = 0; w < n && good; w++)
        if (!program_weight(c.program, w)->steers)
            good = check_weight(&c, w, gradient[w], weights, &checked);
    printf("%d\n", checked);
    free(gradient);
    free(weights);
    exec_free(c.exec);
    npy_close(c.file);
    program_free(c.program);
    model_free(c.model);
    arena_destroy(c.arena);
    return good ? 0 : 1;
}
