/* telegram.c - telegrams and records for Lua (part of mbus.core).
 *
 *   core.telegram(bytes)             telegram | nil, err      one whole frame; bad frames are errors
 *   telegram.id, .manufacturer, ...  see fields[] below
 *   #telegram                        number of good records
 *   telegram:records()               for position, record in ...
 *   telegram:each()                  for position, quantity, value, unit, function, storage, tariff, subunit in ...
 *   telegram:record(position)        record | nil
 *   telegram:plain(position)         quantity, value, unit, function, storage, tariff, subunit, if there is a value and nothing
 *                                    else to say of the record: no modifiers, flags or error; else nothing
 *   telegram:find{ quantity=, ... }  first record that has all of these | nil
 *   telegram:value{ ... }            its value and unit, without a table; nothing if there is none
 *   telegram:position{ ... }         where it is
 *   telegram:select{ ... }           array of them
 *   telegram:profile(position)       the records that a compact profile (VIFE 13, 1E, 1F) packs | nil, err
 *   telegram:format()                signature, record headers, for compact frames | nil, err
 *   telegram:expand(headers)         bytes of the full frame that a compact frame stands for | nil, err
 *   core.decimal(record)             "22.0" | nil             exact text of a number
 *   core.quantities()                array of all names that `quantity` may have
 *
 * A telegram is one userdata with its bytes; a record becomes a table when it is asked for. Positions count from 0.
 */
#include "binding.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>

#define TELEGRAM "mbus.telegram"
#define ARRAY "mbus.array" /* metatable of lists, so that empty ones are lists in JSON too */

typedef struct telegram {
    mbus_telegram t;
    mbus_cursor cursor; /* before record `next` */
    unsigned next;
    int count; /* good records, -1 before the whole was walked */
    int error; /* of the walk */
    uint16_t error_offset;
    mbus_cursor end; /* after the walk */
    size_t size;
    uint8_t bytes[];
} telegram;

static telegram *check_telegram(lua_State *L, int arg)
{
    return (telegram *)luaL_checkudata(L, arg, TELEGRAM);
}

static int telegram_new(lua_State *L)
{
    size_t n, offset;
    const char *bytes = luaL_checklstring(L, 1, &n);
    telegram *self;
    int rc;

    if (n > MBUS_FRAME_MAX)
        n = MBUS_FRAME_MAX + 1; /* enough to be told that bytes follow */
    self = (telegram *)lua_newuserdatauv(L, sizeof *self + n, 0);
    memcpy(self->bytes, bytes, n);
    self->size = n;
    rc = mbus_telegram_read(self->bytes, n, &self->t, &offset);
    if (rc != MBUS_OK)
        return mbus_push_error(L, rc, offset);
    self->cursor = self->t.records;
    self->next = 0;
    self->count = -1;
    luaL_setmetatable(L, TELEGRAM);
    return 1;
}

/* Record `position`: 1, or 0 or an error if there is none. Going forward costs one step. */
static int seek(telegram *self, unsigned position, mbus_record *record)
{
    int rc;

    if (position < self->next) {
        self->cursor = self->t.records;
        self->next = 0;
    }
    do {
        rc = mbus_next(&self->cursor, record);
        if (rc <= 0)
            break;
    } while (self->next++ < position);
    return rc;
}

/* Walks all of it once: how many records there are, and how it ends. */
static void walk(telegram *self)
{
    mbus_record record;
    int rc, count = 0;

    if (self->count >= 0)
        return;
    self->end = self->t.records;
    while ((rc = mbus_next(&self->end, &record)) > 0)
        count++;
    self->count = count;
    self->error = rc < 0 ? rc : self->t.error;
    self->error_offset = rc < 0 ? self->end.position : self->t.error_offset;
}

/* ------------------------------------------------------------------ values */

static void push_exact(lua_State *L, const mbus_number *number)
{
    char text[MBUS_NUMBER_TEXT_MAX + 1];
    int n = mbus_number_text(number, text, MBUS_NUMBER_TEXT_MAX);

    if (memchr(text, '.', (size_t)n))
        while (text[n - 1] == '0' || text[n - 1] == '.')
            if (text[--n] == '.')
                break;
    text[n] = '\0';
    lua_stringtonumber(L, text);
}

static void push_signed(lua_State *L, const mbus_number *number, uint64_t magnitude)
{
    lua_pushinteger(L, number->negative ? -(lua_Integer)magnitude : (lua_Integer)magnitude);
}

/* An integer where it is one, else the nearest double: one rounding at most, as both operands are exact below 2^53 and 10^22. */
static void push_number(lua_State *L, const mbus_number *number)
{
    static const uint64_t integers[] = {1u, 10u, 100u, 1000u, 10000u, 100000u, 1000000u, 10000000u, 100000000u, 1000000000u,
                                        10000000000u, 100000000000u, 1000000000000u};
    static const double doubles[] = {1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12};
    enum { POWERS = sizeof integers / sizeof integers[0] };
    uint64_t m = number->magnitude;
    int e = number->exponent;

    if (number->offset || e <= -POWERS || e >= POWERS || m > ((uint64_t)1 << 53) / number->factor) {
        push_exact(L, number);
        return;
    }
    m *= number->factor;
    if (e >= 0 && m <= INT64_MAX / integers[e]) {
        push_signed(L, number, m * integers[e]);
    } else if (e < 0 && m % integers[-e] == 0) {
        push_signed(L, number, m / integers[-e]);
    } else if (e < 0) {
        lua_pushnumber(L, (number->negative ? -(double)m : (double)m) / doubles[-e]);
    } else {
        push_exact(L, number);
    }
}

/* The float times the powers of the VIF: a float has 24 bits, so only the division rounds. */
static void push_real(lua_State *L, const mbus_record *r)
{
    double value = (double)r->real * r->number.factor;
    int e = r->number.exponent;

    for (; e > 0; e--)
        value *= 10;
    if (e < 0) {
        double divisor = 1;
        for (; e < 0; e++)
            divisor *= 10;
        value /= divisor;
    }
    lua_pushnumber(L, value + r->number.offset / 1000.0);
}

