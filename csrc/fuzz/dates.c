/* dates.c - fuzz target: dates and times of types F, G, I and J against a second reading of their bits, and back to bytes.
 *
 * Input: options (1 msb_first, bits 1..2 length 2, 3, 4 or 6 bytes, bits 3..4 VIB), then the bytes on the wire.
 */
#include "fuzz.h"

#include <time.h>

enum { EVERY_YEAR = 127, REAL_FLAGS = MBUS_FLAG_TIME_INVALID | MBUS_FLAG_SUMMER_TIME | MBUS_FLAG_HUNDRED_YEARS };

static const uint8_t vibs[4][3] = {{0x6D}, {0x6C}, {0x93, 0x39}, {0xFD, 0x70}};
static const uint8_t vib_sizes[4] = {1, 1, 2, 2};
static const uint8_t lengths[4] = {2, 3, 4, 6};

/* What the bits say, by the drawings of EN 13757-3:2018, Annex A: bit numbers of the value as one little-endian integer. */
typedef struct fields {
    mbus_type type;
    unsigned minute, hour, second, day, month, year7, hundreds;
    bool has_seconds, invalid, summer;
} fields;

static unsigned bits(uint64_t value, unsigned first, unsigned count)
{
    return (unsigned)(value >> first & ((1u << count) - 1));
}

static fields fields_of(uint64_t v, unsigned length)
{
    fields f = {.type = MBUS_TYPE_DATETIME, .has_seconds = length == 3 || length == 6};
    unsigned date = length == 2 ? 0 : length == 4 ? 16 : 24; /* where the two octets of the date begin */

    if (length != 3) {
        f.day = bits(v, date, 5);
        f.month = bits(v, date + 8, 4);
        f.year7 = bits(v, date + 5, 3) | bits(v, date + 12, 4) << 3;
    }
    if (length == 2) {
        f.type = MBUS_TYPE_DATE;
    } else if (length == 4) {
        f.minute = bits(v, 0, 6);
        f.invalid = bits(v, 7, 1);
        f.hour = bits(v, 8, 5);
        f.hundreds = bits(v, 13, 2);
        f.summer = bits(v, 15, 1);
    } else {
        f.second = bits(v, 0, 6);
        f.minute = bits(v, 8, 6);
        f.hour = bits(v, 16, 5);
        if (length == 3) {
            f.type = MBUS_TYPE_TIME;
        } else {
            f.summer = bits(v, 6, 1);
            f.invalid = bits(v, 15, 1);
        }
    }
    return f;
}

static unsigned year_of(const fields *f, unsigned length)
{
    if (f->year7 > 99)
        return EVERY_YEAR;
    if (length == 6)
        return 2000 + f->year7;
    if (f->hundreds)
        return 1900 + 100 * f->hundreds + f->year7;
    return f->year7 > 80 ? 1900 + f->year7 : 2000 + f->year7;
}

static bool is_day(unsigned year, unsigned month, unsigned day)
{
    static const uint8_t days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    bool leap = year % 400 == 0 || (year % 4 == 0 && year % 100 != 0);

    return month >= 1 && month <= 12 && day >= 1 && day <= (month == 2 && leap ? 29u : days[month - 1]);
}

static bool is_good(const fields *f, unsigned year)
{
    bool date = f->type == MBUS_TYPE_TIME || (year != EVERY_YEAR && is_day(year, f->month, f->day));
    bool clock = f->type == MBUS_TYPE_DATE || (f->hour < 24 && f->minute < 60 && f->second < 60);

    return date && clock;
}

static void check_fields(const mbus_record *r, const fields *f, unsigned year)
{
    CHECK(r->type == f->type);
    if (f->type != MBUS_TYPE_TIME)
        CHECK(r->time.year == year && r->time.month == f->month && r->time.day == f->day);
    if (f->type != MBUS_TYPE_DATE)
        CHECK(r->time.hour == f->hour && r->time.minute == f->minute && r->time.second == f->second);
    CHECK(r->time.has_seconds == f->has_seconds);
    CHECK(!(r->flags & MBUS_FLAG_TIME_INVALID) == !f->invalid);
    CHECK(!(r->flags & MBUS_FLAG_SUMMER_TIME) == !f->summer);
    CHECK(!(r->flags & MBUS_FLAG_HUNDRED_YEARS) == !f->hundreds);
    CHECK(!(r->flags & MBUS_FLAG_DATE_INVALID) == is_good(f, year));
}

static void check_text(const mbus_record *r, const fields *f, unsigned year)
{
    char text[MBUS_TIME_TEXT_MAX + 1], expected[64] = "", *exact;
    int n = mbus_time_text(&r->time, r->type, text, MBUS_TIME_TEXT_MAX);

    CHECK(n > 0 && n <= MBUS_TIME_TEXT_MAX);
    text[n] = '\0';
    if (is_good(f, year)) {
        if (f->type == MBUS_TYPE_DATE)
            snprintf(expected, sizeof expected, "%04u-%02u-%02u", year, f->month, f->day);
        else if (f->type == MBUS_TYPE_TIME)
            snprintf(expected, sizeof expected, "%02u:%02u:%02u", f->hour, f->minute, f->second);
        else
            snprintf(expected, sizeof expected, "%04u-%02u-%02uT%02u:%02u:%02u", year, f->month, f->day, f->hour, f->minute, f->second);
        CHECK(strcmp(text, expected) == 0);
    }
    CHECK(strspn(text, "0123456789-:T*") == (size_t)n);
    CHECK(!strchr(text, '*') || !is_good(f, year));
    exact = malloc((size_t)n);
    CHECK(exact != NULL);
    CHECK(mbus_time_text(&r->time, r->type, exact, (size_t)n) == n && memcmp(exact, text, (size_t)n) == 0);
    CHECK(mbus_time_text(&r->time, r->type, exact, (size_t)n - 1) == MBUS_E_NO_SPACE);
    free(exact);
}

