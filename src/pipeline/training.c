/* SPDX-License-Identifier: Apache-2.0 */
#include "pipeline/training.h"

#include <math.h>

static int training_progress(void *context, const FinetuneProgress *p)
{
    const OnnxPressProgress progress = {.stage = "training",
                                        .share = (double)p->step / (double)p->steps,
                                        .epoch = p->epoch,
                                        .epochs = p->epochs,
                                        .step = p->step,
                                        .steps = p->steps,
                                        .loss = p->loss,
                                        .accuracy = p->accuracy,
                                        .kept = p->kept,
                                        .seconds_left = p->seconds_left};
    return session_report(context, &progress);
}

int training_check_options(const OnnxPressOptions *o, Error *err)
{
    const char *wrong = NULL;
    if (o->epochs < 0 || o->batch < 0 || o->shift < 0 || o->step_epochs < 0 || o->warmup < 0)
        wrong = "epochs, batch, shift, step-epochs and warmup must not be negative";
    else if (!(o->rate >= 0) || isinf(o->rate) || !(o->decay >= 0) || isinf(o->decay))
        wrong = "rate and decay must not be negative or infinite";
    else if (!(o->factor >= 0 && o->factor <= 1) || !(o->prune_until >= 0 && o->prune_until <= 1))
        wrong = "factor and prune-until must be 0 to 1";
    if (wrong)
        return error_set(err, ONNXPRESS_USAGE, "%s", wrong);
    if (o->prune != ONNXPRESS_PRUNE_AUTO && !(o->prune >= 0 && o->prune < 1))
        return error_set(err, ONNXPRESS_USAGE,
                         "--prune %g: expected the share of weights to remove, 0 to below 1",
                         o->prune);
    return ONNXPRESS_OK;
}

FinetuneOptions training_options(Session *session, int epochs)
{
    static const FinetuneSchedule schedules[] = {[ONNXPRESS_SCHEDULE_COSINE] = FINETUNE_COSINE,
                                                 [ONNXPRESS_SCHEDULE_STEP] = FINETUNE_STEP,
                                                 [ONNXPRESS_SCHEDULE_CONSTANT] = FINETUNE_CONSTANT};
    const OnnxPressOptions *options = session->options;
    FinetuneOptions training = finetune_defaults();
    training.epochs = epochs;
    training.batch = options->batch > 0 ? options->batch : 64;
    training.rate = options->rate;
    training.optimizer = options->sgd ? FINETUNE_SGD : FINETUNE_ADAM;
    training.schedule = schedules[options->schedule];
    training.floor = 0;
    training.step_epochs = options->step_epochs > 0 ? options->step_epochs : 10;
    training.factor = options->factor > 0 ? options->factor : 0.1;
    training.warmup = options->warmup;
    training.decay = options->decay;
    training.seed = options->seed;
    training.norm_by_batch = options->batch_norm == ONNXPRESS_NORM_TRAIN;
    training.shift = options->shift;
    training.flip = options->flip != 0;
    training.threads = session->threads;
    training.memory = options->memory;
    training.progress = options->progress ? training_progress : NULL;
    training.context = session;
    return training;
}

void training_clear(OnnxPressTraining *training)
{
    *training = (OnnxPressTraining){.first_loss = NAN,
                                    .first_accuracy = NAN,
                                    .last_loss = NAN,
                                    .last_accuracy = NAN,
                                    .seconds = NAN};
    distance_clear(&training->before);
    distance_clear(&training->after);
}

void training_report(const Finetuned *tuned, int epochs, int64_t samples, bool labels,
                     OnnxPressTraining *training)
{
    training_clear(training);
    training->epochs = epochs;
    training->samples = samples;
    training->loss = labels ? "cross-entropy" : "distillation";
    training->first_loss = tuned->loss[0];
    training->first_accuracy = tuned->accuracy[0];
    training->last_loss = tuned->loss[epochs - 1];
    training->last_accuracy = tuned->accuracy[epochs - 1];
    training->seconds = tuned->seconds;
}
