//! Creates a spool in a temporary folder, submits a task through the library, and waits for its result.
//!
//! `cargo run --example submit_and_wait`. The library submits the task and waits. A watcher of the program
//! `agentspool` runs the task and exits. To use another program than the one that cargo built, pass its path
//! as an argument.
#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a separate program, which writes a recipe and prints the result"
)]

use std::error::Error;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use agentspool::client::{
    Client, Door, NeverStop, NewTask, Options, OutputFile, Selection, WaitOptions,
};
use agentspool::task::Json;
use tempfile::TempDir;

/// Prints a greeting and the input.
const RECIPE: &str =
    "#!/bin/sh\nread -r input\nprintf 'Hello from a task, which was given %s\\n' \"$input\"\n";

fn main() -> Result<(), Box<dyn Error>> {
    let program = match std::env::args_os().nth(1) {
        Some(program) => PathBuf::from(program),
        // Examples are one folder below the program.
        None => std::env::current_exe()?.with_file_name("../agentspool"),
    };
    println!("{}", greet(&program)?);
    Ok(())
}

/// Runs one task in a new spool, and returns its output.
pub fn greet(program: &Path) -> Result<String, Box<dyn Error>> {
    let folder = TempDir::new()?;
    let client = Client::open_or_make(&folder.path().join("spool"), Options::default())?;
    let recipe = client.recipes_folder().join("greet");
    std::fs::write(&recipe, RECIPE)?;
    std::fs::set_permissions(&recipe, PermissionsExt::from_mode(0o755))?;

    let task = NewTask {
        input: Some(Json::parse(r#"{"name": "Ada"}"#)?),
        ..NewTask::new(Door::Internal)
    };
    // The notices report that no watcher is running. One is started below.
    let (accepted, _notices) = client.submit(&"greet".parse()?, task, &NeverStop)?;
    let id = accepted.id.to_string();

    let mut watcher = Command::new(program)
        .arg("--spool")
        .arg(client.path())
        .args(["--quiet", "watch", "--drain"])
        .stdin(Stdio::null())
        .spawn()?;
    let options = WaitOptions {
        timeout: Some(Duration::from_secs(60)),
        ..WaitOptions::default()
    };
    let waited = client.wait(&Selection::Named(vec![id.clone()]), &options, &NeverStop);
    if waited.is_err() {
        watcher.kill()?;
    }
    watcher.wait()?;
    waited?;

    let result = client.result(&id)?;
    if let Some(error) = &result.result.error {
        return Err(error.message.clone().into());
    }
    match (&result.result.output, result.output_file()?) {
        (Some(output), _) => Ok(output
            .to::<String>()
            .unwrap_or_else(|_| output.text().to_owned())),
        (None, Some(OutputFile::Log(_) | OutputFile::File(_))) => Err("a large output".into()),
        (None, None) => Ok(String::new()),
    }
}
