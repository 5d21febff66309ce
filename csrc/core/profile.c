/* profile.c - compact profiles (EN 13757-3:2018, Annex F): one record that packs a series of values. */
#include "vif.h"

#include <string.h>

enum { ABSOLUTE = 0, INCREMENTS = 1, DECREMENTS = 2, DIFFERENCES = 3 };
enum { HALF_MONTHS = 253, MONTHS = 254, SPACING_MAX = 250, INVERSE = 0x13 };

static bool is_profile_vife(unsigned code)
{
    return code == INVERSE || code == 0x1E || code == 0x1F;
}

/* The next VIFE that says something about the value itself. */
static unsigned next_plain_vife(const mbus_record *r, unsigned *state)
{
    unsigned code;

    while (mbus_next_vife(r, state, &code))
        if (!is_profile_vife(code))
            return code;
    return 0x10000u;
}

/* Same function, storage, tariff, subunit and VIF but for the profile VIFE. */
static bool is_base_value(const mbus_record *r, const mbus_record *profile)
{
    unsigned a, b, state = 0, profile_state = 0;

    if (r->type != MBUS_TYPE_NUMBER || (r->flags & MBUS_FLAGS_NO_VALUE) || r->storage != profile->storage || r->tariff != profile->tariff ||
        r->subunit != profile->subunit || r->function != profile->function || r->quantity != profile->quantity || r->unit != profile->unit ||
        r->number.exponent != profile->number.exponent)
        return false;
    do {
        a = next_plain_vife(r, &state);
        b = next_plain_vife(profile, &profile_state);
    } while (a == b && a < 0x10000u);
    return a == b;
}

static bool is_base_time(const mbus_record *r, const mbus_record *profile)
{
    unsigned state = 0, code;

    return (r->type == MBUS_TYPE_DATE || r->type == MBUS_TYPE_DATETIME) && !(r->flags & MBUS_FLAGS_NO_VALUE) &&
           r->storage == profile->storage && r->subunit == profile->subunit &&
           (r->quantity == MBUS_QUANTITY_DATE || r->quantity == MBUS_QUANTITY_DATETIME) && !mbus_next_vife(r, &state, &code);
}

/* The nearest base value and base time before the profile, as a telegram may hold several sets. The profile itself may be met
 * as well, and is neither. */
static void find_bases(const mbus_telegram *t, mbus_profile *p)
{
    mbus_cursor cursor = t->records;
    mbus_record r;

    while (cursor.position < p->record.position && mbus_next(&cursor, &r) > 0) {
        if (is_base_value(&r, &p->record)) {
            p->has_base = r.number.magnitude <= INT64_MAX;
            p->sum = p->has_base ? (int64_t)r.number.magnitude : 0;
            if (r.number.negative)
                p->sum = -p->sum;
        } else if (is_base_time(&r, &p->record)) {
            p->time_type = r.type;
            p->base_time = r.time;
        }
    }
}

int mbus_profile_open(const mbus_telegram *t, const mbus_record *record, mbus_profile *p)
{
    unsigned state = 0, code;

    memset(p, 0, sizeof *p);
    p->record = *record;
    if (record->coding != MBUS_CODING_PROFILE || record->type != MBUS_TYPE_BYTES)
        return MBUS_E_BAD_VALUE;
    if (record->length < 2)
        return MBUS_E_DATA_END;
    while (mbus_next_vife(record, &state, &code))
        if (is_profile_vife(code))
            p->inverse = code == INVERSE;
    p->mode = record->bytes[0] >> 6;
    p->spacing_unit = record->bytes[0] >> 4 & 3;
    p->field = record->bytes[0] & 15;
    p->spacing = record->bytes[1];
    p->next = record->bytes + 2;
    p->end = record->bytes + record->length;
    p->time_type = MBUS_TYPE_NONE;
    if (p->field == 0 || p->field == 8 || p->field == 0xD || p->field == 0xF)
        return MBUS_E_BAD_VALUE;
    find_bases(t, p);
    return MBUS_OK;
}

/* ------------------------------------------------------------------ time */

/* Days since 1 March of year 0, in the Gregorian calendar; and back. */
static int64_t day_number(const mbus_time *t)
{
    int64_t year = t->month < 3 ? t->year - 1 : t->year, month = (t->month + 9) % 12;
    return 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + t->day - 1;
}

static void set_day(mbus_time *t, int64_t days)
{
    int64_t era = days / 146097, in_era = days % 146097;
    int64_t year = (in_era - in_era / 1460 + in_era / 36524 - in_era / 146096) / 365;
    int64_t in_year = in_era - (365 * year + year / 4 - year / 100), month = (5 * in_year + 2) / 153;

    t->day = (uint8_t)(in_year - (153 * month + 2) / 5 + 1);
    t->month = (uint8_t)(month < 10 ? month + 3 : month - 9);
    t->year = (uint16_t)(era * 400 + year + (t->month < 3));
}