static void push_hex(lua_State *L, const uint8_t *bytes, size_t n)
{
    static const char digits[] = "0123456789abcdef";
    char text[2 * MBUS_FRAME_MAX];

    for (size_t i = 0; i < n; i++) {
        text[2 * i] = digits[bytes[i] >> 4];
        text[2 * i + 1] = digits[bytes[i] & 15];
    }
    lua_pushlstring(L, text, 2 * n);
}

static void push_time(lua_State *L, const mbus_record *r)
{
    char text[MBUS_TIME_TEXT_MAX];
    lua_pushlstring(L, text, (size_t)mbus_time_text(&r->time, r->type, text, sizeof text));
}

static bool has_value(const mbus_record *r)
{
    return r->type != MBUS_TYPE_NONE && !(r->flags & MBUS_FLAGS_NO_VALUE) && r->record_error == 0;
}

static void push_value(lua_State *L, const mbus_record *r)
{
    char text[2 * MBUS_FRAME_MAX];

    if (!has_value(r)) {
        lua_pushnil(L);
        return;
    }
    switch (r->type) {
    case MBUS_TYPE_NUMBER:
        push_number(L, &r->number);
        break;
    case MBUS_TYPE_REAL:
        push_real(L, r);
        break;
    case MBUS_TYPE_STRING:
        lua_pushlstring(L, text, (size_t)mbus_utf8(r->bytes, r->length, !r->msb_first, text, sizeof text));
        break;
    case MBUS_TYPE_BYTES:
        push_hex(L, r->bytes, r->length);
        break;
    default:
        push_time(L, r);
        break;
    }
}

static void push_unit(lua_State *L, const mbus_record *r)
{
    char text[MBUS_UNIT_TEXT_MAX];
    int n = mbus_unit_text(r, text, sizeof text);

    if (n > 0)
        lua_pushlstring(L, text, (size_t)n);
    else
        lua_pushnil(L);
}

/* ------------------------------------------------------------------ record tables */

static const char *const functions[] = {"instantaneous", "maximum", "minimum", "error"};
static const char *const types[] = {"none", "number", "number", "string", "date", "datetime", "time", "bytes"};

/* X(enum, name): the fields of a record. */
#define FIELDS(X) \
    X(INDEX, "index") X(POSITION, "position") X(TELEGRAM_, "telegram") X(OFFSET, "offset") X(FUNCTION, "function") \
    X(STORAGE, "storage") X(TARIFF, "tariff") X(SUBUNIT, "subunit") X(QUANTITY, "quantity") X(UNIT_, "unit") X(TYPE_, "type") \
    X(VALUE, "value") X(MODIFIERS, "modifiers") X(FLAGS, "flags") X(ERROR_, "error") X(ACTION, "action") X(RAW, "raw") \
    X(EXPONENT, "exponent") X(FACTOR, "factor") X(ADDEND, "addend") X(FINAL_DIFE, "final_dife") X(MODE2, "mode2") \
    X(HUNDRED_YEARS, "hundred_years") X(TEXT, "text") X(RAW_DIF, "raw_dif_hex") X(RAW_VIF, "raw_vif_hex") X(RAW_DATA, "raw_data_hex")

/* Strings and the metatable of lists stand in one Lua array, since looking them up by name for every record would cost more
 * than decoding does. */
enum {
    NO_FIELD,
#define X(id, name) FIELD_##id,
    FIELDS(X)
#undef X
    FIELD_COUNT,
    NAMES_FUNCTION = FIELD_COUNT,
    NAMES_TYPE = NAMES_FUNCTION + 4,
    NAMES_QUANTITY = NAMES_TYPE + 8,
    NAMES_UNIT = NAMES_QUANTITY + MBUS_QUANTITY_COUNT,
    NAMES_ARRAY = NAMES_UNIT + MBUS_UNIT_COUNT,
    NAMES_EMPTY /* the list of all records that have no modifiers or flags */
};

static const char NAMES; /* its address is the array's key in the registry */

static void add_name(lua_State *L, int i, const char *name)
{
    lua_pushstring(L, name);
    lua_rawseti(L, -2, i);
}

static int refuse_change(lua_State *L)
{
    return luaL_error(L, "the empty list is shared by all records: assign a new one");
}

static void open_names(lua_State *L)
{
    static const char *const field_names[] = {
#define X(id, name) name,
        FIELDS(X)
#undef X
    };

    lua_createtable(L, NAMES_EMPTY, 0);
    for (int i = 1; i < FIELD_COUNT; i++)
        add_name(L, i, field_names[i - 1]);
    for (int i = 0; i < 4; i++)
        add_name(L, NAMES_FUNCTION + i, functions[i]);
    for (int i = 0; i < 8; i++)
        add_name(L, NAMES_TYPE + i, types[i]);
    for (int i = 0; i < MBUS_QUANTITY_COUNT; i++)
        add_name(L, NAMES_QUANTITY + i, mbus_quantity_name((unsigned)i));
    for (int i = 0; i < MBUS_UNIT_COUNT; i++)
        add_name(L, NAMES_UNIT + i, mbus_unit_name((unsigned)i));
    luaL_newmetatable(L, ARRAY);
    lua_pushliteral(L, "array");
    lua_setfield(L, -2, "__jsontype");
    lua_rawseti(L, -2, NAMES_ARRAY);
    lua_newtable(L);
    lua_createtable(L, 0, 2);
    lua_pushliteral(L, "array");
    lua_setfield(L, -2, "__jsontype");
    lua_pushcfunction(L, refuse_change);
    lua_setfield(L, -2, "__newindex");
    lua_setmetatable(L, -2);
    lua_rawseti(L, -2, NAMES_EMPTY);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &NAMES);
}

