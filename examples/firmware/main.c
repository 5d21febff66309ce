/* main.c - a firmware that reads meters: Lua, the protocol core and all modules are in one program, nothing is loaded
 * at run time, and the loop, the clock and the line are its own. The Lua side says what it wants (bus:wants), this side
 * does it and tells what happened (bus:feed).
 *
 *     make -f examples/firmware/Makefile
 *     build/firmware/firmware /dev/ttyUSB0 10 3189274724232804
 *
 * On a microcontroller line_open, line_write, line_read, line_wait and now are what changes. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>

#include "modules.h" /* made by embed.lua: static const struct { name, text, size } modules[] */

int luaopen_mbus_core(lua_State *L);

/* --- the line ------------------------------------------------------------------------------------------------- */

static int line_open(const char *path)
{
    int fd = open(path, O_RDWR | O_NOCTTY | O_NONBLOCK);
    struct termios t;
    if (fd < 0 || tcgetattr(fd, &t) != 0) return -1;
    t.c_iflag = IGNBRK;
    t.c_oflag = 0;
    t.c_lflag = 0;
    t.c_cflag = CS8 | PARENB | CREAD | CLOCAL; /* 8E1 */
    memset(t.c_cc, 0, sizeof t.c_cc);
    cfsetispeed(&t, B2400);
    cfsetospeed(&t, B2400);
    if (tcsetattr(fd, TCSANOW, &t) == 0) return fd;
    t.c_cflag &= ~(tcflag_t)PARENB; /* a pseudo-terminal has no parity */
    return errno == EINVAL && tcsetattr(fd, TCSANOW, &t) == 0 ? fd : -1;
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* Returns when something can be read (POLLIN) or written (POLLOUT), or at the deadline. fd -1 only waits. */
static void line_wait(int fd, short events, double deadline)
{
    struct pollfd p = {fd, events, 0};
    double left = deadline - now();
    if (left > 0) (void)poll(&p, 1, left > 3600 ? 3600000 : (int)(left * 1000) + 1);
}

static int line_write(int fd, const char *bytes, size_t size)
{
    double deadline = now() + 2;
    while (size > 0) {
        ssize_t done = write(fd, bytes, size);
        if (done < 0 && ((errno != EAGAIN && errno != EINTR) || now() > deadline)) return -1;
        if (done < 0) {
            line_wait(fd, POLLOUT, deadline);
            continue;
        }
        bytes += done;
        size -= (size_t)done;
    }
    return 0;
}

static size_t line_read(int fd, char *buffer, size_t size)
{
    ssize_t got = read(fd, buffer, size);
    return got > 0 ? (size_t)got : 0;
}

/* --- Lua ------------------------------------------------------------------------------------------------------ */

static size_t used, peak;

static void *allocate(void *ud, void *block, size_t old, size_t size)
{
    (void)ud;
    used += size - (block ? old : 0);
    if (used > peak) peak = used;
    if (size == 0) {
        free(block);
        return NULL;
    }
    return realloc(block, size);
}

static int load_embedded(lua_State *L)
{
    size_t i = (size_t)lua_tointeger(L, lua_upvalueindex(1));
    if (luaL_loadbufferx(L, (const char *)modules[i].text, modules[i].size, modules[i].name, "t") != LUA_OK)
        return lua_error(L);
    lua_pushvalue(L, 1);
    lua_call(L, 1, 1);
    return 1;
}

/* Lua's own `require` comes with code that loads libraries at run time. This one knows package.preload alone. */
static int require(lua_State *L)
{
    const char *name = luaL_checkstring(L, 1);
    lua_settop(L, 1);
    luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
    if (lua_getfield(L, 2, name) != LUA_TNIL) return 1;
    luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_PRELOAD_TABLE);
    if (lua_getfield(L, -1, name) == LUA_TNIL) return luaL_error(L, "module '%s' is not in this firmware", name);
    lua_pushvalue(L, 1);
    lua_call(L, 1, 1);
    if (lua_isnil(L, -1)) {
        lua_pop(L, 1);
        lua_pushboolean(L, 1);
    }
    lua_pushvalue(L, -1);
    lua_setfield(L, 2, name);
    return 1;
}

