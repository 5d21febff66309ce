/* socket.c - module mbus.socket: what libuv cannot set on a TCP connection. Links nothing.
 *
 *   local socket = require "mbus.socket"
 *   local ok = socket.tune(fd, idle, interval, count, unacknowledged)
 *
 * The system asks whether the other side still lives after `idle` seconds of silence, again after `interval` seconds, and
 * gives it up after `count` questions (idle 0: never asks). It also gives up when what was sent has not been acknowledged
 * for `unacknowledged` seconds (0: as long as the system likes). false where the system has no such settings; it then
 * keeps those that it has.
 */
#if !defined _WIN32 && !defined _GNU_SOURCE
#define _GNU_SOURCE 1
#endif
#if !defined _WIN32 && !defined _DARWIN_C_SOURCE
#define _DARWIN_C_SOURCE 1
#endif

#include <stdbool.h>

#include "lua.h"
#include "lauxlib.h"

#ifdef _WIN32

static bool tune(int fd, int idle, int interval, int count, int unacknowledged)
{
    (void)fd, (void)idle, (void)interval, (void)count, (void)unacknowledged;
    return false;
}

#else

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

static bool set(int fd, int level, int option, int value)
{
    return setsockopt(fd, level, option, &value, sizeof value) == 0;
}

#if !defined TCP_KEEPIDLE && defined TCP_KEEPALIVE /* macOS */
#define TCP_KEEPIDLE TCP_KEEPALIVE
#endif

#if defined TCP_KEEPIDLE && defined TCP_KEEPINTVL && defined TCP_KEEPCNT
static bool ask(int fd, int idle, int interval, int count)
{
    return set(fd, IPPROTO_TCP, TCP_KEEPIDLE, idle) && set(fd, IPPROTO_TCP, TCP_KEEPINTVL, interval) &&
           set(fd, IPPROTO_TCP, TCP_KEEPCNT, count);
}
#else
static bool ask(int fd, int idle, int interval, int count)
{
    (void)fd, (void)idle, (void)interval, (void)count;
    return false;
}
#endif

static bool give_up_after(int fd, int unacknowledged)
{
#if defined TCP_USER_TIMEOUT
    return set(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, unacknowledged);
#else
    (void)fd, (void)unacknowledged;
    return false;
#endif
}

static bool tune(int fd, int idle, int interval, int count, int unacknowledged)
{
    bool asks = set(fd, SOL_SOCKET, SO_KEEPALIVE, idle > 0) && (idle == 0 || ask(fd, idle, interval, count));
    return give_up_after(fd, unacknowledged) && asks;
}

#endif

static int whole(lua_State *L, int argument, lua_Number scale)
{
    lua_Number value = luaL_checknumber(L, argument) * scale;
    luaL_argcheck(L, value >= 0 && value <= 1e9, argument, "out of range");
    return (int)value;
}

static int socket_tune(lua_State *L)
{
    int fd = (int)luaL_checkinteger(L, 1);
    lua_pushboolean(L, tune(fd, whole(L, 2, 1), whole(L, 3, 1), whole(L, 4, 1), whole(L, 5, 1000)));
    return 1;
}

LUAMOD_API int luaopen_mbus_socket(lua_State *L);

LUAMOD_API int luaopen_mbus_socket(lua_State *L)
{
    static const luaL_Reg functions[] = {{"tune", socket_tune}, {NULL, NULL}};
    luaL_newlib(L, functions);
    return 1;
}
