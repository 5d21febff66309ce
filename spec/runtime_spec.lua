local runtime = require "mbus.runtime"

-- Runs a script in a fresh interpreter that finds the same modules; returns what it prints and how it ends.
local function run_script(script)
  local first = 0
  while arg[first - 1] do first = first - 1 end
  local name = os.tmpname()
  local file = assert(io.open(name, "w"))
  file:write(("package.path, package.cpath = %q, %q\n"):format(package.path, package.cpath), script)
  file:close()
  local pipe = assert(io.popen(("'%s' '%s' 2>&1"):format(arg[first], name)))
  local output = pipe:read "a"
  local _, how, code = pipe:close()
  os.remove(name)
  return output, how .. " " .. code
end

local function open_handles()
  local count = 0
  runtime.luv().walk(function(handle) if handle:is_active() then count = count + 1 end end)
  return count
end

describe("mbus.runtime", function()
  local before

  before_each(function() before = open_handles() end)

  after_each(function()
    runtime.run()
    assert.equal(before, open_handles())
  end)

  it("sleeps at least as long as asked", function()
    for _, seconds in ipairs { 0.0001, 0.001, 0.0015, 0.01 } do
      for _ = 1, 5 do
        local start = runtime.now()
        runtime.sleep(seconds)
        local slept = runtime.now() - start
        assert.is_true(slept >= seconds, slept)
        assert.is_true(slept < seconds + 0.5, slept)
      end
    end
    runtime.sleep(0)
  end)

  it("sleeps as long while the loop is busy", function()
    local idle = runtime.luv().new_idle()
    finally(function() runtime.close(idle) end)
    idle:start(function() end)
    for phase = 1, 20 do                    -- libuv counts whole milliseconds
      local start = runtime.now() + phase / 10000
      repeat until runtime.now() >= start
      runtime.sleep(0.0013)
      assert.is_true(runtime.now() - start >= 0.0013)
    end
  end)

  it("lets coroutines wait at the same time", function()
    local start, done = runtime.now(), 0
    for _ = 1, 20 do
      runtime.spawn(function()
        runtime.sleep(0.05)
        done = done + 1
      end)
    end
    assert.equal(0, done)
    runtime.run()
    assert.equal(20, done)
    assert.is_true(runtime.now() - start < 0.5)
  end)

  it("runs coroutines while the main program blocks", function()
    local order = {}
    runtime.spawn(function()
      runtime.sleep(0.001)
      order[#order + 1] = "coroutine"
    end)
    runtime.sleep(0.02)
    order[#order + 1] = "main"
    assert.same({ "coroutine", "main" }, order)
  end)

  it("starts a coroutine at once and passes arguments", function()
    local got
    runtime.spawn(function(...) got = { ... } end, 1, "two")
    assert.same({ 1, "two" }, got)
  end)

  it("returns what the wait was resumed with, the first time", function()
    local function later(resume, extra)
      runtime.after(0.001, function()
        resume(extra, nil, 3, nil)
        resume("again")
      end)
    end
    assert.same({ n = 4, "x", nil, 3, nil }, table.pack(runtime.await(later, "x")))
    local inside
    runtime.spawn(function() inside = table.pack(runtime.await(later, "y")) end)
    runtime.run()
    assert.same({ n = 4, "y", nil, 3, nil }, inside)
  end)

  it("does not wait for what has happened already", function()
    local stopped
    local function at_once(resume)
      resume "now"
      return function(cancelled) stopped = cancelled end
    end
    assert.equal("now", runtime.await(at_once))
    assert.is_false(stopped)
    local inside
    runtime.spawn(function() inside = runtime.await(at_once) end)
    assert.equal("now", inside)
  end)

  it("is not disturbed by a foreign resume", function()
    local woken
    local thread = runtime.spawn(function()
      runtime.sleep(0.005)
      woken = true
    end)
    coroutine.resume(thread)
    assert.is_nil(woken)
    runtime.run()
    assert.is_true(woken)
  end)

  it("takes registrations back when the waiting coroutine is closed", function()
    local cancelled, reached = {}, false
    local thread = runtime.spawn(function()
      runtime.await(function() return function(given_up) cancelled[#cancelled + 1] = given_up end end)
      reached = true
    end)
    local sleeper = runtime.spawn(runtime.sleep, 100)
    coroutine.close(thread)
    coroutine.close(sleeper)
    local start = runtime.now()
    runtime.run()
    assert.same({ true }, cancelled)
    assert.is_false(reached)
    assert.is_true(runtime.now() - start < 10)
  end)

  it("closes what a coroutine that fails has open, as a block does, before run raises its error", function()
    local order = {}
    runtime.spawn(function()
      local _ <close> = setmetatable({}, { __close = function()
        runtime.sleep(0.001) -- a bus is put in order
        order[#order + 1] = "closed"
      end })
      runtime.sleep(0.001)
      error "failed"
    end)
    assert.error_matches(runtime.run, "failed")
    assert.same({ "closed" }, order)
  end)

  it("raises an error that is nil, too", function()
    runtime.spawn(function()
      runtime.sleep(0)
      error()
    end)
    local ok, message = pcall(runtime.run)
    assert.is_false(ok)
    assert.matches("^nil\nstack traceback", message)
  end)

  it("raises the error of a coroutine from run, with its traceback", function()
    local function culprit()
      runtime.sleep(0.001)
      error "broken meter"
    end
    runtime.spawn(culprit)
    local ok, message = pcall(runtime.run)
    assert.is_false(ok)
    assert.matches("broken meter", message, 1, true)
    assert.matches("traceback", message, 1, true)

    local object = { kind = "timeout" }
    runtime.spawn(function() error(object) end)
    ok, message = pcall(runtime.run)
    assert.is_false(ok)
    assert.equal(object, message)
    runtime.run()     -- and not a second time
  end)

  it("refuses to block inside a callback of luv", function()
    local ok, message, nested, nested_message
    runtime.after(0, function()
      ok, message = pcall(runtime.sleep, 0.001)
      nested, nested_message = pcall(runtime.run)
    end)
    runtime.run()
    assert.is_false(ok)
    assert.matches("inside a callback of luv", message, 1, true)
    assert.is_false(nested)
    assert.matches("runs already", nested_message, 1, true)
  end)

  it("raises instead of waiting for ever", function()
    local ok, message = pcall(runtime.await, function() end)
    assert.is_false(ok)
    assert.matches("cannot happen", message, 1, true)
  end)

  it("cancels a timer any number of times", function()
    local called = false
    local cancel = runtime.after(0.001, function() called = true end)
    cancel()
    cancel()
    runtime.sleep(0.005)
    assert.is_false(called)
    local fired = runtime.after(0, function() called = true end)
    runtime.run()
    assert.is_true(called)
    fired()
  end)

  it("survives that a short-lived coroutine is the first to need luv", function()
    local output, ending = run_script [[
      local runtime = require "mbus.runtime"
      assert(package.loaded.luv == nil)
      local thread = coroutine.create(function() runtime.sleep(0.001) print "woken" end)
      coroutine.resume(thread)
      runtime.run()
      thread = nil
      collectgarbage() collectgarbage()
      local junk = {}
      for i = 1, 1000 do junk[i] = coroutine.create(print) end
      runtime.spawn(function() for _ = 1, 5 do runtime.sleep(0.001) collectgarbage() end print "done" end)
      runtime.run()
    ]]
    assert.same({ "woken\ndone\n", "exit 0" }, { output, ending })
  end)

  -- luv 1.44 crashes on some of these when left alone
  for name, script in pairs {
    ["after a wait"] = [[runtime.sleep(0.001)]],
    ["with a cancelled timer"] = [[runtime.after(10, print)()]],
    ["with timers that run"] = [[runtime.after(10, print) runtime.after(0, print)]],
    ["with a waiting coroutine"] = [[runtime.spawn(function() runtime.sleep(10) print "woken" end) runtime.sleep(0.001)]],
    ["while a coroutine is due"] = [[
      runtime.spawn(function() runtime.sleep(0.001) print "woken" end)
      local start = runtime.now()
      repeat until runtime.now() > start + 0.01
      runtime.after(10, print)()]],
    ["by os.exit in a coroutine"] = [[
      runtime.spawn(function() runtime.sleep(0.001) runtime.after(0, print)() os.exit(0, true) end)
      runtime.run()]],
    ["after an open connection"] = [[
      local server = runtime.luv().new_tcp()
      server:bind("127.0.0.1", 0)
      server:listen(1, function() end)
      line = assert(require("mbus.transport").open("tcp://127.0.0.1:" .. server:getsockname().port))
      line:write "x"]],
    ["after a closed connection"] = [[
      local server = runtime.luv().new_tcp()
      server:bind("127.0.0.1", 0)
      server:listen(1, function() end)
      local line <close> = assert(require("mbus.transport").open("tcp://127.0.0.1:" .. server:getsockname().port))
      line:write "x"]],
    ["after an open UDP socket"] = [[
      line = assert(require("mbus.transport").open "udp://127.0.0.1:9")
      line:write "x"
      line:read(0.001)]],
    ["after a shared bus that nobody closed"] = [[
      master, path = require("mbus.serial").pty()
      line = assert(require("mbus.transport.shared").open(path))
      line:read(0.001)]],
    ["after an open port"] = [[
      master, path = require("mbus.serial").pty()
      line = assert(require("mbus.transport").open(path))
      line:read(0.001)]],
    ["after a closed port"] = [[
      local master <close>, path = require("mbus.serial").pty()
      local line <close> = assert(require("mbus.transport").open(path))
      line:read(0.001)]],
  } do
    it("lets the interpreter end " .. name, function()
      local output, ending = run_script('local runtime = require "mbus.runtime"\n' .. script)
      assert.same({ "", "exit 0" }, { output, ending })
    end)
  end

  describe("event", function()
    it("wakes whoever waits, or the next who does", function()
      local event, got = runtime.event(), {}
      runtime.spawn(function()
        for i = 1, 3 do got[i] = event:wait(runtime.now() + 60) end
      end)
      event:set()
      assert.same({ true }, got)
      runtime.spawn(function() event:set() end)
      assert.same({ true }, got) -- not inside another coroutine
      runtime.sleep(0.001)
      assert.same({ true, true }, got)
      event:wake()
      assert.same({ true, true, false }, got)
      event:wake() -- nobody waits: it leaves no trace
      event:set()
      assert.is_true(event:wait())
      assert.is_false(event:wait(runtime.now()))
    end)

    it("is never early, and serves one at a time", function()
      local event = runtime.event()
      for i = 1, 20 do
        local deadline = runtime.now() + i / 7000
        assert.is_false(event:wait(deadline))
        assert.is_true(runtime.now() >= deadline)
      end
      local thread = runtime.spawn(function() event:wait(runtime.now() + 60) end)
      assert.has_error(function() event:wait() end, "two wait for one event")
      coroutine.close(thread)
      event:set()
      assert.is_true(event:wait())
    end)

    -- libuv rings timers first and then sleeps until something else happens.
    it("ends a wait outside coroutines at once when its time was up before", function()
      local server = runtime.luv().new_tcp()
      server:bind("127.0.0.1", 0)
      server:listen(1, function() end)
      local guard = runtime.luv().new_timer()
      guard:start(1000, 1000, function() end) -- or it would sleep for ever
      local start = runtime.now()
      for _ = 1, 3 do
        runtime.event():wait(runtime.now() - 1)
        runtime.sleep(0)
      end
      assert.is_true(runtime.now() - start < 1)
      runtime.close(guard)
      runtime.close(server)
    end)

    it("lets the loop look before a coroutine goes on", function()
      local uv = runtime.luv()
      local seen, had_seen = false, nil
      local event = runtime.event()
      runtime.spawn(function()
        event:wait(runtime.now() + 0.002)
        had_seen = seen
      end)
      local async = uv.new_async(function() seen = true end)
      local start = runtime.now()
      repeat until runtime.now() > start + 0.004 -- both are ready when the loop turns
      async:send()
      runtime.sleep(0.01)
      runtime.close(async)
      assert.is_true(had_seen)
    end)
  end)

  describe("lock", function()
    it("serves in order", function()
      local lock, order = runtime.lock(), {}
      for number = 1, 5 do
        runtime.spawn(function()
          lock:acquire()
          runtime.sleep(0.001)
          order[#order + 1] = number
          lock:release()
        end)
      end
      runtime.run()
      assert.same({ 1, 2, 3, 4, 5 }, order)
      assert.is_false(lock.held)
    end)

    it("makes the main program wait for a coroutine", function()
      local lock, done = runtime.lock(), false
      runtime.spawn(function()
        lock:acquire()
        runtime.sleep(0.005)
        done = true
        lock:release()
      end)
      lock:acquire()
      assert.is_true(done)
      lock:release()
    end)

    it("passes through long queues", function()
      local lock, served = runtime.lock(), 0
      lock:acquire()
      for _ = 1, 1000 do
        runtime.spawn(function()
          lock:acquire()
          served = served + 1
          lock:release()
        end)
      end
      lock:release()
      runtime.run()
      assert.equal(1000, served)
      assert.is_false(lock.held)
    end)

    it("forgets a waiter that is closed, before and after its turn came", function()
      local lock, served = runtime.lock(), {}
      local function wait(name)
        return runtime.spawn(function()
          lock:acquire()
          served[#served + 1] = name
          lock:release()
        end)
      end
      lock:acquire()
      local first, second = wait "first", wait "second"
      wait "third"
      coroutine.close(second)
      runtime.spawn(function()
        lock:release()            -- given to the first, which wakes in the next turn
        coroutine.close(first)
      end)
      runtime.run()
      assert.same({ "third" }, served)
      assert.is_false(lock.held)
    end)

    it("cancels the waits of one owner", function()
      local lock, results = runtime.lock(), {}
      assert.is_true(lock:acquire())
      for i, owner in ipairs { "a", "b", "a" } do
        runtime.spawn(function()
          results[i] = lock:acquire(owner)
          if results[i] then lock:release() end
        end)
      end
      lock:cancel "a"
      lock:cancel "nobody"
      runtime.sleep(0)
      assert.same({ false, nil, false }, results)
      lock:release()
      runtime.run()
      assert.same({ false, true, false }, results)
      assert.is_false(lock.held)
    end)

    it("survives that a cancelled waiter is closed", function()
      local lock = runtime.lock()
      lock:acquire()
      local thread = runtime.spawn(function() lock:acquire "a" end)
      runtime.spawn(function()
        lock:cancel "a"
        coroutine.close(thread)
      end)
      runtime.run()
      assert.is_true(lock.held)
      lock:release()
    end)

    it("raises when released without being held", function()
      assert.has_error(function() runtime.lock():release() end, "the lock is not held")
    end)
  end)

  -- In a program of its own: a signal would end the specs without a word.
  it("makes writing to a connection that the other side has closed an error, not the end of the program", function()
    local output, how = run_script [[
      local runtime = require "mbus.runtime"
      local uv = runtime.luv()
      local server, client = uv.new_tcp(), uv.new_tcp()
      server:bind("127.0.0.1", 0)
      server:listen(1, function()
        local peer = uv.new_tcp()
        server:accept(peer)
        peer:close()
      end)
      client:connect("127.0.0.1", server:getsockname().port)
      runtime.sleep(0.1)
      client:try_write("first") -- is answered with a reset
      runtime.sleep(0.1)
      print(select(3, client:try_write("second")))
    ]]
    assert.same({ "EPIPE\n", "exit 0" }, { output, how })
  end)
end)
