---`--trace`: every frame on the line, on standard error, with the time since the first one in seconds, as in a capture.
---
---       0.000 SEND (005) 10 40 09 49 16
---       0.061 RECV (001) E5
local M = {}

function M.define(command)
  command:flag("--trace", "Print every frame sent and received on standard error, with the time in seconds.")
end

---@return fun(direction: string, bytes: string, time: number)
function M.new()
  local hex = require("mbus.core").hex
  local start
  local names = { receive = "SEND", send = "RECV" } -- what a simulator receives, a master has sent
  return function(direction, bytes, time)
    start = start or time
    io.stderr:write(("%8.3f %s (%03d) %s\n"):format(time - start, names[direction] or direction, #bytes, hex(bytes)))
  end
end

return M
