local clock = require "mbus.clock"

describe("a clock", function()
  it("counts days, weekdays and weeks as the computer does", function()
    for day = 0, 45000, 7 do
      local seconds = day * 86400 + day % 86400
      local date, time = os.date("!*t", seconds), clock.at(seconds)
      assert.same({ date.year, date.month, date.day, date.hour, date.min, date.sec },
        { time.year, time.month, time.day, time.hour, time.minute, time.second })
      assert.equal(seconds, clock.seconds(time))
      assert.equal((date.wday + 5) % 7 + 1, clock.weekday(time))
      assert.equal(tonumber(os.date("!%V", seconds)), clock.week(time))
    end
  end)

  it("reads and writes text", function()
    assert.equal("2024-02-29T13:45:30", clock.text(assert(clock.parse("2024-02-29 13:45:30"))))
    assert.equal("2024-02-29T13:45:00", clock.text(assert(clock.parse("2024-02-29T13:45"))))
    for _, text in ipairs { "", "2023-02-29T00:00", "2024-13-01T00:00", "2024-01-01T24:00", "2024-01-01T00:60", "2024-01-01T00:00:1" } do
      assert.equal("invalid", select(2, clock.parse(text)).kind)
    end
  end)

  it("knows standard time", function()
    local time = clock.from_date { year = 2024, month = 7, day = 1, hour = 0, min = 30, sec = 60, isdst = true }
    assert.equal("2024-06-30T23:30:59", clock.text(clock.standard(time)))
    time.summer_time = false
    assert.equal(time, clock.standard(time))
  end)
end)
