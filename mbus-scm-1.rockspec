rockspec_format = "3.0"
package = "mbus"
version = "scm-1"
source = {
  url = "git+https://example.org/mbus.git",
}
description = {
  summary = "M-Bus (Meter-Bus, EN 13757) master: decode telegrams, read meters, simulate a bus",
  detailed = [[
A C core frames, decodes and encodes M-Bus telegrams; Lua reads meters over serial lines and TCP gateways.
With it comes the command `mbus` and a simulated bus of meters.]],
  license = "MIT",
  labels = { "mbus", "meter", "serial", "iot" },
}
dependencies = {
  "lua >= 5.4",
  "luv",
  "dkjson",
  "argparse",
}
external_dependencies = {
  LIBSERIALPORT = { header = "libserialport.h", library = "serialport" },
  MBEDTLS = { header = "mbedtls/aes.h", library = "mbedcrypto" },
}
build = {
  type = "builtin",
  modules = {
    ["mbus.core"] = {
      sources = {
        "csrc/core/application.c",
        "csrc/core/compact.c",
        "csrc/core/encode.c",
        "csrc/core/link.c",
        "csrc/core/profile.c",
        "csrc/core/text.c",
        "csrc/core/value.c",
        "csrc/core/vif.c",
        "csrc/lua/core.c",
        "csrc/lua/encode.c",
        "csrc/lua/telegram.c",
      },
      incdirs = { "csrc/core" },
    },
    ["mbus.serial"] = {
      sources = { "csrc/lua/serial.c" },
      libraries = { "serialport" },
      incdirs = { "csrc/core", "$(LIBSERIALPORT_INCDIR)" },
      libdirs = { "$(LIBSERIALPORT_LIBDIR)" },
    },
    ["mbus.aes"] = {
      sources = { "csrc/lua/aes.c" },
      libraries = { "mbedcrypto" },
      incdirs = { "$(MBEDTLS_INCDIR)" },
      libdirs = { "$(MBEDTLS_LIBDIR)" },
    },
    ["mbus"] = "lua/mbus/init.lua",
    ["mbus.address"] = "lua/mbus/address.lua",
    ["mbus.bus"] = "lua/mbus/bus.lua",
    ["mbus.cli"] = "lua/mbus/cli/init.lua",
    ["mbus.cli.bus"] = "lua/mbus/cli/bus.lua",
    ["mbus.cli.console"] = "lua/mbus/cli/console.lua",
    ["mbus.cli.decode"] = "lua/mbus/cli/decode.lua",
    ["mbus.cli.explain"] = "lua/mbus/cli/explain.lua",
    ["mbus.cli.input"] = "lua/mbus/cli/input.lua",
    ["mbus.cli.keys"] = "lua/mbus/cli/keys.lua",
    ["mbus.cli.output"] = "lua/mbus/cli/output.lua",
    ["mbus.cli.read"] = "lua/mbus/cli/read.lua",
    ["mbus.cli.simulate"] = "lua/mbus/cli/simulate.lua",
    ["mbus.cli.trace"] = "lua/mbus/cli/trace.lua",
    ["mbus.decode"] = "lua/mbus/decode.lua",
    ["mbus.error"] = "lua/mbus/error.lua",
    ["mbus.format.anatomy"] = "lua/mbus/format/anatomy.lua",
    ["mbus.format.annotated"] = "lua/mbus/format/annotated.lua",
    ["mbus.format.csv"] = "lua/mbus/format/csv.lua",
    ["mbus.format.json"] = "lua/mbus/format/json.lua",
    ["mbus.format.number"] = "lua/mbus/format/number.lua",
    ["mbus.format.table"] = "lua/mbus/format/table.lua",
    ["mbus.format.text"] = "lua/mbus/format/text.lua",
    ["mbus.format.xml"] = "lua/mbus/format/xml.lua",
    ["mbus.procedure.engine"] = "lua/mbus/procedure/engine.lua",
    ["mbus.procedure.exchange"] = "lua/mbus/procedure/exchange.lua",
    ["mbus.procedure.judge"] = "lua/mbus/procedure/judge.lua",
    ["mbus.procedure.link"] = "lua/mbus/procedure/link.lua",
    ["mbus.procedure.read"] = "lua/mbus/procedure/read.lua",
    ["mbus.readout"] = "lua/mbus/readout.lua",
    ["mbus.request"] = "lua/mbus/request.lua",
    ["mbus.runtime"] = "lua/mbus/runtime.lua",
    ["mbus.security"] = "lua/mbus/security.lua",
    ["mbus.simulator"] = "lua/mbus/simulator/init.lua",
    ["mbus.simulator.description"] = "lua/mbus/simulator/description.lua",
    ["mbus.simulator.faults"] = "lua/mbus/simulator/faults.lua",
    ["mbus.simulator.house"] = "lua/mbus/simulator/house.lua",
    ["mbus.simulator.line"] = "lua/mbus/simulator/line.lua",
    ["mbus.simulator.meter"] = "lua/mbus/simulator/meter.lua",
    ["mbus.simulator.random"] = "lua/mbus/simulator/random.lua",
    ["mbus.simulator.server"] = "lua/mbus/simulator/server.lua",
    ["mbus.simulator.transport"] = "lua/mbus/simulator/transport.lua",
    ["mbus.transport"] = "lua/mbus/transport/init.lua",
    ["mbus.transport.serial"] = "lua/mbus/transport/serial.lua",
    ["mbus.transport.tcp"] = "lua/mbus/transport/tcp.lua",
  },
  install = {
    bin = { mbus = "lua/bin/mbus" },
  },
}
test_dependencies = {
  "busted",
}
test = {
  type = "busted",
}
