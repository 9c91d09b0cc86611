/* Arena: memory that is freed all at once.
 *
 * Owned by a model or by a run; whoever calls arena_create calls arena_destroy. Blocks are zeroed
 * and aligned to 64 bytes. Sizes are multiplied with overflow checks. NULL means out of memory
 * (or an overflowing size); the caller turns it into an error. Not for use by two threads at once.
 * Example:  float *h = arena_array(arena, n, sizeof *h);  if (!h) return error_memory(err, "...");
 */
#ifndef ONNXPRESS_TENSOR_ARENA_H
#define ONNXPRESS_TENSOR_ARENA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct Arena Arena;

Arena *arena_create(void);
void arena_destroy(Arena *arena); /* NULL is allowed */
void *arena_array(Arena *arena, size_t count, size_t size);
char *arena_strdup(Arena *arena, const char *text);
char *arena_printf(Arena *arena, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Gives the memory behind data that nobody will read again back to the system, as far as it fills
 * whole pages: those of a mapped file are read again when they are touched, others are zeros then. */
void pages_forget(const void *data, size_t bytes);

/* Checked products for sizes that come from a file: false on overflow. */
bool size_mul(size_t a, size_t b, size_t *product);
bool int64_mul(int64_t a, int64_t b, int64_t *product);

#endif
