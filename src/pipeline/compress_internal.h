/* What compress.c (the stages), compress_data.c and compress_report.c share: one compression. */
#ifndef ONNXPRESS_PIPELINE_COMPRESS_INTERNAL_H
#define ONNXPRESS_PIPELINE_COMPRESS_INTERNAL_H

#include "pipeline/stream.h"
#include "pipeline/tune.h"

typedef struct {
    Session session;
    Data calibration, validation, train;
    bool separate; /* validation has its own data */
    bool random;   /* the calibration data are made up */
    int64_t *importance_sample, *goal_sample;
    int64_t n_importance, n_goal;
    int64_t *label; /* of the validation data */
    Answers *answers;
    Answers *seen; /* on the importance's samples, or NULL */
    float **h;
    const char *source; /* of the importance, for the report */
    Selection selection;
    QuantizeMatrix *matrix; /* NULL: no error compensation */
    OnnxPressMethod method;
    ChooseInput choose;
    double pruned;
    bool forgotten; /* the selection's values, for now */
    Stream stream;
    Choice choice;
    Tuned tuned;
    RewriteForm form;
    const char **written; /* [coded tensors] what they are called in the result */
    RewriteSizes sizes;
    RewriteParts parts;
} Compression;

/* Opens the samples of the options and takes the original's answers on them. A model that cannot be
 * run leaves c->answers NULL, with a warning. */
int compress_open_data(Compression *c);
/* The samples that training sees: the user's, or those of the importance. */
int compress_open_training(Compression *c, TuneData *data);

/* The method's name, as the report and the file's note give it. */
const char *compress_method(const Compression *c);
/* All of the report but time and memory. */
int compress_report(Compression *c, const char *output, OnnxPressReport **report);

#endif
