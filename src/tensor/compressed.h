/* zstd streams for file.c: what is written to and read from files whose names end in ".zst".
 *
 * A Packer belongs to one FileWriter, which frees it. Output goes through a callback. Errors name the
 * path.
 */
#ifndef ONNXPRESS_TENSOR_COMPRESSED_H
#define ONNXPRESS_TENSOR_COMPRESSED_H

#include <stdbool.h>

#include "tensor/file.h"

typedef struct Packer Packer;
typedef int (*PackerWrite)(void *context, const unsigned char *data, size_t bytes, Error *err);

bool path_is_compressed(const char *path);
Packer *packer_create(void); /* NULL: out of memory */
void packer_free(Packer *packer);
/* Compresses and hands on; `last` ends the frame. */
int packer_put(Packer *packer, const unsigned char *data, size_t bytes, bool last,
               PackerWrite write, void *context, Error *err);

#endif
