---Reads tags of BACRouter's free client: `update_interval=5000, force_reset=true`, the inside of a Lua table, of names with
---numbers, texts, true or false. What is wrong is told with its line and column.
local M = {}

---@class mbus.freeclient.Problem
---@field message string  what is wrong, and what is allowed
---@field line integer
---@field column integer  in characters
---@field text string     the line
---@field at integer      in bytes of the line

-- What web pages, office programs and Chinese keyboards make of ASCII.
local LOOKALIKES = {
  [0x201C] = '"', [0x201D] = '"', [0x201E] = '"', [0x201F] = '"', [0x2033] = '"', [0xAB] = '"', [0xBB] = '"', [0xFF02] = '"',
  [0x2018] = "'", [0x2019] = "'", [0x201A] = "'", [0x2032] = "'", [0xB4] = "'", [0xFF07] = "'", [0x60] = "'",
  [0xFF1D] = "=", [0xFF0C] = ",", [0x3001] = ",", [0xFF1B] = ";", [0xA0] = "a blank", [0x3000] = "a blank",
  [0x2013] = "-", [0x2212] = "-", [0x200B] = "nothing", [0xFEFF] = "nothing",
}
local QUOTES = { ['"'] = true, ["'"] = true }

local function code_of(character) return ("\\x%02X"):format(character:byte(-1)) end

---What strangers wrote, made safe for a terminal: control characters become \x1B.
---@param text string
---@param kept? string  control characters that may stay
---@return string
function M.printable(text, kept)
  text = text:gsub("%c", function(c) return not (kept or ""):find(c, 1, true) and code_of(c) or nil end)
  return (text:gsub("\xC2[\x80-\x9F]", code_of))
end

local AROUND = 80 -- bytes of a line to each side

---A line that may be long: what is around a place.
---@param text string
---@param at? integer  in bytes
---@return string
function M.excerpt(text, at)
  at = at or 1
  local from, to = math.max(1, at - AROUND), at + AROUND
  local part = text:sub(from, to)
  if from > 1 then part = "…" .. part:gsub("^[\x80-\xBF]+", "") end
  if to < #text then part = part:gsub("[\xC2-\xF4][\x80-\xBF]*$", "") .. "…" end
  return part
end

local Reader = {}
Reader.__index = Reader

-- Thrown as a table, and caught in M.parse, so that bugs stay errors.
local Failure = {}

