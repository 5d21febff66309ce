---Serves a simulated bus to other programs, on a pseudo-terminal or a TCP port, with the timing of the real line: what a
---client writes takes its 11 bits a byte, and no byte of an answer is there before its last bit. Runs on luv's loop:
---
---    local served = assert(server.pty(sim, { link = "/tmp/mbus" }))
---    print(served.path)      -- "/dev/pts/3", also reached as /tmp/mbus
---    mbus.run()              -- until served:close()
---
---Clients come and go as they like; one at a time on TCP, as at real gateways: a second one is closed at once.
local Error = require "mbus.error"
local runtime = require "mbus.runtime"

local M = {}

local BACKLOG = 10 -- seconds on the line for what a client writes at once; a real converter's buffer overflows long before

---@class mbus.simulator.Server
---@field path string?      of the pseudo-terminal
---@field link string?      symbolic link to it
---@field host string?      address that it listens on
---@field port integer?     TCP port
---@field clients integer   that have connected (TCP)
---@field simulator mbus.simulator.Simulator
local Server = {}
Server.__index = Server

-- ------------------------------------------------------------------ time

local schedule

-- Gives out what is complete. When nothing more is on its way the timer rests.
local function deliver(self)
  local bytes = self.simulator:take(runtime.now())
  if bytes ~= "" then self.output(bytes) end
  if not self.closed then schedule(self) end
end

-- libuv counts whole milliseconds and may be early by one; `take` looks at the real time, so nothing is given out early.
function schedule(self)
  local time = self.simulator:next()
  if not time then
    self.timer:stop()
    return
  end
  runtime.luv().update_time()
  local milliseconds = math.ceil((time - runtime.now()) * 1000)
  self.timer:start(math.max(milliseconds, 0), 0, function() deliver(self) end)
end

local function hear(self, bytes)
  local now, sim = runtime.now(), self.simulator
  local room = (BACKLOG - sim:backlog(now)) * sim.baudrate // 11
  sim:receive(bytes:sub(1, math.max(0, math.tointeger(room))), now)
  schedule(self)
end

local function new(sim, fields)
  local self = setmetatable(fields, Server)
  self.simulator = sim
  self.timer = runtime.luv().new_timer()
  self.clients = 0
  self.output = function() end
  return self
end

---Ends the service. Idempotent.
function Server:close()
  if self.closed then return end
  self.closed = true
  runtime.close(self.timer)
  self.release()
end

Server.__close = Server.close

-- ------------------------------------------------------------------ pseudo-terminal

local function io_error(kind, path, message) return Error.new(kind, ("%s: %s"):format(path, message)) end

local KINDS = { EACCES = "permission", EPERM = "permission", ENOENT = "not_found", EADDRINUSE = "busy", EEXIST = "busy",
  EADDRNOTAVAIL = "invalid" }

-- luv says "ENOENT: no such file or directory: target -> link".
local function uv_error(path, message, code)
  return io_error(KINDS[code] or "io", path, message:match("^%u+: ([^:]*)") or message)
end

-- Only a symbolic link is ever replaced: that is what an earlier run leaves behind when it is killed.
local function make_link(target, link)
  local uv = runtime.luv()
  local there = uv.fs_lstat(link)
  if there and there.type ~= "link" then return nil, io_error("busy", link, "exists and is not a symbolic link") end
  if there then uv.fs_unlink(link) end
  local ok, message, code = uv.fs_symlink(target, link)
  if not ok then return nil, uv_error(link, message, code) end
  return true
end

local function remove_link(target, link)
  local uv = runtime.luv()
  if uv.fs_readlink(link) == target then uv.fs_unlink(link) end
end

---@param sim mbus.simulator.Simulator
---@param options? table  link: path of a symbolic link to make; a link that is there is replaced, anything else is not
---@return mbus.simulator.Server? server  with `path`
---@return mbus.Error? err  kinds "unsupported", "busy", "permission", "not_found", "io"
function M.pty(sim, options)
  local link = options and options.link
  local master, path, kind = require("mbus.serial").pty()
  if not master then return nil, Error.new(kind, path) end
  if link then
    local ok, err = make_link(path, link)
    if not ok then
      master:close()
      return nil, err
    end
  end
  local self = new(sim, { path = path, link = link })
  local poll = runtime.luv().new_poll(master:fd())
  self.output = function(bytes) master:write(bytes) end -- what nobody reads until the buffer is full is lost, as in a real port
  self.release = function()
    runtime.close(poll)
    master:close()
    if link then remove_link(path, link) end
  end
  poll:start("r", function()
    local bytes = master:read(4096)
    if not bytes then return poll:stop() end
    if bytes ~= "" then hear(self, bytes) end
  end)
  return self
end

-- ------------------------------------------------------------------ TCP

local function resolve(host)
  local found, message = runtime.luv().getaddrinfo(host, nil, { socktype = "stream" })
  if not found or not found[1] then return nil, Error.new("unknown_host", ("%s: %s"):format(host, message)) end
  return found[1].addr
end

local function leave(self, client)
  runtime.close(client)
  if self.client ~= client then return end
  self.client = nil
  self.output = function() end
end

local function welcome(self, client)
  self.client, self.clients = client, self.clients + 1
  self.output = function(bytes)
    client:write(bytes, function(err) if err then leave(self, client) end end)
  end
  client:nodelay(true)
  client:read_start(function(err, bytes)
    if err or not bytes then return leave(self, client) end
    hear(self, bytes)
  end)
end

local function listen(server, host, port, on_client)
  local address, err = resolve(host)
  if not address then return nil, err end
  local name = ("%s:%d"):format(host, port)
  local ok, message, code = server:bind(address, port)
  if ok then ok, message, code = server:listen(8, on_client) end
  if not ok then return nil, uv_error(name, message, code) end
  return true
end

---@param sim mbus.simulator.Simulator
---@param options? table  host (default "127.0.0.1"), port (default 0: any that is free)
---@return mbus.simulator.Server? server  with `host` and `port`
---@return mbus.Error? err  kinds "busy" (the port is in use), "permission", "unknown_host", "io"
function M.tcp(sim, options)
  local host, port = options and options.host or "127.0.0.1", options and options.port or 0
  local uv = runtime.luv()
  local server = uv.new_tcp()
  local self = new(sim, {})
  self.release = function()
    if self.client then runtime.close(self.client) end
    runtime.close(server)
  end
  local ok, err = listen(server, host, port, function(failure)
    if failure then return end
    local client = uv.new_tcp()
    server:accept(client)
    if self.client then runtime.close(client) else welcome(self, client) end
  end)
  if not ok then
    self:close()
    return nil, err
  end
  local name = server:getsockname()
  self.host, self.port = name.ip, name.port
  return self
end

return M
