#!/bin/sh
# Builds example-c.wasm. CC may name another Clang with a C library for WebAssembly than that of Zig.
set -eu
cd "$(dirname "$0")"
mkdir -p build
"${WEIRMQ:-weirmq}" plugin bindings --lang c --wit ../../../plugin-api/wit/v0.1.0 --world transform-plugin --output build
${CC:-python3 -m ziglang cc -target wasm32-wasi} -mexec-model=reactor -O2 -Wall -Wextra \
    -Wl,--strip-debug -Wl,-z,stack-size=131072 -I build ./*.c build/*.c build/*.o -o build/module.wasm
"${WEIRMQ:-weirmq}" plugin seal build/module.wasm --output example-c.wasm
