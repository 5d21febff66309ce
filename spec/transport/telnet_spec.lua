local telnet = require "mbus.transport.telnet"

-- Data, and a list of what was told.
local function decode(chunks)
  local told = {}
  local machine = telnet.new(function(verb, option) told[#told + 1] = verb .. " " .. option end,
    function(option, payload) told[#told + 1] = ("sub %d %s"):format(option, payload) end)
  local data = {}
  for _, chunk in ipairs(chunks) do data[#data + 1] = machine:feed(chunk) end
  return table.concat(data), told, machine
end

local STREAM = "ab\xFF\xFFc" .. "\xFF\xFD\x2C" .. "d\x00\x0D" .. "\xFF\xFA\x2C\x65x\xFF\xFFy\xFF\xF0" .. "\xFF\xF1e\xFF\xFC\x01\xFF\xFF"

describe("mbus.transport.telnet", function()
  it("tells data from commands, wherever the stream is cut", function()
    local data, told = decode { STREAM }
    assert.equal("ab\xFFcd\x00\x0De\xFF", data)
    assert.same({ "do 44", "sub 44 \x65x\xFFy", "wont 1" }, told)
    for first = 1, #STREAM - 1 do
      for second = first, #STREAM - 1, 5 do
        local got, what = decode { STREAM:sub(1, first), STREAM:sub(first + 1, second), STREAM:sub(second + 1) }
        assert.equal(data, got)
        assert.same(told, what)
      end
    end
    local bytes = {}
    for i = 1, #STREAM do bytes[i] = STREAM:sub(i, i) end
    assert.equal(data, (decode(bytes)))
  end)

  it("escapes what it decodes", function()
    local all = {}
    for byte = 0, 255 do all[#all + 1] = string.char(byte) end
    all = table.concat(all) .. ("\xFF"):rep(8)
    assert.equal(#all + 9, #telnet.escape(all))
    assert.equal(all, (decode { telnet.escape(all) }))
    assert.equal("\xFF\xFA\x2C\x01\xFF\xFF\xFF\xF0", telnet.subnegotiation(44, "\x01\xFF"))
    assert.same({ "sub 44 \x01\xFF" }, select(2, decode { telnet.subnegotiation(44, "\x01\xFF") }))
    assert.same({ "will 0" }, select(2, decode { telnet.option("will", 0) }))
  end)

  it("drops a subnegotiation that is too long, and goes on", function()
    local data, told, machine = decode { "a", "\xFF\xFA\x2C", ("x"):rep(1000000), "\xFF\xFF", ("y"):rep(10), "\xFF\xF0b" }
    assert.equal("ab", data)
    assert.same({}, told)
    assert.is_nil(machine.payload)
    local _, _, endless = decode { "\xFF\xFA", ("z"):rep(1000), ("\xFF\xFF"):rep(100000) }
    assert.same({}, endless.payload)
  end)

  it("survives what no server should send", function()
    local data, told = decode { "\xFF\xFA\xFF\xF0a", "\xFF\xFA\x2Cx\xFF\xFD\x00b", "\xFF\xF0c", "\xFF" }
    assert.equal("abc", data)
    assert.same({ "do 0" }, told)
  end)

  it("survives noise", function()
    math.randomseed(1)
    for _ = 1, 200 do
      local bytes = {}
      for i = 1, 300 do bytes[i] = string.char(math.random() < 0.3 and 0xFF or math.random(0xF0, 0xFF)) end
      local noise = table.concat(bytes)
      local data, told = decode { noise }
      local cut = math.random(1, 299)
      local again, told_again = decode { noise:sub(1, cut), noise:sub(cut + 1) }
      assert.equal(data, again)
      assert.same(told, told_again)
    end
  end)

  it("counts commands, and can forget data before one", function()
    local machine
    machine = telnet.new(function() machine:discard() end, function() end)
    assert.equal("new", machine:feed "old\xFF\xFD\x00new")
    assert.equal(1, machine.commands)
    assert.equal(0, select(3, decode { "no telnet" }).commands)
  end)
end)
