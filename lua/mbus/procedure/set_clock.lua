---Sets the clock of a meter (EN 13757-3, VIF 6D of type F or I): in the type in which the meter shows its own, since many
---take only that. Reads it back.
local Address = require "mbus.address"
local arguments = require "mbus.procedure.arguments"
local clock = require "mbus.clock"
local request = require "mbus.request"
local boolean = require("mbus.options").boolean
local Target = require "mbus.procedure.target"

local CI_SEND = 0x51
local KINDS = { [4] = "F", [6] = "I" } -- by data field
local HOUR = 3600
-- How far a clock may be from what was set a moment ago: it may show whole minutes only.
local TOLERANCE = { F = 61, I = 5 }

---@param readout mbus.Readout|mbus.Telegram
---@return table? record  the present date and time
---@return string? kind
local function shown_clock(readout)
  for _, record in readout:records() do
    local dif = tonumber(record.raw_dif_hex:sub(1, 2), 16)
    local kind = KINDS[dif & 0x0F]
    if kind and record.raw_vif_hex:upper() == "6D" and record.storage == 0 and record["function"] == "instantaneous" then
      return record, kind
    end
  end
end

-- The clock may stand in any telegram.
local function find_clock(target)
  local telegram, err = target:first()
  if not telegram then return nil, nil, err end
  if target.link.plan then return nil, nil end
  local record, kind = shown_clock(telegram)
  if record or not telegram.more_records_follow then return record, kind end
  local readout
  readout, err = target:readout()
  if err then return nil, nil, err end
  return shown_clock(readout)
end

-- Type F has no seconds: the nearest minute, or the minute that was given.
local function rounded(time, kind, is_given)
  if kind == "I" then return time end
  local minute = clock.at((clock.seconds(time) + (is_given and 0 or 30)) // 60 * 60)
  minute.summer_time = time.summer_time
  return minute
end

-- Whether a clock shows the time; "standard": in summer, a meter that keeps standard time shows an hour less.
local function is_near(record, kind, time, elapsed)
  local shown = record and record.value and clock.parse(record.value)
  if not shown then return false end
  local off = clock.seconds(shown) - clock.seconds(time) - elapsed
  if math.abs(off) <= TOLERANCE[kind] then return true end
  return time.summer_time and math.abs(off + HOUR) <= TOLERANCE[kind] and "standard"
end

local function result_of(time, kind, record, verified)
  return { time = clock.text(time), type = kind, read_back = record and record.value, verified = verified or false }
end

local function set(target, wanted)
  local link = target.link
  local record, kind, err = find_clock(target)
  if err then return nil, err end
  local shows_one = record ~= nil
  local time = rounded(wanted.time(), wanted.kind or kind or "F", wanted.is_given)
  local before = is_near(record, kind, time, 0)
  kind = wanted.kind or kind or "F"
  local sent = link:now()
  err = select(2, target:command(CI_SEND, clock.record(time, kind, wanted.hundred_years)))
  if link.broken or err and (err.kind == "rejected" or not shows_one) then return nil, err end
  local shown_kind, read_error
  record, shown_kind, read_error = find_clock(target)
  if link.plan then return {} end
  if not record and not read_error then return result_of(time, kind) end
  if read_error and not err then return nil, read_error end
  local near = is_near(record, shown_kind, time, link:now() - sent)
  -- A clock that was an hour behind already, and still is, has perhaps not been set.
  local found = near and result_of(time, kind, record, near == true or before ~= near)
  return Target.verdict(err, found, ("acknowledged, but the clock of the meter shows %s instead of %s")
    :format(record and record.value, clock.text(time)), read_error)
end

local function set_all(link, wanted)
  local kind = wanted.kind or "F"
  local time = rounded(wanted.time(), kind, wanted.is_given)
  local record = clock.record(time, kind, wanted.hundred_years)
  local ok, err = Target.command_all(link, request.write(Address.BROADCAST, record, 1))
  if not ok then return nil, err end
  return result_of(time, kind)
end

local function run(link, address, wanted)
  if address.a == Address.BROADCAST then return set_all(link, wanted) end
  return Target.with(link, address, function(target) return set(target, wanted) end)
end

-- A function that tells the time to set, at the moment when it is sent.
local function teller(given, options)
  return function()
    local time = given or clock.from_date(os.date("*t"))
    if options.summer_time ~= nil then time.summer_time = options.summer_time end
    return options.standard_time and clock.standard(time) or time
  end
end

local function prepare(level, address, time, options)
  local parsed, err = arguments.address_or_all(level + 1, address)
  if not parsed then return nil, err end
  options = options or {}
  if time ~= nil and type(time) ~= "string" then error("a time is a string such as 2024-02-29T13:45:30", level + 1) end
  local kind = options.type
  if kind ~= nil and kind ~= "F" and kind ~= "I" then error('option type: "F" or "I" expected', level + 1) end
  local given
  if time then
    given, err = clock.parse(time)
    if not given then return nil, err end
    if not clock.is_settable(given) then return arguments.refuse("bad time %q: the clock of a meter knows 1981 to 2080", time) end
  end
  return options, parsed, { time = teller(given, options), is_given = given ~= nil, kind = kind,
    hundred_years = options.hundred_years }
end

local OPTIONS = { type = true, hundred_years = boolean, standard_time = boolean, summer_time = boolean }

return { prepare = prepare, run = run, options = OPTIONS }
