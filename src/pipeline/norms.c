/* SPDX-License-Identifier: Apache-2.0 */
#include "finetune/norms.h"

#include "pipeline/training.h"

static int norms_progress(void *context, double share)
{
    return session_progress(context, "batch norm", share);
}

int training_norms(Session *session, const Feed *feed, const int64_t *sample, int64_t n,
                   real **weights, int64_t *norms)
{
    NormsOptions options = {.by_batch = session->options->batch_norm == ONNXPRESS_NORM_TRAIN,
                            .threads = session->threads,
                            .memory = session->options->memory,
                            .progress = norms_progress,
                            .context = session};
    int64_t fixed;
    int rc = norms_reestimate(session->program, feed, sample, n, &options, session->arena, weights,
                              norms, &fixed, session->err);
    if (!rc && *norms + fixed == 0)
        rc = session_warn(session, "--batch-norm: the model has no BatchNormalization");
    if (!rc && fixed)
        rc = session_warn(session,
                          "%lld BatchNormalization nodes keep their statistics: they are shared or "
                          "computed",
                          (long long)fixed);
    return rc;
}
