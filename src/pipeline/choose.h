/* Choose: the quantization with the fewest bytes that meets the goal.
 *
 * For each scope asked for, the step (method uniform) or the number of centres (k-means) is searched;
 * goals on answers are measured by running the model with the rounded weights on samples that the
 * importance did not see. The Choice owns its arrays (choice_free). Errors: ONNXPRESS_GOAL when
 * nothing reaches the goal, with the nearest that was found; the executor's.
 */
#ifndef ONNXPRESS_PIPELINE_CHOOSE_H
#define ONNXPRESS_PIPELINE_CHOOSE_H

#include "pipeline/goal.h"
#include "pipeline/select.h"

/* Without data: a step of this many root mean squares of each tensor is some 30 dB. */
#define CHOOSE_CAUTIOUS_STEP 0.1

typedef struct {
    Arena *arena;       /* owns what `quantized` points to; NULL: numbers only */
    Quantized quantized;
    QuantizeScope scope;
    float zero_half;    /* of compensation's cell at zero, in steps */
    double at_zero;     /* share of the weights that were not there before */
    double x;           /* step, or number of centres */
    const float *finer; /* [n_coded]: below 1 where a step is finer than importance says, or NULL */
    uint64_t bytes;     /* estimate of the whole result */
    bool measured;
    Distance *distance; /* per output, on the goal's samples, when measured */
    Distance *all;      /* the same with those that the importance saw; NULL: not measured */
    Score score[2];     /* when there are labels */
} Choice;

typedef struct {
    const Data *data;         /* NULL: nothing can be measured */
    const Answers *answers;
    const Answers *seen;      /* on samples that the importance saw; NULL: the goal's say enough */
    const int64_t *label;     /* per sample of data, or NULL */
    uint64_t original_bytes;
    uint64_t base_bytes;      /* of the result without streams, codebook and tables */
    const QuantizeMatrix *matrix; /* per coded tensor, for error compensation; NULL: none */
    bool cautious;            /* the data prove little: steps stay within what most models bear */
    double size_correction;   /* real bytes / estimated bytes, from an earlier round; 1 at first */
} ChooseInput;

/* The selection's values are rounded while answers are measured, and as they were afterwards. */
int choose_quantization(Session *session, const Selection *selection, const ChooseInput *input,
                        Choice *choice);
void choice_free(Choice *choice);

/* One setting in place of a search, otherwise as in `like`: quantized, measured when there are
 * answers, its bytes. */
int choose_at(Session *session, const Selection *selection, const ChooseInput *input,
              const Choice *like, double x, Choice *choice);
/* Measures a choice (anew, after its centres have changed). exact: [weights] new values of weights
 * that are not coded, NULL entries: the originals; or NULL. */
int choose_measure(Session *session, const Selection *selection, const ChooseInput *input,
                   real *const *exact, Choice *choice);
/* Whether a measured choice meets a goal on answers. */
bool choose_meets(const Session *session, const ChooseInput *input, const Choice *choice);
/* Whether the model with these weights ([weights], NULL entries: the originals) stays within `part`
 * of a goal on answers. */
int choose_values_meet(Session *session, const ChooseInput *input, const real *const *weights,
                       double part, bool *meets);

/* The method that is run: compensation needs the layers' inputs. */
OnnxPressMethod choose_method(const Session *session, const ChooseInput *input);

#endif
