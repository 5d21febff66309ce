local core = require "mbus.core"
local request = require "mbus.request"

describe("mbus.request", function()
  it("builds SND_NKE", function()
    assert.equal("10 40 00 40 16", core.hex(request.snd_nke(0)))
    assert.equal("10 40 FD 3D 16", core.hex(request.snd_nke(253)))
    assert.equal("10 40 A5 E5 16", core.hex(request.snd_nke(0xA5)))
  end)

  it("builds REQ_UD2 with the frame count bit", function()
    assert.equal("10 5B 01 5C 16", core.hex(request.req_ud2(1, 0)))
    assert.equal("10 7B 01 7C 16", core.hex(request.req_ud2(1, 1)))
    assert.equal("10 7B FD 78 16", core.hex(request.req_ud2(253, 1)))
    assert.equal("10 7B FE 79 16", core.hex(request.req_ud2(254, 1)))
  end)

  it("builds selections", function()
    local all = ("F"):rep(16)
    assert.equal("68 0B 0B 68 53 FD 52 FF FF FF FF FF FF FF FF 9A 16", core.hex(request.select(all)))
    assert.equal("68 0B 0B 68 73 FD 52 FF FF FF FF FF FF FF FF BA 16", core.hex(request.select(all, 0x73)))
    assert.equal("68 0B 0B 68 53 FD 52 78 56 34 12 2D 2C 0A 04 1D 16", core.hex(request.select "123456782D2C0A04"))
    assert.equal("68 0B 0B 68 53 FD 52 FF FF FF 0F FF FF FF FF AA 16", core.hex(request.select "0FFFFFFFFFFFFFFF"))
  end)
end)
