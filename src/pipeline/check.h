/* Check: reads a written result back as a user would and compares every coded weight, bit for bit.
 * written[t]: what coded tensor t is called there. ONNXPRESS_INTERNAL when it is not what was encoded. */
#ifndef ONNXPRESS_PIPELINE_CHECK_H
#define ONNXPRESS_PIPELINE_CHECK_H

#include "pipeline/choose.h"

int check_written(const Session *session, const Selection *selection, const Choice *choice,
                  const char *const *written, const char *path);

/* A streamed result, whose weights are not made again: its streams and tables against their checksums. */
int check_streams(const char *path, Error *err);

#endif
