---Text on a terminal: how wide it is, padding, wrapping, and what a meter's text may not do there.
local M = {}

---@param text string
---@return integer  columns that `text` takes; one a character (meters speak Latin-1)
function M.width(text) return utf8.len(text) or #text end

local function escape(code) return ("\\x%02X"):format(code) end

---Text from a meter made safe to print: control characters become \x1B, bytes that are no UTF-8 too.
---@param text string
---@return string
function M.printable(text)
  if not utf8.len(text) then return (text:gsub("[^\x20-\x7E]", function(c) return escape(c:byte()) end)) end
  text = text:gsub("[%c]", function(c) return escape(c:byte()) end)
  return (text:gsub("\xC2([\x80-\x9F])", function(c) return escape(c:byte()) end))
end

local APPLICATION_STATE = { [0] = nil, "application busy", "application error", "abnormal condition" }

---A status byte in words (EN 13757-3, status field). The two lowest bits of the fixed structure say other things.
---@param status integer
---@param is_fixed? boolean
---@return string
function M.status(status, is_fixed)
  local parts = { APPLICATION_STATE[status & 0x03] }
  if is_fixed then parts = { status & 1 ~= 0 and "binary" or "BCD", status & 2 ~= 0 and "stored values" or "actual values" } end
  if status & 0x04 ~= 0 then parts[#parts + 1] = "power low" end
  if status & 0x08 ~= 0 then parts[#parts + 1] = "permanent error" end
  if status & 0x10 ~= 0 then parts[#parts + 1] = "temporary error" end
  if status & 0xE0 ~= 0 then parts[#parts + 1] = ("manufacturer's bits %02Xh"):format(status & 0xE0) end
  return #parts > 0 and table.concat(parts, ", ") or "no error"
end

---@param text string
---@param width integer
---@param right? boolean  flush right; default left
---@return string
function M.pad(text, width, right)
  local blank = (" "):rep(width - M.width(text))
  return right and blank .. text or text .. blank
end

local function head(text, width) return text:sub(1, (utf8.offset(text, width + 1) or #text + 1) - 1) end

---Breaks at spaces, and inside a word only where the word alone is too long.
---@param text string
---@param width integer  at least 1
---@return string[] lines  at least one
function M.wrap(text, width)
  if M.width(text) <= width then return { text } end
  local lines, line = {}, nil
  for word in text:gmatch("%S+") do
    if line and M.width(line) + 1 + M.width(word) <= width then
      line = line .. " " .. word
    else
      lines[#lines + 1], line = line, word
    end
    while M.width(line) > width do
      lines[#lines + 1] = head(line, width)
      line = line:sub(#lines[#lines] + 1)
    end
  end
  lines[#lines + 1] = line
  return lines
end

return M
