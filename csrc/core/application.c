/* application.c - from a frame to its header and its data records (EN 13757-3:2018, EN 13757-7:2018). */
#include "vif.h"

#include <string.h>

enum { DIF_MANUFACTURER = 0x0F, DIF_MORE_FOLLOWS = 0x1F, DIF_FILLER = 0x2F, DIF_GLOBAL_READOUT = 0x7F };
enum { EXTENSION = 0x80, DIFE_MAX = 10, VIFE_MAX = 10, FIXED_SIZE = 16, AES_BLOCK = 16 };
enum { VIF_FB_POINTER = 0xFB, VIF_FD_POINTER = 0xFD, VIF_PLAIN_TEXT = 0x7C, VIF_PRIVATE = 0x7F, VIFE_FC_POINTER = 0xFC };

/* ------------------------------------------------------------------ CI */

typedef struct ci_range {
    uint8_t first, last, header, payload;
} ci_range;

/* EN 13757-7 table 2, in order; a CI that is not here is unsupported. 76 and 77 are the mode 2 forms of EN 1434-3. */
static const ci_range ci_ranges[] = {
    {0x50, 0x50, MBUS_HEADER_NONE, MBUS_PAYLOAD_RESET},
    {0x51, 0x51, MBUS_HEADER_NONE, MBUS_PAYLOAD_COMMAND},
    {0x52, 0x52, MBUS_HEADER_NONE, MBUS_PAYLOAD_SELECTION},
    {0x53, 0x53, MBUS_HEADER_LONG, MBUS_PAYLOAD_RESET},
    {0x54, 0x54, MBUS_HEADER_NONE, MBUS_PAYLOAD_SYNCHRONIZE},
    {0x55, 0x55, MBUS_HEADER_NONE, MBUS_PAYLOAD_COMMAND},
    {0x56, 0x56, MBUS_HEADER_NONE, MBUS_PAYLOAD_SELECTION},
    {0x5A, 0x5A, MBUS_HEADER_SHORT, MBUS_PAYLOAD_COMMAND},
    {0x5B, 0x5B, MBUS_HEADER_LONG, MBUS_PAYLOAD_COMMAND},
    {0x5C, 0x5C, MBUS_HEADER_NONE, MBUS_PAYLOAD_SYNCHRONIZE},
    {0x60, 0x60, MBUS_HEADER_LONG, MBUS_PAYLOAD_RAW},
    {0x61, 0x61, MBUS_HEADER_SHORT, MBUS_PAYLOAD_RAW},
    {0x64, 0x64, MBUS_HEADER_LONG, MBUS_PAYLOAD_RAW},
    {0x65, 0x65, MBUS_HEADER_SHORT, MBUS_PAYLOAD_RAW},
    {0x66, 0x66, MBUS_HEADER_NONE, MBUS_PAYLOAD_RAW},
    {0x67, 0x67, MBUS_HEADER_SHORT, MBUS_PAYLOAD_RAW},
    {0x68, 0x68, MBUS_HEADER_LONG, MBUS_PAYLOAD_RAW},
    {0x69, 0x69, MBUS_HEADER_NONE, MBUS_PAYLOAD_FORMAT},
    {0x6A, 0x6A, MBUS_HEADER_SHORT, MBUS_PAYLOAD_FORMAT},
    {0x6B, 0x6B, MBUS_HEADER_LONG, MBUS_PAYLOAD_FORMAT},
    {0x6C, 0x6D, MBUS_HEADER_LONG, MBUS_PAYLOAD_RAW},
    {0x6E, 0x6E, MBUS_HEADER_SHORT, MBUS_PAYLOAD_ERROR},
    {0x6F, 0x6F, MBUS_HEADER_LONG, MBUS_PAYLOAD_ERROR},
    {0x70, 0x70, MBUS_HEADER_NONE, MBUS_PAYLOAD_ERROR},
    {0x71, 0x71, MBUS_HEADER_NONE, MBUS_PAYLOAD_ALARM},
    {0x72, 0x72, MBUS_HEADER_LONG, MBUS_PAYLOAD_RECORDS},
    {0x73, 0x73, MBUS_HEADER_FIXED, MBUS_PAYLOAD_FIXED},
    {0x74, 0x74, MBUS_HEADER_SHORT, MBUS_PAYLOAD_ALARM},
    {0x75, 0x75, MBUS_HEADER_LONG, MBUS_PAYLOAD_ALARM},
    {0x76, 0x76, MBUS_HEADER_LONG, MBUS_PAYLOAD_RECORDS},
    {0x77, 0x77, MBUS_HEADER_FIXED, MBUS_PAYLOAD_FIXED},
    {0x78, 0x78, MBUS_HEADER_NONE, MBUS_PAYLOAD_RECORDS},
    {0x79, 0x79, MBUS_HEADER_NONE, MBUS_PAYLOAD_COMPACT},
    {0x7A, 0x7A, MBUS_HEADER_SHORT, MBUS_PAYLOAD_RECORDS},
    {0x7B, 0x7B, MBUS_HEADER_SHORT, MBUS_PAYLOAD_COMPACT},
    {0x7C, 0x7C, MBUS_HEADER_LONG, MBUS_PAYLOAD_RAW},
    {0x7D, 0x7D, MBUS_HEADER_SHORT, MBUS_PAYLOAD_RAW},
    {0x7E, 0x7E, MBUS_HEADER_LONG, MBUS_PAYLOAD_RAW},
    {0x7F, 0x7F, MBUS_HEADER_SHORT, MBUS_PAYLOAD_RAW},
    {0x80, 0x80, MBUS_HEADER_LONG, MBUS_PAYLOAD_NONE},
    {0x84, 0x85, MBUS_HEADER_LONG, MBUS_PAYLOAD_NONE},
    {0x8A, 0x8A, MBUS_HEADER_SHORT, MBUS_PAYLOAD_NONE},
    {0x8B, 0x8B, MBUS_HEADER_LONG, MBUS_PAYLOAD_NONE},
    {0xB8, 0xBF, MBUS_HEADER_NONE, MBUS_PAYLOAD_BAUDRATE},
};

