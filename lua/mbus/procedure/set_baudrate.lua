---Switches a meter to another baud rate (EN 13757-3, CI B8 to BF), and the line with it. The meter acknowledges at the old
---rate and must hear something at the new one soon, or it goes back: so it is asked there at once, and if it does not answer
---the line goes back too, and the meter is looked for at the old rate.
local Address = require "mbus.address"
local Error = require "mbus.error"
local arguments = require "mbus.procedure.arguments"
local request = require "mbus.request"
local boolean = require("mbus.options").boolean
local Target = require "mbus.procedure.target"

local function anew(target)
  target:move(target.address)
  target.link.state.deselected = nil
  return target:first()
end

-- The meter was not found at the new rate.
local function go_back(target, old, new, command_error)
  local link = target.link
  local ok, err = link:set_baudrate(old)
  if not ok then return nil, err end
  local telegram = anew(target)
  if link.broken then return nil, link.broken end
  if telegram then
    return nil, command_error or Error.new("rejected", ("the meter stays at %d baud"):format(old), { code = "unchanged" })
  end
  return nil, command_error or Error.new("timeout", ("no answer at %d baud, nor at %d (meters go back to the old rate after "
    .. "some minutes)"):format(new, old))
end

local function switch(target, baudrate, stay)
  local link = target.link
  local old = link.settings.baudrate
  local telegram, ok, err, command_error
  telegram, err = target:first()
  if not telegram then return nil, err end
  ok, command_error = target:command(request.BAUDRATES[baudrate], "")
  if not ok and (link.broken or command_error.kind == "rejected") then return nil, command_error end
  ok, err = link:set_baudrate(baudrate)
  if not ok then return nil, err end
  telegram = anew(target)
  if link.plan then return {} end
  if not telegram and link.broken then return nil, link.broken end
  if not telegram then return go_back(target, old, baudrate, command_error) end
  return { baudrate = baudrate, previous = old, telegram = telegram, stay = stay }
end

local function switch_all(link, baudrate)
  local old = link.settings.baudrate
  local ok, err = Target.command_all(link, request.set_baudrate(Address.BROADCAST, baudrate, 1))
  if ok then ok, err = link:set_baudrate(baudrate) end
  if not ok then return nil, err end
  return { baudrate = baudrate, previous = old }
end

local function run(link, address, baudrate, stay)
  if not link.settings.can_switch then
    return nil, Error.new("unsupported", "the baud rate of this bus cannot be changed from here, so no meter is switched")
  end
  if address.a == Address.BROADCAST then return switch_all(link, baudrate) end
  local old = link.settings.baudrate
  local result, err = Target.with(link, address, function(target) return switch(target, baudrate, stay) end)
  if result and not stay then
    local ok
    ok, err = link:set_baudrate(old)
    if not ok then return nil, err end
  end
  return result, err
end

local function prepare(level, address, baudrate, options)
  local parsed, err = arguments.address_or_all(level + 1, address)
  if not parsed then return nil, err end
  if type(baudrate) ~= "number" then error("a baud rate is a number", level + 1) end
  baudrate = math.tointeger(baudrate)
  if not request.BAUDRATES[baudrate] then
    return arguments.refuse("bad baud rate: 300, 600, 1200, 2400, 4800, 9600, 19200 or 38400 is needed")
  end
  return options or {}, parsed, baudrate, not (options and options.stay == false)
end

return { prepare = prepare, run = run, options = { stay = boolean } }
