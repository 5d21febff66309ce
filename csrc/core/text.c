/* text.c - names, units, exact decimals, dates: what a record says, in text. */
#include "vif.h"

#include <string.h>

#ifndef MBUS_NO_NAMES

static const struct {
    const char *code, *kind, *text;
} errors[] = {
    {"ok", "ok", "no error"},
#define X(name, number, code, kind, text) {code, kind, text},
    MBUS_ERRORS(X)
#undef X
};

static int error_index(int error)
{
    return error <= 0 && error >= MBUS_E_LAST ? -error : 0;
}

const char *mbus_error_code(int error)
{
    return errors[error_index(error)].code;
}

const char *mbus_error_kind(int error)
{
    return errors[error_index(error)].kind;
}

const char *mbus_error_text(int error)
{
    return errors[error_index(error)].text;
}

/* ------------------------------------------------------------------ names */

const char *mbus_flag_name(unsigned bit)
{
    static const char *const names[] = {
#define X(id, number, name) name,
        MBUS_FLAGS(X)
#undef X
    };
    return bit < sizeof names / sizeof names[0] ? names[bit] : NULL;
}

/* EN 13757-7 table 13; 10..13 as two libraries name them, which the tables of OMS do not. */
const char *mbus_medium_name(unsigned medium)
{
    static const char *const names[] = {
        "other", "oil", "electricity", "gas", "heat", "steam", "warm water", "water", "heat cost allocator", "compressed air",
        "cooling (return)", "cooling (flow)", "heat (flow)", "heat/cooling", "bus/system component", "unknown",
        "irrigation water", "water data logger", "gas data logger", "gas converter", "calorific value", "hot water", "cold water",
        "dual register water", "pressure", "A/D converter", "smoke alarm", "room sensor", "gas detector", "carbon monoxide alarm",
        "heat alarm", "sensor",
        "breaker", "valve", "reserved", "reserved", "reserved", "customer unit", "reserved", "reserved", "waste water", "garbage",
        "carbon dioxide", "reserved", "reserved", "reserved", "reserved", "reserved", "system device", "communication controller",
        "unidirectional repeater", "bidirectional repeater", "reserved", "reserved", "radio converter (system side)",
        "radio converter (meter side)", "wired adapter"};
    return medium < sizeof names / sizeof names[0] ? names[medium] : medium == 0xFF ? "any" : "reserved";
}

const char *mbus_fixed_medium_name(unsigned medium)
{
    static const uint8_t device_type[] = {0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x15, 0x07, 0x08, 0x0F, 0x03, 0x04, 0x15, 0x07, 0x08, 0x0F};
    return mbus_medium_name(device_type[medium & 15u]);
}

const char *mbus_application_error_name(unsigned code)
{
    static const char *const names[] = {
        "unspecified", "unimplemented_ci", "buffer_too_long", "too_many_records", "premature_end_of_record", "too_many_dife",
        "too_many_vife", "reserved", "application_busy", "too_many_readouts", "reserved", "reserved", "reserved", "reserved",
        "reserved", "reserved", "access_denied", "unknown_command", "parameter_wrong", "unknown_receiver_address",
        "decryption_key_fails", "encryption_not_supported", "signature_not_supported"};
    return code < sizeof names / sizeof names[0] ? names[code] : code == 0xF0 ? "dynamic" : code > 0xF0 ? "manufacturer_specific" : "reserved";
}

#endif

bool mbus_manufacturer_letters(uint16_t code, char letters[4])
{
    letters[0] = (char)((code >> 10 & 31) + 64);
    letters[1] = (char)((code >> 5 & 31) + 64);
    letters[2] = (char)((code & 31) + 64);
    letters[3] = '\0';
    for (int i = 0; i < 3; i++)
        if (letters[i] < 'A' || letters[i] > 'Z')
            return false;
    return true;
}

bool mbus_manufacturer_code(const char *letters, uint16_t *code)
{
    unsigned value = 0;

    for (int i = 0; i < 3; i++) {
        if (letters[i] < 'A' || letters[i] > 'Z')
            return false;
        value = value << 5 | (unsigned)(letters[i] - 64);
    }
    *code = (uint16_t)value;
    return letters[3] == '\0';
}

/* ------------------------------------------------------------------ texts into a caller's buffer */

typedef struct writer {
    char *out;
    size_t size, capacity;
} writer;

static void put(writer *w, char c)
{
    if (w->size < w->capacity)
        w->out[w->size] = c;
    w->size++;
}

static void put_text(writer *w, const char *text)
{
    while (*text)
        put(w, *text++);
}

static void put_utf8(writer *w, const uint8_t *bytes, size_t n, bool reverse)
{
    for (size_t i = 0; i < n; i++) {
        uint8_t byte = bytes[reverse ? n - 1 - i : i];
        if (byte < 0x80) {
            put(w, (char)byte);
        } else {
            put(w, (char)(0xC0 | byte >> 6));
            put(w, (char)(0x80 | (byte & 0x3F)));
        }
    }
}

/* The text is not terminated: its length is the result. */
static int finish(const writer *w)
{
    return w->size <= w->capacity ? (int)w->size : MBUS_E_NO_SPACE;
}

