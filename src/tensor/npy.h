/* NumPy's .npy and .npz files, read and written.
 *
 * npy_open maps the file; the tensor's data points into the mapping, which the NpyFile owns until
 * npy_close. npz members (stored or deflated, through libzip) are read into memory that the NpyFile
 * owns too. Fortran order, object arrays, big-endian data and ranks above TENSOR_MAX_RANK are
 * refused with the file's and member's name. Sizes are checked against the file before anything is
 * allocated: a header that claims more than the file (or the zip member) holds is an error.
 */
#ifndef ONNXPRESS_TENSOR_NPY_H
#define ONNXPRESS_TENSOR_NPY_H

#include "tensor/tensor.h"

typedef struct NpyFile NpyFile;

/* Reads a .npy (one tensor, name NULL) or .npz (a tensor a member, name without ".npy"), told apart
 * by content. */
int npy_open(const char *path, NpyFile **file, Error *err);
void npy_close(NpyFile *file); /* NULL is allowed */
size_t npy_count(const NpyFile *file);
const Tensor *npy_tensor(const NpyFile *file, size_t index);
const Tensor *npy_find(const NpyFile *file, const char *name); /* NULL when there is none */

/* Writes a .npz whose bytes depend on nothing but the tensors (no time stamps), atomically. */
int npz_write(const char *path, const Tensor *tensors, size_t count, Error *err);

#endif
