//! How soon a task starts on an idle spool with a running watcher, and how soon a cancelled task is over.
//!
//! The recipe is a static program that reads CLOCK_MONOTONIC in its first instruction. Three spans end there:
//! *drop*, from just before the rename into `incoming/`; *submit*, from just before the command is started;
//! *accepted*, from when inotify reports the folder in `tasks/`. The floor is the same program, started
//! directly. A cancellation ends when inotify reports `result.json`.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::fs::inotify;

use crate::Scale;
use crate::figure::{Figure, Findings, Row};
use crate::image::Ground;
use crate::inner;
use crate::rate::folder_in;
use crate::rivals::{Nq, Pueue, Rival, TaskSpooler};
use crate::world::{Durability, Spool, monotonic, stamp_program, wait_until};

/// The pause before the next sample, so that the spool is idle.
const IDLE: Duration = Duration::from_millis(12);

/// The bounds of a first instruction, in milliseconds: of the median without a sync, and of the 99th percentile.
const SOON: f64 = 3.0;
const LATE: f64 = 20.0;

pub fn measure(scale: &Scale) -> Findings {
    let mut found = Findings::default();
    for ground in Ground::BOTH {
        let process = Spans::take(ground, Durability::Process, scale.latencies);
        let power = Spans::take(ground, Durability::Power, scale.latencies);
        power.report(ground, Durability::Power, Some(&process), &mut found);
        process.report(ground, Durability::Process, None, &mut found);
    }
    found
}

/// Milliseconds.
#[derive(Default)]
struct Spans {
    start: Vec<f64>,
    dropped: Vec<f64>,
    submitted: Vec<f64>,
    accepted: Vec<f64>,
    peers: [Vec<f64>; 3],
    /// How many syncs come before the first instruction, and how long one took.
    syncs: usize,
    sync: Vec<f64>,
}

impl Spans {
    fn take(ground: Ground, durability: Durability, count: usize) -> Spans {
        let mut spans = Spans {
            syncs: syncs_on_the_way(durability),
            ..Spans::default()
        };
        let has_peers = ground == Ground::Image && durability == Durability::Power;
        ground.fresh(|folder| spans.take_in(folder, durability, count, has_peers));
        spans
    }

    fn take_in(&mut self, folder: &Path, durability: Durability, count: usize, has_peers: bool) {
        let spool = Spool::make(folder.join("spool"), durability);
        let watcher = spool.watcher();
        let message = Arrivals::listen(&spool.path().join("tasks"));
        let peers = has_peers.then(|| peers(folder));
        let stamps = folder_in(folder, "stamps");
        for n in 0..count {
            if n % 50 == 0 {
                let folder = folder_in(folder, &format!("syncs-{n}"));
                let synced = inner::fsyncs_per_second(&folder, 1, Duration::from_millis(200));
                self.sync.push(1e3 / synced);
            }
            std::thread::sleep(IDLE);
            self.start.push(start(&stamps.join("start")));
            std::thread::sleep(IDLE);
            self.dropped.push(drop_one(&spool, n));
            std::thread::sleep(IDLE);
            let (submitted, accepted) = submit_one(&spool, &message);
            self.submitted.push(submitted);
            self.accepted.push(accepted);
            // pueue takes a tenth of a second each.
            if n < 100 {
                for (peer, spans) in peers.iter().flatten().zip(&mut self.peers) {
                    std::thread::sleep(IDLE);
                    let path = stamps.join(format!("{}-{n}", peer.name()));
                    spans.push(rival(peer.as_ref(), &path));
                }
            }
        }
        drop(peers);
        drop(watcher);
    }

