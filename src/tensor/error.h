/* One error type for all modules: a code and one line for the user.
 *
 * A function that can fail returns an OnnxPressStatus (as int) and takes an Error *. The first
 * error is kept: error_set on an Error that already holds one leaves it as it is and returns the
 * code it was given. The message says what, where (file, node or tensor) and what to do.
 * Example:  return error_set(err, ONNXPRESS_IO, "%s: cannot be opened: %s", path, strerror(errno));
 */
#ifndef ONNXPRESS_TENSOR_ERROR_H
#define ONNXPRESS_TENSOR_ERROR_H

#include "onnxpress.h"

typedef OnnxPressError Error;

int error_set(Error *err, OnnxPressStatus code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* The out-of-memory error, in one call, since it is raised from everywhere. */
int error_memory(Error *err, const char *what);

#endif
