# fuzz.mk - fuzzing of the C core; included by the Makefile. csrc/fuzz/README.md tells more.
#
#   make fuzz                   every target under libFuzzer (clang) for SECONDS=60 each, or RUNS=N executions each
#   make fuzz FUZZ=telegram     one of them
#   make fuzz-short             seeds and SHORT_RUNS=20000 random changes of them, with any compiler: for CI
#   make fuzz-seeds             writes csrc/fuzz/corpus anew from seeds.c
#
# Frames of FUZZ_FRAMES (*.hex) are seeds too, if they are there. What the fuzzers find is kept in build/fuzz.

FUZZ        ?= deframe telegram roundtrip encode compact number
FUZZ_FRAMES ?= $(wildcard ../shared/corpus/*/*.hex)
SECONDS     ?= 60
RUNS        ?= -1
SHORT_RUNS  ?= 20000

FUZZ_FLAGS  := $(WARNINGS) -Werror -D_POSIX_C_SOURCE=200809L -g -fsanitize=address,undefined -fno-sanitize-recover=all
FUZZ_H      := csrc/fuzz/fuzz.h $(CORE_H)
# Targets that take frames share their seeds and have a mutator of their own.
FUZZ_SEEDS   = csrc/fuzz/corpus/$(if $(filter roundtrip,$(1)),telegram,$(1))
FUZZ_EXTRA   = build/fuzz/frames/$(if $(filter roundtrip,$(1)),telegram,$(1))
FUZZ_MUTATOR = $(if $(filter telegram roundtrip,$(1)),csrc/fuzz/mutator.c)
# A target takes longer than this many seconds for one input: a loop grows faster than it should.
FUZZ_TIMEOUT := 2

.PHONY: fuzz fuzz-short fuzz-seeds
fuzz: $(addprefix run-fuzz-,$(FUZZ))
fuzz-short: $(addprefix run-short-,$(FUZZ))

define fuzz_target
.PHONY: run-fuzz-$(1) run-short-$(1)
build/fuzz/libfuzzer/$(1): csrc/fuzz/$(1).c csrc/fuzz/mutator.c $(CORE_C) $(FUZZ_H)
	@mkdir -p $$(@D)
	@clang $$(FUZZ_FLAGS) -O2 -fsanitize=fuzzer -o $$@ $$(CORE_C) $$< $$(call FUZZ_MUTATOR,$(1)) -lm

build/fuzz/short/$(1): csrc/fuzz/$(1).c csrc/fuzz/main.c $(CORE_C) $(FUZZ_H)
	@mkdir -p $$(@D)
	@$$(CC) $$(FUZZ_FLAGS) -O1 -o $$@ $$(CORE_C) $$< csrc/fuzz/main.c -lm

run-fuzz-$(1): build/fuzz/libfuzzer/$(1) build/fuzz/frames
	@mkdir -p build/fuzz/corpus/$(1) build/fuzz/findings $$(call FUZZ_EXTRA,$(1))
	@build/fuzz/libfuzzer/$(1) -max_total_time=$$(if $$(filter -1,$$(RUNS)),$$(SECONDS),0) -runs=$$(RUNS) -timeout=$$(FUZZ_TIMEOUT) \
		-max_len=$$(if $$(filter deframe,$(1)),2000,600) -artifact_prefix=build/fuzz/findings/$(1)- -print_final_stats=1 \
		build/fuzz/corpus/$(1) $$(call FUZZ_SEEDS,$(1)) $$(call FUZZ_EXTRA,$(1)) >build/fuzz/$(1).log 2>&1 \
		|| { tail -n 40 build/fuzz/$(1).log >&2; exit 1; }
	@awk '/DONE/{ done = $$$$0 } /number_of_executed_units/{ n = $$$$2 } /average_exec_per_sec/{ rate = $$$$2 } \
		END { match(done, /cov: [0-9]+/); printf "%-10s %d executions, %d/s, %s\n", "$(1)", n, rate, substr(done, RSTART, RLENGTH) }' \
		build/fuzz/$(1).log

run-short-$(1): build/fuzz/short/$(1)
	@build/fuzz/short/$(1) -runs=$$(SHORT_RUNS) $$(call FUZZ_SEEDS,$(1))
endef
$(foreach target,$(FUZZ),$(eval $(call fuzz_target,$(target))))

build/fuzz/seeds: csrc/fuzz/seeds.c $(CORE_C) $(FUZZ_H)
	@mkdir -p $(@D)
	@$(CC) $(FUZZ_FLAGS) -O1 -o $@ $(CORE_C) $<

build/fuzz/frames: build/fuzz/seeds
	@mkdir -p $@
	@[ -z "$(FUZZ_FRAMES)" ] || build/fuzz/seeds $@ $(FUZZ_FRAMES)
	@touch $@

fuzz-seeds: build/fuzz/seeds
	@build/fuzz/seeds csrc/fuzz/corpus
