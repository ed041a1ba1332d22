//! Drives `core/tests/fuzz/filter.rs`.
#![no_main]

#[path = "../../../core/tests/fuzz/clients.rs"]
mod clients;
#[path = "../../../core/tests/fuzz/filter.rs"]
mod filter;

libfuzzer_sys::fuzz_target!(|input: &[u8]| filter::filter(input));
