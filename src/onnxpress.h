/* SPDX-License-Identifier: Apache-2.0
 *
 * onnxpress: make an ONNX model small while it answers as before.
 *
 * This is the whole public interface; the command line is a program on it like any other.
 * Every function that can fail returns an OnnxPressStatus and, where it takes an
 * OnnxPressError, leaves one line there that says what failed, where, and what to do.
 * No function prints, exits, or keeps global state; two calls may run in two threads.
 * Strings in results are owned by the result object and live until its *_free.
 */
#ifndef ONNXPRESS_H
#define ONNXPRESS_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define ONNXPRESS_API __attribute__((visibility("default")))
#else
#define ONNXPRESS_API
#endif

typedef enum {
    ONNXPRESS_OK = 0,
    ONNXPRESS_USAGE = 1,       /* an option or argument that makes no sense */
    ONNXPRESS_IO = 2,          /* the system refused a file: missing, unwritable, disk full */
    ONNXPRESS_FORMAT = 3,      /* a file that is not what it should be */
    ONNXPRESS_UNSUPPORTED = 4, /* valid, but outside what this version handles */
    ONNXPRESS_DATA = 5,        /* calibration data that does not fit the model */
    ONNXPRESS_GOAL = 6,        /* no setting reaches the goal */
    ONNXPRESS_MEMORY = 7,      /* out of memory or over a limit */
    ONNXPRESS_INTERRUPTED = 8, /* the progress callback asked to stop */
    ONNXPRESS_INTERNAL = 9     /* a defect of ours; please report */
} OnnxPressStatus;

typedef struct {
    OnnxPressStatus code;
    char message[600];
} OnnxPressError;

/* Version of the library, "MAJOR.MINOR.PATCH". */
ONNXPRESS_API const char *onnxpress_version(void);

typedef enum {
    ONNXPRESS_GOAL_DEFAULT,   /* KL <= 0.005 nats and <= a tenth of the original's mean output entropy,
                                 with 95 % confidence of the samples' mean; for plain values a
                                 relative error <= 0.01, or 0.0001 where scores are among them */
    ONNXPRESS_GOAL_RATIO,     /* bytes of the original / bytes of the result */
    ONNXPRESS_GOAL_BITS,      /* bits of the result a weight, everything counted */
    ONNXPRESS_GOAL_MAX_KL,    /* nats, mean over samples (and positions) */
    ONNXPRESS_GOAL_MAX_ERROR, /* mean squared error / variance of the output */
    ONNXPRESS_GOAL_MAX_DROP,  /* percentage points of top-1 accuracy; needs labels */
    ONNXPRESS_GOAL_STEP       /* no goal but a setting: the grid's step, the number of centres (kmeans),
                                 or lambda in distortion a bit (ecsq) */
} OnnxPressGoal;

typedef enum {
    ONNXPRESS_METHOD_COMPENSATED, /* uniform grid; each weight's rounding error is taken up by the rest
                                     of its row. Needs data; without, the same as UNIFORM */
    ONNXPRESS_METHOD_UNIFORM,     /* the paper's: uniform grid, importance-weighted centres */
    ONNXPRESS_METHOD_KMEANS,      /* the paper's: importance-weighted k-means */
    ONNXPRESS_METHOD_ECSQ         /* the paper's: iterative entropy-constrained quantization */
} OnnxPressMethod;
/* One step for all weights (the paper's), one a tensor from its mean importance, or the smaller. */
typedef enum { ONNXPRESS_SCOPE_AUTO, ONNXPRESS_SCOPE_MODEL, ONNXPRESS_SCOPE_TENSOR } OnnxPressScope;
typedef enum {
    ONNXPRESS_FORM_AUTO, /* function up to 30 M weights, lookup above */
    ONNXPRESS_FORM_FUNCTION,
    ONNXPRESS_FORM_INLINED,
    ONNXPRESS_FORM_LOOKUP,
    ONNXPRESS_FORM_PLAIN
} OnnxPressForm;
typedef enum {
    ONNXPRESS_SIDECAR_AUTO, /* only for a model over 1.5 GB */
    ONNXPRESS_SIDECAR_ALWAYS,
    ONNXPRESS_SIDECAR_NEVER
} OnnxPressSidecar;
/* Estimates of the Hessian's diagonal. EMPIRICAL_FISHER needs labels of the calibration samples;
 * BECKER_LECUN, HUTCHINSON and ADAM take them when there are any. */
