/* binding.h - what the files of mbus.core share. */
#ifndef MBUS_BINDING_H
#define MBUS_BINDING_H

#include "../core/mbus.h"

#include <lauxlib.h>
#include <lua.h>

#if LUA_VERSION_NUM < 504
#error "mbus needs Lua 5.4 or newer"
#endif
#if LUA_MAXINTEGER < 0x7FFFFFFFFFFFFFFF
#error "mbus needs 64-bit Lua integers: counters have 64 bits (build Lua without LUA_32BITS)"
#endif

/* nil, { kind, code, message, offset }: what bytes can cause. */
int mbus_push_error(lua_State *L, int error, size_t offset);

/* Pushes the table alone. */
void mbus_push_error_table(lua_State *L, int error, size_t offset);

/* Pushes the table that describes a frame. */
void mbus_push_frame(lua_State *L, const mbus_frame *frame, const uint8_t *bytes);

/* Register the functions of the other files in the module table on top. */
void mbus_open_telegram(lua_State *L);
void mbus_open_encode(lua_State *L);

#endif
