/* Sensitive: tensors whose rounding moves the answers far more than their importance says (second
 * order is not the whole of it), found by running the model with a part of the tensors rounded. */
#ifndef ONNXPRESS_PIPELINE_SENSITIVE_H
#define ONNXPRESS_PIPELINE_SENSITIVE_H

#include "pipeline/choose.h"

/* finer[n_coded]: 1, or what the step of a sensitive tensor is to be multiplied with (below 1);
 * *found: whether there is one. choice: a measured rounding with a step a tensor, for a goal on
 * answers. Nothing is run when it is about as far away as expected. */
int sensitive_find(Session *session, const Selection *selection, const ChooseInput *input,
                   const Choice *choice, float *finer, bool *found);

/* What is expected of one tensor's rounding of that distortion, in parts of the goal. */
double sensitive_expected(const Session *session, const ChooseInput *input, int tensor,
                          double distortion);

#endif
