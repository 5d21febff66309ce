-- The tables of EN 13757-3:2018 once more, in the form in which the standard prints them, against every code of the decoder.
local core = require "mbus.core"

---The one record of a telegram.
local function record(vib, dif, data)
  local telegram = assert(core.telegram(core.long(0x08, 1, 0x78, dif .. vib .. data)))
  assert.is_nil(telegram.error)
  assert.are.equal(1, #telegram)
  return telegram:record(0)
end

-- bits, quantity, unit, power of ten (n: the bits so marked) or unit of time by them, data
-- data: num (type B), A/C unsigned, D bit field, G, F date and time, FG any date type, K, raw
local PRIMARY = [[
000 0nnn  energy                  Wh      n-3   num
000 1nnn  energy                  J       n     num
001 0nnn  volume                  m3      n-6   num
001 1nnn  mass                    kg      n-3   num
010 00nn  on_time                 s       time  num
010 01nn  operating_time          s       time  num
010 1nnn  power                   W       n-3   num
011 0nnn  power                   J/h     n     num
011 1nnn  volume_flow             m3/h    n-6   num
100 0nnn  volume_flow             m3/min  n-7   num
100 1nnn  volume_flow             m3/s    n-9   num
101 0nnn  mass_flow               kg/h    n-3   num
101 10nn  flow_temperature        °C      n-3   num
101 11nn  return_temperature      °C      n-3   num
110 00nn  temperature_difference  K       n-3   num
110 01nn  external_temperature    °C      n-3   num
110 10nn  pressure                bar     n-3   num
110 1100  date                    -       0     G
110 1101  datetime                -       0     F
110 1110  hca                     hca     0     num
110 1111  reserved                -       0     num
111 00nn  averaging_duration      s       time  num
111 01nn  actuality_duration      s       time  num
111 1000  fabrication_number      -       0     A/C
111 1001  identification          -       0     A/C
111 1010  bus_address             -       0     A/C
111 1011  reserved                -       0     num
111 1101  reserved                -       0     num
111 1110  any_vif                 -       0     num
111 1111  manufacturer_specific   -       0     private
]] -- 111 1100 is followed by its unit

local FB = [[
000 000n  energy                  Wh      n+5   num
000 001n  reactive_energy         varh    n+3   num
000 010n  apparent_energy         VAh     n+3   num
000 011x  reserved                -       0     num
000 100n  energy                  J       n+8   num
000 101x  reserved                -       0     num
000 11nn  energy                  cal     n+5   num
001 000n  volume                  m3      n+2   num
001 001x  reserved                -       0     num
001 01nn  reactive_power          var     n     num
001 100n  mass                    kg      n+5   A/C
001 101n  relative_humidity       %       n-1   A/C
001 11xx  reserved                -       0     num
010 0000  volume                  ft3     0     num
010 0001  volume                  ft3     -1    num
010 001n  volume                  gal     n-1   num
010 0100  volume_flow             gal/min -3    num
010 0101  volume_flow             gal/min 0     num
010 0110  volume_flow             gal/h   0     num
010 0111  reserved                -       0     num
010 100n  power                   W       n+5   num
010 1010  phase_u_u               °       -1    num
010 1011  phase_u_i               °       -1    num
010 11nn  frequency               Hz      n-3   num
011 000n  power                   J/h     n+8   num
011 001x  reserved                -       0     num
011 01nn  apparent_power          VA      n     num
011 1xxx  reserved                -       0     num
100 xxxx  reserved                -       0     num
101 0xxx  reserved                -       0     num
101 10nn  flow_temperature        °F      n-3   num
101 11nn  return_temperature      °F      n-3   num
110 00nn  temperature_difference  °F      n-3   num
110 01nn  external_temperature    °F      n-3   num
110 1000  hca_factor_k            -       4096  A/C
110 1001  hca_factor_kq           W       0     A/C
110 1010  hca_factor_kc           -       4096  A/C
110 1011  hca_factor_kcr          -       4096  A/C
110 1100  hca_factor_kch          -       4096  A/C
110 1101  hca_factor_kt           -       4096  A/C
110 1110  hca_factor_kd           -       4096  A/C
110 1111  reserved                -       0     num
111 00nn  temperature_limit       °F      n-3   num
111 01nn  temperature_limit       °C      n-3   num
111 1nnn  cumulated_max_power     W       n-3   num
]]

local FD = [[
000 00nn  credit                        currency n-3    num
000 01nn  debit                         currency n-3    num
000 1000  access_number                 -        0      A/C
000 1001  medium                        -        0      A/C
000 1010  manufacturer                  -        0      A/C
000 1011  parameter_set_id              -        0      A/C
000 1100  model_version                 -        0      A/C
000 1101  hardware_version              -        0      A/C
000 1110  firmware_version              -        0      A/C
000 1111  software_version              -        0      A/C
001 0000  customer_location             -        0      A/C
001 0001  customer                      -        0      A/C
001 0010  access_code_user              -        0      A/C
001 0011  access_code_operator          -        0      A/C
001 0100  access_code_system_operator   -        0      A/C
001 0101  access_code_developer         -        0      A/C
001 0110  password                      -        0      A/C
001 0111  error_flags                   -        0      D
001 1000  error_mask                    -        0      A/C
001 1001  security_key                  -        0      A/C
001 1010  digital_output                -        0      D
001 1011  digital_input                 -        0      D
001 1100  baud_rate                     Bd       0      A/C
001 1101  response_delay_time           bittime  0      A/C
001 1110  retry                         -        0      num
001 1111  remote_control                -        0      D
010 0000  first_storage_number          -        0      A/C
010 0001  last_storage_number           -        0      A/C
010 0010  storage_block_size            -        0      A/C
010 0011  tariff_and_device_descriptor  -        0      A/C
010 01nn  storage_interval              s        time   num
010 1000  storage_interval              month    0      num
010 1001  storage_interval              year     0      num
010 1010  operator_specific_data        -        0      num
010 1011  time_point_second             s        0      A/C
010 11nn  duration_since_readout        s        time   A/C
011 0000  tariff_start                  -        0      FG
011 0001  tariff_duration               s        min    A/C
011 0010  tariff_duration               s        h      A/C
011 0011  tariff_duration               s        d      A/C
011 01nn  tariff_period                 s        time   num
011 1000  tariff_period                 month    0      num
011 1001  tariff_period                 year     0      num
011 1010  dimensionless                 -        0      num
011 1011  wireless_container            -        0      raw
011 11nn  transmission_period           s        time   A/C
100 nnnn  voltage                       V        n-9    num
101 nnnn  current                       A        n-12   num
110 0000  reset_counter                 -        0      num
110 0001  cumulation_counter            -        0      num
110 0010  control_signal                -        0      num
110 0011  day_of_week                   -        0      num
110 0100  week_number                   -        0      num
110 0101  day_change_time               -        0      FG
110 0110  parameter_activation          -        0      A/C
110 0111  special_supplier_information  -        0      num
110 1000  duration_since_cumulation     s        h      num
110 1001  duration_since_cumulation     s        d      num
110 1010  duration_since_cumulation     month    0      num
110 1011  duration_since_cumulation     year     0      num
110 1100  battery_operating_time        s        h      num
110 1101  battery_operating_time        s        d      num
110 1110  battery_operating_time        month    0      num
110 1111  battery_operating_time        year     0      num
111 0000  battery_change                -        0      FG
111 0001  rf_level                      dBm      0      num
111 0010  daylight_saving               -        0      K
111 0011  listening_window              -        0      raw
111 0100  battery_remaining             s        d      A/C
111 0101  stop_count                    -        0      A/C
111 0110  manufacturer_container        -        0      raw
111 0111  reserved                      -        0      num
111 10xx  reserved                      -        0      num
111 1100  reserved                      -        0      num
111 1110  reserved                      -        0      num
111 1111  reserved                      -        0      num
]] -- 111 1101 opens the next table

local FDFD = [[
000 0000  selected_application          -        0      A/C
000 0001  reserved                      -        0      num
000 0010  battery_remaining             month    0      A/C
000 0011  battery_remaining             year     0      A/C
000 01xx  reserved                      -        0      num
000 1xxx  reserved                      -        0      num
001 xxxx  reserved                      -        0      num
01x xxxx  reserved                      -        0      num
1xx xxxx  reserved                      -        0      num
]]

local SECONDS = { s = 1, min = 60, h = 3600, d = 86400 }
local TIME = { [0] = "s", "min", "h", "d" }

---The codes that a pattern of bits stands for, with the value of its n bits.
local function codes(bits)
  bits = bits:gsub(" ", "")
  local list = {}
  for code = 0, 127 do
    local matches, n = true, 0
    for i = 1, 7 do
      local bit, want = code >> (7 - i) & 1, bits:sub(i, i)
      if want == "n" then n = n << 1 | bit elseif want ~= "x" and want ~= tostring(bit) then matches = false end
    end
    if matches then list[#list + 1] = { code = code, n = n } end
  end
  return list
end

---What an integer means by a rule of the tables.
---@return fun(raw: integer): number
local function meaning(rule, n)
  if rule == "4096" then return function(raw) return raw / 4096 end end
  if rule == "time" then rule = TIME[n] end
  if SECONDS[rule] then return function(raw) return raw * SECONDS[rule] end end
  local offset = rule:match "^n(.*)$"
  local exponent = offset and n + (tonumber(offset) or 0) or rule
  return function(raw) return tonumber(raw .. "e" .. exponent) end
end

---value, type and flags of the same VIB with other data
local function seen(vib, dif, data)
  local r = record(vib, dif, data)
  return r.value, r.type, table.concat(r.flags, " ")
end

local FOUR_MINUS_TWO, FOUR_ONES = "\xFE\xFF\xFF\xFF", "\xFF\xFF\xFF\xFF"
local RULE = "\x02\x9F\xBB\xA3"

local DATA = {
  num = function(vib, value)
    assert.are.same({ value(-1), "number", "" }, { seen(vib, "\x04", FOUR_ONES) })
    assert.are.same({ nil, "number", "value_invalid" }, { seen(vib, "\x04", "\0\0\0\x80") })
  end,
  ["A/C"] = function(vib, value)
    assert.are.same({ value(4294967294), "number", "" }, { seen(vib, "\x04", FOUR_MINUS_TWO) })
    assert.are.same({ nil, "number", "value_invalid" }, { seen(vib, "\x04", FOUR_ONES) })
  end,
  D = function(vib) assert.are.same({ 4294967295, "number", "" }, { seen(vib, "\x04", FOUR_ONES) }) end,
  private = function(vib)
    assert.are.same({ -1, "number", "opaque" }, { seen(vib, "\x04", FOUR_ONES) })
    assert.are.same({ -2147483648, "number", "opaque" }, { seen(vib, "\x04", "\0\0\0\x80") })
  end,
  G = function(vib)
    assert.are.same({ 5, "number", "data_field_mismatch" }, { seen(vib, "\x01", "\5") })
    assert.are.same({ "2024-12-31", "date", "" }, { seen(vib, "\x02", "\x1F\x3C") })
    assert.are.same({ 1, "number", "data_field_mismatch" }, { seen(vib, "\x04", "\1\0\0\0") })
    assert.are.same({ 1, "number", "data_field_mismatch" }, { seen(vib, "\x03", "\1\0\0") })
  end,
  F = function(vib)
    assert.are.same({ 5, "number", "data_field_mismatch" }, { seen(vib, "\x01", "\5") })
    assert.are.same({ "2024-12-31", "date", "data_field_mismatch" }, { seen(vib, "\x02", "\x1F\x3C") })
    assert.are.same({ "2024-02-29T13:45:00", "datetime", "" }, { seen(vib, "\x04", "\x2D\x0D\x1D\x32") })
    assert.are.same({ "13:45:30", "time", "" }, { seen(vib, "\x03", "\x1E\x2D\x0D") })
  end,
  FG = function(vib)
    assert.are.same({ 5, "number", "data_field_mismatch" }, { seen(vib, "\x01", "\5") })
    assert.are.same({ "2024-12-31", "date", "" }, { seen(vib, "\x02", "\x1F\x3C") })
    assert.are.same({ "2024-02-29T13:45:00", "datetime", "" }, { seen(vib, "\x04", "\x2D\x0D\x1D\x32") })
    assert.are.same({ "2024-02-29T13:45:30", "datetime", "" }, { seen(vib, "\x06", "\x9E\x2D\x8D\x1D\x32\x09") })
  end,
  K = function(vib)
    assert.are.equal("on, from 03-31 02:00 to 10-27, +1 h", record(vib, "\x04", RULE).text)
    assert.are.same({ 5, "number", "" }, { seen(vib, "\x01", "\5") })
  end,
  raw = function(vib)
    assert.are.same({ "616263", "bytes", "" }, { seen(vib, "\x0D", "\3abc") })
    assert.are.same({ 1, "number", "" }, { seen(vib, "\x04", "\1\0\0\0") })
  end,
}
local IS_NUMBER = { num = true, ["A/C"] = true, D = true, private = true, raw = true }

---Checks every code that a table lists; returns how many those are.
local function check(pointer, text)
  local count = 0
  for row in text:gmatch "[^\n]+" do
    local bits, quantity, unit, rule, data = row:match "^(%S+ %S+)%s+(%S+)%s+(%S+)%s+(%S+)%s+(%S+)$"
    for _, item in ipairs(codes(bits)) do
      local vib = pointer .. string.char(item.code)
      local where, value = core.hex(vib) .. ": " .. row, meaning(rule, item.n)
      local r = record(vib, "\x04", "\1\0\0\0")
      assert.are.same({ quantity, unit ~= "-" and unit or nil }, { r.quantity, r.unit }, where)
      if IS_NUMBER[data] then assert.are.equal(value(1), r.value, where) end
      DATA[data](vib, value)
      count = count + 1
    end
  end
  return count
end

describe("the VIF tables", function()
  it("are those of the standard: table 10, primary", function() assert.are.equal(127, check("", PRIMARY)) end)
  it("table 14, FB", function() assert.are.equal(128, check("\xFB", FB)) end)
  it("table 12, FD", function() assert.are.equal(127, check("\xFD", FD)) end)
  it("table 13, FD FD", function() assert.are.equal(128, check("\xFD\xFD", FDFD)) end)
end)

-- ------------------------------------------------------------------ VIFE

-- code, name, what it does: a suffix of the unit, a power of ten, a sum, or what the data becomes
local COMBINABLE = [[
12 average
13 inverse_compact_profile        profile
14 relative_deviation
1D standard_conform_data
1E compact_profile_with_registers profile
1F compact_profile                profile
20 per_second                     /s
21 per_minute                     /min
22 per_hour                       /h
23 per_day                        /d
24 per_week                       /week
25 per_month                      /month
26 per_year                       /year
27 per_revolution                 /rev
28 per_input_pulse_0              /input_pulse_0
29 per_input_pulse_1              /input_pulse_1
2A per_output_pulse_0             /output_pulse_0
2B per_output_pulse_1             /output_pulse_1
2C per_litre                      /l
2D per_m3                         /m3
2E per_kg                         /kg
2F per_kelvin                     /K
30 per_kwh                        /kWh
31 per_gj                         /GJ
32 per_kw                         /kW
33 per_kelvin_litre               /(K*l)
34 per_volt                       /V
35 per_ampere                     /A
36 multiplied_by_s                *s
37 multiplied_by_s_per_v          *s/V
38 multiplied_by_s_per_a          *s/A
39 start_of                       date
3A uncorrected
3B forward_only
3C backward_only
3D non_metric                     non-metric
3E at_base_conditions
3F obis_declaration               raw
40 lower_limit
41 lower_limit_exceed_count           count
42 begin_of_first_lower_limit_exceed  date
43 end_of_first_lower_limit_exceed    date
46 begin_of_last_lower_limit_exceed   date
47 end_of_last_lower_limit_exceed     date
48 upper_limit
49 upper_limit_exceed_count           count
4A begin_of_first_upper_limit_exceed  date
4B end_of_first_upper_limit_exceed    date
4E begin_of_last_upper_limit_exceed   date
4F end_of_last_upper_limit_exceed     date
50 duration_of_first_lower_limit_exceed s
51 duration_of_first_lower_limit_exceed min
52 duration_of_first_lower_limit_exceed h
53 duration_of_first_lower_limit_exceed d
54 duration_of_last_lower_limit_exceed  s
55 duration_of_last_lower_limit_exceed  min
56 duration_of_last_lower_limit_exceed  h
57 duration_of_last_lower_limit_exceed  d
58 duration_of_first_upper_limit_exceed s
59 duration_of_first_upper_limit_exceed min
5A duration_of_first_upper_limit_exceed h
5B duration_of_first_upper_limit_exceed d
5C duration_of_last_upper_limit_exceed  s
5D duration_of_last_upper_limit_exceed  min
5E duration_of_last_upper_limit_exceed  h
5F duration_of_last_upper_limit_exceed  d
60 duration_of_first s
61 duration_of_first min
62 duration_of_first h
63 duration_of_first d
64 duration_of_last  s
65 duration_of_last  min
66 duration_of_last  h
67 duration_of_last  d
68 value_during_lower_limit_exceed
69 leakage
6A begin_of_first date
6B end_of_first   date
6C value_during_upper_limit_exceed
6D overflow
6E begin_of_last  date
6F end_of_last    date
70 multiplied_1e-6 1e-6
71 multiplied_1e-5 1e-5
72 multiplied_1e-4 1e-4
73 multiplied_1e-3 1e-3
74 multiplied_1e-2 1e-2
75 multiplied_1e-1 1e-1
76 multiplied_1e0  1e0
77 multiplied_1e1  1e1
78 added_1e-3 +0.001
79 added_1e-2 +0.01
7A added_1e-1 +0.1
7B added_1e0  +1
7D multiplied_1e3 1e3
7E future_value
]]

local PHASES = { [0x01] = "at_phase_l1", [0x02] = "at_phase_l2", [0x03] = "at_phase_l3", [0x04] = "at_neutral", [0x05] = "between_l1_l2",
  [0x06] = "between_l2_l3", [0x07] = "between_l3_l1", [0x08] = "at_quadrant_q1", [0x09] = "at_quadrant_q2", [0x0A] = "at_quadrant_q3",
  [0x0B] = "at_quadrant_q4", [0x0C] = "delta_import_export", [0x10] = "accumulation_absolute", [0x11] = "unsigned", [0x12] = "bit_field",
  [0x14] = "to_meter", [0x15] = "from_meter" }

local RECORD_ERRORS = { "too_many_dife", "storage_number_not_implemented", "subunit_not_implemented", "tariff_not_implemented",
  "function_not_implemented", "data_class_not_implemented", "data_size_not_implemented", "reserved_08", "reserved_09", "reserved_0a",
  "too_many_vife", "illegal_vif_group", "illegal_vif_exponent", "vif_dif_mismatch", "action_not_implemented",
  [0x15] = "no_data_available", [0x16] = "data_overflow", [0x17] = "data_underflow", [0x18] = "data_error", [0x1C] = "premature_end_of_record" }

local ACTIONS = { [0] = "write", "add", "subtract", "or", "and", "xor", "and_not", "clear", "add_entry", "delete_entry", "delayed_action",
  "freeze", "add_to_readout_list", "delete_from_readout_list", "reserved_0e", "reserved_0f" }

---Three W (VIF 2B) with one VIFE.
local function three_watts(code) return record("\xAB" .. string.char(code), "\x04", "\3\0\0\0") end

local function modifier(code)
  local list = three_watts(code).modifiers
  assert.is_true(#list <= 1)
  return list[1]
end

describe("the combinable VIFE of table 15", function()
  local named = {}
  for code, name, effect in COMBINABLE:gmatch "(%x%x) +(%S+) *(%S*)\n" do named[tonumber(code, 16)] = { name = name, effect = effect } end

  it("have their names, and the rest is reserved", function()
    for code = 0x20, 0x7E do
      local want = named[code] and named[code].name or ("reserved_%02x"):format(code)
      assert.are.equal(want, modifier(code), ("%02X"):format(code))
    end
    assert.are.equal("manufacturer_specific", modifier(0x7F))
    for _, code in ipairs { 0x10, 0x11, 0x12, 0x14, 0x19, 0x1A, 0x1B, 0x1D } do
      assert.are.equal(named[code] and named[code].name or ("reserved_%02x"):format(code), modifier(code))
    end
    for _, code in ipairs { 0x13, 0x1E, 0x1F } do assert.are.equal(named[code].name, modifier(code)) end
  end)

  it("of a master are named so where a slave's are record errors", function()
    for code = 0x10, 0x1F do
      local vife = string.char(code)
      local t = core.telegram(core.long(0x53, 1, 0x51, "\x04\xAB" .. vife .. "\3\0\0\0\x0D\xAB" .. vife .. "\3cba"))
      local want = named[code] and named[code].name or ("reserved_%02x"):format(code)
      local number, text = t:record(0), t:record(1)
      assert.are.same({ want }, { table.unpack(number.modifiers) })
      assert.are.same({ 3, "W" }, { number.value, number.unit }, want)
      assert.is_nil(number.error)
      local is_profile = named[code] and named[code].effect == "profile"
      assert.are.same(is_profile and { "636261", "bytes" } or { "abc", "string" }, { text.value, text.type }, want)
    end
  end)

  it("have their effect on value and unit", function()
    for code, row in pairs(named) do
      local effect, where = row.effect, ("%02X %s"):format(code, row.name)
      local r = three_watts(code)
      if effect == "" then
        assert.are.same({ 3, "W" }, { r.value, r.unit }, where)
      elseif effect:find "^[/*]" then
        assert.are.same({ 3, "W" .. effect }, { r.value, r.unit }, where)
      elseif effect:find "^%+" then
        assert.are.same({ 3 + tonumber(effect:sub(2)), "W" }, { r.value, r.unit }, where)
      elseif SECONDS[effect] then
        assert.are.same({ 3 * SECONDS[effect], "s" }, { r.value, r.unit }, where)
      elseif effect == "count" then
        assert.are.same({ 3, nil }, { r.value, r.unit }, where)
      elseif effect == "non-metric" then
        assert.are.same({ 3, "non-metric(W)" }, { r.value, r.unit }, where)
      elseif effect == "date" then
        assert.is_nil(r.unit, where)
        assert.are.same({ "2024-12-31", "date", "" }, { seen("\xAB" .. string.char(code), "\x02", "\x1F\x3C") }, where)
        assert.are.same({ "13:45:30", "time", "" }, { seen("\xAB" .. string.char(code), "\x03", "\x1E\x2D\x0D") }, where)
      elseif effect == "raw" or effect == "profile" then
        assert.are.same({ "616263", "bytes", "" }, { seen("\xAB" .. string.char(code), "\x0D", "\3abc") }, where)
      else
        assert.are.same({ tonumber(("3" .. effect:sub(2))), "W" }, { r.value, r.unit }, where)
      end
    end
  end)

  it("that are reserved change neither value nor unit", function()
    for code = 0, 0x7E do
      if not named[code] and not RECORD_ERRORS[code] then
        assert.are.same({ 3, "W" }, { three_watts(code).value, three_watts(code).unit }, ("%02X"):format(code))
      end
    end
  end)

  it("leave a text a text", function()
    for code = 0, 0x7E do
      local effect = named[code] and named[code].effect
      if effect ~= "raw" and effect ~= "profile" and not RECORD_ERRORS[code] then
        local flag = effect == "date" and "data_field_mismatch" or ""
        assert.are.same({ "abc", "string", flag }, { seen("\xAB" .. string.char(code), "\x0D", "\3cba") }, ("%02X"):format(code))
      end
    end
  end)

  it("stand behind the VIF of each table", function()
    for _, pointer in ipairs { "", "\xFB", "\xFD", "\xFD\xFD" } do
      for code = 0x20, 0x2F do
        local r = record(pointer .. string.char(0x80 | code) .. "\xBB\x22", "\x04", "\3\0\0\0")
        assert.are.same({ "forward_only", "per_hour" }, { table.unpack(r.modifiers) }, core.hex(pointer) .. (" %02X"):format(code))
      end
    end
  end)

  it("leave the exponent of the VIF to a value, and take it from a count, a duration and a date", function()
    assert.are.equal(300, record("\xAD\x20", "\x01", "\3").value)
    assert.are.equal(3, record("\xAD\x41", "\x01", "\3").value)
    assert.are.equal(180, record("\xAD\x51", "\x01", "\3").value)
    assert.are.equal(-180, record("\xAD\x51", "\x01", "\xFD").value)
    assert.are.equal(253 * 60, record("\xFB\x98\x51", "\x01", "\xFD").value) -- an unsigned VIF stays so
    assert.are.equal(2, record("\xAE\xC2\xC1\x41", "\x01", "\2").value)
  end)

  it("add up", function()
    assert.are.equal(30.011, record("\xAB\xF7\xF9\x78", "\x01", "\3").value)
    assert.are.equal(-1.9, record("\xAB\x7A", "\x01", "\xFE").value)
    assert.are.equal(0.8, record("\xAB\xFB\xF5\x75", "\x01", "\xEC").value) -- 1 - 20 / 100
    assert.are.equal("0.800", core.decimal(record("\xAB\xFB\xF5\x75", "\x01", "\xEC")))
  end)

  it("behind the maker's own are the maker's", function()
    local r = record("\xAB\xFF\xF3\x22", "\x01", "\3")
    assert.are.same({ 3, "W", "manufacturer_specific" }, { r.value, r.unit, table.concat(r.modifiers, " ") })
    assert.are.same({ "opaque" }, { table.unpack(r.flags) })
  end)
end)

describe("the VIFE behind FC (table 16)", function()
  it("have their names", function()
    for code = 0, 0x7F do
      local r = record("\xAB\xFC" .. string.char(code), "\x04", "\3\0\0\0")
      assert.are.same({ PHASES[code] or "reserved" }, { table.unpack(r.modifiers) }, ("%02X"):format(code))
      assert.are.same({ 3, "W" }, { r.value, r.unit })
    end
  end)

  it("make data unsigned or a bit field", function()
    for _, vib in ipairs { "\x93\xFC\x92\x60", "\x93\xE0\xFC\x12", "\x93\xFC\x91\x60" } do -- in any order
      assert.are.equal(240, record(vib, "\x01", "\xF0").value)
    end
    assert.are.same({ 254, "number", "" }, { seen("\xAB\xFC\x11", "\x01", "\xFE") })
    assert.are.same({ nil, "number", "value_invalid" }, { seen("\xAB\xFC\x11", "\x01", "\xFF") })
    assert.are.same({ 255, "number", "" }, { seen("\xAB\xFC\x12", "\x01", "\xFF") })
    assert.are.same({ "2024-12-31", "date", "" }, { seen("\xEC\xFC\x11", "\x02", "\x1F\x3C") }) -- but no date
  end)

  it("are taken in pairs", function()
    local r = record("\xAB\xFC\x81\xFC\x94\x22", "\x01", "\3")
    assert.are.same({ "W/h", "at_phase_l1 to_meter per_hour" }, { r.unit, table.concat(r.modifiers, " ") })
  end)
end)

describe("the VIFE 00 to 1F", function()
  it("of a meter are record errors", function()
    for code = 0, 0x1F do
      local r = three_watts(code)
      assert.are.same({ RECORD_ERRORS[code] or "none", "W" }, { r.error or "none", r.unit }, ("%02X"):format(code))
      if RECORD_ERRORS[code] then assert.is_nil(r.value) end
    end
  end)

  it("of a master are actions", function()
    for code = 0, 0x0F do
      local none = code == 0x0C or code == 0x0D -- they carry no data
      local t = core.telegram(core.long(0x53, 1, 0x51, "\x04\xAB" .. string.char(code) .. (none and "" or "\3\0\0\0") .. "\x01\x13\5"))
      assert.are.equal(2, #t)
      assert.are.equal(ACTIONS[code], t:record(0).action)
      assert.is_nil(t:record(0).error)
      if not none then assert.are.equal(3, t:record(0).value) end
    end
  end)
end)

describe("every modifier, error and action", function()
  it("is written by its name", function()
    for code, _, effect in COMBINABLE:gmatch "(%x%x) +(%S+) *(%S*)\n" do
      local vife, date = string.char(tonumber(code, 16)), effect == "date"
      if effect ~= "profile" and effect ~= "raw" then
        local r = record("\xAB" .. vife, date and "\x02" or "\x01", date and "\x1F\x3C" or "\3")
        r.raw, r.raw_dif_hex, r.raw_vif_hex, r.raw_data_hex = effect:find "^%+" and r.raw or nil, nil, nil, nil
        r.data = date and "date" or "int8"
        r.unit = SECONDS[effect] and effect or r.unit
        local scaled = not (date or effect == "count" or SECONDS[effect]) -- else any power of ten will do: the first
        assert.are.equal(("%s %s %s %s"):format(date and "02" or "01", scaled and "AB" or "A8", code, date and "1F 3C" or "03"), core.hex(core.record(r)))
      end
    end
    for code, name in pairs(PHASES) do
      local data = core.record { quantity = "power", unit = "W", exponent = 0, value = 3, data = "int8", modifiers = { name } }
      assert.are.equal("01 AB FC " .. ("%02X"):format(code) .. " 03", core.hex(data))
    end
    for code, name in pairs(ACTIONS) do
      if code ~= 0x0C and code ~= 0x0D then
        local data = core.record { quantity = "power", unit = "W", exponent = 0, value = 3, data = "int8", action = name }
        assert.are.equal(("01 AB %02X 03"):format(code), core.hex(data))
      end
    end
  end)
end)
