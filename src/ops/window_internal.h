/* Windows that slide over up to three spatial axes: what convolutions and pools share.
 *
 * Everything is widened to three axes (depth, height, width) with leading ones, so that kernels
 * have one loop nest. WindowParams is what the attributes say; a Window is that for one input
 * shape. No allocation but in window_read; errors through op_error.
 */
#ifndef ONNXPRESS_OPS_WINDOW_INTERNAL_H
#define ONNXPRESS_OPS_WINDOW_INTERNAL_H

#include "ops/ops.h"

/* Attributes beyond this are no window, and products of two of them cannot overflow. */
#define WINDOW_LARGEST (INT64_C(1) << 30)

typedef enum { PAD_EXPLICIT, PAD_SAME_UPPER, PAD_SAME_LOWER, PAD_VALID } AutoPad;

typedef struct {
    int rank; /* spatial axes that the attributes name; 0: none does */
    bool has_kernel;
    int64_t kernel[3]; /* in the order of the attributes, not widened */
    int64_t stride[3], dilation[3], begin[3], end[3];
    AutoPad auto_pad;
    bool ceil_mode;
    bool count_include_pad;
    int64_t group;
} WindowParams;

typedef struct {
    int64_t in[3], out[3], kernel[3], stride[3], dilation[3];
    int64_t begin[3], end[3];               /* padding */
    int64_t in_size, out_size, kernel_size; /* products */
} Window;

/* A row's `read`: WindowParams. */
int window_read(OpNode *node, Arena *arena, Error *err);
/* The window for a data shape [N, C, spatial…]; `kernel` has one number a spatial axis. Fills in
 * the spatial dims of `out` and its rank; the caller sets dims 0 and 1. */
int window_make(const OpCall *call, const WindowParams *params, const Shape *data,
                const int64_t *kernel, Window *window, Shape *out);

/* Fills in the products of a window's sizes. */
int window_sizes(const OpCall *call, Window *window);

/* Between a plane of in_size elements and the matrix [kernel_size][out_size] of what each tap meets
 * at each output: adds the matrix's elements to their places, or reads them (0: beyond the plane). */
void window_fold(const Window *w, real *plane, const real *columns);
void window_unfold(const Window *w, const real *plane, real *columns);

/* Outputs [first, last) of an axis for which tap `k` of the kernel lies inside the input. */
static inline void window_range(const Window *w, int axis, int64_t k, int64_t *first, int64_t *last)
{
    int64_t shift = k * w->dilation[axis] - w->begin[axis], stride = w->stride[axis];
    int64_t low = shift < 0 ? -shift : 0;
    int64_t high = w->in[axis] > shift ? w->in[axis] - shift : 0;
    if (stride > 1) { /* divisions are dear where this is called for every tap */
        low = (low + stride - 1) / stride;
        high = (high + stride - 1) / stride;
    }
    *last = high < w->out[axis] ? high : w->out[axis];
    *first = low < *last ? low : *last;
}

#endif
