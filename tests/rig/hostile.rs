//! Hostile drops: everything that can be put into a box, among good drops, while a watcher runs.
//!
//! Not what a group user does elsewhere in the spool (`group_user.rs`), and not random bytes (`fuzz/`).
//! Checked for each kind: it ends in `rejected/` with a reason, or stays with one line of the log, or becomes
//! a task. The watcher keeps running and takes the next good drop. No byte of a file of another user, and no
//! byte of a refused drop, is in a reason, a status or the log.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::group::{GROUP, OWNER, Shared, Watching};
use crate::scale::{figure, pick};
use crate::support::names_in;

const SECRET: &str = "hunter2 of sesame";

/// What a kind of drop may become.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Outcome {
    Rejected,
    /// Stays in the box, and is logged once.
    Stays,
    Task,
    /// By its name it is not a drop.
    Ignored,
}

use Outcome::{Ignored, Rejected, Stays, Task};

/// How a drop of this kind is created, given its path in the box.
enum Made {
    Bytes(Vec<u8>),
    By(Box<dyn Fn(&Path)>),
}

struct Kind {
    what: &'static str,
    file_name: OsString,
    made: Made,
    outcome: Outcome,
}

struct Kinds {
    all: Vec<Kind>,
}

impl Kinds {
    fn named(&mut self, what: &'static str, name: &[u8], outcome: Outcome) {
        let good = br#"{"recipe": "echo", "input": 1}"#.to_vec();
        self.push(what, name, Made::Bytes(good), outcome);
    }

    fn content(&mut self, what: &'static str, bytes: impl AsRef<[u8]>, outcome: Outcome) {
        let name = format!("content-{}.json", self.all.len());
        self.push(
            what,
            name.as_bytes(),
            Made::Bytes(bytes.as_ref().to_vec()),
            outcome,
        );
    }

    fn thing(&mut self, what: &'static str, outcome: Outcome, by: impl Fn(&Path) + 'static) {
        let name = format!("thing-{}.json", self.all.len());
        self.push(what, name.as_bytes(), Made::By(Box::new(by)), outcome);
    }

    fn push(&mut self, what: &'static str, name: &[u8], made: Made, outcome: Outcome) {
        let file_name = OsStr::from_bytes(name).to_owned();
        self.all.push(Kind {
            what,
            file_name,
            made,
            outcome,
        });
    }
}