static const ci_range *find_ci(unsigned ci)
{
    size_t low = 0, high = sizeof ci_ranges / sizeof ci_ranges[0] - 1;

    while (low < high) {
        size_t middle = (low + high) / 2;
        if (ci_ranges[middle].last < ci)
            low = middle + 1;
        else
            high = middle;
    }
    return ci >= ci_ranges[low].first && ci <= ci_ranges[low].last ? &ci_ranges[low] : NULL;
}

/* ------------------------------------------------------------------ header */

static uint32_t number32(const uint8_t *p, bool msb_first)
{
    if (msb_first)
        return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
    return (uint32_t)p[3] << 24 | (uint32_t)p[2] << 16 | (uint32_t)p[1] << 8 | p[0];
}

static uint16_t number16(const uint8_t *p, bool msb_first)
{
    return (uint16_t)(msb_first ? p[0] << 8 | p[1] : p[1] << 8 | p[0]);
}

static void read_header(mbus_header *h, const uint8_t *p, bool msb_first)
{
    if (h->type == MBUS_HEADER_LONG) {
        h->id = number32(p, msb_first);
        h->manufacturer = number16(p + 4, msb_first);
        h->version = p[6];
        h->medium = p[7];
        p += 8;
    }
    h->access_number = p[0];
    h->status = p[1];
    h->configuration = number16(p + 2, msb_first);
}

/* EN 1434-3 fixed structure: the medium is spread over the upper bits of both unit bytes, low byte first in either mode. */
static void read_fixed_header(mbus_telegram *t, const uint8_t *p)
{
    t->header.medium = (uint8_t)((p[7] >> 6) << 2 | p[6] >> 6);
    /* Media A..E are those of mode 2: their counters come most significant byte first even under CI 73. */
    if (t->header.medium >= 0x0A && t->header.medium <= 0x0E)
        t->records.msb_first = true;
    t->header.id = number32(p, t->records.msb_first);
    t->header.access_number = p[4];
    t->header.status = p[5];
}

