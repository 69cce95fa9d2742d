//! Requests: any bytes against the parser.
//!
//! Not the checks themselves (`tests/support/fuzzed.rs`).
#![no_main]

#[path = "../../tests/support/fuzzed.rs"]
#[expect(dead_code, reason = "the other targets use the rest")]
mod fuzzed;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzzed::request(bytes));