fn contents(kinds: &mut Kinds) {
    let s = SECRET;
    let nested = |depth: usize| {
        format!(
            "{{\"recipe\":\"echo\",\"input\":{}{}}}",
            "[".repeat(depth),
            "]".repeat(depth)
        )
    };
    let request = |fields: &str| format!("{{\"recipe\":\"echo\",{fields}}}");
    kinds.content("empty", "", Rejected);
    kinds.content("white space only", "  \n\t ", Rejected);
    kinds.content("no JSON", s, Rejected);
    kinds.content(
        "half a request",
        request(&format!("\"input\":\"{s}")).trim_end_matches('}'),
        Rejected,
    );
    kinds.content(
        "a NUL tail",
        [request("\"input\":1").as_bytes(), &[0; 512]].concat(),
        Rejected,
    );
    kinds.content("only NULs", [0; 4096], Rejected);
    kinds.content(
        "a byte order mark",
        format!("\u{feff}{}", request("\"input\":1")),
        Task,
    );
    let utf16: Vec<u8> = request("\"input\":1")
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    kinds.content("UTF-16", utf16, Rejected);
    kinds.content(
        "invalid UTF-8",
        b"{\"recipe\":\"echo\",\"input\":\"\xff\xfe\"}",
        Rejected,
    );
    kinds.content(
        "an overlong encoding",
        b"{\"recipe\":\"echo\",\"input\":\"\xc0\xaf\"}",
        Rejected,
    );
    kinds.content("100,000 arrays deep", nested(100_000), Rejected);
    kinds.content("one array too deep", nested(200), Rejected);
    kinds.content("100,000 objects deep", "{\"a\":".repeat(100_000), Rejected);
    kinds.content(
        "a field twice",
        request(&format!("\"input\":\"{s}\",\"input\":1")),
        Rejected,
    );
    kinds.content(
        "a key of the input twice",
        request(&format!("\"input\":{{\"{s}\":1,\"{s}\":2}}")),
        Rejected,
    );
    kinds.content("1e400", request("\"input\":1e400"), Rejected);
    kinds.content(
        "1e400 for a timeout",
        request("\"timeout_sec\":1e400"),
        Rejected,
    );
    kinds.content(
        "a number of 100,000 digits",
        request(&format!("\"input\":{}", "9".repeat(100_000))),
        Rejected,
    );
    kinds.content(
        "a number of 300 digits",
        request(&format!("\"input\":{}", "9".repeat(300))),
        Task,
    );
    kinds.content(
        "a negative timeout",
        request("\"timeout_sec\":-1"),
        Rejected,
    );
    kinds.content("no timeout at all", request("\"timeout_sec\":0"), Rejected);
    kinds.content(
        "a very long timeout",
        request("\"timeout_sec\":1e300"),
        Rejected,
    );
    kinds.content(
        "a timeout in words",
        request(&format!("\"timeout_sec\":\"{s}\"")),
        Rejected,
    );
    kinds.content(
        "a lone surrogate",
        request("\"input\":\"\\ud800\""),
        Rejected,
    );
    kinds.content(
        "a lone surrogate as a key",
        request("\"input\":{\"\\udfff\":1}"),
        Rejected,
    );
    kinds.content(
        "a NUL in a string",
        request("\"input\":\"a\\u0000b\""),
        Task,
    );
    kinds.content(
        "a NUL in the recipe",
        "{\"recipe\":\"ec\\u0000ho\"}",
        Rejected,
    );
    kinds.content(
        "a raw newline in a string",
        request("\"input\":\"a\nb\""),
        Rejected,
    );
    kinds.content("an array", format!("[\"{s}\"]"), Rejected);
    kinds.content(
        "the fields of a request in an array",
        "[1,\"echo\"]",
        Rejected,
    );
    kinds.content("a string", format!("\"{s}\""), Rejected);
    kinds.content("a number", "42", Rejected);
    kinds.content("null", "null", Rejected);
    kinds.content(
        "two objects",
        format!("{0}{0}", request("\"input\":1")),
        Rejected,
    );
    kinds.content(
        "text after the object",
        format!("{} {s}", request("\"input\":1")),
        Rejected,
    );
    kinds.content(
        "a comment",
        format!("// {s}\n{}", request("\"input\":1")),
        Rejected,
    );
    kinds.content("a trailing comma", request("\"input\":1,"), Rejected);
    kinds.content("NaN", request("\"input\":NaN"), Rejected);
    kinds.content("single quotes", "{'recipe':'echo'}", Rejected);
    for word in ["key", "retries", "priority", "after", "not_before"] {
        kinds.content(
            "a reserved word",
            request(&format!("\"{word}\":\"{s}\"")),
            Rejected,
        );
    }
    kinds.content("an unknown field", request(&format!("\"{s}\":1")), Rejected);
    kinds.content(
        "a secret of one word as a field",
        request("\"hunter2\":1"),
        Rejected,
    );
    kinds.content("no recipe", format!("{{\"input\":\"{s}\"}}"), Rejected);
    kinds.content(
        "a recipe that does not exist",
        "{\"recipe\":\"nobody\"}",
        Rejected,
    );
    for recipe in [
        "../echo",
        "..",
        ".",
        "",
        "/bin/sh",
        "echo/../../../bin/sh",
        "-rf",
        "~",
        "echo ",
        "e\\ncho",
    ] {
        kinds.content(
            "a recipe that leads away",
            format!("{{\"recipe\":\"{recipe}\"}}"),
            Rejected,
        );
    }
    kinds.content(
        "a recipe of 101 letters",
        format!("{{\"recipe\":\"{}\"}}", "x".repeat(101)),
        Rejected,
    );
    kinds.content(
        "a command",
        request("\"command\":[\"sh\",\"-c\",\"id\"]"),
        Rejected,
    );
    kinds.content(
        "a recipe of the wrong type",
        format!("{{\"recipe\":[\"{s}\"]}}"),
        Rejected,
    );
    kinds.content(
        "a config that is a text",
        request(&format!("\"config\":\"{s}\"")),
        Rejected,
    );
    kinds.content(
        "a config too large",
        request(&format!("\"config\":{{\"a\":\"{}\"}}", "x".repeat(200_000))),
        Rejected,
    );
    kinds.content(
        "metadata that are a list",
        request(&format!("\"metadata\":[\"{s}\"]")),
        Rejected,
    );
    kinds.content(
        "a session that leads away",
        request("\"session_id\":\"../../x\""),
        Rejected,
    );
    kinds.content(
        "a session with a slash",
        request("\"session_id\":\"a/b\""),
        Rejected,
    );
    kinds.content("the name `last`", request("\"name\":\"last\""), Rejected);
    kinds.content(
        "a name like an id",
        request("\"name\":\"task_0\""),
        Rejected,
    );
    kinds.content("a name with a slash", request("\"name\":\"a/b\""), Rejected);
    kinds.content("a newer version", "{\"v\":2,\"recipe\":\"echo\"}", Rejected);
    kinds.content(
        "a negative version",
        "{\"v\":-1,\"recipe\":\"echo\"}",
        Rejected,
    );
    kinds.content(
        "a megabyte too much",
        request(&format!("\"input\":\"{}\"", "x".repeat(1 << 20))),
        Rejected,
    );
    kinds.content("white space without end", " ".repeat(2 << 20), Rejected);
}

