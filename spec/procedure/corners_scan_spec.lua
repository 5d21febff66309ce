-- Scans of lines that no simulator has, driven by hand: answers that belong to earlier requests, acknowledgements of nobody,
-- meters that change their mind. And masks that are asked together where a line loses answers, or invents some.
local core = require "mbus.core"
local dkjson = require "dkjson"
local mbus = require "mbus"
local Random = require "mbus.simulator.random"
local by_hand = require "spec.procedure.by_hand"

local BROADCAST, SELECTED = 0xFF, 0xFD
local ACK, COLLISION = "\xE5", { { 0.05, "\x59", 1 } } -- one damaged character, and the receiver has seen it

local RECORDS = "\x01\x13\x05"

-- A bus as `play` wants it: news are noted at once.
local function listening(bus, note)
  local now
  local function wants()
    local what, argument, err = bus:wants()
    while what == "event" do
      note(argument.name, argument.value)
      bus:feed("", now or 0)
      what, argument, err = bus:wants()
    end
    return what, argument, err
  end
  local function feed(_, bytes, time, errors)
    now = time
    bus:feed(bytes, time, errors)
  end
  return { wants = wants, feed = feed }
end

-- What a state file does to a state.
local function stored(state) return assert(dkjson.decode((dkjson.encode(state)))) end

---Scans to the end, or until so many frames are sent.
---@param answer fun(frame: table): string|table|nil
---@param options table
---@param limit? integer
---@return table done  result, found, state, sent (frames)
local function scan(answer, options, limit)
  local bus, done, last = assert(mbus.open "manual:"), { found = {}, sent = {} }, nil
  assert(bus:begin("scan", options))
  local function note(name, value)
    if name == "save" then last = limit and stored(value) or value end
    if name ~= "found" then return end
    local kind = value.collision and " collision" or value.error and " " .. value.error.kind or ""
    table.insert(done.found, value.address .. kind)
  end
  done.result, done.err = by_hand.play(listening(bus, note), function(bytes)
    local frame = assert(core.frame(bytes))
    table.insert(done.sent, frame)
    if #done.sent == limit then bus:abort() end
    return answer(frame)
  end)
  table.sort(done.found)
  done.state = last and stored(last)
  return done
end

local function kind_of(frame)
  if frame.type == "long" then return "select" end
  return frame.c == 0x40 and "reset" or "ask"
end

---The mask that a selection holds.
local function mask_of(frame)
  local bytes = frame.data
  return core.hex(bytes:sub(1, 4):reverse() .. bytes:sub(5, 8), "")
end

-- Any digit of a number may be open, of the rest whole bytes.
local function is_meant(mask, address)
  local pattern = mask:sub(1, 8):gsub("F", ".") .. mask:sub(9):gsub("%x%x", { FF = ".." })
  return address:find("^" .. pattern .. "$") ~= nil
end

