/* SPDX-License-Identifier: Apache-2.0 */
#include "autodiff/internal.h"

#include <stdlib.h>

#define ALIGNMENT 64
#define CLASSES 256
#define LARGE_BYTES ((size_t)16 << 20) /* of a weight's gradient: not kept for the next */

/* Under AddressSanitizer every buffer has its exact size and is never reused, so that a kernel that
 * reads or writes past an end is seen. */
#if defined(__SANITIZE_ADDRESS__)
#define EXACT 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define EXACT 1
#endif
#endif
#ifndef EXACT
#define EXACT 0
#endif

struct Buffer {
    Buffer *next; /* in a free list */
    size_t bytes; /* of the payload, which starts ALIGNMENT bytes after this struct's start */
    int class, references;
    bool counted; /* in_use and the limit know of it */
};

struct Pool {
    Buffer *idle[CLASSES];
    size_t limit, in_use, held, peak; /* held: in use and idle */
};

_Static_assert(sizeof(Buffer) <= ALIGNMENT, "the header must fit before the payload");

Pool *pool_create(size_t limit)
{
    Pool *pool = calloc(1, sizeof *pool);
    if (pool)
        pool->limit = limit;
    return pool;
}

static void drop_idle(Pool *pool)
{
    for (int c = 0; c < CLASSES; c++) {
        for (Buffer *buffer = pool->idle[c], *next; buffer; buffer = next) {
            next = buffer->next;
            pool->held -= buffer->bytes;
            free(buffer);
        }
        pool->idle[c] = NULL;
    }
}

void pool_free(Pool *pool)
{
    if (!pool)
        return;
    drop_idle(pool);
    free(pool);
}

/* Classes are 4, 5, 6 and 7 times a power of two: at most a quarter is wasted. */
static int size_class(size_t bytes, size_t *rounded)
{
    int shift = 4;
    while (bytes >> shift > 7 || (((bytes >> shift) == 7) && bytes & (((size_t)1 << shift) - 1)))
        shift++;
    size_t quarters = (bytes + ((size_t)1 << shift) - 1) >> shift;
    if (quarters < 4)
        quarters = 4;
    *rounded = quarters << shift;
    return (shift - 4) * 4 + (int)(quarters - 4);
}

static bool room_for(const Pool *pool, size_t taken, size_t bytes)
{
    return !pool->limit || (taken <= pool->limit && bytes <= pool->limit - taken);
}

Buffer *pool_take(Pool *pool, size_t bytes, bool counted)
{
    size_t rounded;
    if (bytes > SIZE_MAX / 4)
        return NULL;
    int class = size_class(bytes, &rounded);
    if (EXACT)
        rounded = bytes;
    if (counted && !room_for(pool, pool->in_use, rounded))
        return NULL;
    Buffer *buffer = pool->idle[class];
    if (buffer) {
        pool->idle[class] = buffer->next;
    } else {
        if (!room_for(pool, pool->held, rounded))
            drop_idle(pool);
        void *block;
        if (posix_memalign(&block, ALIGNMENT, ALIGNMENT + rounded))
            return NULL;
        buffer = block;
        buffer->bytes = rounded;
        buffer->class = class;
        pool->held += rounded;
    }
    buffer->next = NULL;
    buffer->references = 1;
    buffer->counted = counted;
    if (!counted)
        return buffer;
    pool->in_use += rounded;
    if (pool->in_use > pool->peak)
        pool->peak = pool->in_use;
    return buffer;
}

void *buffer_data(Buffer *buffer)
{
    return (unsigned char *)buffer + ALIGNMENT;
}

void buffer_retain(Buffer *buffer)
{
    buffer->references++;
}

void pool_release(Pool *pool, Buffer *buffer)
{
    if (!buffer || --buffer->references)
        return;
    if (buffer->counted)
        pool->in_use -= buffer->bytes;
    if (EXACT || (!buffer->counted && buffer->bytes >= LARGE_BYTES)) {
        pool->held -= buffer->bytes;
        free(buffer);
        return;
    }
    buffer->next = pool->idle[buffer->class];
    pool->idle[buffer->class] = buffer;
}

void pool_set_limit(Pool *pool, size_t limit)
{
    pool->limit = limit;
}

size_t pool_limit(const Pool *pool)
{
    return pool->limit;
}

size_t pool_peak(const Pool *pool)
{
    return pool->peak;
}
