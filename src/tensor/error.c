/* SPDX-License-Identifier: Apache-2.0 */
#include "tensor/error.h"

#include <stdarg.h>
#include <stdio.h>

/* Length of the UTF-8 character at c, 0 when there is none. */
static int utf8_length(const unsigned char *c)
{
    int length = c[0] < 0x80 ? 1 : c[0] < 0xc2 ? 0 : c[0] < 0xe0 ? 2 : c[0] < 0xf0 ? 3 : c[0] < 0xf5 ? 4 : 0;
    for (int i = 1; i < length; i++)
        if ((c[i] & 0xc0) != 0x80)
            return 0;
    return length;
}

/* A name taken from a hostile file must not break the line or the terminal. */
static void make_printable(char *text)
{
    for (unsigned char *c = (unsigned char *)text; *c;) {
        int length = utf8_length(c);
        if (length == 0 || *c < 0x20 || *c == 0x7f)
            *c = '?';
        c += length > 0 ? length : 1;
    }
}

int error_set(Error *err, OnnxPressStatus code, const char *format, ...)
{
    if (err && err->code == ONNXPRESS_OK) {
        va_list args;
        va_start(args, format);
        vsnprintf(err->message, sizeof err->message, format, args);
        va_end(args);
        err->code = code;
        make_printable(err->message);
    }
    return (int)code;
}

int error_memory(Error *err, const char *what)
{
    return error_set(err, ONNXPRESS_MEMORY, "out of memory for %s", what);
}
