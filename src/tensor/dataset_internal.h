/* What dataset.c (arrays, labels) and dataset_folder.c (folders of .pb and .npz files) share. */
#ifndef ONNXPRESS_TENSOR_DATASET_INTERNAL_H
#define ONNXPRESS_TENSOR_DATASET_INTERNAL_H

#include "tensor/dataset.h"
#include "tensor/npy.h"

struct Dataset {
    Arena *arena; /* holds this struct, and all data that do not lie in `file` */
    const char *path;
    NpyFile *file; /* NULL for a folder */
    int64_t samples;
    size_t count;
    Tensor *tensors;    /* of all samples; of the first one when there are sets */
    Tensor *const *set; /* [samples][count], whole inputs of a run each; NULL: one shape fits all */
    NpyFile **files;    /* of a folder of .npz files */
    size_t n_files;
};

/* Fills count and tensors, or sets, from input_*.pb, here or in sub-folders test_data_set_*, or from
 * .npz files. */
int dataset_open_folder(Dataset *dataset, Error *err);

#endif
