/* link.c - FT1.2 frames of IEC 60870-5-2 as EN 13757-2 uses them: E5, 10 C A CS 16, 68 L L 68 C A CI data CS 16. */
#include "mbus.h"

#include <string.h>

enum { START_SHORT = 0x10, START_LONG = 0x68, STOP = 0x16, SHORT_SIZE = 5, LONG_EXTRA = 6 };

/* Arithmetic sum modulo 256 over C, A, CI and user data (EN 13757-2, 5.5). */
static uint8_t checksum(const uint8_t *bytes, size_t n)
{
    const uint64_t even = 0x00FF00FF00FF00FFu;
    uint64_t sums = 0, word; /* four sums of 16 bits: 255 bytes can't overflow them */
    unsigned sum;

    for (; n >= sizeof word; n -= sizeof word, bytes += sizeof word) {
        memcpy(&word, bytes, sizeof word);
        sums += (word & even) + (word >> 8 & even);
    }
    sum = (unsigned)(sums + (sums >> 16) + (sums >> 32) + (sums >> 48));
    while (n--)
        sum += *bytes++;
    return (uint8_t)(sum & 0xFFu);
}

/* Says what `n` waiting bytes are: the size of the frame that they begin (0: not known yet), or an error at *offset. */
static int candidate(const uint8_t *bytes, size_t n, size_t *offset)
{
    *offset = 0;
    if (n == 0)
        return 0;
    if (bytes[0] == MBUS_ACK_BYTE)
        return 1;
    if (bytes[0] == START_SHORT)
        return SHORT_SIZE;
    if (bytes[0] != START_LONG)
        return MBUS_E_BAD_START;
    *offset = 1;
    if (n > 1 && bytes[1] < 3)
        return MBUS_E_LENGTH_TOO_SMALL;
    *offset = 2;
    if (n > 2 && bytes[2] != bytes[1])
        return MBUS_E_LENGTH_MISMATCH;
    *offset = 3;
    if (n > 3 && bytes[3] != START_LONG)
        return MBUS_E_BAD_SECOND_START;
    return n > 1 ? bytes[1] + LONG_EXTRA : 0;
}

/* Checks and splits the `size` bytes of a complete candidate. */
static int complete(const uint8_t *bytes, size_t size, mbus_frame *frame, size_t *offset)
{
    size_t first = bytes[0] == START_LONG ? 4 : 1;

    memset(frame, 0, sizeof *frame);
    frame->size = (uint16_t)size;
    if (size == 1) {
        frame->type = MBUS_FRAME_ACK;
        return MBUS_OK;
    }
    *offset = size - 2;
    if (checksum(bytes + first, size - 2 - first) != bytes[size - 2])
        return MBUS_E_BAD_CHECKSUM;
    *offset = size - 1;
    if (bytes[size - 1] != STOP)
        return MBUS_E_BAD_STOP;
    frame->c = bytes[first];
    frame->a = bytes[first + 1];
    if (first == 1) {
        frame->type = MBUS_FRAME_SHORT;
        return MBUS_OK;
    }
    frame->ci = bytes[first + 2];
    frame->length = (uint8_t)(bytes[1] - 3);
    frame->type = frame->length ? MBUS_FRAME_LONG : MBUS_FRAME_CONTROL;
    frame->data = frame->length ? bytes + first + 3 : NULL;
    return MBUS_OK;
}

int mbus_frame_read(const uint8_t *bytes, size_t n, mbus_frame *frame, size_t *offset)
{
    size_t at = 0;
    int size, rc;

    if (n == 0)
        size = MBUS_E_TRUNCATED_FRAME;
    else
        size = candidate(bytes, n, &at);
    if (size >= 0 && (size == 0 || (size_t)size > n)) {
        at = n;
        rc = MBUS_E_TRUNCATED_FRAME;
    } else if (size < 0) {
        rc = size;
    } else {
        rc = complete(bytes, (size_t)size, frame, &at);
        if (rc == MBUS_OK && (size_t)size < n) {
            at = (size_t)size;
            rc = MBUS_E_TRAILING_BYTES;
        }
    }
    if (offset)
        *offset = at;
    return rc;
}

