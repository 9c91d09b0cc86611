/* SHA-256 (FIPS 180-4) of a block of memory. Nothing is allocated, nothing can fail. */
#ifndef ONNXPRESS_MODEL_SHA256_H
#define ONNXPRESS_MODEL_SHA256_H

#include <stddef.h>

/* Lower-case hexadecimal digits and a NUL. */
void sha256_hex(const void *data, size_t bytes, char hex[65]);

#endif
