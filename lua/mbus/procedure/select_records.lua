---Chooses what a meter sends from now on (EN 13757-3, records of data field 8), until an application reset. Reads it at once:
---a meter that cannot choose sends what it always sends.
local arguments = require "mbus.procedure.arguments"
local records = require "mbus.records"
local Error = require "mbus.error"
local Target = require "mbus.procedure.target"

local CI_SEND = 0x51
local ALL = "\x7F"

local function is_wanted(record, selections)
  for _, selection in ipairs(selections) do
    if records.is_selected(selection, record) then return true end
  end
  return false
end

-- Everything that came was asked for, and something came.
local function obeys(readout, bytes)
  if bytes == ALL then return true end
  local selections, count = records.decode(bytes), 0
  for _, record in readout:records() do
    if not is_wanted(record, selections) then return false end
    count = count + 1
  end
  return count > 0
end

local function run(link, address, bytes)
  link.settings.application_reset = false
  return Target.with(link, address, function(target)
    local ok, err = target:command(CI_SEND, bytes)
    if not ok then return nil, err end
    local readout
    readout, err = target:readout()
    if err then return nil, err end
    if link.plan then return {} end
    if obeys(readout, bytes) then return readout end
    return nil, Error.new("rejected", "acknowledged, but the meter sends other records than those that were selected",
      { code = "unchanged", readout = readout })
  end)
end

local function prepare(level, address, wanted, options)
  local parsed, err = arguments.address(level + 1, address)
  if not parsed then return nil, err end
  local bytes = wanted == "all" and ALL or records.encode(level + 1, wanted, "selection")
  return options or {}, parsed, bytes
end

return { prepare = prepare, run = run }
