/* SPDX-License-Identifier: Apache-2.0 */
#include "tensor/compressed.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tensor/arena.h"

#define BUFFER_BYTES ((size_t)256 << 10)
#define MAX_WRITERS 32    /* open at once in a process */
#define MAX_BASE_NAME 200 /* of the target's name that the temporary's name repeats */
#define NAME_TRIES 100

/* The one piece of global state: a signal handler gets no argument, so the temporary files that it
 * has to remove must be found from a fixed place, without locks and without allocation. A slot goes
 * FREE -> BUSY -> LIVE -> FREE; a handler takes LIVE -> BUSY and never gives the slot back, since
 * the process is about to end. */
enum { SLOT_FREE, SLOT_BUSY, SLOT_LIVE };
static struct {
    atomic_int state;
    char path[PATH_MAX];
} temporaries[MAX_WRITERS];

struct FileWriter {
    char *target;
    int slot;     /* of temporaries: holds the temporary file's path */
    int fd;       /* -1 once prepared */
    bool existed; /* the target was there when the writer was made */
    FileWriter *attached;
    Packer *packer; /* NULL: written as it is */
    size_t used;
    unsigned char buffer[BUFFER_BYTES];
};

int file_map(const char *path, FileMap *map, Error *err)
{
    *map = (FileMap){0};
    int status = ONNXPRESS_OK;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a FIFO must not block us */
    struct stat info;
    if (fd < 0 || fstat(fd, &info) != 0) {
        status = error_set(err, ONNXPRESS_IO, "%s: cannot be read: %s", path, strerror(errno));
    } else if (!S_ISREG(info.st_mode)) {
        status = error_set(err, ONNXPRESS_IO, "%s: is %s, a file is needed", path,
                           S_ISDIR(info.st_mode) ? "a folder" : "not a regular file");
    } else if (info.st_size > 0) {
        void *data = mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (data == MAP_FAILED)
            status =
                error_set(err, ONNXPRESS_IO, "%s: cannot be mapped: %s", path, strerror(errno));
        else
            *map = (FileMap){data, (size_t)info.st_size, 0};
    }
    if (fd >= 0)
        close(fd);
    return status;
}

void file_unmap(FileMap *map)
{
    if (map->expanded)
        free((void *)(uintptr_t)map->data);
    else if (map->data)
        munmap((void *)(uintptr_t)map->data, map->size);
    *map = (FileMap){0};
}

void file_forget(const FileMap *map, const void *data, size_t bytes)
{
    if (!map->expanded)
        pages_forget(data, bytes);
}

static int slot_claim(void)
{
    for (int i = 0; i < MAX_WRITERS; i++) {
        int expected = SLOT_FREE;
        if (atomic_compare_exchange_strong(&temporaries[i].state, &expected, SLOT_BUSY))
            return i;
    }
    return -1;
}

/* Fails, as it should, when a signal handler has taken the slot meanwhile. */
static void slot_release(int slot)
{
    int expected = SLOT_LIVE;
    atomic_compare_exchange_strong(&temporaries[slot].state, &expected, SLOT_FREE);
}

void file_remove_temporaries(void)
{
    int saved = errno;
    for (int i = 0; i < MAX_WRITERS; i++) {
        int expected = SLOT_LIVE;
        if (atomic_compare_exchange_strong(&temporaries[i].state, &expected, SLOT_BUSY))
            unlink(temporaries[i].path);
    }
    errno = saved;
}

/* Opens a new file beside the target, under a name that nothing else has; the kernel applies the
 * umask, which mkstemp would not. */
static int open_temporary(const char *target, char *path, size_t size)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyz0123456789";
    const char *slash = strrchr(target, '/');
    const char *base = slash ? slash + 1 : target;
    int folder = slash ? (int)(slash + 1 - target) : 0;
    for (int attempt = 0; attempt < NAME_TRIES; attempt++) {
        unsigned char random[6];
        char suffix[sizeof random + 1] = {0};
        if (getrandom(random, sizeof random, 0) != (ssize_t)sizeof random)
            return -1;
        for (size_t i = 0; i < sizeof random; i++)
            suffix[i] = letters[random[i] % (sizeof letters - 1)];
        int length =
            snprintf(path, size, "%.*s.%.*s.%s.tmp", folder, target, MAX_BASE_NAME, base, suffix);
        if (length < 0 || (size_t)length >= size) {
            errno = ENAMETOOLONG;
            return -1;
        }
        int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (fd >= 0 || errno != EEXIST)
            return fd;
    }
    return -1;
}

