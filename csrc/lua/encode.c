/* encode.c - records from Lua tables to bytes (part of mbus.core).
 *
 *   core.record{ quantity="energy", unit="Wh", value=35000, data="bcd8", exponent=3, storage=1 }    bytes
 *   core.record{ vif="\x06", raw=35, data="int32" }                                                 bytes
 *   core.record(record)                                     a decoded record, as telegram:records() gives it
 *
 * quantity, unit and modifiers name the VIF as decoding does (units of time may also be "min", "h", "d"); exponent picks the
 * resolution, without it the first is taken in which the value is exact and fits: 1, 0.1, 0.01, ... then 10, 100, ...
 * What does not fit its field raises an error that says what fits: an encoder's input is the caller's.
 */
#include "binding.h"

#include <float.h>
#include <math.h>
#include <string.h>

enum { VIB_MAX = 64, TABLES = 4, CODES = 128 };

/* A record under construction: `probe` is a record without data around its VIB, so that the decoder itself interprets it. */
typedef struct draft {
    mbus_record record;
    uint8_t probe[1 + VIB_MAX];
    uint8_t bytes[MBUS_FRAME_MAX];
    unsigned time_unit; /* of the wanted unit: 0 s, 1 min, 2 h, 3 d */
} draft;

static const char *const data_names[] = {"none", "int8", "int16", "int24", "int32", "real32", "int48", "int64", "selection", "bcd2",
                                         "bcd4", "bcd6", "bcd8", "text",  "bcd12", NULL};

/* Names for the same fields that say what is in them. */
static const struct {
    const char *name;
    uint8_t field;
    bool binary;
} data_aliases[] = {{"date", 2, false},  {"datetime", 4, false},  {"datetime48", 6, false}, {"time", 3, false},
                    {"bcd", 0xD, false}, {"binary", 0xD, true}, {"bytes", 0xD, true}};

static lua_Integer optional_integer(lua_State *L, const char *name, lua_Integer otherwise)
{
    lua_Integer value = otherwise;
    int ok = 1;

    if (lua_getfield(L, 1, name) != LUA_TNIL)
        value = lua_tointegerx(L, -1, &ok);
    if (!ok)
        luaL_error(L, "%s must be an integer", name);
    lua_pop(L, 1);
    return value;
}

/* A string field of the table, or NULL; it stays on the stack. */
static const char *optional_string(lua_State *L, const char *name, size_t *n)
{
    int type = lua_getfield(L, 1, name);

    *n = 0;
    if (type == LUA_TNIL)
        return NULL;
    if (type != LUA_TSTRING)
        luaL_error(L, "%s must be a string", name);
    return lua_tolstring(L, -1, n);
}

/* The string on top is compared with names up to its end, so what goes on behind a NUL would be overlooked. */
static const char *check_name(lua_State *L, const char *what)
{
    size_t n;
    const char *name = lua_tolstring(L, -1, &n);

    if (strlen(name) != n)
        luaL_error(L, "%s: a NUL in a name", what);
    return name;
}

static const char *optional_name(lua_State *L, const char *field)
{
    size_t ignored;

    return optional_string(L, field, &ignored) ? check_name(L, field) : NULL;
}

/* Pushes entry i of a list of names; false behind its end. */
static bool next_name(lua_State *L, const char *field, lua_Integer i)
{
    int type;

    luaL_checkstack(L, 8, NULL);
    type = lua_getfield(L, 1, field);
    if (type == LUA_TNIL)
        return false;
    if (type != LUA_TTABLE)
        luaL_error(L, "%s must be a list of names", field);
    type = lua_geti(L, -1, i);
    lua_remove(L, -2);
    if (type != LUA_TSTRING && type != LUA_TNIL)
        luaL_error(L, "%s must be a list of names", field);
    return type == LUA_TSTRING;
}

