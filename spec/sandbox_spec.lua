-- What a script may do, and above all what it may not: every way out that we know of.
local helper = require "spec.helper"
local sandbox = require "mbus.sandbox"

local function run(source, options)
  local box = sandbox.new(options or { instructions = 200000, memory = 2 << 20 })
  local chunk = assert(box:load(source, "script"))
  return box:run(chunk)
end

local function works(source, ...)
  local results = table.pack(run(source))
  assert(results[1], results[2])
  assert.same(table.pack(...), table.pack(table.unpack(results, 2, results.n)))
end

-- How much slower than usual we are, as under valgrind.
local began_at = os.clock()
for _ = 1, 1000000 do local _ = 1 end
local slowness = math.max(1, (os.clock() - began_at) / 0.01)

local function fails(source, message, options)
  local began = os.clock()
  local ok, err = run(source, options)
  assert.is_false(ok, source)
  assert.matches(message, err)
  assert.is_true(os.clock() - began < 2 * slowness, "it took " .. os.clock() - began)
end

describe("a script in the sandbox", function()
  it("has Lua 5.4 without what reaches outside", function()
    for _, name in ipairs { "debug", "os", "coroutine", "io", "package", "collectgarbage", "dofile", "require", "loadfile", "warn",
      "loadstring", "arg", "string.dump" } do
      works("local value = _G; for part in ('" .. name .. "'):gmatch '[^.]+' do value = value[part] end return value == nil", true)
    end
    works("return _VERSION, select('#', 1, 2), tostring(12), math.type(1), #table.pack(1, 2), utf8.char(228)",
      "Lua 5.4", 2, "12", "integer", 2, "ä")
  end)

  it("has the libraries as they are elsewhere", function()
    works([[return ("a=1, b=2"):gsub("(%w)=(%d)", "%2=%1")]], "1=a, 2=b", 2)
    works([[return ("abc"):gsub("%w", { a = "x", b = false })]], "xbc", 3)
    works([[return ("abc"):gsub("%w", function(c) if c == "b" then return c:upper() end end)]], "aBc", 3)
    works([[return ("x"):rep(3, "-"), ("%5.2f|%-4s|%q"):format(1, "a", "b\n"), ("  a b "):match("^%s*(.-)%s*$")]],
      "x-x-x", ' 1.00|a   |"b\\\n"', "a b")
    works([[local t = {} for k, v in ("a=1 bc=23"):gmatch("(%w+)=(%w+)") do t[#t + 1] = k .. v end return table.concat(t, ",")]], "a1,bc23")
    works([[return ("^a"):gmatch("^a")(), ("a(b(c)d)e"):match("%b()"), ("THE (quick) fox"):find("%f[%a]%a+%f[%A]")]],
      "^a", "(b(c)d)", 1, 3)
    works([[return ("abab"):find("(ab)%1"), ("a.b"):find(".", 1, true), ("a"):find("b"), ("äö"):len()]], 1, 2, nil, 4)
    works([[local t = { 3, 1, 2 } table.sort(t, function(a, b) return a > b end) table.insert(t, 1, 9) table.remove(t)
      return table.concat(t, " ", 1, 3), table.unpack(table.move({ 1, 2 }, 1, 2, 3, { 7, 8 }))]], "9 3 2", 7, 8, 1, 2)
    works([[return string.unpack("<I2", string.pack("<I2", 513))]], 513, 3)
    works([[function string.trim(s) return s:match("^%s*(.-)%s*$") end return ("  x "):trim()]], "x")
    works([[return xpcall(function() error("oh", 0) end, function(e) return e .. "!" end)]], false, "oh!")
    works([[return pcall(error, { 1 })]], false, { 1 })
    works([[local t = setmetatable({}, { __index = function(_, k) return k .. k end }) return t.ab, getmetatable(t).__index ~= nil]],
      "abab", true)
    works([[return load("return ...", "x")(5), load("return x", "x", "t", { x = 6 })(), (load("x ="))]], 5, 6, nil)
  end)

  it("cannot load bytecode, in whatever way", function()
    local code = string.dump(function() return 1 end):gsub("[^%w]", function(c) return ("\\%03d"):format(c:byte()) end)
    works("return (load('" .. code .. "'))", nil)
    works("return (load('" .. code .. "', 'x', 'b'))", nil)
    works("return (load('" .. code .. "', 'x', 'bt'))", nil)
    works("local done return (load(function() if not done then done = true return '" .. code .. "' end end, 'x', 'b'))", nil)
    assert.is_nil((sandbox.new():load(string.dump(function() end), "script")))
  end)

  it("does not reach the metatable or the methods of our strings", function()
    works("return getmetatable('')", nil)
    fails("getmetatable('').__index = nil", "index a nil value")
    fails("string.format = nil string.rep = function() return 'evil' end return (('x'):format())", "format")
    assert.equal("xxx", ("x"):rep(3))
    assert.equal("7", ("%d"):format(7))
    fails("('x').y = 1", "index a string value")
    local ok, result = run("string.upper = function() return 'evil' end return ('x'):upper()")
    assert.same({ true, "evil" }, { ok, result })
    assert.equal("X", ("x"):upper())
    assert.equal(string, getmetatable("").__index)
  end)

  it("leaves our strings alone however it ends", function()
    local hook = debug.gethook()
    run("error 'oh'")
    run("while true do end")
    run("error(setmetatable({}, { __tostring = function() while true do end end }))")
    assert.equal(string, getmetatable("").__index)
    assert.equal(hook, (debug.gethook()))
  end)

  it("gives nothing to run to whoever looks from outside", function()
    local ok, err = run("string = nil setmetatable(_G, { __index = function() while true do end end }) return 1")
    assert.same({ true, 1 }, { ok, err })
    local box = sandbox.new { print = function() end }
    ok, err = box:run(box:load([[local set, p = setmetatable, print
      string = nil set(_G, { __index = function() while true do end end }) p("x") return 2]], "script"))
    assert.same({ true, 2 }, { ok, err })
  end)

  it("does not meet our finalizers", function()
    local called, upper
    setmetatable({}, { __gc = function() called, upper = true, ("x"):upper() end })
    local ok = run("string.upper = function() while true do end end for i = 1, 20000 do local t = { i } end return true")
    collectgarbage()
    assert.same({ true, true, "X" }, { ok, called, upper })
    assert.is_true(collectgarbage("isrunning"))
  end)

  it("changes no library of ours, and none of another script", function()
    run("math.floor = nil table.insert = nil string.sub = nil pairs = nil utf8.char = nil math.randomseed(1)")
    assert.equal(2, math.floor(2.5))
    works("return math.floor(2.5), ('abc'):sub(2)", 2, "bc")
  end)

  it("gets metatables of its own tables alone", function()
    local box = sandbox.new()
    local hidden = setmetatable({}, { __index = { secret = 1 } })
    box.env.object = hidden
    local ok, result = box:run(box:load("return getmetatable(object)", "script"))
    assert.same({ true, nil }, { ok, result })
    ok, result = box:run(box:load("setmetatable(object, {})", "script"))
    assert.is_false(ok)
    assert.matches("protected metatable", result)
    works([[local t = setmetatable({}, { __metatable = "mine" }) return getmetatable(t), (pcall(setmetatable, t, {}))]], "mine", false)
  end)

  it("is stopped in an endless loop", function()
    fails("while true do end", "more than 200000 instructions")
    fails("repeat until false", "instructions")
    fails("::again:: goto again", "instructions")
    fails("local mt = {} mt.__concat = function(a) return a .. setmetatable({}, mt) end return setmetatable({}, mt) .. 1", "overflow")
    fails("return tostring(setmetatable({}, { __tostring = function(t) return tostring(t) end }))", "overflow")
    fails("return setmetatable({}, { __eq = function() while true do end end }) == setmetatable({}, {})", "instructions")
    fails("for _ in pairs(setmetatable({}, { __pairs = function() while true do end end })) do end", "instructions")
    fails("local function f() return 1 + f() end f()", "overflow", { memory = 1 << 28 })
    works("local chunk, err = load(('('):rep(100000)) return chunk, err:find('overflow') ~= nil", nil, true)
    fails("while true do load(('x = 1 '):rep(10000)) end", "instructions")
    fails("local function f() return f() end f()", "instructions")
    fails("for i = 1, math.huge do end", "instructions")
    fails("local t = setmetatable({}, { __index = function(t, k) return t[k + 1] end }) return t[1]", "overflow")
  end)

  it("cannot catch that it is stopped", function()
    fails("while true do pcall(function() while true do end end) end", "instructions")
    fails("local function f() pcall(f) while true do pcall(f) end end f()", "more than")
    fails("xpcall(function() while true do end end, function() while true do end end)", "instructions")
    fails("local x <close> = setmetatable({}, { __close = function() while true do end end }) while true do end", "instructions")
    fails("while true do load(function() while true do end end) end", "instructions")
    fails("while true do pcall(string.gsub, 'aaaa', 'a', function() while true do end end) end", "instructions")
    fails("pcall(table.sort, { 3, 2, 1, 4, 5 }, function() while true do end end) while true do end", "instructions")
    -- periods of every length, so that a look at every eighth instruction never comes at the same place
    for padding = 0, 9 do
      fails("local a while true do " .. ("a = 1 "):rep(padding) .. "pcall(function() while true do end end) end", "instructions")
    end
  end)

  it("has no finalizers, in which no limit holds", function()
    fails("setmetatable({}, { __gc = function() while true do end end })", "__gc is not allowed")
    works([[local mt = {} local t = setmetatable({}, mt) mt.__gc = function() print("finalized") end t = nil return 1]], 1)
    collectgarbage()
  end)

  it("cannot hang in one call of C", function()
    fails([[return (("a"):rep(40)):find(("a*"):rep(40) .. "b")]], "takes too long")
    fails([[return (("a"):rep(40)):match(("a-"):rep(40) .. "b")]], "takes too long")
    fails([[return (("a"):rep(40)):gsub(("a?"):rep(40) .. ("a"):rep(40) .. "b", "")]], "takes too long")
    fails([[for x in (("a"):rep(3000)):gmatch("^.-.-.-b") do end]], "takes too long")
    fails([[return (("a"):rep(3000)):find(".-.-.-b")]], "takes too long")
    fails([[return (("("):rep(20000)):find(("%b()"):rep(3))]], "takes too long")
    fails([[return (("a"):rep(500000)):find(("a"):rep(250000) .. "b", 1, true)]], "instructions")
    fails([[table.move({}, 1, math.maxinteger - 1, 2)]], "instructions")
    fails([[table.insert(setmetatable({}, { __len = function() return 1 << 60 end }), 1, 1)]], "instructions")
    fails([[table.concat(setmetatable({}, { __len = function() return 1 << 60 end }))]], "instructions")
    works([[return ("").rep("", 1 << 60)]], "")
    fails([[return ("").rep("", 1 << 60, "x")]], "too large")
    fails([[return (("b"):rep(200000)):find("[" .. ("a"):rep(200000) .. "]*c")]], "takes too long") -- by looking at the pattern
    fails([[return ("x"):find("[a")]], "malformed")
    fails([[return ("x"):find("%")]], "malformed")
  end)

  it("is stopped when it takes too much memory", function()
    local kib = { memory = 1 << 20, instructions = 1e8, seconds = 5 }
    local function peak(source, message)
      collectgarbage()
      local before = collectgarbage("count")
      fails(source, message or "more than 1024 KiB of memory", kib)
      assert.is_true(collectgarbage("count") - before < 1100)
      collectgarbage()
    end
    peak "local s = 'x' while true do s = s .. s end"
    peak "local t = {} for i = 1, math.huge do t[i] = i end"
    peak "local t = {} for i = 1, math.huge do t[i] = {} end"
    peak("return ('x'):rep(1 << 40)", "too large")
    peak("return ('x'):rep(1e9, 'yyyyyyyy')", "too large")
    peak "return ('x'):rep(1 << 30)"
    peak("local y = ('y'):rep(200000) return " .. ("y .. "):rep(150) .. "y")
    peak "return (('x'):rep(200000):gsub('x', ('y'):rep(1000)))"
    peak "return (('x'):rep(2000):gsub('x+', ('%0'):rep(1000)))"
    peak "local y = ('y'):rep(500000) return (('x'):rep(500000):gsub('x', { x = y }))"
    peak "local y = ('y'):rep(500000) return (('x'):rep(500000):gsub('x', function() return y end))"
    peak "local t, y = {}, ('y'):rep(500000) for i = 1, 1000 do t[i] = y end return table.concat(t)"
    peak "local y = ('y'):rep(500000) return ('%s%s%s%s%s%s'):format(y, y, y, y, y, y)"
    peak "return string.pack('c2000000000', 'x')"
    peak("local function f(n) return { f(n + 1) } end return f(1)", "a table or the stack gets too long: more than 64 KiB")
    peak "while true do pcall(function() local s = 'x' while true do s = s .. s end end) end"
  end)

  it("is stopped within its time where a single instruction takes long #timed", function()
    local short = { instructions = 1e12, seconds = 0.1, memory = 8 << 20 }
    for _, source in ipairs {
      "local s = (' '):rep(4e6) .. '1' while true do local x = s + 0 end",
      "local a, b = ('x'):rep(2e6) .. 'a', ('x'):rep(2e6) .. 'b' while true do local x = a < b end",
      "local a, b = ('x'):rep(1e6) .. 'a', ('x'):rep(1e6) .. 'b' local t = {} for i = 1, 20000 do t[i] = i % 2 == 0 and a or b end table.sort(t)",
      "local t = {} for i = 1, 16000 do t['k' .. i] = 1 end for k in pairs(t) do t[k] = nil end while true do next(t) end",
      "local s = ('x'):rep(3e6) while true do utf8.len(s) string.packsize(s) tonumber(s) end",
      "local kept = {} for i = 1, 60000 do kept[i] = {} end while true do local t = { {}, {}, {}, {} } end",
      "while true do ('x'):rep(1e6):gsub('x', pcall) end",
      "local t = {} for i = 1, 60000 do t[i] = function() while true do end end end table.sort(t, pcall) while true do end",
    } do
      fails(source, "it takes too long", short)
    end
  end)

  -- A look-up that takes C two thousand steps.
  local CHAIN = "local t = {} for i = 1, 1990 do t = setmetatable({}, { __index = t, __newindex = t }) end "
  -- A list whose middle is asked from there.
  local HOLES = CHAIN .. "local l = {} for i = 1, 30000 do l[i] = 1 end for i = 2, 29999 do l[i] = nil end setmetatable(l, { __index = t }) "
  -- A number that takes long to read, many times.
  local SLOW = "local s, t = (' '):rep(2e6) .. '1', {} for i = 1, 15000 do t[i] = s end "

  it("cannot hang in C by what C asks at every step", function()
    local short = { instructions = 1e12, seconds = 0.1, memory = 8 << 20 }
    for _, source in ipairs {
      CHAIN .. "table.move(t, 1, 4000000, 1, {})", CHAIN .. "table.move({}, 1, 4000000, 1, t)",
      CHAIN .. "return table.unpack(t, 1, 30000)", CHAIN .. "return (('x'):rep(1000000):gsub('x', t))",
      HOLES .. "while true do table.insert(l, 1, 5) end", HOLES .. "while true do table.remove(l, 1) end",
      HOLES .. "while true do pcall(table.concat, l) end", HOLES .. "while true do pcall(table.sort, l, math.type) end",
      "local t = {} for i = 1, 30000 do t[i] = string.char end while true do table.sort(t, pcall) end",
      "while true do ('x'):rep(4e6):gsub('x', pcall) end",
    } do
      fails(source, "it takes too long", short)
    end
  end)

  it("cannot hang in C by arguments that are long", function()
    local short = { instructions = 5e6, seconds = 0.1, memory = 8 << 20 }
    for _, source in ipairs { "math.max(table.unpack(t))", "math.min(table.unpack(t))", "string.char(table.unpack(t))",
      "utf8.char(table.unpack(t))", "string.pack(('b'):rep(15000), table.unpack(t))", "string.format(('%d'):rep(15000), table.unpack(t))",
      "for i = 1, 1000 do string.format(('%.1s'):rep(15000), table.unpack(t)) end" } do
      fails(SLOW .. source, "it takes too long", short)
    end
  end)

  it("cannot hang the compiler", function()
    local short = { instructions = 5e6, seconds = 0.1, memory = 8 << 20 }
    local names = {}
    for i = 1, 190 do names[i] = "v" .. i end
    local many = "local " .. table.concat(names, ",") .. " local function f() "
    for _, text in ipairs { "local a return " .. ("a and "):rep(300000) .. "a", "local a if a then " .. ("elseif a then "):rep(100000) .. "end",
      many:rep(150) .. ("x=x "):rep(200000) .. ("end "):rep(150) } do
      local began = os.clock()
      local chunk, err = sandbox.new(short):load(text, "script")
      assert.is_nil(chunk)
      assert.matches("it takes too long", err)
      assert.is_true(os.clock() - began < 2 * slowness)
    end
    fails("return load('local a return ' .. ('a and '):rep(300000) .. 'a')", "it takes too long", short)
  end)

  it("cannot hang in one instruction", function()
    fails("local t = {} setmetatable(t, { __call = t }) t()", "__call is a function here")
    fails("local mt = {} local t = setmetatable({}, mt) mt.__call = t t()", "attempt to call a table value")
    -- keys that are far apart until the table grows, and then collide
    fails("local t, m = {}, (1 << 17) - 1 for i = 1, 65537 do t[i * m] = true end", "a table or the stack gets too long",
      { memory = 8 << 20 })
    fails("local t, m = {}, (1 << 15) - 1 for i = 1, 16385 do t[i * m] = true end while true do end", "a table or the stack",
      { memory = 8 << 20 })
    fails("local t, m = {}, (1 << 14) - 1 for i = 1, 8193 do t[i * m] = true end while true do end", "instructions", { memory = 8 << 20 })
    local ok, depth = run("local function f(n) return n == 0 and 0 or 1 + f(n - 1) end return f(4000)", { memory = 8 << 20 })
    assert.same({ true, 4000 }, { ok, depth })
  end)

  it("cannot hang the collector, now or later", function()
    fails("setmetatable({}, { __mode = 'k' })", "__mode is v or kv here")
    local box = sandbox.new()
    assert(box:run(assert(box:load([=[local mt, keys = {}, {}
      weak = setmetatable({}, mt)
      mt.__mode = "k"
      for i = 1, 16000 do keys[i] = {} end
      for i = 16000, 2, -1 do
        local j = math.random(i)
        keys[i], keys[j] = keys[j], keys[i]
      end
      first = keys[1]
      for i = 1, 15999 do weak[keys[i]] = keys[i + 1] end]=], "script"))))
    local began = os.clock()
    collectgarbage()
    assert.is_true(os.clock() - began < 0.5 * slowness)
    works("local t = setmetatable({}, { __mode = 'v' }) t[1] = 5 return t[1], getmetatable(t).__mode", 5, "v")
  end)

  it("gets its errors at its own line", function()
    for source, message in pairs {
      ["local x = 1\nlocal y = ('x'):rep(1 << 40)"] = "script:2: resulting string too large",
      ["\n\nlocal x = string.format('%d', 'x')"] = "script:3: bad argument #2 to ",
      ["local x = ('x'):gsub('x', '%2')"] = "script:1: invalid capture index",
      ["local x = ('x'):gsub('x', function() error('mine') end)"] = "script:1: mine",
      ["local x = ('x'):gsub('x', function() error('mine', 0) end)"] = "^mine$",
      ["local x = table.concat({ {} })"] = "script:1: invalid value %(table%) at index 1 in table",
      ["table.sort({ 1, 'x' })\nlocal x"] = "^script:1: attempt to compare",
      ["table.sort({ 1, 2 }, function() error('mine', 0) end)\nlocal x"] = "^mine$",
      ["table.sort(setmetatable({ 1, 'x' }, {}))\nlocal x"] = "^script:1: attempt to compare",
      ["table.insert(setmetatable({}, {}), 5, 5)\nlocal x"] = "script:1: bad argument #2 to ",
      ["table.sort({ 3, 1, 2, 5, 4, 7, 6 }, function() return true end)\nlocal x"] = "script:1: invalid order function",
      ["table.insert({}, 5, 5)\nlocal x"] = "script:1: bad argument #2 to ", ["local x = math.max(1, 'x')"] = "script:1: attempt to compare number with string",
      ["table.insert(nil, 5)\nlocal x"] = "script:1: bad argument #1 to 'insert'", ["local x = tonumber()"] = "script:1: bad argument #1 to " } do
      fails(source, message)
    end
  end)

  it("has lists with metatables as elsewhere", function()
    works([[local t = setmetatable({ 3, 1, 2 }, { __index = table }) t:insert(5) t:insert(1, 4) t:sort()
      return t:concat(","), t:remove(), t:remove(1), #t, t:unpack()]], "1,2,3,4,5", 5, 1, 3, 2, 3, 4)
    works([[local log = {} local t = setmetatable({}, { __index = function(_, i) return i <= 3 and i * 10 or nil end, __len = function() return 3 end,
      __newindex = function(_, k, v) log[#log + 1] = k .. "=" .. v end }) table.insert(t, 7)
      return table.concat(t, "+"), log[1], table.concat(t, "", 2, 3), select("#", table.unpack(t)), table.concat(table.move(t, 1, 3, 2, { 9 }), " ")]],
      "10+20+30", "4=7", "2030", 3, "9 10 20 30")
    works([[local t = setmetatable({ 1, 2, 3 }, {})
      table.move(t, 1, 3, 2) local a = table.concat(t, " ") table.move(t, 2, 4, 1) return a, table.concat(t, " ")]], "1 1 2 3", "1 2 3 3")
    works([[local C = {} C.__index = C function C.new() return setmetatable({}, C) end function C:get() return 5 end C.__tostring = function() return "C" end
      local one = C.new() return one:get(), tostring(one), getmetatable(one) == C, C.new() == C.new()]], 5, "C", true, false)
    works([[return ("abc"):gsub("%w", setmetatable({}, { __index = function(_, k) return k:upper() end }))]], "ABC", 3)
  end)

  it("may make garbage", function()
    local ok, err = run("for i = 1, 20000 do local t = { i, tostring(i) } end return true", { memory = 1 << 20, instructions = 1e7 })
    assert(ok, err)
  end)

  it("is found out when it hoards from call to call", function()
    local box = sandbox.new { memory = 1 << 18 }
    local fn = select(2, box:run(assert(box:load("local kept = {} return function() kept[#kept + 1] = ('x'):rep(10000) .. #kept end", "script"))))
    local garbage = select(2, box:run(assert(box:load("return function() return ('x'):rep(10000) .. 1 end", "script"))))
    for _ = 1, 1000 do
      assert(box:run(garbage))
      assert.is_nil((box:hoards(garbage)))
    end
    local reason, calls = nil, 0
    while not reason and calls < 1000 do
      assert(box:run(fn))
      calls, reason = calls + 1, box:hoards(fn)
    end
    assert.matches("more than 256 KiB of memory", reason)
    assert.is_true(calls >= 20 and calls < 60, tostring(calls))
  end)

  it("is stopped by the clock, too", function()
    fails("local s = ('x'):rep(1000000) while true do local t = s:lower() end", "processor time",
      { instructions = 1e12, seconds = 0.2, memory = 1 << 24 })
  end)

  it("cannot yield through us", function()
    local thread = coroutine.create(function() return sandbox.new():run(coroutine.yield, 1) end)
    local _, ok, err = coroutine.resume(thread)
    assert.same({ false, "dead" }, { ok, coroutine.status(thread) })
    assert.matches("yield", err)
  end)

  it("leaves the hook, the collector and the threads of the host alone", function()
    local box, thread = sandbox.new(), nil
    box:provide("host", { work = function() thread = coroutine.create(function() for _ = 1, 1000 do thread = thread end return 7 end) end })
    local function hook() end
    local restore = helper.keep_hook()
    debug.sethook(hook, "c", 0)
    local ok = box:run(assert(box:load("host.work() while true do end", "script")))
    local now, of_any = debug.gethook(), debug.gethook(coroutine.create(print))
    restore()
    assert.same({ false, hook }, { ok, now })
    assert.equal(of_any, (debug.gethook(thread)))
    assert.same({ true, 7 }, { coroutine.resume(thread) })
    assert.is_true(collectgarbage("isrunning"))
    collectgarbage("stop")
    box:run(assert(box:load("return 1", "script")))
    assert.is_false(collectgarbage("isrunning"))
    collectgarbage("restart")
  end)

  it("is charged with what it makes the host keep", function()
    local box, kept = sandbox.new { memory = 1 << 20 }, {}
    box:provide("keep", function(value) kept[#kept + 1] = { value } end)
    local ok, err = box:run(assert(box:load("for i = 1, 1e9 do keep(i) end", "script")))
    assert.is_false(ok)
    assert.matches("more than 1024 KiB of memory", err)
    assert.is_true(#kept < 20000)
  end)

  it("can be of several at a time, one inside the other", function()
    local outer, inner = sandbox.new { instructions = 1e6 }, sandbox.new { instructions = 1e4 }
    outer:provide("inner", function() return inner:run(assert(inner:load("while true do end", "inner"))) end)
    local ok, err = outer:run(assert(outer:load("local n = 0 for i = 1, 10 do if not inner() then n = n + 1 end end return n", "outer")))
    assert.same({ true, 10 }, { ok, err })
    assert.equal(string, getmetatable("").__index)
  end)

  it("gets errors of ours at its own line, and is not inside us when we call our own strings", function()
    local box = sandbox.new()
    box:provide("host", { fail = function() error("no", 0) end, shout = function(text) return text:upper() end })
    local ok, err = box:run(assert(box:load("string.upper = function() return 'evil' end\nreturn host.shout('a') .. ('a'):upper()", "script")))
    assert.same({ true, "Aevil" }, { ok, err })
    ok, err = box:run(assert(box:load("local x = 1\nhost.fail()", "script")))
    assert.same({ false, "script:2: no" }, { ok, err })
    ok, err = box:run(assert(box:load("return pcall(host.fail)", "script")))
    assert.is_true(ok, err)
  end)

  it("prints through us", function()
    local printed = {}
    local box = sandbox.new { print = function(text) printed[#printed + 1] = text end }
    assert(box:run(assert(box:load("print(1, nil, 'x')", "script"))))
    assert.same({ "1\tnil\tx" }, printed)
  end)
end)

describe("the cost of a pattern", function()
  local cost = require("mbus.sandbox.pattern").cost

  -- A matcher that counts its steps, for simple patterns of single letters and quantifiers.
  local function steps(text, pattern)
    local items = {}
    for class, suffix in pattern:gmatch("([%a.])([*+?-]?)") do items[#items + 1] = { class, suffix } end
    local count = 0
    local function match(at, item)
      count = count + 1
      local one = items[item]
      if not one then return true end
      local function fits(place) return place <= #text and (one[1] == "." or text:sub(place, place) == one[1]) end
      if one[2] == "" then return fits(at) and match(at + 1, item + 1) end
      local most = 0
      while (one[2] ~= "?" or most < 1) and fits(at + most) do most = most + 1 end
      for taken = one[2] == "+" and 1 or 0, most do
        if match(at + taken, item + 1) then return true end
      end
    end
    for start = 1, #text + 1 do
      if match(start, 1) then break end
    end
    return count
  end

  it("is never less than the steps that are taken", function()
    local seed = 7
    local function random(most)
      seed = (seed * 1103515245 + 12345) % (1 << 31)
      return (seed >> 8) % most + 1
    end
    for _ = 1, 500 do
      local text, pattern = {}, {}
      for i = 1, random(10) do text[i] = ({ "a", "b" })[random(2)] end
      for i = 1, random(5) do pattern[i] = ({ "a", "b", "." })[random(3)] .. ({ "", "*", "+", "-", "?" })[random(5)] end
      text, pattern = table.concat(text), table.concat(pattern) .. "x"
      assert.is_true(steps(text, pattern) <= cost(text, pattern) * 2, text .. " " .. pattern)
    end
  end)

  it("is small for what scripts need", function()
    local text = ("key=value, "):rep(180)
    for _, pattern in ipairs { "(%w+)=(%w+)", "^%s*(.-)%s*$", "[^,]+", "(%w+)=(%w+),?%s*", "^.*=()" } do
      assert.is_true(cost(text, pattern) < 3e7, pattern)
    end
  end)
end)
