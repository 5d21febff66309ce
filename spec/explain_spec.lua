-- `mbus explain` as a user meets it.
local helper = require "spec.helper"
local mbus, HYD = helper.mbus, helper.HYD

local BAD_CHECKSUM = "68 03 03 68 08 05 70 80 16"

describe("mbus explain", function()
  it("explains itself, with examples", function()
    local code, out = mbus "explain --help"
    assert.equal(0, code)
    assert.matches("Examples:\n  mbus explain", out, 1, true)
    for line in out:gmatch "[^\n]+" do assert.is_true(#line <= 80, line) end
  end)

  it("takes what decode takes: hex, files, standard input", function()
    local code, wanted = mbus("explain " .. helper.quote(HYD))
    assert.equal(0, code)
    assert.matches("  21  31 84 74 01        data      BCD 01748431 × 10^2 = 174843100 Wh\n", wanted, 1, true)
    local body = wanted:match "^[^\n]*\n(.*)$"
    helper.with_folder(function(folder)
      helper.write(folder .. "/a.hex", "# a comment\n" .. HYD .. "\n")
      helper.write(folder .. "/b.bin", require("mbus.core").unhex(HYD))
      for _, arguments in ipairs { HYD, folder .. "/a.hex", folder .. "/b.bin", "- <" .. folder .. "/a.hex", "<" .. folder .. "/b.bin" } do
        local out
        code, out = mbus("explain " .. arguments)
        assert.equal(0, code)
        assert.equal(body, out:match "^[^\n]*\n(.*)$", arguments)
      end
    end)
  end)

  it("decrypts with a key, and complains only where that fails", function()
    local telegram = "682C2C6808FD7288776655934455080004100500DFE2A782146D1513581CD2F83F39040CFD10785634120C78443322112616"
    local code, out, err = mbus("explain --key 000102030405060708090A0B0C0D0E0F " .. telegram)
    assert.same({ 0, "" }, { code, err })
    assert.matches("fabrication number = 11223344", out, 1, true)
    code, out, err = mbus("explain --key FF0102030405060708090A0B0C0D0E0F " .. telegram)
    assert.equal(1, code)
    assert.matches("not read: the telegram is encrypted", out, 1, true)
    assert.matches("^mbus: telegram 1: the key is not that of meter 5566778893445508", err)
  end)

  it("says where each of several telegrams comes from", function()
    local code, out = mbus("explain", "E5\n\n" .. HYD .. "\n")
    assert.equal(0, code)
    assert.matches("^standard input:1, 1 bytes?\n", out)
    assert.matches("\n\nstandard input:3, 100 bytes\n", out, 1, true)
  end)

  it("explains what is damaged too, and ends with 1", function()
    local code, out, err = mbus("explain " .. BAD_CHECKSUM)
    assert.equal(1, code)
    assert.equal("", err)
    assert.matches("checksum  wrong: it should be 7Dh\n", out, 1, true)
    code, out, err = mbus("explain", "E5\nnonsense\n")
    assert.equal(1, code)
    assert.matches("acknowledged", out)
    assert.matches("^mbus: standard input:2: ", err)
    assert.equal(1, (mbus("explain", "")))
  end)

  it("ends with 2 on wrong usage", function()
    for _, arguments in ipairs { "explain /nonexistent", "explain --colour sometimes E5" } do
      local code, out, err = mbus(arguments)
      assert.equal(2, code)
      assert.equal("", out)
      assert.matches("mbus: ", err, 1, true)
    end
  end)

  it("has colours only on a terminal, or where asked", function()
    local function colours(arguments) return (select(2, mbus(arguments)):find("\27[", 1, true)) ~= nil end
    assert.is_false(colours "explain E5")
    assert.is_true(colours "explain E5 --colour always")
    assert.is_true(colours "explain E5 --color always")
    assert.is_false(colours "explain E5 --colour never")
  end)
end)