/* Mode 5 and 7 (EN 13757-7, 7.6) with as many blocks as are there. Wired meters send garbage in this word, so any other mode
 * is read as plain; so is a payload that begins with the 2F 2F that decryption must yield. */
static bool is_encrypted(const mbus_telegram *t)
{
    unsigned mode = t->header.configuration >> 8 & 0x1Fu;
    unsigned blocks = t->header.configuration >> 4 & 0x0Fu;
    unsigned left = (unsigned)(t->body_end - t->body);
    const uint8_t *p = t->records.bytes + t->body;

    if ((mode != 5 && mode != 7) || blocks == 0 || blocks * AES_BLOCK > left)
        return false;
    return !(p[0] == DIF_FILLER && p[1] == DIF_FILLER);
}

static int fail(mbus_telegram *t, int error, unsigned offset)
{
    t->error = error;
    t->error_offset = (uint16_t)offset;
    return MBUS_OK;
}

static int open_payload(mbus_telegram *t)
{
    unsigned left = (unsigned)(t->body_end - t->body);

    if (is_encrypted(t)) {
        t->payload = MBUS_PAYLOAD_RAW;
        return fail(t, MBUS_E_ENCRYPTED, t->body);
    }
    switch (t->payload) {
    case MBUS_PAYLOAD_RECORDS:
    case MBUS_PAYLOAD_COMMAND:
        t->records.structure = (uint8_t)t->payload;
        return MBUS_OK;
    case MBUS_PAYLOAD_SELECTION:
        if (left < 8)
            return fail(t, MBUS_E_HEADER_TOO_SHORT, t->body_end);
        t->selection.id = number32(t->records.bytes + t->body, t->records.msb_first);
        t->selection.manufacturer = number16(t->records.bytes + t->body + 4, t->records.msb_first);
        t->records.position = (uint16_t)(t->body + 8); /* enhanced selection: records that must match too */
        t->records.structure = MBUS_PAYLOAD_COMMAND;
        return MBUS_OK;
    case MBUS_PAYLOAD_FORMAT: /* LF, format signature, record headers */
        if (left < 3 || t->records.bytes[t->body] != left - 1)
            return fail(t, MBUS_E_HEADER_TOO_SHORT, t->body);
        if (mbus_crc(t->records.bytes + t->body + 3, left - 3) != number16(t->records.bytes + t->body + 1, false))
            return fail(t, MBUS_E_BAD_CRC, t->body + 1u);
        t->records.position = (uint16_t)(t->body + 3);
        t->records.structure = MBUS_PAYLOAD_FORMAT;
        return MBUS_OK;
    case MBUS_PAYLOAD_ERROR: /* F0: records follow that describe it */
        if (left && t->records.bytes[t->body] == 0xF0) {
            t->records.position = (uint16_t)(t->body + 1);
            t->records.structure = MBUS_PAYLOAD_RECORDS;
        }
        return MBUS_OK;
    case MBUS_PAYLOAD_COMPACT:
        return fail(t, MBUS_E_UNKNOWN_FORMAT, t->body);
    case MBUS_PAYLOAD_ALARM:
        return left ? MBUS_OK : fail(t, MBUS_E_HEADER_TOO_SHORT, t->body_end);
    default:
        return MBUS_OK;
    }
}

