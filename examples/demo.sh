#!/bin/sh
# make demo: a simulated house on a pseudo-terminal, read over the real serial path.
# Everything lives in one folder under build/ and goes when this script goes, however it ends.
set -eu
cd "$(dirname "$0")/.."
mbus=lua_modules/bin/mbus
mkdir -p build
dir=$(mktemp -d build/demo.XXXXXX)
house=
job=

finish() {
  trap - EXIT INT TERM HUP
  for pid in $job $house; do
    kill "$pid" 2>/dev/null && wait "$pid" 2>/dev/null || true
  done
  rm -rf "$dir"
}
trap finish EXIT
trap 'finish; exit 130' INT
trap 'finish; exit 143' TERM HUP

say() { printf '\n--- %s\n\n' "$1"; }

# In the background, so that a signal is heard at once and not when the command has ended.
attend() {
  "$@" &
  job=$!
  wait "$job"
  job=
}
run() {
  printf '$ mbus %s\n' "$*"
  attend "$mbus" "$@"
}

say 'A telegram, as a heat meter sends it'
run decode examples/heat-meter.hex

say 'A house of eleven meters, simulated on a pseudo-terminal'
port=$dir/house
printf '$ mbus simulate --pty %s &\n' "$port"
"$mbus" simulate --pty "$port" &
house=$!
tries=0
until [ -e "$port" ]; do
  tries=$((tries + 1))
  if [ $tries -gt 100 ] || ! kill -0 "$house" 2>/dev/null; then
    echo 'the simulated house did not come up' >&2
    exit 1
  fi
  sleep 0.1
done

say 'One meter by its primary address, at 2400 baud'
run read "$port" 10

say 'What went over the line for another, by its secondary address'
run read "$port" 3189274724232804 --trace --format jsonl >"$dir/trace" 2>&1
grep -E '^\$|SEND|RECV' "$dir/trace" | sed 's/^\(.\{76\}\).*/\1…/'

say 'All eleven'
printf '$ lua5.4 examples/house.lua %s\n' "$port"
LUA_PATH="lua_modules/share/lua/5.4/?.lua;lua_modules/share/lua/5.4/?/init.lua;;"
LUA_CPATH="lua_modules/lib/lua/5.4/?.so;;"
export LUA_PATH LUA_CPATH
attend lua5.4 examples/house.lua "$port"

say 'Next: plug in a level converter and read your own meters'
echo "$mbus read /dev/ttyUSB0 254"
