-- mbus.aes against the published vectors: it must be AES, whatever is underneath.
local aes = require "mbus.aes"
local core = require "mbus.core"

local function bytes(hex) return (assert(core.unhex(hex))) end

local KEY = bytes "2B7E1516 28AED2A6 ABF71588 09CF4F3C"
local IV = bytes "00010203 04050607 08090A0B 0C0D0E0F"
local PLAIN = bytes("6BC1BEE2 2E409F96 E93D7E11 7393172A AE2D8A57 1E03AC9C 9EB76FAC 45AF8E51"
  .. "30C81C46 A35CE411 E5FBC119 1A0A52EF F69F2445 DF4F9B17 AD2B417B E66C3710")

describe("CBC", function()
  -- NIST SP 800-38A, F.2.1 and F.2.2
  local CIPHER = bytes("7649ABAC 8119B246 CEE98E9B 12E9197D 5086CB9B 507219EE 95DB113A 917678B2"
    .. "73BED6B8 E3C1743B 7116E69E 22229516 3FF1CAA1 681FAC09 120ECA30 7586E1A7")

  it("is that of SP 800-38A", function()
    assert.equal(CIPHER, aes.cbc_encrypt(KEY, IV, PLAIN))
    assert.equal(PLAIN, aes.cbc_decrypt(KEY, IV, CIPHER))
  end)

  it("takes nothing and gives nothing", function()
    assert.equal("", aes.cbc_encrypt(KEY, IV, ""))
    assert.equal("", aes.cbc_decrypt(KEY, IV, ""))
  end)

  it("leaves its arguments alone", function()
    local first = aes.cbc_encrypt(KEY, IV, PLAIN)
    assert.equal(first, aes.cbc_encrypt(KEY, IV, PLAIN))
    assert.equal("00 01 02 03", core.hex(IV:sub(1, 4)))
  end)

  it("gives back what went in, at any number of blocks", function()
    for blocks = 1, 300, 13 do
      local text = PLAIN:rep(blocks // 4 + 1):sub(1, blocks * 16)
      assert.equal(text, aes.cbc_decrypt(KEY, IV, aes.cbc_encrypt(KEY, IV, text)))
    end
  end)
end)

describe("CMAC", function()
  -- RFC 4493, chapter 4
  for length, mac in pairs {
    [0] = "BB1D6929 E9593728 7FA37D12 9B756746", [16] = "070A16B4 6B4D4144 F79BDD9D D04A287C",
    [40] = "DFA66747 DE9AE630 30CA3261 1497C827", [64] = "51F0BEBF 7E3B9D92 FC497417 79363CFE",
  } do
    it(("is that of RFC 4493 over %d bytes"):format(length), function()
      assert.equal(bytes(mac), aes.cmac(KEY, PLAIN:sub(1, length)))
    end)
  end
end)

describe("wrong arguments raise:", function()
  local function raises(text, fn, ...)
    local ok, message = pcall(fn, ...)
    assert.is_false(ok)
    assert.matches(text, message)
    return message
  end

  it("a key or vector that has not 16 bytes", function()
    raises("a key has 16 bytes, not 15", aes.cbc_encrypt, KEY:sub(2), IV, "")
    raises("a key has 16 bytes, not 32", aes.cbc_decrypt, KEY .. KEY, IV, "")
    raises("a key has 16 bytes, not 0", aes.cmac, "", "")
    raises("vector has 16 bytes, not 17", aes.cbc_encrypt, KEY, IV .. "x", "")
  end)

  it("a part of a block", function()
    for size = 1, 33 do
      if size % 16 ~= 0 then
        raises("whole blocks", aes.cbc_encrypt, KEY, IV, ("x"):rep(size))
        raises("whole blocks", aes.cbc_decrypt, KEY, IV, ("x"):rep(size))
      end
    end
  end)

  it("what is no string", function()
    raises("string expected", aes.cbc_encrypt, nil, IV, "")
    raises("string expected", aes.cbc_decrypt, KEY, {}, "")
    raises("string expected", aes.cmac, KEY)
  end)

  it("without showing the key", function()
    assert.not_matches("secret", raises("16 bytes", aes.cmac, "my secret", ""))
  end)
end)
