/* Small models written from C, for tests: everything lives in one arena, and a failing step fails
 * the current Check test. Example:
 *   Tiny *t = tiny_create(17);
 *   tiny_input(t, "x", DTYPE_FLOAT, "[-1,4]");  tiny_reals(t, "w", "[3,4]", NULL);
 *   tiny_node(t, "Gemm", "x w", "y", "transB=1");  tiny_output(t, "y");
 *   Model *model = tiny_load(t);  … model_free(model);  tiny_free(t);
 */
#ifndef ONNXPRESS_TESTS_TINY_MODEL_H
#define ONNXPRESS_TESTS_TINY_MODEL_H

#include "model/model.h"

typedef struct Tiny Tiny;

Tiny *tiny_create(int64_t opset);
void tiny_free(Tiny *tiny);
/* Shapes are "[a,b]"; -1 is a free axis. */
void tiny_input(Tiny *tiny, const char *name, int dtype, const char *shape);
void tiny_output(Tiny *tiny, const char *name);
/* Initializers; values NULL: fixed random numbers in (-1, 1). */
void tiny_reals(Tiny *tiny, const char *name, const char *shape, const float *values);
void tiny_integers(Tiny *tiny, const char *name, const char *shape, const int64_t *values);
/* Names and attributes are separated by spaces; "-" is an omitted input. An attribute is a number,
 * [a list] or a word: "axis=1 perm=[1,0] mode=edge alpha=0.5". The node is named after its first
 * output, with "n_" before it. */
void tiny_node(Tiny *tiny, const char *type, const char *inputs, const char *outputs,
               const char *attributes);
/* The initializer becomes the tensor of a Constant node of the same name. */
void tiny_make_constant_node(Tiny *tiny, const char *name);
Model *tiny_load(Tiny *tiny); /* through a temporary file */

#endif
