# size.mk - what the C core takes of a microcontroller, and the modules of a disk; included by the Makefile.
#
#   make size        flash and stack on Cortex-M, with names and without (MBUS_NO_NAMES), against their limits
#
# Linked with every public function, with --gc-sections, and with all that these need of libgcc and newlib-nano.

SIZE_PACKAGES  := gcc-arm-none-eabi libnewlib-arm-none-eabi binutils
SIZE_TARGETS   := cortex-m3 cortex-m0plus cortex-m3-no-names cortex-m0plus-no-names
FLASH_LIMIT    := 40960 # 40 KiB
FLASH_NO_NAMES := 24576 # 24 KiB
STACK_LIMIT    := 1024  # of any public function, with all that it calls

.PHONY: size setup-size
setup-size:
	$(call setup,$(SIZE_PACKAGES))

size: $(SIZE_TARGETS:%=build/size/%/core.dis) so
	@$(LUA) csrc/check/size.lua $(FLASH_LIMIT) $(FLASH_NO_NAMES) $(STACK_LIMIT) $(SIZE_TARGETS:%=build/size/%)
	@mkdir -p build/size/stripped
	@for so in $(SO); do strip -o build/size/stripped/$$(basename $$so) $$so; done
	@echo 'modules, stripped, $(shell uname -m), bytes'
	@for so in $(notdir $(SO)); do printf '%-26s %22d\n' $$so $$(wc -c <build/size/stripped/$$so); done

define size_target
build/size/$(1)/core.dis: $(CORE_C) $(CORE_H) | setup-size
	@rm -rf $$(@D) && mkdir -p $$(@D)
	@for c in $(CORE_C); do \
		arm-none-eabi-gcc $(WARNINGS) -Werror -Os -mthumb -mcpu=$(patsubst %-no-names,%,$(1)) $(if $(findstring no-names,$(1)),-DMBUS_NO_NAMES) \
			-ffunction-sections -fdata-sections -fcallgraph-info=su -c -o $$(@D)/$$$$(basename $$$$c .c).o $$$$c || exit 1; \
	done
	@arm-none-eabi-nm -g $$(@D)/*.o | awk '$$$$2 == "T" && $$$$3 ~ /^mbus_/ { print "function", $$$$3 }' >$$(@D)/public.txt
	@for o in $$(@D)/*.o; do echo "file $$$$(basename $$$$o .o)"; done >>$$(@D)/public.txt
	@arm-none-eabi-gcc -Os -mthumb -mcpu=$(patsubst %-no-names,%,$(1)) --specs=nano.specs -nostartfiles -Wl,-e,0 -Wl,--gc-sections \
		$$$$(awk '/^function/ { print "-Wl,-u," $$$$2 }' $$(@D)/public.txt) -o $$(@D)/core.elf $$(@D)/*.o
	@arm-none-eabi-size $$(@D)/*.o $$(@D)/core.elf >$$(@D)/sizes.txt
	@arm-none-eabi-nm $$(@D)/core.elf >$$(@D)/symbols.txt
	@arm-none-eabi-objdump -d $$(@D)/core.elf >$$@.new && mv $$@.new $$@
endef
$(foreach target,$(SIZE_TARGETS),$(eval $(call size_target,$(target))))

# The C checks of the core without names.
.PHONY: check-no-names
check-no-names: build/check/run-no-names
	@build/check/run-no-names | sed 's/^C checks/& without names/'

build/check/run-no-names: $(CORE_C) $(TEST_C) $(CORE_H) | setup-test
	@mkdir -p $(@D)
	@gcc $(WARNINGS) -Werror -DMBUS_NO_NAMES -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all -Icsrc/core -o $@ \
		$(CORE_C) $(TEST_C)
