//! The floors, each in a small process of its own: this program again, with `--inner`.
//!
//! They are small because the cost of a start grows with the memory of the process that starts. Each prints
//! one number. Invariant: nothing here knows of a spool.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

const FLAG: &str = "--inner";

/// Runs the floor, if this process was started for one.
pub fn answer(arguments: &[String]) -> bool {
    let message = match arguments {
        [flag, what, count, at_once] if flag == FLAG && what == "spawn" => {
            spawn(number(count), number(at_once))
        }
        [flag, what, folder, at_once, millis] if flag == FLAG && what == "fsync" => {
            let span = Duration::from_millis(number(millis) as u64);
            fsync(Path::new(folder), number(at_once), span)
        }
        [flag, what, folder, count, at_once, syncs] if flag == FLAG && what == "both" => {
            let folder = Path::new(folder);
            both(folder, number(count), number(at_once), number(syncs))
        }
        _ => return false,
    };
    println!("{message}");
    true
}

/// How many times a second this number of threads start `/bin/true` and wait for it.
pub fn spawns_per_second(count: usize, at_once: usize) -> f64 {
    ask(&["spawn", &count.to_string(), &at_once.to_string()])
}

/// How many new small files a second this number of threads write and sync.
pub fn fsyncs_per_second(folder: &Path, at_once: usize, span: Duration) -> f64 {
    let folder = folder.to_str().expect("a path in UTF-8");
    let millis = span.as_millis().to_string();
    ask(&["fsync", folder, &at_once.to_string(), &millis])
}

/// The minimum of a task: `/bin/true` is started and waited for, one synced file before and the others after
/// it. How many times a second this number of threads do that.
pub fn synced_spawns_per_second(folder: &Path, count: usize, at_once: usize, syncs: usize) -> f64 {
    let folder = folder.to_str().expect("a path in UTF-8");
    let numbers = [count, at_once, syncs].map(|number| number.to_string());
    ask(&["both", folder, &numbers[0], &numbers[1], &numbers[2]])
}

fn ask(arguments: &[&str]) -> f64 {
    let program = std::env::current_exe().expect("this program has a path");
    let output = Command::new(program).arg(FLAG).args(arguments).output();
    let output = output.expect("this program can be started again");
    let text = String::from_utf8_lossy(&output.stdout);
    text.trim()
        .parse()
        .unwrap_or_else(|_| panic!("{arguments:?} answered {output:?}"))
}

fn number(text: &str) -> usize {
    text.parse().expect("a number")
}

fn spawn(count: usize, at_once: usize) -> f64 {
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..at_once {
            scope.spawn(|| {
                for _ in 0..count / at_once {
                    start_and_wait();
                }
            });
        }
    });
    (count / at_once * at_once) as f64 / begun.elapsed().as_secs_f64()
}

fn start_and_wait() {
    // Without a folder and a hook for the child, std uses posix_spawn.
    let ended = Command::new("/bin/true").stdin(Stdio::null()).status();
    assert!(ended.is_ok_and(|status| status.success()), "/bin/true");
}

fn both(folder: &Path, count: usize, at_once: usize, syncs: usize) -> f64 {
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for thread in 0..at_once {
            scope.spawn(move || {
                for n in 0..count / at_once {
                    for sync in 0..syncs {
                        write_synced(&folder.join(format!("{thread}-{n}-{sync}")));
                        if sync == 0 {
                            start_and_wait();
                        }
                    }
                }
            });
        }
    });
    (count / at_once * at_once) as f64 / begun.elapsed().as_secs_f64()
}

fn fsync(folder: &Path, at_once: usize, span: Duration) -> f64 {
    let done = AtomicU64::new(0);
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for thread in 0..at_once {
            let done = &done;
            scope.spawn(move || {
                for n in 0.. {
                    write_synced(&folder.join(format!("{thread}-{n}")));
                    done.fetch_add(1, Ordering::Relaxed);
                    if begun.elapsed() >= span {
                        return;
                    }
                }
            });
        }
    });
    done.into_inner() as f64 / begun.elapsed().as_secs_f64()
}

fn write_synced(path: &PathBuf) {
    let written = File::create_new(path).and_then(|mut file| {
        // About as much as a result.
        file.write_all(&[b'x'; 400])?;
        file.sync_all()
    });
    written.expect("a small file can be written and synced");
}
