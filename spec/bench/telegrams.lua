---What decoding is measured with: the telegrams of the simulated house and two of other kinds, which every clone has; and
---a noisy stream of them.
local helper = require "spec.helper"
local house = require "spec.bench.house"
local mbus = require "mbus"
local Random = require "mbus.simulator.random"

local M = {}

-- Two storages and subunits; the fixed structure.
local OTHERS = {
  "68 1F 1F 68 08 02 72 78 56 34 12 24 40 01 07 55 00 00 00 03 13 15 31 00 DA 02 3B 13 01 8B 60 04 37 18 02 18 16",
  "68 13 13 68 08 05 73 78 56 34 12 0A 00 E9 7E 01 00 00 00 35 01 00 00 3C 16",
}

local RUBBISH, DAMAGED = 0.15, 0.1 -- on average, of the length and of the number of the telegrams
local LONGEST_PIECE = 64
local SEED = 7

---@return string[] telegrams  of the house and the others
function M.own()
  local list = {}
  local bus <close> = assert(mbus.open(assert(mbus.simulator.new "house")))
  for _, address in ipairs(house.secondary) do
    for _, telegram in ipairs(assert(bus:read(address)).telegrams) do list[#list + 1] = telegram.bytes end
  end
  for _, text in ipairs(OTHERS) do list[#list + 1] = assert(mbus.unhex(text)) end
  return list
end

---@param files string[]  names of files of hex, one telegram each
---@return string[] telegrams  that have records
function M.of_files(files)
  local list = {}
  for _, name in ipairs(files) do
    local bytes = mbus.unhex(helper.read(name))
    local telegram = bytes and mbus.decode(bytes)
    if telegram and #telegram > 0 then list[#list + 1] = bytes end
  end
  return list
end

-- Random bytes, one of four of them the beginning of a frame.
local function rubbish(random, size)
  local bytes = {}
  for i = 1, size do
    bytes[i] = string.char(random:number() < 0.25 and 0x68 or random:number() * 256 // 1 | 0)
  end
  return table.concat(bytes)
end

local function damaged(random, bytes)
  local at = 1 + random:number() * #bytes // 1 | 0
  return bytes:sub(1, at - 1) .. string.char(bytes:byte(at) ~ 0x20) .. bytes:sub(at + 1)
end

---All telegrams ten times: a tenth of them is damaged, between all is rubbish, and the cuts are anywhere.
---@param telegrams string[]
---@return string[] pieces
function M.noisy(telegrams)
  local random, parts = Random.new(SEED), {}
  for i = 0, 10 * #telegrams - 1 do
    local bytes = telegrams[i % #telegrams + 1]
    parts[#parts + 1] = rubbish(random, random:number() * 2 * RUBBISH * #bytes // 1 | 0)
    parts[#parts + 1] = random:number() < DAMAGED and damaged(random, bytes) or bytes
  end
  local stream, pieces, from = table.concat(parts), {}, 1
  while from <= #stream do
    local size = 1 + random:number() * LONGEST_PIECE // 1 | 0
    pieces[#pieces + 1] = stream:sub(from, from + size - 1)
    from = from + size
  end
  return pieces
end

---Writes a file of hex, one entry a line.
---@param name string
---@param list string[]
function M.write(name, list)
  local lines = {}
  for i, bytes in ipairs(list) do lines[i] = mbus.hex(bytes) end
  helper.write(name, table.concat(lines, "\n") .. "\n")
end

---@param name string  of a file that `write` made
---@return string[]
function M.read(name)
  local list = {}
  for line in io.lines(name) do list[#list + 1] = assert(mbus.unhex(line)) end
  return list
end

return M
