/* core.c - the Lua module mbus.core: frames, the deframer, hex text; telegram.c adds telegrams and records.
 *
 *   core.ACK                         "\xE5"
 *   core.short(c, a)                 "\x10..."            short frame
 *   core.long(c, a, ci [, data])     "\x68..."            control frame, or long frame with data
 *   core.frame(bytes)                frame | nil, err     exactly one frame
 *   core.deframer()                  d
 *     d:feed(bytes) d:flush()        { event, ... }       { kind="frame", ... } | { kind="noise", bytes= }
 *     d:pending()                    have, need
 *     d:reset()
 *   core.hex(bytes [, separator])    "68 0B 0B 68"
 *   core.unhex(text)                 bytes | nil, err
 *   core.Error                       the metatable of every err, see lua/mbus/error.lua
 *
 * It links nothing but Lua. What bytes can cause is nil, err; a wrong argument raises.
 */
#include "binding.h"

#include <string.h>

#define DEFRAMER "mbus.deframer"
#define ERROR "mbus.Error" /* metatable of errors; lua/mbus/error.lua gives it its methods */

void mbus_push_error_table(lua_State *L, int error, size_t offset)
{
    lua_createtable(L, 0, 4);
    lua_pushstring(L, mbus_error_kind(error));
    lua_setfield(L, -2, "kind");
    lua_pushstring(L, mbus_error_code(error));
    lua_setfield(L, -2, "code");
    lua_pushstring(L, mbus_error_text(error));
    lua_setfield(L, -2, "message");
    lua_pushinteger(L, (lua_Integer)offset);
    lua_setfield(L, -2, "offset");
    luaL_setmetatable(L, ERROR);
}

int mbus_push_error(lua_State *L, int error, size_t offset)
{
    luaL_pushfail(L);
    mbus_push_error_table(L, error, offset);
    return 2;
}

static void set_integer(lua_State *L, const char *name, lua_Integer value)
{
    lua_pushinteger(L, value);
    lua_setfield(L, -2, name);
}

void mbus_push_frame(lua_State *L, const mbus_frame *frame, const uint8_t *bytes)
{
    static const char *const names[] = {"ack", "short", "control", "long"};

    lua_createtable(L, 0, 7);
    lua_pushstring(L, names[frame->type]);
    lua_setfield(L, -2, "type");
    if (frame->type != MBUS_FRAME_ACK) {
        set_integer(L, "c", frame->c);
        set_integer(L, "a", frame->a);
    }
    if (frame->type >= MBUS_FRAME_CONTROL) {
        set_integer(L, "ci", frame->ci);
        lua_pushlstring(L, (const char *)frame->data, frame->length);
        lua_setfield(L, -2, "data");
    }
    lua_pushlstring(L, (const char *)bytes, frame->size);
    lua_setfield(L, -2, "bytes");
}

static const uint8_t *check_bytes(lua_State *L, int arg, size_t *n)
{
    return (const uint8_t *)luaL_checklstring(L, arg, n);
}

static uint8_t check_byte(lua_State *L, int arg)
{
    lua_Integer value = luaL_checkinteger(L, arg);
    luaL_argcheck(L, value >= 0 && value <= 255, arg, "a byte, 0 to 255, expected");
    return (uint8_t)value;
}

static int frame_read(lua_State *L)
{
    size_t n, offset;
    const uint8_t *bytes = check_bytes(L, 1, &n);
    mbus_frame frame;
    int rc = mbus_frame_read(bytes, n, &frame, &offset);

    if (rc != MBUS_OK)
        return mbus_push_error(L, rc, offset);
    mbus_push_frame(L, &frame, bytes);
    return 1;
}

static int push_written(lua_State *L, const mbus_frame *frame)
{
    uint8_t out[MBUS_FRAME_MAX];
    int size = mbus_frame_write(frame, out, sizeof out);

    lua_pushlstring(L, (const char *)out, (size_t)size); /* size > 0: the buffer is large enough */
    return 1;
}

static int frame_short(lua_State *L)
{
    mbus_frame frame = {.type = MBUS_FRAME_SHORT};

    frame.c = check_byte(L, 1);
    frame.a = check_byte(L, 2);
    return push_written(L, &frame);
}

static int frame_long(lua_State *L)
{
    mbus_frame frame = {.type = MBUS_FRAME_LONG};
    size_t n;

    frame.c = check_byte(L, 1);
    frame.a = check_byte(L, 2);
    frame.ci = check_byte(L, 3);
    frame.data = (const uint8_t *)luaL_optlstring(L, 4, "", &n);
    luaL_argcheck(L, n <= MBUS_DATA_MAX, 4, "at most 252 bytes of user data fit a frame");
    frame.length = (uint8_t)n;
    return push_written(L, &frame);
}

/* ------------------------------------------------------------------ deframer */

static mbus_deframer *check_deframer(lua_State *L)
{
    return (mbus_deframer *)luaL_checkudata(L, 1, DEFRAMER);
}

static int deframer_new(lua_State *L)
{
    mbus_deframer *d = (mbus_deframer *)lua_newuserdatauv(L, sizeof *d, 0);
    memset(d, 0, sizeof *d);
    luaL_setmetatable(L, DEFRAMER);
    return 1;
}

/* The array of events is on top; neighbouring noise bytes become one event. */
typedef struct events {
    lua_Integer count;
    size_t noise;
    uint8_t buffer[64];
    bool open; /* the last event is noise that may be continued */
} events;

