/* Samples for calibration, validation and test: named arrays cut along their first axis.
 *
 * Sources: a .npy (the model's one input), a .npz (input name → array), or a folder of input_*.pb
 * (the ONNX test-data convention: a TensorProto each, named by its `name`, or by position;
 * sub-folders test_data_set_* are concatenated), or of .npz files, in the order of their names.
 * Where sub-folders or .npz files differ in shape (sequences of different length), each is one
 * sample: the inputs of one run, as they are. Labels are an integer .npy of one number a sample.
 * The Dataset owns its files and is freed with dataset_close. All arrays must agree in the number of
 * samples. Nothing here knows a model: who binds arrays to inputs is autodiff/feed.h.
 */
#ifndef ONNXPRESS_TENSOR_DATASET_H
#define ONNXPRESS_TENSOR_DATASET_H

#include "tensor/tensor.h"

typedef struct Dataset Dataset;

int dataset_open(const char *path, Dataset **dataset, Error *err);
/* A Dataset of arrays that were made in `arena`, which it takes over, also when it fails. `name`
 * stands for the path in messages. */
int dataset_made(const char *name, Arena *arena, Tensor *tensors, size_t count, Dataset **dataset,
                 Error *err);
void dataset_close(Dataset *dataset); /* NULL is allowed */
const char *dataset_path(const Dataset *dataset);
int64_t dataset_samples(const Dataset *dataset);
size_t dataset_inputs(const Dataset *dataset);
/* Shape [samples, …]; the name may be NULL. */
const Tensor *dataset_input(const Dataset *dataset, size_t index);
/* Whether each sample has shapes of its own: dataset_input is then the first sample's, and this the
 * input of another one's run. */
bool dataset_is_ragged(const Dataset *dataset);
const Tensor *dataset_sample(const Dataset *dataset, size_t index, int64_t sample);

/* Labels: int64, one a sample, each >= 0. In an .npz of several arrays the one named "label",
 * "labels" or "y" is taken. */
int labels_read(const char *path, Arena *arena, int64_t **labels, int64_t *count, Error *err);

#endif
