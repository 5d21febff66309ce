---The built-in bus: the eleven meters of a real house. Two HYD heat meters, both still at primary address 0 where they
---collide, and nine Kamstrup heat and cooling meters, each at the address that the last two digits of its number give.
---Its converter sees a collision and sends a break for it, which the master hears as 00.
local M = {}

local DAY, HOUR = "2024-09-10", 18

-- Type G of EN 13757-3: day 5 bits, year 7 bits in two parts, month 4 bits.
local function date_code(year, month, day)
  year = year % 100
  return day | (year & 7) << 5 | month << 8 | (year >> 3) << 12
end

-- ------------------------------------------------------------------ HYD

-- Equal meters are equally fast, to half a bit: they always talk at once.
local function hyd(data) return { address = 0, telegrams = { { data = data } }, delay = { 0.0440, 0.0442 } } end

local function hyd_meters()
  return hyd([[47 27 89 31 24 23 28 04 ED 00 00 00 0C 05 31 84 74 01 0C 12 91 72 64 02 0C 2A 00 00 00 00 0B 3A 00 00 00
      0A 5A 22 05 0A 5E 23 04 0A 62 99 00 04 6D 21 16 0A 39 4C 05 30 78 11 00 44 6D 00 00 1E 14 44 ED 7E 00 00 3F 1C
      8C 01 05 20 30 69 01 84 01 6D 00 00 FF 2C 0B 26 02 03 16]]),
    hyd([[49 27 89 31 24 23 28 04 7A 00 00 00 0C 05 67 09 92 00 0C 12 48 55 31 01 0C 2A 50 28 00 00 0B 3A 42 07 00
      0A 5A 87 04 0A 5E 54 04 0A 62 33 00 04 6D 1E 16 0A 39 4C 05 12 44 08 00 44 6D 00 00 1E 14 44 ED 7E 00 00 3F 1C
      8C 01 05 73 61 88 00 84 01 6D 00 00 FF 2C 0B 26 57 02 16]])
end

-- ------------------------------------------------------------------ Kamstrup MULTICAL 303

-- Records of a storage: what the meter keeps of the end of a month.
local function month_records(storage, month)
  return {
    { quantity = "energy", unit = "Wh", value = month.heat * 1000, exponent = 3, data = "int32", storage = storage },
    { quantity = "energy", unit = "Wh", value = month.cold * 1000, exponent = 3, data = "int32", storage = storage,
      tariff = 1 },
    { vif = "\x14", data = "int32", raw = month.volume, storage = storage },
    { vif = "\x6C", data = "int16", raw = date_code(month.year, month.month, 1), storage = storage },
  }
end

