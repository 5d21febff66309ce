# coverage.mk - lines that the tests reach; included by the Makefile.
#
#   make coverage         the C checks and every spec; fails below 95 % in csrc/core or lua/mbus/procedure
#   make coverage-short   the same of those specs alone that are about these two rooms

COVERAGE       := build/coverage
# The long random ones reach no other lines.
COVERAGE_SPECS := spec/core spec/bus_spec.lua spec/decode_spec.lua spec/encode_spec.lua spec/security_spec.lua \
	spec/fuzz_spec.lua spec/init_spec.lua \
	$(filter-out %/scan_fuzz_spec.lua %/speed_spec.lua,$(wildcard spec/procedure/*_spec.lua))
COVERAGE_O     := $(patsubst csrc/%.c,$(COVERAGE)/c/%.o,$(CORE_C) $(LUA_C))
COVERAGE_SO    := $(patsubst build/%,$(COVERAGE)/%,$(SO))

.PHONY: coverage coverage-short run-coverage
coverage: build
	@$(MAKE) -s run-coverage SPEC="$(SPEC)"
coverage-short:
	@$(MAKE) -s run-coverage SPEC="$(COVERAGE_SPECS)"

$(COVERAGE)/c/%.o: csrc/%.c $(CORE_H) | setup-test
	@mkdir -p $(@D)
	@gcc -std=c99 --coverage -O0 -fPIC -Icsrc/core -isystem $(LUA_INCDIR) -c -o $@ $<

.SECONDARY: $(patsubst csrc/%.c,$(COVERAGE)/c/%.o,$(OTHER_C))

$(COVERAGE)/mbus/core.so: $(COVERAGE_O)
	@mkdir -p $(@D)
	@gcc --coverage -shared -o $@ $^

$(COVERAGE)/mbus/%.so: $(COVERAGE)/c/lua/%.o
	@mkdir -p $(@D)
	@gcc --coverage -shared -o $@ $< $($*_LIBS)

$(COVERAGE)/check: $(TEST_C) $(patsubst csrc/%.c,$(COVERAGE)/c/%.o,$(CORE_C))
	@gcc -std=c99 --coverage -O0 -Icsrc/core -o $@ $^

# Stays mapped until the process has ended: hooks may run in finalizers.
$(COVERAGE)/counter.so: spec/coverage/counter.c
	@mkdir -p $(@D)
	@gcc -std=c99 -D_POSIX_C_SOURCE=200809L -Wall -Wextra -O2 -fPIC -shared -Wl,-z,nodelete -isystem $(LUA_INCDIR) -o $@ $<

run-coverage: $(COVERAGE_SO) $(COVERAGE)/check $(COVERAGE)/counter.so
	@rm -rf $(COVERAGE)/hits $(COVERAGE)/c/*.gcov && mkdir -p $(COVERAGE)/hits && find $(COVERAGE) -name '*.gcda' -delete
	@$(COVERAGE)/check >/dev/null
	@COVERAGE="$(CURDIR)/$(COVERAGE)" COVERAGE_HITS="$(CURDIR)/$(COVERAGE)/hits" LUA_INIT_5_4="@$(CURDIR)/spec/coverage/start.lua" \
		$(LUA) "$$(command -v busted)" -o plainTerminal $(SPEC) >$(COVERAGE)/specs.log 2>&1 || tail -n 40 $(COVERAGE)/specs.log
	@cd $(COVERAGE)/c && for o in */*.gcda; do (cd "$(CURDIR)" && gcov -t -o $(COVERAGE)/c/$$o csrc/$${o%.gcda}.c) \
		>$$(dirname $$o)-$$(basename $$o .gcda).gcov 2>/dev/null; done
	@$(LUA) spec/coverage/report.lua $(COVERAGE)
