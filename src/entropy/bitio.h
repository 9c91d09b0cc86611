/* Bits into and out of bytes, most significant bit first.
 *
 * A BitWriter owns nothing: the caller made `out` large enough for all bits it will put, and calls
 * bits_flush once, which pads the last byte with zeros. Reading is random access: bit_at has no
 * bounds check of its own, its caller has compared the bit count with the bytes.
 */
#ifndef ONNXPRESS_ENTROPY_BITIO_H
#define ONNXPRESS_ENTROPY_BITIO_H

#include <stddef.h>
#include <stdint.h>

typedef struct {
    uint8_t *out;     /* next byte to write */
    uint64_t pending; /* the low `n` bits are not yet written */
    int n;            /* always < 8 between calls */
} BitWriter;

/* Appends the low `length` bits of code, length <= 32. */
static inline void bits_put(BitWriter *writer, uint32_t code, int length)
{
    writer->pending = writer->pending << length | code;
    writer->n += length;
    while (writer->n >= 8) {
        writer->n -= 8;
        *writer->out++ = (uint8_t)(writer->pending >> writer->n);
    }
}

static inline void bits_flush(BitWriter *writer)
{
    if (writer->n > 0)
        *writer->out++ = (uint8_t)(writer->pending << (8 - writer->n));
    writer->n = 0;
}

static inline unsigned bit_at(const uint8_t *stream, uint64_t position)
{
    return (unsigned)stream[position >> 3] >> (7 - (position & 7)) & 1u;
}

#endif
