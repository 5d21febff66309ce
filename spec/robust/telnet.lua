---What a port server sends: the same data and the same commands wherever the stream is cut; and RFC 2217 over a connection
---without sockets, on a clock of its own.
local choices = require "spec.robust.choices"
local promise = require "spec.robust.promise"
local telnet = require "mbus.transport.telnet"

-- Data, commands one by one, and how much is kept at most.
local function read(pieces)
  local log, kept = {}, 0
  local reader
  reader = telnet.new(function(verb, option) log[#log + 1] = verb .. option end,
    function(option, payload) log[#log + 1] = "sub" .. option .. ":" .. payload end)
  local data = {}
  for i, piece in ipairs(pieces) do
    data[i] = reader:feed(piece)
    local size = 0
    for _, part in ipairs(reader.payload or {}) do size = size + #part end
    kept = math.max(kept, size)
  end
  promise.that(kept <= 256 + 8, "%d bytes of a command are kept", kept)
  return table.concat(data), table.concat(log, "\n"), reader.commands
end

local function check_telnet(choose)
  local cuts = choices.new(choose:bytes(16))
  local stream = choose:rest()
  local data, log, commands = read { stream }
  local cut_data, cut_log, cut_commands = read(cuts:cuts(stream))
  promise.that(data == cut_data and log == cut_log and commands == cut_commands, "the cuts matter")
  promise.that(#data <= #stream, "more data than came")
  local back, none = read { telnet.escape(stream) }
  promise.that(back == stream and none == "", "data is not what was sent")
  return commands > 0
end

-- --- a connection without sockets

local clock = 0

-- Stands for mbus.transport.tcp while rfc2217 is loaded: what the server sends is a list of pieces, one each 50 ms.
local function fake_tcp()
  local Tcp = {}
  Tcp.__index = Tcp
  function Tcp.__close() end
  function Tcp:accept(bytes)
    self.held = self.held .. bytes
    self.size = #self.held
  end
  function Tcp:take()
    local bytes = self.held
    self.held, self.size = "", 0
    return bytes
  end
  function Tcp:wait(seconds)
    clock = clock + math.min(seconds, 0.05)
    local piece = table.remove(self.pieces, 1)
    if piece then self:accept(piece) end
  end
  function Tcp:read(seconds)
    if self.size == 0 then self:wait(seconds) end
    return self:take()
  end
  function Tcp.turned_away() return require("mbus.error").new("closed", "closed") end
  function Tcp.ensure() return true end
  function Tcp.wake() end
  function Tcp:disconnect(err) self.socket, self.lost = nil, err end
  return { Tcp = Tcp, new = function(class, parsed, options) return setmetatable({ name = "rfc2217", held = "", size = 0,
      host = parsed.host, port = parsed.port, pieces = options.pieces, baudrate = options.baudrate or 2400, sent = 0,
      path = { airtime = function(_, n) return n * 11 / 2400 end } }, class) end,
    start = function(self)
      self.socket = { write = function(_, bytes) self.sent = self.sent + #bytes end }
      local ok, err = self:greet(clock + 5)
      if not ok then return nil, err end
      return self
    end }
end

local function load_rfc2217()
  local loaded = package.loaded
  local saved = { tcp = loaded["mbus.transport.tcp"], rfc = loaded["mbus.transport.rfc2217"], runtime = loaded["mbus.runtime"] }
  loaded["mbus.transport.tcp"], loaded["mbus.runtime"] = fake_tcp(), { now = function() return clock end }
  loaded["mbus.transport.rfc2217"] = nil
  local module = require "mbus.transport.rfc2217"
  loaded["mbus.transport.tcp"], loaded["mbus.transport.rfc2217"], loaded["mbus.runtime"] = saved.tcp, saved.rfc, saved.runtime
  return module
end

local rfc2217 = load_rfc2217()
local AGREES = telnet.option("do", 44) .. telnet.option("do", 0) .. telnet.option("will", 0) .. telnet.option("will", 3)

local function answer(command, value) return telnet.subnegotiation(44, string.char(100 + command) .. value) end

-- What a server answers, in order, with changes; then any bytes.
local function conversation(choose)
  local parts = { AGREES, answer(1, (">I4"):pack(2400)), answer(2, "\8"), answer(3, "\3"), answer(4, "\1"), answer(5, "\1"), answer(10, "\x1E"),
    answer(11, "\0"), answer(12, "\1") }
  for _ = 1, choose:below(4) do
    local at = 1 + choose:below(#parts)
    local part = parts[at]
    local kind = choose:below(4)
    if kind == 0 then table.remove(parts, at) end
    if kind == 1 then parts[at] = choose:bend(part) end
    if kind == 2 then table.insert(parts, at, answer(choose:below(13), choose:bytes(choose:below(6)))) end
    if kind == 3 then parts[at] = telnet.option(choose:one_of { "will", "wont", "do", "dont" }, choose:below(256)) .. part end
    if #parts == 0 then return { choose:rest() } end
  end
  parts[#parts + 1] = choose:rest()
  return parts
end

local function check_rfc2217(choose)
  clock = 0
  local transport, err = rfc2217.open({ host = "h", port = 1 }, { pieces = conversation(choose), parity = "even" })
  promise.that(clock <= 6, "the negotiation takes %g s", clock)
  if not promise.result(transport, err) then return false end
  for _ = 1, 30 do
    local bytes, errors = transport:read(0.1)
    promise.that(type(bytes) == "string" and (errors == nil or math.type(errors) == "integer"), "nothing is read")
  end
  promise.result(transport:set_baudrate(9600))
  -- Each of 256 options is answered once for us and once for them, 3 bytes each.
  promise.that(transport.sent <= 2 * 256 * 3 + 200, "%d bytes are sent to somebody who keeps asking", transport.sent)
  return true
end

local function run(input)
  local choose = choices.new(input)
  return (choose:below(2) == 0 and check_telnet or check_rfc2217)(choose)
end

local zeros = ("\0"):rep(16)
local seeds = {
  data = "\0" .. zeros .. "abc\xFF\xFFdef", options = "\0" .. zeros .. AGREES, subnegotiation = "\0" .. ("\2"):rep(16) .. answer(1, "\0\0\9\x60") .. "x",
  long = "\0" .. ("\3"):rep(16) .. telnet.subnegotiation(44, ("y"):rep(300)) .. "z", nested = "\0" .. zeros .. "\xFF\xFA\44a\xFF\xFB\1b\xFF\xF0c",
  good = "\1\0hello", removed = "\1\1\3\0abc", bent = "\1\2\1\1\2\3\4\5\6\7\8", inserted = "\1\1\4\2\7\3abc", asked = "\1\3\1\3\2\77\4\3\1\88",
  damage = "\1\0" .. answer(6, "\x04") .. "abc" .. answer(7, "\xF0"),
}

return { seeds = seeds, run = run, least = 0.4 }