int file_create(const char *path, FileWriter **writer, Error *err)
{
    *writer = NULL;
    size_t length = strlen(path);
    struct stat info;
    bool existed = stat(path, &info) == 0;
    if (length == 0 || path[length - 1] == '/' || (existed && S_ISDIR(info.st_mode)))
        return error_set(err, ONNXPRESS_IO, "%s: cannot be written: is a folder, name a file in it",
                         length ? path : "(empty path)");
    if (existed && !S_ISREG(info.st_mode))
        return error_set(err, ONNXPRESS_IO, "%s: cannot be written: is not a regular file", path);

    FileWriter *w = malloc(sizeof *w);
    char *target = strdup(path);
    bool packs = path_is_compressed(path);
    Packer *packer = packs ? packer_create() : NULL;
    int slot = w && target && (packer || !packs) ? slot_claim() : -1;
    int status;
    if (!w || !target || (packs && !packer)) {
        status = error_memory(err, "writing a file");
        goto fail;
    }
    if (slot < 0) {
        status = error_set(err, ONNXPRESS_MEMORY, "%s: more than %d files are being written", path,
                           MAX_WRITERS);
        goto fail;
    }
    int fd = open_temporary(path, temporaries[slot].path, sizeof temporaries[slot].path);
    if (fd < 0) {
        status = error_set(err, ONNXPRESS_IO,
                           "%s: cannot be written: no new file can be made in its folder: %s", path,
                           strerror(errno));
        atomic_store(&temporaries[slot].state, SLOT_FREE);
        goto fail;
    }
    atomic_store(&temporaries[slot].state, SLOT_LIVE);
    w->target = target;
    w->slot = slot;
    w->fd = fd;
    w->existed = existed;
    w->attached = NULL;
    w->packer = packer;
    w->used = 0;
    *writer = w;
    return ONNXPRESS_OK;
fail:
    packer_free(packer);
    free(target);
    free(w);
    return status;
}

static int write_failed(const FileWriter *writer, Error *err)
{
    return error_set(err, ONNXPRESS_IO, "%s: cannot be written: %s", writer->target,
                     strerror(errno));
}

static int write_raw(void *context, const unsigned char *data, size_t bytes, Error *err)
{
    FileWriter *writer = context;
    while (bytes > 0) {
        ssize_t written = write(writer->fd, data, bytes);
        if (written < 0 && errno == EINTR)
            continue;
        if (written < 0)
            return write_failed(writer, err);
        data += written;
        bytes -= (size_t)written;
    }
    return ONNXPRESS_OK;
}

static int write_all(FileWriter *writer, const unsigned char *data, size_t bytes, Error *err)
{
    if (writer->packer)
        return packer_put(writer->packer, data, bytes, false, write_raw, writer, err);
    return write_raw(writer, data, bytes, err);
}

static int flush(FileWriter *writer, Error *err)
{
    size_t used = writer->used;
    writer->used = 0;
    return write_all(writer, writer->buffer, used, err);
}

int file_write(FileWriter *writer, const void *data, size_t bytes, Error *err)
{
    if (bytes > BUFFER_BYTES - writer->used) {
        int status = flush(writer, err);
        if (status)
            return status;
        if (bytes >= BUFFER_BYTES)
            return write_all(writer, data, bytes, err);
    }
    if (bytes > 0)
        memcpy(writer->buffer + writer->used, data, bytes);
    writer->used += bytes;
    return ONNXPRESS_OK;
}

void file_attach(FileWriter *writer, FileWriter *other)
{
    FileWriter **end = &writer->attached;
    while (*end)
        end = &(*end)->attached;
    *end = other;
}

static int prepare_one(FileWriter *writer, Error *err)
{
    if (writer->fd < 0)
        return ONNXPRESS_OK;
    int status = flush(writer, err);
    if (!status && writer->packer)
        status = packer_put(writer->packer, NULL, 0, true, write_raw, writer, err);
    if (!status && fsync(writer->fd) != 0)
        status = write_failed(writer, err);
    if (close(writer->fd) != 0 && !status)
        status = write_failed(writer, err);
    writer->fd = -1;
    return status;
}

int file_prepare(FileWriter *writer, Error *err)
{
    int status = ONNXPRESS_OK;
    for (FileWriter *w = writer; w && !status; w = w->attached)
        status = prepare_one(w, err);
    return status;
}

/* So that the rename itself survives a power cut; a file system that cannot do it is no error. */
static void sync_folder(const char *target)
{
    const char *slash = strrchr(target, '/');
    char *folder = slash ? strndup(target, (size_t)(slash + 1 - target)) : strdup(".");
    int fd = folder ? open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    if (fd >= 0) {
        (void)fsync(fd);
        close(fd);
    }
    free(folder);
}

static void writer_free(FileWriter *writer)
{
    if (writer->fd >= 0)
        close(writer->fd);
    packer_free(writer->packer);
    free(writer->target);
    free(writer);
}

/* The attached files first: who finds the main file finds all. */
static int commit_chain(FileWriter *writer, Error *err)
{
    if (writer->attached) {
        int status = commit_chain(writer->attached, err);
        if (status)
            return status;
    }
    if (rename(temporaries[writer->slot].path, writer->target) != 0) {
        int status = error_set(err, ONNXPRESS_IO, "%s: cannot be put in place: %s", writer->target,
                               strerror(errno));
        for (FileWriter *w = writer->attached; w; w = w->attached)
            if (!w->existed)
                unlink(w->target);
        return status;
    }
    slot_release(writer->slot);
    writer->slot = -1;
    sync_folder(writer->target);
    return ONNXPRESS_OK;
}

int file_commit(FileWriter *writer, Error *err)
{
    int status = file_prepare(writer, err);
    if (!status)
        status = commit_chain(writer, err);
    file_abort(writer); /* what is committed has no temporary left to remove */
    return status;
}

int file_map_written(FileWriter *writer, FileMap *map, Error *err)
{
    *map = (FileMap){0};
    int status = flush(writer, err);
    if (!status)
        status = file_map(temporaries[writer->slot].path, map, err);
    file_abort(writer);
    return status;
}

void file_abort(FileWriter *writer)
{
    for (FileWriter *next; writer; writer = next) {
        next = writer->attached;
        if (writer->slot >= 0) {
            unlink(temporaries[writer->slot].path);
            slot_release(writer->slot);
        }
        writer_free(writer);
    }
}
