/* SPDX-License-Identifier: Apache-2.0 */
#include "ops/product_internal.h"

#include <stdbool.h>
#include <string.h>

/* Whole loops over a tile's sums: those must be registers. */
#define UNROLL _Pragma("GCC unroll 8")

typedef real Quarter __attribute__((vector_size(16)));

/* What every processor of the kind has: 16 registers of 16 bytes, or 32 on arm64. */
#define NAME(x) x##_plain
#define TARGET
#define WIDTH 16
#if defined(__aarch64__)
#define ROWS 6
#define VECTORS 4
#define DOT_ROWS 4
#define DOT_TAPS 6
#else
#define ROWS 4
#define VECTORS 2
#define DOT_ROWS 3
#define DOT_TAPS 3
#endif
#include "ops/product_template.h"

#if defined(__x86_64__)
#define NAME(x) x##_avx2
#define TARGET __attribute__((target("avx2,fma")))
#define WIDTH 32
#define ROWS 6
#define VECTORS 2
#define DOT_ROWS 3
#define DOT_TAPS 4
#include "ops/product_template.h"

#define NAME(x) x##_avx512
#define TARGET __attribute__((target("avx512f,fma")))
#define WIDTH 64
#define ROWS 6
#define VECTORS 4
#define DOT_ROWS 4
#define DOT_TAPS 6
#include "ops/product_template.h"
#endif

void product_rows(const RowsProduct *product)
{
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f"))
        rows_avx512(product);
    else if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        rows_avx2(product);
    else
#endif
        rows_plain(product);
}

void product_dots(const DotsProduct *product)
{
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f"))
        dots_avx512(product);
    else if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        dots_avx2(product);
    else
#endif
        dots_plain(product);
}
