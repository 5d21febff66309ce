# mbus: build, test and try. `make help` lists the targets.
#
# Nothing is written outside this folder, except by `make install` and for the Debian packages that are missing.

SHELL  := /bin/sh
LUA    ?= lua5.4
CC     ?= cc
UNAME  := $(shell uname -s)

# What Debian calls the things we need; elsewhere `make setup` prints the list.
PACKAGES      := lua5.4 liblua5.4-dev lua-luv lua-dkjson lua-argparse luarocks libserialport-dev libmbedtls-dev gcc libc6-dev
TEST_PACKAGES := $(PACKAGES) lua-busted lua-check clang clang-tidy cppcheck valgrind binutils ser2net socat lua-copas lua-cqueues

# Looked up when used, since the headers may come with the set-up.
LUA_INCDIR ?= $(shell for d in /usr/include/lua5.4 /usr/local/include/lua5.4 /opt/homebrew/include/lua \
	/usr/local/include/lua /usr/local/include /usr/include; do [ -f $$d/lua.h ] && echo $$d && break; done)

WARNINGS := -std=c99 -pedantic -Wall -Wextra -Wconversion -Wshadow
CFLAGS   ?= -O2 -g
ifeq ($(UNAME),Darwin)
SHARED := -bundle -undefined dynamic_lookup
else
SHARED := -shared
endif

