---@meta mbus.socket
-- luacheck: ignore 212 241

---What libuv cannot set on a TCP connection. Written in C; links nothing.
---@class mbus.socket
local socket = {}

---@param fd integer              of a connected socket
---@param idle number             whole seconds of silence before the system asks whether the other side lives; 0: never
---@param interval number         whole seconds between questions
---@param count number            questions without an answer after which the connection has failed
---@param unacknowledged number   seconds after which it has failed when what was sent is not acknowledged; 0: the system's
---@return boolean all  false: this system has not all of these settings, or refuses one
function socket.tune(fd, idle, interval, count, unacknowledged) end

return socket