/* Weekday and week of type I, by the C library. */
static void check_week(const mbus_record *r, uint64_t v)
{
    struct tm day = {.tm_year = r->time.year - 1900, .tm_mon = r->time.month - 1, .tm_mday = r->time.day, .tm_hour = 12};
    char week[16];

    CHECK(mktime(&day) != (time_t)-1);
    CHECK(strftime(week, sizeof week, "%V %u", &day) > 0);
    CHECK(bits(v, 40, 6) == strtoul(week, NULL, 10) && bits(v, 21, 3) == strtoul(week + 3, NULL, 10));
    CHECK(bits(v, 7, 1) == is_day(r->time.year, 2, 29));
}

static uint64_t load(const uint8_t *p, unsigned n, bool msb_first)
{
    uint64_t value = 0;

    for (unsigned i = 0; i < n; i++)
        value |= (uint64_t)p[msb_first ? n - 1 - i : i] << 8 * i;
    return value;
}

static void read_record(const uint8_t *bytes, size_t n, bool msb_first, mbus_record *r)
{
    mbus_cursor cursor = {.bytes = bytes, .end = (uint16_t)n, .structure = MBUS_PAYLOAD_RECORDS, .msb_first = msb_first};

    CHECK(mbus_next(&cursor, r) == 1 && cursor.position == n);
}

/* A good time is written and reads the same; it is the same bytes wherever the bits that a reader ignores are as we write them. */
static void check_written(const mbus_record *r, const fields *f, uint64_t v, unsigned length)
{
    uint8_t out[16], *exact;
    const char *problem = NULL;
    int n = mbus_record_write(r, out, sizeof out, &problem);
    bool has_place = !(length == 4 && f->hundreds && year_of(f, length) < 1981);
    mbus_record again;
    uint64_t w;

    if (!has_place) { /* 1900 to 1980: read from the hundred-year bits alone, and refused with a reason */
        CHECK(n == MBUS_E_BAD_VALUE && problem != NULL);
        return;
    }
    CHECK(n == (int)(r->dib_length + r->vib_length + length));
    exact = fuzz_exact(out, (size_t)n);
    CHECK(mbus_record_write(r, exact, (size_t)n - 1, NULL) == MBUS_E_NO_SPACE);
    read_record(out, (size_t)n, r->msb_first, &again);
    free(exact);
    CHECK(again.type == r->type && again.flags == (r->flags & ~(unsigned)MBUS_FLAG_HUNDRED_YEARS) + (again.flags & MBUS_FLAG_HUNDRED_YEARS));
    CHECK(again.time.year == r->time.year && again.time.month == r->time.month && again.time.day == r->time.day);
    CHECK(again.time.hour == r->time.hour && again.time.minute == r->time.minute && again.time.second == r->time.second);
    w = load(out + n - length, length, r->msb_first);
    if (length == 6)
        check_week(&again, w);
    if (length == 2)
        CHECK(w == v);
    if (length == 3)
        CHECK(w == (v & 0x1F3F3F));
    if (length == 4 && (f->hundreds == 0 || year_of(f, length) >= 2000))
        CHECK(w == (v & ~(uint64_t)0x40));
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    unsigned options = n ? bytes[0] : 0, length = lengths[options >> 1 & 3], vib = options >> 3 & 3;
    bool msb_first = options & 1;
    uint8_t record[16], *exact;
    size_t size = 1u + vib_sizes[vib] + length;
    mbus_record r;
    fields f;
    unsigned year;
    uint64_t v;

    if (n != 1 + length)
        return 0;
    record[0] = (uint8_t)length;
    memcpy(record + 1, vibs[vib], vib_sizes[vib]);
    memcpy(record + 1 + vib_sizes[vib], bytes + 1, length);
    exact = fuzz_exact(record, size);
    read_record(exact, size, msb_first, &r);
    if (vib == 1 && length != 2) { /* 6C is a date alone */
        CHECK(r.type == MBUS_TYPE_NUMBER && r.flags & MBUS_FLAG_MISMATCH && !(r.flags & REAL_FLAGS));
    } else {
        v = load(bytes + 1, length, msb_first);
        f = fields_of(v, length);
        year = year_of(&f, length);
        CHECK(!(r.flags & MBUS_FLAG_MISMATCH) == !(length == 2 && r.coding == MBUS_CODING_DATETIME));
        check_fields(&r, &f, year);
        check_text(&r, &f, year);
        if (is_good(&f, year) && !f.invalid)
            check_written(&r, &f, v, length);
    }
    free(exact);
    return 0;
}
