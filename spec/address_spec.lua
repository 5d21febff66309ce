local address = require "mbus.address"
local core = require "mbus.core"

describe("mbus.address", function()
  it("reads primary addresses", function()
    for text, a in pairs { ["0"] = 0, ["005"] = 5, [" 17 "] = 17, ["250"] = 250, ["254"] = 254 } do
      assert.same({ a = a, text = a }, address.parse(text))
    end
    for _, a in ipairs { 0, 1, 250, 254 } do assert.same({ a = a, text = a }, address.parse(a)) end
    assert.equal(5, address.parse(5.0).a)
  end)

  it("reads secondary addresses", function()
    local one = address.parse "3189274724232804"
    assert.same({ a = 253, digits = "3189274724232804", wildcard = false, text = "3189274724232804" }, one)
    assert.equal("31892747FFFFFFFF", address.parse("31892747").digits)
    assert.is_true(address.parse("31892747").wildcard)
    assert.equal("0500023EFFFFFFFF", address.parse("0500023e").digits)
    assert.is_true(address.parse("318927F724232804").wildcard)
    assert.is_true(address.parse("31892747242328FF").wildcard)
    -- FF across two bytes is no wildcard
    assert.is_false(address.parse("312345672FF22804").wildcard)
  end)

  it("says what is wrong with an address", function()
    local wrong = {
      [""] = "it is empty", ["251"] = "251 is reserved", ["252"] = "252 is reserved",
      ["253"] = "253 means the meter selected before: give its secondary address instead",
      ["255"] = "255 is for everybody, and nobody answers it",
      ["256"] = "a primary address is 0 to 250, or 254 for any meter",
      ["-1"] = "a primary address is a number, a secondary one has 8 or 16 hex digits",
      ["five"] = "a primary address is a number, a secondary one has 8 or 16 hex digits",
      ["318927"] = "it has 6 digits; a primary address is a number, a secondary one has 8 or 16 hex digits",
      ["318927471"] = "it has 9 digits; a primary address is a number, a secondary one has 8 or 16 hex digits",
      ["3189274X"] = '"X" is no hex digit (F is the wildcard of secondary addresses)',
    }
    for text, reason in pairs(wrong) do
      local none, err = address.parse(text)
      assert.is_nil(none)
      assert.equal("invalid", err.kind)
      assert.equal(("bad address %q: %s"):format(text, reason), tostring(err))
    end
    assert.equal("invalid", select(2, address.parse(-1)).kind)
    assert.equal("invalid", select(2, address.parse(251)).kind)
    assert.equal('bad address "1.5": it is no whole number', tostring(select(2, address.parse(1.5))))
    assert.equal("invalid", select(2, address.parse(1 / 0)).kind)
  end)

  it("raises on what is no address at all", function()
    assert.has_error(function() address.parse({}) end, "an address is a number or a string, not table")
    assert.has_error(function() address.parse() end, "an address is a number or a string, not nil")
  end)

  it("puts the digits in the order of the wire", function()
    assert.equal("47 27 89 31 24 23 28 04", core.hex(address.bytes "3189274724232804"))
    assert.equal("F7 FF FF FF FF FF FF FF", core.hex(address.bytes "FFFFFFF7FFFFFFFF"))
  end)

  it("matches by digit in the number, and by byte behind it", function()
    local meter = "3189274724232804"
    for _, mask in ipairs { meter, "FFFFFFFFFFFFFFFF", "3FFFFFF7FFFFFF04", "31892747FF23FFFF" } do
      assert.is_true(address.matches(mask, meter), mask)
    end
    for _, mask in ipairs { "3189274924232804", "FFFFFFF8FFFFFFFF", "31892747FFFFFF07", "318927472F232804" } do
      assert.is_false(address.matches(mask, meter), mask)
    end
  end)
end)