static size_t unhex_field(lua_State *L, const char *name, uint8_t *out, size_t capacity)
{
    static const char digits[] = "0123456789abcdef0123456789ABCDEF";
    size_t n;
    const char *text = optional_string(L, name, &n);

    if (n % 2 || n / 2 > capacity)
        luaL_error(L, "%s: not as many hex digits as fit", name);
    for (size_t i = 0; i < n; i++) {
        const char *digit = text[i] ? strchr(digits, text[i]) : NULL;
        if (!digit)
            luaL_error(L, "%s: not hex", name);
        out[i / 2] = (uint8_t)((i % 2 ? out[i / 2] << 4 : 0) | ((digit - digits) & 15));
    }
    return n / 2;
}

/* ------------------------------------------------------------------ VIB */

/* Lets the decoder read the VIB of n bytes in the probe. */
static bool interpret(draft *d, size_t n)
{
    mbus_cursor cursor = {.bytes = d->probe, .end = (uint16_t)(1 + n), .structure = MBUS_PAYLOAD_RECORDS};

    d->probe[0] = 0; /* data field 0: nothing follows the VIB */
    return mbus_next(&cursor, &d->record) == 1 && cursor.position == 1 + n;
}

static int vife_code(lua_State *L, draft *d, const char *name)
{
    int code = mbus_modifier_code(name, d->time_unit);

    if (code < 0)
        luaL_error(L, "no such modifier: %s", name);
    return code;
}

/* VIFEs of error, action and modifiers. Returns their number of bytes; the last has no extension bit. */
static size_t write_vifes(lua_State *L, draft *d, uint8_t *out, size_t capacity)
{
    static const char *const single[] = {"action", "error"};
    size_t n = 0;
    const char *name;
    int code;

    for (int i = 0; i < 2; i++)
        if ((name = optional_name(L, single[i])))
            out[n++] = (uint8_t)(0x80 | vife_code(L, d, name));
    for (lua_Integer i = 1; next_name(L, "modifiers", i); i++, lua_pop(L, 1)) {
        if (n + 2 >= capacity)
            luaL_error(L, "modifiers: more than a record can have");
        code = vife_code(L, d, check_name(L, "modifiers"));
        if (code >= 0xFC00)
            out[n++] = 0xFC;
        out[n++] = (uint8_t)(0x80 | (code & 0x7F));
    }
    if (n)
        out[n - 1] &= 0x7F;
    return n;
}

static bool unit_is(const draft *d, const char *unit, size_t n)
{
    char text[MBUS_UNIT_TEXT_MAX];
    static const uint32_t factors[] = {1, 60, 3600, 86400};
    int size = mbus_unit_text(&d->record, text, sizeof text);

    if (d->time_unit) /* "s" itself means any of them: seconds first, then what the value is a multiple of */
        return size == 1 && *text == 's' && d->record.number.factor == factors[d->time_unit];
    return size == (int)n && memcmp(text, unit, n) == 0;
}

/* Tries VIF `code` of `table` with the VIFEs; true if it has the wanted unit. */
static bool try_vif(draft *d, unsigned table, unsigned code, const uint8_t *vifes, size_t vife_size, const char *unit, size_t unit_size)
{
    int n = mbus_vif_write(table, code, vife_size > 0, d->probe + 1, VIB_MAX);

    if (n < 0 || (size_t)n + vife_size > VIB_MAX)
        return false;
    memcpy(d->probe + 1 + n, vifes, vife_size);
    return interpret(d, (size_t)n + vife_size) && (!unit || unit_is(d, unit, unit_size));
}

