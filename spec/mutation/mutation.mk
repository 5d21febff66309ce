# mutation.mk - faults put into csrc/core one at a time, to see whether the tests notice; included by the Makefile.
#
#   make mutation               MUTANTS=400 faults, of each file in proportion; 0: all (hours); FILE=value.c: of one file
#   make mutation SEED=2        another sample
#   make mutation-short         60 faults, the sanitizers left out, and two minutes at most: for CI
#
# spec/mutation/mutate.lua tells how a fault is killed, seeds.lua which faults there are.

MUTANTS ?= 400
SEED    ?= 1
MUTATE   = $(LUA) spec/mutation/mutate.lua --seed $(SEED) --lua-include "$(LUA_INCDIR)" --jobs $$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1)

.PHONY: mutation mutation-short
mutation: setup-test so
	@$(MUTATE) --count $(MUTANTS) $(if $(FILE),--file $(FILE))

mutation-short: setup-test so
	@$(MUTATE) --count 60 --short --seconds 120
