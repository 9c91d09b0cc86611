/* SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "autodiff/draws.h"
#include "importance/passes_internal.h"

/* z (H z) has the diagonal of H for its mean over random signs z. H z is the difference of two
 * gradients, e z to either side. Tensors differ in size, so each has its own step, which is divided
 * out again: it changes the variance of the other elements' part, not the mean. Every block of
 * samples has signs of its own, so that their errors average out. */

/* Of a tensor's step. */
#define LEAST_STEP 0x1p-10

typedef struct {
    real **weights;  /* [n_weights]: moved; NULL: not wanted */
    real **gradient; /* [n_weights]: on the plus side */
    double *step;    /* [n_weights] */
    bool *one_sign;  /* [n_weights] */
    real **answer;   /* [n_outputs]: the original's */
    size_t *room;    /* [n_outputs] */
} Moved;

static void moved_close(Estimate *e, Pass *pass)
{
    Moved *m = pass->own;
    if (!m)
        return;
    for (int w = 0; w < e->n_weights; w++) {
        if (m->weights)
            free(m->weights[w]);
        if (m->gradient)
            free(m->gradient[w]);
    }
    for (int o = 0; m->answer && o < e->n_outputs; o++)
        free(m->answer[o]);
    free(m->weights);
    free(m->gradient);
    free(m->step);
    free(m->one_sign);
    free(m->answer);
    free(m->room);
    free(m);
}

static void find_step(const Weight *weight, double *step, bool *one_sign)
{
    double square = 0, least = INFINITY, most = -INFINITY;
    for (int64_t i = 0; i < weight->count; i++) {
        double w = (double)weight->data[i];
        square += w * w;
        least = fmin(least, w);
        most = fmax(most, w);
    }
    double size = sqrt(square / (double)weight->count);
    *step = HUTCHINSON_STEP * (size > 0 && isfinite(size) ? size : 1);
    *one_sign = least >= 0 || most <= 0;
}

/* Where all numbers have one sign they keep it: a variance below zero would be NaN under its root.
 * Yet no step is so small that what the others do is blown up beyond reason. */
static double element_step(const Moved *m, int w, real value)
{
    double half = fabs((double)value) / 2;
    return m->one_sign[w] ? fmin(m->step[w], fmax(half, m->step[w] * LEAST_STEP)) : m->step[w];
}

static int moved_open(Estimate *e, Pass *pass, Error *err)
{
    Moved *m = calloc(1, sizeof *m);
    size_t n_weights = (size_t)e->n_weights + 1, n_outputs = (size_t)e->n_outputs + 1;
    pass->own = m;
    if (!m)
        return error_memory(err, "the importance");
    m->weights = calloc(n_weights, sizeof *m->weights);
    m->gradient = calloc(n_weights, sizeof *m->gradient);
    m->step = calloc(n_weights, sizeof *m->step);
    m->one_sign = calloc(n_weights, sizeof *m->one_sign);
    m->answer = calloc(n_outputs, sizeof *m->answer);
    m->room = calloc(n_outputs, sizeof *m->room);
    if (!m->weights || !m->gradient || !m->step || !m->one_sign || !m->answer || !m->room)
        return error_memory(err, "the importance");
    for (int w = 0; w < e->n_weights; w++) {
        const Weight *weight = program_weight(e->program, w);
        if (!e->wanted[w])
            continue;
        find_step(weight, &m->step[w], &m->one_sign[w]);
        m->weights[w] = calloc((size_t)weight->count, sizeof **m->weights);
        m->gradient[w] = calloc((size_t)weight->count, sizeof **m->gradient);
        if (!m->weights[w] || !m->gradient[w])
            return error_memory(err, "the importance");
    }
    return ONNXPRESS_OK;
}

