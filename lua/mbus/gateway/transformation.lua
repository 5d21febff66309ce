---What is done to a value on its way from the meter to whoever wants it: an ordered chain of steps, each with its own state.
---
---    { type = "scaling", factor = 0.001, shift = 0, unit = "kWh" }        value * factor + shift
---    { type = "default", value = 0, mode = "constant" }                   instead of a bad value, always
---    { type = "default", value = 0, mode = "initial" }                    only until the first good one
---    { type = "limit", lower = 0, upper = 100 }                           clamps
---    { type = "integration", per = 3600000, initial = 0, unit = "Wh" }    area under the value; `per` ms count as one
---    { type = "derivative", per = 3600000, unit = "m3/h" }                change in `per` ms
---    { type = "damper", time = 60000 }                                    first-order lag with this time constant, ms
---    { type = "function", f = function(value, context, state) ... end }   whatever it returns; `inverse` for writing
---
---A function alone is a step, too. `unit` names the unit of a step's result. A step that fails, or yields what is no value,
---makes the value bad, and says which step it was.
local number = require "mbus.format.number"
local sandbox = require "mbus.gateway.sandbox"
local schema = require "mbus.gateway.schema"

local M = {}

-- ------------------------------------------------------------------ settings

local unit = schema.text()
local any_number = schema.number()
local duration = schema.number(1, 1e12)

local function plain_value(value, path, problems)
  if type(value) == "string" or type(value) == "boolean" then return value end
  return any_number(value, path, problems)
end

local function nonzero(value, path, problems)
  if value == 0 then return problems:refuse(path, "a number other than 0 is needed", value) end
  return any_number(value, path, problems)
end

local HOUR = 3600000
local TYPES = {
  scaling = { factor = { nonzero, default = 1 }, shift = { any_number, default = 0 } },
  default = { value = { plain_value, required = "the value to give instead" },
    mode = { schema.choice { "constant", "initial" }, default = "constant" } },
  limit = { lower = any_number, upper = any_number },
  integration = { per = { duration, default = HOUR }, initial = { any_number, default = 0 } },
  derivative = { per = { duration, default = HOUR } },
  damper = { time = { duration, required = "the time constant in ms" } },
  ["function"] = { f = { schema.callable, required = "function(value, context, state)" }, inverse = schema.callable },
}