int mbus_telegram_read(const uint8_t *bytes, size_t n, mbus_telegram *t, size_t *offset)
{
    const ci_range *ci;
    const uint8_t *p;
    unsigned left, size;
    int rc;

    memset(t, 0, sizeof *t);
    rc = mbus_frame_read(bytes, n, &t->frame, offset);
    if (rc != MBUS_OK)
        return rc;
    t->records.bytes = bytes;
    t->records.structure = MBUS_PAYLOAD_NONE;
    if (t->frame.type < MBUS_FRAME_CONTROL)
        return MBUS_OK;
    t->body = 7;
    t->body_end = (uint16_t)(n - 2);
    ci = find_ci(t->frame.ci);
    if (!ci)
        return fail(t, MBUS_E_UNSUPPORTED_CI, 6);
    t->payload = (mbus_payload)ci->payload;
    t->header.type = (mbus_header_type)ci->header;
    t->records.msb_first = t->frame.ci == 0x55 || t->frame.ci == 0x56 || t->frame.ci == 0x76 || t->frame.ci == 0x77;
    left = (unsigned)(t->body_end - t->body);
    p = bytes + t->body;
    if (ci->header == MBUS_HEADER_FIXED) {
        if (left != FIXED_SIZE) {
            t->header.type = MBUS_HEADER_NONE;
            return fail(t, MBUS_E_FIXED_LENGTH, t->body);
        }
        read_fixed_header(t, p);
        t->body = (uint16_t)(t->body + 8);
        t->records.structure = MBUS_PAYLOAD_FIXED;
    } else if (ci->header != MBUS_HEADER_NONE) {
        size = ci->header == MBUS_HEADER_LONG ? MBUS_LONG_HEADER_SIZE : MBUS_SHORT_HEADER_SIZE;
        if (left < size) {
            t->header.type = MBUS_HEADER_NONE;
            return fail(t, MBUS_E_HEADER_TOO_SHORT, t->body);
        }
        read_header(&t->header, p, t->records.msb_first);
        t->body = (uint16_t)(t->body + size);
    }
    t->records.position = t->body;
    t->records.end = t->body_end;
    return open_payload(t);
}

/* ------------------------------------------------------------------ fixed data structure */

/* Unit codes of EN 1434-3: six blocks of nine powers of ten from 02 on, see application-layer notes of the standard. */
static void fixed_unit(mbus_record *r, unsigned code)
{
    static const struct {
        uint8_t quantity, unit;
        int8_t exponent;
    } blocks[] = {
        {MBUS_QUANTITY_ENERGY, MBUS_UNIT_WH, 0},          {MBUS_QUANTITY_ENERGY, MBUS_UNIT_J, 3},
        {MBUS_QUANTITY_POWER, MBUS_UNIT_W, 0},            {MBUS_QUANTITY_POWER, MBUS_UNIT_J_H, 3},
        {MBUS_QUANTITY_VOLUME, MBUS_UNIT_M3, -6},         {MBUS_QUANTITY_VOLUME_FLOW, MBUS_UNIT_M3_H, -6},
    };

    r->quantity = MBUS_QUANTITY_RESERVED;
    r->unit = MBUS_UNIT_NONE;
    if (code >= 0x02 && code <= 0x37) {
        r->quantity = blocks[(code - 2) / 9].quantity;
        r->unit = blocks[(code - 2) / 9].unit;
        r->number.exponent = (int16_t)(blocks[(code - 2) / 9].exponent + (int)((code - 2) % 9));
    } else if (code == 0x00) {
        r->quantity = MBUS_QUANTITY_TIME;
    } else if (code == 0x01) {
        r->quantity = MBUS_QUANTITY_DATE;
    } else if (code == 0x38) {
        r->quantity = MBUS_QUANTITY_TEMPERATURE;
        r->unit = MBUS_UNIT_CELSIUS;
        r->number.exponent = -3;
    } else if (code == 0x39) {
        r->quantity = MBUS_QUANTITY_HCA;
        r->unit = MBUS_UNIT_HCA;
    } else if (code == 0x3F) {
        r->quantity = MBUS_QUANTITY_DIMENSIONLESS;
    }
}

enum { FIXED_BINARY = 0x01, FIXED_STORED = 0x02, FIXED_UNIT = 0x3F, FIXED_SAME_HISTORIC = 0x3E };

