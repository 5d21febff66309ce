---Seeded faults: every place of a C source where one operator, constant, name of a family or text can be wrong, with
---what it becomes. Nothing is listed by hand, so that new code has its faults at once.
local M = {}

---@class Mutant
---@field file string     name in csrc/core
---@field line integer
---@field from integer    first byte that is replaced
---@field to integer      last one; from - 1 for none
---@field new string      what stands there instead
---@field before string   the line, trimmed
---@field after string    the line with the fault, trimmed

local OPERATORS = {
  ["<"] = "<=", ["<="] = "<", [">"] = ">=", [">="] = ">", ["=="] = "!=", ["!="] = "==", ["&&"] = "||", ["||"] = "&&",
  ["+"] = "-", ["-"] = "+", ["*"] = "+", ["/"] = "*", ["%"] = "/", ["&"] = "|", ["|"] = "&", ["^"] = "|", ["<<"] = ">>", [">>"] = "<<",
  ["+="] = "-=", ["-="] = "+=", ["*="] = "+=", ["/="] = "*=", ["|="] = "&=", ["&="] = "|=", ["<<="] = ">>=", [">>="] = "<<=",
  ["++"] = "--", ["--"] = "++",
}
local THREE, TWO = { ["<<="] = true, [">>="] = true }, { ["->"] = true }
for operator in pairs(OPERATORS) do
  if #operator == 2 then TWO[operator] = true end
end
-- With a space on either side these are binary; without they are a sign, a pointer or an address.
local EITHER = { ["+"] = true, ["-"] = true, ["*"] = true, ["&"] = true }
local FAMILIES = { "QUANTITY", "UNIT", "CODING", "FLAG", "E", "PAYLOAD", "HEADER", "TYPE", "EVENT" }
local WORDS = { ["true"] = "false", ["false"] = "true" }
-- Texts are data here; elsewhere they are remarks for programmers.
local TEXTS = { ["vif.def"] = true, ["text.c"] = true, ["mbus.h"] = true }
-- Which arguments of a table's rows are names, and of what.
local COLUMNS = {
  PRIMARY = { [3] = "quantity", [4] = "unit", [6] = "data" }, DURATIONS = { [3] = "quantity", [4] = "data" }, MODIFIER = { [4] = "effect" },
}
COLUMNS.FB, COLUMNS.FD, COLUMNS.FDFD = COLUMNS.PRIMARY, COLUMNS.PRIMARY, COLUMNS.PRIMARY

---@return fun(): string?, integer, string  kind (number, word, text, char, operator), place and text of each token
local function tokens(source)
  local at = 1
  local function take(kind, pattern)
    local text = source:match("^" .. pattern, at)
    if not text then return nil end
    local place = at
    at = at + #text
    return kind, place, text
  end
  local function skip()
    while true do
      local start = at
      at = source:match("^%s+()", at) or at
      if source:find("^/%*", at) then at = select(2, source:find("*/", at, true)) + 1 end
      if source:find("^//", at) then at = source:find("\n", at, true) end
      if source:find("^#", at) and source:sub(1, at - 1):match "[^\n]*$":match "^%s*$" then at = source:find("\n", at, true) end
      if at == start then return end
    end
  end
  return function()
    skip()
    if at > #source then return nil end
    local three, two = source:sub(at, at + 2), source:sub(at, at + 1)
    if THREE[three] then return take("operator", "...") end
    if TWO[two] or two == "##" then return take("operator", "..") end
    if source:find('^"', at) then
      local place = at
      repeat at = at + (source:sub(at, at) == "\\" and 2 or 1) until source:sub(at, at) == '"'
      at = at + 1
      return "text", place, source:sub(place, at - 1)
    end
    local kind, place, text = take("char", "'\\?.'")
    if not kind then kind, place, text = take("word", "[%a_][%w_]*") end
    if not kind then kind, place, text = take("number", "%d[%w_]*") end
    if not kind then kind, place, text = take("operator", ".") end
    return kind, place, text
  end
end

