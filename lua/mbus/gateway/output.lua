---How values and diagnostics leave a gateway as text: JSON lines, CSV, lines and tables for people; to standard output, or to
---a file that is renamed when it is full.
local number = require "mbus.format.number"
local text = require "mbus.format.text"

local M = {}

-- ------------------------------------------------------------------ scalars

---@param seconds number  since 1970
---@return string  "2024-09-10T18:21:00.250Z"
function M.time(seconds)
  local milliseconds = math.floor(seconds * 1000 + 0.5)
  return os.date("!%Y-%m-%dT%H:%M:%S", milliseconds // 1000) .. (".%03dZ"):format(milliseconds % 1000)
end

local function plain(value)
  if value == nil then return "" end
  if type(value) == "number" then return number.plain(value) end
  return tostring(value)
end

local function json_scalar(value)
  if value == nil then return "null" end
  if type(value) == "number" then return number.plain(value) end
  if type(value) == "boolean" then return tostring(value) end
  value = tostring(value)
  return require("dkjson").quotestring(utf8.len(value) and value or text.printable(value))
end

-- ------------------------------------------------------------------ values

-- Title and, of the news, the content.
local COLUMNS = {
  { "time", function(news) return M.time(news.time) end },
  { "connection", function(news) return news.connection.name end },
  { "binding", function(news) return news.binding.name end },
  { "tag", function(news) return news.binding.tag end },
  { "address", function(news) return news.binding.address end },
  { "value", function(news) return news.value end },
  { "unit", function(news) return news.unit end },
  { "quality", function(news) return news.quality end },
  { "error", function(news) return news.error end },
  { "meter_time", function(news) return news.meter_time end },
}

---@param news table  as `gateway:on("value")` gets it
---@return string  one line
function M.jsonl(news)
  local parts = {}
  for i, column in ipairs(COLUMNS) do parts[i] = ('"%s":%s'):format(column[1], json_scalar(column[2](news))) end
  return "{" .. table.concat(parts, ",") .. "}\n"
end

local function quote(content)
  if content:find('[,"\r\n]') or content:find("^%s") or content:find("%s$") then return '"' .. content:gsub('"', '""') .. '"' end
  return content
end

---RFC 4180.
---@param news table
---@return string  one line
function M.csv(news)
  local cells = {}
  for i, column in ipairs(COLUMNS) do cells[i] = quote(text.printable(plain(column[2](news)))) end
  return table.concat(cells, ",") .. "\r\n"
end

---@return string  the title line
function M.csv_header()
  local cells = {}
  for i, column in ipairs(COLUMNS) do cells[i] = column[1] end
  return table.concat(cells, ",") .. "\r\n"
end

local function clock(time) return time and os.date("%H:%M:%S", math.floor(time)) or "-" end

local function value_text(value, unit)
  if value == nil then return "--" end
  return text.printable(plain(value)) .. (unit and " " .. text.printable(unit) or "")
end

---@param news table
---@param name_width? integer  columns that names take, default 28
---@return string  one line for people
function M.line(news, name_width)
  local name = text.printable(("%s/%s"):format(news.connection.name, news.binding.name))
  local line = ("%s  %s  %s  %s  %s"):format(clock(news.time), text.pad(name, name_width or 28),
    text.pad(value_text(news.value, news.unit), 24, true), text.pad(news.quality, 9), text.printable(news.error or ""))
  return (line:gsub("%s+$", "")) .. "\n"
end

-- ------------------------------------------------------------------ tables

local GAP = 2

---@param line string
---@param width integer
---@return string  not wider; where something is missing stands "…"
function M.cut(line, width)
  if text.width(line) <= width then return line end
  if not utf8.len(line) then return line:sub(1, width - 1) .. "…" end
  return line:sub(1, utf8.offset(line, width) - 1) .. "…"
end

-- Takes from the columns that may be narrower, first to last, what is too much.
local function shrink(widths, flexible, width)
  local excess = GAP * (#widths - 1) - width
  for _, one in ipairs(widths) do excess = excess + one end
  for _, column in ipairs(flexible) do
    local taken = math.max(0, math.min(excess, widths[column[1]] - column[2]))
    widths[column[1]] = widths[column[1]] - taken
    excess = excess - taken
  end
end

---@param rows string[][]  the first is the title
---@param right table<integer, boolean>
---@param flexible integer[][]  {column, least width}: where to save room, in this order
---@param width integer
---@return string[] lines
local function layout(rows, right, flexible, width)
  local widths, lines = {}, {}
  for _, row in ipairs(rows) do
    for c, cell in ipairs(row) do widths[c] = math.max(widths[c] or 0, text.width(cell)) end
  end
  shrink(widths, flexible, width)
  for i, row in ipairs(rows) do
    local cells = {}
    for c, cell in ipairs(row) do cells[c] = text.pad(M.cut(cell, widths[c]), widths[c], right[c]) end
    lines[i] = M.cut((table.concat(cells, (" "):rep(GAP)):gsub("%s+$", "")), width)
  end
  return lines
end

---All values as they are now.
---@param gateway mbus.Gateway
---@param width integer  columns
---@return string[] lines
function M.values(gateway, width)
  local rows = { { "Connection", "Name", "Value", "Unit", "Quality", "Time", "Error" } }
  for _, connection in ipairs(gateway.connections) do
    for _, binding in ipairs(connection.bindings) do
      rows[#rows + 1] = { text.printable(connection.name), text.printable(binding.name),
        binding.value == nil and "--" or text.printable(plain(binding.value)), text.printable(binding.unit or ""),
        binding.time and binding.quality or "-", clock(binding.time),
        text.printable(binding.error or "") }
    end
  end
  return layout(rows, { [3] = true },
    { { 7, 20 }, { 2, 16 }, { 1, 10 }, { 7, 10 }, { 2, 12 }, { 3, 12 }, { 2, 8 }, { 7, 5 }, { 1, 5 } }, width)
end

local function share(value) return ("%.1f %%"):format(value * 100) end

local function ms(seconds) return seconds and ("%.0f"):format(seconds * 1000) or "-" end

local function good_of(connection)
  local good = 0
  for _, binding in ipairs(connection.bindings) do
    if binding.quality == "good" then good = good + 1 end
  end
  return ("%d/%d"):format(good, #connection.bindings)
end

-- "checksum 2, timeout 15"
local function kinds(errors)
  local list = {}
  for kind, count in pairs(errors) do list[#list + 1] = ("%s %d"):format(kind, count) end
  table.sort(list)
  return #list > 0 and table.concat(list, ", ") or "0"
end

local function state_rows(status)
  local rows = { { "Connection", "State", "Active", "Good", "Response ms", "Busy", "Memory", "Next poll" } }
  for i, one in ipairs(status.connections) do
    local response = one.response_time
    rows[i + 1] = { text.printable(one.name), one.state, text.printable(one.actual_connection or "-"), good_of(one),
      ("%s/%s/%s"):format(ms(response.min), ms(response.mean), ms(response.max)), share(one.busy),
      ("%d KiB"):format(one.memory // 1024), clock(one.next_poll) }
  end
  return rows
end

local function counter_rows(status)
  local rows = { { "Connection", "Polls", "Requests", "Answers", "Retries", "Writes", "Overruns", "Errors" } }
  for i, one in ipairs(status.connections) do
    rows[i + 1] = { text.printable(one.name), tostring(one.polls), tostring(one.requests), tostring(one.answers),
      tostring(one.retries), tostring(one.writes), tostring(one.overruns), kinds(one.errors) }
  end
  return rows
end

-- Of connections the last one, also if it is over; of bindings what they have now.
local function error_rows(status)
  local rows = { { "Time", "Where", "State", "Quality", "Error" } }
  local function add(name, one, quality)
    if not one.error then return end
    rows[#rows + 1] = { clock(one.error_time), text.printable(name), one.state, quality, text.printable(one.error) }
  end
  for _, connection in ipairs(status.connections) do
    add(connection.name, connection, "-")
    for _, binding in ipairs(connection.bindings) do add(connection.name .. "/" .. binding.name, binding, binding.quality) end
  end
  return rows
end

local LOG = 5 -- lines of each connection

local function log_rows(status)
  local rows = { { "Time", "Connection", "Level", "Log" } }
  for _, connection in ipairs(status.connections) do
    local log = connection.log
    for i = math.max(1, #log - LOG + 1), #log do
      rows[#rows + 1] = { clock(log[i].time), text.printable(connection.name), log[i].level, text.printable(log[i].text) }
    end
  end
  return rows
end

local function right_but(...)
  local right = {}
  for c = 1, 8 do right[c] = true end
  for _, c in ipairs { ... } do right[c] = nil end
  return right
end

---The diagnostics for people.
---@param status table   as `gateway:status()` returns it
---@param width integer
---@return string[] lines
function M.status(status, width)
  local lines = { ("%s on %s, process %s, %d KiB"):format(status.state, status.node, status.pid or "-", status.memory // 1024) }
  local function add(rows, right, flexible)
    local part = layout(rows, right, flexible, width)
    table.move(part, 1, #part, #lines + 1, lines)
  end
  add(state_rows(status), right_but(1, 2, 3), { { 1, 8 }, { 3, 6 } })
  lines[#lines + 1] = ""
  add(counter_rows(status), right_but(1, 8), { { 8, 12 }, { 1, 8 } })
  local errors = error_rows(status)
  if #errors > 1 then
    lines[#lines + 1] = ""
    add(errors, {}, { { 5, 30 }, { 2, 12 }, { 5, 5 } })
  end
  local log = log_rows(status)
  if #log > 1 then
    lines[#lines + 1] = ""
    add(log, {}, { { 4, 30 }, { 2, 8 }, { 4, 5 } })
  end
  return lines
end

---The diagnostics as one JSON object on one line.
---@param status table
---@return string
function M.status_json(status)
  local json = require("dkjson").encode(status)
  if not utf8.len(json) then json = json:gsub("[\x80-\xFF]", "?") end
  return json .. "\n"
end

-- ------------------------------------------------------------------ a file that does not grow for ever

---@class mbus.gateway.File
local File = {}
File.__index = File

-- Whoever was killed may have left half a line behind.
local function ends_within_line(path)
  local file <close> = io.open(path, "rb")
  return file ~= nil and file:seek("end", -1) ~= nil and file:read(1) ~= "\n"
end

local function append(self)
  local file, message = io.open(self.path, "ab")
  if not file then return nil, message end
  self.file, self.size = file, file:seek("end") or 0 -- a pipe has none
  if self.size == 0 and self.header then return self:write_raw(self.header) end
  if self.size > 0 and ends_within_line(self.path) then return self:write_raw("\n") end
  return true
end

---@param path string
---@param options? table  limit: bytes after which it is renamed PATH.1, PATH.1 to PATH.2, ...; keep: how many of these stay
---(default 5); header: what each file begins with
---@return mbus.gateway.File? file
---@return string? message
function M.file(path, options)
  options = options or {}
  local self = setmetatable({ path = path, limit = options.limit, most = options.limit, keep = options.keep or 5,
    header = options.header }, File)
  local ok, message = append(self)
  if not ok then return nil, message end
  return self
end

function File:write_raw(line)
  local ok, message = self.file:write(line)
  if ok then ok, message = self.file:flush() end
  if not ok then
    self.file:close()
    self.file = nil
    return nil, ("%s: %s"):format(self.path, message)
  end
  self.size = self.size + #line
  return true
end

-- After a failure the next line tries again.
function File:reopen()
  if self.file then self.file:close() end
  self.file = nil
  return append(self)
end

-- What cannot be renamed grows on, for another limit.
local function rotate(self)
  self.file:close()
  self.file = nil
  for i = self.keep - 1, 1, -1 do os.rename(self.path .. "." .. i, self.path .. "." .. i + 1) end
  local gone, reason
  if self.keep > 0 then gone, reason = os.rename(self.path, self.path .. ".1") else gone, reason = os.remove(self.path) end
  local ok, message = append(self)
  if ok and not gone then
    self.most = self.size + self.limit
    return true, ("%s: cannot be renamed: %s"):format(self.path, reason:match("[^:]*$"):match("^%s*(.*)$"))
  end
  self.most = self.limit
  return ok, message
end

---@param line string
---@return boolean? ok      the line is in the file
---@return string? message  what went wrong, also where the line is in it
function File:write(line)
  local ok, message = true, nil
  if not self.file then ok, message = append(self) end
  if ok and self.most and self.size > 0 and self.size + #line > self.most then ok, message = rotate(self) end
  if not ok then return nil, message end
  local written, reason = self:write_raw(line)
  return written, reason or message
end

function File:close()
  if self.file then self.file:close() end
  self.file = nil
end

return M
