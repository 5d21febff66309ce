# bench.mk - speed; included by the Makefile. spec/bench/run.lua tells the settings.
#
#   make bench             all benchmarks in one table, with the change against spec/bench/baseline.txt
#   make bench-baseline    the same, and store it as the baseline
#   make bench-check       instructions only; fails if one is 10 % above the baseline
#   make bench-scan        scans of larger simulated buses
#   make bench-transports  reading over every transport and every fault

BENCH_LUA = eval "$$($(MAKE) -s env)"; export LUA_PATH="./?.lua;$$LUA_PATH" CC="$(CC)"; $(LUA)

.PHONY: bench bench-baseline bench-check bench-scan bench-transports
bench: build/bench/core build/bench/time.so so
	@$(BENCH_LUA) spec/bench/run.lua

bench-baseline: build/bench/core build/bench/time.so so
	@$(BENCH_LUA) spec/bench/run.lua baseline

bench-check: build/bench/core build/bench/time.so so
	@$(BENCH_LUA) spec/bench/run.lua check

bench-scan: so
	@$(BENCH_LUA) spec/bench/scan.lua

bench-transports: so
	@$(BENCH_LUA) spec/bench/transports.lua

build/bench/core: csrc/bench/core.c $(CORE_C) $(CORE_H)
	@mkdir -p $(@D)
	@$(CC) $(WARNINGS) -O2 -g -o $@ $(CORE_C) csrc/bench/core.c

build/bench/time.so: csrc/bench/time.c
	@mkdir -p $(@D)
	@$(CC) $(WARNINGS) -O2 -fPIC -shared -o $@ $<
