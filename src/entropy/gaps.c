/* SPDX-License-Identifier: Apache-2.0 */
#include "entropy/entropy.h"

uint64_t gaps_split(const uint16_t *symbol, uint64_t n, uint16_t skipped, int limit, uint16_t *pair)
{
    uint64_t count = 0, gap = 0;
    for (uint64_t i = 0; i < n; i++) {
        bool pass = symbol[i] == skipped && gap < (uint64_t)limit && i + 1 < n;
        if (pass) {
            gap++;
            continue;
        }
        if (pair) {
            pair[2 * count] = (uint16_t)gap;
            pair[2 * count + 1] = symbol[i];
        }
        count++;
        gap = 0;
    }
    return count;
}

int gaps_join(const uint16_t *pair, uint64_t n_pairs, uint16_t skipped, uint16_t *symbol,
              uint64_t n, Error *err)
{
    uint64_t at = 0;
    for (uint64_t i = 0; i < n_pairs; i++) {
        uint64_t gap = pair[2 * i];
        if (gap >= n - at) /* also when nothing is left */
            return error_set(err, ONNXPRESS_FORMAT,
                             "its gaps lead past the end; the file is damaged or not made by "
                             "onnxpress");
        for (; gap > 0; gap--)
            symbol[at++] = skipped;
        symbol[at++] = pair[2 * i + 1];
    }
    if (at != n)
        return error_set(err, ONNXPRESS_FORMAT,
                         "its gaps end too early; the file is damaged or not made by onnxpress");
    return ONNXPRESS_OK;
}
