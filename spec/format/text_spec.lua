local text = require "mbus.format.text"

describe("text on a terminal", function()
  it("counts characters, not bytes", function()
    assert.equal(2, text.width "°C")
    assert.equal("°C  ", text.pad("°C", 4))
    assert.equal("  °C", text.pad("°C", 4, true))
  end)

  it("wraps at spaces, and inside words that are too long", function()
    assert.same({ "one two" }, text.wrap("one two", 7))
    assert.same({ "one", "two" }, text.wrap("one two", 6))
    assert.same({ "a", "bcdef", "ghi" }, text.wrap("a bcdefghi", 5))
    assert.same({ "Ünfü", "g" }, text.wrap("Ünfüg", 4))
    assert.same({ "" }, text.wrap("", 4))
  end)

  it("lets no meter steer the terminal", function()
    assert.equal("\\x1B[2J", text.printable "\27[2J")
    assert.equal("\\x9B1m°", text.printable "\u{9B}1m°")
    assert.equal("\\xFFok", text.printable "\xFFok")
  end)
end)