    /// `process` are the spans without syncs of the same run. The goal of the spans with syncs is relative to
    /// them.
    fn report(
        &self,
        ground: Ground,
        durability: Durability,
        process: Option<&Spans>,
        found: &mut Findings,
    ) {
        let (name, on) = (durability.as_str(), ground.suffix());
        let figure = |samples: &[f64]| Figure::new("ms", samples.to_vec());
        let start = figure(&self.start);
        let sync = figure(&self.sync);
        let mut rows = Vec::new();
        for (what, short, samples) in [
            ("drop → first instruction", "drop", &self.dropped),
            ("submit → first instruction", "submit", &self.submitted),
            ("accepted → first instruction", "accepted", &self.accepted),
        ] {
            let ours = figure(samples);
            if ground == Ground::Image {
                found.curve(&format!("{short}, {name}"), distribution(&ours));
            }
            let late = ours.quantile(0.99);
            let median = ours.median();
            let row = Row::new(&format!("{what}, `durability={name}`{on}"), ours)
                .beside("starting the recipe alone", start.clone())
                .beside("99th percentile", Figure::one("ms", late));
            rows.push(match (short, process) {
                ("accepted", _) => row,
                (_, None) => {
                    let is_soon = median <= SOON && late <= LATE;
                    row.goal("median ≤ 3 ms, 99th percentile ≤ 20 ms", is_soon)
                }
                (_, Some(process)) => {
                    let without = figure(match short {
                        "drop" => &process.dropped,
                        _ => &process.submitted,
                    });
                    let most = without.median() + sync.median() * self.syncs as f64;
                    row.beside("one fsync", sync.clone())
                        .ratio(
                            &format!("of `process` and {} fsyncs", self.syncs),
                            Figure::one("×", median / most),
                        )
                        .goal(
                            "median ≤ 1, 99th percentile ≤ 20 ms",
                            median <= most && late <= LATE,
                        )
                }
            });
        }
        for (name, samples) in ["task-spooler", "nq", "pueue"].into_iter().zip(&self.peers) {
            if !samples.is_empty() {
                let peer = figure(samples);
                found.curve(name, distribution(&peer));
                rows[1].beside.push((name.to_owned(), peer));
            }
        }
        if ground == Ground::Image && durability == Durability::Power {
            found.curve("starting the recipe alone", distribution(&start));
        }
        found.rows.extend(rows);
    }
}

/// The syncs of a submission, and of a runner up to the start of the recipe.
fn syncs_on_the_way(durability: Durability) -> usize {
    Ground::Image.fresh(|folder| {
        let spool = Spool::make(folder.join("spool"), durability);
        let submitting = spool.syncs(&["submit", "--recipe", "stamp", "-q"]);
        let id = spool.run(&["submit", "--recipe", "stamp", "-q"]).stdout;
        let id = String::from_utf8_lossy(&id).trim().to_owned();
        submitting + spool.syncs_before_start(&["runner", "--once", &id])
    })
}

/// Milliseconds, and the share of the samples that took at most that long.
fn distribution(figure: &Figure) -> Vec<(f64, f64)> {
    let shares = (0..=200).map(|n| f64::from(n) / 200.0);
    shares
        .map(|share| (figure.quantile(share), share))
        .collect()
}

fn peers(folder: &Path) -> [Box<dyn Rival>; 3] {
    [
        Box::new(TaskSpooler::start(folder.join("tsp"))),
        Box::new(Nq::start(folder.join("nq"))),
        Box::new(Pueue::start(folder.join("pueue"))),
    ]
}

fn since(begun: i64, stamp: i64) -> f64 {
    (stamp - begun) as f64 / 1e6
}

fn start(path: &Path) -> f64 {
    let begun = monotonic();
    let status = Command::new(stamp_program()).arg(path).status();
    assert!(status.is_ok_and(|status| status.success()), "stamp");
    since(
        begun,
        read_stamp(path).expect("the stamp printed its moment"),
    )
}

fn rival(peer: &dyn Rival, path: &Path) -> f64 {
    let (program, to) = (stamp_program(), path.to_str().expect("a path in UTF-8"));
    let begun = monotonic();
    let program = program.to_str().expect("a path in UTF-8");
    crate::world::time(&mut peer.submission(&[program, to]));
    let mut stamp = None;
    wait_until("a peer has run its task", || {
        stamp = read_stamp(path);
        stamp.is_some()
    });
    since(begun, stamp.expect("it was just read"))
}

fn read_stamp(path: &Path) -> Option<i64> {
    fs::read_to_string(path)
        .ok()?
        .strip_suffix('\n')?
        .parse()
        .ok()
}

