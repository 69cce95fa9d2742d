//! The drop box: any file under any name, admitted or refused in a real spool.
//!
//! Not the checks themselves (`tests/support/fuzzed.rs`).
#![no_main]

#[path = "../../tests/support/fuzzed.rs"]
#[expect(dead_code, reason = "the other targets use the rest")]
mod fuzzed;

thread_local! {
    static DROP_BOX: fuzzed::DropBox = fuzzed::DropBox::new();
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| DROP_BOX.with(|drop_box| drop_box.take(bytes)));