int mbus_utf8(const uint8_t *bytes, size_t n, bool reverse, char *out, size_t capacity)
{
    writer w = {out, 0, capacity};

    put_utf8(&w, bytes, n, reverse);
    return finish(&w);
}

#ifndef MBUS_NO_NAMES
int mbus_unit_text(const mbus_record *r, char *out, size_t capacity)
{
    writer w = {out, 0, capacity};
    unsigned state = 0, code;
    bool metric = true;

    if (!r->vife_end && !r->text_length) { /* nearly always: the name alone */
        const char *name = mbus_unit_name(r->unit);
        size_t n = strlen(name);
        if (n > capacity)
            return MBUS_E_NO_SPACE;
        if (n)
            memcpy(out, name, n); /* NOLINT(bugprone-not-null-terminated-result): the length is the result, as in finish() */
        return (int)n;
    }
    while (mbus_next_vife(r, &state, &code))
        if (code == 0x3D)
            metric = false;
    if (r->text_length) {
        put_utf8(&w, r->text, r->text_length, !r->msb_first);
    } else if (r->unit != MBUS_UNIT_NONE) {
        const char *name = mbus_unit_name(r->unit);
        if (!metric && *name)
            put_text(&w, "non-metric(");
        put_text(&w, name);
        if (!metric && *name)
            put(&w, ')');
    }
    for (state = 0; mbus_next_vife(r, &state, &code);)
        put_text(&w, vife_suffix(code));
    return finish(&w);
}
#endif

/* Two digits; a wildcard ("every") shows as *. */
static char *pair(char *p, unsigned value, bool star)
{
    if (star) {
        *p++ = '*';
        return p;
    }
    *p++ = (char)('0' + value / 10 % 10);
    *p++ = (char)('0' + value % 10);
    return p;
}

int mbus_time_text(const mbus_time *t, mbus_type type, char *out, size_t capacity)
{
    char text[MBUS_TIME_TEXT_MAX], *p = text;
    size_t n;

    if (type != MBUS_TYPE_TIME) {
        if (t->year == 127) {
            *p++ = '*';
        } else {
            p = pair(p, t->year / 100u, false);
            p = pair(p, t->year % 100u, false);
        }
        *p++ = '-';
        p = pair(p, t->month, t->month == 15);
        *p++ = '-';
        p = pair(p, t->day, t->day == 0 && t->month != 0);
    }
    if (type == MBUS_TYPE_DATETIME)
        *p++ = 'T';
    if (type != MBUS_TYPE_DATE) {
        p = pair(p, t->hour, t->hour == 31);
        *p++ = ':';
        p = pair(p, t->minute, t->minute == 63);
        *p++ = ':';
        p = pair(p, t->second, t->second == 63);
    }
    n = (size_t)(p - text);
    if (n > capacity)
        return MBUS_E_NO_SPACE;
    memcpy(out, text, n);
    return (int)n;
}

int mbus_bcd_glyphs(const mbus_record *r, char *out, size_t capacity)
{
    static const char first[] = "0123456789012 89", others[] = "0123456789A-C EF";
    writer w = {out, 0, capacity};
    unsigned skip = r->field == 0x0D ? 1 : 0;
    unsigned n = r->data_length - skip;

    for (unsigned i = 0; i < n; i++) {
        uint8_t byte = r->data[skip + (r->msb_first ? i : n - 1 - i)];
        put(&w, (i == 0 ? first : others)[byte >> 4]);
        put(&w, others[byte & 15]);
    }
    return finish(&w);
}

static void put_pair(writer *w, unsigned value)
{
    char text[2];

    pair(text, value, false);
    put(w, text[0]);
    put(w, text[1]);
}

int mbus_dst_rule_text(const mbus_record *r, char *out, size_t capacity)
{
    writer w = {out, 0, capacity};
    uint8_t o[4];

    for (unsigned i = 0; i < 4; i++)
        o[i] = r->bytes[r->msb_first ? 3 - i : i];
    put_text(&w, o[1] & 0x80 ? "on, from " : "off, from ");
    put_pair(&w, o[3] & 0x0Fu);
    put(&w, '-');
    put_pair(&w, o[1] & 0x1Fu);
    put(&w, ' ');
    put_pair(&w, o[0] & 0x1Fu);
    put_text(&w, ":00 to ");
    put_pair(&w, o[3] >> 4);
    put(&w, '-');
    put_pair(&w, o[2] & 0x1Fu);
    put_text(&w, o[2] & 0x80 ? ", +" : ", -");
    put(&w, (char)('0' + (o[2] >> 5 & 3)));
    put_text(&w, " h");
    return finish(&w);
}

/* ------------------------------------------------------------------ exact decimals */

/* A natural number in limbs of nine decimal digits, lowest first. The widest case is a 20-digit magnitude times 244140625 beside
 * an offset in thousandths, with powers of ten from -72 to +50 between them. */
enum { LIMBS = 18, LIMB_DIGITS = 9 };
#define LIMB_BASE 1000000000u

