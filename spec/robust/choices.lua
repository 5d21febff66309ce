---Decisions out of a string of bytes, so that a fuzzer that changes bytes changes decisions, and a spec can repeat them.
---
---    local choose = choices.new(bytes)
---    choose:below(6)   choose:one_of { "a", "b" }   choose:bytes(4)   choose:change(example)
---
---When the bytes are used up, every decision is the first.
local M = {}

---@class robust.Choices
local Choices = {}
Choices.__index = Choices

function M.new(bytes) return setmetatable({ left = bytes, at = 1 }, Choices) end

---@return integer  0 to limit - 1
function Choices:below(limit)
  local value = 0
  for _ = 1, limit > 256 and 4 or 1 do
    value = value << 8 | (self.left:byte(self.at) or 0)
    self.at = self.at + 1
  end
  return value % limit
end

function Choices:one_of(list) return list[1 + self:below(#list)] end

---As many bytes as there are, up to `count`.
function Choices:bytes(count)
  self.at = self.at + count
  return self.left:sub(self.at - count, self.at - 1)
end

function Choices:rest()
  local rest = self.left:sub(self.at)
  self.at = #self.left + 1
  return rest
end

---Cuts a text into pieces of 1 to 7 bytes, or leaves it whole.
function Choices:cuts(text)
  local pieces, at = {}, 1
  while at <= #text do
    local size = self:below(8)
    if size == 0 then size = #text end
    pieces[#pieces + 1] = text:sub(at, at + size - 1)
    at = at + size
  end
  return pieces
end

-- What a setting can have that it should not, and some that are good.
local ODD = {
  true, false, 0, 1, 2, -1, 5, 250, 251, 255, 256, 2400, 1000, 60000, 1.5, -0.5, 1e15, 1e300, math.huge, -math.huge, 0 / 0, math.mininteger,
  math.maxinteger, "", " ", "a", "5", "0x10", "1e9", "12345678", "1234567824400107", "FFFFFFFFFFFFFFFF", "tcp://[::1]:1", "sim:", "/dev/null",
  "%", "%d%s", "even", "serial", "RW", ("x"):rep(1001), "\0", "\n", "\xFF", "é", "int32", "energy", "Wh", "maximum", "2024-02-30", "68 01",
  function() end, coroutine.create(function() end), io.stdout, {}, { {} }, { 1, 2 }, { a = 1 }, { 1, nil, 3 }, { type = "scaling", factor = 0 },
  setmetatable({}, { __index = function() return 1 end }), setmetatable({}, { __tostring = function() return "odd" end }),
}

local function keys_of(value)
  local keys = {}
  for key in pairs(value) do keys[#keys + 1] = key end
  table.sort(keys, function(a, b) return tostring(a) < tostring(b) end)
  return keys
end

local function copy(value)
  if type(value) ~= "table" then return value end
  local result = {}
  for key, item in pairs(value) do result[key] = copy(item) end
  return result
end
M.copy = copy

-- Each time its own: what is changed afterwards must not stay odd for the next input, or hold itself in the end.
function Choices:odd()
  local value = ODD[1 + self:below(#ODD)]
  if type(value) == "table" and not getmetatable(value) then return copy(value) end
  return value
end

-- A table somewhere in the value, and one of its keys.
local function place(choose, value)
  while true do
    local keys = keys_of(value)
    if #keys == 0 then return value, nil end
    local key = choose:one_of(keys)
    if type(value[key]) ~= "table" or getmetatable(value[key]) or choose:below(4) == 0 then return value, key end
    value = value[key]
  end
end

local changes = {
  function(choose, at, key) at[key] = choose:odd() end,
  function(_, at, key) at[key] = nil end,
  function(choose, at, key) at[choose:one_of { "name", "type", "port", 1, 2, 0.5, true, "other", "records", "address" }] = copy(at[key]) end,
  function(_, at, key) if type(key) == "number" then table.insert(at, copy(at[key])) end end,
  function(choose, at, key)
    local value = at[key]
    if math.type(value) == "integer" then at[key] = value + choose:one_of { 1, -1, 100, -100 } end
    if type(value) == "string" then at[key] = choose:bend(value) end
  end,
  function(choose, at, key) at[key] = { at[key], choose:odd() } end,
}

---A copy of the example with none to three changes at random places.
function Choices:change(example)
  local value = { copy(example) }
  for _ = 1, self:below(4) do
    local at, key = place(self, value)
    if key ~= nil then self:one_of(changes)(self, at, key) end
  end
  return value[1]
end

---A text with up to three changes of a few characters.
function Choices:bend(text)
  for _ = 1, self:below(4) do
    local at = self:below(#text + 1)
    local size = self:below(4)
    text = text:sub(1, at) .. self:one_of { "", "0", "9", " ", "\n", "\0", "\xFF", ":", "%", "f", "99999999999999999999", "--", "]]", "(" }
      .. text:sub(at + 1 + size)
  end
  return text
end

return M