fn names(kinds: &mut Kinds) {
    kinds.named("a newline in the name", b"a\nb.json", Task);
    kinds.named("an escape sequence in the name", b"\x1b[2Ja.json", Task);
    kinds.named(
        "a direction mark in the name",
        "a\u{202e}b.json".as_bytes(),
        Task,
    );
    kinds.named("a dash before the name", b"-rf.json", Task);
    kinds.named("two dots in the name", b"a..json", Task);
    kinds.named("a quote in the name", b"a\"b'c.json", Task);
    kinds.named("a backslash in the name", b"a\\b.json", Task);
    kinds.named(
        "a name of 255 bytes",
        &[vec![b'x'; 250], b".json".to_vec()].concat(),
        Task,
    );
    kinds.named("a name that is not UTF-8", b"\xff\xfe.json", Task);
    kinds.named("`last` as the name", b"last.json", Task);
    kinds.named(
        "an id with another time as the name",
        b"task_01m89dt16m3zs3qgzmxcqpr6ka.json",
        Rejected,
    );
    kinds.named("a tilde as the name", b"~.json", Task);
    kinds.named("a reason's name", b"x.reason.json", Task);
    kinds.named("a shell's glob", b"*.json", Task);
    kinds.named("dots before the name", b"...json", Ignored);
    kinds.named("an editor's copy", b"a.json~", Ignored);
    kinds.named("hidden", b".a.json", Ignored);
    kinds.named("no ending", b"4913", Ignored);
}

fn things(kinds: &mut Kinds, secret: &Path) {
    kinds.thing("a FIFO", Rejected, |at| run("mkfifo", &[at]));
    kinds.thing("a socket", Rejected, |at| {
        drop(UnixListener::bind(at).unwrap())
    });
    kinds.thing("a node of /dev/zero", Rejected, |at| {
        let made = Command::new("mknod").arg(at).args(["c", "1", "5"]).status();
        assert!(made.unwrap().success());
    });
    kinds.thing("a folder", Stays, |at| {
        let between = at.with_file_name(".folder");
        fs::create_dir(&between).unwrap();
        chown(&between, Some(OWNER), None).unwrap();
        fs::rename(between, at).unwrap();
    });
    kinds.thing("another user's folder", Stays, |at| {
        fs::create_dir(at).unwrap()
    });
    kinds.thing("a dangling link", Rejected, |at| link("nowhere", at));
    kinds.thing("a link to itself", Rejected, |at| link(at, at));
    kinds.thing("a link to /dev/zero", Rejected, |at| link("/dev/zero", at));
    kinds.thing("a link to the spool", Rejected, |at| link("..", at));
    let file = secret.to_owned();
    kinds.thing("a link to root's file", Rejected, move |at| link(&file, at));
    let file = secret.to_owned();
    kinds.thing("a hard link to root's file", Rejected, move |at| {
        fs::hard_link(&file, at).unwrap()
    });
    kinds.thing("a file without any mode", Rejected, |at| {
        fs::write(at, SECRET).unwrap();
        fs::set_permissions(at, fs::Permissions::from_mode(0o000)).unwrap();
    });
    kinds.thing("another user's shut file", Rejected, |at| {
        fs::write(at, SECRET).unwrap();
        fs::set_permissions(at, fs::Permissions::from_mode(0o600)).unwrap();
    });
    kinds.thing("a hole of 2 GiB", Rejected, |at| {
        let file = File::create(at).unwrap();
        file.set_len(2 << 30).unwrap();
    });
    kinds.thing("a file that grows", Task, |at| {
        let mut file = File::create(at).unwrap();
        for byte in b"{\"recipe\":\"echo\",\"input\":1}" {
            file.write_all(&[*byte]).unwrap();
        }
    });
    kinds.thing("a file that shrinks", Rejected, |at| {
        let file = File::create(at).unwrap();
        for left in (0..100).rev() {
            file.set_len(left * 1000).unwrap();
        }
    });
    kinds.thing("a file that is replaced again and again", Task, |at| {
        let other = at.with_extension("other");
        for round in 0..50 {
            let text = format!("{{\"recipe\":\"echo\",\"input\":{round}}}");
            fs::write(&other, text).unwrap();
            fs::rename(&other, at).unwrap();
        }
    });
    kinds.thing("a file that is written through a mapping", Task, |at| {
        let between = at.with_file_name(".mapped");
        fs::write(&between, "{\"recipe\":\"echo\",\"input\":1}").unwrap();
        open_to_all(&between);
        // Digits overwrite digits, so that the file is a valid request at every time.
        let script = "import mmap, os, sys\n\
            f = open(sys.argv[1], 'r+b'); m = mmap.mmap(f.fileno(), 0)\n\
            at = m.find(b'1'); os.rename(sys.argv[1], sys.argv[2])\n\
            for i in range(20000): m[at:at + 1] = b'%d' % (i % 10)\n";
        let mut writer = Command::new("python3");
        let mut writer = writer
            .args(["-c", script])
            .arg(between)
            .arg(at)
            .spawn()
            .unwrap();
        std::thread::spawn(move || writer.wait());
    });
}

