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
---@return any ...  results; the error; or "file:line: " and what was exceeded: "instructions", "seconds" or "memory"
function limits.call(instructions, seconds, bytes, fn, ...) end

---Counts as so many instructions in the innermost call that is under way, if any is.
---@param n number
function limits.charge(n) end

---Calls a function of the host, with the limits at rest; memory is counted, though not refused.
---@param fn function
---@param ... any
---@return boolean ok
---@return any ...
function limits.outside(fn, ...) end

return limits