typedef enum {
    ONNXPRESS_IMPORTANCE_GAUSS_NEWTON,     /* of the distillation loss, exact for few outputs */
    ONNXPRESS_IMPORTANCE_BECKER_LECUN,     /* the paper's: second-order back-propagation */
    ONNXPRESS_IMPORTANCE_EMPIRICAL_FISHER, /* squared gradients of the labels' cross-entropy */
    ONNXPRESS_IMPORTANCE_MC_FISHER,        /* the same for classes drawn from the model's answers */
    ONNXPRESS_IMPORTANCE_HUTCHINSON,       /* the true Hessian's diagonal, by random vectors */
    ONNXPRESS_IMPORTANCE_ADAM,             /* the paper's alternative: root of Adam's second moment */
    ONNXPRESS_IMPORTANCE_ACTIVATION,       /* mean squares of inputs: needs no derivatives */
    ONNXPRESS_IMPORTANCE_NONE              /* 1 everywhere */
} OnnxPressImportance;

/* The learning rate over a training run: half a cosine down to 0; times `factor` every `step_epochs`
 * epochs; as it is. */
typedef enum {
    ONNXPRESS_SCHEDULE_COSINE,
    ONNXPRESS_SCHEDULE_STEP,
    ONNXPRESS_SCHEDULE_CONSTANT
} OnnxPressSchedule;
/* Which weights go first: the smallest, or those with the least h w^2 (optimal brain damage; h is the
 * importance at the start). */
/* Mean and variance of BatchNormalization while training: the model's, which stay; the model's, and
 * then measured anew on the training samples, layer after layer; or each minibatch's own, with the
 * model's measured after the training. */
typedef enum { ONNXPRESS_NORM_FIXED, ONNXPRESS_NORM_REESTIMATE, ONNXPRESS_NORM_TRAIN } OnnxPressNorm;
/* The graph around the weights: as it is, or without what only people read: node names, documentation,
 * long names of what is neither input nor output. */
typedef enum { ONNXPRESS_GRAPH_KEEP, ONNXPRESS_GRAPH_SMALL } OnnxPressGraph;
typedef enum { ONNXPRESS_PRUNE_SIZE, ONNXPRESS_PRUNE_DAMAGE } OnnxPressPruneBy;
/* The gradient of a shared centre: the mean of its members', or weighted by their importance. */
typedef enum { ONNXPRESS_CENTRE_MEAN, ONNXPRESS_CENTRE_HESSIAN } OnnxPressCentre;
#define ONNXPRESS_PRUNE_AUTO (-1.0)

/* Where a call stands. */
typedef struct {
    const char *stage;     /* "importance", "search", "training", … */
    double share;          /* of the stage, 0 to 1 */
    /* While training; elsewhere whole numbers are 0 and the others NaN. */
    int epoch, epochs;     /* counted from 1 */
    int64_t step, steps;   /* of the whole run */
    double loss, accuracy; /* means over this epoch so far; accuracy NaN without labels */
    double kept;           /* share of the prunable weights that is not pruned */
    double seconds_left;
} OnnxPressProgress;

/* One struct for all commands: each reads what concerns it. Set it up with onnxpress_options_init;
 * strings are borrowed for the call. Paths of data: a .npy (for the only input), a .npz (input name
 * -> array), or a folder of input_*.pb; the first axis is the samples. "random" stands for numbers
 * made up from the graph's input types and shapes: for a first try. */
