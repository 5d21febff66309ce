# The gateway over a long time, see spec/soak/*.lua. A short form of the first is a spec.

.PHONY: soak soak-virtual soak-tcp
soak: soak-virtual soak-tcp

SOAK = LUA_PATH="$(CURDIR)/?.lua;$(CURDIR)/lua/?.lua;$(CURDIR)/lua/?/init.lua;;" LUA_CPATH="$(CURDIR)/build/?.so;;" nice $(LUA)

# SOAK_POLLS=1000000 polls on the virtual clock: some minutes.
soak-virtual: setup so
	@$(SOAK) spec/soak/virtual.lua $(SOAK_POLLS)

# SOAK_SECONDS=3600 in real time.
soak-tcp: setup so
	@$(SOAK) spec/soak/tcp.lua $(SOAK_SECONDS)
