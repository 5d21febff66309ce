# cross.mk - other machines and other Luas; included by the Makefile.
#
#   make cross       the C checks and the decode specs on 32-bit ARM and on big-endian MIPS, by qemu: the same counts as here
#   make lua55       the same in Lua 5.5, whose source is in Debian's unstable
#   make lua32       Lua with 32-bit integers is refused
#
# Each machine gets the Lua of Debian's source package, the modules that link nothing, and spec files by specs.lua.

CROSS_PACKAGES := gcc-arm-linux-gnueabihf libc6-dev-armhf-cross gcc-mips-linux-gnu libc6-dev-mips-cross qemu-user
CROSS_MACHINES := host arm mips
CROSS_SPECS    := $(wildcard spec/core/*_spec.lua) spec/decode_spec.lua spec/encode_spec.lua spec/corpus_spec.lua
# AES comes from libmbedcrypto, that the cross compilers do not have. Four specs take the calendar of the C library to compare
# with, whose time_t ends in 2038 on these machines.
CROSS_EXCLUDED := -x crypt -x 'where the calendar has it' -x 'leap year of the calendar' -x 'forth and back' -x 'of three hundred years'
CROSS_MODULES  := core $(foreach c,$(OTHER_C:csrc/lua/%.c=%),$(if $($(c)_LIBS),,$(c)))
CROSS_LUA_PATH := ./?.lua;lua/?.lua;lua/?/init.lua;/usr/share/lua/5.4/?.lua;/usr/share/lua/5.4/?/init.lua

.PHONY: cross lua55 lua32 setup-cross
setup-cross: setup-test
	$(call setup,$(CROSS_PACKAGES))

# $(call same,RESULTS): prints them, and fails where they differ.
same = @for r in $(1); do printf '%-8s %s\n' "$$(basename $$r .result)" "$$(tr '\n' ' ' <$$r)"; done; \
	[ "$$(sed 's/^Lua [0-9.]*//' $(1) | sort -u | wc -l)" = 2 ] || { echo 'machines differ' >&2; exit 1; }

cross: $(CROSS_MACHINES:%=build/cross/%.result)
	$(call same,$^)

lua55: build/cross/host.result build/cross/lua55.result
	$(call same,$^)

build/cross/lua5.4:
	@sh csrc/check/lua_source.sh "$$(. /etc/os-release && echo $$VERSION_CODENAME)" lua5.4 $@
build/cross/lua5.5:
	@sh csrc/check/lua_source.sh sid lua5.5 $@

# $(call machine,NAME,COMPILER,EMULATOR,LUA)
define machine
build/cross/$(1)/lua: | build/cross/$(4) $(if $(3),setup-cross,setup-test)
	@mkdir -p $$(@D)
	@$(2) -std=gnu99 -O1 -DLUA_COMPAT_5_3 -DLUA_USE_POSIX -DLUA_USE_DLOPEN -Wl,-E -o $$@ \
		$$$$(ls build/cross/$(4)/src/*.c | grep -v luac.c) -lm -ldl

build/cross/$(1)/mbus/core.so: $(CORE_C) $(LUA_C) $(CORE_H) | build/cross/$(1)/lua
	@mkdir -p $$(@D)
	@$(2) $(WARNINGS) -Werror -O2 -fPIC -shared -Icsrc/core -isystem build/cross/$(4)/src -o $$@ $(CORE_C) $(LUA_C)

build/cross/$(1)/mbus/%.so: csrc/lua/%.c | build/cross/$(1)/lua
	@mkdir -p $$(@D)
	@$(2) $(WARNINGS) -Werror -O2 -fPIC -shared -isystem build/cross/$(4)/src -o $$@ $$<

build/cross/$(1)/run: $(CORE_C) $(TEST_C) $(CORE_H) | build/cross/$(1)/lua
	@$(2) $(WARNINGS) -Werror -O2 -Icsrc/core -o $$@ $(CORE_C) $(TEST_C)

.PHONY: build/cross/$(1).result
build/cross/$(1).result: build/cross/$(1)/run $(CROSS_MODULES:%=build/cross/$(1)/mbus/%.so)
	@$(3) build/cross/$(1)/run >$$@
	@LUA_PATH='$(CROSS_LUA_PATH)' LUA_CPATH='build/cross/$(1)/?.so' \
		$(3) build/cross/$(1)/lua csrc/check/specs.lua $(CROSS_EXCLUDED) $(CROSS_SPECS) >build/cross/$(1).log
	@tail -n 1 build/cross/$(1).log >>$$@
endef
$(eval $(call machine,host,$(CC),,lua5.4))
$(eval $(call machine,arm,arm-linux-gnueabihf-gcc,qemu-arm -L /usr/arm-linux-gnueabihf,lua5.4))
$(eval $(call machine,mips,mips-linux-gnu-gcc,qemu-mips -L /usr/mips-linux-gnu,lua5.4))
$(eval $(call machine,lua55,$(CC),,lua5.5))

# Debian's luaconf.h with the one line changed that such a Lua has changed.
lua32: | setup-test
	@rm -rf build/lua32 && mkdir -p build/lua32
	@cp $(LUA_INCDIR)/*.h build/lua32
	@sed -i 's/^#define LUA_32BITS.*/#define LUA_32BITS 1/' build/lua32/luaconf.h
	@for c in $(LUA_C); do \
		if gcc -std=c99 -fsyntax-only -Icsrc/core -isystem build/lua32 $$c 2>build/lua32/log; then \
			echo "$$c compiles with LUA_32BITS" >&2; exit 1; \
		fi; \
		grep -q 'error.*64-bit Lua integers.*without LUA_32BITS' build/lua32/log || { cat build/lua32/log >&2; exit 1; }; \
	done
	@echo 'LUA_32BITS is refused:' "$$(sed -n '/error:/s/.*#error //p' build/lua32/log)"