CORE_C   := $(wildcard csrc/core/*.c)
CORE_H   := $(wildcard csrc/core/*.h csrc/core/*.def csrc/lua/*.h)
LUA_C    := $(addprefix csrc/lua/,core.c encode.c telegram.c)
OTHER_C  := $(filter-out $(LUA_C),$(wildcard csrc/lua/*.c))
TEST_C   := $(wildcard csrc/test/*.c)
LUA_SRC  := $(shell find lua -type f 2>/dev/null)
ROCKSPEC := mbus-scm-1.rockspec

# Each other file is a module of its own.
SO := build/mbus/core.so $(patsubst csrc/lua/%.c,build/mbus/%.so,$(OTHER_C))
serial_LIBS := -lserialport
aes_LIBS    := -lmbedcrypto

.PHONY: help
help:
	@echo 'make demo      a simulated house on a pseudo-terminal, read over the real serial path'
	@echo 'make test      set up, build, and run every check'
	@echo 'make build     build and install into lua_modules/ (lua_modules/bin/mbus runs from any folder)'
	@echo 'make install   install system-wide (root), for this user, or with PREFIX=DIR into DIR'
	@echo 'make fuzz      fuzz every parser with libFuzzer, see csrc/fuzz/README.md'
	@echo 'make memory    let every single allocation fail;  make collector  collect garbage all the time'
	@echo 'make coverage  lines that the tests reach;  make mutation  faults put into csrc/core: do the tests notice?'
	@echo 'make analyse   static analysers;  make memcheck, make sanitize  all specs under valgrind or the sanitizers'
	@echo 'make cross     on ARM and big-endian MIPS;  make lua55  in Lua 5.5;  make size  flash and stack of the core'
	@echo 'make soak      a million polls on the virtual clock, then an hour of polls over TCP with faults'
	@echo 'make bench     all benchmarks in one table, with the change against the baseline; see csrc/bench/bench.mk'
	@echo 'make so        quick build of the C modules alone, into build/'
	@echo 'make env       shell commands that make `$(LUA)` find this tree: eval "$$(make -s env)"'
	@echo 'make clean     remove everything that was built'

# --- set-up ---------------------------------------------------------------------------------------------------

# $(call setup,PACKAGES): installs what dpkg does not know as installed; costs nothing when all is there.
define setup
	@if command -v dpkg-query >/dev/null && command -v apt-get >/dev/null; then \
		missing=; \
		for p in $(1); do \
			case "$$(dpkg-query -W -f '$${Status}' $$p 2>/dev/null)" in *' installed') ;; *) missing="$$missing $$p" ;; esac; \
		done; \
		[ -z "$$missing" ] && exit 0; \
		sudo=; \
		if [ "$$(id -u)" != 0 ]; then \
			sudo=$$(command -v sudo) || { echo "Missing Debian packages (install them as root):$$missing" >&2; exit 1; }; \
		fi; \
		echo "Installing Debian packages:$$missing"; \
		log=$$(mktemp); \
		{ $$sudo apt-get update -q && $$sudo env DEBIAN_FRONTEND=noninteractive \
			apt-get install -q -y --no-install-recommends $$missing; } >"$$log" 2>&1 </dev/null \
			|| { cat "$$log" >&2; rm -f "$$log"; echo "could not install:$$missing" >&2; exit 1; }; \
		rm -f "$$log"; \
	elif ! $(LUA) -e 'require "luv" require "dkjson" require "argparse"' 2>/dev/null || ! command -v luarocks >/dev/null; then \
		echo 'Needed: Lua 5.4 with headers ($(LUA), or make LUA=...), LuaRocks, libserialport and mbedTLS with headers, a C compiler' >&2; \
		echo 'and the rocks luv, dkjson, argparse (for the tests also busted, luacheck and clang).' >&2; \
		exit 1; \
	fi
endef

.PHONY: setup setup-test
setup:
	$(call setup,$(PACKAGES))

setup-test:
	$(call setup,$(TEST_PACKAGES))

# --- quick developer build ------------------------------------------------------------------------------------

.PHONY: so env
so: $(SO)

env:
	@echo 'export LUA_PATH="$(CURDIR)/lua/?.lua;$(CURDIR)/lua/?/init.lua;;"'
	@echo 'export LUA_CPATH="$(CURDIR)/build/?.so;;"'

# $(call link,SOURCES,LIBRARIES), written beside and moved over: a running program keeps the old file it has mapped.
define link
	@mkdir -p $(@D)
	$(CC) $(WARNINGS) $(CFLAGS) -fPIC $(SHARED) -Icsrc/core -isystem $(LUA_INCDIR) -o $@.$$$$ $(1) $(2) && mv $@.$$$$ $@ \
		|| { rm -f $@.$$$$; exit 1; }
endef

build/mbus/core.so: $(CORE_C) $(LUA_C) $(CORE_H)
	$(call link,$(CORE_C) $(LUA_C))

build/mbus/%.so: csrc/lua/%.c
	$(call link,$<,$($*_LIBS))

# --- install --------------------------------------------------------------------------------------------------

# Debian's packages are not in LuaRocks' books, so we vouch for them; --deps-mode=none would do too, but leaves the
# wrapper of the command without the path to its modules.
LUAROCKS  = LUAROCKS_CONFIG="$(CURDIR)/build/luarocks.lua" luarocks --lua-version=5.4
MAKE_ROCK = mkdir -p build && \
	echo 'rocks_provided = { luv = "1-1", dkjson = "1-1", argparse = "1-1" }' >build/luarocks.lua && \
	$(LUAROCKS) make --deps-mode=one
SOURCES   = $(ROCKSPEC) $(CORE_C) $(CORE_H) $(LUA_C) $(OTHER_C) $(LUA_SRC)

.PHONY: build install
build: lua_modules/bin/mbus

lua_modules/bin/mbus: $(SOURCES) | setup
	@rm -rf lua_modules
	@$(MAKE_ROCK) --tree lua_modules $(ROCKSPEC) >build/luarocks.log 2>&1 \
		|| { cat build/luarocks.log >&2; rm -rf lua_modules; exit 1; }
	@$(TIDY)
	@touch $@
	@echo 'Built lua_modules/bin/mbus'

# What a builtin build leaves between the sources.
TIDY = rm -rf mbus; find csrc -name '*.o' -delete

install: setup
	@$(MAKE_ROCK) $(if $(PREFIX),--tree "$(PREFIX)",$(if $(filter 0,$(shell id -u)),,--local)) $(ROCKSPEC)
	@$(TIDY)
	@$(if $(PREFIX),echo 'The command is $(PREFIX)/bin/mbus',$(if $(filter 0,$(shell id -u)),:,echo 'The command is ~/.luarocks/bin/mbus'))

# --- checks ---------------------------------------------------------------------------------------------------

.PHONY: test lint warnings symbols check binding spec
test: setup-test lint warnings symbols analyse check check-no-names lua32 binding memcheck-short collector-short fuzz-short \
	memory-short bench-check spec

# All sources with every warning an error, by both compilers.
warnings: $(foreach cc,gcc clang,$(patsubst csrc/%.c,build/$(cc)/%.o,$(CORE_C) $(LUA_C) $(OTHER_C) $(TEST_C)))

define compile_with
build/$(1)/%.o: csrc/%.c $(CORE_H) | setup-test
	@mkdir -p $$(@D)
	@$(1) $(WARNINGS) -Werror -O2 -fPIC -Icsrc/core -isystem $$(LUA_INCDIR) -c -o $$@ $$<
endef
$(foreach cc,gcc clang,$(eval $(call compile_with,$(cc))))

# The core may ask its environment for nothing but mem* and str* functions.
symbols: $(patsubst csrc/%.c,build/gcc/%.o,$(CORE_C))
	@ld -r -o build/gcc/core.o $^
	@alien=$$(nm -u build/gcc/core.o | awk '{ print $$NF }' | grep -Ev '^(mem|str)[a-z]*$$|^_GLOBAL_OFFSET_TABLE_$$'); \
		[ -z "$$alien" ] || { echo "csrc/core uses:" $$alien >&2; exit 1; }
	@data=$$(nm build/gcc/core.o | awk '$$2 ~ /^[BbCD]$$/'); \
		[ -z "$$data" ] || { echo "csrc/core has variables: $$data" >&2; exit 1; }

# The C checks, under the sanitizers.
check: build/check/run
	@UBSAN_OPTIONS=print_stacktrace=1 build/check/run

build/check/run: $(CORE_C) $(TEST_C) $(CORE_H) | setup-test
	@mkdir -p $(@D)
	@gcc $(WARNINGS) -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all -Icsrc/core -o $@ $(CORE_C) $(TEST_C)

# The binding, under the sanitizers too. Lua itself keeps what it has until it ends: no search for leaks.
binding: build/sanitized/mbus/core.so build/sanitized/mbus/limits.so
	@LD_PRELOAD="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libubsan.so)" ASAN_OPTIONS=detect_leaks=0 \
		$(LUA) "$$(command -v busted)" --run=sanitized -o plainTerminal

build/sanitized/mbus/core.so: $(CORE_C) $(LUA_C) $(CORE_H) | setup-test
	@mkdir -p $(@D)
	@gcc -std=c99 -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all -fPIC -shared -Icsrc/core \
		-isystem $(LUA_INCDIR) -o $@ $(CORE_C) $(LUA_C)

lint: setup-test
	@luacheck -q .

spec: setup-test build so
	@$(LUA) "$$(command -v busted)" -o plainTerminal $(SPEC)

# --- try ------------------------------------------------------------------------------------------------------

.PHONY: demo
demo: build
	@sh examples/demo.sh

.PHONY: clean
clean:
	rm -rf build lua_modules
	@$(TIDY)

include csrc/fuzz/fuzz.mk csrc/bench/bench.mk csrc/check/analyse.mk csrc/check/cross.mk csrc/check/size.mk
include spec/coverage/coverage.mk spec/mutation/mutation.mk spec/soak/soak.mk
