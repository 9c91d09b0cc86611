/* SPDX-License-Identifier: Apache-2.0 */
#include "importance/passes_internal.h"

/* Mean square of samples' gradients: with labels of the cross-entropy (the empirical Fisher), else
 * of the likelihood of answers drawn from the model's own (its expectation is the Gauss-Newton
 * diagonal). All outputs go back in one pass: their draws are independent with mean zero, so that
 * the square of the sum has the sum of the squares for its mean. */
static int add_squares(Estimate *e, Pass *pass, Error *err)
{
    if (e->label) {
        int rc = pass_label_gradient(e, pass, err);
        return rc ? rc : exec_square(pass->exec, pass->d_outputs, pass->acc, err);
    }
    int rc = ONNXPRESS_OK;
    for (int64_t draw = 0; draw < e->options->draws && !rc; draw++) {
        rc = pass_answer_gradients(e, pass, draw, err);
        if (!rc)
            rc = exec_square(pass->exec, pass->d_outputs, pass->acc, err);
    }
    return rc;
}

static int fisher_visit(Estimate *e, Pass *pass, Error *err)
{
    return pass_apart(e, pass, add_squares, err);
}

int importance_fisher(Estimate *e, Arena *arena, float **h, Error *err)
{
    e->visit = fisher_visit;
    int rc = estimate_open(e, NULL, err);
    if (!rc)
        rc = estimate_run(e, err);
    double squares = (double)e->n * (e->label ? 1 : e->options->draws);
    return rc ? rc : estimate_results(e, squares, arena, h, err);
}
