/* Draws: random bits that depend on nothing but where they are used.
 *
 * A key is made of its parts, one hash_step each: hash_step(hash_step(0, seed), sample). Nothing is
 * stored, nothing fails.
 */
#ifndef ONNXPRESS_AUTODIFF_DRAWS_H
#define ONNXPRESS_AUTODIFF_DRAWS_H

#include <stdint.h>

/* The finaliser of a 64-bit multiplicative generator, applied between the parts of the key. */
static inline uint64_t hash_step(uint64_t h, uint64_t part)
{
    h += (part + 1) * 0x9E3779B97F4A7C15u;
    h = (h ^ (h >> 30)) * 0xBF58476D1CE4E5B9u;
    h = (h ^ (h >> 27)) * 0x94D049BB133111EBu;
    return h ^ (h >> 31);
}

static inline double sign_of(uint64_t key, int64_t index)
{
    uint64_t bits = hash_step(key, (uint64_t)index / 64);
    return bits >> ((uint64_t)index % 64) & 1 ? 1.0 : -1.0;
}

#endif
