---Writes data records to a meter (EN 13757-3, CI 51). The acknowledgement says that they have arrived; with `verify` the
---meter is read, and must show them.
local Address = require "mbus.address"
local Error = require "mbus.error"
local clock = require "mbus.clock"
local arguments = require "mbus.procedure.arguments"
local records = require "mbus.records"
local request = require "mbus.request"
local boolean = require("mbus.options").boolean
local Target = require "mbus.procedure.target"

local CI_SEND = 0x51

local function find(readout, sent)
  for _, record in readout:records() do
    if records.is_same(sent, record) then return record end
  end
end

local function text_of(record)
  local unit = record.unit and " " .. record.unit or ""
  return ("%s %s%s"):format(record.quantity or "VIF " .. record.raw_vif_hex, record.value, unit)
end

local DAY = 86400
-- Seconds that a clock may be ahead of what was written, since it runs on while it is read back, or behind, since it may show
-- whole minutes.
local AHEAD, BEHIND = 120, 60

local function seconds_of(value)
  local time = value and clock.parse(value:find("T", 1, true) and value or "2000-01-01T" .. value)
  return time and clock.seconds(time)
end

-- How far a clock is ahead of what was written; nil: it is none, or none that runs.
local function ahead(sent, shown)
  if sent.type ~= "datetime" and sent.type ~= "time" or sent.storage ~= 0 then return nil end
  local one, other = seconds_of(sent.value), seconds_of(shown.value)
  if not (one and other) then return nil end
  local seconds = other - one
  return sent.type == "time" and (seconds + DAY // 2) % DAY - DAY // 2 or seconds
end

local function holds(sent, shown)
  local seconds = ahead(sent, shown)
  if seconds then return seconds >= -BEHIND and seconds <= AHEAD end
  return sent.value == shown.value
end

-- Returns an error if the meter shows another value; else the records that it does not show, and whether it shows all that
-- was written.
local function compare(bytes, readout)
  local missing = {}
  local all, is_whole = records.decode(bytes)
  for _, sent in ipairs(all) do
    local shown = not records.is_action(sent) and find(readout, sent)
    if not shown then
      missing[#missing + 1] = sent
    elseif not holds(sent, shown) then
      return nil, Error.new("rejected", ("acknowledged, but the meter shows %s instead of %s"):format(text_of(shown),
        text_of(sent)), { code = "unchanged", readout = readout })
    end
  end
  return missing, is_whole and #all > 0 and #missing == 0
end

local function write(target, bytes, verify)
  local ok, err = target:command(CI_SEND, bytes)
  if not ok then return nil, err end
  if not verify then return { acknowledged = true } end
  local readout
  readout, err = target:readout()
  if err then return nil, err end
  if target.link.plan then return {} end
  local missing, verified = compare(bytes, readout)
  if not missing then return nil, verified end
  return { acknowledged = true, verified = verified, missing = missing, readout = readout }
end

local function run(link, address, bytes, verify)
  if address.a == Address.BROADCAST then
    local ok, err = Target.command_all(link, request.write(address.a, bytes, 1))
    if not ok then return nil, err end
    return { acknowledged = false }
  end
  return Target.with(link, address, function(target) return write(target, bytes, verify) end)
end

local function prepare(level, address, wanted, options)
  local parsed, err = arguments.address_or_all(level + 1, address)
  if not parsed then return nil, err end
  options = options or {}
  if options.verify and parsed.a == Address.BROADCAST then
    return nil, Error.new("invalid", "address 255: nobody answers, so that nothing can be verified")
  end
  return options, parsed, records.encode(level + 1, wanted), options.verify
end

return { prepare = prepare, run = run, options = { verify = boolean } }
