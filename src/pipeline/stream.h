/* Stream: the quantization of a model that is larger than memory, without data.
 *
 * Weights are read from the file a piece at a time, three times over: for their sizes, for the cells of
 * the grid, and for the indices, which go to a file of their own. What is in memory does not depend on
 * how many weights there are. The result is that of the uniform grid in scope tensor with importance
 * from the weights' sizes, in form lookup.
 */
#ifndef ONNXPRESS_PIPELINE_STREAM_H
#define ONNXPRESS_PIPELINE_STREAM_H

#include "pipeline/choose.h"

typedef struct {
    bool on;           /* the model is streamed */
    FileMap index;     /* of all coded weights, one byte each for up to 256 levels, else two */
    int *levels;       /* per coded tensor: values in use */
    double *bits;      /* per coded tensor: entropy a weight */
    double *distortion; /* per coded tensor */
} Stream;

/* Whether the options leave it to us how, and the weights are too many to be held three times. */
bool stream_wanted(const Session *session);
/* Selects and quantizes; the scratch file appears beside `output`. The choice has no symbols. */
int stream_quantize(Session *session, const char *output, Selection *selection, Choice *choice,
                    Stream *stream);
void stream_close(Stream *stream);
/* What report_fill cannot know without symbols. */
void stream_report(const Stream *stream, const Selection *selection, OnnxPressTensor *tensor);

#endif
