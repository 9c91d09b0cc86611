/* What the fuzz targets share. A target is one file with LLVMFuzzerTestOneInput; libFuzzer calls it,
 * or the main function in replay.c. Inputs are hostile files; a target must neither crash nor leak,
 * nor ask for much more memory or time than its input's size explains.
 */
#ifndef ONNXPRESS_TESTS_FUZZ_H
#define ONNXPRESS_TESTS_FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tensor/error.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Ends the program loudly when what must hold does not: a finding like any other. */
#define FUZZ_CHECK(condition)                                                                      \
    do {                                                                                           \
        if (!(condition))                                                                          \
            fuzz_fail(#condition, __FILE__, __LINE__);                                             \
    } while (0)
_Noreturn void fuzz_fail(const char *what, const char *file, int line);

/* A path in the process's own scratch folder, which goes when the process ends; eight are valid at a
 * time. */
const char *fuzz_path(const char *name);
/* Writes the file anew and returns its path. */
const char *fuzz_file(const char *name, const uint8_t *data, size_t size);
/* An error left by a failed call says something, in one line; none is the library's own defect. */
void fuzz_check_error(int status, const Error *err);

/* The input as a row of numbers; 0 behind its end. */
typedef struct {
    const uint8_t *at;
    size_t left;
} Bytes;
uint8_t bytes_u8(Bytes *bytes);
uint16_t bytes_u16(Bytes *bytes);
/* A number of 0..4 bytes, as the first one says: small ones are frequent, all are possible. */
uint64_t bytes_size(Bytes *bytes);

#endif
