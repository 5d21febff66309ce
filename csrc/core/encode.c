/* encode.c - records to bytes: DIB, VIB and data (EN 13757-3:2018, 6.2 to 6.5 and Annex A). */
#include "vif.h"

#include <string.h>

enum { EXTENSION = 0x80, TEXT_MAX = 0xBF, LVAR_BCD_MAX = 9 };

typedef struct writer {
    uint8_t *out;
    size_t size, capacity;
} writer;

static void put(writer *w, unsigned byte)
{
    if (w->size < w->capacity)
        w->out[w->size] = (uint8_t)byte;
    w->size++;
}

static void put_bytes(writer *w, const uint8_t *bytes, size_t n)
{
    while (n--)
        put(w, *bytes++);
}

/* Says what would fit. */
static int refuse(const char **problem, const char *text)
{
#ifdef MBUS_NO_NAMES
    text = "";
#endif
    *problem = text;
    return MBUS_E_BAD_VALUE;
}

/* ------------------------------------------------------------------ DIB and VIB */

static int put_dib(writer *w, const mbus_record *r, const char **problem)
{
    uint64_t storage = r->storage >> 1;
    uint32_t tariff = r->tariff;
    unsigned subunit = r->subunit;
    unsigned byte = (r->field & 15u) | (r->function & 3u) << 4 | (unsigned)(r->storage & 1) << 6;
    bool final = (r->flags & MBUS_FLAG_FINAL_DIFE) != 0;

    if (r->storage >> 41)
        return refuse(problem, "a storage number has 41 bits");
    if (r->tariff >> 20)
        return refuse(problem, "a tariff has 20 bits");
    if (r->subunit >> 10)
        return refuse(problem, "a subunit has 10 bits");
    while (storage || tariff || subunit) {
        put(w, byte | EXTENSION);
        byte = (unsigned)(storage & 15) | (tariff & 3u) << 4 | (subunit & 1u) << 6;
        storage >>= 4;
        tariff >>= 2;
        subunit >>= 1;
    }
    put(w, byte | (final ? EXTENSION : 0u));
    if (final)
        put(w, 0);
    return MBUS_OK;
}

int mbus_vif_write(unsigned table, unsigned code, bool more, uint8_t *out, size_t capacity)
{
    writer w = {out, 0, capacity};

    if ((code == 0x7D && table != VIF_FB && table != VIF_FDFD) || (code == 0x7B && table == VIF_PRIMARY))
        return MBUS_E_BAD_VALUE; /* not a VIF but the way to another table */
    if (table == VIF_FB)
        put(&w, 0xFB);
    if (table == VIF_FD || table == VIF_FDFD)
        put(&w, 0xFD);
    if (table == VIF_FDFD)
        put(&w, 0xFD);
    put(&w, (code & 0x7Fu) | (more ? EXTENSION : 0u));
    return w.size <= capacity ? (int)w.size : MBUS_E_NO_SPACE;
}

unsigned mbus_vif_quantity(unsigned table, unsigned code)
{
    return vif_find((vif_table)table, code)->quantity;
}

/* ------------------------------------------------------------------ numbers */

static void put_number(writer *w, uint64_t value, unsigned n, bool msb_first)
{
    for (unsigned i = 0; i < n; i++)
        put(w, (unsigned)(value >> 8 * (msb_first ? n - 1 - i : i) & 0xFF));
}

static bool is_unsigned(const mbus_record *r)
{
    return r->coding == MBUS_CODING_UNSIGNED || r->coding == MBUS_CODING_BITS || r->coding == MBUS_CODING_ID;
}

/* The codes for "not available" are no numbers, so they don't fit either. */
static bool fits(const mbus_record *r, unsigned n)
{
    uint64_t magnitude = r->number.magnitude;
    uint64_t all = ~(uint64_t)0 >> (64 - 8 * n);
    bool opaque = (r->flags & MBUS_FLAG_OPAQUE) != 0;

    if (is_unsigned(r))
        return !(r->number.negative && magnitude) && (magnitude < all || (magnitude == all && (opaque || r->coding == MBUS_CODING_BITS)));
    return magnitude <= all >> 1 || (r->number.negative && opaque && magnitude == (all >> 1) + 1);
}