fn run(program: &str, arguments: &[&Path]) {
    let ran = Command::new(program).args(arguments).status().unwrap();
    assert!(ran.success(), "{program}");
}

fn link(target: impl AsRef<Path>, at: &Path) {
    std::os::unix::fs::symlink(target, at).unwrap();
}

fn open_to_all(at: &Path) {
    fs::set_permissions(at, fs::Permissions::from_mode(0o666)).unwrap();
}

/// A drop as a careful program creates it: complete when it gets its name.
fn drop_good(shared: &Shared, number: usize) {
    let incoming = shared.spool().join("incoming");
    let between = incoming.join(".good");
    fs::write(
        &between,
        format!("{{\"recipe\":\"echo\",\"input\":{number}}}"),
    )
    .unwrap();
    open_to_all(&between);
    fs::rename(between, incoming.join(format!("good-{number}.json"))).unwrap();
}

/// The drop box of a group spool, as root sees it, who may write in it: root puts files there that the owner
/// could never put there himself.
struct Hostile<'a> {
    shared: &'a Shared,
    incoming: PathBuf,
}

impl Hostile<'_> {
    fn drop_it(&self, kind: &Kind) {
        let place = self.incoming.join(&kind.file_name);
        match &kind.made {
            Made::By(by) => by(&place),
            Made::Bytes(bytes) => {
                let between = self.incoming.join(".between");
                fs::write(&between, bytes).unwrap();
                chown(&between, Some(OWNER), Some(GROUP)).unwrap();
                fs::rename(between, place).unwrap();
            }
        }
    }

    fn in_box(&self, kind: &Kind) -> bool {
        self.incoming
            .join(&kind.file_name)
            .symlink_metadata()
            .is_ok()
    }

    fn count(&self, folder: &str, ending: &str) -> usize {
        let names = names_in(&self.shared.spool().join(folder));
        names.iter().filter(|name| name.ends_with(ending)).count()
    }

    /// Drops it, waits for the outcome, and returns the outcome.
    fn outcome_of(&self, kind: &Kind, watching: &Watching<'_>) -> Outcome {
        let reasons = self.count("rejected", ".reason.json");
        let tasks = self.count("tasks", "");
        let left = || watching.log().matches("left in the box").count();
        let earlier = left();
        self.drop_it(kind);
        if kind.outcome == Ignored {
            return if self.in_box(kind) { Ignored } else { Task };
        }
        self.shared
            .world
            .wait_until(kind.what, || !self.in_box(kind) || left() > earlier);
        self.shared.world.wait_until("its outcome is known", || {
            left() > earlier
                || self.count("rejected", ".reason.json") > reasons
                || self.count("tasks", "") > tasks
        });
        if self.in_box(kind) {
            Stays
        } else if self.count("rejected", ".reason.json") > reasons {
            Rejected
        } else {
            Task
        }
    }
}

