/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>

#include "importance/passes_internal.h"

static int activation_visit(Estimate *e, Pass *pass, Error *err)
{
    int rc = ONNXPRESS_OK;
    if (!pass->own) { /* the thread's first run has kept what gradients need, not what this needs */
        exec_set_sensed(pass->exec, e->wanted);
        rc = pass_forward(pass, err);
        pass->own = pass;
    }
    return rc ? rc : exec_sensitivity(pass->exec, pass->acc, err);
}

int importance_activation(Estimate *e, Arena *arena, float **h, Error *err)
{
    bool *known = calloc((size_t)e->n_weights + 1, sizeof *known);
    if (!known)
        return error_memory(err, "the importance");
    program_sensitivity(e->program, known);
    e->visit = activation_visit;
    int rc = estimate_open(e, known, err);
    free(known);
    if (!rc)
        rc = estimate_run(e, err);
    return rc ? rc : estimate_results(e, (double)e->n, arena, h, err);
}
