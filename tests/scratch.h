/* A scratch folder for a test: scratch_make before, scratch_remove after (as fixtures). Needs
 * _GNU_SOURCE before the first header. */
#ifndef ONNXPRESS_TESTS_SCRATCH_H
#define ONNXPRESS_TESTS_SCRATCH_H

#include <dirent.h>
#include <ftw.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char scratch[256];

static inline void scratch_make(void)
{
    const char *base = getenv("TMPDIR");
    snprintf(scratch, sizeof scratch, "%s/onnxpress.XXXXXX", base && *base ? base : "/tmp");
    if (!mkdtemp(scratch)) {
        perror(scratch);
        exit(1);
    }
}

static inline int scratch_unlink(const char *path, const struct stat *info, int type,
                                 struct FTW *ftw)
{
    (void)info, (void)type, (void)ftw;
    return remove(path);
}

static inline void scratch_remove(void)
{
    nftw(scratch, scratch_unlink, 16, FTW_DEPTH | FTW_PHYS);
}

/* A path in the folder; eight of them are valid at a time. */
static inline __attribute__((format(printf, 1, 2))) const char *scratch_path(const char *format,
                                                                             ...)
{
    static char paths[8][512];
    static unsigned next;
    char name[200];
    va_list args;
    va_start(args, format);
    vsnprintf(name, sizeof name, format, args);
    va_end(args);
    char *path = paths[next++ % 8];
    snprintf(path, sizeof paths[0], "%s/%s", scratch, name);
    return path;
}

static inline void scratch_write(const char *path, const void *data, size_t bytes)
{
    FILE *file = fopen(path, "wb");
    if (!file || fwrite(data, 1, bytes, file) != bytes || fclose(file) != 0) {
        perror(path);
        exit(1);
    }
}

/* The whole file, malloc'ed, with a NUL behind. */
static inline char *scratch_read(const char *path, size_t *bytes)
{
    FILE *file = fopen(path, "rb");
    if (!file) {
        perror(path);
        exit(1);
    }
    fseek(file, 0, SEEK_END);
    size_t size = (size_t)ftell(file);
    rewind(file);
    char *data = malloc(size + 1);
    if (!data || fread(data, 1, size, file) != size)
        exit(1);
    data[size] = '\0';
    fclose(file);
    if (bytes)
        *bytes = size;
    return data;
}

/* Entries of the scratch folder. */
static inline int scratch_count(void)
{
    DIR *folder = opendir(scratch);
    int count = -2; /* . and .. */
    while (folder && readdir(folder))
        count++;
    closedir(folder);
    return count;
}

#endif