/* UTF-8 to ISO 8859-1, last character first, up to MBUS_DATA_MAX of them. Returns their number. */
static size_t put_latin(lua_State *L, const char *text, size_t n, uint8_t *out)
{
    size_t size = 0;

    for (size_t i = 0; i < n && size < MBUS_DATA_MAX; i++) {
        uint8_t byte = (uint8_t)text[i];
        if (byte >= 0x80) {
            if ((byte != 0xC2 && byte != 0xC3) || i + 1 == n || ((uint8_t)text[i + 1] & 0xC0) != 0x80)
                luaL_error(L, "a text on the wire has the characters of ISO 8859-1 only");
            byte = (uint8_t)((byte & 3) << 6 | ((uint8_t)text[++i] & 0x3F));
        }
        out[size++] = byte;
    }
    for (size_t i = 0; i < size / 2; i++) {
        uint8_t byte = out[i];
        out[i] = out[size - 1 - i];
        out[size - 1 - i] = byte;
    }
    return size;
}

static bool try_plain_text(draft *d, const uint8_t *vifes, size_t vife_size, const uint8_t *text, size_t size)
{
    uint8_t *p = d->probe + 1;

    if (2 + size + vife_size > VIB_MAX)
        return false;
    *p++ = vife_size ? 0xFC : 0x7C;
    *p++ = (uint8_t)size;
    memcpy(p, text, size);
    memcpy(p + size, vifes, vife_size);
    return interpret(d, 2 + size + vife_size);
}

/* Plain-text unit: VIF 7C with the text and VIFEs behind it. What the VIFEs say of the unit ("/h") is not in the text again,
 * which stands last character first, so that it begins with the unit's end. */
static bool write_plain_text(lua_State *L, draft *d, const uint8_t *vifes, size_t vife_size, const char *unit, size_t unit_size)
{
    uint8_t text[MBUS_DATA_MAX];
    size_t size = unit ? put_latin(L, unit, unit_size, text) : 0;

    for (size_t suffix = 0; suffix < size; suffix++)
        if (try_plain_text(d, vifes, vife_size, text + suffix, size - suffix) && unit_is(d, unit, unit_size))
            return true;
    return false;
}

/* ------------------------------------------------------------------ values */

static const uint64_t powers[] = {1u, 10u, 100u, 1000u, 10000u, 100000u, 1000000u, 10000000u, 100000000u, 1000000000u,
                                  10000000000u, 100000000000u, 1000000000000u, 10000000000000u, 100000000000000u,
                                  1000000000000000u, 10000000000000000u, 100000000000000000u, 1000000000000000000u};
enum { POWERS = sizeof powers / sizeof powers[0] };

/* The integer on the wire for an integer value: exact, or false. */
static bool raw_of_integer(const mbus_number *number, uint64_t magnitude, uint64_t *raw)
{
    int e = number->exponent;
    uint64_t divisor = number->factor;

    if (e <= -POWERS || e >= POWERS)
        return magnitude == 0 ? (*raw = 0, true) : false;
    if (e < 0) {
        if (magnitude > UINT64_MAX / powers[-e])
            return false;
        magnitude *= powers[-e];
    } else {
        if (powers[e] > UINT64_MAX / divisor)
            return false;
        divisor *= powers[e];
    }
    *raw = magnitude / divisor;
    return magnitude % divisor == 0;
}

/* The integer on the wire whose value is this double; decoding it must give the same double. */
static bool raw_of_float(const mbus_number *number, double magnitude, uint64_t *raw)
{
    double scaled = magnitude / number->factor, back;
    int e = number->exponent;

    if (e <= -POWERS || e >= POWERS)
        return false;
    scaled = e < 0 ? scaled * (double)powers[-e] : scaled / (double)powers[e];
    if (!(scaled < 9.0e18))
        return false;
    *raw = (uint64_t)(scaled + 0.5);
    back = (double)*raw * number->factor;
    back = e < 0 ? back / (double)powers[-e] : back * (double)powers[e];
    return back == magnitude;
}

