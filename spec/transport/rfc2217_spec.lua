local runtime = require "mbus.runtime"
local telnet = require "mbus.transport.telnet"
local transport = require "mbus.transport"

local COM_PORT, BINARY = 44, 0

-- A port server on the loopback: acknowledges what it is asked and sends data back as "<data>". `habits` change that:
--   options(verb, option) -> reply, or false for silence      setting(command, value) -> value, or false for silence
--   greeting, prefix (bytes before each answer), silent
local function port_server(habits)
  local uv = runtime.luv()
  local self = { settings = {}, purges = 0, clients = {}, data = "", server = uv.new_tcp() }
  local function serve(client)
    local said = {}
    local function put(bytes) if not client:is_closing() then client:write(bytes) end end
    self.clients[#self.clients + 1] = client
    self.put = put
    put(habits.greeting or "")
    local machine = telnet.new(function(verb, option)
      local reply = ({ will = "do", ["do"] = "will" })[verb]
      if habits.options then
        local other = habits.options(verb, option)
        if other ~= nil then reply = other end
      end
      if reply and not said[reply .. option] then put(telnet.option(reply, option)) end
      if reply then said[reply .. option] = true end
    end, function(_, payload)
      local command, value = payload:byte(), payload:sub(2)
      if command == 12 then self.purges = self.purges + 1 end
      self.settings[#self.settings + 1] = command .. "=" .. telnet.escape(value):gsub(".", function(c) return c:byte() .. " " end)
      local answer = value
      if habits.setting then
        local other = habits.setting(command, value)
        if other ~= nil then answer = other end
      end
      if answer then put(telnet.subnegotiation(COM_PORT, string.char(command + 100) .. answer)) end
    end)
    client:read_start(function(_, bytes)
      if not bytes then
        if not client:is_closing() then client:close() end
        return
      end
      if habits.silent then return end
      local data = machine:feed(bytes)
      if data == "" then return end
      self.data = self.data .. data
      put((habits.prefix or "") .. telnet.escape("<" .. data .. ">"))
    end)
  end
  self.server:bind("127.0.0.1", 0)
  self.server:listen(8, function()
    local client = uv.new_tcp()
    self.server:accept(client)
    serve(client)
  end)
  self.url = "rfc2217://127.0.0.1:" .. self.server:getsockname().port
  function self.hang_up()
    for _, client in ipairs(self.clients) do
      if not client:is_closing() then client:close() end
    end
  end
  function self.stop()
    self.hang_up()
    if not self.server:is_closing() then self.server:close() end
  end
  return self
end

describe("mbus.transport.rfc2217", function()
  local there

  local function serve(habits) there = port_server(habits or {}) end

  -- Time enough for a server that answers, however busy the computer is.
  local function open(options)
    local all = { negotiation_timeout = 10, backoff = 0.01 }
    for name, value in pairs(options or {}) do all[name] = value end
    return transport.open(there.url, all)
  end

  local function refused(habits, kind, ...)
    serve(habits)
    local start = runtime.now()
    local line, err = open { negotiation_timeout = 0.1 }
    assert.is_nil(line)
    assert.equal(kind, err.kind, tostring(err))
    assert.equal(there.url, err.bus)
    for _, part in ipairs { ... } do assert.matches(part, err.message, 1, true) end
    assert.is_true(runtime.now() - start < 1)
    there.stop()
  end

  after_each(function()
    if there then there.stop() end
    there = nil
    runtime.run()
  end)

  it("sets the line and carries every byte both ways", function()
    serve()
    local line <close> = assert(open { baudrate = 300, parity = "odd", databits = 7, stopbits = 2, dtr = true, rts = false })
    local told = table.concat(there.settings, ", ")
    for _, setting in ipairs { "1=0 0 1 44 ", "2=7 ", "3=2 ", "4=2 ", "5=1 ", "5=8 ", "5=12 ", "10=30 ", "11=0 ", "12=1 " } do
      assert.matches(setting, told, 1, true)
    end
    assert.equal(300, line.baudrate)
    local selection = "\x68\x0B\x0B\x68\x53\xFD\x52" .. ("\xFF"):rep(8) .. "\x9A\x16\x00\x0D\x0A"
    assert.is_true(line:write(selection))
    assert.same({ "<" .. selection .. ">", 0 }, { line:read(1) })
    assert.equal(selection, there.data)
  end)

  it("works in coroutines", function()
    serve()
    local answer
    runtime.spawn(function()
      local line <close> = assert(open())
      line:write "x"
      answer = line:read(1)
    end)
    local deadline = runtime.now() + 5
    while not answer and runtime.now() < deadline do runtime.sleep(0.005) end
    assert.equal("<x>", answer)
  end)

  it("changes the baud rate, and keeps it over a new connection", function()
    serve()
    local line <close> = assert(open())
    assert.is_true(line:set_baudrate(9600))
    assert.equal(9600, line.baudrate)
    assert.equal("1=0 0 37 128 ", there.settings[#there.settings])
    there.settings = {}
    there.hang_up()
    assert.equal("closed", select(2, line:read(1)).kind)
    assert.is_true(line:write "x")
    assert.equal("<x>", line:read(1))
    assert.equal("1=0 0 37 128 ", there.settings[1])
  end)

  it("keeps the baud rate where the server cannot change it", function()
    serve { setting = function(command, value)
      if command == 1 and value ~= "\x00\x00\x09\x60" then return "\x00\x00\x09\x60" end
    end }
    local line <close> = assert(open())
    local ok, err = line:set_baudrate(38400)
    assert.is_nil(ok)
    assert.same({ "unsupported", "baud rate: 38400 baud asked for, the server sets 2400 baud" }, { err.kind, err.message })
    assert.equal(2400, line.baudrate)
    line:write "x"
    assert.equal("<x>", line:read(1))
  end)

  it("is not left at a speed that it does not know of", function()
    local sets = 2400
    serve { setting = function(command, value)
      if command ~= 1 then return nil end
      local asked = string.unpack(">I4", value)
      sets = math.min(asked, 4800)              -- the fastest that it can
      if asked == 300 then return false end     -- done, and not acknowledged
      return string.pack(">I4", sets)
    end }
    local line <close> = assert(open { negotiation_timeout = 0.3 })
    for asked, kind in pairs { [38400] = "unsupported", [300] = "timeout" } do
      local ok, err = line:set_baudrate(asked)
      assert.is_nil(ok)
      assert.equal(kind, err.kind)
      assert.equal(2400, line.baudrate)
      assert.is_true(line:write "x")
      assert.equal(2400, sets)
      assert.equal("<x>", line:read(1))
    end
  end)

  it("tells a plain TCP port, a plain telnet port and a server that refuses", function()
    refused({ silent = true }, "unsupported", "no telnet answer within 0.1 s", "tcp://127.0.0.1:")
    refused({ silent = true, greeting = "hello" }, "unsupported", "no telnet answer")
    refused({ options = function(_, option) return option == COM_PORT and "dont" or nil end }, "unsupported",
      "refuses the COM-PORT option", "telnet")
    refused({ options = function(_, option) if option == COM_PORT then return false end end }, "unsupported",
      "does not answer the COM-PORT option")
    refused({ options = function(verb, option) if option == BINARY and verb == "will" then return "dont" end end }, "unsupported",
      "refuses binary transmission")
    refused({ options = function(_, option) if option == BINARY then return false end end }, "unsupported", "binary")
  end)

  it("compares what is acknowledged with what was asked", function()
    refused({ setting = function(command) if command == 1 then return "\x00\x00\x25\x80" end end }, "unsupported",
      "2400 baud asked for, the server sets 9600 baud")
    refused({ setting = function(command) if command == 3 then return "\x01" end end }, "unsupported",
      "parity: even asked for, the server sets none")
    refused({ setting = function(command) if command == 2 then return "\x07" end end }, "unsupported", "data bits: 8 asked for")
    refused({ setting = function(command) if command == 4 then return "" end end }, "unsupported", "stop bits", "something else")
    refused({ setting = function(command) if command == 4 then return false end end }, "timeout", "no answer to the stop bits")
  end)

  it("does without an answer for DTR and RTS, but not with the opposite", function()
    serve { setting = function(command) if command == 5 or command > 9 then return false end end }
    local line <close> = assert(open { dtr = true, rts = true, negotiation_timeout = 0.2 })
    line:write "x"
    assert.equal("<x>", line:read(1))
    assert.equal(1, there.purges)     -- no purge before a request where the server does not know it
    there.stop()
    serve { setting = function(command, value) if command == 5 and value == "\x08" then return "\x09" end end }
    local none, err = open { dtr = true }
    assert.is_nil(none)
    assert.same({ "unsupported", "DTR: the server does not set it on" }, { err.kind, err.message })
  end)

  it("has the server throw away what waits, before each request", function()
    serve { setting = function(command)
      if command == 12 and there.purges > 1 then there.put "late answer of another meter" end
    end }
    local line <close> = assert(open())
    for _ = 1, 3 do
      line:write "x"
      assert.equal("<x>", line:read(1))
    end
    assert.equal(4, there.purges)
  end)

  it("counts the line errors that the server tells of", function()
    serve { prefix = "\xFF\xFA\x2C\x6A\x0C\xFF\xF0\xFF\xFA\x2C\x6A\x60\xFF\xF0" }
    local line <close> = assert(open())
    line:write "x"
    assert.same({ "<x>", 1 }, { line:read(1) })
    line:write "y"
    assert.same({ "<y>", 1 }, { line:read(1) })
  end)

  it("forgets the line errors of what it throws away", function()
    serve()
    local line <close> = assert(open())
    there.put "late\xFF\xFA\x2C\x6A\x0C\xFF\xF0"
    while line.size == 0 or line.line_errors == 0 do runtime.sleep(0.001) end
    assert.equal("late", line:drain())
    line:write "x"
    assert.same({ "<x>", 0 }, { line:read(1) })
  end)

  it("is not kept busy by commands", function()
    serve()
    local line <close> = assert(open())
    local told = {}
    for option = 0, 255 do
      for _, verb in ipairs { "will", "do", "wont", "dont" } do told[#told + 1] = telnet.option(verb, option) end
    end
    there.put((table.concat(told) .. ("\xFF\xF1"):rep(1000)):rep(5))
    there.put("\xFF\xFA" .. ("x"):rep(20000) .. "\xFF\xF0")
    local start = runtime.now()
    assert.same({ "", 0 }, { line:read(0.05) })
    assert.is_true(runtime.now() - start >= 0.05)
    line:write "x"
    assert.equal("<x>", line:read(1))
  end)

  it("ends a flood of commands", function()
    serve()
    local line <close> = assert(open())
    there.put("\xFF\xFA" .. ("x"):rep(1000000))
    assert.same({ "noise" }, { select(2, line:read(5)).kind })
  end)

  it("gives up in time on a server that drips", function()
    serve { silent = true }
    local stop
    local function drip()
      if there.put then there.put "\xFF\xF1" end
      stop = runtime.after(0.01, drip)
    end
    drip()
    local start = runtime.now()
    local line, err = open { negotiation_timeout = 0.1 }
    stop()
    assert.is_nil(line)
    assert.equal("unsupported", err.kind)
    assert.is_true(runtime.now() - start < 0.5)
  end)

  it("says that the port is in use", function()
    serve { greeting = "Port already in use\r\n", silent = true }
    runtime.after(0.02, function() there.hang_up() end)
    local line, err = open { negotiation_timeout = 2 }
    assert.is_nil(line)
    assert.equal("busy", err.kind)
    assert.matches('it says "Port already in use"', err.message, 1, true)
  end)

  it("wakes a reader when it is closed", function()
    serve()
    local line = assert(open())
    local err
    runtime.spawn(function() err = select(2, line:read(60)) end)
    line:close()
    assert.equal("closed", err.kind)
    for _, call in ipairs { "write", "read", "drain", "set_baudrate" } do
      assert.equal("closed", select(2, line[call](line, call == "write" and "x" or 300)).kind, call)
    end
  end)
end)