int mbus_frame_write(const mbus_frame *frame, uint8_t *out, size_t capacity)
{
    size_t size = frame->type == MBUS_FRAME_ACK     ? 1
                  : frame->type == MBUS_FRAME_SHORT ? SHORT_SIZE
                                                    : (size_t)frame->length + 3 + LONG_EXTRA;
    uint8_t *p = out;

    if (frame->type != MBUS_FRAME_SHORT && frame->length > MBUS_DATA_MAX)
        return MBUS_E_BAD_VALUE;
    if (size > capacity)
        return MBUS_E_NO_SPACE;
    if (frame->type == MBUS_FRAME_ACK) {
        *p = MBUS_ACK_BYTE;
        return 1;
    }
    if (frame->type == MBUS_FRAME_SHORT) {
        *p++ = START_SHORT;
    } else {
        *p++ = START_LONG;
        *p++ = (uint8_t)(frame->length + 3);
        *p++ = (uint8_t)(frame->length + 3);
        *p++ = START_LONG;
    }
    *p++ = frame->c;
    *p++ = frame->a;
    if (frame->type != MBUS_FRAME_SHORT) {
        *p++ = frame->ci;
        if (frame->length)
            memcpy(p, frame->data, frame->length);
        p += frame->length;
    }
    *p = checksum(out + (frame->type == MBUS_FRAME_SHORT ? 1 : 4), size - 2 - (frame->type == MBUS_FRAME_SHORT ? 1 : 4));
    p[1] = STOP;
    return (int)size;
}

/* Removes what the last call reported. */
static void forget(mbus_deframer *d)
{
    if (d->done) {
        d->have = (uint16_t)(d->have - d->done);
        memmove(d->buffer, d->buffer + d->done, d->have);
        d->done = 0;
    }
}

/* Looks at the waiting bytes alone. */
static mbus_event examine(mbus_deframer *d, mbus_frame *frame)
{
    size_t at;
    int size;

    if (d->have == 0)
        return MBUS_MORE;
    size = candidate(d->buffer, d->have, &at);
    if (size >= 0 && (size == 0 || size > (int)d->have))
        return MBUS_MORE;
    if (size > 0 && complete(d->buffer, (size_t)size, frame, &at) == MBUS_OK) {
        d->done = (uint16_t)size;
        return MBUS_FRAME;
    }
    d->done = 1;
    return MBUS_NOISE;
}

mbus_event mbus_deframe(mbus_deframer *d, const uint8_t **bytes, const uint8_t *end, mbus_frame *frame)
{
    mbus_event event;

    forget(d);
    /* One byte at a time until a frame's size is sure: what is reported depends on the bytes, not on their cuts. */
    while ((event = examine(d, frame)) == MBUS_MORE && *bytes != end) {
        size_t n = d->have >= 4 ? (size_t)(mbus_deframe_needs(d) - d->have) : 1;
        if (n > (size_t)(end - *bytes))
            n = (size_t)(end - *bytes);
        memcpy(d->buffer + d->have, *bytes, n);
        d->have = (uint16_t)(d->have + n);
        *bytes += n;
    }
    return event;
}

mbus_event mbus_deframe_end(mbus_deframer *d, mbus_frame *frame)
{
    mbus_event event;

    forget(d);
    event = examine(d, frame);
    if (event == MBUS_MORE && d->have) {
        d->done = 1;
        event = MBUS_NOISE;
    }
    return event;
}

unsigned mbus_deframe_needs(const mbus_deframer *d)
{
    size_t at;
    int size = candidate(d->buffer + d->done, (size_t)(d->have - d->done), &at);
    return size > 0 ? (unsigned)size : 0;
}
