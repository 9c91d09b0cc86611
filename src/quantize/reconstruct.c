/* SPDX-License-Identifier: Apache-2.0 */
#include "quantize/quantize.h"

void quantize_reconstruct(const QuantizeInput *in, const Quantized *q, float *recon)
{
    for (size_t t = 0; t < in->n_tensors; t++)
        for (size_t i = in->offset[t]; i < in->offset[t + 1]; i++)
            recon[i] = q->scale[t] * q->centre[q->symbol[i]];
}

double quantize_distortion(const QuantizeInput *in, const Quantized *q, size_t tensor)
{
    double sum = 0;
    for (size_t i = in->offset[tensor]; i < in->offset[tensor + 1]; i++) {
        float recon = q->scale[tensor] * q->centre[q->symbol[i]];
        double difference = (double)in->w[i] - (double)recon;
        sum += (in->h ? (double)in->h[i] : 1.0) * difference * difference;
    }
    return sum;
}

double quantize_mean_square(const float *w, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += (double)w[i] * (double)w[i];
    return n ? sum / (double)n : 0;
}