/// Everything that a reader of the spool sees, except the drops themselves.
fn leaks(shared: &Shared, log: &str) -> Vec<String> {
    let is_reported = |path: &Path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        !path.starts_with(shared.spool().join("incoming"))
            && (name.ends_with(".reason.json")
                || !path.starts_with(shared.spool().join("rejected")))
    };
    let files = walkdir::WalkDir::new(shared.spool()).into_iter().flatten();
    let mut leaks: Vec<String> = files
        .filter(|entry| entry.file_type().is_file() && is_reported(entry.path()))
        .filter(|entry| has_secret(&fs::read(entry.path()).unwrap_or_default()))
        .map(|entry| entry.path().display().to_string())
        .collect();
    if has_secret(log.as_bytes()) {
        leaks.push("the log".into());
    }
    leaks
}

fn has_secret(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    text.contains(SECRET) || text.contains("hunter2")
}

#[test]
fn every_kind_of_hostile_drop_among_good_drops() {
    let shared = Shared::new();
    let secret = shared.world.root().join("secret.json");
    fs::write(
        &secret,
        format!("{{\"recipe\":\"echo\",\"input\":\"{SECRET}\"}}"),
    )
    .unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    shared
        .run(OWNER, &["config", "set", "drop_patience_sec", "0.5"])
        .succeeds();
    let mut kinds = Kinds { all: Vec::new() };
    contents(&mut kinds);
    names(&mut kinds);
    things(&mut kinds, &secret);
    let mut watching = shared.watcher();
    let hostile = Hostile {
        shared: &shared,
        incoming: shared.spool().join("incoming"),
    };
    let (mut good, mut violations) = (0, Vec::new());
    for round in 0..pick(1, 10) {
        for (number, kind) in kinds.all.iter().enumerate() {
            let outcome = hostile.outcome_of(kind, &watching);
            if outcome != kind.outcome {
                violations.push(format!(
                    "{}: {outcome:?}, not {:?}",
                    kind.what, kind.outcome
                ));
            }
            assert!(watching.is_alive(), "{}", kind.what);
            if matches!(kind.outcome, Stays | Ignored) {
                remove(&hostile.incoming.join(&kind.file_name));
            }
            // The watcher not only runs, but also takes drops.
            if number % pick(6, 1) != 0 {
                continue;
            }
            good += 1;
            drop_good(&shared, good);
            watching.answers(&format!("good-{good}"), &format!("{good}\n"));
        }
        assert_eq!(violations, Vec::<String>::new(), "round {round}");
    }
    violations.extend(leaks(&shared, &watching.log()));
    figure("hostile drops: kinds", kinds.all.len());
    figure("hostile drops: good drops among them, all run", good);
    figure("hostile drops: violations", violations.len());
    assert_eq!(violations, Vec::<String>::new());
}

fn remove(path: &Path) {
    if path.is_dir() && !path.is_symlink() {
        fs::remove_dir(path).unwrap();
    } else {
        fs::remove_file(path).unwrap();
    }
}

/// A file that not even its owner may move (`chattr +i`) stays in the box, with one line of the log, and no
/// other drop waits for it. The attribute needs a real file system.
#[test]
fn an_immutable_drop_stays_with_one_line_of_the_log() {
    let shared = Shared::new();
    let stuck = shared.spool().join("incoming/stuck.json");
    fs::write(&stuck, "{\"recipe\":\"echo\"}").unwrap();
    open_to_all(&stuck);
    let changed = |flag: &str| {
        let ran = Command::new("chattr")
            .arg(flag)
            .arg(&stuck)
            .status()
            .unwrap();
        assert!(ran.success(), "chattr {flag}");
    };
    changed("+i");
    let freed = Freed {
        path: stuck.clone(),
    };
    let mut watching = shared.watcher();
    for number in 0..3 {
        drop_good(&shared, number);
        watching.answers(&format!("good-{number}"), &format!("{number}\n"));
    }
    assert!(watching.is_alive());
    assert_eq!(
        watching.log().matches("left in the box").count(),
        1,
        "{}",
        watching.log()
    );
    drop(freed);
}

/// Removes the attribute at the end of the test, also if the test failed.
struct Freed {
    path: PathBuf,
}

impl Drop for Freed {
    fn drop(&mut self) {
        let _ = Command::new("chattr").arg("-i").arg(&self.path).status();
    }
}