/* A record table under construction, and the names: their places on the stack. */
typedef struct build {
    lua_State *L;
    int table, names;
} build;

static void key(const build *b, int field)
{
    lua_rawgeti(b->L, b->names, field);
}

static void set(const build *b)
{
    lua_rawset(b->L, b->table);
}

static void field_integer(const build *b, int field, lua_Integer value)
{
    key(b, field);
    lua_pushinteger(b->L, value);
    set(b);
}

static void field_name(const build *b, int field, unsigned name)
{
    key(b, field);
    lua_rawgeti(b->L, b->names, (lua_Integer)name);
    set(b);
}

static void field_string(const build *b, int field, const char *value)
{
    key(b, field);
    lua_pushstring(b->L, value);
    set(b);
}

static void field_true(const build *b, int field)
{
    key(b, field);
    lua_pushboolean(b->L, true);
    set(b);
}

static void field_hex(const build *b, int field, const uint8_t *bytes, size_t n)
{
    key(b, field);
    push_hex(b->L, bytes, n);
    set(b);
}

/* Pushes the field's name and the list for its `n`th entry, which is made for the first. */
static void append(const build *b, int field, lua_Integer n, const char *entry)
{
    if (n == 1) {
        key(b, field);
        lua_newtable(b->L);
        lua_rawgeti(b->L, b->names, NAMES_ARRAY);
        lua_setmetatable(b->L, -2);
    }
    lua_pushstring(b->L, entry);
    lua_rawseti(b->L, -2, n);
}

static void end_list(const build *b, int field, lua_Integer n)
{
    if (n == 0)
        field_name(b, field, NAMES_EMPTY);
    else
        set(b);
}

static void field_modifiers(const build *b, const mbus_record *r)
{
    unsigned state = 0, code;
    lua_Integer n = 0;

    while (mbus_next_vife(r, &state, &code)) {
        if (code < 0x10 || (!r->command && mbus_record_error_name(code)))
            continue; /* an action or a record error, reported by a field of its own */
        append(b, FIELD_MODIFIERS, ++n, mbus_modifier_name(code));
    }
    end_list(b, FIELD_MODIFIERS, n);
}

static void field_flags(const build *b, const mbus_record *r)
{
    lua_Integer n = 0;

    for (unsigned bit = 0, left = r->flags; left && mbus_flag_name(bit); bit++, left >>= 1)
        if (left & 1u)
            append(b, FIELD_FLAGS, ++n, mbus_flag_name(bit));
    end_list(b, FIELD_FLAGS, n);
}

static void field_action(const build *b, const mbus_record *r)
{
    unsigned state = 0, code;

    while (r->command && mbus_next_vife(r, &state, &code))
        if (code < 0x10)
            field_string(b, FIELD_ACTION, mbus_action_name(code));
}

/* The integer on the wire; as text where a Lua integer can't hold it. */
static void push_raw(lua_State *L, const mbus_record *r)
{
    char text[24];

    if (r->type == MBUS_TYPE_REAL) {
        lua_pushnumber(L, (lua_Number)r->real);
    } else if (r->number.magnitude <= INT64_MAX) {
        push_signed(L, &r->number, r->number.magnitude);
    } else if (r->number.negative && r->number.magnitude == (uint64_t)1 << 63) {
        lua_pushinteger(L, LUA_MININTEGER);
    } else {
        mbus_number plain = {.factor = 1};
        plain.magnitude = r->number.magnitude;
        lua_pushlstring(L, text, (size_t)mbus_number_text(&plain, text, sizeof text));
    }
}

static void field_number(const build *b, const mbus_record *r)
{
    if (!(r->flags & MBUS_FLAG_BCD_INVALID)) {
        key(b, FIELD_RAW);
        push_raw(b->L, r);
        set(b);
    }
    field_integer(b, FIELD_EXPONENT, r->number.exponent);
    if (r->number.factor != 1)
        field_integer(b, FIELD_FACTOR, r->number.factor);
    if (r->number.offset)
        field_integer(b, FIELD_ADDEND, r->number.offset); /* thousandths */
}

static bool is_identifier(const mbus_record *r)
{
    return r->quantity == MBUS_QUANTITY_FABRICATION_NUMBER || r->quantity == MBUS_QUANTITY_IDENTIFICATION;
}

/* What the meter's display would show, where the value alone does not tell: leading zeros, error glyphs, wildcard dates,
 * daylight saving rules. */
static void field_text(const build *b, const mbus_record *r)
{
    char text[64];
    bool is_bcd = r->type == MBUS_TYPE_NUMBER && r->data_length <= 10 && r->field >= 9 && r->field != 0x0D;

    if (r->type >= MBUS_TYPE_DATE && r->type <= MBUS_TYPE_TIME && !has_value(r)) {
        if (r->type != MBUS_TYPE_TIME && r->time.day == 0 && r->time.month == 0)
            return; /* not set */
        key(b, FIELD_TEXT);
        push_time(b->L, r);
    } else if (is_bcd && is_identifier(r)) {
        for (unsigned i = 0; i < r->data_length; i++)
            snprintf(text + (size_t)2 * i, 3, "%02X", (unsigned)r->data[r->msb_first ? i : r->data_length - 1u - i]);
        key(b, FIELD_TEXT);
        lua_pushstring(b->L, text);
    } else if (r->coding == MBUS_CODING_DST_RULE && r->type == MBUS_TYPE_BYTES && r->length == 4) {
        key(b, FIELD_TEXT);
        lua_pushlstring(b->L, text, (size_t)mbus_dst_rule_text(r, text, sizeof text));
    } else if (is_bcd && (r->flags & MBUS_FLAG_BCD_INVALID)) {
        key(b, FIELD_TEXT);
        lua_pushlstring(b->L, text, (size_t)mbus_bcd_glyphs(r, text, sizeof text));
    } else {
        return;
    }
    set(b);
}

