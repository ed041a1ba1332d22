//! Drives `wire/tests/fuzz/decode.rs`.
#![no_main]

#[path = "../../../wire/tests/fuzz/decode.rs"]
mod decode;

libfuzzer_sys::fuzz_target!(|input: &[u8]| decode::decode(input));
