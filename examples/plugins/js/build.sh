#!/bin/sh
# Builds example-js.wasm.
set -eu
cd "$(dirname "$0")"
mkdir -p build
PATH="$PWD/node_modules/.bin:$PATH"
componentize-qjs --wit ../../../plugin-api/wit/v0.1.0 --world weirmq:plugin/auth-plugin@0.1.0 --sync \
    --js plugin.js --output build/component.wasm
"${WEIRMQ:-weirmq}" plugin seal build/component.wasm --output example-js.wasm
