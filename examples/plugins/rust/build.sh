#!/bin/sh
# Builds example-rust.wasm.
set -eu
cd "$(dirname "$0")"
target="${CARGO_TARGET_DIR:-target}"
cargo build --release --target wasm32-unknown-unknown --target-dir "$target"
"${WEIRMQ:-weirmq}" plugin seal "$target/wasm32-unknown-unknown/release/example_rust.wasm" --output example-rust.wasm