static int put_integer(writer *w, const mbus_record *r, unsigned n, const char **problem)
{
    static const char *const problems[] = {
        "", "one byte holds -127 to 127 (unsigned: 0 to 254)", "two bytes hold -32767 to 32767 (unsigned: 0 to 65534)",
        "three bytes hold -8388607 to 8388607 (unsigned: 0 to 16777214)",
        "four bytes hold -2147483647 to 2147483647 (unsigned: 0 to 4294967294)", "the number is too large for 5 bytes",
        "six bytes hold 47 bits and a sign (unsigned: 48 bits)", "the number is too large for 7 bytes",
        "eight bytes hold 63 bits and a sign (unsigned: 64 bits)"};
    uint64_t value = r->number.negative ? 0 - r->number.magnitude : r->number.magnitude;

    if (!fits(r, n))
        return refuse(problem, problems[n]);
    put_number(w, value, n, r->msb_first);
    return MBUS_OK;
}

static uint64_t bcd_of(uint64_t value, unsigned digits, uint64_t *rest)
{
    uint64_t bcd = 0;

    for (unsigned i = 0; i < digits; i++, value /= 10)
        bcd |= (uint64_t)(value % 10) << 4 * i;
    *rest = value;
    return bcd;
}

/* 2n digits; a minus sign is an F in place of the top one. */
static int put_bcd(writer *w, const mbus_record *r, unsigned n, const char **problem)
{
    bool negative = r->number.negative && r->number.magnitude;
    uint64_t rest, bcd = bcd_of(r->number.magnitude, 2 * n - negative, &rest);
    static const char *const problems[] = {"", "2 digits hold -9 to 99", "4 digits hold -999 to 9999", "6 digits hold -99999 to 999999",
                                           "8 digits hold -9999999 to 99999999", "", "12 digits hold -99999999999 to 999999999999"};

    if (rest)
        return refuse(problem, problems[n]);
    if (negative && r->coding == MBUS_CODING_ID)
        return refuse(problem, "digits of a number that names something have no sign");
    if (negative)
        bcd |= (uint64_t)15 << (8 * n - 4);
    put_number(w, bcd, n, r->msb_first);
    return MBUS_OK;
}

/* LVAR C0..C9 and D0..D9: sign in the code, up to 18 digits. */
static int put_lvar_bcd(writer *w, const mbus_record *r, const char **problem)
{
    uint64_t rest, low = bcd_of(r->number.magnitude, 16, &rest), high = bcd_of(rest, 2, &rest);
    unsigned n = r->length;

    for (unsigned i = 1; n == 0; i++)
        if (i > 8 || (low >> 4 * (2 * i - 1) >> 4 == 0 && high == 0))
            n = i;
    if (rest || n > LVAR_BCD_MAX || (n < 9 && high) || (n < 8 && low >> 8 * n))
        return refuse(problem, "that many digits do not fit; 18 are the limit");
    put(w, (r->number.negative && r->number.magnitude ? 0xD0 : 0xC0) + n);
    if (n == 9 && r->msb_first)
        put(w, (unsigned)high);
    put_number(w, low, n < 8 ? n : 8, r->msb_first);
    if (n == 9 && !r->msb_first)
        put(w, (unsigned)high);
    return MBUS_OK;
}

/* LVAR E0..EF. */
static int put_lvar_integer(writer *w, const mbus_record *r, const char **problem)
{
    unsigned n = r->length;

    for (unsigned i = 1; n == 0; i++)
        if (i == 8 || fits(r, i))
            n = i;
    if (n > 8)
        return refuse(problem, "a binary number has 8 bytes at most");
    put(w, 0xE0 + n);
    return put_integer(w, r, n, problem);
}

