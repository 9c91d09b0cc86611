/* What npy.c (the format of one array) and npz.c (archives of them) share. */
#ifndef ONNXPRESS_TENSOR_NPY_INTERNAL_H
#define ONNXPRESS_TENSOR_NPY_INTERNAL_H

#include "tensor/file.h"
#include "tensor/npy.h"

struct NpyFile {
    Arena *arena;
    FileMap map;
    size_t count;
    Tensor *tensors;
};

#define NPY_PREFIX 12        /* magic, version and header length, at most */
#define NPY_MAX_HEADER 65536 /* real ones are under 200 bytes; structured types are refused */

/* The length of everything before the data, from the first bytes of the file; 0: not .npy. */
size_t npy_header_bytes(const unsigned char *data, size_t size);
/* Reads the header (all of it is there) into type, shape and count of *tensor; tensor->bytes is
 * what the data take. `where` names the array in errors. */
int npy_read_header(const unsigned char *header, size_t size, const char *where, Tensor *tensor,
                    Error *err);
/* The header that numpy would write, padded; NULL: out of memory or a type numpy does not know. */
char *npy_make_header(const Tensor *tensor, Arena *arena, size_t *size);

int npz_read(NpyFile *file, const char *path, Error *err);

#endif