static void flush_noise(lua_State *L, events *e)
{
    if (e->noise == 0)
        return;
    if (e->open) { /* a long run: join it to what was pushed before */
        lua_rawgeti(L, -1, e->count);
        lua_getfield(L, -1, "bytes");
        lua_pushlstring(L, (const char *)e->buffer, e->noise);
        lua_concat(L, 2);
    } else {
        lua_createtable(L, 0, 2);
        lua_pushliteral(L, "noise");
        lua_setfield(L, -2, "kind");
        lua_pushvalue(L, -1);
        lua_rawseti(L, -3, ++e->count);
        lua_pushlstring(L, (const char *)e->buffer, e->noise);
    }
    lua_setfield(L, -2, "bytes");
    lua_pop(L, 1);
    e->noise = 0;
    e->open = true;
}

static void add_event(lua_State *L, events *e, mbus_event event, const mbus_deframer *d, const mbus_frame *frame)
{
    if (event == MBUS_NOISE) {
        if (e->noise == sizeof e->buffer)
            flush_noise(L, e);
        e->buffer[e->noise++] = d->buffer[0];
        return;
    }
    flush_noise(L, e);
    e->open = false;
    mbus_push_frame(L, frame, d->buffer);
    lua_pushliteral(L, "frame");
    lua_setfield(L, -2, "kind");
    lua_rawseti(L, -2, ++e->count);
}

static int deframer_feed(lua_State *L)
{
    mbus_deframer *d = check_deframer(L);
    size_t n;
    const uint8_t *bytes = check_bytes(L, 2, &n);
    const uint8_t *end = bytes + n;
    mbus_frame frame;
    mbus_event event;
    events e = {.count = 0};

    lua_newtable(L);
    while ((event = mbus_deframe(d, &bytes, end, &frame)) != MBUS_MORE)
        add_event(L, &e, event, d, &frame);
    flush_noise(L, &e);
    return 1;
}

static int deframer_flush(lua_State *L)
{
    mbus_deframer *d = check_deframer(L);
    mbus_frame frame;
    mbus_event event;
    events e = {.count = 0};

    lua_newtable(L);
    while ((event = mbus_deframe_end(d, &frame)) != MBUS_MORE)
        add_event(L, &e, event, d, &frame);
    flush_noise(L, &e);
    return 1;
}

static int deframer_pending(lua_State *L)
{
    const mbus_deframer *d = check_deframer(L);
    lua_pushinteger(L, d->have - d->done);
    lua_pushinteger(L, mbus_deframe_needs(d));
    return 2;
}

static int deframer_reset(lua_State *L)
{
    mbus_deframer *d = check_deframer(L);
    memset(d, 0, sizeof *d);
    return 0;
}

/* ------------------------------------------------------------------ hex text */

static int hex(lua_State *L)
{
    static const char digits[] = "0123456789ABCDEF";
    size_t n, separator_size;
    const uint8_t *bytes = check_bytes(L, 1, &n);
    const char *separator = luaL_optlstring(L, 2, " ", &separator_size);
    luaL_Buffer b;

    luaL_buffinit(L, &b);
    for (size_t i = 0; i < n; i++) {
        if (i)
            luaL_addlstring(&b, separator, separator_size);
        luaL_addchar(&b, digits[bytes[i] >> 4]);
        luaL_addchar(&b, digits[bytes[i] & 15]);
    }
    luaL_pushresult(&b);
    return 1;
}

static int digit(int c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* nil, err that names the character and its place in the text. */
static int bad_hex(lua_State *L, const char *message, size_t at)
{
    luaL_pushfail(L);
    mbus_push_error_table(L, MBUS_E_BAD_VALUE, at);
    lua_pushliteral(L, "bad_hex");
    lua_setfield(L, -2, "code");
    lua_pushfstring(L, "%s at character %d", message, (int)at + 1);
    lua_setfield(L, -2, "message");
    return 2;
}

static int unhex(lua_State *L)
{
    size_t n;
    const char *text = luaL_checklstring(L, 1, &n);
    luaL_Buffer b;

    luaL_buffinit(L, &b);
    for (size_t i = 0; i < n;) {
        int high = digit(text[i]);
        if (text[i] == '0' && i + 1 < n && (text[i + 1] == 'x' || text[i + 1] == 'X')) {
            i += 2;
            continue;
        }
        if (high < 0) {
            if (text[i] == '\0' || !strchr(" \t\r\n:,;-", text[i]))
                return bad_hex(L, "not a hex digit", i);
            i++;
            continue;
        }
        if (i + 1 >= n || digit(text[i + 1]) < 0)
            return bad_hex(L, "half a byte", i);
        luaL_addchar(&b, (char)(high << 4 | digit(text[i + 1])));
        i += 2;
    }
    luaL_pushresult(&b);
    return 1;
}

static const luaL_Reg deframer_methods[] = {
    {"feed", deframer_feed}, {"flush", deframer_flush}, {"pending", deframer_pending}, {"reset", deframer_reset}, {NULL, NULL}};

static const luaL_Reg functions[] = {{"frame", frame_read}, {"short", frame_short},     {"long", frame_long}, {"deframer", deframer_new},
                                     {"hex", hex},          {"unhex", unhex}, {NULL, NULL}};

LUAMOD_API int luaopen_mbus_core(lua_State *L);

LUAMOD_API int luaopen_mbus_core(lua_State *L)
{
    luaL_checkversion(L);
    luaL_newmetatable(L, DEFRAMER);
    luaL_newlib(L, deframer_methods);
    lua_setfield(L, -2, "__index");
    lua_pop(L, 1);

    luaL_newlib(L, functions);
    lua_pushliteral(L, "\xE5");
    lua_setfield(L, -2, "ACK");
    luaL_newmetatable(L, ERROR);
    lua_setfield(L, -2, "Error");
    mbus_open_telegram(L);
    mbus_open_encode(L);
    return 1;
}