/* Puts the value at `index` into the number: false if it is not an integer multiple of the VIF's resolution. */
static bool set_number(lua_State *L, int index, mbus_number *number)
{
    if (number->offset)
        luaL_error(L, "a record with an additive correction is written by its raw number");
    if (lua_isinteger(L, index)) {
        lua_Integer value = lua_tointeger(L, index);
        number->negative = value < 0;
        return raw_of_integer(number, value < 0 ? 0 - (uint64_t)value : (uint64_t)value, &number->magnitude);
    }
    if (lua_type(L, index) != LUA_TNUMBER)
        luaL_error(L, "value must be a number, not a %s", luaL_typename(L, index));
    number->negative = lua_tonumber(L, index) < 0;
    return raw_of_float(number, fabs(lua_tonumber(L, index)), &number->magnitude);
}

/* The integer on the wire at the top: digits where it is beyond 2^63, for Lua has no such integer. */
static bool set_raw(lua_State *L, mbus_number *number)
{
    size_t n;
    const char *text = lua_type(L, -1) == LUA_TSTRING ? lua_tolstring(L, -1, &n) : NULL;

    if (!text)
        return set_number(L, -1, number);
    for (size_t i = 0; i < n; i++) {
        unsigned digit = (unsigned)(uint8_t)text[i] - '0';
        if (digit > 9 || number->magnitude > (UINT64_MAX - digit) / 10)
            return false;
        number->magnitude = number->magnitude * 10 + digit;
    }
    return n > 0;
}

static unsigned digits(lua_State *L, const char *text, int n)
{
    unsigned value = 0;

    for (int i = 0; i < n; i++) {
        if (text[i] < '0' || text[i] > '9')
            luaL_error(L, "a date is written 2011-12-31, with time 2011-12-31T23:59:00, a time of day 23:59:00");
        value = value * 10 + (unsigned)(text[i] - '0');
    }
    return value;
}

static void set_clock(lua_State *L, const char *text, size_t n, mbus_time *time)
{
    if ((n != 5 && n != 8) || text[2] != ':' || (n == 8 && text[5] != ':'))
        digits(L, "?", 1);
    time->hour = (uint8_t)digits(L, text, 2);
    time->minute = (uint8_t)digits(L, text + 3, 2);
    time->second = (uint8_t)(n == 8 ? digits(L, text + 6, 2) : 0);
}

static void set_time(lua_State *L, const char *text, size_t n, mbus_record *r)
{
    bool is_time = n >= 3 && text[2] == ':';

    if (!is_time) {
        if (n < 10 || text[4] != '-' || text[7] != '-' || (n > 10 && text[10] != 'T' && text[10] != ' '))
            digits(L, "?", 1);
        r->time.year = (uint16_t)digits(L, text, 4);
        r->time.month = (uint8_t)digits(L, text + 5, 2);
        r->time.day = (uint8_t)digits(L, text + 8, 2);
    }
    if (is_time)
        set_clock(L, text, n, &r->time);
    else if (n > 10)
        set_clock(L, text + 11, n - 11, &r->time);
    r->type = is_time ? MBUS_TYPE_TIME : n > 10 ? MBUS_TYPE_DATETIME : MBUS_TYPE_DATE;
}

static void set_text(lua_State *L, draft *d, const char *text, size_t n)
{
    d->record.type = MBUS_TYPE_STRING;
    d->record.length = (uint16_t)put_latin(L, text, n, d->bytes);
    d->record.bytes = d->bytes;
}

static bool codes_bytes(const draft *d, bool binary)
{
    return d->record.coding == MBUS_CODING_RAW || d->record.coding == MBUS_CODING_PROFILE || binary;
}

/* Actions 0C and 0D name a data field, but carry no data (EN 13757-3, Annex B). */
static bool is_without_data(lua_State *L)
{
    const char *action = optional_name(L, "action");
    int code = action ? mbus_modifier_code(action, 0) : 0;

    return code == 0x0C || code == 0x0D;
}

