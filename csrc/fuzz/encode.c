/* encode.c - fuzz target: a record of arbitrary numbers is written right or refused with a reason, never wrong.
 *
 * Input: 3 bytes of DIB (field, function, options), storage 6, tariff 3, subunit 2, value 8, length 1, VIB length 1, VIB, bytes.
 */
#include "fuzz.h"

typedef struct input {
    const uint8_t *p, *end;
} input;

static uint64_t take(input *in, unsigned n)
{
    uint64_t value = 0;

    for (unsigned i = 0; i < n && in->p < in->end; i++)
        value |= (uint64_t)*in->p++ << 8 * i;
    return value;
}

/* Quantity, coding and flags of a VIB, as an encoder knows them: from the record header. */
static bool header_of(const uint8_t *vib, size_t n, bool msb_first, mbus_record *r)
{
    uint8_t header[300];
    mbus_cursor cursor = {.bytes = header, .end = (uint16_t)(n + 1), .structure = MBUS_PAYLOAD_FORMAT, .msb_first = msb_first};

    header[0] = 0x04;
    memcpy(header + 1, vib, n);
    if (mbus_next(&cursor, r) != 1 || cursor.position != n + 1 || r->text)
        return false;
    r->dib = NULL;
    r->vib = vib;
    r->data = NULL;
    return true;
}

static void set_value(mbus_record *r, input *in, uint64_t value, unsigned length)
{
    uint32_t word = (uint32_t)value;

    r->number.magnitude = value;
    memcpy(&r->real, &word, sizeof r->real);
    r->time.year = (uint16_t)(1970 + (value & 0x1FF));
    r->time.month = (uint8_t)(value >> 9 & 15);
    r->time.day = (uint8_t)(value >> 13 & 31);
    r->time.hour = (uint8_t)(value >> 18 & 31);
    r->time.minute = (uint8_t)(value >> 23 & 63);
    r->time.second = (uint8_t)(value >> 29 & 63);
    r->length = (uint16_t)length;
    if (r->type == MBUS_TYPE_STRING || r->type == MBUS_TYPE_BYTES) {
        r->bytes = in->p;
        if (length > (size_t)(in->end - in->p))
            r->length = (uint16_t)(in->end - in->p);
    }
}

static void check_time(const mbus_record *a, const mbus_record *b)
{
    CHECK(b->type == MBUS_TYPE_TIME || (a->time.year == b->time.year && a->time.month == b->time.month && a->time.day == b->time.day));
    CHECK(b->type == MBUS_TYPE_DATE || (a->time.hour == b->time.hour && a->time.minute == b->time.minute));
    CHECK(!b->time.has_seconds || a->time.second == b->time.second);
}

static void check_written(const mbus_record *a, const uint8_t *bytes, size_t n)
{
    mbus_cursor cursor = {.bytes = bytes, .end = (uint16_t)n, .structure = MBUS_PAYLOAD_RECORDS, .msb_first = a->msb_first};
    mbus_record b;
    unsigned no_value = MBUS_FLAGS_NO_VALUE;

    CHECK(mbus_next(&cursor, &b) == 1 && cursor.position == n);
    CHECK(a->storage == b.storage && a->tariff == b.tariff && a->subunit == b.subunit && a->function == b.function);
    CHECK(a->field == b.field && a->quantity == b.quantity && a->coding == b.coding);
    if (a->field == 0 || a->field == 8) {
        CHECK(b.type == MBUS_TYPE_NONE);
        return;
    }
    if (b.type != a->type) /* the VIF makes something else of it: a number in a date, a text in a container */
        return;
    if (a->type == MBUS_TYPE_REAL)
        no_value &= ~(unsigned)MBUS_FLAG_NOT_A_NUMBER;
    switch (a->type) {
    case MBUS_TYPE_NUMBER:
        CHECK(!(b.flags & no_value));
        CHECK(a->number.magnitude == b.number.magnitude && (a->number.negative == b.number.negative || a->number.magnitude == 0));
        break;
    case MBUS_TYPE_REAL:
        CHECK(memcmp(&a->real, &b.real, sizeof b.real) == 0);
        break;
    case MBUS_TYPE_STRING:
    case MBUS_TYPE_BYTES:
        CHECK(a->length == b.length && memcmp(a->bytes, b.bytes, b.length) == 0);
        break;
    case MBUS_TYPE_DATE:
    case MBUS_TYPE_DATETIME:
    case MBUS_TYPE_TIME:
        if (!(b.flags & MBUS_FLAG_DATE_INVALID)) /* 31 February is the caller's */
            check_time(a, &b);
        break;
    default:
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    input in = {bytes, bytes + n};
    unsigned field = (unsigned)take(&in, 1), function = (unsigned)take(&in, 1), options = (unsigned)take(&in, 1);
    uint64_t storage = take(&in, 6), tariff = take(&in, 3), subunit = take(&in, 2), value = take(&in, 8);
    unsigned length = (unsigned)take(&in, 1), vib_length = (unsigned)take(&in, 1) % 14;
    const uint8_t *vib = in.p;
    uint8_t out[600], *exact;
    const char *problem = NULL;
    mbus_record r;
    int rc;

    if (vib_length == 0 || vib_length > (size_t)(in.end - in.p) || !header_of(vib, vib_length, options & 1, &r))
        return 0;
    in.p += vib_length;
    r.field = field & 15;
    r.function = function & 3;
    r.storage = storage;
    r.tariff = (uint32_t)tariff;
    r.subunit = (uint16_t)subunit;
    r.type = (mbus_type)(field >> 4 & 7);
    r.flags = (uint16_t)(r.flags & MBUS_FLAG_OPAQUE);
    r.flags = (uint16_t)(r.flags | (options & 2 ? MBUS_FLAG_FINAL_DIFE : 0) | (options & 4 ? MBUS_FLAG_HUNDRED_YEARS : 0) |
                         (options & 8 ? MBUS_FLAG_SUMMER_TIME : 0) | (options & 16 ? MBUS_FLAG_BINARY_LVAR : 0));
    r.number.negative = (options & 32) != 0;
    set_value(&r, &in, value, length);
    rc = mbus_record_write(&r, out, sizeof out, &problem);
    CHECK(rc > 0 || (rc == MBUS_E_BAD_VALUE && problem != NULL));
    if (rc > 0) {
        exact = fuzz_exact(out, (size_t)rc);
        CHECK(mbus_record_write(&r, exact, (size_t)rc, NULL) == rc);
        CHECK(mbus_record_write(&r, NULL, 0, NULL) == MBUS_E_NO_SPACE);
        check_written(&r, exact, (size_t)rc);
        free(exact);
    }
    return 0;
}
