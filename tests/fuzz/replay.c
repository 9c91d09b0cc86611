/* SPDX-License-Identifier: Apache-2.0
 *
 * A fuzz target as an ordinary program: TARGET FILE|FOLDER… runs it on each file (a folder's in the
 * order of their names), TARGET alone on what comes from stdin, which is how AFL++ calls it. Prints
 * each name before it is run, so that the last one of a crash is the culprit. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "fuzz/fuzz.h"

/* CPU seconds that an input may take, under sanitizers on a slow machine. */
#define MOST_SECONDS 20.0

static int failed(const char *path)
{
    perror(path);
    return 1;
}

static int replay_stream(FILE *file, const char *name)
{
    size_t size = 0, room = 1 << 16, got;
    uint8_t *data = malloc(room);
    while (data && (got = fread(data + size, 1, room - size, file)) > 0)
        if ((size += got) == room)
            data = realloc(data, room *= 2);
    /* A block of exactly its size, so that a read past the end is seen. */
    uint8_t *exact = data ? malloc(size ? size : 1) : NULL;
    if (!exact || ferror(file)) {
        free(data);
        return failed(name);
    }
    memcpy(exact, data, size);
    free(data);
    clock_t start = clock();
    LLVMFuzzerTestOneInput(exact, size);
    free(exact);
    double seconds = (double)(clock() - start) / CLOCKS_PER_SEC;
    if (seconds > MOST_SECONDS) {
        fprintf(stderr, "%s: takes %.1f s\n", name, seconds);
        return 1;
    }
    return 0;
}

static int replay_file(const char *path)
{
    FILE *file = fopen(path, "rb");
    if (!file)
        return failed(path);
    printf("%s\n", path);
    fflush(stdout);
    int status = replay_stream(file, path);
    fclose(file);
    return status;
}

static int replay_folder(const char *path, int *replayed)
{
    struct dirent **entries;
    int n = scandir(path, &entries, NULL, alphasort), status = 0;
    if (n < 0)
        return failed(path);
    for (int k = 0; k < n; k++) {
        char name[4096];
        snprintf(name, sizeof name, "%s/%s", path, entries[k]->d_name);
        if (!status && *entries[k]->d_name != '.') {
            status = replay_file(name);
            ++*replayed;
        }
        free(entries[k]);
    }
    free(entries);
    return status;
}

int main(int argc, char **argv)
{
    int status = 0, replayed = 0;
    if (argc == 1)
        return replay_stream(stdin, "stdin");
    for (int k = 1; k < argc && !status; k++) {
        struct stat info;
        if (stat(argv[k], &info) != 0)
            return failed(argv[k]);
        if (S_ISDIR(info.st_mode)) {
            status = replay_folder(argv[k], &replayed);
        } else {
            status = replay_file(argv[k]);
            replayed++;
        }
    }
    if (!status && !replayed) {
        fprintf(stderr, "there is nothing to replay\n");
        return 1;
    }
    return status;
}
