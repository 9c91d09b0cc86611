/* SPDX-License-Identifier: Apache-2.0 */
#include "finetune/finetune_internal.h"

#include <string.h>

/* The finaliser of splitmix64: every input bit reaches every output bit. */
static uint64_t mix(uint64_t x)
{
    x += UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

uint64_t random_hash(uint64_t a, uint64_t b, uint64_t c)
{
    return mix(mix(mix(a) ^ b) ^ c);
}

/* 0..n-1; the bias of the modulus is below n / 2^64. */
static int64_t draw(uint64_t random, int64_t n)
{
    return (int64_t)(random % (uint64_t)n);
}

void shuffle(int64_t *index, int64_t n, uint64_t seed, int64_t epoch)
{
    for (int64_t i = n - 1; i > 0; i--) {
        int64_t j = draw(random_hash(seed, (uint64_t)epoch, (uint64_t)i), i + 1), kept = index[i];
        index[i] = index[j];
        index[j] = kept;
    }
}

/* Moves a plane down by dy and right by dx. */
static void shift_plane(real *plane, int64_t height, int64_t width, int64_t dy, int64_t dx)
{
    int64_t from = dx < 0 ? -dx : 0, to = dx > 0 ? dx : 0;
    int64_t n = width - from - to > 0 ? width - from - to : 0;
    to = to < width ? to : width;
    for (int64_t k = 0; k < height; k++) {
        /* Rows are taken from the side that they move to, before they are written over. */
        int64_t y = dy > 0 ? height - 1 - k : k, source = y - dy;
        real *row = plane + y * width;
        if (source < 0 || source >= height || n == 0) {
            memset(row, 0, (size_t)width * sizeof *row);
            continue;
        }
        memmove(row + to, plane + source * width + from, (size_t)n * sizeof *row);
        memset(row, 0, (size_t)to * sizeof *row);
        memset(row + to + n, 0, (size_t)(width - to - n) * sizeof *row);
    }
}

static void mirror_plane(real *plane, int64_t height, int64_t width)
{
    for (real *row = plane; row < plane + height * width; row += width)
        for (int64_t a = 0, b = width - 1; a < b; a++, b--) {
            real kept = row[a];
            row[a] = row[b];
            row[b] = kept;
        }
}

void augment(Value *image, const int64_t *sample, int64_t n, int pixels, bool flip, uint64_t seed,
             int64_t epoch)
{
    if (!image->r || image->shape.rank != 4 || image->shape.dim[0] != n || (!pixels && !flip))
        return;
    int64_t channels = image->shape.dim[1], height = image->shape.dim[2],
            width = image->shape.dim[3];
    for (int64_t j = 0; j < n; j++) {
        uint64_t random = random_hash(~seed, (uint64_t)epoch, (uint64_t)sample[j]);
        bool mirrored = flip && (random & 1);
        int64_t dy = draw(random >> 1 & 0x7fffffff, 2 * pixels + 1) - pixels;
        int64_t dx = draw(random >> 32, 2 * pixels + 1) - pixels;
        for (int64_t c = 0; c < channels; c++) {
            real *plane = image->r + (j * channels + c) * height * width;
            if (dy || dx)
                shift_plane(plane, height, width, dy, dx);
            if (mirrored)
                mirror_plane(plane, height, width);
        }
    }
}
