//! The scale of these tests: a part on every change, everything on request.
//!
//! `RIG=full` runs everything. Without it each test does what fits into ten minutes for all tests together.
//! It is not a way to skip a test: a test does the same at both scales, only less often. Every figure that a
//! test reaches is printed as `figure: NAME = VALUE` and appended to `target/reliability/figures.txt`, the
//! source of the figures in `docs/reliability.md`.

use std::fmt::Display;
use std::io::Write;

/// Whether full scale was requested.
pub fn is_full() -> bool {
    std::env::var_os("RIG").is_some_and(|asked| asked == "full")
}

/// The number, or the choice, at this scale.
pub fn pick<T>(subset: T, full: T) -> T {
    if is_full() { full } else { subset }
}

/// Prints a figure that was reached. `name` is a phrase such as `kill points tried: submit`.
pub fn figure(name: &str, value: impl Display) {
    let line = format!("figure: {name} = {value}");
    println!("{line}");
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/target/reliability");
    let noted = std::fs::create_dir_all(folder).and_then(|()| {
        let mut file = std::fs::File::options()
            .create(true)
            .append(true)
            .open(format!("{folder}/figures.txt"))?;
        // One write for each line: several tests append at once.
        file.write_all(format!("{line}\n").as_bytes())
    });
    noted.unwrap();
}
