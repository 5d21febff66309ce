/* value.c - the data of a record: integers, BCD, reals, texts, dates (EN 13757-3:2018, Annex A and B). */
#include "vif.h"

#include <string.h>

/* Unsigned number of n <= 8 bytes. */
static uint64_t load(const uint8_t *p, unsigned n, bool msb_first)
{
    uint64_t value = 0;

    if (msb_first)
        for (unsigned i = 0; i < n; i++)
            value = value << 8 | p[i];
    else
        while (n)
            value = value << 8 | p[--n];
    return value;
}

/* Type B: two's complement; its most negative number says "not available". */
static void signed_integer(mbus_record *r, const uint8_t *p, unsigned n)
{
    uint64_t value = load(p, n, r->msb_first);
    uint64_t sign = (uint64_t)1 << (8 * n - 1);

    r->type = MBUS_TYPE_NUMBER;
    r->number.negative = (value & sign) != 0;
    r->number.magnitude = r->number.negative ? (~value & (sign - 1)) + 1 : value;
    if (value == sign)
        r->flags |= MBUS_FLAG_VALUE_INVALID;
}

/* Type C: all ones say "not available"; type D: every bit counts. */
static void unsigned_integer(mbus_record *r, const uint8_t *p, unsigned n, bool bits)
{
    uint64_t value = load(p, n, r->msb_first);

    r->type = MBUS_TYPE_NUMBER;
    r->number.magnitude = value;
    if (!bits && value == ~(uint64_t)0 >> (64 - 8 * n))
        r->flags |= MBUS_FLAG_VALUE_INVALID;
}

static void integer(mbus_record *r, const uint8_t *p, unsigned n)
{
    if (r->coding == MBUS_CODING_UNSIGNED || r->coding == MBUS_CODING_BITS || r->coding == MBUS_CODING_ID)
        unsigned_integer(r, p, n, r->coding == MBUS_CODING_BITS);
    else
        signed_integer(r, p, n);
    if (r->flags & MBUS_FLAG_OPAQUE) /* what "not available" looks like is private too */
        r->flags = (uint16_t)(r->flags & ~(unsigned)MBUS_FLAG_VALUE_INVALID);
}

/* Type A. F in the top digit is a minus sign if `may_be_negative`, any other hex digit makes the number invalid. */
static void bcd(mbus_record *r, const uint8_t *p, unsigned n, bool may_be_negative)
{
    uint64_t value = 0;

    r->type = MBUS_TYPE_NUMBER;
    for (unsigned i = 0; i < n; i++) {
        uint8_t byte = p[r->msb_first ? i : n - 1 - i];
        unsigned high = byte >> 4, low = byte & 15u;
        if (i == 0 && high == 15 && may_be_negative) {
            r->number.negative = true;
            high = 0;
        }
        if (high > 9 || low > 9)
            r->flags |= MBUS_FLAG_BCD_INVALID;
        value = value * 100 + (high * 10 + low);
    }
    if (r->flags & MBUS_FLAG_BCD_INVALID)
        r->number.negative = false;
    else if (r->number.negative)
        r->flags |= MBUS_FLAG_BCD_NEGATIVE;
    r->number.magnitude = value;
}

/* Type H: IEEE 754 single. */
static void real(mbus_record *r, const uint8_t *p)
{
    uint32_t word = (uint32_t)load(p, 4, r->msb_first);

    r->type = MBUS_TYPE_REAL;
    memcpy(&r->real, &word, sizeof r->real);
    if ((word & 0x7F800000u) == 0x7F800000u)
        r->flags |= MBUS_FLAG_NOT_A_NUMBER;
}

/* ------------------------------------------------------------------ dates and times */

enum { EVERY_YEAR = 127 };

static unsigned days_of(unsigned year, unsigned month)
{
    static const uint8_t days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;

    return month == 2 && leap ? 29 : days[month - 1];
}

