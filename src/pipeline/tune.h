/* Tune: what compress does after the quantization, the assignments being fixed: the shared centres
 * (and scales, and small tensors that are not coded) are trained, and batch normalization's
 * statistics are measured anew.
 *
 * What comes out is kept only when it is better on the goal's samples: more samples right where
 * labels trained it, else (and when as many are right) nearer to the original's answers. With a goal
 * on answers, coarser quantizations are then tried the same way, and the smallest that meets the
 * goal after its training is taken. Lives in the session's arena. Errors: finetune_run's.
 */
#ifndef ONNXPRESS_PIPELINE_TUNE_H
#define ONNXPRESS_PIPELINE_TUNE_H

#include "pipeline/choose.h"

/* Samples to train on. */
typedef struct {
    const Data *data;
    const int64_t *sample; /* [n] */
    int64_t n;
    const int64_t *label;  /* one a sample of the data, or NULL */
} TuneData;

typedef struct {
    OnnxPressTraining training;
    int64_t norms;   /* normalizations with new statistics */
    real **exact;    /* [weights] new values of weights that are not coded; entries NULL: as before */
} Tuned;

/* Replaces *choice when there is a better one. */
int tune_choice(Session *session, const Selection *selection, const ChooseInput *input,
                const TuneData *data, Choice *choice, Tuned *tuned);

#endif
