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

/* Taps looked up at once, for all rows: a small image's sums take less time than where it is read. */
#define TAPS 32

/* The reaches of the taps from `first` on, at most TAPS; how many there are. */
static int64_t reaches(const Window *w, int64_t first, Reach reach[TAPS])
{
    int64_t n = w->kernel_size - first;
    n = n < TAPS ? n : TAPS;
    for (int64_t k = 0; k < n; k++) {
        int64_t at = first + k, line = at / w->kernel[2];
        reach[k] = reach_of(w, (int64_t[]){line / w->kernel[1], line % w->kernel[1],
                                           at % w->kernel[2]});
    }
    return n;
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

static void forward_taps(const Conv *conv, const Reach *reach, int64_t n_taps, const real *x,
                         const real *kernel, real *y)
{
    const Window *window = &conv->window;
    int64_t channels = conv->groups * conv->out_channels;
    for (int64_t row = 0; row < conv->samples * channels; row++, y += window->out_size) {
        const real *from = x + row / conv->out_channels * window->in_size;
        const real *factor = kernel + row % channels * window->kernel_size;
        for (const Reach *r = reach; r < reach + n_taps; r++, factor++)
            FOR_LINES(*r, d, h)
            {
                add_line(y + output_at(window, r, d, h), 1, from + input_at(window, r, d, h),
                         r->stride, *factor, r->n);
            }
    }
}

void depthwise_forward(const Conv *conv, const real *x, const real *w, real *y)
{
    Reach reach[TAPS];
    for (int64_t first = 0; first < conv->window.kernel_size; first += TAPS) {
        int64_t n = reaches(&conv->window, first, reach);
        forward_taps(conv, reach, n, x, w + first, y);
    }
}

static void input_gradient_taps(const Conv *conv, const Reach *reach, int64_t n_taps,
                                const real *kernel, const real *d_y, real *d_x)
{
    const Window *window = &conv->window;
    int64_t channels = conv->groups * conv->out_channels;
    for (int64_t row = 0; row < conv->samples * channels; row++, d_y += window->out_size) {
        real *to = d_x + row / conv->out_channels * window->in_size;
        const real *factor = kernel + row % channels * window->kernel_size;
        for (const Reach *r = reach; r < reach + n_taps; r++, factor++)
            FOR_LINES(*r, d, h)
            {
                add_line(to + input_at(window, r, d, h), r->stride,
                         d_y + output_at(window, r, d, h), 1, *factor, r->n);
            }
    }
}

void depthwise_input_gradient(const Conv *conv, const real *w, const real *d_y, real *d_x)
{
    Reach reach[TAPS];
    for (int64_t first = 0; first < conv->window.kernel_size; first += TAPS) {
        int64_t n = reaches(&conv->window, first, reach);
        input_gradient_taps(conv, reach, n, w + first, d_y, d_x);
    }
}

static real tap_gradient(const Window *window, const Reach *r, const real *x, const real *d_y)
{
    real sum = 0;
    FOR_LINES(*r, d, h)
    {
        const real *a = d_y + output_at(window, r, d, h);
        const real *b = x + input_at(window, r, d, h);
#pragma omp simd reduction(+ : sum)
        for (int64_t o = 0; o < r->n; o++)
            sum += a[o] * b[o * r->stride];
    }
    return sum;
}

void depthwise_weight_gradient(const Conv *conv, int64_t sample, const real *x, const real *d_y,
                               real *d_w)
{
    const Window *window = &conv->window;
    int64_t channels = conv->groups * conv->out_channels;
    Reach reach[TAPS];
    for (int64_t first = 0; first < window->kernel_size; first += TAPS) {
        int64_t n = reaches(window, first, reach);
        for (int64_t m = 0; m < channels; m++) {
            const real *from =
                x + (sample * conv->groups + m / conv->out_channels) * window->in_size;
            const real *to = d_y + (sample * channels + m) * window->out_size;
            for (int64_t k = 0; k < n; k++)
                d_w[m * window->kernel_size + first + k] +=
                    tap_gradient(window, &reach[k], from, to);
        }
    }
}