/* The fixed structure has a unit code in six bits of a byte instead of a VIB. */
static void field_vif_hex(const build *b, const mbus_record *r)
{
    uint8_t unit = r->vib[0] & 0x3F;

    if (r->dib)
        field_hex(b, FIELD_RAW_VIF, r->vib, r->vib_length);
    else
        field_hex(b, FIELD_RAW_VIF, &unit, 1);
}

static void field_unit(const build *b, const mbus_record *r)
{
    if (r->vife_end == 0 && r->text_length == 0) { /* nearly always: no VIFEs, so a plain name or none */
        if (*mbus_unit_name(r->unit))
            field_name(b, FIELD_UNIT_, NAMES_UNIT + (unsigned)r->unit);
        return;
    }
    key(b, FIELD_UNIT_);
    push_unit(b->L, r);
    set(b);
}

static void push_record(lua_State *L, const mbus_record *r, unsigned position)
{
    build b = {L, 0, 0};

    lua_createtable(L, 0, 22);
    b.table = lua_gettop(L);
    lua_rawgetp(L, LUA_REGISTRYINDEX, &NAMES);
    b.names = b.table + 1;
    field_integer(&b, FIELD_INDEX, position);
    field_integer(&b, FIELD_POSITION, position);
    field_integer(&b, FIELD_TELEGRAM_, 0);
    field_integer(&b, FIELD_OFFSET, r->position); /* of the DIF in the frame */
    field_name(&b, FIELD_FUNCTION, NAMES_FUNCTION + (unsigned)r->function);
    field_integer(&b, FIELD_STORAGE, (lua_Integer)r->storage);
    field_integer(&b, FIELD_TARIFF, r->tariff);
    field_integer(&b, FIELD_SUBUNIT, r->subunit);
    field_name(&b, FIELD_QUANTITY, NAMES_QUANTITY + (unsigned)r->quantity);
    field_unit(&b, r);
    field_name(&b, FIELD_TYPE_, NAMES_TYPE + (unsigned)r->type);
    if (has_value(r)) {
        key(&b, FIELD_VALUE);
        push_value(L, r);
        set(&b);
    }
    field_modifiers(&b, r);
    field_flags(&b, r);
    if (r->record_error)
        field_string(&b, FIELD_ERROR_, mbus_record_error_name(r->record_error));
    field_action(&b, r);
    if (r->type == MBUS_TYPE_NUMBER || r->type == MBUS_TYPE_REAL)
        field_number(&b, r);
    if (r->msb_first) /* these three: what an encoder must know to give the same bytes again */
        field_true(&b, FIELD_MODE2);
    if (r->flags & MBUS_FLAG_FINAL_DIFE)
        field_true(&b, FIELD_FINAL_DIFE);
    if (r->flags & MBUS_FLAG_HUNDRED_YEARS)
        field_true(&b, FIELD_HUNDRED_YEARS);
    field_text(&b, r);
    field_hex(&b, FIELD_RAW_DIF, r->dib, r->dib_length);
    field_vif_hex(&b, r);
    field_hex(&b, FIELD_RAW_DATA, r->data, r->data_length);
    lua_settop(L, b.table);
}

static void new_array(lua_State *L)
{
    lua_newtable(L);
    luaL_setmetatable(L, ARRAY);
}

static void set_integer(lua_State *L, const char *name, lua_Integer value)
{
    lua_pushinteger(L, value);
    lua_setfield(L, -2, name);
}

static void set_string(lua_State *L, const char *name, const char *value)
{
    lua_pushstring(L, value);
    lua_setfield(L, -2, name);
}

static int decimal(lua_State *L)
{
    mbus_number number = {.factor = 1};
    char text[MBUS_NUMBER_TEXT_MAX];
    lua_Integer raw;
    int n;

    luaL_checktype(L, 1, LUA_TTABLE);
    lua_getfield(L, 1, "exponent");
    number.exponent = (int16_t)lua_tointeger(L, -1);
    if (lua_getfield(L, 1, "factor") != LUA_TNIL)
        number.factor = (uint32_t)lua_tointeger(L, -1);
    lua_getfield(L, 1, "addend");
    number.offset = (int32_t)lua_tointeger(L, -1);
    switch (lua_getfield(L, 1, "raw")) {
    case LUA_TNUMBER:
        if (!lua_isinteger(L, -1)) /* real32: no decimal is meant */
            return luaL_pushfail(L), 1;
        raw = lua_tointeger(L, -1);
        number.negative = raw < 0;
        number.magnitude = number.negative ? 0 - (uint64_t)raw : (uint64_t)raw;
        break;
    case LUA_TSTRING: /* beyond a Lua integer, see push_raw */
        for (const char *p = lua_tostring(L, -1); *p >= '0' && *p <= '9'; p++)
            number.magnitude = number.magnitude * 10 + (uint64_t)(*p - '0');
        break;
    default:
        return luaL_pushfail(L), 1;
    }
    n = mbus_number_text(&number, text, sizeof text);
    if (n < 0)
        return luaL_argerror(L, 1, "a number of that many digits");
    lua_pushlstring(L, text, (size_t)n);
    return 1;
}

static int quantities(lua_State *L)
{
    lua_createtable(L, MBUS_QUANTITY_COUNT, 0);
    for (int i = 0; i < MBUS_QUANTITY_COUNT; i++) {
        lua_pushstring(L, mbus_quantity_name((unsigned)i));
        lua_rawseti(L, -2, i + 1);
    }
    return 1;
}

/* ------------------------------------------------------------------ walking */

static unsigned next_position(lua_State *L)
{
    return lua_isnoneornil(L, 2) ? 0 : (unsigned)luaL_checkinteger(L, 2) + 1;
}

static int next_record(lua_State *L)
{
    telegram *self = check_telegram(L, 1);
    unsigned position = next_position(L);
    mbus_record record;

    if (seek(self, position, &record) <= 0)
        return luaL_pushfail(L), 1;
    lua_pushinteger(L, position);
    push_record(L, &record, position);
    return 2;
}

