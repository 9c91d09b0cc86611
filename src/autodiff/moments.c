/* SPDX-License-Identifier: Apache-2.0 */
#include "autodiff/internal.h"

bool program_matrix(const Program *program, int weight, OpMatrix *matrix)
{
    const Weight *w = &program->weights[weight];
    if (program->values[w->value].n_readers != 1)
        return false;
    for (int s = 0; s < program->n_steps; s++) {
        const Step *step = &program->steps[s];
        for (int k = 0; k < step->op.n_in; k++)
            if (step->in[k] == w->value)
                return step->loop < 0 && step->op.row && step->op.row->matrix &&
                       step->op.row->matrix(&step->op, k, &w->shape, matrix);
    }
    return false;
}

int exec_moments(Exec *exec, real *const *acc, Error *err)
{
    const Program *program = exec->program;
    int status = ONNXPRESS_OK;
    for (int s = 0; s < program->n_steps && !status; s++) {
        const Step *step = &program->steps[s];
        for (int k = 0; k < step->op.n_in && !status; k++) {
            int v = step->in[k];
            if (v < 0 || program->values[v].origin != FROM_WEIGHT ||
                !acc[program->values[v].index] || !step->op.row->moment || !exec->kept[s] ||
                !exec->done[s])
                continue;
            OpCall call;
            exec_call(exec, step, &call, err);
            status = step->op.row->moment(&call, k, acc[program->values[v].index]);
            exec_release_scratch(exec);
        }
    }
    return status;
}