/* What a field cannot hold is not left out in silence. */
static void check_time(lua_State *L, uint8_t field, const mbus_record *r)
{
    if (field == 3 && r->type != MBUS_TYPE_TIME)
        luaL_error(L, "a time of day is written 23:59:00");
    if (field == 2 && r->type != MBUS_TYPE_DATE)
        luaL_error(L, "a date of 2 bytes is written 2011-12-31");
    if (field == 4 && r->time.second)
        luaL_error(L, "a date and time of 4 bytes has no seconds");
}

/* The number on top, in units of `scale`; scale 0: as it is to be on the wire. */
static void set_real(lua_State *L, mbus_record *r, double scale)
{
    double value = luaL_checknumber(L, -1);

    if (scale != 0) {
        if (r->number.offset)
            luaL_error(L, "a record with an additive correction is written by its raw number");
        value /= scale;
        if (!(fabs(value) <= FLT_MAX))
            luaL_error(L, "a real32 holds no such number");
    }
    r->real = fabs(value) <= FLT_MAX || !isfinite(value) ? (float)value : value < 0 ? -INFINITY : INFINITY;
}

/* Was a text asked for, and not only a field of variable length? */
static bool is_text(lua_State *L)
{
    const char *data = optional_name(L, "data");
    bool is = data && strcmp(data, "text") == 0;

    lua_pop(L, 1);
    return is;
}

/* Bytes of mode 2 stand the other way round, so that in a record of mode 1 "not available" would become a number. */
static void check_mode(lua_State *L, const char *what)
{
    if (lua_getfield(L, 1, "mode2") && lua_toboolean(L, -1))
        luaL_error(L, "%s of a mode 2 telegram is no data of mode 1", what);
    lua_pop(L, 1);
}

/* value, or raw, into the record. False: the resolution does not fit. */
static bool set_value(lua_State *L, draft *d, uint8_t field, bool binary)
{
    mbus_record *r = &d->record;
    int type = lua_getfield(L, 1, "raw") == LUA_TNIL ? lua_getfield(L, 1, "value") : LUA_TNONE;
    bool by_value = type != LUA_TNONE;
    mbus_number plain = {.factor = 1};
    size_t n;

    r->field = field;
    if (field == 0 || field == 8)
        return true;
    if (type == LUA_TSTRING) {
        const char *text = lua_tolstring(L, -1, &n);
        if (r->coding >= MBUS_CODING_DATE && r->coding <= MBUS_CODING_ANYDATE && field != 0x0D) {
            set_time(L, text, n, r);
            check_time(L, field, r);
        } else if (field == 0x0D ? codes_bytes(d, binary) : r->coding == MBUS_CODING_DST_RULE) {
            if (field != 0x0D)
                check_mode(L, "value");
            r->type = MBUS_TYPE_BYTES;
            r->length = (uint16_t)unhex_field(L, "value", d->bytes, sizeof d->bytes);
            r->bytes = d->bytes;
        } else if (field == 0x0D) {
            set_text(L, d, text, n);
        } else {
            luaL_error(L, "value must be a number, not a string");
        }
        return true;
    }
    if (is_text(L))
        luaL_error(L, "a text is a string, not a %s", luaL_typename(L, -1));
    if (field == 5) {
        double scale = r->number.factor;
        for (int e = r->number.exponent; e > 0; e--)
            scale *= 10;
        for (int e = r->number.exponent; e < 0; e++)
            scale /= 10;
        r->type = MBUS_TYPE_REAL;
        set_real(L, r, by_value ? scale : 0);
        return true;
    }
    r->type = MBUS_TYPE_NUMBER;
    if (binary)
        r->flags |= MBUS_FLAG_BINARY_LVAR;
    if (by_value)
        return set_number(L, -1, &r->number);
    if (!set_raw(L, &plain))
        luaL_error(L, "raw must be an integer");
    r->number.negative = plain.negative;
    r->number.magnitude = plain.magnitude;
    return true;
}

/* ------------------------------------------------------------------ records */

