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
