#!/bin/sh
# Unpacks the source of Debian's Lua: lua_source.sh SUITE PACKAGE FOLDER, as `lua_source.sh bookworm lua5.4 build/lua5.4`.
# All that apt needs for it is kept beside FOLDER: the lists of the system are not touched.
set -eu
suite=$1 package=$2 folder=$3
mkdir -p "$folder.apt/lists/partial" "$folder.apt/cache/archives/partial"
apt=$(cd "$folder.apt" && pwd)
echo "deb-src http://deb.debian.org/debian $suite main" >"$apt/sources.list"
cat >"$apt/apt.conf" <<END
Dir::Etc::SourceList "$apt/sources.list";
Dir::Etc::SourceParts "-";
Dir::State::Lists "$apt/lists";
Dir::Cache "$apt/cache";
APT::Sandbox::User "";
Acquire::Languages "none";
END
export APT_CONFIG="$apt/apt.conf"
apt-get update -qq
(cd "$apt" && apt-get source -qq --download-only --tar-only "$package")
rm -rf "$folder"
mkdir "$folder"
tar -xf "$apt"/*.orig.tar.* -C "$folder" --strip-components=1
rm -rf "$apt"
