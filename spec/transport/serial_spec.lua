local runtime = require "mbus.runtime"
local serial = require "mbus.serial"
local transport = require "mbus.transport"

local function shell(command)
  local pipe = assert(io.popen("{ " .. command .. "; } 2>&1"))
  local output = pipe:read "a"
  pipe:close()
  return (output:gsub("%s+$", ""))
end

local function interpreter()
  local first = 0
  while arg[first - 1] do first = first - 1 end
  return arg[first]
end

-- What the operating system has set on a port.
local function terminal(path)
  local flags = {}
  local text = shell("stty -a -F " .. path)
  for flag in text:gmatch "%-?%w+" do flags[flag] = true end
  return flags, tonumber(text:match "speed (%d+)")
end

describe("mbus.serial", function()
  local master, path

  before_each(function() master, path = assert(serial.pty()) end)
  after_each(function() master:close() end)

  it("opens a pseudo-terminal for M-Bus", function()
    shell("stty cooked echo hupcl crtscts -clocal ignbrk ignpar istrip ixoff inlcr igncr cs7 cstopb 9600 -F " .. path)
    local port <close> = assert(serial.open(path))
    local flags, speed = terminal(path)
    assert.equal(2400, speed)
    for _, flag in ipairs { "cs8", "-cstopb", "inpck", "parmrk", "-ignpar", "-ignbrk", "-brkint", "-istrip", "-ixon", "-ixoff",
      "-icrnl", "-inlcr", "-igncr", "-opost", "-icanon", "-isig", "-echo", "-hupcl", "clocal", "cread", "-crtscts" } do
      assert.is_true(flags[flag], flag)
    end
    assert.equal(path, port:name())
    assert.equal("integer", math.type(port:fd()))
    assert.equal("serial port (" .. path .. ")", tostring(port))
  end)

  it("sets the line as told", function()
    local port <close> = assert(serial.open(path, { baudrate = 300, databits = 7, stopbits = 2, parity = "none", rts = true }))
    local flags, speed = terminal(path)
    assert.equal(300, speed)
    assert.is_true(flags.cstopb)
    for _, baudrate in ipairs { 600, 1200, 2400, 4800, 9600, 19200, 38400 } do
      assert.is_true(port:set_baudrate(baudrate))
      flags, speed = terminal(path)
      assert.equal(baudrate, speed)
      assert.is_true(flags.parmrk)
    end
    local ok, message, kind = port:set_baudrate(2401)
    assert.same({ nil, path .. ": baud rate not supported", "invalid" }, { ok, message, kind })
  end)

  it("passes every byte unchanged, both ways", function()
    local port <close> = assert(serial.open(path))
    local all = {}
    for byte = 0, 255 do all[#all + 1] = string.char(byte) end
    all = table.concat(all) .. "\xff\xff\x00\x00\xff"
    assert.equal(#all, master:write(all))
    assert.same({ all, 0 }, { port:read() })
    assert.equal(#all, port:write(all))
    assert.same({ all, 0 }, { master:read() })
    assert.same({ "", 0 }, { port:read() })
    assert.same({ "", 0 }, { master:read(1) })
  end)

  it("does not lose its place in an escape between two reads", function()
    local port <close> = assert(serial.open(path))
    local sent = ("\xff\x00\xff\xff"):rep(20)
    master:write(sent)
    local got = ""
    repeat
      local bytes, errors = port:read(1)
      assert.equal(0, errors)
      assert.is_true(#bytes <= 1)
      got = got .. bytes
    until bytes == ""
    assert.equal(sent, got)
  end)

  it("counts damaged characters and breaks", function()
    local port <close> = assert(serial.open(path))
    shell("stty -parmrk -F " .. path)         -- so that we can write what the driver would make of a damaged character
    master:write "\x68\xff\x00\xa5\x16"
    assert.same({ "\x68\xa5\x16", 1 }, { port:read() })
    master:write "\xff\x00\x00\xff\x00\xff\xff\xff"
    assert.same({ "\x00\xff\xff", 2 }, { port:read() })
    master:write "\x01\xff"
    assert.same({ "\x01", 0 }, { port:read() })
    master:write "\x00"
    assert.same({ "", 0 }, { port:read() })
    master:write "\x85"
    assert.same({ "\x85", 1 }, { port:read() })
  end)

  it("throws away what waits", function()
    local port <close> = assert(serial.open(path))
    master:write "late answer"
    assert.is_true(port:flush())
    assert.same({ "", 0 }, { port:read() })
    master:write "old"
    port:close()
    local again <close> = assert(serial.open(path))
    assert.same({ "", 0 }, { again:read() })
  end)

  it("keeps our end of a pseudo-terminal alive while clients come and go", function()
    assert.same({ "", 0 }, { master:read() })
    for _ = 1, 2 do
      local port <close> = assert(serial.open(path))
      port:write "hello"
      port:close()
      assert.same({ "hello", 0 }, { master:read() })
      assert.same({ "", 0 }, { master:read() })
      assert.equal(1, master:write "x")
    end
  end)

  it("writes what fits, and says how much", function()
    local port <close> = assert(serial.open(path))
    local chunk, total = ("x"):rep(65536), 0
    repeat
      local count = assert(port:write(chunk))
      total = total + count
    until count == 0
    assert.is_true(total > 0 and total < 1000000)
    local got = 0
    repeat
      local bytes = assert(master:read(65536))
      got = got + #bytes
    until bytes == ""
    assert.is_true(got > 0)
    assert.is_true(port:write "y" > 0)
  end)

  it("gives a port to one master only, until it is closed", function()
    local port = assert(serial.open(path))
    assert.same({ nil, path .. ": this program has it open already", "busy" }, { serial.open(path) })
    port:close()
    assert(serial.open(path)):close()
  end)

  it("names the program that has the port", function()
    local script = ('p = assert(package.loadlib(%q, "luaopen_mbus_serial")().open(%q)) print(p) io.stdout:flush() io.read()')
      :format(assert(package.searchpath("mbus.serial", package.cpath)), path)
    local fifo = os.tmpname()
    shell(("rm -f %s; mkfifo %s"):format(fifo, fifo))
    local pipe = assert(io.popen(("exec %s -e '%s' <%s"):format(interpreter(), script, fifo)))
    local hold = assert(io.open(fifo, "w"))   -- the other program ends when this is closed
    finally(function() os.remove(fifo) end)
    assert.matches("serial port", pipe:read "l")
    local port, message, kind = serial.open(path)
    hold:close()
    pipe:close()
    assert.is_nil(port)
    assert.equal("busy", kind)
    assert.matches("^" .. path .. ": lua.* %(process %d+%) uses it$", message)
    assert(serial.open(path)):close()
  end)

  it("says that a driver does not drive RS-485", function()
    for _, mode in ipairs { "on", "inverted", "off" } do
      local port, message, kind = serial.open(path, { rs485 = mode })
      assert.is_nil(port)
      assert.equal("unsupported", kind)
      assert.matches("does not drive the direction of RS-485", message, 1, true)
    end
    assert(serial.open(path, { rs485 = "leave" })):close()
  end)

  it("lists the ports of this machine", function()
    for _, port in ipairs(assert(serial.ports())) do
      assert.equal("string", type(port.name))
      assert.equal(port.kind == "usb" and "integer" or "nil", math.type(port.vid) or "nil")
    end
  end)

  it("follows links", function()
    local link = os.tmpname()
    os.remove(link)
    shell(("ln -s %s %s"):format(path, link))
    finally(function() os.remove(link) end)
    local port <close> = assert(serial.open(link))
    assert.equal(link, port:name())
    local _, _, kind = serial.open(path)
    assert.equal("busy", kind)
  end)

  it("may be closed twice, and says so when it is used afterwards", function()
    local port = assert(serial.open(path))
    port:close()
    port:close()
    local closed = { nil, path .. ": the port is closed", "closed" }
    assert.same(closed, { port:read() })
    assert.same(closed, { port:write "x" })
    assert.same(closed, { port:flush() })
    assert.same(closed, { port:set_baudrate(300) })
    assert.is_nil(port:fd())
    assert.equal("serial port (" .. path .. ", closed)", tostring(port))
  end)

  it("is closed by the collector", function()
    assert(serial.open(path))
    collectgarbage()
    collectgarbage()
    assert(serial.open(path)):close()
  end)

  it("reports that the other end has gone", function()
    local port <close> = assert(serial.open(path))
    master:close()
    local bytes, message, kind = port:read()
    assert.is_nil(bytes)
    assert.equal("closed", kind)
    assert.matches(path .. ": the device is gone", message, 1, true)
    bytes, message, kind = port:write "x"
    assert.is_nil(bytes)
    assert.equal("closed", kind)
    assert.matches("the device is gone", message, 1, true)
  end)

  it("says why a port cannot be opened", function()
    for name, kind in pairs { ["/dev/no_such_port"] = "not_found", ["/dev/null"] = "invalid", ["/dev"] = "invalid",
      ["/dev/null/x"] = "not_found" } do
      local port, message, got = serial.open(name)
      assert.is_nil(port)
      assert.equal(kind, got, name)
      assert.equal(name .. ": ", message:sub(1, #name + 2))
    end
  end)

  it("names the group that may use a port", function()
    local folder = shell "mktemp -d"          -- where another user finds the module
    finally(function() shell("rm -rf " .. folder) end)
    local module = assert(package.searchpath("mbus.serial", package.cpath))
    shell(("chmod 755 %s; cp %s %s/serial.so; chmod 755 %s/serial.so"):format(folder, module, folder, folder))
    local as_user = shell "id -u" == "0" and "setpriv --reuid=65534 --regid=65534 --clear-groups " or ""
    local function open()
      local script = ("print(select(2, package.loadlib(%q, 'luaopen_mbus_serial')().open(%q)))")
        :format(folder .. "/serial.so", path)
      return shell(("cd %s; %s%s -e \"%s\""):format(folder, as_user, interpreter(), (script:gsub('"', '\\"'))))
    end
    local group = shell("stat -c %G " .. path)
    shell("chmod 060 " .. path)
    local message = open()
    assert.matches(("%s: permission denied; members of the group \"%s\" may use it"):format(path, group), message, 1, true)
    assert.matches("permission$", message)
    shell("chmod 000 " .. path)
    assert.equal(path .. ": permission denied; only its owner may use it\tpermission", open())
  end)

  it("raises on wrong arguments", function()
    assert.has_error(function() serial.open() end)
    for name, value in pairs { baudrate = "fast", parity = "mark", databits = 9, stopbits = 0, rts = "on", rs485 = true } do
      assert.has_error(function() serial.open(path, { [name] = value }) end)
    end
    assert.has_error(function() master:read(0) end)
    assert.has_error(function() master:write(nil) end)
  end)
end)

describe("mbus.transport.serial", function()
  local master, path

  local function open(options) return assert(transport.open(path, options)) end

  before_each(function() master, path = assert(serial.pty()) end)

  after_each(function()
    master:close()
    runtime.run()
  end)

  it("has the properties of a transport", function()
    local line <close> = open()
    assert.same({ path, 0.1, 0.1, 2400 }, { line.name, line.margin, line.gap, line.baudrate })
    line:close()
    local again <close> = assert(transport.open("serial://" .. line.name .. "?baudrate=300&gap=0.5&rts=off",
      { baudrate = 9600, margin = 2, retries = 7 }))
    assert.same({ 2, 0.5, 300 }, { again.margin, again.gap, again.baudrate })
    assert.equal(300, select(2, terminal(path)))
  end)

  it("carries bytes, blocking and in coroutines", function()
    local line <close> = open()
    local function exchange()
      assert.is_true(line:write "\x10\x40\x05\x45\x16")
      assert.equal("\x10\x40\x05\x45\x16", master:read())
      runtime.after(0.01, function() master:write "\xe5" end)
      assert.same({ "\xe5", 0 }, { line:read(1) })
      return true
    end
    assert.is_true(exchange())
    local done
    runtime.spawn(function() done = exchange() end)
    assert.is_nil(done)
    runtime.run()
    assert.is_true(done)
  end)

  it("returns nothing when nothing comes, no earlier than asked", function()
    local line <close> = open()
    local start = runtime.now()
    assert.equal("", line:read(0.02))
    assert.is_true(runtime.now() - start >= 0.02)
    start = runtime.now()
    assert.equal("", line:read(0))
    assert.is_true(runtime.now() - start < 0.01)
  end)

  it("returns at once what is there already", function()
    local line <close> = open()
    master:write "abc"
    local start = runtime.now()
    assert.same({ "abc", 0 }, { line:read(5) })
    assert.is_true(runtime.now() - start < 1)
  end)

  it("throws away what came unasked", function()
    local line <close> = open()
    assert.equal("", line:drain())
    master:write(("late"):rep(500))
    assert.equal(("late"):rep(500), line:drain())
    assert.equal("", line:read(0))
  end)

  it("reports line errors", function()
    local line <close> = open()
    shell("stty -parmrk -F " .. path)
    master:write "\xff\x00\xa5"
    assert.same({ "\xa5", 1 }, { line:read(1) })
  end)

  it("waits until a full port takes the rest", function()
    local line <close> = open()
    local sent = ("0123456789abcdef"):rep(4000)
    local got = {}
    local done
    runtime.spawn(function() done = line:write(sent) end)
    assert.is_nil(done)
    runtime.spawn(function()
      repeat
        runtime.sleep(0.001)
        got[#got + 1] = master:read(65536)
      until #table.concat(got) == #sent
    end)
    runtime.run()
    assert.is_true(done)
    assert.equal(sent, table.concat(got))
  end)

  it("changes the baud rate", function()
    local line <close> = open()
    assert.is_true(line:set_baudrate(300))
    assert.equal(300, line.baudrate)
    assert.equal(300, select(2, terminal(path)))
  end)

  it("goes back to the speed that it knows of when a change fails half-way", function()
    local line <close> = open()
    local port = line.port
    line.port = setmetatable({}, { __index = function(_, name)
      return function(_, ...)
        local result, message, kind = port[name](port, ...)
        if name == "set_baudrate" and ... == 300 then return nil, "the driver sets another", "unsupported" end
        return result, message, kind
      end
    end })
    local ok, err = line:set_baudrate(300)
    assert.is_nil(ok)
    assert.equal("unsupported", err.kind)
    assert.equal(2400, line.baudrate)
    assert.equal(2400, select(2, terminal(path)))
  end)

  it("does not mix two callers up", function()
    local line <close> = open()
    runtime.spawn(function() line:read(0.02) end)
    local ok, message = pcall(line.read, line, 0.01)
    assert.is_false(ok)
    assert.matches("two callers wait on one port", message, 1, true)
    runtime.run()
  end)

  it("wakes a reader when it is closed", function()
    local line = open()
    local bytes, err
    runtime.spawn(function() bytes, err = line:read(60) end)
    line:close()
    line:close()
    runtime.run()
    assert.is_nil(bytes)
    assert.equal("closed", err.kind)
    assert.equal((path:gsub("^/dev/", "")) .. ": the port is closed", tostring(err))
    for _, call in ipairs { "write", "read", "drain", "set_baudrate" } do
      bytes, err = line[call](line, call == "write" and "x" or 300)
      assert.is_nil(bytes)
      assert.equal("closed", err.kind, call)
    end
  end)

  it("can be read again after a coroutine that read was closed", function()
    local line <close> = open()
    local thread = runtime.spawn(function() line:read(60) end)
    coroutine.close(thread)
    master:write "x"
    assert.equal("x", line:read(1))
  end)

  it("says that the device has gone, and opens it anew for the next write", function()
    local link = os.tmpname()
    local function point() shell(("ln -sf %s %s"):format(path, link)) end
    point()
    local line <close> = assert(transport.open(link, { backoff = 0.02, connect_timeout = 0.3 }))
    master:close()
    local bytes, err = line:read(60)
    assert.is_nil(bytes)
    assert.same({ "closed", link }, { err.kind, err.bus })
    assert.matches("the device is gone", tostring(err), 1, true)
    assert.equal(err, select(2, line:read(1)))
    assert.equal("", line:drain())

    os.remove(link)
    local ok
    ok, err = line:write "x"
    assert.is_nil(ok)
    assert.equal("not_found", err.kind)
    assert.matches("next attempt in", err.message, 1, true)

    master, path = assert(serial.pty())
    point()
    finally(function() os.remove(link) end)
    assert.is_true(line:write "hello")
    assert.equal("hello", master:read())
    master:write "again"
    assert.equal("again", line:read(1))
  end)

  it("waits within a request for a device that comes back", function()
    local link = os.tmpname()
    local function point() shell(("ln -sf %s %s"):format(path, link)) end
    point()
    finally(function() os.remove(link) end)
    local line <close> = assert(transport.open(link, { backoff = 0.02 }))
    master:close()
    assert.equal("closed", select(2, line:read(1)).kind)
    os.remove(link)
    runtime.after(0.1, function()
      master, path = assert(serial.pty())
      point()
    end)
    local start = runtime.now()
    assert.is_true(line:write "hello")
    assert.is_true(runtime.now() - start >= 0.1)
    assert.equal("hello", master:read())
  end)

  it("stops waiting for the device when it is closed", function()
    local line = open { backoff = 30, backoff_limit = 30, connect_timeout = 60 }
    master:close()
    line:read(1)
    local err
    line.backoff:failed(require("mbus.error").new("not_found", "gone"), runtime.now())
    runtime.spawn(function() err = select(2, line:write "x") end)
    assert.is_nil(err)
    line:close()
    runtime.sleep(0)
    assert.equal("closed", err.kind)
  end)

  it("wakes a reader when the device goes", function()
    local script = os.tmpname()         -- a process of its own, since luv reports the hang-up on standard error, too
    finally(function() os.remove(script) end)
    local file = assert(io.open(script, "w"))
    file:write(("package.path, package.cpath = %q, %q\n"):format(package.path, package.cpath), [[
      local runtime, transport = require "mbus.runtime", require "mbus.transport"
      local master, path = assert(require("mbus.serial").pty())
      local line = assert(transport.open(path))
      runtime.after(0.005, function() master:close() end)
      local start = runtime.now()
      local bytes, err = line:read(30)
      print(bytes, err.kind, runtime.now() - start < 10)
    ]])
    file:close()
    assert.equal("nil\tclosed\ttrue", shell(("%s %s 2>/dev/null"):format(interpreter(), script)))
  end)

  it("names the port once in an error", function()
    local line, err = transport.open "/dev/no_such_port"
    assert.is_nil(line)
    assert.equal("not_found", err.kind)
    assert.equal("no_such_port: no such port: No such file or directory", tostring(err))
    line, err = transport.open "/dev/null"
    assert.is_nil(line)
    assert.same({ "invalid", "null: not a serial port" }, { err.kind, tostring(err) })
  end)

  it("leaves no handles behind", function()
    local uv = runtime.luv()
    local function handles()
      local count = 0
      uv.walk(function(handle) if handle:is_active() then count = count + 1 end end)
      return count
    end
    local before = handles()
    for _ = 1, 3 do
      local line <close> = open()
      line:write "x"
      line:read(0.001)
    end
    runtime.run()
    assert.equal(before, handles())
  end)
end)