/* data = "bcd8" and so on, or the data field of a decoded record's raw_dif_hex, or what the kind of value suggests. */
static uint8_t data_field(lua_State *L, bool *binary)
{
    size_t n;
    uint8_t dib[12];
    const char *name = optional_name(L, "data");

    *binary = false;
    if (name) {
        for (uint8_t i = 0; data_names[i]; i++)
            if (strcmp(name, data_names[i]) == 0)
                return i;
        for (size_t i = 0; i < sizeof data_aliases / sizeof data_aliases[0]; i++)
            if (strcmp(name, data_aliases[i].name) == 0) {
                *binary = data_aliases[i].binary;
                return data_aliases[i].field;
            }
        luaL_error(L, "data is none of none, int8 to int64, bcd2 to bcd12, real32, text, bcd, binary, date, datetime, time: %s", name);
    }
    if (lua_getfield(L, 1, "raw_dif_hex") == LUA_TSTRING && unhex_field(L, "raw_dif_hex", dib, sizeof dib) > 0)
        return dib[0] & 15;
    switch (lua_getfield(L, 1, "value")) {
    case LUA_TSTRING: {
        const char *text = lua_tolstring(L, -1, &n);
        bool is_date = n == 10 && text[4] == '-' && text[7] == '-';
        return is_date ? 2 : n >= 16 && text[10] == 'T' ? 4 : 0xD;
    }
    case LUA_TNIL:
        return lua_getfield(L, 1, "raw") == LUA_TNIL ? 0 : 4;
    default:
        return 4;
    }
}

static bool flag_given(lua_State *L, const char *wanted)
{
    bool found = false;

    for (lua_Integer i = 1; !found && next_name(L, "flags", i); i++, lua_pop(L, 1))
        found = strcmp(check_name(L, "flags"), wanted) == 0;
    return found;
}

/* DIB fields and flags that the interpretation of the VIB does not give. */
static void set_dib(lua_State *L, mbus_record *r)
{
    static const char *const names[] = {"instantaneous", "maximum", "minimum", "error"};
    lua_Integer storage = optional_integer(L, "storage", 0), tariff = optional_integer(L, "tariff", 0);
    lua_Integer subunit = optional_integer(L, "subunit", 0);
    const char *name = optional_name(L, "function");

    if (storage < 0 || storage >> 41 || tariff < 0 || tariff >> 20 || subunit < 0 || subunit >> 10)
        luaL_error(L, "storage is below 2^41, tariff below 2^20, subunit below 2^10, and none negative");
    r->storage = (uint64_t)storage;
    r->tariff = (uint32_t)tariff;
    r->subunit = (uint16_t)subunit;
    for (uint8_t i = 0; name && i < 4; i++)
        if (strcmp(name, names[i]) == 0) {
            r->function = i;
            name = NULL;
        }
    if (name)
        luaL_error(L, "function is none of instantaneous, maximum, minimum, error: %s", name);
    r->flags = (uint16_t)(r->flags & MBUS_FLAG_OPAQUE);
    if (lua_getfield(L, 1, "final_dife") && lua_toboolean(L, -1))
        r->flags |= MBUS_FLAG_FINAL_DIFE;
    if (lua_getfield(L, 1, "hundred_years") && lua_toboolean(L, -1))
        r->flags |= MBUS_FLAG_HUNDRED_YEARS;
    if (flag_given(L, "summer_time"))
        r->flags |= MBUS_FLAG_SUMMER_TIME;
}

static bool is_one_record(const uint8_t *bytes, size_t n)
{
    mbus_cursor cursor = {.bytes = bytes, .end = (uint16_t)n, .structure = MBUS_PAYLOAD_RECORDS};
    mbus_record record;

    return mbus_next(&cursor, &record) == 1 && cursor.position == n;
}

