-- Bindings over a simulated bus: what they find, when they turn bad, how they are written.
local support = require "spec.gateway.support"

local function one_meter(bindings, telegrams, fields)
  local sim = support.sim { support.meter(5, { telegrams = telegrams }), support.meter(6) }
  local world = support.world { bus = sim }
  local connection = support.connection("bus", fields)
  connection.bindings = bindings
  local gateway, news, log = support.gateway(world, { connections = { connection } })
  gateway:start()
  world.clock.run(30)
  return gateway, news, world, sim, log
end

local TWO = {
  { records = { { quantity = "energy", unit = "Wh", value = 5000, exponent = 3, data = "int32" },
    { quantity = "datetime", data = "datetime", value = "2024-05-06T07:08" } }, manufacturer = "AA BB" },
  { records = { { quantity = "volume", unit = "m3", value = 1.5, exponent = -3, data = "int32" },
    { quantity = "energy", unit = "Wh", value = 7000, exponent = 3, data = "int32", tariff = 1 } } },
}

describe("a binding", function()
  it("finds its record by telegram and index, by id as libmbus counts, or by what it is", function()
    local gateway, news = one_meter({
      { name = "index", address = 5, telegram = 1, index = 0 },
      { name = "id", address = 5, id = 3 }, -- 0, 1, the manufacturer's data, 3
      { name = "find", address = 5, find = { quantity = "energy", tariff = 1 } },
      { name = "none", address = 5, id = 2 },
      { name = "beyond", address = 5, telegram = 0, index = 2 },
    }, TWO)
    assert.same({ 1.5, "m3", "good" }, { news[1].value, news[1].unit, news[1].quality })
    assert.same({ 1.5, 7000 }, { news[2].value, news[3].value })
    assert.matches("id 2 is data of the manufacturer", news[4].error)
    assert.matches("index 2 is beyond telegram 0, which has 2 records", news[5].error)
    assert.same({ "bad", nil }, { news[5].quality, news[5].value })
    assert.equal("2024-05-06T07:08:00", news[1].meter_time)
    assert.is_true(math.abs(news[1].time - gateway.clock.time()) < 31)
  end)

  it("turns bad when another record is at its place, and good when it is back", function()
    local gateway, news, world, sim = one_meter { { name = "e", address = 5, index = 0 }, { name = "x", address = 6, index = 0 } }
    local function show(record)
      local bytes = require("mbus.core").record(record)
      sim.meters[1].telegrams, sim.meters[1].description.telegrams = nil, nil
      local fresh = support.sim { support.meter(5, { telegrams = { { records = { record } } } }) }
      sim.meters[1] = fresh.meters[1]
      world.clock.run(world.clock.now() + 60)
      return support.of(news, "e")[#support.of(news, "e")], bytes
    end
    assert.equal(5000, support.of(news, "e")[1].value)
    local last = show { quantity = "power", unit = "W", value = 5, data = "int32" }
    assert.same({ "bad", nil }, { last.quality, last.value })
    assert.matches("another record is at its place: quantity power instead of quantity energy", last.error)
    last = show { quantity = "energy", unit = "Wh", value = 8, data = "int32", tariff = 2 }
    assert.matches("tariff 2 instead of tariff 0", last.error)
    last = show { quantity = "energy", unit = "Wh", value = 9000, data = "int32", exponent = 3 }
    assert.same({ 9000, "good" }, { last.value, last.quality })
    assert.is_nil(last.error)
    assert.equal("good", gateway:binding("x").quality)
  end)

  it("is bad from the start if the config says what the record is, and it is not", function()
    local _, news = one_meter { { name = "e", address = 5, index = 0, unit = "J" } }
    assert.matches("unit Wh instead of unit J", news[1].error)
  end)

  it("tells every poll, or changes beyond a dead band", function()
    local _, news, world, sim = one_meter { { name = "all", address = 5, index = 0 },
      { name = "change", address = 5, index = 0, report = "change" }, { name = "band", address = 5, index = 0, dead_band = 2000 } }
    for _, value in ipairs { 5000, 6000, 8000, 9000 } do
      sim.meters[1] = support.sim({ support.meter(5, { telegrams = { { records = { { quantity = "energy", unit = "Wh", value = value,
        exponent = 3, data = "int32" } } } } }) }).meters[1]
      world.clock.run(world.clock.now() + 60)
    end
    local function values(name)
      local list = {}
      for i, one in ipairs(support.of(news, name)) do list[i] = one.value end
      return list
    end
    assert.same({ 5000, 5000, 6000, 8000, 9000 }, values "all")
    assert.same({ 5000, 6000, 8000, 9000 }, values "change")
    assert.same({ 5000, 8000 }, values "band")
  end)

  it("says which address is not there", function()
    local _, news = one_meter { { name = "a", address = 99, index = 0 }, { name = "b", address = "12345678", index = 0 } }
    assert.equal('unavailable address "99"', news[1].error)
    assert.equal('unavailable address "12345678FFFFFFFF"', news[2].error)
  end)

  it("contains a function that raises, and a callback that does", function()
    local gateway, news, world = one_meter { { name = "bad", address = 5, index = 0, transformation = function() error "boom" end },
      { name = "good", address = 5, index = 0 } }
    gateway:on("value", function() error "callback" end)
    world.clock.run(200)
    assert.matches("boom", support.of(news, "bad")[1].error)
    assert.equal(5000, support.of(news, "good")[3].value)
  end)

  it("tells the other callbacks, too, when one takes itself back", function()
    local gateway, _, world = one_meter { { name = "e", address = 5, index = 0, report = "poll" } }
    local told, off = {}, nil
    off = gateway:on("value", function()
      told[#told + 1] = "first"
      off()
    end)
    gateway:on("value", function() told[#told + 1] = "second" end)
    world.clock.run(130)
    assert.same({ "first", "second", "second" }, { told[1], told[2], told[3] })
  end)
end)

describe("writing", function()
  local function writable(meter_fields, binding, fields, telegrams)
    local gateway, news, world, sim, log = one_meter({ binding, { name = "other", address = 6, index = 0 } }, telegrams, fields)
    for name, value in pairs(meter_fields or {}) do sim.meters[1][name] = value end
    local result
    local function write(name, value)
      result = nil
      world.clock.spawn(function() result = { gateway:write(name, value) } end)
      world.clock.run(world.clock.now() + 20)
      return table.unpack(result, 1, 2)
    end
    return write, sim, news, gateway, log
  end

  it("encodes the record as the meter reports it, through the transformation, and reads back", function()
    local write, sim, _, gateway = writable(nil, { name = "e", address = 5, index = 0, access = "RW",
      transformation = { type = "scaling", factor = 0.001, unit = "kWh" } })
    assert.same({ true }, { write("e", 12) })
    assert.same({ "04 06 0C 00 00 00" }, sim.meters[1].writes) -- int32, VIF 06: kWh
    assert.equal(12, gateway:binding("e").value)
  end)

  it("is refused by a meter that acknowledges and goes on showing the old value", function()
    local core = require "mbus.core"
    local data = core.unhex "05 00 00 00 43 04 01 04 00 00 00 00" .. "\x04\x06\x05\0\0\0"
    local write = writable(nil, { name = "e", address = 5, index = 0, access = "RW" }, nil,
      { { frame = core.hex(core.long(0x08, 5, 0x72, data)) } })
    local ok, err = write("e", 12000)
    assert.is_nil(ok)
    assert.same({ "rejected", "unchanged" }, { err.kind, err.code })
    assert.matches("shows 5000", tostring(err))
    assert.is_true((write("e", 5000)))
  end)

  -- What comes of writing `value` to a meter that acknowledges and always shows this record.
  local function written(record, value, binding)
    local core = require "mbus.core"
    binding = binding or {}
    binding.name, binding.address, binding.index, binding.access = "e", 5, 0, "RW"
    local write = writable(nil, binding, nil,
      { { frame = core.hex(core.long(0x08, 5, 0x72, core.unhex "05 00 00 00 43 04 01 04 00 00 00 00" .. record)) } })
    local ok, err = write("e", value)
    return ok or err.code
  end

  it("takes the last digit of a large counter as seriously as the first", function()
    local counter = "\x04\x03" .. ("<i4"):pack(12345678) -- Wh
    assert.equal("unchanged", written(counter, 12345679))
    assert.is_true(written(counter, 12345678))
    local tenths = "\x04\x12" .. ("<i4"):pack(123) -- 0.0001 m3
    assert.equal("unchanged", written(tenths, 0.0124))
    assert.is_true(written(tenths, 0.0123))
  end)

  it("knows that a real32 and a coarser meter show less than was written", function()
    local real = "\x05\x03" .. ("<f"):pack(0.1)
    assert.is_true(written(real, 0.1))
    assert.equal("unchanged", written(real, 0.1001))
    local kilo = { write = { vif = "03", data = "int32" } } -- Wh, shown as kWh
    assert.is_true(written("\x04\x06" .. ("<i4"):pack(12), 12345, kilo))
    assert.is_true(written("\x04\x06" .. ("<i4"):pack(12), 11999, kilo)) -- rounded up
    assert.equal("unchanged", written("\x04\x06" .. ("<i4"):pack(12), 13000, kilo))
  end)

  it("encodes it as the binding says", function()
    local write, sim = writable(nil, { name = "e", address = 5, access = "W", write = { vif = "FD17", data = "int8" } })
    assert.is_true((write("e", 3)))
    assert.same({ "01 FD 17 03" }, sim.meters[1].writes)
  end)

  it("refuses what cannot be written", function()
    local write, sim = writable(nil, { name = "e", address = 5, index = 0, access = "RW" }, { max_package_length = 12 })
    local ok, err = write("e", 1234)
    assert.is_nil(ok)
    assert.equal("invalid", err.kind)
    assert.matches("bus/e: ", tostring(err))
    ok, err = write("other", 5)
    assert.is_nil(ok)
    assert.matches("access is R", tostring(err))
    assert.same({}, sim.meters[1].writes)
  end)

  it("works from a callback of the same bus", function()
    local _, _, world, sim = one_meter { { name = "e", address = 5, index = 0, access = "RW" } }
    local gateway = support.gateway(world, { connections = { support.connection("bus", { bindings = {
      { name = "e", address = 5, index = 0, access = "RW" } } }) } })
    local done
    gateway:on("value", function(binding)
      if done == nil then
        done = false
        done = gateway:write(binding, 5000)
      end
    end)
    gateway:start()
    world.clock.run(world.clock.now() + 40)
    assert.is_true(done)
    assert.equal(1, #sim.meters[1].writes)
  end)
end)
