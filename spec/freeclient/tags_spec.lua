local tags = require "mbus.freeclient.tags"

local function whole(value)
  if math.type(value) == "integer" then return value end
  return nil, "a whole number"
end
local ALLOWED = { id = whole, scale = tonumber, addr = function(value) return value end, force = function(value) return value end }

local function good(text)
  local values, problems = tags.parse(text, ALLOWED)
  assert.same({}, problems)
  return values
end

local function bad(text, ...)
  local _, problems = tags.parse(text, ALLOWED)
  local messages = {}
  for i, problem in ipairs(problems) do messages[i] = tags.describe(problem) end
  assert.same({ ... }, messages)
end

describe("a tag", function()
  it("holds names with numbers, texts, true and false", function()
    assert.same({ id = 1, scale = 10 }, good "id=1, scale=10")
    assert.same({ addr = "f57072162440f102", force = true }, good [[ addr = "f57072162440f102" ; force=true, ]])
    assert.same({ addr = "it's", force = false }, good [[addr='it\'s',force=false]])
    assert.same({ id = 255, scale = -1.5e-3 }, good "id=0xFF, scale=-1.5e-3")
    assert.same({ id = 1, scale = 0.5 }, good "id=1, -- the energy\n\tscale=.5 -- half")
    assert.same({}, good "")
    assert.same({}, good " \r\n")
  end)

  it("names typographic quotes, and where they are", function()
    bad("addr=”f57072162440f102”", [[tag 'addr=”f57072162440f102”', column 6: the typographic quote ”; write " instead]])
    bad("id=1, addr=“5“", [[tag 'id=1, addr=“5“', column 12: the typographic quote “; write " instead]])
    bad("addr=‘5’", [[tag 'addr=‘5’', column 6: the typographic quote ‘; write ' instead]])
    bad('addr="5”', [[tag 'addr="5”', column 6: the text that begins here has no end: " is missing]])
    bad("addr=„5”", [[tag 'addr=„5”', column 6: the typographic quote „; write " instead]])
  end)

  it("names other characters that look like ASCII", function()
    bad("id＝1", "tag 'id＝1', column 3: the character U+FF1D, which only looks like ASCII; write = instead")
    bad("id=1，scale=2", "tag 'id=1，scale=2', column 5: the character U+FF0C, which only looks like ASCII; write , instead")
    bad("id=1,\u{A0}scale=2",
      "tag 'id=1,\u{A0}scale=2', column 6: the character U+00A0, which only looks like ASCII; write a blank instead")
    bad("id=−1", "tag 'id=−1', column 4: the character U+2212, which only looks like ASCII; write - instead")
  end)

  it("names what is missing or wrong, with line and column", function()
    bad("id", "tag 'id', column 3: the tag ends here, but = behind id is needed")
    bad("id=", [[tag 'id=', column 4: the tag ends here, but a number, a text in "quotes", true or false is needed]])
    bad("=1", "tag '=1', column 1: a name is needed, not =")
    bad("id=1 scale=2", [[tag 'id=1 scale=2', column 6: "," is needed, not s]])
    bad("id=yes", [[tag 'id=yes', column 4: a number, a text in "quotes", true or false is needed, not yes]])
    bad("id=1x", "tag 'id=1x', column 4: 1x is no number")
    bad("id=1.5", "tag 'id=1.5', column 4: id: a whole number is needed, not 1.5")
    bad('addr="5\nid=1', [[tag 'addr="5', column 6: the text that begins here has no end: " is missing]])
    bad("id=1,\n  scael=10", "tag '  scael=10', line 2, column 3: unknown name scael; allowed are addr, force, id, scale")
    bad("id=1, id=2", "tag 'id=1, id=2', column 7: id is given twice")
    bad("id=1 \xFF", [[tag 'id=1 ]] .. "\xFF" .. [[', column 6: "," is needed, not byte FF]])
    bad([[addr="\x"]], [[tag 'addr="\x"', column 7: unknown escape \x]])
  end)

  it("shows of a long line what is around the place", function()
    local long = "id=1, " .. ("ä"):rep(500) .. "=1" .. (" "):rep(500)
    local _, problems = tags.parse(long, ALLOWED)
    assert.matches("^tag 'id=1, [\xC3\xA4]+…', column 7: a name is needed, not ä$", tags.describe(problems[1]))
    _, problems = tags.parse("id=1," .. (" "):rep(500) .. "x=1" .. (" "):rep(500), ALLOWED)
    assert.matches("^tag '… +x=1 +…', column 506: unknown name x;", tags.describe(problems[1]))
    assert.is_true(#tags.describe(problems[1]) < 250)
  end)

  it("tells of all that can be told at once", function()
    bad("a=1, id=1.5, b=2", "tag 'a=1, id=1.5, b=2', column 1: unknown name a; allowed are addr, force, id, scale",
      "tag 'a=1, id=1.5, b=2', column 9: id: a whole number is needed, not 1.5",
      "tag 'a=1, id=1.5, b=2', column 14: unknown name b; allowed are addr, force, id, scale")
  end)
end)
