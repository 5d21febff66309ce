#!/bin/sh
# Runs each spec file under valgrind, with the modules of build/memcheck: memcheck.sh SPEC...
#
# An access to what is not ours, a use of what was never set and a leak are errors (what is reachable at the end is not: Lua
# frees nothing that a library holds globally). The programs that a spec starts are not looked into.
set -u
lua=${LUA:-lua5.4}
busted=$(command -v busted) || exit 1
folder=build/memcheck
bad=0
for spec; do
  log=$folder/$(echo "${spec%.lua}" | tr / .).log
  timeout -k 10 1800 valgrind --error-exitcode=99 --leak-check=full --num-callers=30 \
    --show-leak-kinds=definite,indirect,possible --errors-for-leak-kinds=definite,indirect,possible \
    "$lua" "$busted" --cpath="$folder/?.so" --exclude-tags=timed -o plainTerminal "$spec" >"$log" 2>&1
  status=$?
  summary=$(grep -E '[0-9]+ success(es)? / ' "$log")
  printf '%-40s %s\n' "$spec" "${summary:-did not come to its end}"
  if [ $status -ne 0 ] || [ -z "$summary" ]; then
    bad=$((bad + 1))
    grep -vE '^[-+●◌◼]+$' "$log" | tail -n 60 >&2
  fi
done
[ $bad -eq 0 ] || { echo "valgrind: $bad of $# spec files failed, see $folder/*.log" >&2; exit 1; }
