# bench.mk - speed of decoding; included by the Makefile.
#
#   make bench-decode                   time of the C core, then of Lua
#   make bench-scan                     how long scans of simulated buses take
#   make bench-instructions             instructions of the C core per telegram, where valgrind is there
#   make ... BENCH_FRAMES='a.hex ...'   other telegrams than the corpus

BENCH_FRAMES  ?= $(sort $(wildcard $(or $(BENCH_CORPUS),../shared/corpus)/wired/*.hex))
BENCH_SECONDS ?= 1

.PHONY: bench-decode bench-instructions bench-scan
# How long scans take on simulated buses.
bench-scan: so
	@eval "$$($(MAKE) -s env)"; $(LUA) spec/bench/scan.lua

bench-decode: build/bench/decode so
	@build/bench/decode -t $(BENCH_SECONDS) $(BENCH_FRAMES)
	@eval "$$($(MAKE) -s env)"; BENCH_SECONDS=$(BENCH_SECONDS) $(LUA) spec/bench/decode.lua $(BENCH_FRAMES)

build/bench/decode: csrc/bench/decode.c $(CORE_C) $(CORE_H)
	@mkdir -p $(@D)
	@$(CC) $(WARNINGS) -O2 -g -o $@ $(CORE_C) csrc/bench/decode.c

# One round of each mode with nothing else counted. "Collected" is valgrind's sum.
bench-instructions: build/bench/decode
	@for mode in frame records values texts; do \
		valgrind --tool=callgrind --callgrind-out-file=build/bench/$$mode.out --toggle-collect="measure_$$mode" \
			build/bench/decode -n 10 -m $$mode $(BENCH_FRAMES) 2>&1 | \
		awk -v mode=$$mode '$$1 == "telegrams" { n = 10 * $$2; records = 10 * $$4 } /Collected/ { sum = $$NF; \
			if (mode == "records") sum = sum * 10 / 11; \
			printf "%-8s %8.0f instructions/telegram %8.0f scaled to 12.7 records\n", mode, sum / n, \
				mode == "frame" ? sum / n : sum / records * 12.7 }'; \
	done