static int next_values(lua_State *L)
{
    telegram *self = check_telegram(L, 1);
    unsigned position = next_position(L);
    mbus_record record;

    if (seek(self, position, &record) <= 0)
        return luaL_pushfail(L), 1;
    lua_pushinteger(L, position);
    lua_pushstring(L, mbus_quantity_name(record.quantity));
    push_value(L, &record);
    push_unit(L, &record);
    lua_pushstring(L, functions[record.function]);
    lua_pushinteger(L, (lua_Integer)record.storage);
    lua_pushinteger(L, record.tariff);
    lua_pushinteger(L, record.subunit);
    return 8;
}

static int telegram_records(lua_State *L)
{
    check_telegram(L, 1);
    lua_pushcfunction(L, next_record);
    lua_pushvalue(L, 1);
    return 2;
}

static int telegram_each(lua_State *L)
{
    check_telegram(L, 1);
    lua_pushcfunction(L, next_values);
    lua_pushvalue(L, 1);
    return 2;
}

static int telegram_record(lua_State *L)
{
    telegram *self = check_telegram(L, 1);
    lua_Integer position = luaL_checkinteger(L, 2);
    mbus_record record;

    if (position < 0 || position > MBUS_FRAME_MAX || seek(self, (unsigned)position, &record) <= 0)
        return luaL_pushfail(L), 1;
    push_record(L, &record, (unsigned)position);
    return 1;
}

/* Pushes what a record is and holds, if that is all that there is to say of it: no VIFEs, flags or error. */
static int push_plain(lua_State *L, const mbus_record *r)
{
    int names;

    if (r->vife_end || r->text_length || r->flags || r->record_error || !has_value(r))
        return 0;
    lua_rawgetp(L, LUA_REGISTRYINDEX, &NAMES);
    names = lua_gettop(L);
    lua_rawgeti(L, names, NAMES_QUANTITY + (int)r->quantity);
    push_value(L, r);
    if (*mbus_unit_name(r->unit))
        lua_rawgeti(L, names, NAMES_UNIT + (int)r->unit);
    else
        lua_pushnil(L);
    lua_rawgeti(L, names, NAMES_FUNCTION + (int)r->function);
    lua_pushinteger(L, (lua_Integer)r->storage);
    lua_pushinteger(L, r->tariff);
    lua_pushinteger(L, r->subunit);
    return 7;
}

static int telegram_plain(lua_State *L)
{
    telegram *self = check_telegram(L, 1);
    lua_Integer position = luaL_checkinteger(L, 2);
    mbus_record record;

    if (position < 0 || position > MBUS_FRAME_MAX || seek(self, (unsigned)position, &record) <= 0)
        return 0;
    return push_plain(L, &record);
}

static int telegram_length(lua_State *L)
{
    telegram *self = check_telegram(L, 1);
    walk(self);
    lua_pushinteger(L, self->count);
    return 1;
}

/* ------------------------------------------------------------------ finding */

/* X(enum, name): what a record may be found by. Texts come first. */
#define QUERY(X) \
    X(QUANTITY, "quantity") X(UNIT, "unit") X(FUNCTION, "function") X(STORAGE, "storage") X(TARIFF, "tariff") X(SUBUNIT, "subunit") \
    X(MODIFIERS, "modifiers")

enum {
#define X(id, name) QUERY_##id,
    QUERY(X)
#undef X
    QUERY_COUNT
};

/* What a record must be: the query, read once for all records. */
typedef struct query {
    unsigned wanted; /* a bit for each that the query names */
    const char *text[QUERY_FUNCTION + 1];
    lua_Integer number[QUERY_MODIFIERS];
    bool impossible; /* no record has such a value */
} query;

static int query_key(lua_State *L)
{
    static const char *const names[] = {
#define X(id, name) name,
        QUERY(X)
#undef X
    };
    const char *key = lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : "";
    int i = 0;

    while (i < QUERY_COUNT && strcmp(key, names[i]) != 0)
        i++;
    if (i == QUERY_COUNT || lua_rawlen(L, -2) != strlen(key)) /* a misspelt key would match everything, so it raises */
        luaL_error(L, "a record is found by quantity, unit, storage, tariff, subunit, function or modifiers, not by '%s'",
                   luaL_tolstring(L, -2, NULL));
    return i;
}

/* Texts stay in the table at 2, and so where they are. */
static void read_query(lua_State *L, query *q)
{
    size_t n;
    int is_integer;

    memset(q, 0, sizeof *q);
    for (int i = 0; i <= QUERY_FUNCTION; i++)
        q->text[i] = "";
    luaL_checktype(L, 2, LUA_TTABLE);
    for (lua_pushnil(L); lua_next(L, 2); lua_pop(L, 1)) {
        int i = query_key(L);
        q->wanted |= 1u << i;
        if (i <= QUERY_FUNCTION && lua_type(L, -1) == LUA_TSTRING) {
            q->text[i] = lua_tolstring(L, -1, &n);
            q->impossible |= strlen(q->text[i]) != n;
        } else if (i <= QUERY_FUNCTION) {
            q->impossible = true;
        } else if (i < QUERY_MODIFIERS) {
            q->number[i] = lua_tointegerx(L, -1, &is_integer);
            q->impossible |= !is_integer || lua_type(L, -1) != LUA_TNUMBER;
        }
    }
}

static bool wants(const query *q, int i)
{
    return q->wanted >> i & 1u;
}

static bool has_modifier(const mbus_record *r, const char *name)
{
    unsigned state = 0, code;

    while (mbus_next_vife(r, &state, &code))
        if (code >= 0x10 && strcmp(mbus_modifier_name(code), name) == 0)
            return true;
    return false;
}

