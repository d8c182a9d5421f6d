#!/bin/bash
# embed_test.sh BUILD SOURCE TMP MPICC CPP: what `cmake --install` leaves is enough to build and
# run the example, by pkg-config and by find_package, from a folder that has been moved since; and
# CPP, in a project of C++ alone.
set -euo pipefail
build=$1 source=$2 tmp=$3/install mpicc=$4 cpp=$5
rm -rf "$tmp"
mkdir -p "$tmp"
rm "$build/lib/libtrident.a" # as where the program alone was built
cmake --install "$build" --prefix "$tmp/first" >"$tmp/log"
mv "$tmp/first" "$tmp/moved"
pc=$(find "$tmp/moved" -name trident.pc)
PKG_CONFIG_PATH=$(dirname "$pc")
export PKG_CONFIG_PATH
cc=$(sed -n 's/^CMAKE_C_COMPILER:[A-Z]*=//p' "$build/CMakeCache.txt")
# shellcheck disable=SC2046 # flags are words
"$cc" -std=c17 "$source/embed.c" $(pkg-config --cflags --libs trident) -o "$tmp/by_pkg_config"
# shellcheck disable=SC2046
echo '#include <trident/trident_mpi.h>' |
    "$mpicc" -std=c17 $(pkg-config --cflags trident) -fsyntax-only -x c -
cmake -S "$source" -B "$tmp/build" -DCMAKE_PREFIX_PATH="$tmp/moved" -DCMAKE_C_COMPILER="$cc" \
    >>"$tmp/log"
cmake --build "$tmp/build" >>"$tmp/log"
mkdir "$tmp/cpp"
cat >"$tmp/cpp/CMakeLists.txt" <<END
cmake_minimum_required(VERSION 3.25)
project(consumer LANGUAGES CXX)
find_package(trident REQUIRED)
add_executable(consumer $cpp)
target_link_libraries(consumer PRIVATE trident::trident)
END
cmake -S "$tmp/cpp" -B "$tmp/cpp/build" -DCMAKE_PREFIX_PATH="$tmp/moved" >>"$tmp/log"
cmake --build "$tmp/cpp/build" >>"$tmp/log"
cd "$tmp"
./by_pkg_config
"$tmp/build/trident_example_embed"
"$tmp/cpp/build/consumer"
"$tmp/moved/bin/trident" --version
