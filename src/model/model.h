/* Model: an ONNX file in memory, parsed, with its external data mapped.
 *
 * A file of zstd's is expanded first. model_load owns the parsed message, an arena for whatever is
 * added to it, and the mappings of the file, where large raw_data stay, and of external-data files;
 * model_free frees all of that. Nothing of a large tensor is in memory until it is read, and
 * model_forget lets go of it again. What we do not rewrite is saved as it was,
 * unknown fields included. Loading checks the wire format first (depth, lengths, strings) so that
 * a hostile file can exhaust neither stack nor memory: what is allocated follows from its size.
 * External data must lie in the model's folder (no absolute path, no "..", no link out of it); when
 * the model itself is a link, as in model hubs' caches, also in the folder of what it links to.
 * Messages that are added must come from the model's arena (never malloc): use the builders of
 * model/build.h. Errors: ONNXPRESS_IO, _FORMAT, _MEMORY, with the path and the tensor's name.
 */
#ifndef ONNXPRESS_MODEL_MODEL_H
#define ONNXPRESS_MODEL_MODEL_H

#include "onnx.pb-c.h"
#include "tensor/arena.h"
#include "tensor/error.h"
#include "tensor/file.h"
#include "tensor/tensor.h"

typedef struct Model Model;

struct Model {
    Onnx__ModelProto *proto; /* never NULL; proto->graph never NULL */
    Arena *arena;            /* lives as long as the model */
    const char *path;        /* as given to model_load */
    int64_t opset;           /* version of the default domain */
    uint64_t file_bytes;     /* the .onnx (or .onnx.zst) file, as it is on disk */
    uint64_t external_bytes; /* sum of the external-data files that tensors refer to, each once */
    char sha256[65];         /* of the .onnx file, lower-case hex */
    struct ModelPrivate *private_data;
};

int model_load(const char *path, Model **model, Error *err);
void model_free(Model *model); /* NULL is allowed */

/* A typed view of a TensorProto, wherever its data lives (raw_data, a typed field, external data).
 * Typed fields are converted into the model's arena once. Lengths are checked against the shape.
 * `where` names the tensor in errors when it has no name of its own. Strings have no data; a type
 * unknown to this version has whatever bytes there are. Data are aligned to the type's width. */
int model_tensor(Model *model, const Onnx__TensorProto *proto, const char *where, Tensor *tensor,
                 Error *err);
/* To be called by whoever gives a tensor new data: what was converted of the old ones is dropped. */
void model_data_changed(Model *model, const Onnx__TensorProto *proto);
/* The same, but raw_data and external data are as they lie in the file, aligned or not, and never
 * copied: for what tensor_to_float and its like read. */
int model_tensor_unaligned(Model *model, const Onnx__TensorProto *proto, const char *where,
                           Tensor *tensor, Error *err);
/* The tensor's numbers as tensor_to_float makes them, read a piece at a time, each of which is let go of:
 * what a file holds never lies in memory whole. */
int model_read_floats(Model *model, const Onnx__TensorProto *proto, const char *where, float *out,
                      Error *err);
/* The same, but each piece of them is handed to `visit`, which may end the walk with an error. */
typedef int (*ModelPiece)(void *context, const float *value, int64_t n, Error *err);
int model_visit_floats(Model *model, const Onnx__TensorProto *proto, const char *where,
                       ModelPiece visit, void *context, Error *err);
/* The mapping is the model's from here on: tensors' raw_data may lie in it. */
int model_adopt(Model *model, FileMap *map, Error *err);
/* file_write, a piece at a time, letting go of each that lies in a file of the model's. */
int model_write_data(const Model *model, FileWriter *writer, const void *data, size_t bytes,
                     Error *err);
/* Lets go of the memory behind a tensor that lies in a file: it is read again when it is touched. */
void model_forget(const Model *model, const Tensor *tensor);

/* Serialises to `path`: temporary file, fsync, rename. External tensors keep their references; when
 * `path` is in another folder than the source, the files they refer to are copied beside it (never
 * over a file that differs: an error). model_write does the first half only (two-phase commit with
 * a sidecar): it hands back the open writer. */
int model_save(const Model *model, const char *path, Error *err);
int model_write(const Model *model, const char *path, FileWriter **writer, Error *err);
int model_pack(const Model *model, FileWriter *writer, Error *err); /* the message alone */
size_t model_packed_size(const Model *model);

/* metadata_props: NULL when the key is absent; set replaces or adds; a NULL value removes. */
const char *model_metadata(const Model *model, const char *key);
int model_set_metadata(Model *model, const char *key, const char *value, Error *err);

#endif