/* modifiers = {...}: exactly these, in any order; {} means none. */
static bool modifiers_agree(lua_State *L, const mbus_record *r)
{
    unsigned state = 0, code;
    lua_Integer wanted, present = 0;
    const char *name;
    size_t n;
    bool all = true;

    lua_getfield(L, 2, "modifiers");
    luaL_argcheck(L, lua_istable(L, -1), 2, "modifiers must be a list");
    wanted = (lua_Integer)lua_rawlen(L, -1);
    for (lua_Integer i = 1; all && i <= wanted; i++) {
        lua_rawgeti(L, -1, i);
        luaL_argcheck(L, lua_type(L, -1) == LUA_TSTRING, 2, "modifiers must be names");
        name = lua_tolstring(L, -1, &n);
        all = strlen(name) == n && has_modifier(r, name);
        lua_pop(L, 1);
    }
    lua_pop(L, 1);
    while (mbus_next_vife(r, &state, &code))
        present += code >= 0x10 && (r->command || !mbus_record_error_name(code));
    return all && present == wanted;
}

static bool unit_agrees(const query *q, const mbus_record *r)
{
    char text[MBUS_UNIT_TEXT_MAX];
    int n = mbus_unit_text(r, text, sizeof text);

    return n > 0 && strlen(q->text[QUERY_UNIT]) == (size_t)n && memcmp(text, q->text[QUERY_UNIT], (size_t)n) == 0;
}

static bool matches(lua_State *L, const query *q, const mbus_record *r)
{
    return !q->impossible &&
           (!wants(q, QUERY_QUANTITY) || strcmp(q->text[QUERY_QUANTITY], mbus_quantity_name(r->quantity)) == 0) &&
           (!wants(q, QUERY_STORAGE) || q->number[QUERY_STORAGE] == (lua_Integer)r->storage) &&
           (!wants(q, QUERY_TARIFF) || q->number[QUERY_TARIFF] == r->tariff) &&
           (!wants(q, QUERY_SUBUNIT) || q->number[QUERY_SUBUNIT] == r->subunit) &&
           (!wants(q, QUERY_FUNCTION) || strcmp(q->text[QUERY_FUNCTION], functions[r->function]) == 0) &&
           (!wants(q, QUERY_UNIT) || unit_agrees(q, r)) && (!wants(q, QUERY_MODIFIERS) || modifiers_agree(L, r));
}

/* Position of the first record that the query at 2 means; -1: there is none. */
static int find(lua_State *L, telegram *self, mbus_record *record)
{
    query q;

    read_query(L, &q);
    for (unsigned position = 0; seek(self, position, record) > 0; position++)
        if (matches(L, &q, record))
            return (int)position;
    return -1;
}

static int telegram_find(lua_State *L)
{
    mbus_record record;
    int position = find(L, check_telegram(L, 1), &record);

    if (position < 0)
        return luaL_pushfail(L), 1;
    push_record(L, &record, (unsigned)position);
    return 1;
}

static int telegram_position(lua_State *L)
{
    mbus_record record;
    int position = find(L, check_telegram(L, 1), &record);

    if (position < 0)
        return luaL_pushfail(L), 1;
    lua_pushinteger(L, position);
    return 1;
}

static int telegram_value(lua_State *L)
{
    mbus_record record;

    if (find(L, check_telegram(L, 1), &record) < 0)
        return 0;
    push_value(L, &record);
    push_unit(L, &record);
    return 2;
}

static int telegram_select(lua_State *L)
{
    telegram *self = check_telegram(L, 1);
    mbus_record record;
    query q;
    lua_Integer n = 0;

    read_query(L, &q);
    new_array(L);
    for (unsigned position = 0; seek(self, position, &record) > 0; position++)
        if (matches(L, &q, &record)) {
            push_record(L, &record, position);
            lua_rawseti(L, -2, ++n);
        }
    return 1;
}

/* ------------------------------------------------------------------ profiles, format and compact frames */

static int telegram_profile(lua_State *L)
{
    telegram *self = check_telegram(L, 1);
    lua_Integer position = luaL_checkinteger(L, 2);
    mbus_record record, element;
    mbus_profile profile;
    mbus_time time;
    mbus_type time_type;
    char text[MBUS_TIME_TEXT_MAX];
    lua_Integer n = 0;
    int rc;

    if (position < 0 || position > MBUS_FRAME_MAX || seek(self, (unsigned)position, &record) <= 0)
        return luaL_argerror(L, 2, "no such record");
    rc = mbus_profile_open(&self->t, &record, &profile);
    if (rc != MBUS_OK)
        return mbus_push_error(L, rc, record.position);
    new_array(L);
    while (mbus_profile_next(&profile, &element, &time, &time_type) > 0) {
        push_record(L, &element, (unsigned)position);
        if (time_type != MBUS_TYPE_NONE) {
            lua_pushlstring(L, text, (size_t)mbus_time_text(&time, time_type, text, sizeof text));
            lua_setfield(L, -2, "time");
        }
        lua_rawseti(L, -2, ++n);
    }
    return 1;
}

static int telegram_format(lua_State *L)
{
    telegram *self = check_telegram(L, 1);
    uint8_t headers[MBUS_DATA_MAX];
    uint16_t signature;
    int size = mbus_format_of(&self->t, headers, sizeof headers, &signature);

    if (size < 0)
        return mbus_push_error(L, size, self->t.body);
    lua_pushinteger(L, signature);
    lua_pushlstring(L, (const char *)headers, (size_t)size);
    return 2;
}

static int telegram_expand(lua_State *L)
{
    telegram *self = check_telegram(L, 1);
    size_t n;
    const char *headers = luaL_checklstring(L, 2, &n);
    uint8_t out[MBUS_FRAME_MAX];
    int size = mbus_compact_expand(&self->t, (const uint8_t *)headers, n, out, sizeof out);

    if (size < 0)
        return mbus_push_error(L, size, self->t.body);
    lua_pushlstring(L, (const char *)out, (size_t)size);
    return 1;
}

/* ------------------------------------------------------------------ fields */

