local Error = require "mbus.error"

describe("mbus.error", function()
  it("reads well, with place and effort", function()
    local err = Error.new("timeout", "no answer", { bus = "/dev/ttyUSB0", address = 5, tries = 3, seconds = 0.9876 })
    assert.equal("ttyUSB0: address 5: no answer (3 tries, 0.99 s)", tostring(err))
    assert.equal("no answer (1 try)", tostring(Error.new("timeout", "no answer", { tries = 1 })))
    assert.equal("tcp://gateway:10001: connection refused",
      tostring(Error.new("refused", "connection refused", { bus = "tcp://gateway:10001" })))
    assert.equal("wrong checksum at byte 98", tostring(Error.new("checksum", "wrong checksum", { offset = 98 })))
  end)

  it("prints well out of assert", function()
    local ok, message = pcall(function()
      assert(nil, Error.new("timeout", "no answer", { address = 5 }))
    end)
    assert.is_false(ok)
    assert.equal("address 5: no answer", tostring(message))
  end)

  it("has a closed set of kinds", function()
    assert.has_error(function() Error.new("oops", "text") end, "unknown kind of error: oops")
    assert.has_error(function() Error.new("timeout") end, "an error needs a message")
    for kind, meaning in pairs(Error.kinds) do
      assert.equal(kind, Error.new(kind, meaning).kind)
    end
  end)

  it("wraps the plain tables of the core", function()
    local err = Error.wrap({ kind = "checksum", code = "bad_checksum", message = "wrong checksum", offset = 7 }, { bus = "sim" })
    assert.is_true(Error.is(err))
    assert.same({ "checksum", "bad_checksum", 7, "sim" }, { err.kind, err.code, err.offset, err.bus })
  end)

  it("adds what is known later, and keeps what was known first", function()
    local err = Error.new("io", "read failed", { bus = "a" })
    assert.equal(err, Error.wrap(err, { bus = "b", address = 9 }))
    assert.equal("a: address 9: read failed", tostring(err))
    assert.is_false(Error.is({ kind = "io" }))
  end)

  it("is not made of memory that has run out", function()
    assert.same({ false, "other" }, { Error.pcall(error, "other", 0) })
    assert.same({ false }, { Error.pcall(error) })
    assert.same({ true, 1, nil, 2 }, { Error.pcall(function(...) return ... end, 1, nil, 2) })
    for _, text in ipairs { "not enough memory", "error loading module 'a' from file 'a.lua':\n\tnot enough memory" } do
      assert.has_error(function() Error.pcall(error, text, 0) end, text)
    end
  end)
end)