-- The counters some months ago: the meters are about a year old, heat from October to April and cool from June to August.
local function month_of(meter, ago)
  local months = 2024 * 12 + 9 - 1 - ago -- the last reading was on the first of September
  local month = { year = months // 12, month = months % 12 + 1, heat = meter.heat, cold = meter.cold, volume = meter.volume }
  for passed = 0, ago do
    local of = (2024 * 12 + 9 - 1 - passed) % 12 + 1
    local part = passed == 0 and 3 or 10 -- of the present month only a third has passed
    if of >= 10 or of <= 4 then
      month.heat = month.heat - meter.heat * part // 80
    elseif of >= 6 and of <= 8 then
      month.cold = month.cold - meter.cold * part // 33
    end
    month.volume = month.volume - meter.volume * part // 132
  end
  return month
end

-- Watts, in steps of 100, of water that loses `kelvin` hundredths of a degree at `flow` l/h: 1.163 Wh per l and K.
local function power_of(flow, kelvin) return flow * kelvin * 1163 // 10000000 end

local function current_records(meter)
  local difference = meter.supply - meter.back
  return {
    { vif = "\x78", data = "bcd8", raw = tonumber(meter.id) },
    { quantity = "energy", unit = "Wh", value = meter.heat * 1000, exponent = 3, data = "int32" },
    { quantity = "energy", unit = "Wh", value = meter.cold * 1000, exponent = 3, data = "int32", tariff = 1 },
    { vif = "\x14", data = "int32", raw = meter.volume }, -- 0.01 m3
    { vif = "\x22", data = "int32", raw = meter.hours },
    { vif = "\x22", data = "int32", raw = meter.error_hours, ["function"] = "error" },
    { vif = "\x59", data = "int16", raw = meter.supply }, -- 0.01 degrees
    { vif = "\x5D", data = "int16", raw = meter.back },
    { vif = "\x61", data = "int16", raw = difference },
    { vif = "\x2D", data = "int32", raw = power_of(meter.flow, difference) }, -- 100 W
    { vif = "\x2D", data = "int32", raw = meter.max_power, ["function"] = "maximum" },
    { vif = "\x3B", data = "int32", raw = meter.flow }, -- l/h
    { vif = "\x3B", data = "int32", raw = meter.max_flow, ["function"] = "maximum" },
    { vif = "\xFF\x22", data = "int32", raw = meter.info }, -- info code
    { quantity = "datetime", data = "datetime", value = ("%sT%02d:%02d"):format(DAY, HOUR, meter.minute) },
  }
end

local function monthly_records(meter)
  local records = month_records(1, month_of(meter, 0))
  records[#records + 1] = { vif = "\x2D", data = "int32", raw = meter.max_power, ["function"] = "maximum", storage = 1 }
  records[#records + 1] = { vif = "\x3B", data = "int32", raw = meter.max_flow, ["function"] = "maximum", storage = 1 }
  records[#records + 1] = { vif = "\xEC\x7E", data = "int16", raw = date_code(2024, 12, 31), storage = 1 } -- target date
  return records
end

local function append(records, more)
  for _, record in ipairs(more) do records[#records + 1] = record end
  return records
end

-- A meter with a long log needs several telegrams: the present, then the months before, six a telegram.
local function telegrams_of(meter)
  local first = append(current_records(meter), monthly_records(meter))
  if not meter.log then return { { records = append(first, month_records(2, month_of(meter, 1))) } } end
  local telegrams = { { records = first } }
  for ago = 1, meter.log do
    if (ago - 1) % 6 == 0 then telegrams[#telegrams + 1] = { records = {} } end
    append(telegrams[#telegrams].records, month_records(ago + 1, month_of(meter, ago)))
  end
  return telegrams
end

local function kamstrup(meter)
  return { address = tonumber(meter.id:sub(-2)), id = meter.id, manufacturer = 0x2C2D, version = 0x40, medium = 0x0D,
    access_no = meter.hours % 256, delay = { 0.035, 0.060 }, telegrams = telegrams_of(meter) }
end

-- heat, cold: kWh; volume: 0.01 m3; supply, back: 0.01 degrees; flow: l/h; max_power: 100 W; log: months
local METERS = {
  { id = "82969010", heat = 18342, cold = 1204, volume = 295112, hours = 10421, error_hours = 0, supply = 4127, back = 3385,
    flow = 412, max_power = 87, max_flow = 968, info = 0, minute = 21 },
  { id = "82969012", heat = 9876, cold = 2310, volume = 187405, hours = 10420, error_hours = 2, supply = 3968, back = 3412,
    flow = 287, max_power = 61, max_flow = 744, info = 0, minute = 21 },
  { id = "82969015", heat = 12450, cold = 0, volume = 203377, hours = 10417, error_hours = 0, supply = 4203, back = 3550,
    flow = 318, max_power = 72, max_flow = 812, info = 0, minute = 22 },
  { id = "82969017", heat = 24107, cold = 3345, volume = 411986, hours = 10424, error_hours = 0, supply = 4089, back = 3301,
    flow = 655, max_power = 118, max_flow = 1340, info = 0, minute = 20, log = 12 },
  { id = "83003674", heat = 5233, cold = 871, volume = 98640, hours = 5233, error_hours = 0, supply = 3844, back = 3390,
    flow = 176, max_power = 39, max_flow = 512, info = 0, minute = 21 },
  { id = "83003675", heat = 7719, cold = 1546, volume = 132908, hours = 5231, error_hours = 14, supply = 2210, back = 2198,
    flow = 0, max_power = 55, max_flow = 620, info = 4, minute = 23 },
  { id = "83003676", heat = 6105, cold = 992, volume = 110254, hours = 5120, error_hours = 0, supply = 3915, back = 3377,
    flow = 231, max_power = 44, max_flow = 566, info = 0, minute = 21 },
  { id = "83003677", heat = 8461, cold = 1817, volume = 154073, hours = 5229, error_hours = 0, supply = 4011, back = 3346,
    flow = 264, max_power = 58, max_flow = 690, info = 0, minute = 22 },
  { id = "83003679", heat = 11982, cold = 2654, volume = 220519, hours = 5118, error_hours = 0, supply = 4156, back = 3428,
    flow = 389, max_power = 66, max_flow = 858, info = 0, minute = 21, log = 6 },
}

---@return table description  for mbus.simulator.load
function M.description()
  local meters = { hyd_meters() }
  for _, meter in ipairs(METERS) do meters[#meters + 1] = kamstrup(meter) end
  return { baudrate = 2400, converter = { collision = "break" }, meters = meters }
end

return M
