-- Every example runs as it stands, against the simulator.
local helper = require "spec.helper"

describe("the example", function()
  local _, list = helper.shell("ls examples/*.lua")
  for path in list:gmatch("[^\n]+") do
    it(path .. " runs", function()
      local code, out, err = helper.shell(helper.environment() .. "lua5.4 " .. path)
      assert.equal(0, code, err)
      assert.not_equal("", out)
    end)
  end

  it("examples/heat-meter.hex is the telegram of the specs", function()
    assert.equal(helper.HYD, helper.read("examples/heat-meter.hex"):match("\n(%x.-)\n$"))
  end)
end)