enum field {
    TYPE, C, A, CI, BYTES, HEADER, ID, MANUFACTURER, MANUFACTURER_CODE, VERSION, MEDIUM, MEDIUM_NAME, ACCESS_NO, STATUS, SIGNATURE,
    SECURITY_MODE, SECONDARY_ADDRESS, MORE_RECORDS_FOLLOW, MANUFACTURER_DATA, ERROR, APPLICATION_ERROR, ALARM_STATUS,
    APPLICATION_RESET, SELECTION, SET_BAUD_RATE, SYNCHRONIZE, GLOBAL_READOUT_REQUEST, FORMAT_SIGNATURE, PAYLOAD
};

static const struct {
    const char *name;
    enum field field;
} fields[] = {
    {"type", TYPE},                               /* "ack", "short", "control", "long" */
    {"c", C}, {"a", A}, {"ci", CI},               /* numbers; nil where the frame has none */
    {"bytes", BYTES},                             /* the whole frame */
    {"header", HEADER},                           /* "none", "short", "long", "fixed"; nil if it could not be read */
    {"id", ID},                                   /* "12345678", hex digits kept */
    {"manufacturer", MANUFACTURER},               /* "HYD"; codes that are no letters show as @ [ ] ^ _ */
    {"manufacturer_code", MANUFACTURER_CODE},
    {"version", VERSION}, {"medium", MEDIUM}, {"medium_name", MEDIUM_NAME}, {"access_no", ACCESS_NO}, {"status", STATUS},
    {"signature", SIGNATURE},                     /* the configuration field */
    {"security_mode", SECURITY_MODE},
    {"secondary_address", SECONDARY_ADDRESS},     /* "3189274724232804": id, manufacturer bytes as sent, version, medium */
    {"more_records_follow", MORE_RECORDS_FOLLOW}, /* DIF 1F */
    {"manufacturer_data", MANUFACTURER_DATA},     /* string after DIF 0F or 1F */
    {"error", ERROR},                             /* why records are missing */
    {"application_error", APPLICATION_ERROR},     /* { code, name } of CI 70 */
    {"alarm_status", ALARM_STATUS},               /* number of CI 71 */
    {"application_reset", APPLICATION_RESET},     /* subcode as hex text, "" without */
    {"selection", SELECTION},                     /* { id, manufacturer_code, version, medium } */
    {"set_baud_rate", SET_BAUD_RATE}, {"synchronize", SYNCHRONIZE}, {"global_readout_request", GLOBAL_READOUT_REQUEST},
    {"format_signature", FORMAT_SIGNATURE},       /* what a compact frame needs the format of */
    {"payload", PAYLOAD},                         /* all bytes after the header */
};

static void push_id(lua_State *L, uint32_t id)
{
    char text[9];
    snprintf(text, sizeof text, "%08lX", (unsigned long)id);
    lua_pushstring(L, text);
}

static void push_manufacturer(lua_State *L, uint16_t code)
{
    char letters[4];

    mbus_manufacturer_letters(code & 0x7FFF, letters); /* bit 15: an address that is not unique */
    lua_pushstring(L, letters);
}

static void push_secondary_address(lua_State *L, const mbus_header *h)
{
    char text[17];
    snprintf(text, sizeof text, "%08lX%02X%02X%02X%02X", (unsigned long)h->id, h->manufacturer & 0xFFu, h->manufacturer >> 8 & 0xFFu,
             (unsigned)h->version, (unsigned)h->medium);
    lua_pushstring(L, text);
}

/* Fields of the header; nil where this kind of header has none. */
static void push_header_field(lua_State *L, const mbus_header *h, enum field field)
{
    static const char *const names[] = {"none", "short", "long", "fixed"};
    bool is_long = h->type == MBUS_HEADER_LONG, is_fixed = h->type == MBUS_HEADER_FIXED;

    lua_pushnil(L); /* what stays if nothing below pushes */
    if (field == HEADER)
        lua_pushstring(L, names[h->type]);
    else if (field == ID && (is_long || is_fixed))
        push_id(L, h->id);
    else if (field == MANUFACTURER && is_long)
        push_manufacturer(L, h->manufacturer);
    else if (field == MANUFACTURER_CODE && is_long)
        lua_pushinteger(L, h->manufacturer);
    else if (field == VERSION && is_long)
        lua_pushinteger(L, h->version);
    else if (field == MEDIUM && (is_long || is_fixed))
        lua_pushinteger(L, h->medium);
    else if (field == MEDIUM_NAME && is_long)
        lua_pushstring(L, mbus_medium_name(h->medium));
    else if (field == MEDIUM_NAME && is_fixed)
        lua_pushstring(L, mbus_fixed_medium_name(h->medium));
    else if (field == ACCESS_NO && h->type != MBUS_HEADER_NONE)
        lua_pushinteger(L, h->access_number);
    else if (field == STATUS && h->type != MBUS_HEADER_NONE)
        lua_pushinteger(L, h->status);
    else if (field == SIGNATURE && (is_long || h->type == MBUS_HEADER_SHORT))
        lua_pushinteger(L, h->configuration);
    else if (field == SECURITY_MODE && (is_long || h->type == MBUS_HEADER_SHORT))
        lua_pushinteger(L, h->configuration >> 8 & 0x1F);
    else if (field == SECONDARY_ADDRESS && is_long)
        push_secondary_address(L, h);
}

static void push_selection(lua_State *L, const mbus_telegram *t)
{
    const uint8_t *p = t->records.bytes + t->body;

    lua_createtable(L, 0, 4);
    push_id(L, t->selection.id);
    lua_setfield(L, -2, "id");
    set_integer(L, "manufacturer_code", t->selection.manufacturer);
    set_integer(L, "version", p[6]);
    set_integer(L, "medium", p[7]);
}

