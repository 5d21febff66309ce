# analyse.mk - static analysers, sanitizers and valgrind; included by the Makefile.
#
#   make analyse         gcc -fanalyzer, clang-tidy (.clang-tidy says which checks) and cppcheck find nothing
#   make sanitize        the specs, with every module under the address and undefined behaviour sanitizers
#   make memcheck        all specs under valgrind, or those of SPEC='spec/x_spec.lua ...'
#   make memcheck-short  those of the binding that take less than a minute together
#
# A line that an analyser is wrong about says so itself: NOLINT(check), with the reason. Specs that are held to real or
# processor time have the tag #timed: valgrind and make collector, which take many times longer, leave them out.

ANALYSED := $(CORE_C) $(LUA_C) $(OTHER_C)

.PHONY: analyse cppcheck memcheck memcheck-short
analyse: $(ANALYSED:csrc/%.c=build/analysed/%.gcc) $(ANALYSED:csrc/%.c=build/analysed/%.tidy) cppcheck

build/analysed/%.gcc: csrc/%.c $(CORE_H) | setup-test
	@mkdir -p $(@D)
	@gcc $(WARNINGS) -Werror -O2 -fanalyzer -Icsrc/core -isystem $(LUA_INCDIR) -c -o $@ $<

build/analysed/%.tidy: csrc/%.c $(CORE_H) .clang-tidy | setup-test
	@mkdir -p $(@D)
	@clang-tidy -quiet $< -- -std=c99 -Icsrc/core -isystem $(LUA_INCDIR) >$@.new 2>/dev/null || { cat $@.new >&2; exit 1; }
	@mv $@.new $@

cppcheck: | setup-test
	@cppcheck --std=c99 --enable=warning,performance,portability,style --inline-suppr --error-exitcode=1 -q -Icsrc/core $(ANALYSED)

# --- sanitizers -----------------------------------------------------------------------------------------------

# Not the specs that start ser2net: it inherits the preloaded sanitizers, and with them it never listens.
.PHONY: sanitize
sanitize: $(SO:build/%=build/sanitized/%) so
	@LD_PRELOAD="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libubsan.so)" ASAN_OPTIONS=detect_leaks=0 \
		$(LUA) "$$(command -v busted)" --cpath='build/sanitized/?.so' --exclude-pattern=servers_spec \
		-o plainTerminal $(SPEC)

build/sanitized/mbus/%.so: csrc/lua/%.c | setup-test
	@mkdir -p $(@D)
	@gcc -std=c99 -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all -fPIC -shared -isystem $(LUA_INCDIR) -o $@ $< $($*_LIBS)

# --- valgrind -------------------------------------------------------------------------------------------------

MEMCHECK_SO    := $(SO:build/%=build/memcheck/%)
MEMCHECK_SHORT := $(addprefix spec/,core/decode_spec.lua core/link_spec.lua decode_spec.lua encode_spec.lua aes_spec.lua \
	corpus_spec.lua fuzz_spec.lua)
MEMCHECK_SPECS  = $(sort $(shell find spec -name '*_spec.lua'))

memcheck: $(MEMCHECK_SO) so | setup-test
	@LUA=$(LUA) sh csrc/check/memcheck.sh $(or $(SPEC),$(MEMCHECK_SPECS))

memcheck-short: $(MEMCHECK_SO) | setup-test
	@LUA=$(LUA) sh csrc/check/memcheck.sh $(MEMCHECK_SHORT)

build/memcheck/mbus/core.so: $(CORE_C) $(LUA_C) $(CORE_H) | setup-test
	@mkdir -p $(@D)
	@gcc -std=c99 -O1 -g -fPIC -shared -Icsrc/core -isystem $(LUA_INCDIR) -o $@ $(CORE_C) $(LUA_C)

build/memcheck/mbus/%.so: csrc/lua/%.c | setup-test
	@mkdir -p $(@D)
	@gcc -std=c99 -O1 -g -fPIC -shared -isystem $(LUA_INCDIR) -o $@ $< $($*_LIBS)