fn drop_one(spool: &Spool, n: usize) -> f64 {
    let incoming = spool.path().join("incoming");
    let hidden = incoming.join(format!(".{n}.tmp"));
    fs::write(&hidden, "{\"recipe\": \"stamp\"}\n").expect("a drop can be written");
    let visible = incoming.join(format!("drop-{n}.json"));
    let begun = monotonic();
    fs::rename(&hidden, &visible).expect("a drop can be renamed");
    let task = spool.path().join(format!("names/drop-{n}"));
    since(begun, stamp_of(&task))
}

/// From the start of the command, and from the moment the task existed.
fn submit_one(spool: &Spool, message: &Arrivals) -> (f64, f64) {
    let mut command = spool.command(&["submit", "--recipe", "stamp", "-q"]);
    let begun = monotonic();
    let output = command.stderr(Stdio::null()).output();
    let output = output.expect("the program can be started");
    let id = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let stamp = stamp_of(&spool.task(&id));
    (since(begun, stamp), since(message.of(&id), stamp))
}

/// The moment that the recipe printed, once its task is over.
fn stamp_of(task: &Path) -> i64 {
    std::thread::sleep(Duration::from_millis(8));
    let mut result = None;
    wait_until("a result stands", || {
        result = fs::read(task.join("result.json")).ok();
        result.is_some()
    });
    let result: serde_json::Value =
        serde_json::from_slice(&result.expect("it was just read")).expect("a result is JSON");
    let stamp = result["output"].as_i64();
    stamp.unwrap_or_else(|| panic!("the recipe printed {result}"))
}

/// When names appeared in a folder, as inotify reported it.
pub struct Arrivals {
    message: Arc<Mutex<HashMap<OsString, i64>>>,
}

impl Arrivals {
    pub fn listen(folder: &Path) -> Arrivals {
        let inotify = listen(folder);
        let message = Arc::new(Mutex::new(HashMap::new()));
        let noted = Arc::clone(&message);
        // The thread ends with the program. The descriptor of a removed folder reports nothing more.
        std::thread::spawn(move || {
            each_arrival(&inotify, |name, moment| {
                let mut noted = noted.lock().expect("nobody panics with it");
                noted.insert(name, moment);
                true
            });
        });
        Arrivals { message }
    }

    fn of(&self, name: &str) -> i64 {
        let mut moment = None;
        wait_until("inotify reported a task", || {
            let message = self.message.lock().expect("nobody panics with it");
            moment = message.get(&OsString::from(name)).copied();
            moment.is_some()
        });
        moment.expect("it was just read")
    }
}

/// Waits for one name in a folder that is listened to, and returns when it appeared.
pub fn arrival(inotify: &OwnedFd, awaited: &str) -> i64 {
    let mut came = 0;
    each_arrival(inotify, |name, moment| {
        came = moment;
        name != awaited
    });
    came
}

pub fn listen(folder: &Path) -> OwnedFd {
    let inotify = inotify::init(inotify::CreateFlags::CLOEXEC).expect("inotify can be had");
    let flags = inotify::WatchFlags::MOVED_TO | inotify::WatchFlags::ONLYDIR;
    inotify::add_watch(&inotify, folder, flags).expect("a folder can be listened to");
    inotify
}

/// Calls `note` with each name and the moment it was reported, until `note` returns false or the folder is
/// removed.
fn each_arrival(inotify: &OwnedFd, mut note: impl FnMut(OsString, i64) -> bool) {
    use std::os::unix::ffi::OsStringExt;
    let mut buffer = [std::mem::MaybeUninit::uninit(); 4096];
    let mut reader = inotify::Reader::new(inotify, &mut buffer);
    while let Ok(event) = reader.next() {
        let moment = monotonic();
        if event.events().contains(inotify::ReadFlags::IGNORED) {
            return;
        }
        let name = event.file_name().map(|name| name.to_bytes().to_vec());
        if name.is_some_and(|name| !note(OsString::from_vec(name), moment)) {
            return;
        }
    }
}

/// The folder of a task whose recipe runs.
pub fn begun(spool: &Spool) -> (String, PathBuf) {
    let output = spool.run(&["submit", "--recipe", "sleep", "-q"]);
    let id = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let task = spool.task(&id);
    wait_until("the task is shown as running", || {
        let status = fs::read_to_string(task.join("status.json"));
        status.is_ok_and(|status| status.contains("\"running\""))
    });
    (id, task)
}