describe("a primary scan", function()
  it("finds a meter whose first acknowledgement is spoilt", function()
    local count = 0
    local done = scan(function(frame)
      if frame.a ~= 5 then return nil end
      count = count + 1
      if kind_of(frame) == "ask" then return by_hand.answer(5, "12345678", 1, RECORDS) end
      return count == 1 and "\x3A" or ACK
    end, { range = "4-6" })
    assert.same({ "5" }, done.found)
    assert.is_true(done.result.complete)
  end)

  it("that asks for data at once tells a spoilt answer from a collision, and from no data", function()
    local function answers(...)
      local list, count = { ... }, 0
      local done = scan(function(frame)
        assert.equal("ask", kind_of(frame))
        if frame.a == 5 then count = count + 1 end
        return frame.a == 5 and list[math.min(count, #list)] or nil
      end, { range = "4-6", probe = "req" })
      return { done.found[1], #done.found, done.result.complete }
    end
    local data = by_hand.answer(5, "12345678", 1, RECORDS)
    assert.same({ "5", 1, true }, answers(data))
    assert.same({ "5", 1, true }, answers(COLLISION, data))
    assert.same({ "5 collision", 1, false }, answers(COLLISION))
    assert.same({ "5 rejected", 1, true }, answers(ACK))
    assert.same({ "5 mismatch", 1, true }, answers((by_hand.answer(6, "12345678", 1, RECORDS))))
  end)

  it("sees a collision where damaged characters are told of, and kept back", function()
    for _, probe in ipairs { "nke", "req" } do
      local done = scan(function(frame) return frame.a == 5 and { { 0.05, "", 2 } } or nil end, { range = "4-6", probe = probe })
      assert.same({ { "5 collision" }, { 5 }, false }, { done.found, done.result.collisions, done.result.complete })
    end
    local done = scan(function(frame) return kind_of(frame) == "select" and { { 0.05, "", 2 } } or nil end, { secondary = true })
    assert.is_false(done.result.complete)
  end)

  it("does not take acknowledgements that cease for a meter", function()
    local count = 0
    local done = scan(function(frame)
      if kind_of(frame) ~= "reset" or frame.a ~= 5 then return nil end
      count = count + 1
      return count <= 2 and ACK or nil
    end, { range = "4-6" })
    assert.same({ {}, 0, {} }, { done.found, done.result.found, done.result.collisions })
    assert.matches("longer margin", done.result.remarks[1])
  end)

  it("does not call an address free where data come, asked for or not", function()
    local done = scan(function(frame) return frame.a == 5 and by_hand.answer(5, "12345678", 1, RECORDS) or nil end, { range = "4-6" })
    assert.same({ "5 collision" }, done.found)
    assert.is_false(done.result.complete)
  end)
end)

describe("the traceback of a bug in a scan", function()
  it("is kept", function()
    local procedure = require "mbus.procedure.scan"
    local _, plan = procedure.prepare(1, { range = 5 })
    local link = { settings = { baudrate = 2400, timeout = 0.2 }, now = function() return 0 end }
    function link.report() error "a bug" end
    local ok, err = pcall(procedure.run, link, plan)
    assert.is_false(ok)
    assert.matches("a bug.*traceback.*in method 'report'.*primary%.lua", err)
  end)
end)

-- A meter that is selected as the standard says; `data(meter, frame)` is what it sends.
local function selectable(address, data)
  local meter = { address = address }
  return function(frame)
    if kind_of(frame) == "select" then
      meter.selected = is_meant(mask_of(frame), address)
      return meter.selected and ACK or nil
    end
    if frame.a == SELECTED and kind_of(frame) == "reset" then meter.selected = false end
    if frame.a == BROADCAST then meter.was_reset = true end
    return kind_of(frame) == "ask" and meter.selected and data(meter, frame) or nil
  end
end

describe("a secondary scan", function()
  it("gives up where every selection brings noise", function()
    local selections = 0
    local done = scan(function(frame)
      if kind_of(frame) == "select" then selections = selections + 1 end
      return kind_of(frame) == "select" and COLLISION or nil
    end, { secondary = true })
    assert.is_nil(done.err)
    assert.is_false(done.result.complete)
    assert.equal(0, done.result.found)
    assert.matches("given up", table.concat(done.result.remarks, "\n"))
    assert.same({ ("F"):rep(16) }, done.result.unaccounted)
    assert.is_true(selections <= 2500, selections)
  end)

  it("takes data after every selection for somebody who is not to be told apart", function()
    local done = scan(function(frame)
      return kind_of(frame) == "select" and mask_of(frame) == "1234567824232804" and by_hand.answer(5, "12345678", 1, RECORDS) or nil
    end, { secondary = true, mask = "1234567824232804" })
    assert.same({ "1234567824232804 collision" }, done.found)
    assert.is_false(done.result.complete)
  end)

  it("knows a meter that gives no identification where its number was asked for", function()
    local function short() return core.long(0x08, 5, 0x78, RECORDS) end
    local done = scan(selectable("1234567824232804", short), { secondary = true, mask = "12345678" })
    assert.same({ "12345678FFFFFFFF" }, done.found)
    assert.is_true(done.result.complete)
  end)

  it("finds a meter that sends its data after SND_NKE to all alone", function()
    local function data(meter) return meter.was_reset and by_hand.answer(5, "12345678", 1, RECORDS) or nil end
    local done = scan(selectable("1234567824232804", data), { secondary = true })
    assert.same({ "1234567824232804" }, done.found)
    assert.is_true(done.result.complete)
  end)

  it("reports meters with the same fabrication number as a collision", function()
    local FABRICATION = "87654321"
    local done = scan(function(frame)
      if kind_of(frame) ~= "select" or mask_of(frame) ~= "1234567824232804" then return nil end
      local number = frame.data:sub(9)
      if number == "" then return COLLISION end
      assert.equal("\x0C\x78", number:sub(1, 2))
      return is_meant(core.hex(number:sub(3):reverse(), ""), FABRICATION) and COLLISION or nil
    end, { secondary = true, mask = "1234567824232804" })
    assert.same({ "1234567824232804 collision" }, done.found)
    assert.is_false(done.result.complete)
    assert.same({}, done.result.unaccounted)
  end)
end)

local function answer_of(address)
  local bytes = assert(core.unhex(address))
  return core.long(0x08, 5, 0x72, bytes:sub(1, 4):reverse() .. bytes:sub(5) .. "\1\0\0\0" .. RECORDS)
end

-- A street of meters. `spoil(mask, count, selected)` may bring something else than the acknowledgements of those that are selected,
-- for the count-th time by this mask; `data` holds answers that are not the usual ones, by address.
local function street(addresses, spoil, data)
  local selected, counts = {}, {}
  local function select(frame)
    local mask = mask_of(frame)
    selected = {}
    for _, address in ipairs(addresses) do
      if is_meant(mask, address) then table.insert(selected, address) end
    end
    counts[mask] = (counts[mask] or 0) + 1
    local other = spoil and spoil(mask, counts[mask], selected)
    if other then return other ~= "nothing" and other or nil end
    return #selected == 1 and ACK or #selected > 1 and COLLISION or nil
  end
  return function(frame)
    if kind_of(frame) == "select" then return select(frame) end
    if kind_of(frame) == "reset" then selected = {} end
    if #selected > 1 then return COLLISION end
    local address = selected[1]
    return address and (data and data[address] or answer_of(address)) or nil
  end
end

-- Does what was found, or reported, hold each of these addresses?
local function is_accounted(done, address)
  for _, found in ipairs(done.found) do
    if is_meant(found:sub(1, 16), address) then return true end
  end
  for _, mask in ipairs(done.result.unaccounted) do
    if is_meant(mask, address) then return true end
  end
  return false
end

describe("equal identification numbers", function()
  it("are a collision where meters do not look at what else a selection holds", function()
    for at = 9, 17, 8 do -- manufacturer, version and medium; the fabrication number
      local mine = { "1234567824232804", "1234567824232804", "2234567824232804", "2234567924232804" }
      local answer, selections = street(mine), 0
      local done = scan(function(frame)
        if kind_of(frame) ~= "select" then return answer(frame) end
        selections = selections + 1
        return answer(at == 9 and { type = "long", data = frame.data:sub(1, 4) .. ("\xFF"):rep(4) } or frame)
      end, { secondary = true })
      local address = at == 9 and "12345678FFFFFFFF" or "1234567824232804"
      assert.same({ address .. " collision", "2234567824232804", "2234567924232804" }, done.found)
      assert.same({}, done.result.unaccounted)
      assert.is_true(selections < 1200, selections)
    end
  end)

  it("do not end the search where they cannot be followed", function()
    local random = Random.new(1)
    local mine = { "1234567824232804", "1234567824232804", "2234567924232804", "2234567724232804" }
    local done = scan(street(mine, function(mask)
      return mask:find "^12345678" and random:number() < 0.5 and COLLISION or nil
    end), { secondary = true })
    assert.same({ "2234567724232804", "2234567924232804" }, done.found)
    assert.same({ "12345678FFFFFFFF" }, done.result.unaccounted)
    assert.same({}, done.result.remarks)
  end)
end)

describe("a secondary scan of a noisy line", function()
  local MINE = { "1234561124232804", "1234561224232804", "1234561224232804", "9934561224232804" }

  it("ends, invents nothing, and reports what it has not found", function()
    for _, noise in ipairs { { ACK }, { COLLISION }, { ACK, COLLISION } } do
      for _, likely in ipairs { 0.05, 0.2, 0.5, 0.8, 0.97 } do
        local random, selections = Random.new(likely * 100 // 1 | 0), 0
        local done = scan(street(MINE, function()
          selections = selections + 1
          return random:number() < likely and noise[1 + random:number() * #noise // 1 | 0] or nil
        end), { secondary = true })
        local message = ("%d kinds of noise, %g"):format(#noise, likely)
        assert.is_nil(done.err)
        assert.is_true(selections < 4 * 2500, message)
        for _, found in ipairs(done.found) do assert.matches("^[19][29]345612?.24232804", found, message) end
        for _, address in ipairs(MINE) do assert.is_true(is_accounted(done, address), message) end
      end
    end
  end)
end)

describe("masks that are asked together", function()
  -- Two by two alike in their last digit. Of the last but one, 1 is that of two meters, 2 and 3 that of one.
  local ADDRESSES = { "1234561124232804", "1234561224232804", "1234562124232804", "1234563224232804" }
  local WHOLE = { "1234561124232804", "1234561224232804", "1234562124232804", "1234563224232804" }

  local function common(digit) return ("FFFFFF%dFFFFFFFFF"):format(digit) end

  local function is_common(mask) return mask:find "^FFFFFF%dF" ~= nil end

  local function search(spoil, options, limit)
    options = options or {}
    options.secondary = true
    return scan(street(ADDRESSES, spoil), options, limit)
  end

  ---Spoils the first selection of each of these masks.
  local function first(masks, what)
    return function(mask, count) return masks[mask] and count == 1 and what or nil end
  end

  it("find all in fewer selections", function()
    local asked = {}
    local done = search(function(mask) asked[#asked + 1] = mask end)
    assert.same(WHOLE, done.found)
    assert.is_true(done.result.complete)
    -- All, ten last digits, ten last but one digits of both crowds at once, of which one shows two meters: one by one.
    assert.equal(1 + 10 + 10 + 2, #asked)
    for digit = 0, 9 do assert.equal(common(digit), asked[12 + digit]) end
    for mask in pairs(done.state.nodes) do assert.is_false(is_common(mask)) end -- they are of no use any more
  end)

  ---Scans; returns the masks that were asked, too.
  local function asked_by(addresses, options, data, collision)
    local asked = {}
    options.secondary = true
    local done = scan(street(addresses, function(mask, _, selected)
      asked[mask] = true
      return #selected > 1 and collision or nil
    end, data), options)
    return asked, done
  end

  local function none_is_common(asked)
    for mask in pairs(asked) do assert.is_false(is_common(mask), mask) end
  end

  it("are two and more, and each shows several", function()
    local asked, done = asked_by({ ADDRESSES[1], ADDRESSES[3] }, {})
    none_is_common(asked)
    assert.same({ ADDRESSES[1], ADDRESSES[3] }, done.found)
    local mute = "1234564324232804"
    asked, done = asked_by({ mute, table.unpack(ADDRESSES) }, {}, { [mute] = "" })
    none_is_common(asked)
    assert.equal(5, #done.found)
    assert.is_true(done.result.complete)
  end)

  it("are split by a digit of the identification number alone", function()
    local all = { "1234567124232804", "1234567124232807", "1234567224232804", "1234567224232807" }
    local asked, done = asked_by(all, { mask = "1234567F" })
    for mask in pairs(asked) do assert.is_true(mask:sub(9) == "FFFFFFFF" or not mask:sub(1, 8):find "F", mask) end
    assert.same(all, done.found)
    assert.is_true(done.result.complete)
  end)

  it("are not asked as long as collisions have not shown themselves", function()
    local asked, done = asked_by(ADDRESSES, {}, nil, "\x3A") -- as likely noise
    none_is_common(asked)
    assert.same(WHOLE, done.found)
  end)

  it("do not lose a meter whose answer is lost there", function()
    for digit = 1, 3 do
      local done = search(first({ [common(digit)] = true }, "nothing"))
      assert.same(WHOLE, done.found, digit)
      assert.is_true(done.result.complete, digit)
    end
    local done = search(first({ [common(1)] = true, [common(2)] = true, [common(3)] = true }, "nothing"))
    assert.same(WHOLE, done.found)
    assert.is_true(done.result.complete)
  end)

  it("do not lose a meter that is not heard beside another one", function()
    for i = 1, 2 do
      local done = search(function(mask, count, selected)
        if mask ~= common(1) or count > 1 then return nil end
        table.remove(selected, i)
        return ACK
      end)
      assert.same(WHOLE, done.found, i)
      assert.is_true(done.result.complete, i)
    end
  end)

  it("are not misled by noise", function()
    for digit = 0, 9 do
      local done = search(first({ [common(digit)] = true }, COLLISION))
      assert.same(WHOLE, done.found, digit)
      assert.is_true(done.result.complete, digit)
    end
    local done = search(function(mask) return is_common(mask) and COLLISION or nil end)
    assert.same(WHOLE, done.found)
    assert.is_true(done.result.complete)
  end)

  it("do not believe an acknowledgement of nobody", function()
    for _, digit in ipairs { 0, 4, 9 } do
      for times = 1, 4 do
        local done = search(function(mask, count) return mask == common(digit) and count <= times and ACK or nil end)
        assert.same(WHOLE, done.found, ("%d: %d"):format(digit, times))
        if times == 1 then assert.matches("after the answer window", table.concat(done.result.remarks)) end -- it may have been late
      end
    end
  end)

  it("are right where the answer to one comes in the window of the next", function()
    for digit = 1, 3 do
      local done = search(first({ [common(digit)] = true }, { { 0.45, ACK } }))
      assert.same(WHOLE, done.found, digit)
    end
  end)

  it("are not asked where somebody answers who was found before", function()
    local all, asked = table.move(ADDRESSES, 1, 4, 2, { "1234562324232804" }), {} -- alone in its last digit
    local done = scan(street(all, function(mask) asked[mask] = true end), { secondary = true })
    table.sort(all)
    assert.same(all, done.found)
    assert.is_true(done.result.complete)
    for digit = 0, 9 do assert.equal(digit ~= 2 or nil, asked[common(digit)], digit) end
  end)

  it("find a meter whose answer does not hold its secondary address", function()
    local fixed = core.long(0x08, 5, 0x73, "\x21\x56\x34\x12\1\0\xE9\x7E\1\0\0\0\x35\1\0\0")
    local done = scan(street(ADDRESSES, nil, { ["1234562124232804"] = fixed }), { secondary = true })
    assert.same({ "1234561124232804", "1234561224232804", "12345621FFFFFFFF", "1234563224232804" }, done.found)
    assert.is_true(done.result.complete)
  end)

  it("do not lose a meter that sends no data", function()
    local done = scan(street(ADDRESSES, nil, { ["1234562124232804"] = "" }), { secondary = true })
    assert.same({ "1234561124232804", "1234561224232804", "12345621FFFFFFFF timeout", "1234563224232804" }, done.found)
    assert.is_true(done.result.complete)
  end)

  it("go on where an interruption was in the middle of them", function()
    local whole, inside = search(), 0
    for limit = 1, #whole.sent do
      local part = search(nil, nil, limit)
      assert.is_false(part.result.complete)
      for mask in pairs(part.state and part.state.nodes or {}) do
        if is_common(mask) then inside = inside + 1 break end
      end
      local rest = search(nil, { resume = part.state })
      assert.same(WHOLE, rest.found, limit)
      assert.is_true(rest.result.complete, limit)
      assert.is_true(#part.sent + #rest.sent <= #whole.sent + 8, limit)
    end
    assert.is_true(inside > 10, inside)
  end)
end)
