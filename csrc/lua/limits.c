/* limits.c - the Lua module mbus.limits: calls a function with an end to its instructions, time and memory.
 *
 *   limits.call(instructions, seconds, bytes, fn, ...)
 *       true, results... | false, error | false, place, what was exceeded: "instructions", "seconds", "memory" or
 *       "table", where one, or the stack, takes more than a sixteenth of it
 *   limits.charge(n)          inside: counts as n instructions; outside of any call it does nothing
 *   limits.weigh(...)         charges what C needs to go through the strings among these
 *   limits.outside(fn, ...)   inside: as pcall, with the limits at rest, for functions that a sandbox lends
 *
 * Memory is limited where it is taken, in the allocator of the state, so that not one byte more is had in however clever a
 * way. Instructions are counted by a hook on a thread of its own; bytes that are taken count, too, so that one instruction
 * that copies a megabyte is not cheap; where it takes many, there is a look at the clock. Whoever has broken a limit is
 * stopped at every single instruction from there on, and so cannot catch it. The function cannot yield.
 */
#include <stddef.h>
#include <stdio.h>
#include <time.h>

#include <lauxlib.h>
#include <lua.h>

enum {
    STEP = 100,    /* instructions between two looks */
    COPIED = 1024, /* bytes that are taken in the time of one instruction */
    SCANNED = 64,  /* bytes that are looked at in the time of one instruction */
    LARGE = 16384, /* bytes that are not taken without a look at the clock */
    TABLES = 16    /* the part of the memory that one hash part may have */
};

typedef enum { NOTHING, INSTRUCTIONS, SECONDS, MEMORY, TABLE } limit;

typedef struct limiter {
    lua_Alloc alloc; /* of the state, and what belongs to it */
    void *ud;
    lua_State *thread;
    lua_Number instructions, used, seconds;
    clock_t began;
    size_t bytes, taken, refused;
    size_t enough; /* taken, to collect what is garbage among it */
    int outside, collecting, boxed;
    limit broken;
    char place[LUA_IDSIZE + 16]; /* "file:line: " of whoever was stopped */
} limiter;

static void look(lua_State *L, lua_Debug *ar);

/* From here on there is a look at every instruction. lua_sethook may be called at any time, by its manual. */
static void stop(limiter *l, limit what)
{
    if (l->broken == NOTHING)
        l->broken = what;
    lua_sethook(l->thread, look, LUA_MASKCOUNT, 1);
}

/* Where clock_t has 32 bits it wraps. */
static int is_over(const limiter *l)
{
    return (lua_Number)((unsigned long)clock() - (unsigned long)l->began) / CLOCKS_PER_SEC > l->seconds;
}

/* Lua collects what it can and asks once more. That takes time, so that it is not done for ever. */
static void *refuse(limiter *l, size_t size, limit why)
{
    if (l->collecting)
        return NULL;
    if (is_over(l))
        stop(l, SECONDS);
    else if (l->refused == size)
        stop(l, why);
    l->refused = size;
    return NULL;
}

/* Keys can be made to collide, and a hash part that grows puts all of them into the new one, in a single instruction: the
 * time is the square of their number. A hash part is a new block without a type, as is a longer stack, which has no business
 * to be endless either; so are buffers, but those follow a userdata. */
static int is_table(limiter *l, const void *block, size_t old)
{
    int boxed = l->boxed;

    l->boxed = block == NULL && old == LUA_TUSERDATA;
    return block == NULL && old == 0 && !boxed;
}

static limit judge(const limiter *l, size_t more, int table)
{
    if (more > l->bytes || l->taken > l->bytes - more)
        return MEMORY;
    if (table && more > l->bytes / TABLES)
        return TABLE;
    return more >= LARGE && is_over(l) ? SECONDS : NOTHING;
}

/* Less is never refused: Lua relies on it. It may be of what was there before the call, hence the comparison. */
static void *limited(void *ud, void *block, size_t old, size_t size)
{
    limiter *l = ud;
    size_t had = block != NULL ? old : 0; /* without a block `old` is a type */
    size_t more = size > had ? size - had : 0, less = had > size ? had - size : 0;
    size_t copied = more / COPIED;
    int table = more > 0 && is_table(l, block, old);
    limit why = more > 0 && !l->outside ? judge(l, more, table) : NOTHING;
    void *result;

    if (why != NOTHING)
        return refuse(l, size, why);
    result = l->alloc(l->ud, block, old, size);
    if (result == NULL && size > 0)
        return NULL;
    if (more > 0)
        l->refused = 0;
    l->taken += more;
    l->taken -= less < l->taken ? less : l->taken;
    l->used += l->outside ? 0 : (lua_Number)copied;
    return result;
}

/* The innermost call that is under way. */
static limiter *current(lua_State *L)
{
    void *ud;

    return lua_getallocf(L, &ud) == limited ? ud : NULL;
}

/* No text: there may be no memory for it. */
static int leave(lua_State *L, limiter *l, lua_Debug *ar)
{
    if (l->place[0] == '\0' && lua_getinfo(L, "Sl", ar) && ar->currentline > 0)
        snprintf(l->place, sizeof l->place, "%s:%d: ", ar->short_src, ar->currentline);
    lua_pushlightuserdata(L, l);
    return lua_error(L);
}

static int ask_for_too_much(lua_State *L)
{
    lua_newuserdatauv(L, (size_t)lua_tointeger(L, 1), 0);
    return 0;
}

/* Buffers of C's functions take memory without a collection before they give up, so there must be room for them. A refusal is
 * the way to a collection without finalizers, which are the host's, and have no business in here. */
