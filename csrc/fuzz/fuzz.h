/* fuzz.h - what the fuzz targets share. A target is one LLVMFuzzerTestOneInput: libFuzzer, or main.c, calls it. */
#ifndef MBUS_FUZZ_H
#define MBUS_FUZZ_H

#include "../core/mbus.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

/* A broken promise ends the process, which is how a fuzzer sees it. */
#define CHECK(condition) ((condition) ? (void)0 : fuzz_fail(#condition, __FILE__, __LINE__))

static inline void fuzz_fail(const char *text, const char *file, int line)
{
    fprintf(stderr, "%s:%d: not true: %s\n", file, line, text);
    abort();
}

/* Bytes in a block of their own, so that one byte too far is found. Free it. */
static inline uint8_t *fuzz_exact(const uint8_t *bytes, size_t n)
{
    uint8_t *copy = malloc(n ? n : 1);

    CHECK(copy != NULL);
    if (n)
        memcpy(copy, bytes, n);
    return copy;
}

/* The first byte of an input chooses: 0, the rest is a frame as it stands; else the rest is the user data of a good frame
 * with one of these CI, so that most inputs reach the records. */
static const uint8_t fuzz_ci[] = {0, 0x72, 0x78, 0x7A, 0x76, 0x73, 0x77, 0x51, 0x55, 0x52, 0x56, 0x69, 0x6A, 0x6B, 0x70, 0x6E, 0x79, 0x7B, 0x5A, 0x5B};

enum { FUZZ_CI_COUNT = sizeof fuzz_ci };

/* Format frames are refused unless length and CRC agree: those two are put right. Returns the size; free the frame. */
static inline uint8_t *fuzz_frame(const uint8_t *bytes, size_t n, size_t *size)
{
    uint8_t data[MBUS_DATA_MAX], out[MBUS_FRAME_MAX];
    mbus_frame frame = {.type = MBUS_FRAME_LONG, .c = 0x08, .a = 1, .data = data};
    size_t header;
    uint16_t crc;
    int rc;

    if (n == 0 || bytes[0] % FUZZ_CI_COUNT == 0) {
        *size = n ? n - 1 : 0;
        return fuzz_exact(n ? bytes + 1 : bytes, *size);
    }
    frame.ci = fuzz_ci[bytes[0] % FUZZ_CI_COUNT];
    frame.length = (uint8_t)(n - 1 < MBUS_DATA_MAX ? n - 1 : MBUS_DATA_MAX);
    if (frame.length)
        memcpy(data, bytes + 1, frame.length);
    header = frame.ci == 0x69 ? 0 : frame.ci == 0x6A ? MBUS_SHORT_HEADER_SIZE : MBUS_LONG_HEADER_SIZE;
    if (frame.ci >= 0x69 && frame.ci <= 0x6B && frame.length >= header + 3) {
        data[header] = (uint8_t)(frame.length - header - 1);
        crc = mbus_crc(data + header + 3, frame.length - header - 3);
        data[header + 1] = (uint8_t)(crc & 0xFFu);
        data[header + 2] = (uint8_t)(crc >> 8);
    }
    rc = mbus_frame_write(&frame, out, sizeof out);
    CHECK(rc > 0);
    *size = (size_t)rc;
    return fuzz_exact(out, *size);
}

#endif