/* Data exactly as it was received: what has no value. */
static int push_verbatim(lua_State *L, draft *d, uint8_t field)
{
    uint8_t out[2 * MBUS_FRAME_MAX], data[MBUS_FRAME_MAX];
    const char *problem;
    size_t n = unhex_field(L, "raw_data_hex", data, sizeof data);
    int size;

    check_mode(L, "raw_data_hex");
    set_dib(L, &d->record);
    d->record.field = 0; /* DIB and VIB first */
    size = mbus_record_write(&d->record, out, sizeof out - sizeof data, &problem);
    if (size < 0)
        return luaL_error(L, "%s", problem);
    out[0] = (uint8_t)((out[0] & 0xF0) | field);
    memcpy(out + size, data, n);
    if (!is_one_record(out, (size_t)size + n) && !(n == 0 && is_without_data(L)))
        return luaL_error(L, "raw_data_hex: %d bytes are not what this data field has", (int)n);
    lua_pushlstring(L, (const char *)out, (size_t)size + n);
    return 1;
}

/* Pushes the finished record; or says why the value does not fit and leaves the stack as it was. */
static bool push_record(lua_State *L, draft *d, uint8_t field, bool binary, const char **problem)
{
    uint8_t out[MBUS_DATA_MAX];
    int size = -1, top = lua_gettop(L);

    *problem = "the value is no multiple of the resolution";
    set_dib(L, &d->record);
    if (is_without_data(L)) {
        d->record.field = 0;
        size = mbus_record_write(&d->record, out, sizeof out, problem);
        out[0] = (uint8_t)((out[0] & 0xF0) | field);
    } else if (set_value(L, d, field, binary)) {
        size = mbus_record_write(&d->record, out, sizeof out, problem);
    }
    lua_settop(L, top);
    if (size < 0)
        return false;
    lua_pushlstring(L, (const char *)out, (size_t)size);
    return true;
}

static void keep_lvar_kind(lua_State *L, draft *d, uint8_t field, bool *binary)
{
    uint8_t data[MBUS_FRAME_MAX];

    if (field == 0x0D && lua_getfield(L, 1, "raw_data_hex") == LUA_TSTRING && unhex_field(L, "raw_data_hex", data, sizeof data) &&
        data[0] > 0xBF) {
        *binary = data[0] >= 0xE0;
        d->record.length = data[0] & 15;
    }
}

/* A VIB that is given as bytes. */
static int record_of_vib(lua_State *L, draft *d, size_t vib_size, uint8_t field, bool binary)
{
    const char *problem;
    bool has_value;

    if (vib_size == 0 || !interpret(d, vib_size))
        return luaL_error(L, "vif: not a complete VIF and VIFE chain");
    if (d->record.text_length)
        check_mode(L, "raw_vif_hex");
    has_value = lua_getfield(L, 1, "value") != LUA_TNIL;
    if (!has_value && field != 0 && field != 8 && lua_getfield(L, 1, "raw_data_hex") == LUA_TSTRING)
        return push_verbatim(L, d, field);
    has_value = has_value || lua_getfield(L, 1, "raw") != LUA_TNIL;
    if (!has_value && field != 0 && field != 8)
        return luaL_error(L, "value or raw is missing");
    keep_lvar_kind(L, d, field, &binary);
    if (!push_record(L, d, field, binary, &problem))
        return luaL_error(L, "%s", problem);
    return 1;
}

/* Candidates in order: the wanted exponent, or 0, -1, -2, ... and then 1, 2, ... */
static int candidate(int i)
{
    return i <= 24 ? -i : i - 24;
}

/* Keeps the more telling of two problems: what fits the field rather than that a resolution does not suit. */
static const char *worse(const char *before, const char *now)
{
    return before && strstr(now, "resolution") ? before : now;
}

