#!/bin/sh
# Builds example-go.wasm.
set -eu
cd "$(dirname "$0")"
mkdir -p build
wit=../../../plugin-api/wit/v0.1.0
world=authorize-plugin
"${WEIRMQ:-weirmq}" plugin bindings --lang go --wit "$wit" --world "$world" --output .
# Where the modules are is said by the workspace, where there is one.
[ -n "${GOWORK:-}" ] || go mod tidy
go test ./policy
GOOS=wasip1 GOARCH=wasm go build -buildmode=c-shared -trimpath -ldflags='-checklinkname=0 -s -w' -o build/module.wasm .
"${WEIRMQ:-weirmq}" plugin seal build/module.wasm --wit "$wit" --world "$world" --output example-go.wasm
