#!/bin/sh
# Builds example-python.wasm.
set -eu
cd "$(dirname "$0")"
mkdir -p build
componentize-py --quiet --wit-path ../../../plugin-api/wit/v0.1.0 --world weirmq:plugin/transform-plugin@0.1.0 \
    componentize app --output build/component.wasm
"${WEIRMQ:-weirmq}" plugin seal build/component.wasm --output example-python.wasm
