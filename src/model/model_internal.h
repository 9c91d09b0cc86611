/* What the files of this folder share about a Model; nobody else includes it. */
#ifndef ONNXPRESS_MODEL_MODEL_INTERNAL_H
#define ONNXPRESS_MODEL_MODEL_INTERNAL_H

#include "model/model.h"
#include "model/names.h"

/* A file with tensors' data, mapped. */
typedef struct ExternalFile {
    struct ExternalFile *next;
    const char *location; /* as the tensors name it */
    const char *resolved; /* absolute, without links */
    FileMap map;
} ExternalFile;

/* A tensor's data that had to be copied: from a wider typed field, or to be aligned. */
typedef struct Converted {
    struct Converted *next;
    const Onnx__TensorProto *proto;
    const void *data;
} Converted;

/* The room behind a repeated field that grows by appending. */
typedef struct {
    void *array;
    size_t capacity;
} Growth;

struct ModelPrivate {
    FileMap map; /* the file, which large raw_data point into */
    ExternalFile *externals;
    Converted *converted;
    NameTable *names; /* of everything in the model; NULL until a fresh name is asked for */
    uint64_t fresh;   /* the number that the next fresh name tries */
    Growth initializers, functions, opsets, metadata;
    Onnx__GraphProto *stored; /* what is saved where the graph has been inlined; NULL: the graph */
};

/* Puts `item` behind the `*n` items of `*array` (a repeated field of messages). */
bool model_append(Model *model, size_t *n, void *array, void *item, Growth *growth);
/* Makes a name known to model_fresh_name. */
bool model_note_name(Model *model, const char *name);

/* Maps all external files that tensors refer to; sets external_bytes. */
int external_open(Model *model, Error *err);
void external_close(Model *model);
/* The bytes of one tensor; `expected`: what its shape needs, or 0 when that is unknown. */
int external_data(const Model *model, const Onnx__TensorProto *proto, const char *name,
                  uint64_t expected, bool expected_known, const unsigned char **data, size_t *bytes,
                  Error *err);
/* Attaches to `writer` copies of the external files still referred to, when `path` is elsewhere. */
int external_copy(const Model *model, const char *path, FileWriter *writer, Error *err);

#endif
