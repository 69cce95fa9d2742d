//! The library as another program uses it: `examples/submit_and_wait.rs`.

use std::path::Path;

#[path = "../../examples/submit_and_wait.rs"]
#[expect(dead_code, reason = "its `main` is the example's own")]
mod submit_and_wait;

#[test]
fn the_example_submits_waits_and_reads_the_result() {
    let output = submit_and_wait::greet(Path::new(env!("CARGO_BIN_EXE_agentspool"))).unwrap();
    assert_eq!(
        output,
        "Hello from a task, which was given {\"name\": \"Ada\"}"
    );
}
