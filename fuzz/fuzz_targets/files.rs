//! The files of a task: any bytes in place of one of them, read by every reader.
//!
//! Not the checks themselves (`tests/support/fuzzed.rs`).
#![no_main]

#[path = "../../tests/support/fuzzed.rs"]
#[expect(dead_code, reason = "the other targets use the rest")]
mod fuzzed;

thread_local! {
    static TASK: fuzzed::DamagedTask = fuzzed::DamagedTask::new();
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| TASK.with(|task| task.read(bytes)));
