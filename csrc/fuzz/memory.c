/* memory.c - lets memory fail: the n-th allocation of a scenario, for every n, and looks at what is left.
 *
 *   memory [-points=N] [-from=N] SCENARIO...    of csrc/fuzz/memory.lua; at most so many n, evenly spread (default: every n)
 *
 * Lua's allocations go through an allocator of our own; those of mbedTLS, libserialport and libc's malloc in our C files
 * are wrapped by the linker (--wrap). Three ways to fail: the allocation alone, after which Lua collects garbage and tries
 * again; that try too, so that the error is raised; and all of the next 64.
 *
 * After each failure the scenario runs once more, undisturbed, in the same state, and must give what it gave before there
 * were any failures. Garbage collected, not more must be in use. At the end, every byte must have come back. Crashes and
 * leaks beside Lua are for the sanitizers.
 *
 * Before all that, the scenario runs with a full garbage collection at every single object that it makes; and then again and
 * again where memory is so short that Lua never gets to its finalizers, and must not need more and more.
 */
#define _GNU_SOURCE
#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>

int luaopen_mbus_core(lua_State *L);
int luaopen_mbus_aes(lua_State *L);
int luaopen_mbus_limits(lua_State *L);
int luaopen_mbus_serial(lua_State *L);

/* Of the linker. */
void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *block, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *block, size_t size);

static struct {
    long count;       /* allocations of the scenario so far */
    long first, last; /* those that fail */
    long failures;
    bool collects; /* at each new object, the first try fails, so that Lua collects all garbage */
    long blocks, bytes; /* that Lua has */
} heap;

static bool refused(void)
{
    bool fails = ++heap.count >= heap.first && heap.count <= heap.last;

    heap.failures += fails;
    return fails;
}

static bool refused_at_first(void)
{
    static bool again;

    again = heap.collects && !again;
    return again;
}

static void *allocate(void *context, void *block, size_t old, size_t wanted)
{
    bool is_object = !block && old != 0; /* then it tells the kind; buffers of lauxlib, which never try again, have none */
    void *result;

    (void)context;
    if (!block)
        old = 0;
    if (wanted == 0) {
        if (block)
            heap.blocks--;
        heap.bytes -= (long)old;
        free(block);
        return NULL;
    }
    if (wanted > old && (refused() || (is_object && refused_at_first()))) /* Lua relies on it that a block can be made smaller */
        return NULL;
    result = __real_malloc(wanted); /* moved each time, so that an old pointer is found */
    if (!result)
        abort();
    if (block)
        memcpy(result, block, old < wanted ? old : wanted);
    else
        heap.blocks++;
    free(block);
    heap.bytes += (long)wanted - (long)old;
    return result;
}

/* ------------------------------------------------------------------ allocations of the libraries */

static bool of_libraries; /* the scenario runs: what is allocated now may fail */

void *__wrap_malloc(size_t size)
{
    return of_libraries && refused() ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t count, size_t size)
{
    return of_libraries && refused() ? NULL : __real_calloc(count, size);
}

void *__wrap_realloc(void *block, size_t size)
{
    return of_libraries && refused() ? NULL : __real_realloc(block, size);
}

/* ------------------------------------------------------------------ one scenario */

static int with_traceback(lua_State *L)
{
    const char *message = lua_tostring(L, 1);

    if (message && strstr(message, "not enough memory"))
        return 1; /* a traceback needs memory */
    luaL_traceback(L, L, luaL_tolstring(L, 1, NULL), 1);
    return 1;
}

static int on_panic(lua_State *L)
{
    fprintf(stderr, "unprotected error: %s\n", lua_tostring(L, -1));
    return 0; /* Lua aborts */
}

static int prepare(lua_State *L)
{
    static const luaL_Reg modules[] = {{"mbus.core", luaopen_mbus_core},
                                       {"mbus.aes", luaopen_mbus_aes},
                                       {"mbus.limits", luaopen_mbus_limits},
                                       {"mbus.serial", luaopen_mbus_serial},
                                       {NULL, NULL}};

    luaL_openlibs(L);
    luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_PRELOAD_TABLE);
    luaL_setfuncs(L, modules, 0);
    lua_getglobal(L, "package");
    lua_pushliteral(L, FUZZ_ROOT "/lua/?.lua;" FUZZ_ROOT "/lua/?/init.lua;/usr/share/lua/5.4/?.lua");
    lua_setfield(L, -2, "path");
    lua_pushliteral(L, "");
    lua_setfield(L, -2, "cpath");
    if (luaL_loadfile(L, FUZZ_ROOT "/csrc/fuzz/memory.lua") != LUA_OK)
        return lua_error(L);
    lua_call(L, 0, 1);
    return 1;
}

