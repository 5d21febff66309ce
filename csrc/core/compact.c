/* compact.c - format and compact frames (EN 13757-3:2018, Annex G): record headers sent once, then only data. */
#include "vif.h"

#include <string.h>

/* CRC-16/EN-13757: polynomial 3D65, not reflected, begins with 0, inverted at the end. */
uint16_t mbus_crc(const uint8_t *bytes, size_t n)
{
    uint16_t crc = 0;

    while (n--) {
        crc = (uint16_t)(crc ^ *bytes++ << 8);
        for (int bit = 0; bit < 8; bit++)
            crc = (uint16_t)(crc & 0x8000u ? crc << 1 ^ 0x3D65 : crc << 1);
    }
    return (uint16_t)~crc;
}

int mbus_format_of(const mbus_telegram *t, uint8_t *headers, size_t capacity, uint16_t *signature)
{
    mbus_cursor cursor = t->records;
    mbus_record r;
    size_t size = 0;
    int rc;

    if (cursor.structure != MBUS_PAYLOAD_RECORDS && cursor.structure != MBUS_PAYLOAD_FORMAT)
        return t->error ? t->error : MBUS_E_UNSUPPORTED_CI;
    while ((rc = mbus_next(&cursor, &r)) > 0) {
        size_t n = (size_t)r.dib_length + r.vib_length;
        if (size + n > capacity)
            return MBUS_E_NO_SPACE;
        memcpy(headers + size, r.dib, n); /* DIB and VIB stand side by side */
        size += n;
    }
    *signature = mbus_crc(headers, size);
    return rc < 0 ? rc : (int)size;
}

typedef struct compact {
    const uint8_t *header, *p, *end; /* long or short header; signature, CRC and data */
    uint8_t header_size, full_ci;
} compact;

/* CI 79 without header, 7B with a short one, 73 with a long one where the fixed structure can't be meant. */
static bool is_compact(const mbus_telegram *t, compact *c)
{
    const uint8_t *payload = t->records.bytes + 7;

    if (t->frame.type != MBUS_FRAME_LONG || (t->frame.ci != 0x79 && t->frame.ci != 0x7B && t->frame.ci != 0x73))
        return false;
    c->header = payload;
    c->header_size = t->frame.ci == 0x79 ? 0 : t->frame.ci == 0x7B ? MBUS_SHORT_HEADER_SIZE : MBUS_LONG_HEADER_SIZE;
    c->full_ci = t->frame.ci == 0x79 ? 0x78 : t->frame.ci == 0x7B ? 0x7A : 0x72;
    c->p = payload + c->header_size;
    c->end = payload + t->frame.length;
    return t->frame.length >= c->header_size + 4u && !(t->frame.ci == 0x73 && t->frame.length == 16);
}

int mbus_compact_signature(const mbus_telegram *t)
{
    compact c;
    return is_compact(t, &c) ? c.p[0] | c.p[1] << 8 : MBUS_E_UNSUPPORTED_CI;
}

/* Writes header by header, each followed by its data. Returns the size or an error. */
static int interleave(const compact *c, const uint8_t *headers, size_t n, uint8_t *out, size_t capacity)
{
    mbus_cursor cursor = {.bytes = headers, .end = (uint16_t)n, .structure = MBUS_PAYLOAD_FORMAT};
    const uint8_t *data = c->p + 4;
    size_t size = 0;
    mbus_record r;
    int rc;

    while ((rc = mbus_next(&cursor, &r)) > 0) {
        size_t header = (size_t)r.dib_length + r.vib_length;
        int data_size = record_data_size(r.field, data, (unsigned)(c->end - data));
        if (data_size < 0 || data_size > c->end - data)
            return MBUS_E_DATA_END;
        if (size + header + (size_t)data_size > capacity)
            return MBUS_E_NO_SPACE;
        memcpy(out + size, r.dib, header);
        memcpy(out + size + header, data, (size_t)data_size);
        size += header + (size_t)data_size;
        data += data_size;
    }
    if (rc < 0)
        return rc;
    return data == c->end ? (int)size : MBUS_E_TRAILING_BYTES;
}

int mbus_compact_expand(const mbus_telegram *t, const uint8_t *headers, size_t n, uint8_t *out, size_t capacity)
{
    uint8_t user_data[MBUS_DATA_MAX];
    mbus_frame full = t->frame;
    compact c;
    int size;

    if (!is_compact(t, &c))
        return MBUS_E_UNSUPPORTED_CI;
    if (n > MBUS_DATA_MAX || mbus_crc(headers, n) != (c.p[0] | c.p[1] << 8))
        return MBUS_E_UNKNOWN_FORMAT;
    memcpy(user_data, c.header, c.header_size);
    size = interleave(&c, headers, n, user_data + c.header_size, sizeof user_data - c.header_size);
    if (size < 0)
        return size;
    if (mbus_crc(user_data + c.header_size, (size_t)size) != (c.p[2] | c.p[3] << 8))
        return MBUS_E_BAD_CRC;
    full.ci = c.full_ci;
    full.data = user_data;
    full.length = (uint8_t)(c.header_size + size);
    return mbus_frame_write(&full, out, capacity);
}
