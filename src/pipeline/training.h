/* Training: what finetune and compress share of it, on top of finetune/. Errors: finetune_run's. */
#ifndef ONNXPRESS_PIPELINE_TRAINING_H
#define ONNXPRESS_PIPELINE_TRAINING_H

#include "finetune/finetune.h"
#include "pipeline/session.h"

/* Steps, rate (0: none was given) and augmentation as the options say; no pruning, no checkpoint.
 * Progress goes to the session's. */
FinetuneOptions training_options(Session *session, int epochs);
int training_check_options(const OnnxPressOptions *options, Error *err);
/* The figures of a finished run. */
void training_report(const Finetuned *tuned, int epochs, int64_t samples, bool labels,
                     OnnxPressTraining *training);
void training_clear(OnnxPressTraining *training); /* nothing was trained */

/* Measures mean and variance of every BatchNormalization anew with the weights given ([weights],
 * NULL: the originals) and puts them there in place of the old ones. Warns of norms that cannot be. */
int training_norms(Session *session, const Feed *feed, const int64_t *sample, int64_t n,
                   real **weights, int64_t *norms);

#endif