bool mbus_is_date(const mbus_time *t)
{
    return t->year > EVERY_YEAR && t->month >= 1 && t->month <= 12 && t->day >= 1 && t->day <= days_of(t->year, t->month);
}

static bool is_clock(const mbus_time *t)
{
    return t->hour <= 23 && t->minute <= 59 && t->second <= 59;
}

/* Day and month of the two octets that types F, G and I share. Returns the seven bits of the year. */
static unsigned day_and_month(mbus_time *t, uint8_t first, uint8_t second)
{
    t->day = first & 0x1F;
    t->month = second & 0x0F;
    return (unsigned)(first >> 5) | (unsigned)(second >> 4) << 3;
}

/* Two-digit years: up to 80 is this century; 100..126 mean nothing. */
static uint16_t full_year(unsigned year)
{
    return (uint16_t)(year >= 100 ? EVERY_YEAR : year <= 80 ? 2000 + year : 1900 + year);
}

static void check_time(mbus_record *r, bool date, bool clock)
{
    if ((date && !mbus_is_date(&r->time)) || (clock && !is_clock(&r->time)))
        r->flags |= MBUS_FLAG_DATE_INVALID;
}

/* Octets in mode 1 order, whatever the mode. */
static void octets(const mbus_record *r, const uint8_t *p, unsigned n, uint8_t out[6])
{
    for (unsigned i = 0; i < n; i++)
        out[i] = p[r->msb_first ? n - 1 - i : i];
}

static void type_g(mbus_record *r, const uint8_t *o)
{
    r->type = MBUS_TYPE_DATE;
    r->time.year = full_year(day_and_month(&r->time, o[0], o[1]));
    check_time(r, true, false);
}

static void type_f(mbus_record *r, const uint8_t *o)
{
    unsigned year = day_and_month(&r->time, o[2], o[3]);
    unsigned hundreds = o[1] >> 5 & 3u;

    r->type = MBUS_TYPE_DATETIME;
    r->time.minute = o[0] & 0x3F;
    r->time.hour = o[1] & 0x1F;
    /* The hundred-year bits came with a later edition: meters that leave them 0 mean this century up to 80. */
    r->time.year = hundreds == 0 || year >= 100 ? full_year(year) : (uint16_t)(1900 + 100 * hundreds + year);
    if (o[0] & 0x80)
        r->flags |= MBUS_FLAG_TIME_INVALID;
    if (o[1] & 0x80)
        r->flags |= MBUS_FLAG_SUMMER_TIME;
    if (hundreds)
        r->flags |= MBUS_FLAG_HUNDRED_YEARS;
    check_time(r, true, true);
}

static void type_i(mbus_record *r, const uint8_t *o)
{
    unsigned year = day_and_month(&r->time, o[3], o[4]);

    r->type = MBUS_TYPE_DATETIME;
    r->time.second = o[0] & 0x3F;
    r->time.minute = o[1] & 0x3F;
    r->time.hour = o[2] & 0x1F;
    r->time.has_seconds = true;
    r->time.year = (uint16_t)(year >= 100 ? EVERY_YEAR : 2000 + year);
    if (o[1] & 0x80)
        r->flags |= MBUS_FLAG_TIME_INVALID;
    if (o[0] & 0x40)
        r->flags |= MBUS_FLAG_SUMMER_TIME;
    check_time(r, true, true);
}

static void type_j(mbus_record *r, const uint8_t *o)
{
    r->type = MBUS_TYPE_TIME;
    r->time.second = o[0] & 0x3F;
    r->time.minute = o[1] & 0x3F;
    r->time.hour = o[2] & 0x1F;
    r->time.has_seconds = true;
    check_time(r, false, true);
}

static bool codes_date(const mbus_record *r)
{
    return r->coding == MBUS_CODING_DATE || r->coding == MBUS_CODING_DATETIME || r->coding == MBUS_CODING_ANYDATE;
}

