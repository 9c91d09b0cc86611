/* Scalar quantization of all weights together: steps, the uniform grid, k-means.
 *
 * Knows arrays, no graph. Tensors stand one after another in w and h; tensor t is
 * [offset[t], offset[t+1]). The reconstruction of element i of tensor t is
 * scale[t] * centre[symbol[i]]: one codebook for all, and one number a tensor. What is minimised is
 * the Hessian-weighted distortion sum h (w - reconstruction)^2 (paper, section 3). Results live in
 * the arena given. Inputs must be finite, h >= 0 (h NULL: unweighted, all ones).
 * Errors: ONNXPRESS_MEMORY; ONNXPRESS_GOAL when a grid would need more than QUANTIZE_MAX_LEVELS.
 */
#ifndef ONNXPRESS_QUANTIZE_QUANTIZE_H
#define ONNXPRESS_QUANTIZE_QUANTIZE_H

#include "tensor/arena.h"
#include "tensor/error.h"

#define QUANTIZE_MAX_LEVELS 65535

typedef struct {
    size_t n_tensors;
    const size_t *offset; /* n_tensors + 1 */
    const float *w;
    const float *h;       /* NULL: unweighted */
} QuantizeInput;

typedef struct {
    int levels;        /* centres in use, >= 1; symbols are 0..levels-1, centres ascending */
    float *centre;     /* [levels], in units of scale */
    float *scale;      /* [n_tensors]; all 1 in scope model */
    uint16_t *symbol;  /* [offset[n_tensors]] */
    double distortion; /* sum of h (w - reconstruction)^2 */
} Quantized;

typedef enum { QUANTIZE_SCOPE_MODEL, QUANTIZE_SCOPE_TENSOR } QuantizeScope;

/* Relative step of each tensor: 1 in scope model; in scope tensor 1/sqrt(mean h of the tensor),
 * normalised so that the geometric mean weighted by element counts is 1. A tensor whose h is all
 * zero gets the largest of the others. With h NULL: 1. */
int quantize_relative_steps(const QuantizeInput *in, QuantizeScope scope, float *relative,
                            Error *err);

/* The paper's uniform quantization: thresholds uniform with step step*relative[t], zero in the
 * middle of a cell; each cell's centre is the Hessian-weighted mean of its members over all tensors
 * (in units of scale), except that the zero cell's centre is exactly 0 when any tensor holds exact
 * zeros. Then scale[t] is refitted (scope tensor) by least squares, in turns with the centres. Empty
 * cells are dropped. weighted false: centres are plain means (relative stays what it is). */
int quantize_uniform(const QuantizeInput *in, float step, const float *relative,
                     QuantizeScope scope, bool weighted, Arena *arena, Quantized *out, Error *err);

/* Hessian-weighted k-means on w/relative (weights h*relative^2), Lloyd's iterations on sorted
 * values with prefix sums: exact assignment by binary search, deterministic seeding (best of
 * several: quantiles, uniform over the range, density^(1/3), and for up to 256 centres the optimum
 * over blocks of values). Centres that die are dropped. A centre is kept at exactly 0 when any
 * tensor holds exact zeros. Then, in scope tensor, scales and centres are refitted as for the
 * grid. */
int quantize_kmeans(const QuantizeInput *in, const float *relative, int k, QuantizeScope scope,
                    bool weighted, Arena *arena, Quantized *out, Error *err);

/* Entropy-constrained scalar quantization, the paper's iteration: each weight goes to the centre of
 * least h (w - reconstruction)^2 - lambda log2 p, where p is the share of weights that the centre
 * has, and centres (Hessian-weighted means) and shares follow, in turns, until the sum settles.
 * lambda is in units of distortion a bit; 0 is k-means. Starts from several sets of at most
 * initial_levels centres and takes the cheapest result; centres that die are dropped. A centre is
 * kept at exactly 0, and exact zeros stay with it, when any tensor holds exact zeros. Then, in scope
 * tensor, scales and centres are refitted as for the grid. weighted false: h is taken as
 * 1 / relative^2. */
int quantize_ecsq(const QuantizeInput *in, const float *relative, double lambda, int initial_levels,
                  QuantizeScope scope, bool weighted, Arena *arena, Quantized *out, Error *err);

/* A tensor as the matrix whose rows are multiplied with inputs (a layer): element (r, c) of group g
 * is at (g * rows + r) * row_stride + c * column_stride. Groups have inputs of their own. */
typedef struct {
    size_t groups, rows, columns; /* rows of one group */
    size_t row_stride, column_stride;
    const float *factor;          /* from quantize_factor; NULL: no inputs are known */
    double effect;                /* from quantize_factor; 1 without */
} QuantizeMatrix;

/* Turns the second moments of a layer's inputs, moment[g] = sum of a a' ([columns][columns], the
 * lower triangle and diagonal are read), into what quantize_compensated needs, in place: an upper
 * triangular U with inv(moment + damping) = U'U. *effect is the share of the squared error of plain
 * rounding that remains. Inputs that are all zero are allowed. */
int quantize_factor(size_t groups, size_t columns, float *moment, double *effect, Error *err);

/* The uniform grid with error compensation: the weights of a row are rounded one after another, and
 * each one's error is taken up by those that are still to be rounded so that the row's answer to the
 * layer's inputs changes least (optimal brain surgeon; not in the paper). Reconstruction is at whole
 * multiples of the step: no fitted centres, which would undo the compensation. Exact zeros (pruned
 * weights) stay exactly zero. Tensors whose
 * matrix[t].factor is NULL are rounded plainly. zero_half: half the width of the cell at zero, in
 * steps, above 0 and at most 0.5, which rounds to the nearest; with less, fewer small weights vanish
 * at coarse steps, and a layer's answers keep their size. The result does not depend on `threads`. */
int quantize_compensated(const QuantizeInput *in, const QuantizeMatrix *matrix, float step,
                         const float *relative, float zero_half, QuantizeScope scope, int threads,
                         Arena *arena, Quantized *out, Error *err);

/* Pruning with error compensation: `values` are the input's weights with zeros for those that are
 * pruned. Zeros stay, and what they take from a row's answers the weights behind them in the row take
 * up. Tensors whose matrix[t].factor is NULL stay as they are. */
int quantize_pruned(const QuantizeInput *in, const QuantizeMatrix *matrix, int threads,
                    float *values, Error *err);

/* recon[i] = scale * centre[symbol]. */
void quantize_reconstruct(const QuantizeInput *in, const Quantized *q, float *recon);
/* Distortion of one tensor. */
double quantize_distortion(const QuantizeInput *in, const Quantized *q, size_t tensor);
double quantize_mean_square(const float *w, size_t n); /* 0 of none */

/* Finds the largest x in [low, high] at which measure says that the goal is met: an excess (how
 * many times the goal's limit is reached) of at most 1. The excess should grow with x but may be
 * noisy, be 0, or INFINITY where nothing could be measured. Starts at `guess` (0: at low) and ends
 * when an excess is at least `enough` (below 1), or after `steps` measurements and one more. What
 * is returned has been measured. Returns ONNXPRESS_GOAL when even `low` fails, an error of
 * measure's when it fails. */
typedef struct {
    double low, high, guess, enough;
    int steps;
} QuantizeRange;
typedef int (*QuantizeMeasure)(void *context, double x, double *excess, Error *err);
int quantize_search(const QuantizeRange *range, QuantizeMeasure measure, void *context,
                    double *best, Error *err);

#endif