local function place(reader, at)
  local before = reader.text:sub(1, at - 1)
  local _, lines = before:gsub("\n", "")
  local start = before:match("^.*\n()") or 1
  local line = reader.text:match("^[^\r\n]*", start)
  local head = reader.text:sub(start, at - 1)
  return { line = lines + 1, column = (utf8.len(head) or #head) + 1, text = line, at = #head + 1 }
end

local function fail(reader, at, ...)
  local problem = place(reader, at)
  problem.message = string.format(...)
  error(setmetatable({ problem = problem }, Failure), 0)
end

-- The character at a place, whole even if it is none of ASCII.
local function character(reader, at)
  local ok, code = pcall(utf8.codepoint, reader.text, at)
  if not ok then return ("byte %02X"):format(reader.text:byte(at)) end
  return utf8.char(code), code
end

local function unexpected(reader, wanted)
  local at = reader.at
  if at > #reader.text then fail(reader, at, "the tag ends here, but %s is needed", wanted) end
  local found, code = character(reader, at)
  local ascii = LOOKALIKES[code]
  if QUOTES[ascii] then fail(reader, at, "the typographic quote %s; write %s instead", found, ascii) end
  if ascii then fail(reader, at, "the character U+%04X, which only looks like ASCII; write %s instead", code, ascii) end
  fail(reader, at, "%s is needed, not %s", wanted, found)
end

function Reader:take(pattern)
  local from, to, value = self.text:find("^" .. pattern, self.at)
  if not from then return nil end
  self.at = to + 1
  return value or self.text:sub(from, to)
end

function Reader:skip()
  repeat
    self:take("%s+")
  until not self:take("%-%-[^\n]*")
end

local ESCAPES = { n = "\n", t = "\t", ["\\"] = "\\", ['"'] = '"', ["'"] = "'" }

local function string_value(reader, quote)
  local start, parts = reader.at, {}
  reader.at = start + 1
  while true do
    parts[#parts + 1] = reader:take("[^\\\n" .. quote .. "]+")
    if reader:take(quote) then return table.concat(parts) end
    local escape = reader:take("\\(.)")
    if not escape then fail(reader, start, "the text that begins here has no end: %s is missing", quote) end
    parts[#parts + 1] = ESCAPES[escape] or fail(reader, reader.at - 2, "unknown escape \\%s", escape)
  end
end

local WORDS = { ["true"] = true, ["false"] = false }

local function value_of(reader)
  local quote = reader.text:match("^[\"']", reader.at)
  if quote then return string_value(reader, quote) end
  local at = reader.at
  local digits = reader:take("%-?%.?%d[%w.]*[eEpP]?[+-]?%w*")
  if digits then return tonumber(digits) or fail(reader, at, "%s is no number", M.excerpt(digits)) end
  local word = reader:take("[%a_][%w_]*")
  if word and WORDS[word] ~= nil then return WORDS[word] end
  if word then fail(reader, at, 'a number, a text in "quotes", true or false is needed, not %s', M.excerpt(word)) end
  unexpected(reader, 'a number, a text in "quotes", true or false')
end

local function assignment(reader)
  local at = reader.at
  local name = reader:take("[%a_][%w_]*")
  if not name then unexpected(reader, "a name") end
  reader:skip()
  if not reader:take("=") then unexpected(reader, "= behind " .. name) end
  reader:skip()
  local value_at = reader.at
  return name, value_of(reader), at, value_at
end

local function names_of(allowed)
  local names = {}
  for name in pairs(allowed) do names[#names + 1] = name end
  table.sort(names)
  return table.concat(names, ", ")
end

local MOST = 20 -- problems of a tag

local function read(reader, allowed, values, problems)
  local function note(at, message)
    if #problems == MOST then fail(reader, at, "%s, and more", message) end
    local problem = place(reader, at)
    problem.message = message
    problems[#problems + 1] = problem
  end
  reader:skip()
  while reader.at <= #reader.text do
    local name, value, at, value_at = assignment(reader)
    if not allowed[name] then
      note(at, ("unknown name %s; allowed are %s"):format(M.excerpt(name), names_of(allowed)))
    elseif values[name] ~= nil then
      note(at, name .. " is given twice")
    else
      local checked, wanted = allowed[name](value)
      if checked == nil then
        note(value_at, ("%s: %s is needed, not %s"):format(name, wanted, M.excerpt(tostring(value))))
      end
      values[name] = checked
    end
    reader:skip()
    if reader.at <= #reader.text and not reader:take("[,;]") then unexpected(reader, '","') end
    reader:skip()
  end
end

---@param text string
---@param allowed table<string, fun(value: any): any, string>  by name: returns the value, or nil and what is needed
---@return table values                        those that are good
---@return mbus.freeclient.Problem[] problems  empty if all are
function M.parse(text, allowed)
  local reader = setmetatable({ text = text, at = 1 }, Reader)
  local values, problems = {}, {}
  local ok, err = pcall(read, reader, allowed, values, problems)
  if not ok then
    if getmetatable(err) ~= Failure then error(err, 0) end
    problems[#problems + 1] = err.problem
  end
  return values, problems
end

---@param problem mbus.freeclient.Problem
---@return string
function M.describe(problem)
  local line = problem.line > 1 and ("line %d, "):format(problem.line) or ""
  return ("tag '%s', %scolumn %d: %s"):format(M.excerpt(problem.text, problem.at), line, problem.column, problem.message)
end

return M