static void collect(lua_State *L, limiter *l)
{
    l->collecting = 1;
    lua_pushcfunction(L, ask_for_too_much);
    lua_pushinteger(L, (lua_Integer)l->bytes + 1);
    lua_pcall(L, 1, 0, 0);
    lua_pop(L, 1);
    l->collecting = 0;
    l->enough = l->taken < l->bytes ? l->taken + (l->bytes - l->taken) / 2 : l->bytes;
    if (l->enough < l->taken + l->bytes / 16)
        l->enough = l->bytes; /* it is nearly full: no collection for every crumb */
}

static void look(lua_State *L, lua_Debug *ar)
{
    limiter *l = current(L);

    if (l == NULL)
        return;
    if (l->broken == NOTHING && l->taken > l->enough)
        collect(L, l);
    l->used += STEP;
    if (l->used > l->instructions)
        stop(l, INSTRUCTIONS);
    else if (l->taken > l->bytes) /* by what was lent */
        stop(l, MEMORY);
    else if (is_over(l))
        stop(l, SECONDS);
    if (l->broken != NOTHING)
        leave(L, l, ar);
    if (lua_gethookcount(L) != STEP)
        lua_sethook(L, look, LUA_MASKCOUNT, STEP);
}

/* The caller, a function of the sandbox, is stopped in its next instruction. */
static void pay(lua_State *L, lua_Number instructions)
{
    limiter *l = current(L);

    if (l == NULL || l->outside)
        return;
    l->used += instructions > 0 ? instructions : 0;
    if (l->used > l->instructions)
        stop(l, INSTRUCTIONS);
    else if (is_over(l))
        stop(l, SECONDS);
}

static int charge(lua_State *L)
{
    pay(L, luaL_checknumber(L, 1));
    return 0;
}

static int weigh(lua_State *L)
{
    lua_Number bytes = 0;

    for (int i = lua_gettop(L); i > 0; i--)
        if (lua_type(L, i) == LUA_TSTRING)
            bytes += (lua_Number)lua_rawlen(L, i);
    pay(L, bytes / SCANNED);
    return 0;
}

/* It catches everything, since a thread that has failed is dead, and what closes its variables would run without the hook. */
static int protected(lua_State *L)
{
    int status = lua_pcall(L, lua_gettop(L) - 1, LUA_MULTRET, 0);

    lua_pushboolean(L, status == LUA_OK);
    lua_insert(L, 1);
    return lua_gettop(L);
}

/* The hook rests too: a coroutine that is made in there would inherit it. Afterwards there is a look at once, since the
 * instructions before were not counted yet. */
static int outside(lua_State *L)
{
    limiter *l = current(L);
    int results;

    if (l == NULL || l->outside || l->thread != L)
        return protected(L);
    l->outside = 1;
    lua_sethook(L, NULL, 0, 0);
    results = protected(L);
    l->outside = 0;
    lua_sethook(L, look, LUA_MASKCOUNT, 1);
    return results;
}

static void run(lua_State *L, limiter *l, int arguments, int *status, int *results)
{
    l->alloc = lua_getallocf(L, &l->ud);
    lua_sethook(l->thread, look, LUA_MASKCOUNT, STEP);
    lua_setallocf(L, limited, l);
    *status = lua_resume(l->thread, L, arguments, results);
    lua_setallocf(L, l->alloc, l->ud);
    lua_sethook(l->thread, NULL, 0, 0);
}

static int fail(lua_State *L, limit broken, const char *message)
{
    static const char *const names[] = { NULL, "instructions", "seconds", "memory", "table" };

    lua_pushboolean(L, 0);
    lua_pushstring(L, message);
    lua_pushstring(L, names[broken]);
    return 3;
}

static int call(lua_State *L)
{
    limiter l = { 0 };
    int arguments = lua_gettop(L) - 3, results = 0, status;

    l.instructions = luaL_checknumber(L, 1);
    l.seconds = luaL_checknumber(L, 2);
    l.bytes = (size_t)luaL_checkinteger(L, 3);
    luaL_checkany(L, 4);
    l.enough = l.bytes / 2;
    l.began = clock();
    l.thread = lua_newthread(L);
    lua_insert(L, 4);
    if (!lua_checkstack(l.thread, arguments + 1))
        return fail(L, NOTHING, "too many arguments");
    lua_pushcfunction(l.thread, protected);
    lua_xmove(L, l.thread, arguments);
    run(L, &l, arguments, &status, &results);
    if (l.broken != NOTHING)
        return fail(L, l.broken, l.place);
    if (status != LUA_OK) /* of `protected` itself: neither stack nor memory was left for it */
        return fail(L, NOTHING, lua_tostring(l.thread, -1));
    if (!lua_checkstack(L, results))
        return fail(L, NOTHING, "too many results");
    lua_xmove(l.thread, L, results);
    return results;
}

int luaopen_mbus_limits(lua_State *L);

int luaopen_mbus_limits(lua_State *L)
{
    static const luaL_Reg functions[] = {
        { "call", call }, { "charge", charge }, { "weigh", weigh }, { "outside", outside }, { NULL, NULL },
    };

    luaL_Buffer buffer;

    /* The first buffer that is not on the stack makes its metatable, behind its userdata: not within a call. */
    luaL_buffinitsize(L, &buffer, 2 * (size_t)LUAL_BUFFERSIZE);
    luaL_pushresultsize(&buffer, 0);
    luaL_newlib(L, functions);
    return 1;
}