/* The table of scenarios in a fresh state, or NULL where memory ran out. */
static lua_State *open(void)
{
    lua_State *L = lua_newstate(allocate, NULL);

    if (!L)
        return NULL;
    lua_atpanic(L, on_panic);
    lua_pushcfunction(L, prepare);
    if (lua_pcall(L, 0, 1, 0) == LUA_OK)
        return L;
    if (heap.failures == 0) {
        fprintf(stderr, "%s\n", lua_tostring(L, -1));
        exit(1);
    }
    lua_close(L);
    return NULL;
}

static int call_scenario(lua_State *L)
{
    lua_pushvalue(L, 1);
    lua_call(L, 0, 1);
    luaL_checkstring(L, -1);
    return 1;
}

/* Runs the function on top, which stays; its result, or the error, is pushed. */
static int run(lua_State *L, long first, long last)
{
    int rc;

    lua_pushcfunction(L, with_traceback);
    lua_pushcfunction(L, call_scenario);
    lua_pushvalue(L, -3);
    heap.count = heap.failures = 0;
    heap.first = first;
    heap.last = last;
    of_libraries = true;
    rc = lua_pcall(L, 1, 1, -3);
    of_libraries = false;
    heap.first = heap.last = 0;
    lua_remove(L, -2);
    return rc;
}

static int fail(const char *name, long n, const char *what, const char *more)
{
    fprintf(stderr, "memory: %s, allocation %ld: %s: %.400s\n", name, n, what, more ? more : "");
    return 1;
}

static const struct {
    const char *name;
    long length; /* of the run of failures */
} ways[] = {{"one", 1}, {"two", 2}, {"many", 64}};

enum { WAYS = sizeof ways / sizeof ways[0] };

static struct {
    long raised, survived, told; /* errors of memory; none at all; another result, which says so */
} counts;

/* The function that is on the stack, and what it does where nothing fails. */
typedef struct scenario {
    const char *name;
    char *expected;     /* its result */
    long allocations;   /* of a run */
    long blocks, bytes; /* in use between runs */
} scenario;

/* The outcome is on top: an error that speaks of memory, a result as ever, or an honest report in the result's place. */
static int judge(lua_State *L, int rc, const scenario *s, long n)
{
    const char *text = lua_tostring(L, -1);

    if (rc == LUA_OK && text && strcmp(text, s->expected) == 0)
        counts.survived++;
    else if (rc != LUA_OK && text && strstr(text, "not enough memory"))
        counts.raised++;
    else if (text && (strstr(text, "memory") || strstr(text, "mbedTLS error")))
        counts.told++;
    else
        return fail(s->name, n, rc == LUA_OK ? "memory failed, and the result is a wrong one" : "another error than that of memory", text);
    return 0;
}

static void collect(lua_State *L)
{
    lua_gc(L, LUA_GCCOLLECT);
    lua_gc(L, LUA_GCCOLLECT); /* what finalizers let go */
}

/* What has little to fail fails everywhere in the short form too. */
static long step(long allocations, long points)
{
    return allocations / 3 < points ? 1 : allocations / points + 1;
}

static void report(const char *name, long allocations, long every)
{
    printf("%-8s %5ld allocations, ", name, allocations);
    printf(every == 1 ? "each failed\n" : "one in %ld failed\n", every);
    fflush(stdout);
}

static int works(lua_State *L, const scenario *s, long n, const char *what)
{
    int failed = 0;

    if (run(L, 0, 0) != LUA_OK || strcmp(lua_tostring(L, -1), s->expected) != 0)
        failed = fail(s->name, n, what, lua_tostring(L, -1));
    else if (!lua_gc(L, LUA_GCISRUNNING))
        failed = fail(s->name, n, "the collector was left stopped", NULL);
    lua_pop(L, 1);
    return failed;
}

/* Warm: modules are loaded, caches filled. */
static int measure(lua_State *L, scenario *s)
{
    for (int warm = 0; warm < 4; warm++) {
        collect(L);
        if (run(L, 0, 0) != LUA_OK)
            return fail(s->name, 0, "fails by itself", lua_tostring(L, -1));
        free(s->expected);
        s->expected = strdup(lua_tostring(L, -1));
        if (!s->expected)
            abort();
        s->allocations = heap.count;
        lua_pop(L, 1);
    }
    collect(L);
    s->blocks = heap.blocks;
    s->bytes = heap.bytes;
    return 0;
}