local any_type = function(value) return value end
local checkers, names = {}, {}
for name, fields in pairs(TYPES) do
  fields.type, fields.unit = any_type, unit
  checkers[name] = schema.fields(fields)
  names[#names + 1] = name
end
table.sort(names)
local type_of = schema.choice(names)

local function check_step(value, path, problems)
  if type(value) == "function" then return { type = "function", f = value } end
  if not schema.is_table(value) then return problems:refuse(path, "a table with type, or a function, is needed", value) end
  local kind = type_of(value.type, path .. ".type", problems)
  if not kind then return nil end
  local checked = checkers[kind](value, path, problems)
  if checked and kind == "limit" and checked.lower and checked.upper and checked.lower > checked.upper then
    problems:add(path, "lower is above upper")
  end
  if checked and kind == "limit" and value.lower == nil and value.upper == nil then
    problems:add(path, "lower or upper is needed")
  end
  return checked
end

---Checker of the setting `transformation`: an array of steps, or one step.
M.check = schema.array(check_step, function(value)
  return type(value) == "function" or schema.is_table(value) and value.type ~= nil
end)

-- ------------------------------------------------------------------ steps
-- Each takes (step, state, value, now, context), returns a value, or nil and a reason. Times are seconds. The context is for
-- functions, which may do with it what they like.

-- 3 * 0.1 is 0.30000000000000004, 3 / 10 is 0.3.
local function times(value, factor)
  local divisor = 1 / factor
  local whole = math.tointeger(divisor) or math.tointeger(math.floor(divisor + 0.5))
  if math.abs(factor) < 1 and whole and whole ~= 0 and 1 / whole == factor then return value / whole end
  return value * factor
end

local RANGE = 2.0 ^ 63 -- of integers, which wrap around behind it

-- An integer where it fits into 64 bits.
local function scaled(value, factor, shift)
  local rough = (value + 0.0) * factor + shift
  if math.abs(rough) >= RANGE then return rough end
  return number.tidy(times(value, factor) + shift, shift)
end

local step_functions = {}

function step_functions.scaling(step, _, value) return scaled(value, step.factor, step.shift) end

function step_functions.limit(step, _, value)
  if step.lower and value < step.lower then return step.lower end
  if step.upper and value > step.upper then return step.upper end
  return value
end

local function elapsed(state, now) return math.max(now - state.at, 0) end

-- Trapezoids between good values; what was not seen is not counted.
function step_functions.integration(step, state, value, now)
  local total = state.total or step.initial
  if state.value then total = total + (state.value / 2 + value / 2) * (elapsed(state, now) * 1000 / step.per) end
  state.total, state.value, state.at = total, value, now
  return total
end

function step_functions.derivative(step, state, value, now)
  local before, seconds = state.value, state.at and elapsed(state, now)
  if seconds == 0 then return state.result, "no second value yet" end
  state.value, state.at = value, now
  if not before then return nil, "no second value yet" end
  state.result = (value - before) / (seconds * 1000 / step.per)
  return state.result
end

function step_functions.damper(step, state, value, now)
  local share = state.value and 1 - math.exp(-elapsed(state, now) * 1000 / step.time) or 1
  state.value = state.value and state.value + (value - state.value) * share or value
  state.at = now
  return state.value
end

local function short(err) return (tostring(err):gsub("\n.*", ""):sub(1, 200)) end

step_functions["function"] = function(step, state, value, _, context)
  local ok, result = sandbox.call(step.f, value, context, state)
  if not ok then return nil, "fails: " .. short(result) end
  if result == nil then return nil, "yields no value" end
  return result
end

local NUMERIC = { scaling = true, limit = true, integration = true, derivative = true, damper = true }
local KINDS = { number = true, string = true, boolean = true }

local TEXT_MAX = 65536

local function judge(result)
  if not KINDS[type(result)] then return ("yields a %s"):format(type(result)) end
  if type(result) == "string" and #result > TEXT_MAX then
    return ("yields a text of %d bytes, more than %d"):format(#result, TEXT_MAX)
  end
  if result ~= result then return "yields NaN" end
  if result == math.huge or result == -math.huge then return "yields an infinite number" end
end

local function apply(step, state, value, now, context)
  if NUMERIC[step.type] and type(value) ~= "number" then
    return nil, ("needs a number, not %q"):format(tostring(value))
  end
  local result, reason = step_functions[step.type](step, state, value, now, context)
  reason = result == nil and reason or result ~= nil and judge(result)
  if reason then return nil, reason end
  return result
end

-- ------------------------------------------------------------------ the chain

---@class mbus.gateway.Chain
---@field steps table[]
---@field states table[]  one a step; given over where a config is reloaded
local Chain = {}
Chain.__index = Chain

---@param steps table[]  as M.check returns them
---@param states? table[]
function M.new(steps, states)
  local self = setmetatable({ steps = steps, states = states or {} }, Chain)
  for i, step in ipairs(steps) do
    self.states[i] = self.states[i] or {}
    self.has_functions = self.has_functions or step.type == "function"
  end
  return self
end

-- Where a value is missing, what was going on over time begins anew.
local function interrupt(step, state)
  if step.type == "integration" or step.type == "derivative" then state.value, state.at = nil, nil end
end

local function replace(step, state, sample)
  if step.mode == "initial" and state.seen then return end
  sample.value, sample.quality = step.value, "uncertain" -- the error goes on telling why
end

---Sends a sample through the chain. It comes in as the meter gave it, good or bad, and leaves as it is to be told.
---@param sample table   value, unit, quality, error; changed in place
---@param context table  for functions
---@param now number     seconds
function Chain:apply(sample, context, now)
  context.now, context.quality = now, sample.quality
  context.elapsed = function(state) return elapsed(state, now) end
  for i, step in ipairs(self.steps) do
    local state = self.states[i]
    if step.type == "default" then
      if sample.value == nil then replace(step, state, sample) else state.seen = true end
    elseif sample.value == nil then
      interrupt(step, state)
    else
      local value, reason = apply(step, state, sample.value, now, context)
      sample.value = value
      if reason then
        sample.quality, sample.error = "bad", ("transformation %d (%s) %s"):format(i, step.type, reason)
      end
    end
    if step.unit then
      sample.unit = step.unit
    elseif step.type == "integration" or step.type == "derivative" or step.type == "function"
      or step.type == "scaling" and step.factor ~= 1 then
      sample.unit = nil -- what the meter calls it, it is not any more
    end
  end
end

local inverses = {}
function inverses.scaling(step, value)
  local unshifted = number.tidy(value - step.shift, step.shift)
  return step.factor == 1 and unshifted or number.tidy(unshifted / step.factor, 0)
end
function inverses.limit(step, value) return step_functions.limit(step, nil, value) end
function inverses.default(_, value) return value end
inverses["function"] = function(step, value)
  if not step.inverse then return nil, "has no inverse" end
  local ok, result = sandbox.call(step.inverse, value)
  if not ok then return nil, "inverse fails: " .. short(result) end
  return result
end

---What to write into the meter for a value as the chain gives it.
---@param value any
---@return any? value
---@return string? reason
function Chain:invert(value)
  for i = #self.steps, 1, -1 do
    local step = self.steps[i]
    local inverse, reason = inverses[step.type], "cannot be undone"
    if NUMERIC[step.type] and type(value) ~= "number" then inverse, reason = nil, "needs a number" end
    local result
    if inverse then result, reason = inverse(step, value) end
    reason = result == nil and (reason or "yields no value") or judge(result)
    if reason then return nil, ("transformation %d (%s) %s"):format(i, step.type, reason) end
    value = result
  end
  return value
end

---Time passes without samples: it is not counted.
function Chain:interrupt()
  for i, step in ipairs(self.steps) do interrupt(step, self.states[i]) end
end

---Forgets all state.
function Chain:clear()
  for i in ipairs(self.steps) do self.states[i] = {} end
end

return M
