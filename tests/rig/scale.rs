//! How much the rig does: a subset on every change, the whole when somebody asks for it.
//!
//! `RIG=full` runs everything, without it each test does what fits into ten minutes for all of
//! them together. Not a way to skip: a test does the same things at both scales, only fewer of
//! them. Every figure a test reaches is printed as `figure: NAME = VALUE` and appended to
//! `target/reliability/figures.txt`, from where `docs/reliability.md` has them.

use std::fmt::Display;
use std::io::Write;

/// Whether the whole was asked for.
pub fn is_full() -> bool {
    std::env::var_os("RIG").is_some_and(|asked| asked == "full")
}

/// How many, or which, at this scale.
pub fn pick<T>(subset: T, full: T) -> T {
    if is_full() { full } else { subset }
}

/// Says what was reached. `name` is a phrase such as `kill points tried: submit`.
pub fn figure(name: &str, value: impl Display) {
    let line = format!("figure: {name} = {value}");
    println!("{line}");
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/target/reliability");
    let noted = std::fs::create_dir_all(folder).and_then(|()| {
        let mut file = std::fs::File::options()
            .create(true)
            .append(true)
            .open(format!("{folder}/figures.txt"))?;
        // One write a line: several tests append at once.
        file.write_all(format!("{line}\n").as_bytes())
    });
    noted.unwrap();
}
