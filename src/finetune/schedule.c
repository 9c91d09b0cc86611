/* SPDX-License-Identifier: Apache-2.0 */
#include "finetune/finetune_internal.h"

#define PI 3.14159265358979323846

double schedule_rate(const FinetuneOptions *options, int64_t step, int64_t steps)
{
    double rate = options->rate, share = steps > 0 ? (double)step / (double)steps : 0;
    if (step < options->warmup)
        rate *= (double)(step + 1) / (double)options->warmup;
    if (options->schedule == FINETUNE_COSINE)
        return rate * (options->floor + (1 - options->floor) * (1 + cos(PI * share)) / 2);
    if (options->schedule == FINETUNE_STEP && options->step_epochs > 0) {
        /* In whole steps, so that an epoch's last step is still of that epoch. */
        int64_t epoch = steps > 0 ? step * options->epochs / steps : 0;
        return rate * pow(options->factor, (double)(epoch / options->step_epochs));
    }
    return rate;
}