static int collect_always(lua_State *L, const scenario *s)
{
    int failed;

    heap.collects = true;
    failed = works(L, s, 0, "what is in use was collected");
    heap.collects = false;
    return failed;
}

enum { CACHED = 16 }; /* blocks: what failed may have filled a cache that was not full, or made a table grow */

/* Each begins without garbage, so that the n-th allocation is the same one, however many have failed before. */
static int fail_at(lua_State *L, const scenario *s, long n, bool *met)
{
    *met = false;
    for (int way = 0; way < WAYS; way++) {
        int rc;

        collect(L);
        if (heap.blocks > s->blocks + CACHED)
            return fail(s->name, n, "blocks are kept", NULL);
        rc = run(L, n, n + ways[way].length - 1);
        *met = *met || heap.failures > 0;
        if (judge(L, rc, s, n))
            return 1;
        lua_pop(L, 1);
    }
    return works(L, s, n, "afterwards it does not work any more");
}

/* Until the scenario meets no failure. The state is the same all the time. */
static int fail_everywhere(lua_State *L, const scenario *s, long from, long every)
{
    bool met = true;

    for (long n = from; met; n += every)
        if (fail_at(L, s, n, &met))
            return 1;
    return 0;
}

enum {
    HUNGRY = 200, /* runs */
    KEPT = 1024   /* bytes of each that may be: Lua's own long buffers have finalizers */
};

/* Where memory is short, Lua never comes to the end of a cycle of its own, and runs no finalizers: what they could see stays.
 * There must not be much of it, or memory ends once for all. */
static int starve(lua_State *L, const scenario *s)
{
    for (int i = 0; i < HUNGRY; i++) {
        run(L, 1, 1);
        lua_pop(L, 1);
    }
    if (heap.bytes > 2 * s->bytes + HUNGRY * KEPT)
        return fail(s->name, HUNGRY, "garbage is kept where memory is short", NULL);
    return 0;
}

static int torture(lua_State *L, const char *name, long from, long points)
{
    scenario s = {.name = name};
    long every;
    int failed;

    if (lua_getfield(L, 1, name) != LUA_TFUNCTION)
        return fail(name, 0, "no such scenario", NULL);
    failed = measure(L, &s) || collect_always(L, &s) || starve(L, &s);
    every = step(s.allocations, points);
    failed = failed || fail_everywhere(L, &s, from, every);
    if (!failed)
        report(name, s.allocations, every);
    free(s.expected);
    lua_pop(L, 1);
    return failed;
}

/* ------------------------------------------------------------------ the state itself */

/* lua_newstate, luaL_openlibs and all modules: a state that cannot be had leaves nothing behind. */
static int torture_opening(long points)
{
    long allocations, every;
    lua_State *L;

    heap.count = heap.failures = 0;
    L = open();
    allocations = heap.count;
    every = step(allocations, points);
    lua_close(L);
    if (heap.blocks || heap.bytes)
        return fail("opening", 0, "blocks are left", NULL);
    for (long n = 1; n <= allocations; n += every)
        for (int way = 0; way < WAYS; way++) {
            heap.count = heap.failures = 0;
            heap.first = n;
            heap.last = n + ways[way].length - 1;
            L = open();
            if (L)
                lua_close(L);
            heap.first = heap.last = 0;
            if (heap.blocks || heap.bytes)
                return fail("opening", n, "blocks are left", NULL);
        }
    report("opening", allocations, every);
    return 0;
}

int main(int argc, char **argv)
{
    long points = LONG_MAX, from = 1;
    int failed = 0;
    lua_State *L;

    for (int i = 1; i < argc; i++) {
        if (strncmp(argv[i], "-points=", 8) == 0) {
            points = strtol(argv[i] + 8, NULL, 10);
        } else if (strncmp(argv[i], "-from=", 6) == 0) {
            from = strtol(argv[i] + 6, NULL, 10);
        } else if (strcmp(argv[i], "opening") == 0) {
            failed |= torture_opening(points);
        } else {
            L = open();
            failed |= torture(L, argv[i], from, points);
            lua_close(L);
            if (heap.blocks || heap.bytes)
                failed |= fail(argv[i], 0, "blocks are left when the state is closed", NULL);
        }
    }
    printf("memory: %ld errors raised, %ld told in a result, %ld runs unharmed\n", counts.raised, counts.told, counts.survived);
    return failed;
}
