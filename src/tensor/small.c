/* SPDX-License-Identifier: Apache-2.0 */
#include "tensor/small.h"

#include <math.h>

#include "tensor/tensor.h"

/* A type's bits: of the element, of its fraction (floats), and the bias of its exponent. */
typedef struct {
    int bits, fraction, bias;
    bool is_signed; /* integers */
    double largest; /* floats: finite */
    enum { NO_NAN, TOP_NAN, ZERO_NAN, INFINITE } special; /* how NaN is written, and infinity */
} Small;

static const Small smalls[] = {
    [DTYPE_FLOAT8E4M3FN] = {8, 3, 7, true, 448, TOP_NAN},
    [DTYPE_FLOAT8E4M3FNUZ] = {8, 3, 8, true, 240, ZERO_NAN},
    [DTYPE_FLOAT8E5M2] = {8, 2, 15, true, 57344, INFINITE},
    [DTYPE_FLOAT8E5M2FNUZ] = {8, 2, 16, true, 57344, ZERO_NAN},
    [DTYPE_UINT4] = {4, 0, 0, false, 0, NO_NAN},
    [DTYPE_INT4] = {4, 0, 0, true, 0, NO_NAN},
    [DTYPE_FLOAT4E2M1] = {4, 1, 1, true, 6, NO_NAN},
    [DTYPE_FLOAT8E8M0] = {8, 0, 127, false, 0x1p127, TOP_NAN},
    [DTYPE_UINT2] = {2, 0, 0, false, 0, NO_NAN},
    [DTYPE_INT2] = {2, 0, 0, true, 0, NO_NAN},
};

bool small_known(int dtype)
{
    return dtype >= 0 && dtype < (int)(sizeof smalls / sizeof smalls[0]) && smalls[dtype].bits;
}

static double float_of(const Small *s, unsigned code)
{
    unsigned magnitude = code & 0x7fu, exponent, fraction;
    if (s->bits == 4)
        magnitude = code & 7u;
    bool negative = code != magnitude;
    exponent = magnitude >> s->fraction;
    fraction = magnitude & ((1u << s->fraction) - 1);
    if (s->special == ZERO_NAN && negative && !magnitude)
        return (double)NAN;
    if (s->special == TOP_NAN && magnitude == 0x7f)
        return (double)NAN;
    if (s->special == INFINITE && exponent == 31)
        return fraction ? (double)NAN : negative ? -INFINITY : INFINITY;
    double value = exponent ? ldexp(fraction + (1u << s->fraction), (int)exponent - 1)
                            : (double)fraction;
    value = ldexp(value, 1 - s->bias - s->fraction);
    return negative ? -value : value;
}

double small_read(int dtype, const void *data, int64_t i)
{
    const Small *s = &smalls[dtype];
    int64_t a_byte = 8 / s->bits;
    unsigned byte = ((const unsigned char *)data)[i / a_byte];
    unsigned code = byte >> (unsigned)(i % a_byte * s->bits) & ((1u << s->bits) - 1);
    if (dtype == DTYPE_FLOAT8E8M0)
        return code == 255 ? (double)NAN : ldexp(1, (int)code - s->bias);
    if (s->largest > 0)
        return float_of(s, code);
    return s->is_signed && code >> (s->bits - 1) ? (double)code - (1 << s->bits) : (double)code;
}

double small_round(int dtype, double x, bool saturate)
{
    const Small *s = &smalls[dtype];
    double past = s->special == INFINITE ? INFINITY : (double)NAN;
    if (isnan(x))
        return s->special == NO_NAN ? 0 : x;
    if (isinf(x))
        return copysign(saturate || s->special == NO_NAN ? s->largest : past, x);
    int exponent = x != 0 ? ilogb(x) : 0;
    exponent = exponent < 1 - s->bias ? 1 - s->bias : exponent;
    double step = ldexp(1, exponent - s->fraction), rounded = rint(x / step) * step;
    if (fabs(rounded) <= s->largest)
        return rounded;
    return copysign(saturate || s->special == NO_NAN ? s->largest : past, x);
}