/* Fields of frames that carry no records. */
static void push_payload_field(lua_State *L, const mbus_telegram *t, enum field field)
{
    static const lua_Integer rates[] = {300, 600, 1200, 2400, 4800, 9600, 19200, 38400};
    const uint8_t *body = t->records.bytes + t->body;
    size_t n = (size_t)(t->body_end - t->body);

    lua_pushnil(L);
    if (field == APPLICATION_ERROR && t->payload == MBUS_PAYLOAD_ERROR) {
        unsigned code = n ? body[0] : 0; /* without a byte: unspecified */
        lua_createtable(L, 0, 2);
        set_integer(L, "code", code);
        set_string(L, "name", mbus_application_error_name(code));
    } else if (field == ALARM_STATUS && t->payload == MBUS_PAYLOAD_ALARM && n) {
        lua_pushinteger(L, body[0]);
    } else if (field == APPLICATION_RESET && t->payload == MBUS_PAYLOAD_RESET) {
        push_hex(L, body, n);
    } else if (field == SELECTION && t->payload == MBUS_PAYLOAD_SELECTION && n >= 8) {
        push_selection(L, t);
    } else if (field == SET_BAUD_RATE && t->payload == MBUS_PAYLOAD_BAUDRATE) {
        lua_pushinteger(L, rates[t->frame.ci & 7]);
    } else if (field == SYNCHRONIZE && t->payload == MBUS_PAYLOAD_SYNCHRONIZE) {
        lua_pushboolean(L, true);
    } else if (field == FORMAT_SIGNATURE && mbus_compact_signature(t) >= 0) {
        lua_pushinteger(L, mbus_compact_signature(t));
    } else if (field == PAYLOAD && t->frame.type >= MBUS_FRAME_CONTROL) {
        lua_pushlstring(L, (const char *)body, n);
    }
}

static int push_field(lua_State *L, telegram *self, enum field field)
{
    static const char *const frame_types[] = {"ack", "short", "control", "long"};
    const mbus_telegram *t = &self->t;
    const mbus_frame *f = &t->frame;

    switch (field) {
    case TYPE:
        lua_pushstring(L, frame_types[f->type]);
        return 1;
    case C:
    case A:
    case CI:
        if (f->type == MBUS_FRAME_ACK || (field == CI && f->type == MBUS_FRAME_SHORT))
            lua_pushnil(L);
        else
            lua_pushinteger(L, field == C ? f->c : field == A ? f->a : f->ci);
        return 1;
    case BYTES:
        lua_pushlstring(L, (const char *)self->bytes, self->size);
        return 1;
    case MORE_RECORDS_FOLLOW:
        walk(self);
        lua_pushboolean(L, self->end.more_records_follow);
        return 1;
    case GLOBAL_READOUT_REQUEST:
        walk(self);
        if (self->end.global_readout)
            lua_pushboolean(L, true);
        else
            lua_pushnil(L);
        return 1;
    case MANUFACTURER_DATA:
        walk(self);
        if (self->end.has_manufacturer_data)
            lua_pushlstring(L, (const char *)self->bytes + self->end.manufacturer_data,
                            (size_t)(self->end.end - self->end.manufacturer_data));
        else
            lua_pushnil(L);
        return 1;
    case ERROR:
        walk(self);
        if (self->error)
            mbus_push_error_table(L, self->error, self->error_offset);
        else
            lua_pushnil(L);
        return 1;
    case APPLICATION_ERROR:
    case ALARM_STATUS:
    case APPLICATION_RESET:
    case SELECTION:
    case SET_BAUD_RATE:
    case SYNCHRONIZE:
    case FORMAT_SIGNATURE:
    case PAYLOAD:
        push_payload_field(L, t, field);
        return 1;
    default:
        push_header_field(L, &t->header, field);
        return 1;
    }
}

/* Upvalue 1: names of methods (functions) and fields (their numbers). */
static int telegram_index(lua_State *L)
{
    telegram *self = check_telegram(L, 1);

    lua_pushvalue(L, 2);
    switch (lua_rawget(L, lua_upvalueindex(1))) {
    case LUA_TFUNCTION:
        return 1;
    case LUA_TNUMBER:
        return push_field(L, self, (enum field)lua_tointeger(L, -1));
    default:
        return luaL_pushfail(L), 1;
    }
}

static int telegram_tostring(lua_State *L)
{
    telegram *self = check_telegram(L, 1);

    walk(self);
    if (self->t.header.type == MBUS_HEADER_LONG) {
        push_id(L, self->t.header.id);
        push_manufacturer(L, self->t.header.manufacturer);
        lua_pushfstring(L, "mbus.telegram: %s %s, %d records", lua_tostring(L, -2), lua_tostring(L, -1), self->count);
    } else {
        lua_pushfstring(L, "mbus.telegram: %d bytes, %d records", (int)self->size, self->count);
    }
    return 1;
}

static const luaL_Reg methods[] = {{"records", telegram_records}, {"each", telegram_each},     {"record", telegram_record},
                                   {"plain", telegram_plain},     {"find", telegram_find},     {"value", telegram_value},
                                   {"position", telegram_position}, {"select", telegram_select},
                                   {"profile", telegram_profile}, {"format", telegram_format}, {"expand", telegram_expand},
                                   {NULL, NULL}};

void mbus_open_telegram(lua_State *L)
{
    open_names(L);
    luaL_newmetatable(L, TELEGRAM);
    luaL_newlib(L, methods);
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++)
        set_integer(L, fields[i].name, fields[i].field);
    lua_pushcclosure(L, telegram_index, 1);
    lua_setfield(L, -2, "__index");
    lua_pushcfunction(L, telegram_length);
    lua_setfield(L, -2, "__len");
    lua_pushcfunction(L, telegram_tostring);
    lua_setfield(L, -2, "__tostring");
    lua_pop(L, 1);

    lua_pushcfunction(L, telegram_new);
    lua_setfield(L, -2, "telegram");
    lua_pushcfunction(L, decimal);
    lua_setfield(L, -2, "decimal");
    lua_pushcfunction(L, quantities);
    lua_setfield(L, -2, "quantities");
}
