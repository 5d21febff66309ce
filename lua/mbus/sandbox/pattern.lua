---What a match of a Lua pattern can cost. string.find and its kin run in C, where nobody can stop them, and a pattern made
---for it takes them years: ("a*"):rep(30) .. "b" against thirty letters a.
-- No methods of strings in here: while a script runs they are the script's own.
local find, gmatch, sub = string.find, string.gmatch, string.sub

local M = {}

local function set_end(pattern, at)
  local first = sub(pattern, at + 1, at + 1) == "^" and at + 2 or at + 1
  local i = first
  while i <= #pattern do
    local c = sub(pattern, i, i)
    if c == "]" and i > first then return i end
    i = i + (c == "%" and 2 or 1)
  end
end

-- The class of one character that begins at `at`: its last position, or nil where the pattern ends too early.
local function class_end(pattern, at)
  local c = sub(pattern, at, at)
  if c == "%" then return at < #pattern and at + 1 or nil end
  if c == "[" then return set_end(pattern, at) end
  return at
end

-- Items that match one way only: their last position.
local function single_end(pattern, at)
  local two = sub(pattern, at, at + 1)
  if two == "%b" then return at + 3 end
  if find(two, "^%%%d") then return at + 1 end
  if two == "%f" then return set_end(pattern, at + 2) end
  if find(two, "^[()]") then return at end
end

-- The longest run of a class; one class repeated costs no more than the length of the text.
local function longest_run(text, class)
  local longest = 0
  for run in gmatch(text, class .. "+") do longest = math.max(longest, #run) end
  return longest
end

-- In how many ways the pattern can be laid out from one place of the text.
local function layouts(text, pattern)
  local ways, at, seen = 1.0, 1, {}
  while at <= #pattern do
    local last = single_end(pattern, at)
    if not last then
      last = class_end(pattern, at)
      if not last then return nil end
      local class, suffix = sub(pattern, at, last), sub(pattern, last + 1, last + 1)
      if find(suffix, "^[*+-]") then
        seen[class] = seen[class] or longest_run(text, class)
        ways, last = ways * (seen[class] + 1), last + 1
      elseif suffix == "?" then
        ways, last = ways * 2, last + 1
      end
    end
    at = last + 1
  end
  return ways
end

---An upper bound of the steps that a search takes.
---@param text string
---@param pattern string
---@param everywhere? boolean  "^" at its beginning is no anchor
---@param enough? number       of steps, above which nobody cares how many
---@return number? steps  nil: the pattern is malformed
function M.cost(text, pattern, everywhere, enough)
  -- To look for runs takes as long, too.
  local least = (#text + 1) * (#pattern + 1)
  if enough and least > enough then return least end
  local anchored = not everywhere and sub(pattern, 1, 1) == "^"
  if anchored then pattern = sub(pattern, 2) end
  local starts = anchored and 1 or #text + 1
  if not find(pattern, "[%%%[*+?-]") then return starts * (#pattern + 1) end
  local ways = layouts(text, pattern)
  -- %b and %f, back references and literal text look at more than one character each.
  local width = find(pattern, "%%[b%d]") and #text + #pattern or #pattern + 1
  return ways and starts * ways * width
end

return M
