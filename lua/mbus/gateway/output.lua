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
  return require("dkjson").quotestring(tostring(value))
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

local function value_text(value, unit)
  if value == nil then return "--" end
  return text.printable(plain(value)) .. (unit and " " .. text.printable(unit) or "")
end

---@param news table
---@return string  one line for people
function M.line(news)
  local name = ("%s/%s"):format(news.connection.name, news.binding.name)
  local line = ("%s  %s  %s  %s  %s"):format(os.date("%H:%M:%S", math.floor(news.time)), text.pad(name, 28),
    text.pad(value_text(news.value, news.unit), 24, true), text.pad(news.quality, 9), text.printable(news.error or ""))
  return (line:gsub("%s+$", "")) .. "\n"
end

-- ------------------------------------------------------------------ tables

local GAP = 2

---@param rows string[][]  the first is the title
---@param right table<integer, boolean>
---@param width integer
---@return string[] lines
local function layout(rows, right, width)
  local widths, lines = {}, {}
  for _, row in ipairs(rows) do
    for c, cell in ipairs(row) do widths[c] = math.max(widths[c] or 0, text.width(cell)) end
  end
  for i, row in ipairs(rows) do
    local cells = {}
    for c, cell in ipairs(row) do cells[c] = text.pad(cell, widths[c], right[c]) end
    local line = table.concat(cells, (" "):rep(GAP)):gsub("%s+$", "")
    lines[i] = text.width(line) > width and text.wrap(line, width)[1] or line
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
        binding.time and binding.quality or "-", binding.time and os.date("%H:%M:%S", math.floor(binding.time)) or "-",
        text.printable(binding.error or "") }
    end
  end
  return layout(rows, { [3] = true }, width)
end

local function share(value) return ("%.1f %%"):format(value * 100) end

local function ms(seconds) return seconds and ("%.0f"):format(seconds * 1000) or "-" end

local function sum(errors)
  local total = 0
  for _, count in pairs(errors) do total = total + count end
  return tostring(total)
end

local STATUS = { "Connection", "State", "Active", "Polls", "Requests", "Retries", "Errors", "Overruns", "Response ms", "Busy",
  "Memory", "Next poll", "Last error" }

local function status_row(connection)
  local response = connection.response_time
  return { text.printable(connection.name), connection.state, text.printable(connection.actual_connection or "-"),
    tostring(connection.polls), tostring(connection.requests), tostring(connection.retries), sum(connection.errors),
    tostring(connection.overruns), ("%s/%s/%s"):format(ms(response.min), ms(response.mean), ms(response.max)),
    share(connection.busy), ("%d KiB"):format(connection.memory // 1024),
    connection.next_poll and os.date("%H:%M:%S", math.floor(connection.next_poll)) or "-",
    text.printable(connection.error or "") }
end

---The diagnostics for people.
---@param status table   as `gateway:status()` returns it
---@param width integer
---@return string[] lines
function M.status(status, width)
  local rows = { STATUS }
  for i, connection in ipairs(status.connections) do rows[i + 1] = status_row(connection) end
  local lines = layout(rows, { [4] = true, [5] = true, [6] = true, [7] = true, [8] = true, [10] = true, [11] = true }, width)
  table.insert(lines, 1, ("%s on %s, process %s, %d KiB"):format(status.state, status.node, status.pid or "-",
    status.memory // 1024))
  local bad = {}
  for _, connection in ipairs(status.connections) do
    for _, binding in ipairs(connection.bindings) do
      if binding.error then
        bad[#bad + 1] = { text.printable(connection.name .. "/" .. binding.name), binding.state, binding.quality,
          text.printable(binding.error) }
      end
    end
  end
  if #bad > 0 then
    table.insert(bad, 1, { "Binding", "State", "Quality", "Error" })
    lines[#lines + 1] = ""
    table.move(layout(bad, {}, width), 1, #bad, #lines + 1, lines)
  end
  return lines
end

---The diagnostics as one JSON object on one line.
---@param status table
---@return string
function M.status_json(status) return require("dkjson").encode(status) .. "\n" end

-- ------------------------------------------------------------------ a file that does not grow for ever

---@class mbus.gateway.File
local File = {}
File.__index = File

local function append(self)
  local file, message = io.open(self.path, "ab")
  if not file then return nil, message end
  self.file, self.size = file, file:seek("end")
  if self.size == 0 and self.header then return self:write_raw(self.header) end
  return true
end

---@param path string
---@param options? table  limit: bytes after which it is renamed PATH.1, PATH.1 to PATH.2, ...; keep: how many of these stay
---(default 5); header: what each file begins with
---@return mbus.gateway.File? file
---@return string? message
function M.file(path, options)
  options = options or {}
  local self = setmetatable({ path = path, limit = options.limit, keep = options.keep or 5, header = options.header }, File)
  local ok, message = append(self)
  if not ok then return nil, message end
  return self
end

function File:write_raw(line)
  local ok, message = self.file:write(line)
  if ok then ok, message = self.file:flush() end
  if not ok then return nil, message end
  self.size = self.size + #line
  return true
end

-- After a failure the next line tries again.
function File:reopen()
  if self.file then self.file:close() end
  self.file = nil
  return append(self)
end

local function rotate(self)
  self.file:close()
  self.file = nil
  for i = self.keep - 1, 1, -1 do os.rename(self.path .. "." .. i, self.path .. "." .. i + 1) end
  if self.keep > 0 then os.rename(self.path, self.path .. ".1") else os.remove(self.path) end
  return append(self)
end

---@param line string
---@return boolean? ok
---@return string? message
function File:write(line)
  local ok, message = true, nil
  if not self.file then ok, message = append(self) end
  if ok and self.limit and self.size > 0 and self.size + #line > self.limit then ok, message = rotate(self) end
  if not ok then return nil, message end
  return self:write_raw(line)
end

function File:close()
  if self.file then self.file:close() end
  self.file = nil
end

return M
