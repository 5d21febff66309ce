local Engine = require "mbus.procedure.engine"
local Error = require "mbus.error"
local Link = require "mbus.procedure.link"

local SETTINGS = { baudrate = 2400, timeout = 0.2, gap = 0.1, idle = 33 / 2400, post_nke_delay = 0 }

local function start(procedure, now) return Engine.new(procedure, Link.new(SETTINGS, nil, now)) end

describe("the engine", function()
  it("hands out wants and takes what happened", function()
    local engine = start(function(link)
      local ends = link:send("abc")
      local bytes, errors = link:receive(ends + 1)
      link:sleep(link:now() + 1)
      local drained = link:drain()
      return { ends, bytes, errors, drained }
    end, 10)
    assert.same({ "send", "abc" }, { engine:wants() })
    engine:feed("", 10.5)
    -- it took longer than the three characters take on the line
    assert.same({ "receive", 11.5 }, { engine:wants() })
    engine:feed("x", 10.7, 1)
    assert.same({ "sleep", 11.7 }, { engine:wants() })
    engine:feed("", 11.7)
    assert.equal("drain", engine:wants())
    engine:feed("old", 11.8)
    assert.same({ "done", { 10.5, "x", 1, "old" } }, { engine:wants() })
    assert.has_error(function() engine:feed("", 12) end, "the procedure has ended")
  end)

  it("counts the airtime where the port returns early", function()
    local engine = start(function(link) return link:send(("x"):rep(240)) end, 5)
    engine:feed("", 5.001)
    local _, ends = engine:wants()
    assert.near(5 + 11 * 240 / 2400, ends, 1e-9)
  end)

  it("changes nothing at a tick", function()
    local engine = start(function(link) return (link:receive(2)) end, 1)
    for now = 1, 1.9, 0.1 do
      engine:feed("", now)
      assert.same({ "receive", 2 }, { engine:wants() })
    end
    engine:feed("", 2)
    assert.same({ "done", "" }, { engine:wants() })
  end)

  it("keeps what comes while sending and throws away what comes while sleeping", function()
    local link = Link.new(SETTINGS, nil, 0)
    local engine = Engine.new(function()
      link:send("a")
      local early = link:receive(9)
      link:sleep(5)
      return early
    end, link)
    engine:feed("early", 1)
    engine:feed("noise", 2)
    assert.same({ "sleep", 5 }, { engine:wants() })
    engine:feed("", 5)
    assert.same({ "done", "early" }, { engine:wants() })
    assert.same({ "SEND", "a", 0, "NOISE", "noise", 5 }, link.log)
  end)

  it("does not let the clock go back", function()
    local link = Link.new(SETTINGS, nil, 100)
    local engine = Engine.new(function() return link:receive(101) end, link)
    engine:feed("", 50)
    assert.equal(100, link:now())
    assert.equal("receive", (engine:wants()))
  end)

  it("fails every want once the line is broken", function()
    local engine = start(function(link)
      local bytes, err = link:receive(9)
      local sent, again = link:send("a")
      local slept = link:sleep(99)
      local drained = link:drain()
      return { bytes == nil, sent == nil, slept == nil, drained == nil, err == again, err.kind }
    end, 0)
    engine:fail(Error.new("io", "unplugged"))
    assert.same({ "done", { true, true, true, true, true, "io" } }, { engine:wants() })
    assert.has_error(function() engine:fail("text") end, "an mbus.Error is needed")
  end)

  it("shows where a bug of a procedure is", function()
    local ok, message = pcall(start, function() error("bug") end)
    assert.is_false(ok)
    assert.matches("engine_spec.lua.*bug.*stack traceback", message)
  end)
end)

describe("settling before a request", function()
  local function settle(link)
    local engine = Engine.new(function() return link:settle() end, link)
    return engine
  end

  it("waits for 33 idle bits after the line was busy", function()
    local link = Link.new(SETTINGS, nil, 10)
    link.state.quiet_since = 9.999
    local engine = settle(link)
    local what, deadline = engine:wants()
    assert.equal("sleep", what)
    assert.near(9.999 + 33 / 2400, deadline, 1e-9)
    engine:feed("", deadline)
    engine:feed("", deadline)
    assert.same({ "done", true }, { engine:wants() })
  end)

  it("begins again when something comes, but not for ever", function()
    local engine = settle(Link.new(SETTINGS, nil, 10))
    local steps = 0
    while engine:wants() ~= "done" do
      local what, deadline = engine:wants()
      engine:feed(what == "drain" and "noise" or "", what == "sleep" and deadline or engine.link:now())
      steps = steps + 1
      assert(steps < 1000)
    end
    assert.same({ "done", false }, { engine:wants() })
    assert.is_true(engine.link:now() < 10 + 0.2 + 1.2 + 0.2)
  end)
end)