static int next_fixed(mbus_cursor *c, mbus_record *r)
{
    const uint8_t *head = c->bytes + c->end - FIXED_SIZE;
    unsigned index = c->count;
    unsigned unit = head[6 + index] & FIXED_UNIT;

    if (index == 2)
        return 0;
    memset(r, 0, sizeof *r);
    r->msb_first = c->msb_first;
    r->number.factor = 1;
    r->position = c->position;
    r->vib = head + 6 + index;
    r->vib_length = 1;
    r->data = c->bytes + c->position;
    r->data_length = 4;
    r->storage = head[5] & FIXED_STORED ? 1 : 0;
    if (unit == FIXED_SAME_HISTORIC) {
        unit = head[7 - index] & FIXED_UNIT;
        r->storage = 1;
    }
    fixed_unit(r, unit == FIXED_SAME_HISTORIC ? 0x3A : unit); /* both "same as the other": no unit */
    r->field = head[5] & FIXED_BINARY ? 0x4 : 0xC;
    value_decode(r);
    c->position = (uint16_t)(c->position + 4);
    c->count++;
    return 1;
}

/* ------------------------------------------------------------------ DIB */

static int stop(mbus_cursor *c, int error, unsigned position)
{
    c->structure = MBUS_PAYLOAD_NONE;
    c->position = (uint16_t)position;
    return error;
}

static unsigned left_of(const mbus_cursor *c)
{
    return (unsigned)(c->end - c->position);
}

/* DIF and DIFEs (EN 13757-3, 6.3): storage 41 bits, tariff 20, subunit 10. */
static int read_dib(mbus_cursor *c, mbus_record *r)
{
    uint8_t byte = c->bytes[c->position++];
    unsigned n = 0;

    r->dib = c->bytes + r->position;
    r->field = byte & 0x0F;
    r->function = byte >> 4 & 3;
    r->storage = byte >> 6 & 1;
    while (byte & EXTENSION) {
        if (left_of(c) == 0)
            return stop(c, MBUS_E_DIF_END, c->position);
        byte = c->bytes[c->position];
        if (n == DIFE_MAX && byte != 0) /* an eleventh may only be the final DIFE */
            return stop(c, MBUS_E_TOO_MANY_DIFE, c->position);
        c->position++;
        if (n < DIFE_MAX) {
            r->storage |= (uint64_t)(byte & 0x0Fu) << (1 + 4 * n);
            r->tariff |= (uint32_t)(byte >> 4 & 3u) << (2 * n);
            r->subunit = (uint16_t)(r->subunit | (byte >> 6 & 1u) << n);
        }
        n++;
    }
    if (n && byte == 0)
        r->flags |= MBUS_FLAG_FINAL_DIFE;
    r->dib_length = (uint8_t)(c->position - r->position);
    return MBUS_OK;
}

/* ------------------------------------------------------------------ VIB */

/* Length of a VIFE chain that begins at p, 0 if it does not end within n bytes. */
static unsigned chain_length(const uint8_t *p, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        if (!(p[i] & EXTENSION))
            return i + 1;
    return 0;
}

static bool is_printable(const uint8_t *p, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        if (p[i] < 0x20 || (p[i] > 0x7E && p[i] < 0xA0))
            return false;
    return true;
}

/* A length byte and as many characters at p, within n bytes? Gives the length of both, 0 if not. */
static unsigned text_length(const uint8_t *p, unsigned n)
{
    return n > 0 && p[0] >= 1 && p[0] < n && is_printable(p + 1, p[0]) ? p[0] + 1u : 0;
}