typedef struct natural {
    uint32_t limb[LIMBS];
} natural;

static void multiply(natural *n, uint32_t factor)
{
    uint64_t carry = 0;

    for (int i = 0; i < LIMBS; i++) {
        carry += (uint64_t)n->limb[i] * factor;
        n->limb[i] = (uint32_t)(carry % LIMB_BASE);
        carry /= LIMB_BASE;
    }
}

static natural natural_of(uint64_t value)
{
    natural n = {{0}};

    n.limb[0] = (uint32_t)(value % LIMB_BASE);
    n.limb[1] = (uint32_t)(value / LIMB_BASE % LIMB_BASE);
    n.limb[2] = (uint32_t)(value / LIMB_BASE / LIMB_BASE);
    return n;
}

static void shift(natural *n, int powers)
{
    while (powers-- > 0)
        multiply(n, 10);
}

static int compare(const natural *a, const natural *b)
{
    for (int i = LIMBS - 1; i >= 0; i--)
        if (a->limb[i] != b->limb[i])
            return a->limb[i] < b->limb[i] ? -1 : 1;
    return 0;
}

static void add(natural *a, const natural *b)
{
    uint32_t carry = 0;

    for (int i = 0; i < LIMBS; i++) {
        carry += a->limb[i] + b->limb[i];
        a->limb[i] = carry % LIMB_BASE;
        carry /= LIMB_BASE;
    }
}

/* a - b, a >= b */
static natural difference(const natural *a, const natural *b)
{
    natural result = {{0}};
    uint32_t borrow = 0;

    for (int i = 0; i < LIMBS; i++) {
        uint32_t subtrahend = b->limb[i] + borrow;
        borrow = a->limb[i] < subtrahend;
        result.limb[i] = a->limb[i] + (borrow ? LIMB_BASE : 0) - subtrahend;
    }
    return result;
}

static unsigned digit_of(const natural *n, unsigned place)
{
    uint32_t limb = n->limb[place / LIMB_DIGITS];

    for (unsigned i = place % LIMB_DIGITS; i; i--)
        limb /= 10;
    return limb % 10;
}

/* Magnitude, sign and power of ten of the whole number, offset included. */
static natural whole(const mbus_number *number, bool *negative, int *exponent)
{
    natural sum = natural_of(number->magnitude), offset;

    multiply(&sum, number->factor);
    *negative = number->negative;
    *exponent = number->exponent;
    if (number->offset == 0)
        return sum;
    offset = natural_of((uint64_t)number->offset); /* VIFE 78..7B only ever add */
    if (*exponent > -3) {
        shift(&sum, *exponent + 3);
        *exponent = -3;
    }
    shift(&offset, -3 - *exponent);
    if (!*negative) {
        add(&sum, &offset);
    } else if (compare(&sum, &offset) >= 0) {
        sum = difference(&sum, &offset);
    } else {
        sum = difference(&offset, &sum);
        *negative = false;
    }
    return sum;
}

/* The common case: 64 bits hold all digits. */
static int short_number_text(uint64_t value, bool negative, int exponent, writer *w)
{
    char digits[80];
    int n = 0, places = exponent < 0 ? -exponent : 0;

    if (value == 0) {
        negative = false;
        if (exponent > 0)
            exponent = 0;
    }
    for (; value > UINT32_MAX; value /= 10)
        digits[n++] = (char)('0' + value % 10);
    for (uint32_t rest = (uint32_t)value; rest; rest /= 10)
        digits[n++] = (char)('0' + rest % 10);
    while (n <= places)
        digits[n++] = '0';
    if (negative)
        put(w, '-');
    while (n > places)
        put(w, digits[--n]); /* NOLINT(clang-analyzer-core.CallAndMessage): it thinks that `places` may be negative */
    if (places)
        put(w, '.');
    while (n > 0)
        put(w, digits[--n]);
    for (; exponent > 0; exponent--)
        put(w, '0');
    return finish(w);
}

int mbus_number_text(const mbus_number *number, char *out, size_t capacity)
{
    writer w = {out, 0, capacity};
    bool negative, is_zero;
    int exponent, places;
    natural n;
    int digits = LIMBS * LIMB_DIGITS;

    if (number->factor && number->offset == 0 && number->exponent > -60 && number->magnitude <= UINT64_MAX / number->factor)
        return short_number_text(number->magnitude * number->factor, number->negative, number->exponent, &w);
    n = whole(number, &negative, &exponent);

    while (digits > 1 && digit_of(&n, (unsigned)digits - 1) == 0)
        digits--;
    is_zero = digits == 1 && digit_of(&n, 0) == 0;
    if (negative && !is_zero)
        put(&w, '-');
    places = exponent < 0 ? -exponent : 0;
    if (digits <= places)
        digits = places + 1;
    while (digits-- > 0) {
        put(&w, (char)('0' + (digits < LIMBS * LIMB_DIGITS ? digit_of(&n, (unsigned)digits) : 0)));
        if (digits && digits == places)
            put(&w, '.');
    }
    if (!is_zero)
        for (; exponent > 0; exponent--)
            put(&w, '0');
    return finish(&w);
}
