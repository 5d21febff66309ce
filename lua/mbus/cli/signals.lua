---Signals that ask a command to end: the first one lets it end in order, the next one ends the program.
local runtime = require "mbus.runtime"

local M = {}

local NAMES = { "sigint", "sigterm", "sighup" }
local SAME = 0.2 -- seconds; timeout(1) signals a program and then its group: what follows so soon is not another wish

---Leaves an interrupt to the system, which ends the program at once. lua5.4 by itself makes an error of it when the wait has
---ended: late, and with a traceback.
function M.default()
  local handle = runtime.luv().new_signal()
  pcall(handle.start, handle, "sigint", function() end)
  runtime.close(handle) -- which does not give lua5.4's own handler back
end

---@param fn fun()  called at the first signal, out of luv's loop
---@return fun() release  what comes after it ends the program, as it did before
function M.watch(fn)
  local uv = runtime.luv()
  local handles, first = {}, nil
  local function release()
    for _, handle in ipairs(handles) do runtime.close(handle) end
    handles = {}
  end
  local function on_signal(name)
    if not first then
      first = runtime.now()
      fn()
    elseif runtime.now() - first > SAME then
      release()
      uv.kill(uv.os_getpid(), name)
    end
  end
  for i, name in ipairs(NAMES) do
    handles[i] = uv.new_signal()
    pcall(handles[i].start, handles[i], name, on_signal) -- not every system has all of them
  end
  return release
end

return M
