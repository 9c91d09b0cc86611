/* SPDX-License-Identifier: Apache-2.0 */
/* Loads and saves: roundtrip LIST, a text file with two lines a model (source, target). One line a
 * failure on stderr; the exit status says whether there was any. Driven by test_roundtrip.py. */
#include <stdio.h>
#include <string.h>

#include "model/graph.h"

static int roundtrip(const char *source, const char *target, Error *err)
{
    Model *model;
    int status = model_load(source, &model, err);
    if (!status) {
        Graph *graph; /* every real model has a valid graph, so this must pass too */
        status = graph_build(model, model->arena, &graph, err);
    }
    if (!status)
        status = model_save(model, target, err);
    model_free(model);
    return status;
}

int main(int argc, char **argv)
{
    static char source[4096], target[4096];
    FILE *list = argc == 2 ? fopen(argv[1], "r") : NULL;
    if (!list) {
        fprintf(stderr, "usage: roundtrip LIST\n");
        return 2;
    }
    int failures = 0;
    while (fgets(source, sizeof source, list) && fgets(target, sizeof target, list)) {
        source[strcspn(source, "\n")] = '\0';
        target[strcspn(target, "\n")] = '\0';
        Error err = {0};
        if (roundtrip(source, target, &err)) {
            fprintf(stderr, "%s: %s\n", source, err.message);
            failures++;
        }
    }
    fclose(list);
    return failures > 0;
}
