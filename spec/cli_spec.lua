-- The command as a user meets it: its own process, its streams, its exit codes.
local dkjson = require "dkjson"
local helper = require "spec.helper"
local mbus, shell, HYD = helper.mbus, helper.shell, helper.HYD

local BAD_CHECKSUM = "68 03 03 68 08 05 70 80 16"
local CUT_TAIL = "68 14 14 68 08 05 72 78 56 34 12 24 40 01 07 55 00 00 00 01 13 07 04 13 00 0A 16"

local function lines_of(text)
  local lines = {}
  for line in text:gmatch("[^\n]*\n") do lines[#lines + 1] = line:sub(1, -2) end
  return lines
end

local function with_checksum(hex)
  local core = require "mbus.core"
  local bytes = core.unhex(hex)
  return core.hex(core.long(bytes:byte(5), bytes:byte(6), bytes:byte(7), bytes:sub(8, -3)))
end
CUT_TAIL = with_checksum(CUT_TAIL)

-- Starts `mbus simulate`, calls fn(url, folder) once it listens, and ends it however fn ends.
local function simulated(arguments, fn)
  return helper.with_folder(function(folder)
    local start = "( %s sh -c 'echo $$ >%s/pid; exec lua5.4 lua/bin/mbus simulate %s' >%s/out 2>%s/err; echo $? >%s/code ) &"
    os.execute(start:format(helper.environment(), folder, arguments:gsub("FOLDER", folder), folder, folder, folder))
    local deadline = os.time() + 10
    local url
    repeat
      os.execute("sleep 0.05")
      url = helper.read(folder .. "/out"):match("listening on (%S+)\n")
    until url or os.time() > deadline
    local pid = helper.read(folder .. "/pid"):match("%d+")
    local results = table.pack(pcall(function()
      assert(url, "it does not listen: " .. helper.read(folder .. "/err"))
      return fn(url, folder, pid)
    end))
    os.execute(("kill %s 2>/dev/null; for i in $(seq 100); do [ -s %s/code ] && break; sleep 0.05; done"):format(pid, folder))
    if not results[1] then error(results[2], 0) end
    return table.unpack(results, 2, results.n)
  end)
end

describe("mbus", function()
  it("explains itself, each command with examples", function()
    local code, out = mbus "--help"
    assert.equal(0, code)
    assert.matches("Exit codes: 0 done", out)
    for _, command in ipairs { "decode", "read", "simulate" } do
      code, out = mbus(command .. " --help")
      assert.equal(0, code)
      assert.matches("Examples:\n  mbus " .. command, out)
      for line in out:gmatch("[^\n]+") do assert.is_true(#line <= 80, line) end
    end
  end)

  it("knows its version", function()
    local code, out = mbus "--version"
    assert.equal(0, code)
    assert.matches("^mbus %S+\n$", out)
  end)

  it("ends with 2 on wrong usage, and says where help is", function()
    for _, arguments in ipairs { "", "dekode", "decode --format xls", "read", "read sim:", "read sim: 5 --timeout soon",
      "read sim: 5 --baudrate 0", "read sim: 251", "read sim: 12345", "read nowhere: 5", "read manual: 5",
      "read sim: 5 --baudrate 1234", "simulate --tcp 80x", "simulate /nonexistent.lua", "decode /nonexistent" } do
      local code, out, err = mbus(arguments)
      assert.equal(2, code, arguments)
      assert.equal("", out, arguments)
      assert.matches("mbus: ", err, 1, true, arguments)
      assert.is_nil(err:find("traceback", 1, true), arguments)
    end
  end)

  it("needs neither luv nor libserialport to decode", function()
    local block = [[lua5.4 -e 'for _, name in ipairs { "luv", "mbus.serial" } do
      package.preload[name] = function() error("loaded " .. name) end end
      arg = { "decode", "E5", "--format", "jsonl" } dofile "lua/bin/mbus"']]
    local code, out, err = shell(helper.environment() .. block)
    assert.equal(0, code, err)
    assert.matches('"type":"ack"', out)
  end)
end)

describe("mbus decode", function()
  it("takes hex as one argument, as many, with and without blanks, with 0x", function()
    local _, wanted = mbus("decode " .. helper.quote(HYD))
    assert.matches("^Meter +31892747, HYD", wanted)
    for _, form in ipairs { HYD, HYD:gsub(" ", ""), HYD:lower():gsub("(%S+)", "0x%1"), helper.quote(HYD:gsub(" ", ":")) } do
      local code, out = mbus("decode " .. form)
      assert.equal(0, code)
      assert.equal(wanted, out)
    end
  end)

  it("takes several telegrams, files in hex and binary, and standard input", function()
    helper.with_folder(function(folder)
      local bytes = require("mbus.core").unhex(HYD)
      helper.write(folder .. "/a.hex", "# a comment\n\n" .. HYD .. "\r\n")
      helper.write(folder .. "/b.bin", bytes .. "\xE5\x10\x5B\x05\x60\x16" .. bytes)
      helper.write(folder .. "/c.hex", "\xEF\xBB\xBF" .. HYD:gsub("(" .. ("..."):rep(16) .. ")", "%1\n"))
      for inputs, count in pairs { ["%s/a.hex"] = 1, ["%s/b.bin"] = 4, ["%s/c.hex"] = 1, ["E5 E5"] = 1, ["- <%s/b.bin"] = 4,
        ["%s/a.hex %s/b.bin 105B056016"] = 6, ["<%s/a.hex"] = 1 } do
        local code, out, err = mbus("decode --format json " .. inputs:gsub("%%s", folder))
        local object = dkjson.decode(out)
        if inputs == "E5 E5" then
          assert.equal(1, code) -- typed byte by byte it is one telegram, and E5 E5 is none
        else
          assert.equal(0, code, inputs .. err)
        end
        assert.equal(count, object[1] and #object or 1, inputs)
      end
    end)
  end)

  it("tells noise in a binary stream by its place, and goes on", function()
    local bytes = require("mbus.core").unhex(HYD)
    local code, out, err = mbus("decode", "\xE5\0\xFF" .. bytes)
    assert.equal(1, code)
    assert.matches("acknowledgement", out)
    assert.matches("Meter +31892747", out)
    assert.matches("standard input, byte 1: ", err)
  end)

  it("knows a binary stream by what no text holds, whatever it begins with", function()
    local bytes = require("mbus.core").unhex(HYD)
    local short = "\x10\x5B\x05\x60\x16"
    for _, noise in ipairs { "A", "h", "hhh", "# ", "\n", "7 \nx\n", "\xE5\xA5", "\xE5\x8B\x4A", "\xEF\xBB\xBF", "\xC3\xA4" } do
      for _, format in ipairs { "json", "jsonl" } do
        local _, out, err = mbus("decode -f " .. format, noise .. bytes .. noise .. short)
        local name = ("%q "):format(noise) .. err
        assert.equal(1, select(2, out:gsub('"id": ?"31892747"', "")), name)
        assert.equal(1, select(2, out:gsub('"type": ?"short"', "")), name)
      end
    end
    assert.matches("acknowledgement", select(2, mbus("decode", "A\xE5")))
    local _, out = mbus("decode", "# Z\xE4hler\nkein Hex\n\xE5\x9C\xB0\n" .. HYD .. "\n\0\n" .. HYD .. "\n\x1A")
    assert.equal(2, select(2, out:gsub("Meter +31892747", "")))
  end)

  it("ends with 1 if anything is bad, and tells where on standard error", function()
    local code, out, err = mbus("decode", HYD .. "\n" .. BAD_CHECKSUM .. "\n" .. CUT_TAIL .. "\nnonsense\n")
    assert.equal(1, code)
    assert.matches("standard input:2: the checksum is wrong at byte 7\n", err)
    assert.matches("standard input:3: the telegram ends inside the data of a record at byte %d+\n", err)
    assert.matches("standard input:4: ", err)
    assert.matches("0  volume +0.007  m3\n", out)
    assert.matches("Problem +the telegram ends", out)
    assert.equal(1, (mbus("decode", "")))
  end)

  it("loses no good telegram behind one that is cut off", function()
    local core = require "mbus.core"
    local good = core.hex(core.long(0x08, 5, 0x78, core.unhex "0C 13 00 25 01 00"))
    local cut = "68 A7 A7 68 08 0A 72 10\n"
    local code, out, err = mbus("decode", cut .. good .. "\n" .. good .. "\n")
    assert.equal(1, code)
    assert.equal(2, select(2, out:gsub("12%.5", "")))
    assert.matches("^mbus: standard input:1: ", err)
    assert.equal(0, (mbus("decode", "68 09 09 68 08 05 78\n0C 13 00 25 01 00\n" .. good:sub(-5) .. "\n"))) -- which may go on
  end)

  it("writes exactly one JSON object a line with --format jsonl, whatever the line", function()
    local input = { HYD, "", BAD_CHECKSUM, "nonsense", CUT_TAIL, "E5", "68 03 03", "\xFF\0\xFE", "# no comment here", "105B056016" }
    local code, out, err = mbus("decode --format jsonl", table.concat(input, "\n"))
    assert.equal(1, code)
    assert.equal("", err)
    local lines = lines_of(out)
    assert.equal(#input, #lines)
    local codes = {}
    for i, line in ipairs(lines) do
      local object = assert(dkjson.decode(line))
      assert.is_table(object.records)
      assert.equal(object.error == nil, object.valid)
      codes[i] = object.error and object.error.code or "valid"
    end
    assert.same({ "valid", "truncated_frame", "bad_checksum", "bad_hex", "premature_end_of_data", "valid", "truncated_frame",
      "bad_hex", "bad_hex", "valid" }, codes)
    assert.equal(1, #dkjson.decode(lines[5]).records)
  end)

  it("answers every line before the next one comes", function()
    local code, out = shell(("{ echo E5; sleep 0.3; date +%%s%%N; } | %s lua5.4 lua/bin/mbus decode -f jsonl - | "
      .. "while read -r line; do date +%%s%%N; break; done"):format(helper.environment()))
    assert.equal(0, code)
    assert.matches("^%d+\n$", out)
    local pipe = ("mkfifo %s/f; (echo E5; sleep 1) >%s/f & %s timeout 0.8 lua5.4 lua/bin/mbus decode -f jsonl %s/f; true")
    helper.with_folder(function(folder)
      local _, text = shell(pipe:format(folder, folder, helper.environment(), folder))
      assert.matches('"type":"ack"', text)
    end)
    code, out = shell(("{ echo nonsense; sleep 2; } | %s timeout 1 lua5.4 lua/bin/mbus decode -f jsonl"):format(helper.environment()))
    assert.matches("bad_hex", out)
    assert.equal(124, code)
  end)

  it("ends quietly when nobody reads on, and not when the disk is full", function()
    local many = helper.quote(("E5\n"):rep(20000))
    local _, _, err = shell(("printf %%s %s | %s lua5.4 lua/bin/mbus decode -f jsonl | head -n 1"):format(many, helper.environment()))
    assert.equal("", err)
    -- and so where the parent ignores SIGPIPE
    _, _, err = shell(("trap '' PIPE; printf %%s %s 2>/dev/null | %s lua5.4 lua/bin/mbus decode -f jsonl | head -n 1")
      :format(many, helper.environment()))
    assert.equal("", err)
    local code
    code, _, err = mbus("decode E5 >/dev/full")
    assert.equal(1, code)
    assert.matches("No space left", err)
  end)
end)

describe("mbus decode --replay", function()
  it("shows what is good of a damaged capture, and a trace with what else went to standard error", function()
    helper.with_folder(function(folder)
      local _, _, trace = mbus "read sim: 10 99 --trace"
      helper.write(folder .. "/trace", trace .. "\n   1.7 RECV (005) 10 00\n   1.800 SEND (005) 10 40 05 45 16\n\0\0\0")
      local code, out, err = mbus(("decode --replay %s/trace"):format(folder))
      assert.equal(1, code)
      assert.matches("Meter +82969010, KAM", out)
      assert.matches("SND_NKE to 5\n$", out)
      assert.matches("^mbus: [^\n]*/trace: line 9 of the capture: [^\n]*\nmbus: [^\n]*: line 11 [^\n]*\nmbus: [^\n]*: line 13 [^\n]*\n$", err)
      helper.write(folder .. "/none", "nothing\nat all\n")
      code, out, err = mbus(("decode --replay %s/none"):format(folder))
      assert.same({ 2, "" }, { code, out })
      assert.matches("^mbus: [^\n]*/none: line 1 of the capture: [^\n]*\n$", err)
    end)
  end)

  it("goes without other input", function()
    local code, out, err = mbus "decode 10 40 0A 4A 17 --replay /dev/null"
    assert.same({ 2, "", "mbus: --replay goes without other input\n" }, { code, out, err })
  end)
end)

describe("mbus read", function()
  it("reads nothing where one of the addresses is wrong", function()
    for _, addresses in ipairs { "bad 10", "10 bad", "10 12 bad 15" } do
      local code, out, err = mbus("read sim: " .. addresses)
      assert.same({ 2, "" }, { code, out })
      assert.matches('^mbus: bad address "bad"[^\n]*\n$', err)
    end
  end)

  it("tells in the document, too, that a readout is not whole", function()
    helper.with_folder(function(folder)
      local head = "78 56 34 12 24 40 01 07 55 00 00 00 "
      helper.write(folder .. "/bus.lua", ("return { meters = { { address = 5, silent_after = 2, telegrams = { { data = %q }, "
        .. "{ data = %q } } } } }"):format(head .. "01 13 01 1F", head .. "01 13 02"))
      for format, told in pairs { table = "Problem +no answer to REQ_UD2", json = '"text": "no answer to REQ_UD2', xml = "<!%-%- no answer to REQ_UD2" } do
        local code, out = mbus(("read sim:%s/bus.lua 5 -f %s"):format(folder, format))
        assert.equal(1, code)
        assert.matches("0%.001", out)
        assert.matches(told, out)
      end
    end)
  end)

  it("reads by primary and secondary address, with wildcards", function()
    local code, out, err = mbus "read sim: 10 3189274724232804 8300367FFFFFFFFF"
    assert.equal(1, code) -- the wildcard fits several meters
    assert.matches("Meter +82969010, KAM", out)
    assert.matches("Address +10, secondary 829690102D2C400D\n", out)
    assert.matches("Meter +31892747, HYD", out)
    assert.matches("sim:house: address 8300367FFFFFFFFF: ", err, 1, true)
    assert.equal(0, (mbus "read sim: 82969012FFFFFFFF"))
  end)

  it("gives one JSON object a meter, also for one that does not answer", function()
    local code, out, err = mbus "read sim: 10 99 --format jsonl"
    local lines = lines_of(out)
    assert.equal(1, code)
    assert.equal(2, #lines)
    local good, bad = dkjson.decode(lines[1]), dkjson.decode(lines[2])
    assert.equal("82969010", good.id)
    assert.equal(10, good.address)
    assert.is_true(#good.records > 10)
    assert.equal("timeout", bad.error.kind)
    assert.matches("address 99: no answer", err)
    code, out = mbus "read sim: 10 --format json"
    assert.equal(0, code)
    assert.equal("82969010", dkjson.decode(out).id)
  end)

  it("traces every frame on standard error", function()
    local code, out, err = mbus "read sim: 10 --trace --format jsonl"
    assert.equal(0, code)
    assert.equal(1, #lines_of(out))
    assert.matches("^   0%.000 SEND %(005%) 10 40 0A 4A 16\n   0%.%d%d%d RECV %(001%) E5\n", err)
  end)

  it("takes the settings of the bus", function()
    local code, _, err = mbus "read sim: 99 --retries 0 --timeout 0.5 --no-nke"
    assert.equal(1, code)
    assert.matches("no answer.- %(1 try, 0.%d%d s%)", err)
  end)

  it("ends with 3 if the bus cannot be opened", function()
    for _, url in ipairs { "/dev/nonexistent", "tcp://127.0.0.1:1", "sim:/nonexistent.lua" } do
      local code, out, err = mbus("read " .. url .. " 5")
      assert.equal(3, code, url)
      assert.equal("", out)
      assert.matches("^mbus: .+\n$", err)
    end
  end)
end)

describe("mbus simulate", function()
  it("serves the house on a pseudo-terminal, and takes its link away at the end", function()
    simulated("--pty FOLDER/house", function(url, folder, pid)
      assert.equal(folder .. "/house", url)
      local code, out = mbus("read " .. url .. " 3189274724232804")
      assert.equal(0, code)
      assert.matches("Meter +31892747, HYD", out)
      os.execute("kill -INT " .. pid .. "; sleep 0.3")
      assert.not_equal(0, (shell("test -e " .. url)))
      assert.equal("0\n", helper.read(folder .. "/code"))
    end)
  end)

  it("serves on TCP, at a speed of one's choice", function()
    simulated("--tcp 0 --baudrate 9600", function(url)
      assert.matches("^tcp://127%.0%.0%.1:%d+$", url)
      local code, out, err = mbus("read " .. url .. " 10 -f jsonl --baudrate 9600")
      assert.equal(0, code, err)
      assert.matches('"id":"82969010"', out)
    end)
  end)

  it("serves a description of one's own", function()
    helper.with_folder(function(folder)
      helper.write(folder .. "/bus.lua", [[return { meters = { { address = 7, id = "00000007", manufacturer = "ABC", version = 1,
        medium = 7, telegrams = { { records = { { quantity = "volume", unit = "m3", value = 12.5, exponent = -3, data = "bcd8" } } } } } } }]])
      local code, out = mbus("read sim:" .. folder .. "/bus.lua 7")
      assert.equal(0, code)
      assert.matches("volume +12.500  m3\n", out)
      helper.write(folder .. "/bad.lua", "return { meters = { { address = 300 } } }")
      local _, err
      code, _, err = mbus("simulate " .. folder .. "/bad.lua")
      assert.equal(2, code)
      assert.matches("meters%[1%]%.address", err)
    end)
  end)
end)

describe("signals of a command", function()
  local function after(kills)
    helper.write("build/signals.lua", [[
      local runtime = require "mbus.runtime"
      local release = require("mbus.cli.signals").watch(function() print "asked" io.flush() end)
      print "ready" io.flush()
      runtime.sleep(1)
      release()
      print "ended"]])
    -- A shell's background command ignores SIGINT until it handles it, hence SIGTERM.
    local _, out = shell(("%s lua5.4 build/signals.lua & p=$!; sleep 0.3; %s; wait $p; echo $?"):format(helper.environment(), kills))
    return out
  end

  it("ask once, also where they come twice at once, and end it when they are sent again", function()
    assert.equal("ready\nended\n0\n", after "true")
    assert.equal("ready\nasked\nended\n0\n", after "kill -TERM $p")
    assert.equal("ready\nasked\nended\n0\n", after "kill -TERM $p; sleep 0.05; kill -INT $p")
    assert.equal("ready\nasked\n143\n", after "kill -TERM $p; sleep 0.4; kill -TERM $p")
  end)
end)
