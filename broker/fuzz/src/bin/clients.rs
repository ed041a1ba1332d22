//! Drives `core/tests/fuzz/clients.rs`.
#![no_main]

#[path = "../../../core/tests/fuzz/clients.rs"]
mod clients;

libfuzzer_sys::fuzz_target!(|input: &[u8]| clients::clients(input));
