/* SPDX-License-Identifier: Apache-2.0 */
#include "finetune/prune.h"

#include <stdlib.h>

static float score(const PruneInput *input, PruneMeasure measure, int t, int64_t i)
{
    double w = (double)input->w[t][i];
    if (measure == PRUNE_MAGNITUDE)
        return (float)fabs(w);
    double h = input->h && input->h[t] ? (double)input->h[t][i] : 1;
    double damage = h * w * w;
    /* A weight that matters to nobody goes first, but before it the exact zeros. */
    return damage > 0 ? (float)damage : 0;
}

static inline void exchange(float *x, size_t a, size_t b)
{
    float kept = x[a];
    x[a] = x[b];
    x[b] = kept;
}

/* The element that would stand at position k of the sorted list; reorders x. */
static float select_nth(float *x, size_t n, size_t k)
{
    size_t low = 0, high = n - 1;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (x[middle] < x[low])
            exchange(x, middle, low);
        if (x[high] < x[low])
            exchange(x, high, low);
        if (x[high] < x[middle])
            exchange(x, high, middle);
        float pivot = x[middle];
        size_t i = low, j = high;
        while (i <= j) {
            while (x[i] < pivot)
                i++;
            while (x[j] > pivot)
                j--;
            if (i > j)
                break;
            exchange(x, i++, j);
            if (j == 0)
                break;
            j--;
        }
        if (k <= j)
            high = j;
        else if (k >= i)
            low = i;
        else
            break;
    }
    return x[k];
}

/* Prunes tensors [first, last) with one threshold. */
static void prune_together(const PruneInput *input, PruneMeasure measure, int first, int last,
                           double keep, float *scratch, uint8_t *const *mask)
{
    size_t n = 0, total = 0;
    for (int t = first; t < last; t++) {
        total += (size_t)input->count[t];
        for (int64_t i = 0; i < input->count[t]; i++)
            if (input->w[t][i] != 0)
                scratch[n++] = score(input, measure, t, i);
    }
    size_t stay = (size_t)llround(keep * (double)total);
    if (stay > n)
        stay = n;
    float threshold = stay > 0 && stay < n ? select_nth(scratch, n, n - stay) : 0;
    size_t above = 0;
    for (int t = first; t < last; t++)
        for (int64_t i = 0; i < input->count[t]; i++)
            above += input->w[t][i] != 0 && score(input, measure, t, i) > threshold;
    /* Of those at the threshold, the first ones stay. */
    size_t equals = stay == n ? n : stay > above ? stay - above : 0;
    for (int t = first; t < last; t++)
        for (int64_t i = 0; i < input->count[t]; i++) {
            float s = score(input, measure, t, i);
            bool stays = stay > 0 && input->w[t][i] != 0;
            if (stays && stay < n && s <= threshold) {
                stays = !(s < threshold) && equals > 0;
                equals -= stays;
            }
            mask[t][i] = stays;
        }
}

int prune_masks(const PruneInput *input, PruneMeasure measure, PruneScope scope, double keep,
                uint8_t *const *mask, Error *err)
{
    size_t most = 0, total = 0;
    for (int t = 0; t < input->n; t++) {
        total += (size_t)input->count[t];
        if ((size_t)input->count[t] > most)
            most = (size_t)input->count[t];
    }
    size_t room = scope == PRUNE_MODEL ? total : most;
    float *scratch = malloc((room + 1) * sizeof *scratch);
    if (!scratch)
        return error_memory(err, "the weights' order");
    keep = keep < 0 ? 0 : keep > 1 ? 1 : keep;
    if (scope == PRUNE_MODEL)
        prune_together(input, measure, 0, input->n, keep, scratch, mask);
    for (int t = 0; scope == PRUNE_TENSOR && t < input->n; t++)
        prune_together(input, measure, t, t + 1, keep, scratch, mask);
    free(scratch);
    return ONNXPRESS_OK;
}

double prune_kept_at(const PruneSchedule *schedule, double share)
{
    if (share <= schedule->from && schedule->from < schedule->to)
        return 1;
    if (share >= schedule->to)
        return schedule->keep;
    double left = 1 - (share - schedule->from) / (schedule->to - schedule->from);
    return schedule->keep + (1 - schedule->keep) * left * left * left;
}
