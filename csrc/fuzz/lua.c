/* lua.c - fuzz target in Lua: gives each input to the promises of spec/robust/FUZZ_NAME.lua (named when this is compiled).
 * An error that they raise is a finding, and so is an input that takes too many instructions.
 *
 * The C modules are linked in, with sanitizers. libFuzzer sees which lines of Lua ran.
 */
#include "fuzz.h"

#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>

int luaopen_mbus_core(lua_State *L);
int luaopen_mbus_aes(lua_State *L);
int luaopen_mbus_limits(lua_State *L);

/* An input does with some thousand; a loop that never ends does not. */
enum { INSTRUCTIONS_MAX = 20000000, COUNTERS = 1 << 16 };

/* libFuzzer reads these beside its own; elsewhere they are an array that nobody reads. */
#ifdef __linux__
__attribute__((section("__libfuzzer_extra_counters")))
#endif
static uint8_t counters[COUNTERS];

static lua_State *state;
static int thousands; /* of instructions of this input */

/* A place is file and line; the name of the file stays where it is. */
static void on_event(lua_State *L, lua_Debug *event)
{
    uint64_t place;

    if (event->event == LUA_HOOKCOUNT) {
        if (++thousands > INSTRUCTIONS_MAX / 1000)
            luaL_error(L, "more than %d instructions", INSTRUCTIONS_MAX);
        return;
    }
    lua_getinfo(L, "S", event);
    place = (uint64_t)(uintptr_t)event->source / 8 * 31 + (uint64_t)event->currentline;
    counters[place * 0x9E3779B97F4A7C15u >> 48]++;
}

static int with_traceback(lua_State *L)
{
    luaL_traceback(L, L, luaL_tolstring(L, 1, NULL), 1);
    return 1;
}

static void fail(const char *what)
{
    fprintf(stderr, "%s: %s\n", what, lua_tostring(state, -1));
    abort();
}

/* Modules come from this tree alone. Coroutines have hooks of their own: they get them as they are made. Who sets one
 * himself, as the sandboxes do, puts ours back in the end. */
static const char prelude[] = "package.path, package.cpath = ..., ''\n"
                              "local create, hooked, sethook = coroutine.create, select(2, ...), debug.sethook\n"
                              "function debug.gethook() end\n"
                              "function debug.sethook(...)\n"
                              "  if ... then sethook(...) else hooked(coroutine.running()) end\n"
                              "end\n"
                              "function coroutine.create(f) return hooked(create(f)) end\n"
                              "function coroutine.wrap(f)\n"
                              "  local co = coroutine.create(f)\n"
                              "  return function(...)\n"
                              "    local results = table.pack(coroutine.resume(co, ...))\n"
                              "    if not results[1] then error(results[2], 0) end\n"
                              "    return table.unpack(results, 2, results.n)\n"
                              "  end\n"
                              "end\n";

static int hooked(lua_State *L)
{
    lua_sethook(lua_tothread(L, 1), on_event, LUA_MASKLINE | LUA_MASKCOUNT, 1000);
    return 1;
}

static void open(void)
{
    static const luaL_Reg modules[] = {
        {"mbus.core", luaopen_mbus_core}, {"mbus.aes", luaopen_mbus_aes}, {"mbus.limits", luaopen_mbus_limits}, {NULL, NULL}};

    state = luaL_newstate();
    CHECK(state != NULL);
    luaL_openlibs(state);
    luaL_getsubtable(state, LUA_REGISTRYINDEX, LUA_PRELOAD_TABLE);
    luaL_setfuncs(state, modules, 0);
    lua_settop(state, 0);
    lua_pushcfunction(state, with_traceback);
    if (luaL_loadstring(state, prelude) != LUA_OK)
        fail("prelude");
    lua_pushliteral(state, FUZZ_ROOT "/lua/?.lua;" FUZZ_ROOT "/lua/?/init.lua;" FUZZ_ROOT "/?.lua;/usr/share/lua/5.4/?.lua");
    lua_pushcfunction(state, hooked);
    if (lua_pcall(state, 2, 0, 1) != LUA_OK)
        fail("prelude");
    if (luaL_loadfile(state, FUZZ_ROOT "/spec/robust/" FUZZ_NAME ".lua") != LUA_OK || lua_pcall(state, 0, 1, 1) != LUA_OK)
        fail(FUZZ_NAME);
    lua_getfield(state, 2, "run");
    lua_remove(state, 2);
    lua_sethook(state, on_event, LUA_MASKLINE | LUA_MASKCOUNT, 1000);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    if (!state)
        open();
    thousands = 0;
    lua_pushvalue(state, 2);
    lua_pushlstring(state, (const char *)bytes, n);
    if (lua_pcall(state, 1, 0, 1) != LUA_OK)
        fail(FUZZ_NAME);
    CHECK(lua_gettop(state) == 2);
    return 0;
}
