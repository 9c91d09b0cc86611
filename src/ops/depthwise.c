/* SPDX-License-Identifier: Apache-2.0 */
#include "ops/conv_internal.h"

/* Every output channel m reads the one input channel m / out_channels. A tap of the kernel meets a
 * block of outputs, of which each line reads one stretch of the input, so all three kernels are
 * loops over such stretches. */
typedef struct {
    int64_t first[3], last[3]; /* outputs that the tap reaches, by axis */
    int64_t n;                 /* outputs a line */
    int64_t stride;            /* of the input along a line */
    int64_t shift[2];          /* depth and height read by output 0, before striding */
    int64_t start;             /* place in its line that the first output of a line reads */
} Reach;

static Reach reach_of(const Window *w, const int64_t tap[3])
{
    Reach r = {.stride = w->stride[2]};
    for (int k = 0; k < 3; k++)
        window_range(w, k, tap[k], &r.first[k], &r.last[k]);
    for (int k = 0; k < 2; k++)
        r.shift[k] = tap[k] * w->dilation[k] - w->begin[k];
    r.n = r.last[2] - r.first[2];
    r.start = r.first[2] * w->stride[2] + tap[2] * w->dilation[2] - w->begin[2];
    return r;
}

/* Offsets in a channel of the input and of the output where line (d, h) of the block begins. */
static int64_t input_at(const Window *w, const Reach *r, int64_t d, int64_t h)
{
    return ((d * w->stride[0] + r->shift[0]) * w->in[1] + h * w->stride[1] + r->shift[1]) *
               w->in[2] +
           r->start;
}

static int64_t output_at(const Window *w, const Reach *r, int64_t d, int64_t h)
{
    return (d * w->out[1] + h) * w->out[2] + r->first[2];
}

#define FOR_LINES(r, d, h)                                                                         \
    for (int64_t d = (r).first[0]; (r).n > 0 && d < (r).last[0]; d++)                              \
        for (int64_t h = (r).first[1]; h < (r).last[1]; h++)

static bool tap_next(const Window *w, int64_t tap[3])
{
    for (int k = 2; k >= 0; k--) {
        if (++tap[k] < w->kernel[k])
            return true;
        tap[k] = 0;
    }
    return false;
}

/* to[o * to_step] += factor * from[o * from_step]; one of the steps is 1. */
static inline void add_line(real *restrict to, int64_t to_step, const real *restrict from,
                            int64_t from_step, real factor, int64_t n)
{
    if (to_step == 1 && from_step == 1)
#pragma omp simd
        for (int64_t o = 0; o < n; o++)
            to[o] += factor * from[o];
    else
        for (int64_t o = 0; o < n; o++)
            to[o * to_step] += factor * from[o * from_step];
}

void depthwise_forward(const Conv *conv, const real *x, const real *w, real *y)
{
    const Window *window = &conv->window;
    int64_t channels = conv->groups * conv->out_channels;
    for (int64_t row = 0; row < conv->samples * channels; row++, y += window->out_size) {
        const real *from = x + row / conv->out_channels * window->in_size;
        const real *kernel = w + row % channels * window->kernel_size;
        int64_t tap[3] = {0};
        do {
            Reach r = reach_of(window, tap);
            FOR_LINES(r, d, h)
            {
                add_line(y + output_at(window, &r, d, h), 1, from + input_at(window, &r, d, h),
                         r.stride, *kernel, r.n);
            }
            kernel++;
        } while (tap_next(window, tap));
    }
}

void depthwise_input_gradient(const Conv *conv, const real *w, const real *d_y, real *d_x)
{
    const Window *window = &conv->window;
    int64_t channels = conv->groups * conv->out_channels;
    for (int64_t row = 0; row < conv->samples * channels; row++, d_y += window->out_size) {
        real *to = d_x + row / conv->out_channels * window->in_size;
        const real *kernel = w + row % channels * window->kernel_size;
        int64_t tap[3] = {0};
        do {
            Reach r = reach_of(window, tap);
            FOR_LINES(r, d, h)
            {
                add_line(to + input_at(window, &r, d, h), r.stride,
                         d_y + output_at(window, &r, d, h), 1, *kernel, r.n);
            }
            kernel++;
        } while (tap_next(window, tap));
    }
}

void depthwise_weight_gradient(const Conv *conv, int64_t sample, const real *x, const real *d_y,
                               real *d_w)
{
    const Window *window = &conv->window;
    int64_t channels = conv->groups * conv->out_channels;
    for (int64_t m = 0; m < channels; m++) {
        const real *from = x + (sample * conv->groups + m / conv->out_channels) * window->in_size;
        const real *to = d_y + (sample * channels + m) * window->out_size;
        int64_t tap[3] = {0};
        do {
            Reach r = reach_of(window, tap);
            real sum = 0;
            FOR_LINES(r, d, h)
            {
                const real *a = to + output_at(window, &r, d, h);
                const real *b = from + input_at(window, &r, d, h);
#pragma omp simd reduction(+ : sum)
                for (int64_t o = 0; o < r.n; o++)
                    sum += a[o] * b[o * r.stride];
            }
            *d_w++ += sum;
        } while (tap_next(window, tap));
    }
}