static int keep_answers(const Estimate *e, Pass *pass, Error *err)
{
    Moved *m = pass->own;
    for (int o = 0; o < e->n_outputs; o++) {
        const Value *value = exec_output(pass->exec, o);
        size_t count = (size_t)value->count;
        if (!value->r || !count)
            continue;
        if (count > m->room[o]) {
            free(m->answer[o]);
            m->room[o] = 0;
            m->answer[o] = calloc(count, sizeof **m->answer);
            if (!m->answer[o])
                return error_memory(err, "the importance");
            m->room[o] = count;
        }
        memcpy(m->answer[o], value->r, count * sizeof **m->answer);
    }
    return ONNXPRESS_OK;
}

static int loss_gradient(const Estimate *e, Pass *pass, Error *err)
{
    const Moved *m = pass->own;
    int rc = pass_check(e, pass, err);
    if (rc)
        return rc;
    if (e->label)
        return pass_label_gradient(e, pass, err);
    for (int o = 0; o < e->n_outputs && !rc; o++) {
        rc = pass_vector(pass, o, err);
        if (!rc && pass->d_outputs[o])
            loss_distance_gradient(e->options->kind[o], exec_output(pass->exec, o),
                                   e->options->variance[o], pass->n, m->answer[o], pass->v[o]);
    }
    return rc;
}

/* The gradient at w + side * step * z. */
static int gradient_at(const Estimate *e, Pass *pass, uint64_t key, double side, Error *err)
{
    Moved *m = pass->own;
    for (int w = 0; w < e->n_weights; w++) {
        const Weight *weight = program_weight(e->program, w);
        uint64_t own = hash_step(key, (uint64_t)w);
        for (int64_t i = 0; e->wanted[w] && i < weight->count; i++)
            m->weights[w][i] = (real)((double)weight->data[i] +
                                      side * element_step(m, w, weight->data[i]) * sign_of(own, i));
    }
    exec_set_weights(pass->exec, (const real *const *)m->weights);
    int rc = pass_forward(pass, err);
    if (!rc)
        rc = loss_gradient(e, pass, err);
    return rc ? rc : exec_backward(pass->exec, pass->d_outputs, err);
}

static int add_draw(const Estimate *e, Pass *pass, uint64_t key, Error *err)
{
    Moved *m = pass->own;
    int rc = gradient_at(e, pass, key, 1, err);
    if (rc)
        return rc;
    for (int w = 0; w < e->n_weights; w++) {
        const real *g = exec_gradient(pass->exec, w);
        size_t bytes = (size_t)program_weight(e->program, w)->count * sizeof *g;
        if (e->wanted[w] && g)
            memcpy(m->gradient[w], g, bytes);
        else if (e->wanted[w])
            memset(m->gradient[w], 0, bytes);
    }
    rc = gradient_at(e, pass, key, -1, err);
    for (int w = 0; w < e->n_weights && !rc; w++) {
        const real *g = exec_gradient(pass->exec, w);
        uint64_t own = hash_step(key, (uint64_t)w);
        const Weight *weight = program_weight(e->program, w);
        for (int64_t i = 0; e->wanted[w] && i < weight->count; i++) {
            double apart = (double)m->gradient[w][i] - (double)(g ? g[i] : 0);
            double step = element_step(m, w, weight->data[i]);
            pass->acc[w][i] += (real)(apart * sign_of(own, i) / (2 * step));
        }
    }
    return rc;
}

static int hutchinson_visit(Estimate *e, Pass *pass, Error *err)
{
    uint64_t key = hash_step(hash_step(0, e->options->seed), (uint64_t)pass->block->number);
    int rc = keep_answers(e, pass, err);
    for (int draw = 0; draw < e->options->draws && !rc; draw++)
        rc = add_draw(e, pass, hash_step(key, (uint64_t)draw), err);
    exec_set_weights(pass->exec, NULL); /* the next block starts from the original */
    return rc;
}

int importance_hutchinson(Estimate *e, Arena *arena, float **h, Error *err)
{
    e->visit = hutchinson_visit;
    e->open = moved_open;
    e->close = moved_close;
    int rc = estimate_open(e, NULL, err);
    if (!rc)
        rc = estimate_run(e, err);
    return rc ? rc : estimate_results(e, (double)e->n * e->options->draws, arena, h, err);
}
