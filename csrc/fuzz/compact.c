/* compact.c - fuzz target: compact frames with the record headers of anybody.
 *
 * Input: CI choice 1, length of the headers 2, the headers, then the data of the compact frame. Signature and CRC are put
 * right, as otherwise hardly an input would get past them.
 */
#include "fuzz.h"

/* Bytes of data as EN 13757-3, tables 4 and 6 have them; -1 where there is none. */
static int data_size(const mbus_record *r, const uint8_t *p, size_t n)
{
    static const uint8_t sizes[16] = {0, 1, 2, 3, 4, 4, 6, 8, 0, 1, 2, 3, 4, 0, 6, 0};

    if (r->field != 0x0D)
        return sizes[r->field] <= n ? sizes[r->field] : -1;
    if (n == 0)
        return -1;
    for (int lvar = 0, size; lvar <= 0xF6; lvar++) {
        size = lvar < 0xC0   ? lvar
               : lvar < 0xF0 ? ((lvar & 15) > 9 && lvar < 0xE0 ? -1 : lvar & 15)
               : lvar < 0xF5 ? 4 * (lvar - 0xEC)
                             : (lvar == 0xF5 ? 48 : 64);
        if (p[0] == lvar)
            return size >= 0 && (size_t)size < n ? size + 1 : -1;
    }
    return -1;
}

/* The full frame's records, -1 if they can't be put together. */
static int interleave(const uint8_t *headers, size_t n, const uint8_t *data, size_t size, uint8_t *out, size_t capacity)
{
    mbus_cursor cursor = {.bytes = headers, .end = (uint16_t)n, .structure = MBUS_PAYLOAD_FORMAT};
    mbus_record r;
    size_t full = 0;
    int rc;

    while ((rc = mbus_next(&cursor, &r)) > 0) {
        size_t header = cursor.position - (size_t)r.position;
        int m = data_size(&r, data, size);
        CHECK(r.dib == headers + r.position && header == (size_t)r.dib_length + r.vib_length);
        if (m < 0 || full + header + (size_t)m > capacity)
            return -1;
        memcpy(out + full, r.dib, header);
        memcpy(out + full + header, data, (size_t)m);
        full += header + (size_t)m;
        data += m;
        size -= (size_t)m;
    }
    return rc == 0 && size == 0 ? (int)full : -1;
}

static void put16(uint8_t *p, uint16_t value)
{
    p[0] = (uint8_t)(value & 0xFFu);
    p[1] = (uint8_t)(value >> 8);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    static const uint8_t ci[] = {0x79, 0x7B, 0x73}, header_size[] = {0, MBUS_SHORT_HEADER_SIZE, MBUS_LONG_HEADER_SIZE};
    uint8_t data[MBUS_DATA_MAX], frame_bytes[MBUS_FRAME_MAX], records[MBUS_DATA_MAX], out[MBUS_FRAME_MAX], *headers, *frame;
    mbus_frame parts = {.type = MBUS_FRAME_LONG, .c = 8, .a = 1, .data = data};
    mbus_telegram t;
    size_t choice, m, start;
    int full, rc, size;

    if (n < 3)
        return 0;
    choice = bytes[0] % 3;
    m = (size_t)(bytes[1] | bytes[2] << 8) % (n - 2);
    headers = fuzz_exact(bytes + 3, m);
    bytes += 3 + m;
    n -= 3 + m;
    start = header_size[choice];
    memset(data, 0x42, sizeof data);
    if (n > sizeof data - start - 4)
        n = sizeof data - start - 4;
    if (n)
        memcpy(data + start + 4, bytes, n);
    full = m <= MBUS_DATA_MAX ? interleave(headers, m, data + start + 4, n, records, sizeof records - start) : -1;
    put16(data + start, mbus_crc(headers, m));
    put16(data + start + 2, mbus_crc(records, full > 0 ? (size_t)full : 0));
    parts.ci = ci[choice];
    parts.length = (uint8_t)(start + 4 + n);
    size = mbus_frame_write(&parts, frame_bytes, sizeof frame_bytes);
    CHECK(size > 0);
    frame = fuzz_exact(frame_bytes, (size_t)size);
    CHECK(mbus_telegram_read(frame, (size_t)size, &t, NULL) == MBUS_OK);
    rc = mbus_compact_expand(&t, headers, m, out, sizeof out);
    if (parts.ci == 0x73 && parts.length == 16) {
        CHECK(rc == MBUS_E_UNSUPPORTED_CI);
    } else if (full >= 0) {
        CHECK(rc == full + (int)start + 9);
        CHECK(memcmp(out + 7 + start, records, (size_t)full) == 0);
        CHECK(mbus_compact_expand(&t, headers, m, out, (size_t)rc - 1) == MBUS_E_NO_SPACE);
    } else {
        CHECK(rc < 0);
    }
    free(frame);
    free(headers);
    return 0;
}