static void add_seconds(mbus_time *t, int64_t seconds)
{
    int clock = (t->hour * 60 + t->minute) * 60 + t->second;
    int64_t total = day_number(t) * 86400 + clock + seconds;

    set_day(t, total / 86400);
    t->hour = (uint8_t)(total % 86400 / 3600);
    t->minute = (uint8_t)(total % 3600 / 60);
    t->second = (uint8_t)(total % 60);
}

/* The same day of another month, or that month's last day. */
static void add_months(mbus_time *t, int months)
{
    int month = t->year * 12 + t->month - 1 + months;
    mbus_time next = {.day = 1};
    int64_t length;

    t->year = (uint16_t)(month / 12);
    t->month = (uint8_t)(month % 12 + 1);
    next.year = (uint16_t)((month + 1) / 12);
    next.month = (uint8_t)((month + 1) % 12 + 1);
    length = day_number(&next) - day_number(&(mbus_time){.year = t->year, .month = t->month, .day = 1});
    if (t->day > length)
        t->day = (uint8_t)length;
}

/* Two halves a month: the 1st to the 15th, and the rest. */
static void add_half_months(mbus_time *t, int halves)
{
    int day = t->day, half = day > 15;

    t->day = 1;
    add_months(t, (halves + half - (halves + half < 0)) / 2);
    if ((halves + half) % 2)
        t->day = (uint8_t)(day > 15 ? day : day + 15);
    else
        t->day = (uint8_t)(day <= 15 ? day : day == 31 ? 15 : day - 15);
    add_months(t, 0); /* not beyond its end */
}

/* Time of the element `k` steps from the base; false where the spacing is not one of time. */
static bool time_of(const mbus_profile *p, int k, mbus_time *t)
{
    static const int32_t unit_seconds[] = {1, 60, 3600, 86400};
    static const uint8_t months[] = {0, 6, 3, 1};

    *t = p->base_time;
    if (p->inverse)
        k = -k;
    if (p->spacing >= 1 && p->spacing <= SPACING_MAX)
        add_seconds(t, (int64_t)k * p->spacing * unit_seconds[p->spacing_unit]);
    else if (p->spacing == MONTHS && p->spacing_unit)
        add_months(t, k * months[p->spacing_unit]);
    else if (p->spacing == HALF_MONTHS && p->spacing_unit == 3)
        add_half_months(t, k);
    else
        return false;
    return true;
}

/* ------------------------------------------------------------------ elements */

/* Adds up what modes 01 to 11 send. A missing base or element breaks the chain: no value from there on. */
static void accumulate(mbus_profile *p, mbus_record *element)
{
    int64_t step = (int64_t)element->number.magnitude;
    bool down = ((element->number.negative ? 1 : 0) ^ (p->mode == DECREMENTS) ^ (p->inverse ? 1 : 0)) != 0;

    if ((element->flags & MBUS_FLAGS_NO_VALUE) || element->type != MBUS_TYPE_NUMBER || element->number.magnitude > INT64_MAX / 4 ||
        p->sum > INT64_MAX / 4 || p->sum < -(INT64_MAX / 4))
        p->has_base = false;
    if (!p->has_base) {
        element->type = MBUS_TYPE_NUMBER;
        element->flags |= MBUS_FLAG_VALUE_INVALID;
        return;
    }
    p->sum += down ? -step : step;
    element->number.negative = p->sum < 0;
    element->number.magnitude = (uint64_t)(p->sum < 0 ? -p->sum : p->sum);
    element->flags = (uint16_t)(element->flags & ~(unsigned)MBUS_FLAG_BCD_NEGATIVE);
}

int mbus_profile_next(mbus_profile *p, mbus_record *element, mbus_time *time, mbus_type *time_type)
{
    int size = record_data_size(p->field, p->next, (unsigned)(p->end - p->next));

    if (p->next == p->end)
        return 0;
    if (size <= 0 || size > p->end - p->next) {
        p->next = p->end;
        return MBUS_E_DATA_END;
    }
    p->taken++;
    *element = p->record;
    element->storage += p->taken;
    element->field = p->field;
    element->data = p->next;
    element->data_length = (uint16_t)size;
    element->bytes = NULL;
    element->length = 0;
    element->coding = p->mode == ABSOLUTE || p->mode == DIFFERENCES ? MBUS_CODING_NUM : MBUS_CODING_UNSIGNED;
    p->next += size;
    value_decode(element);
    if (p->mode != ABSOLUTE)
        accumulate(p, element);
    *time_type = MBUS_TYPE_NONE;
    if (p->time_type != MBUS_TYPE_NONE && time_of(p, (int)p->taken, time)) {
        bool has_clock = p->time_type == MBUS_TYPE_DATETIME || (p->spacing <= SPACING_MAX && p->spacing_unit < 3);
        *time_type = has_clock ? MBUS_TYPE_DATETIME : MBUS_TYPE_DATE;
    }
    return 1;
}