typedef struct {
    const char *calibration; /* NULL: importance from the weights alone, no measured goal */
    const char *validation;  /* NULL: every fifth calibration sample, kept from the importance */
    const char *labels;      /* integer .npy, one a sample of `validation` (or of `calibration`) */
    const char *hessian;     /* .npz from onnxpress_hessian, used instead of measuring it; or NULL */
    OnnxPressGoal goal;
    double goal_value;
    OnnxPressMethod method;
    OnnxPressScope scope;
    OnnxPressForm form;
    OnnxPressGraph graph;    /* onnxpress_compress */
    OnnxPressSidecar sidecar;
    OnnxPressImportance importance;
    int unweighted;          /* centres are plain means (for comparison) */
    int levels;              /* centres that ECSQ starts from, up to 65535; 0: as lambda asks */
    uint64_t seed;
    int threads;             /* 0: one a processor */
    size_t memory;           /* bytes for activations; 0: 1 GiB, 256 a byte of the file, 4096 a byte of a
                                batch of inputs, at most what the machine has. Without data and without
                                a form, method or goal that asks for more, for all of compress; 0: 1.5
                                GB: a model that takes more is streamed, into form lookup */
    /* Preprocessing of the data: (x*scale - mean[c]) / std[c] along axis 1. scale 0: 1/255 for uint8
     * data and 1 for others. */
    double scale;
    int n_mean, n_std;
    double mean[16], std[16];
    /* "NAME=logits", "NAME=probabilities", "NAME=bernoulli", "NAME=values". */
    const char *const *outputs;
    size_t n_outputs;
    /* Training: of all weights by onnxpress_finetune, on `calibration` with `labels`; of the shared
     * centres and scales by onnxpress_compress, after the quantization. 0 takes what stands behind. */
    int epochs;              /* finetune: 3; compress: none, nothing is trained */
    const char *train;       /* compress: the samples; NULL: those of `calibration` that the goal is
                                not measured on */
    const char *train_labels; /* compress: their classes. NULL: `labels`, where they are theirs; else
                                the original's answers are the teacher */
    int batch;               /* 64 */
    double rate;             /* finetune: 1e-3; compress: 1e-2, in units of the centres' mean size and
                                of each scale */
    int sgd;                 /* SGD with momentum 0.9 in place of Adam */
    OnnxPressSchedule schedule;
    int step_epochs;         /* 10 */
    double factor;           /* 0.1 */
    int warmup;              /* steps during which the rate grows from 0 */
    double decay;            /* of weights of two axes or more, not of centres */
    int shift, flip;         /* augmentation of images: pixels, and left to right */
    const char *teacher;     /* finetune: a model whose answers are the target, with labels half of it
                                (NULL: the labels alone, or without any the model as it was) */
    const char *checkpoint;  /* finetune: written after each epoch and resumed from; or NULL */
    OnnxPressCentre centre_gradient;
    OnnxPressNorm batch_norm;
    /* Pruning of weights of two axes or more: gradual by finetune, at once before the quantization by
     * compress. The share to remove, 0 to below 1, or ONNXPRESS_PRUNE_AUTO: by finetune as much as
     * costs, by sum h w^2 / 2, at most a twentieth of what pruning all would; by compress what
     * makes the smallest file. */
    double prune;
    OnnxPressPruneBy prune_by;
    OnnxPressScope prune_scope; /* one threshold for the model (AUTO too), or one a tensor */
    double prune_until;      /* share of the run after which pruning is over: 0.6 */
    /* Called now and then; non-zero stops the call with ONNXPRESS_INTERRUPTED and no output. NULL:
     * none. */
    int (*progress)(void *context, const OnnxPressProgress *progress);
    void *context;
} OnnxPressOptions;

ONNXPRESS_API void onnxpress_options_init(OnnxPressOptions *options);

/* What became of one tensor. */
typedef struct {
    const char *name;
    const char *dtype;
    int rank;
    int64_t shape[8];
    int64_t count;
    const char *treatment;   /* "coded" or "exact" */
    const char *reason;      /* why it is exact, or how its importance was found; never NULL */
    int levels;              /* distinct values after coding; 0 when exact */
    double bits;             /* mean bits an element: entropy of its symbols, or the stored width */
    double distortion;       /* sum of importance * squared change */
    double importance;       /* mean over its elements */
} OnnxPressTensor;

/* How two models' answers differ, or how one scores. Numbers that do not apply are NaN. */
typedef struct {
    int64_t samples;
    double kl;               /* nats */
    double entropy;          /* of the first model's answers, nats */
    double relative_error;   /* mean squared error / variance, worst output of plain values */
    double max_error;        /* largest absolute difference of an output element */
    double top1_agreement;   /* share of samples (rows) with the same largest class */
    double accuracy;         /* top-1 of the first model, share; needs labels */
    double accuracy_small;   /* of the second */
} OnnxPressDistance;

/* What was trained. Numbers that do not apply are NaN. */
typedef struct {
    int epochs;              /* 0: nothing */
    int64_t samples;
    const char *loss;        /* "cross-entropy" or "distillation" */
    double first_loss, first_accuracy; /* means over the first epoch, while training */
    double last_loss, last_accuracy;   /* over the last */
    int kept;                /* compress: the trained values were better, and were written */
    OnnxPressDistance before, after; /* compress: on the goal's samples, without and with training */
    double seconds;
} OnnxPressTraining;

/* The model as the paper counts it: Huffman-coded indices, one symbol a codeword. Where at least a
 * tenth of the coded weights were exactly 0 the network is taken as pruned, and zeros have no
 * codeword: the others' positions are coded differences (src/entropy/FORMAT.md). Bits of the whole
 * model. */
