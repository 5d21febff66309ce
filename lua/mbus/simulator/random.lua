---A small generator of its own, so that a seed gives the same bus whatever else in the program draws random numbers.
---@class mbus.simulator.Random
---@field state integer
local Random = {}
Random.__index = Random

---@param seed integer
---@return mbus.simulator.Random
function Random.new(seed) return setmetatable({ state = seed }, Random) end

---splitmix64.
---@return number  at least 0, below 1
function Random:number()
  self.state = self.state + 0x9E3779B97F4A7C15
  local z = self.state
  z = (z ~ (z >> 30)) * 0xBF58476D1CE4E5B9
  z = (z ~ (z >> 27)) * 0x94D049BB133111EB
  return ((z ~ (z >> 31)) >> 11) * 0x1p-53
end

---@param least number
---@param most number
---@return number
function Random:between(least, most) return least + (most - least) * self:number() end

return Random
