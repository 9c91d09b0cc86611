/* SPDX-License-Identifier: Apache-2.0 */
#include "tensor/arena.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define ALIGNMENT 64
#define CHUNK_BYTES ((size_t)64 << 10) /* small requests share chunks of this size */
#define FORGET_BYTES ((size_t)256 << 10) /* below it a call of the system costs more than it brings */

typedef struct Chunk {
    struct Chunk *next;
    size_t used, size; /* bytes of the payload, which starts at the first aligned address */
    unsigned char *payload;
} Chunk;

struct Arena {
    Chunk *chunks; /* the head is the one that small requests are cut from */
};

bool size_mul(size_t a, size_t b, size_t *product)
{
    return !__builtin_mul_overflow(a, b, product);
}

bool int64_mul(int64_t a, int64_t b, int64_t *product)
{
    return !__builtin_mul_overflow(a, b, product);
}

Arena *arena_create(void)
{
    return calloc(1, sizeof(Arena));
}

void arena_destroy(Arena *arena)
{
    if (!arena)
        return;
    for (Chunk *chunk = arena->chunks, *next; chunk; chunk = next) {
        next = chunk->next;
        free(chunk);
    }
    free(arena);
}

static Chunk *chunk_create(size_t size)
{
    size_t total;
    if (__builtin_add_overflow(size, sizeof(Chunk) + ALIGNMENT, &total))
        return NULL;
    Chunk *chunk = calloc(1, total);
    if (!chunk)
        return NULL;
    uintptr_t start = (uintptr_t)(chunk + 1);
    chunk->payload = (unsigned char *)((start + ALIGNMENT - 1) & ~(uintptr_t)(ALIGNMENT - 1));
    chunk->size = size;
    return chunk;
}

void pages_forget(const void *data, size_t bytes)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t from = ((uintptr_t)data + page - 1) & ~(page - 1);
    uintptr_t to = ((uintptr_t)data + bytes) & ~(page - 1);
    if (bytes >= FORGET_BYTES && to > from)
        (void)madvise((void *)from, to - from, MADV_DONTNEED);
}

void *arena_array(Arena *arena, size_t count, size_t size)
{
    size_t bytes;
    if (!size_mul(count, size, &bytes) || bytes > SIZE_MAX - ALIGNMENT)
        return NULL;
    bytes = bytes ? (bytes + ALIGNMENT - 1) & ~(size_t)(ALIGNMENT - 1) : ALIGNMENT;
    Chunk *head = arena->chunks;
    if (!head || head->size - head->used < bytes) {
        Chunk *chunk = chunk_create(bytes > CHUNK_BYTES / 4 ? bytes : CHUNK_BYTES);
        if (!chunk)
            return NULL;
        if (head && bytes > CHUNK_BYTES / 4) { /* keep cutting small requests from the old head */
            chunk->next = head->next;
            head->next = chunk;
            chunk->used = bytes;
            return chunk->payload;
        }
        chunk->next = head;
        arena->chunks = head = chunk;
    }
    void *block = head->payload + head->used;
    head->used += bytes;
    return block;
}

char *arena_strdup(Arena *arena, const char *text)
{
    size_t length = strlen(text) + 1;
    char *copy = arena_array(arena, length, 1);
    if (copy)
        memcpy(copy, text, length);
    return copy;
}

char *arena_printf(Arena *arena, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int length = vsnprintf(NULL, 0, format, args);
    va_end(args);
    if (length < 0)
        return NULL;
    char *text = arena_array(arena, (size_t)length + 1, 1);
    if (text) {
        va_start(args, format);
        vsnprintf(text, (size_t)length + 1, format, args);
        va_end(args);
    }
    return text;
}
