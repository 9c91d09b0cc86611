/* SPDX-License-Identifier: Apache-2.0 */
#include "autodiff/internal.h"

#include <stdlib.h>
#include <string.h>

enum { INPUT, MEAN = 3, VARIANCE = 4 }; /* inputs of BatchNormalization */

/* The weight that only input k of this step reads; -1: there is none. */
static int own_weight(const Program *program, const Step *step, int k)
{
    int v = k < step->op.n_in ? step->in[k] : -1;
    if (v < 0 || program->values[v].origin != FROM_WEIGHT || program->values[v].n_readers != 1)
        return -1;
    const Weight *weight = &program->weights[program->values[v].index];
    return weight->reaches && !weight->steers && weight->n_uses == 1 ? program->values[v].index
                                                                     : -1;
}

int program_norms(const Program *program, Arena *arena, ProgramNorm **norm, int *n, int *fixed,
                  Error *err)
{
    int *depth = calloc((size_t)program->graph->n_values + 1, sizeof *depth);
    *n = *fixed = 0;
    *norm = arena_array(arena, (size_t)program->n_steps + 1, sizeof **norm);
    for (int s = 0; depth && *norm && s < program->n_steps; s++) {
        const Step *step = &program->steps[s];
        bool is_norm = step->op.row && strcmp(step->op.row->type, "BatchNormalization") == 0;
        int most = 0;
        for (int k = 0; k < step->op.n_in; k++)
            if (step->in[k] >= 0 && depth[step->in[k]] > most)
                most = depth[step->in[k]];
        if (is_norm) {
            int mean = own_weight(program, step, MEAN), variance = own_weight(program, step, VARIANCE);
            if (mean >= 0 && variance >= 0)
                (*norm)[(*n)++] = (ProgramNorm){step->in[INPUT], mean, variance, most};
            else
                ++*fixed;
        }
        for (int k = 0; k < step->op.n_out; k++)
            if (step->out[k] >= 0)
                depth[step->out[k]] = most + is_norm;
    }
    int status = depth && *norm ? ONNXPRESS_OK : error_memory(err, "the normalizations");
    free(depth);
    return status;
}

const Value *exec_value(const Exec *exec, int value)
{
    const Value *v = &exec->values[value];
    return exec->ran && (v->r || v->i) ? v : NULL;
}
