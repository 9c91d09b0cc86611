/* Files: mapped in, and replaced whole.
 *
 * A FileWriter writes to a temporary file in the target's folder; file_commit makes it durable and
 * renames it over the target, file_abort removes it. Until file_commit has returned OK the target
 * is as it was. The writer is freed by either. Errors name the path and the system's reason.
 * Example:  FileWriter *w; int status = file_create(path, &w, err);
 *           if (!status) { status = file_write(w, p, n, err); … file_commit(w, err); }
 */
#ifndef ONNXPRESS_TENSOR_FILE_H
#define ONNXPRESS_TENSOR_FILE_H

#include "tensor/error.h"

typedef struct {
    const unsigned char *data; /* NULL when size is 0 */
    size_t size;
    int expanded;              /* the data is in memory of its own, not mapped */
} FileMap;

int file_map(const char *path, FileMap *map, Error *err); /* refuses folders and devices */
void file_unmap(FileMap *map);
/* Lets the system take back the memory behind part of a mapped file; it is read again when touched. */
void file_forget(const FileMap *map, const void *data, size_t bytes);
/* Replaces the map of a zstd file by what it holds; others stay as they are. What a file may expand
 * to is bounded by a multiple of its size. */
int file_expand(const char *path, FileMap *map, Error *err);

typedef struct FileWriter FileWriter;

/* What is written to a path that ends in ".zst" is compressed with zstd. */
int file_create(const char *path, FileWriter **writer, Error *err);
int file_write(FileWriter *writer, const void *data, size_t bytes, Error *err);
/* Two-phase, so that a model and its sidecar appear together: prepare makes the temporary file
 * durable (fsync, close), commit renames it (and prepares it first if nobody has). */
int file_prepare(FileWriter *writer, Error *err);
int file_commit(FileWriter *writer, Error *err);
void file_abort(FileWriter *writer); /* NULL is allowed */

/* In place of file_commit, for what only this process is to read: no file is left, its bytes are
 * mapped. The target is not touched. */
int file_map_written(FileWriter *writer, FileMap *map, Error *err);

/* From here on `other` is prepared, committed (just before) and aborted together with `writer`,
 * which owns it. When a later rename fails, files of the group that were new are removed again. */
void file_attach(FileWriter *writer, FileWriter *other);

/* Removes the temporary files of every writer not yet committed: for a signal handler, which may
 * call nothing else (async-signal-safe). */
void file_remove_temporaries(void);

#endif
