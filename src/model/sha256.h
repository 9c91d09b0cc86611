/* SHA-256 (FIPS 180-4) of a block of memory. Nothing is allocated, nothing can fail. */
#ifndef ONNXPRESS_MODEL_SHA256_H
#define ONNXPRESS_MODEL_SHA256_H

#include <stddef.h>
#include <stdint.h>

/* Lower-case hexadecimal digits and a NUL. */
void sha256_hex(const void *data, size_t bytes, char hex[65]);

/* The same in parts: all but the last are a multiple of 64 bytes. */
typedef struct {
    uint32_t state[8];
    uint64_t bytes;
} Sha256;
void sha256_begin(Sha256 *sha);
void sha256_add(Sha256 *sha, const void *data, size_t bytes);
void sha256_end(Sha256 *sha, const void *data, size_t bytes, char hex[65]);

#endif
