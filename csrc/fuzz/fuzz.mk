# fuzz.mk - fuzzing, and memory that fails; included by the Makefile. csrc/fuzz/README.md tells more.
#
#   make fuzz                   every target under libFuzzer (clang) for SECONDS=60 each, or RUNS=N executions each
#   make fuzz FUZZ=telegram     one of them
#   make fuzz-short             seeds and SHORT_RUNS=20000 (LUA_RUNS=300) random changes of them, with any compiler: for CI
#   make fuzz-seeds             writes csrc/fuzz/corpus anew from seeds.c
#   make memory                 each allocation of each scenario fails once, see memory.c
#   make memory-short           some of them: for CI
#   make collector              all specs, or those of SPEC='spec/x_spec.lua ...', with a full garbage collection every
#                               COLLECT_EVERY=1000 instructions (20000 in the longest): a quarter of an hour
#   make collector-short        those of the binding (but for every date there is), built with sanitizers: for CI
#
# Frames of FUZZ_FRAMES (*.hex) are seeds too, if they are there. What the fuzzers find is kept in build/fuzz.

FUZZ_C      := deframe telegram roundtrip encode compact number dates fixed
# Promises in Lua: spec/robust/NAME.lua, run by lua.c.
FUZZ_LUA    := security text capture telnet tables
FUZZ        ?= $(FUZZ_C) $(FUZZ_LUA)
FUZZ_FRAMES ?= $(wildcard ../shared/corpus/*/*.hex)
SECONDS     ?= 60
RUNS        ?= -1
SHORT_RUNS  ?= 20000
# The same promises are a spec, too (spec/robust_spec.lua), which draws other inputs.
LUA_RUNS    ?= 300

FUZZ_FLAGS  := $(WARNINGS) -Werror -D_POSIX_C_SOURCE=200809L -g -fsanitize=address,undefined -fno-sanitize-recover=all
FUZZ_H      := csrc/fuzz/fuzz.h $(CORE_H)
# Targets that take frames share their seeds and have a mutator of their own.
FUZZ_SEEDS   = $(if $(filter $(FUZZ_LUA),$(1)),build/fuzz/seeds-of/$(1),csrc/fuzz/corpus/$(if $(filter roundtrip,$(1)),telegram,$(1)))
FUZZ_EXTRA   = build/fuzz/frames/$(if $(filter roundtrip,$(1)),telegram,$(1))
FUZZ_MUTATOR = $(if $(filter telegram roundtrip,$(1)),csrc/fuzz/mutator.c)
# A target takes longer than this many seconds for one input: a loop grows faster than it should.
FUZZ_TIMEOUT := 5

.PHONY: fuzz fuzz-short fuzz-seeds
fuzz: $(addprefix run-fuzz-,$(FUZZ))
fuzz-short: $(addprefix run-short-,$(FUZZ))

# $(call fuzz_run,NAME,RUNS OF THE SHORT FORM,LONGEST INPUT)
define fuzz_run
.PHONY: run-fuzz-$(1) run-short-$(1)
run-fuzz-$(1): build/fuzz/libfuzzer/$(1) build/fuzz/frames
	@mkdir -p build/fuzz/corpus/$(1) build/fuzz/findings $$(call FUZZ_EXTRA,$(1))
	@build/fuzz/libfuzzer/$(1) -max_total_time=$$(if $$(filter -1,$$(RUNS)),$$(SECONDS),0) -runs=$$(RUNS) -timeout=$$(FUZZ_TIMEOUT) \
		-max_len=$(3) -artifact_prefix=build/fuzz/findings/$(1)- -print_final_stats=1 \
		build/fuzz/corpus/$(1) $$(call FUZZ_SEEDS,$(1)) $$(call FUZZ_EXTRA,$(1)) >build/fuzz/$(1).log 2>&1 \
		|| { tail -n 40 build/fuzz/$(1).log >&2; exit 1; }
	@awk '/DONE/{ done = $$$$0 } /number_of_executed_units/{ n = $$$$2 } /average_exec_per_sec/{ rate = $$$$2 } \
		END { match(done, /cov: [0-9]+ ft: [0-9]+/); printf "%-10s %d executions, %d/s, %s\n", "$(1)", n, rate, substr(done, RSTART, RLENGTH) }' \
		build/fuzz/$(1).log

run-short-$(1): build/fuzz/short/$(1)
	@build/fuzz/short/$(1) -runs=$(2) $$(call FUZZ_SEEDS,$(1))
endef

define fuzz_target
$(call fuzz_run,$(1),$$(SHORT_RUNS),$(if $(filter deframe,$(1)),2000,600))

build/fuzz/libfuzzer/$(1): csrc/fuzz/$(1).c csrc/fuzz/mutator.c $(CORE_C) $(FUZZ_H)
	@mkdir -p $$(@D)
	@clang $$(FUZZ_FLAGS) -O2 -fsanitize=fuzzer -o $$@ $$(CORE_C) $$< $$(call FUZZ_MUTATOR,$(1)) -lm

build/fuzz/short/$(1): csrc/fuzz/$(1).c csrc/fuzz/main.c $(CORE_C) $(FUZZ_H)
	@mkdir -p $$(@D)
	@$$(CC) $$(FUZZ_FLAGS) -O1 -o $$@ $$(CORE_C) $$< csrc/fuzz/main.c -lm
endef
$(foreach target,$(FUZZ_C),$(eval $(call fuzz_target,$(target))))

# --- promises in Lua

# Lua itself from its library: found beside its headers, or by the linker.
LUA_LIBS     ?= -llua5.4
LUA_TARGET_C := $(CORE_C) $(LUA_C) csrc/lua/aes.c csrc/lua/limits.c csrc/fuzz/lua.c
LUA_FLAGS     = $(FUZZ_FLAGS) -isystem $(LUA_INCDIR) -Icsrc/core -DFUZZ_ROOT='"$(CURDIR)"'
LUA_LINK      = -lmbedcrypto $(LUA_LIBS) -lm

define fuzz_lua_target
$(call fuzz_run,$(1),$$(LUA_RUNS),600)

build/fuzz/libfuzzer/$(1): $(LUA_TARGET_C) $(FUZZ_H) build/fuzz/seeds-of/$(1)
	@mkdir -p $$(@D)
	@clang $$(LUA_FLAGS) -DFUZZ_NAME='"$(1)"' -O2 -fsanitize=fuzzer -o $$@ $$(LUA_TARGET_C) $$(LUA_LINK)

build/fuzz/short/$(1): $(LUA_TARGET_C) csrc/fuzz/main.c $(FUZZ_H) build/fuzz/seeds-of/$(1)
	@mkdir -p $$(@D)
	@$$(CC) $$(LUA_FLAGS) -DFUZZ_NAME='"$(1)"' -O1 -o $$@ $$(LUA_TARGET_C) csrc/fuzz/main.c $$(LUA_LINK)

build/fuzz/seeds-of/$(1): $(wildcard spec/robust/*.lua) csrc/fuzz/seeds.lua | so
	@rm -rf $$@ && mkdir -p $$@
	@$$(LUA) csrc/fuzz/seeds.lua $(1) $$@
endef
$(foreach target,$(FUZZ_LUA),$(eval $(call fuzz_lua_target,$(target))))

# --- memory that fails, and a collector that never rests

MEMORY       ?= opening serial encode decode sandbox format load loadproc loadscan loadmore read write scan search
MEMORY_C     := $(CORE_C) $(LUA_C) $(addprefix csrc/lua/,aes.c limits.c serial.c) csrc/fuzz/memory.c
# Those of libc are wrapped in what is linked statically.
MEMORY_LINK   = $(addprefix -Wl$(comma)--wrap=,malloc calloc realloc) -Wl,-Bstatic -llua5.4 -lmbedcrypto -lserialport -Wl,-Bdynamic -lm -ldl
comma        := ,

.PHONY: memory memory-short collector collector-short
memory: build/fuzz/memory
	@build/fuzz/memory $(MEMORY)

memory-short: build/fuzz/memory
	@build/fuzz/memory -points=60 $(MEMORY)

build/fuzz/memory: $(MEMORY_C) $(FUZZ_H)
	@mkdir -p $(@D)
	@$(CC) $(FUZZ_FLAGS) -O1 -Icsrc/core -isystem $(LUA_INCDIR) -DFUZZ_ROOT='"$(CURDIR)"' -o $@ $(MEMORY_C) $(MEMORY_LINK)

# Each file in a process of its own: what is alive, and so what a collection takes, grows with every file, and a file that
# leaves the hook in disorder would leave the rest without collections.
COLLECTOR_SPECS = $(sort $(shell find spec -name '*_spec.lua'))
# These repeat the same steps for thousands of polls, random faults and random meters.
COLLECTOR_LONG := spec/soak/soak_spec.lua spec/procedure/faults_spec.lua $(wildcard spec/procedure/*scan*_spec.lua)

collector: so
	@bad=; for spec in $(or $(SPEC),$(COLLECTOR_SPECS)); do \
		case ' $(COLLECTOR_LONG) ' in *" $$spec "*) every=20000 ;; *) every=1000 ;; esac; \
		echo "$$spec, every $${COLLECT_EVERY:-$$every} instructions"; \
		COLLECT_EVERY=$${COLLECT_EVERY:-$$every} $(LUA) -lspec.robust.collector "$$(command -v busted)" -o plainTerminal \
			--exclude-tags=timed $$spec || bad="$$bad $$spec"; \
	done; [ -z "$$bad" ] || { echo "collector: failed:$$bad" >&2; exit 1; }

collector-short: build/sanitized/mbus/core.so
	@LD_PRELOAD="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libubsan.so)" ASAN_OPTIONS=detect_leaks=0 COLLECT_EVERY=10000 \
		$(LUA) -lspec.robust.collector "$$(command -v busted)" --run=sanitized -o plainTerminal \
		$(filter-out %/dates_spec.lua,$(wildcard spec/core/*_spec.lua))

# --- seeds

build/fuzz/seeds: csrc/fuzz/seeds.c $(CORE_C) $(FUZZ_H)
	@mkdir -p $(@D)
	@$(CC) $(FUZZ_FLAGS) -O1 -o $@ $(CORE_C) $<

build/fuzz/frames: build/fuzz/seeds
	@mkdir -p $@
	@[ -z "$(FUZZ_FRAMES)" ] || build/fuzz/seeds $@ $(FUZZ_FRAMES)
	@touch $@

fuzz-seeds: build/fuzz/seeds
	@build/fuzz/seeds csrc/fuzz/corpus