int record_data_size(unsigned field, const uint8_t *p, unsigned n)
{
    static const int8_t sizes[16] = {0, 1, 2, 3, 4, 4, 6, 8, 0, 1, 2, 3, 4, -1, 6, 0};

    if (field != 0x0D)
        return sizes[field];
    if (n == 0)
        return -1;
    if (p[0] <= 0xBF)
        return 1 + p[0];
    if (p[0] <= 0xC9 || (p[0] >= 0xD0 && p[0] <= 0xD9) || (p[0] >= 0xE0 && p[0] <= 0xEF))
        return 1 + (p[0] & 0x0F);
    if (p[0] >= 0xF0 && p[0] <= 0xF4)
        return 1 + 4 * (p[0] - 0xEC);
    return p[0] == 0xF5 ? 1 + 48 : p[0] == 0xF6 ? 1 + 64 : -1;
}

static bool data_fits(const mbus_cursor *c, const mbus_record *r, const uint8_t *p, unsigned n)
{
    int size = c->structure == MBUS_PAYLOAD_FORMAT ? 0 : record_data_size(r->field, p, n);
    return size >= 0 && (unsigned)size <= n;
}

/* VIF FC: the unit's text stands directly after the VIF (as every meter in the field sends it) or after the VIFEs (Annex C.2).
 * Takes the first place that makes sense with everything that follows, for a record has no other mark of its length. */
static int read_plain_text(mbus_cursor *c, mbus_record *r)
{
    const uint8_t *p = c->bytes + c->position;
    unsigned n = left_of(c), text = text_length(p, n), chain;
    bool extended = (r->vib[0] & EXTENSION) != 0;

    if (text) {
        chain = extended ? chain_length(p + text, n - text) : 0;
        if ((!extended || (chain && chain <= VIFE_MAX)) && data_fits(c, r, p + text + chain, n - text - chain)) {
            r->text = p + 1;
            r->text_length = (uint8_t)(text - 1);
            c->position = (uint16_t)(c->position + text + chain);
            return MBUS_OK;
        }
    }
    chain = extended ? chain_length(p, n) : 0;
    text = text_length(p + chain, n - chain);
    if (extended && chain && chain <= VIFE_MAX && text && data_fits(c, r, p + chain + text, n - chain - text)) {
        r->text = p + chain + 1;
        r->text_length = (uint8_t)(text - 1);
        c->position = (uint16_t)(c->position + chain + text);
        return MBUS_OK;
    }
    if (!extended && n && p[0] < n) { /* characters that are none, or an empty text: the length still tells */
        r->text = p + 1;
        r->text_length = p[0];
        c->position = (uint16_t)(c->position + p[0] + 1);
        return MBUS_OK;
    }
    return stop(c, MBUS_E_VAR_VIF_END, c->position);
}

/* Where the combinable VIFEs of a VIB begin and end. */
static void find_vifes(mbus_record *r)
{
    unsigned first = 1, end = r->vib_length;

    if (!(r->vib[0] & EXTENSION))
        return;
    if (r->text && r->text == r->vib + 2)
        first = 2u + r->text_length;
    else if (r->text)
        end = (unsigned)(r->text - r->vib) - 1u;
    else if (r->vib[0] == VIF_FB_POINTER)
        first = 2;
    else if (r->vib[0] == VIF_FD_POINTER)
        first = r->vib[1] == VIF_FD_POINTER ? 3 : 2;
    else if (r->vib[0] == (VIF_PRIVATE | EXTENSION))
        first = end; /* private to the end */
    r->vife_first = (uint8_t)first;
    r->vife_end = (uint8_t)end;
}

/* VIF and VIFEs, as far as they frame the record. */
static int read_vib(mbus_cursor *c, mbus_record *r)
{
    uint8_t byte;
    int rc = MBUS_OK;

    if (left_of(c) == 0)
        return stop(c, MBUS_E_VIF_END, c->position);
    r->vib = c->bytes + c->position;
    byte = c->bytes[c->position++];
    if ((byte & 0x7F) == VIF_PLAIN_TEXT) {
        rc = read_plain_text(c, r);
    } else {
        for (unsigned n = 0; byte & EXTENSION; n++) {
            if (left_of(c) == 0)
                return stop(c, MBUS_E_VIF_END, c->position);
            if (n == VIFE_MAX)
                return stop(c, MBUS_E_TOO_MANY_VIFE, c->position);
            byte = c->bytes[c->position++];
        }
    }
    r->vib_length = (uint8_t)(c->bytes + c->position - r->vib);
    find_vifes(r);
    return rc;
}