typedef struct {
    int gaps; /* the network is taken as pruned */
    double ratio, bits_per_weight; /* 32 bits a parameter against all of the bits below; like all
                                      these NaN for a streamed model, which is not counted */
    double position_bits;          /* of a pruned network's differences */
    double value_bits;             /* codewords */
    double table_bits;  /* each codeword once, 32 bits a centre and a tensor's scale, 8 a difference */
    double exact_bits;  /* 32 for each parameter that is not coded */
    double codeword_bits;       /* mean length of a value's codeword: the paper's abscissa */
    double fixed_codeword_bits; /* log2 of the number of values: the same for fixed length */
    double fixed_ratio, fixed_bits_per_weight; /* with indices of ceil(log2 values) bits instead */
} OnnxPressCount;

/* What the bytes of the result are spent on (in one file, and before zstd where that is asked for). */
typedef struct {
    const char *position_code; /* "symbols", "pairs", "triples", "quadruples", "gaps", "mixed",
                                  "indices" or "values": what coded the weights took the fewest bytes */
    uint64_t streams;
    double positions;          /* the streams' share, by entropy, that tells zeros from the rest */
    uint64_t codebook, tables, exact, graph;
} OnnxPressParts;

typedef struct {
    const char *input, *output;
    const char *method, *scope, *form, *importance, *goal;
    double goal_value;
    double step;             /* the grid's step, the number of centres, or lambda */
    int levels;
    uint64_t original_bytes, compressed_bytes; /* everything a user must ship */
    uint64_t model_bytes, sidecar_bytes;
    double ratio, bits_per_weight;
    OnnxPressCount paper;
    OnnxPressParts parts;
    int64_t weights, coded_weights;
    int64_t calibration_samples;
    const char *measured_on; /* "validation data", "held-out calibration samples", "all calibration
                                samples" (where the answers on those that the importance saw turned
                                out farther away), or "nothing" */
    OnnxPressDistance distance;
    OnnxPressTraining training;
    double pruned;           /* share of zeros among the weights of two axes or more */
    int64_t norms;           /* BatchNormalization nodes with new mean and variance */
    double seconds;
    uint64_t peak_rss_bytes;
    size_t n_tensors, n_warnings;
    const OnnxPressTensor *tensors;
    const char *const *warnings;
} OnnxPressReport;

ONNXPRESS_API void onnxpress_report_free(OnnxPressReport *report); /* NULL is allowed */

/* Makes `input` small and writes it to `output` (and a sidecar output.data when asked). `report` may
 * be NULL. On failure no output exists and an older one is as it was. */
ONNXPRESS_API OnnxPressStatus onnxpress_compress(const char *input, const char *output,
                                                 const OnnxPressOptions *options,
                                                 OnnxPressReport **report, OnnxPressError *error);

/* Turns any of our forms back into ordinary float initializers. */
ONNXPRESS_API OnnxPressStatus onnxpress_restore(const char *input, const char *output,
                                                const OnnxPressOptions *options,
                                                OnnxPressError *error);

/* Tensors, sizes, op support: fills what a report can say without compressing (original_bytes,
 * weights, tensors, warnings; `form` when the file is one of ours). */
ONNXPRESS_API OnnxPressStatus onnxpress_inspect(const char *input, const OnnxPressOptions *options,
                                                OnnxPressReport **report, OnnxPressError *error);

/* Writes the importance of every weight to a .npz (initializer name -> float32 array of its shape),
 * measured on all calibration samples. */
ONNXPRESS_API OnnxPressStatus onnxpress_hessian(const char *input, const char *output,
                                                const OnnxPressOptions *options,
                                                OnnxPressReport **report, OnnxPressError *error);

/* Trains the weights on options->calibration and writes the model with the new ones: cross-entropy
 * with labels, else distillation from the original's answers. Pruned weights are exactly zero. */
ONNXPRESS_API OnnxPressStatus onnxpress_finetune(const char *input, const char *output,
                                                 const OnnxPressOptions *options,
                                                 OnnxPressReport **report, OnnxPressError *error);

/* Runs a model (one of our forms too) on options->calibration; accuracy with labels. */
ONNXPRESS_API OnnxPressStatus onnxpress_evaluate(const char *input, const OnnxPressOptions *options,
                                                 OnnxPressDistance *distance,
                                                 OnnxPressError *error);

/* Compares two models' answers on options->calibration. */
ONNXPRESS_API OnnxPressStatus onnxpress_verify(const char *original, const char *small,
                                               const OnnxPressOptions *options,
                                               OnnxPressDistance *distance, OnnxPressError *error);

#ifdef __cplusplus
}
#endif
#endif
