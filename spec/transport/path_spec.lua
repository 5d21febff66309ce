local Path = require "mbus.transport.path"

local BYTE = 11 / 2400
local FRAME = 261 * BYTE
local NKE, REQUEST = "\x10\x40\x05\x45\x16", "\x10\x5B\x05\x60\x16"

-- An exchange from `time` on: the first byte of the answer begins `delay` seconds after the request; chunks of so many bytes.
local function exchange(path, time, delay, sizes, whole)
  path:sent(REQUEST, time)
  local at, total = time + #REQUEST * BYTE + delay, 0
  for _, size in ipairs(sizes) do total = total + size end
  if whole then at = at + total * BYTE end
  for _, size in ipairs(sizes) do
    if not whole then at = at + size * BYTE end
    path:received(size, at)
  end
end

local function margins(path)
  local margin, held = path:margin()
  return margin - held, held
end

local function ones(count)
  local sizes = {}
  for i = 1, count do sizes[i] = 1 end
  return sizes
end

describe("mbus.transport.path", function()
  it("assumes the worst until it knows", function()
    local margin, held = margins(Path.new(2400))
    assert.near(0.3, margin, 1e-9)
    assert.near(FRAME, held, 1e-9)
    assert.near(261 * 11 / 300, select(2, Path.new(300):margin()), 1e-9)
  end)

  it("learns that a gateway passes on bytes as they come", function()
    local path = Path.new(2400)
    exchange(path, 0, 0.06, ones(80))
    path:sent(NKE, 10)
    local margin, held = margins(path)
    assert.near(2 * 0.06 + 0.05, margin, 0.01)
    assert.is_true(held > 0 and held <= 0.06, held)
  end)

  it("learns how much a gateway holds back", function()
    local path = Path.new(2400)
    exchange(path, 0, 0.06, { 64, 64, 20 })
    path:sent(NKE, 10)
    assert.near(64 * BYTE, select(2, path:margin()), 1e-9)
  end)

  it("goes on with a full frame's airtime for a gateway that delivers whole answers, in one packet or in many", function()
    for _, sizes in ipairs { { 100 }, ones(100), { 1, 99 } } do
      local path = Path.new(2400)
      exchange(path, 0, 0.08, sizes, true)
      path:sent(NKE, 10)
      local margin, held = margins(path)
      assert.near(FRAME, held, 1e-9)
      assert.near(2 * 0.08 + 0.05, margin, 0.001)
    end
  end)

  it("learns nothing about that from an E5", function()
    local path = Path.new(2400)
    exchange(path, 0, 0.06, { 1 })
    path:sent(NKE, 10)
    assert.near(FRAME, select(2, path:margin()), 1e-9)
  end)

  it("follows a path that changes, to the worse at once and to the better after a while", function()
    local path = Path.new(2400)
    for i = 1, 20 do exchange(path, i * 10, 0.05, ones(80)) end
    exchange(path, 300, 0.5, ones(80))
    path:sent(NKE, 400)
    assert.is_true(margins(path) > 1)
    for i = 1, 20 do exchange(path, 500 + i * 10, 0.05, ones(80)) end
    assert.is_true(margins(path) < 0.2)
    exchange(path, 900, 0.05, { 80 }, true)
    path:sent(NKE, 1000)
    assert.near(FRAME, select(2, path:margin()), 1e-9)
  end)

  it("is never more than some seconds, whatever happens", function()
    local path = Path.new(2400)
    exchange(path, 0, 1000, ones(80))
    path:sent(NKE, 5000)
    assert.is_true(path:margin() < 12)
  end)

  it("is not misled by repetitions", function()
    local path = Path.new(2400)
    exchange(path, 0, 0.05, ones(80))
    path:sent(REQUEST, 10)
    exchange(path, 11, 0.05, ones(80))              -- the same again, answered
    path:sent(NKE, 20)
    assert.near(0.15, (margins(path)), 0.01)
    -- The answer to the first comes while the second is still on the line.
    path:sent(REQUEST, 30)
    path:sent(REQUEST, 31)
    path:received(80, 31.001)
    path:sent(NKE, 40)
    assert.is_true(margins(path) > 1)
  end)

  it("takes the time that a connection takes into account", function()
    local path = Path.new(2400)
    path:connected(0.6)
    assert.near(1.3, (margins(path)), 1e-9)
    -- It was a packet that was lost: what is measured goes before it.
    path:sent("12345", 10)
    path:received(1, 10.01 + 55 / 2400 + 11 / 2400)
    path:sent("12345", 20)
    assert.is_true(margins(path) < 0.3)
  end)

  it("ignores what comes unasked", function()
    local path = Path.new(2400)
    path:received(500, 0)
    assert.near(0.3, (margins(path)), 1e-9)
  end)
end)
