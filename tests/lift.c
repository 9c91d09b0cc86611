/* SPDX-License-Identifier: Apache-2.0
 *
 * lift MODEL OUTPUT...: lifts each MODEL to opset 11 as OUTPUT, one line a model: "lifted" or
 * "refused: why". For tests/test_lift.py. */
#include <stdio.h>

#include "rewrite/rewrite.h"

int main(int argc, char **argv)
{
    for (int k = 1; k + 1 < argc; k += 2) {
        Model *model = NULL;
        Error err = {0};
        int status = model_load(argv[k], &model, &err);
        if (!status)
            status = rewrite_lift(model, &err);
        if (!status)
            status = model_save(model, argv[k + 1], &err);
        model_free(model);
        if (status)
            printf("refused: %s\n", err.message);
        else
            printf("lifted\n");
    }
    return 0;
}
