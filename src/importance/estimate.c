/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "importance/passes_internal.h"

static const char *const names[] = {
    [IMPORTANCE_GAUSS_NEWTON] = "gauss-newton",
    [IMPORTANCE_BECKER_LECUN] = "becker-lecun",
    [IMPORTANCE_EMPIRICAL_FISHER] = "empirical-fisher",
    [IMPORTANCE_MC_FISHER] = "mc-fisher",
    [IMPORTANCE_HUTCHINSON] = "hutchinson",
    [IMPORTANCE_ADAM] = "adam",
    [IMPORTANCE_ACTIVATION] = "activation",
    [IMPORTANCE_NONE] = "none",
};
#define KINDS (sizeof names / sizeof names[0])

const char *importance_name(ImportanceKind kind)
{
    return names[kind];
}

bool importance_parse(const char *text, ImportanceKind *kind)
{
    for (size_t k = 0; k < KINDS; k++)
        if (!strcmp(text, names[k])) {
            *kind = (ImportanceKind)k;
            return true;
        }
    return false;
}

static int all_equal(const Program *program, Arena *arena, float **h, Error *err)
{
    for (int w = 0; w < program_weights(program); w++) {
        const Weight *weight = program_weight(program, w);
        h[w] = NULL;
        if (weight->count == 0 || weight->steers)
            continue;
        h[w] = arena_array(arena, (size_t)weight->count, sizeof **h);
        if (!h[w])
            return error_memory(err, "the importance of the weights");
        for (int64_t i = 0; i < weight->count; i++)
            h[w][i] = 1;
    }
    return ONNXPRESS_OK;
}

static int run(ImportanceKind kind, Estimate *e, Arena *arena, float **h, Error *err)
{
    switch (kind) {
    case IMPORTANCE_BECKER_LECUN:
        return importance_becker_lecun(e, arena, h, err);
    case IMPORTANCE_EMPIRICAL_FISHER:
        if (!e->label)
            return error_set(err, ONNXPRESS_USAGE,
                             "importance empirical-fisher needs labels: give them, or use "
                             "mc-fisher, which draws them from the model's own answers");
        return importance_fisher(e, arena, h, err);
    case IMPORTANCE_MC_FISHER:
        e->label = NULL;
        return importance_fisher(e, arena, h, err);
    case IMPORTANCE_HUTCHINSON:
        return importance_hutchinson(e, arena, h, err);
    case IMPORTANCE_ADAM:
        return importance_adam(e, arena, h, err);
    case IMPORTANCE_ACTIVATION:
        return importance_activation(e, arena, h, err);
    case IMPORTANCE_NONE:
        return all_equal(e->program, arena, h, err);
    case IMPORTANCE_GAUSS_NEWTON:
        break;
    }
    return importance_gauss_newton(e->program, e->feed, e->sample, e->n, e->options, arena, h, err);
}

int importance_estimate(ImportanceKind kind, const Program *program, const Feed *feed,
                        const int64_t *sample, int64_t n, const int64_t *label,
                        const ImportanceOptions *options, Arena *arena, float **h, Error *err)
{
    ImportanceOptions own = *options;
    own.draws = own.draws < 1 ? 1 : own.draws;
    Estimate estimate = {.program = program,
                         .feed = feed,
                         .sample = sample,
                         .n = n,
                         .label = label,
                         .options = &own,
                         .n_weights = program_weights(program),
                         .n_outputs = program_outputs(program)};
    int rc = run(kind, &estimate, arena, h, err);
    estimate_close(&estimate);
    return rc;
}