static void open_libraries(lua_State *L)
{
    static const luaL_Reg libraries[] = {{LUA_GNAME, luaopen_base},       {LUA_COLIBNAME, luaopen_coroutine},
                                         {LUA_TABLIBNAME, luaopen_table}, {LUA_STRLIBNAME, luaopen_string},
                                         {LUA_MATHLIBNAME, luaopen_math}, {LUA_UTF8LIBNAME, luaopen_utf8},
                                         {LUA_DBLIBNAME, luaopen_debug}};
    size_t i;
    for (i = 0; i < sizeof libraries / sizeof *libraries; i++) {
        luaL_requiref(L, libraries[i].name, libraries[i].func, 1);
        lua_pop(L, 1);
    }
}

static void open_package(lua_State *L)
{
    size_t i;
    lua_createtable(L, 0, 2);
    luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
    lua_setfield(L, -2, "loaded");
    luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_PRELOAD_TABLE);
    lua_pushcfunction(L, luaopen_mbus_core);
    lua_setfield(L, -2, "mbus.core");
    for (i = 0; i < sizeof modules / sizeof *modules; i++) {
        lua_pushinteger(L, (lua_Integer)i);
        lua_pushcclosure(L, load_embedded, 1);
        lua_setfield(L, -2, modules[i].name + 1); /* behind "=", the mark of a chunk name */
    }
    lua_setfield(L, -2, "preload");
    lua_setglobal(L, "package");
    lua_register(L, "require", require);
}

/* --- the loop ------------------------------------------------------------------------------------------------- */

/* Pushes a function of the application, which is at index 1. */
static void function(lua_State *L, const char *name)
{
    lua_getfield(L, 1, name);
}

static void feed(lua_State *L, const char *bytes, size_t size)
{
    function(L, "feed");
    lua_pushlstring(L, bytes, size);
    lua_pushnumber(L, now());
    lua_call(L, 2, 0);
}

/* Does one thing that the bus wants. Returns 0 once the request is done. */
static int oblige(lua_State *L, int fd)
{
    char buffer[512];
    size_t size = 0;
    const char *what;
    lua_settop(L, 1);
    function(L, "wants");
    lua_call(L, 0, 2);
    what = lua_tostring(L, 2);
    if (strcmp(what, "done") == 0) return 0;
    if (strcmp(what, "send") == 0) {
        const char *bytes = lua_tolstring(L, 3, &size);
        if (line_write(fd, bytes, size) != 0) return luaL_error(L, "the line takes no bytes: %s", strerror(errno));
        size = 0;
    } else if (strcmp(what, "receive") == 0) {
        line_wait(fd, POLLIN, lua_tonumber(L, 3));
        size = line_read(fd, buffer, sizeof buffer);
    } else if (strcmp(what, "sleep") == 0) {
        line_wait(-1, 0, lua_tonumber(L, 3));
    } else if (strcmp(what, "drain") == 0) {
        size = line_read(fd, buffer, sizeof buffer);
    }
    feed(L, buffer, size);
    return 1;
}

static int run(lua_State *L)
{
    int argc = (int)lua_tointeger(L, 1), i, fd;
    char **argv = lua_touserdata(L, 2);
    fd = line_open(argv[1]);
    if (fd < 0) return luaL_error(L, "%s: %s", argv[1], strerror(errno));
    lua_settop(L, 0);
    open_libraries(L);
    open_package(L);
    lua_getglobal(L, "require");
    lua_pushliteral(L, "application");
    lua_call(L, 1, 1);
    for (i = 2; i < argc; i++) {
        function(L, "add");
        lua_pushstring(L, argv[i]);
        lua_call(L, 1, 0);
    }
    for (;;) {
        int more;
        function(L, "next");
        lua_call(L, 0, 1);
        more = lua_toboolean(L, -1);
        lua_settop(L, 1);
        if (!more) break;
        while (oblige(L, fd))
            ;
        function(L, "finish");
        lua_call(L, 0, 0);
    }
    close(fd);
    return 0;
}

int main(int argc, char **argv)
{
    lua_State *L;
    int failed;
    if (argc < 3) {
        fprintf(stderr, "usage: %s PORT ADDRESS...\n", argv[0]);
        return 2;
    }
    L = lua_newstate(allocate, NULL);
    if (!L) return 1;
    lua_pushcfunction(L, run);
    lua_pushinteger(L, argc);
    lua_pushlightuserdata(L, argv);
    failed = lua_pcall(L, 2, 0, 0) != LUA_OK;
    if (failed) fprintf(stderr, "%s\n", lua_tostring(L, -1));
    lua_close(L);
    printf("at most %lu KiB of memory\n", (unsigned long)(peak / 1024));
    return failed;
}
