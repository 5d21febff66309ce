---Application reset (EN 13757-3, CI 50): the meter forgets which records were selected and begins at its first telegram; with
---a subcode it selects what the next readouts hold. The meter is read at once.
local Address = require "mbus.address"
local arguments = require "mbus.procedure.arguments"
local request = require "mbus.request"
local Target = require "mbus.procedure.target"

local CI_RESET = 0x50

local function run(link, address, subcode)
  if address.a == Address.BROADCAST then
    return Target.command_all(link, request.application_reset(address.a, subcode, 1))
  end
  link.settings.application_reset = false
  return Target.with(link, address, function(target)
    local ok, err = target:command(CI_RESET, subcode and string.char(subcode) or "")
    if not ok then return nil, err end
    local telegram
    telegram, err = target:first()
    return telegram and { telegram = telegram, subcode = subcode }, err
  end)
end

local function prepare(level, address, subcode, options)
  local parsed, err = arguments.address_or_all(level + 1, address)
  if not parsed then return nil, err end
  if subcode ~= nil and math.type(subcode) ~= "integer" then error("a subcode is a whole number", level + 1) end
  if subcode and (subcode < 0 or subcode > 255) then return arguments.refuse("bad subcode %d: 0 to 255", subcode) end
  return options or {}, parsed, subcode
end

return { prepare = prepare, run = run }
