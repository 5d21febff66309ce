---Captures: what was on a line, as text that people, `mbus decode --replay` and the simulator read.
---
---    # mbus capture 1
---    # baudrate 2400
---    # start 2024-09-10T18:21:07
---         0.023 SEND (005) 10 40 05 45 16
---         0.072 RECV (001) E5
---         0.120 NOISE (001) 00
---         0.560 - (002) 12 34
---
---One line a frame: seconds since the start, direction (SEND of a master, RECV of a meter, NOISE is no frame, ECHO of the
---master's own bytes, - not known), the number of bytes in parentheses, the bytes in hex. The number may be missing. Lines
---that begin with # hold what is known of the whole, or a comment. `--trace` prints the same lines.
local core = require "mbus.core"
local Error = require "mbus.error"

local M = {}

M.FIRST_LINE = "# mbus capture 1"

local DIRECTIONS = { SEND = "SEND", RECV = "RECV", NOISE = "NOISE", ECHO = "ECHO", ["-"] = false }

---@class mbus.CaptureEntry
---@field time number       seconds since the start
---@field direction? "SEND"|"RECV"|"NOISE"|"ECHO"  nil: not known
---@field bytes string

---@class mbus.Capture
---@field entries mbus.CaptureEntry[]
---@field baudrate? integer
---@field start? string  local time at 0 seconds

---The first lines of a capture.
---@param about? table  baudrate, start
---@return string
function M.head(about)
  local lines = { M.FIRST_LINE }
  for _, name in ipairs { "baudrate", "start" } do
    if about and about[name] then lines[#lines + 1] = ("# %s %s"):format(name, about[name]) end
  end
  return table.concat(lines, "\n") .. "\n"
end

---@param direction? string
---@param bytes string
---@param time number  seconds since the start
---@return string  with its line end
function M.line(direction, bytes, time)
  return ("%10.3f %s (%03d) %s\n"):format(time, direction or "-", #bytes, core.hex(bytes))
end

---@param text string
---@return boolean  it is a capture
function M.is_capture(text) return text:sub(1, #M.FIRST_LINE) == M.FIRST_LINE end

local function parse_line(line)
  local time, word, rest = line:match("^%s*(%d+%.?%d*)%s+(%S+)%s+(.+)$")
  local direction = word and DIRECTIONS[word:upper()]
  if direction == nil then return nil, "time, SEND, RECV, NOISE, ECHO or -, and hex digits are needed" end
  local count, hex = rest:match("^%((%d+)%)%s*(.*)$")
  local bytes, err = core.unhex(hex or rest)
  if not bytes then return nil, err.message end
  if count and tonumber(count) ~= #bytes then
    return nil, ("%d bytes are there, not %s"):format(#bytes, count:match "^0*(%d+)")
  end
  return { time = tonumber(time), direction = direction or nil, bytes = bytes }
end

---@param text string
---@param damaged? mbus.Error[]  takes what is wrong with lines, which are left out; without it the first such line is the end
---@return mbus.Capture? capture
---@return mbus.Error? err  kind `invalid`, with the number of the line
function M.parse(text, damaged)
  local capture, number = { entries = {} }, 0
  for line in text:gmatch("([^\n]*)\n?") do
    number = number + 1
    line = line:gsub("\r$", "")
    local name, value = line:match("^#%s*(%a+)%s+(.-)%s*$")
    if name == "baudrate" then
      capture.baudrate = math.tointeger(tonumber(value))
    elseif name == "start" then
      capture.start = value
    elseif line:find("%S") and not line:find("^%s*#") then
      local entry, message = parse_line(line)
      local err = not entry and Error.new("invalid", ("line %d of the capture: %s"):format(number, message))
      if err and not damaged then return nil, err end
      table.insert(err and damaged or capture.entries, err or entry)
    end
  end
  return capture
end

local OPEN_ERRORS = { [2] = "not_found", [13] = "permission" } -- ENOENT, EACCES

---@param path string
---@param damaged? mbus.Error[]  as of `parse`
---@return mbus.Capture? capture
---@return mbus.Error? err  kinds `not_found`, `permission`, `io`, `invalid`
function M.read(path, damaged)
  local file, message, code = io.open(path, "rb")
  if not file then return nil, Error.new(OPEN_ERRORS[code] or "io", message) end
  local text, read_message = file:read("a")
  file:close()
  if not text then return nil, Error.new("io", ("%s: %s"):format(path, read_message)) end
  local capture, err = M.parse(text, damaged)
  for _, one in ipairs(damaged or { err }) do one.message = ("%s: %s"):format(path, one.message) end
  return capture, err
end

return M
