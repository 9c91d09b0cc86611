/* Report: the public report's storage. A report owns its strings and arrays in an arena of its own. */
#ifndef ONNXPRESS_PIPELINE_REPORT_H
#define ONNXPRESS_PIPELINE_REPORT_H

#include "pipeline/choose.h"

/* An empty report with its arena; *arena belongs to it. */
int report_create(OnnxPressReport **report, Arena **arena, Error *err);
/* Names, sizes, tensors, warnings, time and memory; selection and choice may be NULL. */
int report_fill(OnnxPressReport *report, Arena *arena, const Session *session,
                const Selection *selection, const Choice *choice);

#endif
