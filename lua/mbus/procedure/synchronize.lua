---Synchronize action (EN 13757-3:2018, CI 5C; 54 in older meters). What it does is up to the meters.
local Address = require "mbus.address"
local arguments = require "mbus.procedure.arguments"
local request = require "mbus.request"
local Target = require "mbus.procedure.target"

local function run(link, address, ci)
  if address.a == Address.BROADCAST then return Target.command_all(link, request.synchronize(address.a, ci, 1)) end
  return Target.with(link, address, function(target) return target:command(ci) end)
end

local function prepare(level, address, options)
  local parsed, err = arguments.address_or_all(level + 1, address or Address.BROADCAST)
  if not parsed then return nil, err end
  options = options or {}
  local ci = options.ci or request.SYNCHRONIZE
  if ci ~= request.SYNCHRONIZE and ci ~= request.SYNCHRONIZE_OLD then error("option ci: 0x5C or 0x54 expected", level + 1) end
  return options, parsed, ci
end

return { prepare = prepare, run = run, options = { ci = true } }
