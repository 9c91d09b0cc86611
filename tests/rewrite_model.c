/* SPDX-License-Identifier: Apache-2.0
 *
 * rewrite_model lift|fold|shorten MODEL OUTPUT...: rewrites each MODEL as OUTPUT, one line a model:
 * "done", with a number where things are counted, or "refused: why". For tests/test_lift.py and
 * tests/test_small_graph.py. */
#include <stdio.h>
#include <string.h>

#include "rewrite/rewrite.h"

static int rewrite(Model *model, const char *how, int *count, Error *err)
{
    if (strcmp(how, "lift") == 0)
        return rewrite_lift(model, err);
    if (strcmp(how, "fold") == 0)
        return rewrite_fold(model, count, err);
    return rewrite_shorten(model, NULL, 0, err);
}

int main(int argc, char **argv)
{
    for (int k = 2; k + 1 < argc; k += 2) {
        Model *model = NULL;
        Error err = {0};
        int count = 0, status = model_load(argv[k], &model, &err);
        if (!status)
            status = rewrite(model, argv[1], &count, &err);
        if (!status)
            status = model_save(model, argv[k + 1], &err);
        model_free(model);
        if (status)
            printf("refused: %s\n", err.message);
        else
            printf("done %d\n", count);
    }
    return 0;
}