static int record_of_quantity(lua_State *L, draft *d, const char *quantity, uint8_t field, bool binary)
{
    size_t unit_size = 0, vife_size;
    uint8_t vifes[VIB_MAX];
    const char *unit = optional_string(L, "unit", &unit_size), *problem = NULL, *worst = NULL;
    bool is_plain_text = strcmp(quantity, "plain_text") == 0, any = lua_getfield(L, 1, "exponent") == LUA_TNIL;
    int wanted = (int)optional_integer(L, "exponent", 0);
    static const char *const time_units[] = {"s", "min", "h", "d"};

    for (unsigned i = 1; unit && i < 4; i++)
        if (strlen(time_units[i]) == unit_size && memcmp(unit, time_units[i], unit_size) == 0)
            d->time_unit = i;
    vife_size = write_vifes(L, d, vifes, sizeof vifes);
    if (is_plain_text) {
        if (!write_plain_text(L, d, vifes, vife_size, unit, unit_size))
            return luaL_error(L, "plain_text needs a short unit");
        if (!push_record(L, d, field, binary, &problem))
            return luaL_error(L, "%s", problem);
        return 1;
    }
    for (int i = 0; i <= (any ? 48 : 0); i++)
        for (unsigned table = 0; table < TABLES; table++)
            for (unsigned code = 0; code < CODES; code++) {
                if (strcmp(mbus_quantity_name(mbus_vif_quantity(table, code)), quantity) != 0 ||
                    !try_vif(d, table, code, vifes, vife_size, unit, unit_size) ||
                    d->record.number.exponent != (any ? candidate(i) : wanted))
                    continue;
                if (push_record(L, d, field, binary, &problem))
                    return 1;
                worst = worse(worst, problem);
            }
    return worst ? luaL_error(L, "%s", worst)
                   : luaL_error(L, "no VIF means %s in %s with this exponent", quantity, unit ? unit : "its unit");
}

/* What decoding gives, and what is for encoding alone. */
static const char *const field_names[] = {
    "index", "position", "telegram", "offset", "function", "storage", "tariff", "subunit", "quantity", "unit", "type", "value",
    "modifiers", "flags", "error", "action", "raw", "exponent", "factor", "addend", "final_dife", "mode2", "hundred_years",
    "text", "raw_dif_hex", "raw_vif_hex", "raw_data_hex", "time", "data", "vif",
};

/* A misspelt storage would be that of another register. */
static void check_fields(lua_State *L)
{
    for (lua_pushnil(L); lua_next(L, 1); lua_pop(L, 1)) {
        lua_pushvalue(L, -2);
        if (lua_rawget(L, lua_upvalueindex(1)) == LUA_TNIL)
            luaL_error(L, "there is no field %s in a record", luaL_tolstring(L, -3, NULL));
        lua_pop(L, 1);
    }
}

static int record(lua_State *L)
{
    draft d;
    size_t n;
    uint8_t field;
    bool binary;
    const char *text;

    luaL_checktype(L, 1, LUA_TTABLE);
    lua_settop(L, 1);
    luaL_checkstack(L, 64, NULL);
    check_fields(L);
    memset(&d, 0, sizeof d);
    field = data_field(L, &binary);
    if ((text = optional_string(L, "vif", &n))) {
        luaL_argcheck(L, n <= VIB_MAX, 1, "vif is too long");
        memcpy(d.probe + 1, text, n);
        return record_of_vib(L, &d, n, field, binary);
    }
    if (lua_getfield(L, 1, "raw_vif_hex") == LUA_TSTRING)
        return record_of_vib(L, &d, unhex_field(L, "raw_vif_hex", d.probe + 1, VIB_MAX), field, binary);
    text = optional_name(L, "quantity");
    luaL_argcheck(L, text, 1, "a record has a quantity or a vif");
    return record_of_quantity(L, &d, text, field, binary);
}

void mbus_open_encode(lua_State *L)
{
    lua_createtable(L, 0, sizeof field_names / sizeof *field_names);
    for (size_t i = 0; i < sizeof field_names / sizeof *field_names; i++) {
        lua_pushboolean(L, 1);
        lua_setfield(L, -2, field_names[i]);
    }
    lua_pushcclosure(L, record, 1);
    lua_setfield(L, -2, "record");
}