/* Which type a date VIF has follows from the length of its data. False: it has none of this length. */
static bool date(mbus_record *r, const uint8_t *p)
{
    uint8_t o[6];

    if (r->field == 2 || r->field == 3 || r->field == 4 || r->field == 6)
        octets(r, p, r->field, o);
    if (r->field == 2) {
        type_g(r, o);
        if (r->coding == MBUS_CODING_DATETIME) /* 6D with 16 bits is met in the field */
            r->flags |= MBUS_FLAG_MISMATCH;
        return true;
    }
    if (r->coding == MBUS_CODING_DATE)
        return false;
    if (r->field == 3)
        type_j(r, o);
    else if (r->field == 4)
        type_f(r, o);
    else if (r->field == 6)
        type_i(r, o);
    else
        return false;
    return true;
}

/* ------------------------------------------------------------------ variable length */

static void byte_string(mbus_record *r, mbus_type type, const uint8_t *p, unsigned n)
{
    r->type = type;
    r->bytes = p;
    r->length = (uint16_t)n;
    if (type == MBUS_TYPE_STRING)
        for (unsigned i = 0; i < n; i++)
            if (p[i] < 0x20 || (p[i] >= 0x7F && p[i] < 0xA0))
                r->flags |= MBUS_FLAG_NOT_PRINTABLE;
}

/* LVAR (EN 13757-3:2018, table 6). */
static void variable_length(mbus_record *r)
{
    unsigned lvar = r->data[0], n = r->data_length - 1u;
    const uint8_t *p = r->data + 1;
    bool dated = codes_date(r);

    if (r->coding == MBUS_CODING_RAW || r->coding == MBUS_CODING_PROFILE) {
        byte_string(r, MBUS_TYPE_BYTES, p, n);
        return;
    }
    if (lvar <= 0xBF) {
        byte_string(r, MBUS_TYPE_STRING, p, n);
        if (dated)
            r->flags |= MBUS_FLAG_MISMATCH;
    } else if (lvar <= 0xD9) {
        bcd(r, p, n, false);
        r->length = (uint16_t)n;
        r->number.negative = lvar >= 0xD0 && !(r->flags & MBUS_FLAG_BCD_INVALID);
        if (n == 0) /* no digit is no number */
            r->flags |= MBUS_FLAG_VALUE_INVALID;
        if (dated)
            r->flags |= MBUS_FLAG_MISMATCH;
    } else if (n >= 1 && n <= 8 && !dated && !(r->flags & MBUS_FLAG_OPAQUE)) {
        integer(r, p, n);
        r->length = (uint16_t)n;
        r->flags |= MBUS_FLAG_BINARY_LVAR;
    } else { /* type M has a date's VIF: its layout is not public */
        byte_string(r, MBUS_TYPE_BYTES, p, n);
    }
}

/* ------------------------------------------------------------------ all of it */

static void decode_field(mbus_record *r)
{
    const uint8_t *p = r->data;
    bool dated = codes_date(r);

    if (r->data_length == 0)
        return;
    if (r->field == 0x0D) {
        variable_length(r);
        return;
    }
    if (dated && date(r, p))
        return;
    if (dated)
        r->flags |= MBUS_FLAG_MISMATCH;
    if (r->coding == MBUS_CODING_DST_RULE && r->field == 4)
        byte_string(r, MBUS_TYPE_BYTES, p, 4);
    else if (r->field == 5)
        real(r, p);
    else if (r->field >= 9)
        bcd(r, p, r->data_length, r->coding != MBUS_CODING_ID); /* digits of a name have no sign */
    else
        integer(r, p, r->data_length);
}

void value_decode(mbus_record *r)
{
    decode_field(r);
    if ((r->quantity == MBUS_QUANTITY_IDENTIFICATION && r->field == 7) ||
        (r->quantity == MBUS_QUANTITY_BUS_ADDRESS && (r->field == 6 || r->field == 7)))
        r->flags |= MBUS_FLAG_ADDRESS_BLOCK;
}