static void put_real(writer *w, const mbus_record *r)
{
    uint32_t word;

    memcpy(&word, &r->real, sizeof word);
    put_number(w, word, 4, r->msb_first);
}

/* ------------------------------------------------------------------ dates */

static bool is_within(unsigned value, unsigned low, unsigned high)
{
    return value >= low && value <= high;
}

/* Octets 3 and 4 of types F and I are a type G. */
static void date_octets(const mbus_time *t, uint8_t *o)
{
    unsigned year = t->year % 100u;

    o[0] = (uint8_t)(t->day | (year & 7) << 5);
    o[1] = (uint8_t)(t->month | (year >> 3) << 4);
}

/* Monday 1 .. Sunday 7, of the Gregorian calendar (Sakamoto). */
static unsigned weekday(const mbus_time *t)
{
    static const uint8_t shift[] = {0, 3, 2, 5, 0, 3, 5, 1, 4, 6, 2, 4};
    unsigned year = t->month < 3 ? t->year - 1u : t->year;
    unsigned day = (year + year / 4 - year / 100 + year / 400 + shift[t->month - 1] + t->day) % 7;

    return day ? day : 7;
}

static bool is_leap(unsigned year)
{
    return (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
}

static unsigned day_of_year(const mbus_time *t)
{
    static const uint16_t before[] = {0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334};
    return before[t->month - 1] + t->day + (t->month > 2 && is_leap(t->year) ? 1u : 0u);
}

/* ISO 8601: week 1 holds the year's first Thursday. */
static unsigned week(const mbus_time *t)
{
    mbus_time last = *t;
    unsigned number = (day_of_year(t) + 10 - weekday(t)) / 7, last_day;

    last.month = 12;
    last.day = 31;
    last_day = weekday(&last);
    if (number == 53 && last_day < 4)
        return 1;
    if (number == 0) {
        last.year--;
        return (day_of_year(&last) + 10 - weekday(&last)) / 7;
    }
    return number;
}

static void type_f(const mbus_record *r, uint8_t *o)
{
    const mbus_time *t = &r->time;
    /* Up to 2080 the hundred-year bits stay 0: an old reader takes them for reserved, a new one knows the rule. */
    bool in_use = t->year > 2080 || (t->year >= 2000 && (r->flags & MBUS_FLAG_HUNDRED_YEARS));
    unsigned hundreds = in_use ? (t->year - 1900u) / 100 : 0;

    o[0] = t->minute;
    o[1] = (uint8_t)(t->hour | hundreds << 5 | (r->flags & MBUS_FLAG_SUMMER_TIME ? 0x80u : 0u));
    date_octets(t, o + 2);
}

static void type_i(const mbus_record *r, uint8_t *o)
{
    const mbus_time *t = &r->time;
    bool summer = (r->flags & MBUS_FLAG_SUMMER_TIME) != 0;

    o[0] = (uint8_t)(t->second | (summer ? 0x40u : 0u) | (is_leap(t->year) ? 0x80u : 0u));
    o[1] = (uint8_t)(t->minute | (summer ? 0x40u : 0u)); /* summer time is one hour ahead */
    o[2] = (uint8_t)(t->hour | weekday(t) << 5);
    date_octets(t, o + 3);
    o[5] = (uint8_t)(week(t) | (summer ? 0x40u : 0u));
}

static int put_time(writer *w, const mbus_record *r, const char **problem)
{
    const mbus_time *t = &r->time;
    uint8_t o[6];
    unsigned n = r->field;

    if (n != 3 && !mbus_is_date(t))
        return refuse(problem, "not a calendar date");
    if (n != 2 && (t->hour > 23 || t->minute > 59 || t->second > 59))
        return refuse(problem, "not a time of day");
    switch (n) {
    case 2:
        if (!is_within(t->year, 1981, 2080))
            return refuse(problem, "type G holds the years 1981 to 2080");
        date_octets(t, o);
        break;
    case 3:
        o[0] = t->second;
        o[1] = t->minute;
        o[2] = t->hour;
        break;
    case 4:
        if (!is_within(t->year, 1981, 2299))
            return refuse(problem, "type F holds the years 1981 to 2299");
        type_f(r, o);
        break;
    case 6:
        if (!is_within(t->year, 2000, 2099))
            return refuse(problem, "type I holds the years 2000 to 2099");
        type_i(r, o);
        break;
    default:
        return refuse(problem, "a date has 2, 4 or 6 bytes, a time of day 3");
    }
    for (unsigned i = 0; i < n; i++)
        put(w, o[r->msb_first ? n - 1 - i : i]);
    return MBUS_OK;
}

/* ------------------------------------------------------------------ all of it */

static int put_string(writer *w, const mbus_record *r, const char **problem)
{
    unsigned n = r->length;

    if (r->type == MBUS_TYPE_STRING || r->coding == MBUS_CODING_RAW || r->coding == MBUS_CODING_PROFILE) {
        if (n > TEXT_MAX)
            return refuse(problem, "a text or container has 191 bytes at most");
        put(w, n);
    } else if (n <= 15) {
        put(w, 0xE0 + n);
    } else if (n <= 32 && n % 4 == 0) {
        put(w, 0xEC + n / 4);
    } else if (n == 48 || n == 64) {
        put(w, n == 48 ? 0xF5 : 0xF6);
    } else {
        return refuse(problem, "binary data has 0 to 15, 16, 20, 24, 28, 32, 48 or 64 bytes");
    }
    put_bytes(w, r->bytes, n);
    return MBUS_OK;
}

static int put_data(writer *w, const mbus_record *r, const char **problem)
{
    static const uint8_t sizes[16] = {0, 1, 2, 3, 4, 4, 6, 8, 0, 1, 2, 3, 4, 0, 6, 0};
    bool is_number = r->type == MBUS_TYPE_NUMBER;

    if (r->field == 0 || r->field == 8)
        return MBUS_OK;
    if (r->field == 0x0F)
        return refuse(problem, "data field F is no record");
    if (r->type == MBUS_TYPE_STRING || (r->type == MBUS_TYPE_BYTES && r->field == 0x0D))
        return r->field == 0x0D ? put_string(w, r, problem) : refuse(problem, "a text needs data of variable length");
    if (r->type == MBUS_TYPE_BYTES && r->length == sizes[r->field]) {
        put_bytes(w, r->bytes, r->length);
        return MBUS_OK;
    }
    if (r->type >= MBUS_TYPE_DATE && r->type <= MBUS_TYPE_TIME)
        return put_time(w, r, problem);
    if (r->field == 5) {
        if (r->type != MBUS_TYPE_REAL)
            return refuse(problem, "real32 holds a float");
        put_real(w, r);
        return MBUS_OK;
    }
    if (!is_number)
        return refuse(problem, "the field holds a number");
    if (r->field == 0x0D)
        return r->flags & MBUS_FLAG_BINARY_LVAR ? put_lvar_integer(w, r, problem) : put_lvar_bcd(w, r, problem);
    return r->field >= 9 ? put_bcd(w, r, sizes[r->field], problem) : put_integer(w, r, sizes[r->field], problem);
}

int mbus_record_write(const mbus_record *r, uint8_t *out, size_t capacity, const char **problem)
{
    writer w = {out, 0, capacity};
    const char *ignored;
    int rc;

    if (!problem)
        problem = &ignored;
    *problem = "";
    rc = put_dib(&w, r, problem);
    if (rc != MBUS_OK)
        return rc;
    put_bytes(&w, r->vib, r->vib_length);
    rc = put_data(&w, r, problem);
    if (rc != MBUS_OK)
        return rc;
    if (w.size > capacity) {
        refuse(problem, "the result does not fit the buffer");
        return MBUS_E_NO_SPACE;
    }
    return (int)w.size;
}