int mbus_next_vife(const mbus_record *r, unsigned *state, unsigned *code)
{
    unsigned end = r->vife_end;
    uint8_t byte;

    if (*state < r->vife_first)
        *state = r->vife_first;
    if (*state >= end)
        return 0;
    byte = r->vib[(*state)++];
    if (byte == VIFE_FC_POINTER && *state < end) {
        *code = 0xFC00u | (r->vib[(*state)++] & 0x7Fu);
        return 1;
    }
    *code = byte & 0x7Fu;
    if (*code == 0x7F)
        *state = end;
    return 1;
}

/* The row of the true VIF, through the extension tables. */
static const vif_row *true_vif(const mbus_record *r, unsigned *code)
{
    const uint8_t *p = r->vib;

    *code = p[0] & 0x7Fu;
    if (p[0] == VIF_FB_POINTER) {
        *code = p[1] & 0x7Fu;
        return vif_find(VIF_FB, *code);
    }
    if (p[0] == VIF_FD_POINTER) {
        *code = p[1] & 0x7Fu;
        if (p[1] != VIF_FD_POINTER)
            return vif_find(VIF_FD, *code);
        *code = p[2] & 0x7Fu;
        return vif_find(VIF_FDFD, *code);
    }
    return vif_find(VIF_PRIMARY, *code);
}

/* One combinable VIFE (EN 13757-3, 6.4.5 and table 15): what it changes in the reading of the data. */
static void apply_vife(mbus_record *r, unsigned code, int *own_exponent)
{
    static const uint8_t durations[] = {MBUS_UNIT_S, MBUS_UNIT_MIN, MBUS_UNIT_H, MBUS_UNIT_D};
    static const int32_t thousandths[] = {1, 10, 100, 1000};

    if (code == 0xFC11u || code == 0xFC12u) {
        if (r->coding == MBUS_CODING_NUM)
            r->coding = code == 0xFC11u ? MBUS_CODING_UNSIGNED : MBUS_CODING_BITS;
        return;
    }
    if (!r->command && vife_is_record_error(code))
        r->record_error = (uint8_t)code;
    switch (vife_find(code)) {
    case VIFE_SCALE:
        r->number.exponent = (int16_t)(r->number.exponent + (code == 0x7D ? 3 : (int)code - 0x76));
        break;
    case VIFE_ADD:
        r->number.offset += thousandths[code & 3u];
        break;
    case VIFE_DURATION:
    case VIFE_COUNT: /* the VIF only names what it is about: its unit and exponent do not apply */
        r->unit = vife_find(code) == VIFE_COUNT ? MBUS_UNIT_NONE : durations[code & 3u];
        r->text_length = 0;
        *own_exponent = 0;
        if (r->coding != MBUS_CODING_UNSIGNED && r->coding != MBUS_CODING_BITS)
            r->coding = MBUS_CODING_NUM;
        break;
    case VIFE_DATES:
        r->unit = MBUS_UNIT_NONE;
        r->text_length = 0;
        *own_exponent = 0;
        r->coding = MBUS_CODING_ANYDATE;
        break;
    case VIFE_PROFILE:
        r->coding = MBUS_CODING_PROFILE;
        break;
    case VIFE_OBIS:
        r->coding = MBUS_CODING_RAW;
        break;
    case VIFE_PRIVATE:
        r->flags |= MBUS_FLAG_OPAQUE;
        break;
    default:
        break;
    }
}

