/* Pruning: which weights of two axes or more are removed, for both commands that prune. Lives in the
 * session's arena. Errors: memory. */
#ifndef ONNXPRESS_PIPELINE_PRUNING_H
#define ONNXPRESS_PIPELINE_PRUNING_H

#include "finetune/prune.h"
#include "pipeline/choose.h"

typedef struct {
    PruneInput input;
    PruneMeasure measure;
    PruneScope scope;
    int *weight;    /* [input.n] of the program */
    uint8_t **mask; /* [input.n] as pruning_cut made it; 0: removed */
} Pruning;

/* w and h: an array a weight of the program, NULL where it is not to be pruned (h: where it is not
 * known). The options name measure and scope. */
int pruning_open(Session *session, const real *const *w, const float *const *h, Pruning *pruning);
/* Masks for a removed share. */
int pruning_cut(const Session *session, Pruning *pruning, double share);
/* Sum of h w^2 / 2 over what the masks remove: what the loss grows by, to second order. */
double pruning_damage(const Pruning *pruning);
/* The largest share whose damage is at most `part` of that of removing all. */
int pruning_auto(Session *session, Pruning *pruning, double part, double *share);

/* Compress's: removes what the options ask for from the selected weights, the others taking up what they
 * did where input->matrix tells how; auto: of the most with which the model stays within half of the
 * goal, parts of it and none, the share with the smallest result. *pruned: the share of zeros. */
int prune_selection(Session *session, const ChooseInput *input, Selection *selection,
                    double *pruned);

PruneMeasure pruning_measure(const OnnxPressOptions *options);
PruneScope pruning_scope(const OnnxPressOptions *options);

#endif