---A number of the same base and suffix, `step` away.
local function neighbour(text, step)
  local digits, suffix = text:match "^(0[xX]%x+)([uUlL]*)$"
  if digits then
    local value = math.tointeger(tonumber(digits)) + step
    return ("0x%0" .. #digits - 2 .. "X%s"):format(value, suffix)
  end
  digits, suffix = text:match "^(%d+)([uUlL]*)$"
  return digits and tostring(math.tointeger(tonumber(digits)) + step) .. suffix
end

local function numbers(text)
  local value = tonumber((text:gsub("[uUlL]+$", "")))
  if not value then return {} end
  return value == 0 and { neighbour(text, 1) } or { neighbour(text, 1), neighbour(text, -1) }
end

local function one_text_less(text)
  local inner = text:sub(2, -2)
  if inner == "" then return '"x"' end
  if inner:find("\\", 1, true) then return nil end
  return '"' .. inner:sub(1, -2) .. '"'
end

local function next_in(list, name)
  for i, item in ipairs(list) do
    if item == name then return list[i % #list + 1] end
  end
end

local function family_of(word)
  for _, family in ipairs(FAMILIES) do
    if word:find("^MBUS_" .. family .. "_%u") then return family end
  end
end

---@param sources table<string, string>  text by file name
---@return table<string, string[]>  the names of each family and of each column, in the order of their first use
local function name_lists(sources)
  local lists, seen, files = {}, {}, {}
  local function note(list, name)
    lists[list] = lists[list] or {}
    if seen[list .. name] then return end
    seen[list .. name] = true
    table.insert(lists[list], name)
  end
  for file in pairs(sources) do files[#files + 1] = file end
  table.sort(files)
  for _, file in ipairs(files) do
    if file:find "%.c$" then
      for word in sources[file]:gmatch "MBUS_[%u_%d]+" do
        local family = family_of(word)
        if family then note(family, word) end
      end
    elseif file:find "%.def$" then
      for macro, arguments in sources[file]:gmatch "\n(%u+)(%b())" do
        local column = 0
        for argument in arguments:sub(2, -2):gmatch "[^,]+" do
          column = column + 1
          local list = COLUMNS[macro] and COLUMNS[macro][column]
          if list then note(list, argument:match "^%s*(.-)%s*$") end
        end
      end
    end
  end
  return lists
end

local function is_binary(source, place, text)
  return source:sub(place - 1, place - 1):find "%s" and source:sub(place + #text, place + #text):find "%s"
end

---What an operator may become; "" takes it away.
local function operators(source, place, text)
  if EITHER[text] and not is_binary(source, place, text) then return text == "-" and { "" } or {} end
  if text == "!" or text == "~" then return { "" } end
  return { OPERATORS[text] }
end

---What a token may become.
local function changes(context, kind, place, text)
  if kind == "number" then return numbers(text) end
  if kind == "operator" then return operators(context.source, place, text) end
  if kind == "char" then return #text == 3 and { "'" .. string.char(text:byte(2) + 1) .. "'" } or {} end
  if kind == "text" then return { TEXTS[context.file] and one_text_less(text) or nil } end
  if WORDS[text] then return { WORDS[text] } end
  local list = context.file:find "%.c$" and family_of(text) or context.column
  return { list and next_in(context.lists[list], text) or nil }
end

---Follows the macro and the column of a table's row. A column counts outside of inner parentheses.
local function follow(row, kind, text)
  if kind == "word" and row.depth == 0 then
    row.macro, row.argument = text, 0
  elseif text == "(" then
    row.depth = row.depth + 1
    if row.depth == 1 then row.argument = 1 end
  elseif text == ")" then
    row.depth = row.depth - 1
  elseif text == "," and row.depth == 1 then
    row.argument = row.argument + 1
  end
  local columns = COLUMNS[row.macro]
  return row.depth == 1 and columns and columns[row.argument] or nil
end

local function lines_of(source)
  local starts = { 1 }
  for place in source:gmatch "\n()" do starts[#starts + 1] = place end
  return starts
end

local function trim(text) return text:match "^%s*(.-)%s*$" end

---@param sources table<string, string>
---@param file string
---@return Mutant[]
local function of_file(sources, lists, file)
  local source, list = sources[file], {}
  local starts, line = lines_of(source), 1
  local row = { depth = 0 }
  local context = { source = source, file = file, lists = lists }
  for kind, place, text in tokens(source) do
    while starts[line + 1] and starts[line + 1] <= place do line = line + 1 end
    context.column = file:find "%.def$" and follow(row, kind, text) or nil
    for _, new in ipairs(changes(context, kind, place, text)) do
      local first, last = starts[line], (starts[line + 1] or #source + 2) - 2
      list[#list + 1] = {
        file = file, line = line, from = place, to = place + #text - 1, new = new, before = trim(source:sub(first, last)),
        after = trim(source:sub(first, place - 1) .. new .. source:sub(place + #text, last)),
      }
    end
  end
  return list
end

---@param sources table<string, string>  text of each file of csrc/core by its name
---@return Mutant[]  of all files, in their order
function M.all(sources)
  local lists, files, list = name_lists(sources), {}, {}
  for file in pairs(sources) do files[#files + 1] = file end
  table.sort(files)
  for _, file in ipairs(files) do
    for _, mutant in ipairs(of_file(sources, lists, file)) do list[#list + 1] = mutant end
  end
  return list
end

---A generator of our own (Lehmer): the same sample with every Lua.
local function dice(seed)
  local state = seed % 2147483647 + 1
  return function(sides)
    state = state * 48271 % 2147483647
    return state % sides + 1
  end
end

-- The first `count` of a list change places with any behind them.
local function shuffle(list, count, roll)
  for i = 1, count do
    local other = i + roll(#list - i + 1) - 1
    list[i], list[other] = list[other], list[i]
  end
end

---A sample of `count`, of each file in proportion to its faults and at least one; in any order, so that its head is one too.
---@param list Mutant[]
---@param count integer
---@param seed integer
---@return Mutant[]
function M.sample(list, count, seed)
  local by_file, order, chosen, roll = {}, {}, {}, dice(seed)
  for _, mutant in ipairs(list) do
    if not by_file[mutant.file] then
      by_file[mutant.file] = {}
      order[#order + 1] = mutant.file
    end
    table.insert(by_file[mutant.file], mutant)
  end
  for _, file in ipairs(order) do
    local own = by_file[file]
    local share = math.max(1, math.min(#own, (#own * count + #list // 2) // #list))
    shuffle(own, share, roll)
    table.move(own, 1, share, #chosen + 1, chosen)
  end
  shuffle(chosen, #chosen, roll)
  return chosen
end

return M
