---@meta mbus.limits
-- luacheck: ignore 212 241

---Calls a function with an end to its instructions, time and memory. Written in C.
---@class mbus.limits
local limits = {}

---Calls a function, which cannot yield. Memory is refused by the allocator of the state, so that the bound is exact.
---@param instructions number
---@param seconds number  of processor time
---@param bytes integer   more than there were before the call
---@param fn function
---@param ... any
---@return boolean ok
---@return any ...  results; the error; or "file:line: " and what was exceeded: "instructions", "seconds", "memory" or "table"
function limits.call(instructions, seconds, bytes, fn, ...) end

---Counts as so many instructions in the innermost call that is under way, if any is.
---@param n number
function limits.charge(n) end

---Counts what functions of C need to go through the strings among these.
---@param ... any
function limits.weigh(...) end

---Calls a function of the host, with the limits at rest; memory is counted, though not refused.
---@param fn function
---@param ... any
---@return boolean ok
---@return any ...
function limits.outside(fn, ...) end

return limits