static void interpret_vib(mbus_record *r)
{
    unsigned code, state = 0;
    const vif_row *row = true_vif(r, &code);
    int own_exponent = row->exponent + (row->unit == MBUS_UNIT_NONE ? 0 : (int)(code - row->first));

    r->quantity = row->quantity;
    r->unit = row->unit;
    r->coding = (mbus_coding)row->coding;
    if (row->quantity == MBUS_QUANTITY_MANUFACTURER_SPECIFIC)
        r->flags |= MBUS_FLAG_OPAQUE;
    while (mbus_next_vife(r, &state, &code))
        apply_vife(r, code, &own_exponent);
    r->number.exponent = (int16_t)(r->number.exponent + own_exponent);
    r->number.factor = vif_unit_factor(r->unit);
}

/* ------------------------------------------------------------------ records */

/* Actions 0C and 0D carry no data, whatever the DIF says (EN 13757-3, Annex B). */
static bool is_without_data(const mbus_record *r)
{
    unsigned state = 0, code;

    while (r->command && mbus_next_vife(r, &state, &code))
        if (code == 0x0C || code == 0x0D)
            return true;
    return false;
}

static int read_data(mbus_cursor *c, mbus_record *r)
{
    const uint8_t *p = c->bytes + c->position;
    unsigned n = left_of(c);
    bool none = c->structure == MBUS_PAYLOAD_FORMAT || is_without_data(r);
    int size = none ? 0 : record_data_size(r->field, p, n);

    if (size < 0)
        return stop(c, n ? MBUS_E_RESERVED_LVAR : MBUS_E_DATA_END, c->position);
    if ((unsigned)size > n)
        return stop(c, MBUS_E_DATA_END, c->position);
    r->data = p;
    r->data_length = (uint16_t)size;
    c->position = (uint16_t)(c->position + (unsigned)size);
    return MBUS_OK;
}

/* DIF x F, not a record (EN 13757-3, table 5). 0: the end, 1: go on, or an error. */
static int special_dif(mbus_cursor *c, uint8_t dif)
{
    switch (dif) {
    case DIF_FILLER:
        c->position++;
        return 1;
    case DIF_MORE_FOLLOWS:
        c->more_records_follow = true; /* fall through */
    case DIF_MANUFACTURER:
        c->has_manufacturer_data = true;
        c->manufacturer_data = ++c->position;
        c->structure = MBUS_PAYLOAD_NONE;
        return 0;
    case DIF_GLOBAL_READOUT:
        if (c->structure == MBUS_PAYLOAD_COMMAND) {
            c->global_readout = true;
            if (left_of(c) == 1 || (left_of(c) == 2 && c->bytes[c->position + 1] == 0x7E)) {
                c->position = c->end;
                c->structure = MBUS_PAYLOAD_NONE;
                return 0;
            }
        } /* fall through */
    default:
        return stop(c, MBUS_E_RESERVED_DIF, c->position);
    }
}

static int next_variable(mbus_cursor *c, mbus_record *r)
{
    int rc = 1;

    while (rc == 1 && left_of(c) && (c->bytes[c->position] & 0x0F) == 0x0F)
        rc = special_dif(c, c->bytes[c->position]);
    if (rc != 1)
        return rc;
    if (left_of(c) == 0)
        return 0;
    memset(r, 0, sizeof *r);
    r->position = c->position;
    r->msb_first = c->msb_first;
    r->command = c->structure == MBUS_PAYLOAD_COMMAND;
    if ((rc = read_dib(c, r)) != MBUS_OK || (rc = read_vib(c, r)) != MBUS_OK || (rc = read_data(c, r)) != MBUS_OK)
        return rc;
    interpret_vib(r);
    value_decode(r);
    c->count++;
    return 1;
}

int mbus_next(mbus_cursor *c, mbus_record *r)
{
    if (c->structure == MBUS_PAYLOAD_FIXED)
        return next_fixed(c, r);
    if (c->structure == MBUS_PAYLOAD_RECORDS || c->structure == MBUS_PAYLOAD_COMMAND || c->structure == MBUS_PAYLOAD_FORMAT)
        return next_variable(c, r);
    return 0;
}
