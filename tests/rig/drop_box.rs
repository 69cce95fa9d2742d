//! What users of a group put into the drop box of a group spool: requests under ids that they choose, and
//! control files. Which of them the box takes, and what happens to the rest.
//!
//! Not plain use (`group.rs`) and not odd files of any kind (`hostile.rs`). Checked: an id means one task
//! forever, a task has the submitter that the kernel names or none, only he and the owner control it, and his
//! text is escaped on every terminal.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::group::{GROUP, GROUP_USER, OTHER_GROUP_USER, OWNER, Shared};
use crate::scale::{figure, pick};
use crate::support::names_in;

const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// An id whose time is this many seconds from now, and that ends in these characters.
pub(crate) fn id_at(seconds: i64, ending: &str) -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let mut rest = i64::try_from(now.unwrap().as_millis()).unwrap() + seconds * 1000;
    let mut digits = [b'0'; 10];
    for digit in digits.iter_mut().rev() {
        *digit = ALPHABET[usize::try_from(rest % 32).unwrap()];
        rest /= 32;
    }
    format!(
        "task_{}{ending:0>16}",
        String::from_utf8(digits.into()).unwrap()
    )
}

/// Puts a file into the box as some user, complete and with this mode.
pub(crate) fn put(shared: &Shared, uid: u32, name: &str, content: &str, mode: u32) -> PathBuf {
    let between = shared.spool().join("incoming").join(format!(".{name}.tmp"));
    fs::write(&between, content).unwrap();
    chown(&between, Some(uid), Some(GROUP)).unwrap();
    fs::set_permissions(&between, fs::Permissions::from_mode(mode)).unwrap();
    let path = shared.spool().join("incoming").join(name);
    fs::rename(between, &path).unwrap();
    path
}

pub(crate) fn drop_request(shared: &Shared, uid: u32, id: &str, input: &str) {
    let request = format!("{{\"recipe\": \"echo\", \"input\": \"{input}\"}}");
    put(shared, uid, &format!("{id}.json"), &request, 0o640);
}

pub(crate) fn origin(shared: &Shared, id: &str) -> Value {
    crate::support::read_json(&shared.spool().join("tasks").join(id).join("origin.json"))
}

pub(crate) fn is_refused(shared: &Shared, id: &str, words: &str) {
    let message = shared.run(GROUP_USER, &["status", id]);
    message.ends_with(7);
    assert!(message.stderr.contains(words), "{}", message.stderr);
}

#[test]
fn a_printed_id_becomes_that_task() {
    let shared = Shared::new();
    let ids: Vec<String> = (0..3)
        .map(|n| shared.submit(GROUP_USER, &["--input", &n.to_string()]))
        .collect();
    for (n, id) in ids.iter().enumerate() {
        let file = shared.spool().join(format!("incoming/{id}.json"));
        let metadata = fs::metadata(&file).unwrap();
        assert_eq!(
            (metadata.mode() & 0o7777, metadata.uid()),
            (0o640, GROUP_USER)
        );
        assert_eq!(
            shared.json(OTHER_GROUP_USER, &["status", id])["status"],
            "pending",
            "{n}"
        );
    }
    shared.drain();
    for (n, id) in ids.iter().enumerate() {
        assert_eq!(
            shared.run(OTHER_GROUP_USER, &["result", id]).stdout,
            format!("{n}\n")
        );
        assert_eq!(origin(&shared, id)["uid"], GROUP_USER);
    }
    // Any umask, and many at once.
    let lines = "{\"recipe\": \"echo\", \"name\": \"one\"}\n{\"recipe\": \"echo\"}\n";
    let batch = shared.world.root().join("owner/batch");
    fs::write(&batch, lines).unwrap();
    let script = format!(
        "umask 0; {} submit --batch {}",
        crate::support::PROGRAM,
        batch.display()
    );
    let ran = shared.shell(GROUP_USER, &script);
    ran.succeeds();
    assert_eq!(ran.stdout.lines().count(), 2, "{}", ran.stdout);
    shared.drain();
    let first = ran.stdout.lines().next().unwrap();
    assert_eq!(shared.json(OWNER, &["status", "one"])["task_id"], first);
    assert_eq!(origin(&shared, first)["uid"], GROUP_USER);
}

#[test]
fn an_id_with_a_wrong_time_is_refused() {
    let shared = Shared::new();
    for (seconds, name) in [(150, "s"), (-150, "m")] {
        let id = id_at(seconds, name);
        drop_request(&shared, GROUP_USER, &id, name);
        shared.drain();
        assert!(
            !shared.spool().join("tasks").join(&id).exists(),
            "{seconds}"
        );
        is_refused(&shared, &id, "the time in its id");
    }
    // An old id may have been the id of a task that was cleared and forgotten: it is not reported as refused.
    // An id of the future would have to be remembered until then.
    for seconds in [-320, -86_400 * 365, 3600, 250_000_000_000] {
        let old = id_at(seconds, "p");
        drop_request(&shared, GROUP_USER, &old, "p");
        shared.drain();
        is_refused(&shared, &old, "no task is called");
        let rejected = names_in(&shared.spool().join("rejected"));
        let is_it = |name: &&String| name.contains(&format!("-{old}."));
        let kept: Vec<&String> = rejected.iter().filter(is_it).collect();
        assert_eq!(kept.len(), 2, "{rejected:?}");
        assert!(!kept.iter().any(|name| name.starts_with(&old)), "{kept:?}");
    }
    let near = id_at(-60, "n");
    drop_request(&shared, GROUP_USER, &near, "near");
    shared.drain();
    assert_eq!(shared.run(GROUP_USER, &["result", &near]).stdout, "near\n");
    // `last` is the task that came last.
    let last = shared.submit(GROUP_USER, &[]);
    shared.drain();
    assert_eq!(
        shared.json(OWNER, &["status", "last"])["task_id"],
        last.as_str()
    );
}

#[test]
fn an_id_means_one_task_forever() {
    let shared = Shared::new();
    let id = shared.submit(GROUP_USER, &["--input", "\"first\""]);
    shared.drain();
    let again = |who| {
        drop_request(&shared, who, &id, "forged");
        shared.drain();
    };
    // While the task exists: whoever brings the id.
    for who in [OTHER_GROUP_USER, GROUP_USER] {
        again(who);
        assert_eq!(shared.run(GROUP_USER, &["result", &id]).stdout, "first\n");
        assert_eq!(origin(&shared, &id)["uid"], GROUP_USER);
    }
    // A drop that waited in the box while the task was removed, and a drop that came after that.
    drop_request(&shared, OTHER_GROUP_USER, &id, "forged");
    shared.run(OWNER, &["clear"]).succeeds();
    assert!(names_in(&shared.spool().join("incoming")).is_empty());
    again(OTHER_GROUP_USER);
    shared.run(OWNER, &["sweep"]).succeeds();
    again(OTHER_GROUP_USER);
    assert!(
        names_in(&shared.spool().join("tasks")).is_empty(),
        "{}",
        shared.tree()
    );
    let trash = names_in(&shared.spool().join("trash"));
    assert!(trash.iter().any(|name| name.starts_with(&id)), "{trash:?}");
    // And the id of a drop that was refused.
    let refused = names_in(&shared.spool().join("rejected"));
    let taken: String = refused[0].chars().take(id.len()).collect();
    drop_request(&shared, OTHER_GROUP_USER, &taken, "forged");
    shared.drain();
    assert!(!shared.spool().join("tasks").join(&taken).exists());
}

/// A watcher was killed between the claim and the task: the time that the file had before counts.
#[test]
fn a_claim_is_finished_with_the_time_that_it_records() {
    let shared = Shared::new();
    let claims = [
        ("a", 0, true),
        ("b", 200_000, false),
        ("c", -200_000, false),
    ];
    for (ending, later, _) in claims {
        let id = id_at(0, ending);
        let claimed = id_at(0, ending);
        assert_eq!(id.len(), claimed.len());
        drop_request(&shared, GROUP_USER, &id, ending);
        let file = shared.spool().join(format!("incoming/{id}.json"));
        let metadata = fs::metadata(&file).unwrap();
        let changed = metadata.ctime() * 1000 + metadata.ctime_nsec() / 1_000_000 + later;
        let folder = shared.spool().join(format!("staging/{id}.claim"));
        fs::create_dir(&folder).unwrap();
        let note = folder.join(format!(".{}.{changed}", metadata.ino()));
        fs::write(&note, "").unwrap();
        for made in [&folder, &note] {
            chown(made, Some(OWNER), Some(GROUP)).unwrap();
        }
        fs::rename(&file, folder.join(format!("{id}.json"))).unwrap();
    }
    shared.drain();
    let inputs: Vec<String> = names_in(&shared.spool().join("tasks"))
        .iter()
        .map(|id| shared.run(GROUP_USER, &["result", id]).stdout)
        .collect();
    assert_eq!(inputs, ["a\n"], "{}", shared.tree());
    assert!(names_in(&shared.spool().join("staging")).is_empty());
}

#[test]
fn the_submitter_is_the_only_user_who_could_write_the_file() {
    let shared = Shared::new();
    let linked = id_at(0, "n");
    for (ending, mode, links, expected) in [
        ("a", 0o640, 1, json!(GROUP_USER)),
        ("b", 0o600, 1, json!(null)),
        ("c", 0o660, 1, json!(null)),
        ("d", 0o666, 1, json!(null)),
        ("e", 0o642, 1, json!(null)),
        ("f", 0o640, 2, json!(null)),
        ("g", 0o444, 1, json!(GROUP_USER)),
    ] {
        let id = id_at(0, ending);
        let request = "{\"recipe\": \"echo\"}";
        if links == 2 {
            put(&shared, GROUP_USER, ".hidden", request, mode);
            let incoming = shared.spool().join("incoming");
            fs::hard_link(
                incoming.join(".hidden"),
                incoming.join(format!("{id}.json")),
            )
            .unwrap();
        } else {
            put(&shared, GROUP_USER, &format!("{id}.json"), request, mode);
        }
        shared
            .run(OWNER, &["config", "set", "drop_patience_sec", "0"])
            .succeeds();
        shared.drain();
        if mode == 0o600 {
            // The owner cannot read it at all.
            is_refused(&shared, &id, "cannot read");
            continue;
        }
        assert_eq!(origin(&shared, &id)["uid"], expected, "{mode:o} {links}");
    }
    assert!(!shared.spool().join("tasks").join(linked).exists());
    // A drop of the owner himself has no submitter.
    let own = shared.submit(OWNER, &[]);
    assert!(
        !shared
            .spool()
            .join("tasks")
            .join(&own)
            .join("origin.json")
            .exists()
    );
}

/// The owner of a file alone proves nothing: another user may have moved it here.
#[test]
fn only_a_complete_control_file_of_the_right_user_counts() {
    let shared = Shared::new();
    shared
        .run(OWNER, &["config", "set", "drop_patience_sec", "0.5"])
        .succeeds();
    let go = shared.world.root().join("go");
    let script = format!(
        "#!/bin/sh\nuntil [ -e {} ]; do sleep 0.05; done\n",
        go.display()
    );
    shared.recipe("slow", &script);
    let object = shared.json(GROUP_USER, &["submit", "--recipe", "slow"]);
    let id = object["task_id"].as_str().unwrap().to_owned();
    let mut watching = shared.watcher();
    shared.world.wait_until("it runs", || {
        shared.json(GROUP_USER, &["status", &id])["status"] == "running"
    });
    let whole = format!("{{\"v\":2,\"task\":\"{id}\",\"do\":\"cancel\"}}");
    let name = format!("{id}.cancel");
    let incoming = shared.spool().join("incoming");
    let gone = |what: &str| {
        shared.world.wait_until(&format!("{what} is decided"), || {
            !incoming.join(&name).exists()
        });
        let status = shared.json(GROUP_USER, &["status", &id]);
        assert_eq!(status["status"], "running", "{what}: {status}");
        assert!(
            !shared
                .spool()
                .join("tasks")
                .join(&id)
                .join("cancel")
                .exists(),
            "{what}"
        );
    };
    put(&shared, OTHER_GROUP_USER, &name, &whole, 0o640);
    gone("another user's");
    for mode in [0o660, 0o602] {
        put(&shared, GROUP_USER, &name, &whole, mode);
        gone("one that others may write");
    }
    for content in [
        String::new(),
        "{}".to_owned(),
        whole.replace(&id, &id_at(0, "x")),
        whole.replace("cancel", "hold"),
        whole.replace("\"v\":2", "\"v\":1"),
        format!("{whole} x"),
        "x".repeat(10_000),
    ] {
        put(&shared, GROUP_USER, &name, &content, 0o640);
        gone(&content);
    }
    put(&shared, GROUP_USER, ".second", &whole, 0o640);
    fs::hard_link(incoming.join(".second"), incoming.join(&name)).unwrap();
    gone("one with two names");
    shared
        .shell(
            GROUP_USER,
            &format!("ln -s /etc/passwd spool/incoming/{name}"),
        )
        .succeeds();
    gone("a link");
    shared
        .shell(GROUP_USER, &format!("mkfifo spool/incoming/{name}"))
        .succeeds();
    gone("a FIFO");
    // For a task that does not exist: the file waits for a while, then it is refused.
    let nobody = id_at(0, "n0b0dy");
    put(
        &shared,
        GROUP_USER,
        &format!("{nobody}.cancel"),
        &whole.replace(&id, &nobody),
        0o640,
    );
    let started = std::time::Instant::now();
    shared.world.wait_until("it is refused", || {
        assert!(
            started.elapsed().as_secs() < 30,
            "{}\n{}",
            watching.log(),
            shared.tree()
        );
        !incoming.join(format!("{nobody}.cancel")).exists()
    });
    assert!(watching.is_alive());
    put(&shared, GROUP_USER, &name, &whole, 0o640);
    shared.world.wait_until("it is cancelled", || {
        shared.json(GROUP_USER, &["status", &id])["status"] == "cancelled"
    });
    // Afterwards a control file has no use, and is removed.
    put(&shared, GROUP_USER, &name, &whole, 0o640);
    shared
        .world
        .wait_until("it goes", || !incoming.join(&name).exists());
}

#[test]
fn the_submitter_is_reported_or_unknown() {
    let shared = Shared::new();
    shared.recipe("ok", "#!/bin/sh\n");
    let (own, writable) = (id_at(0, "a"), id_at(0, "b"));
    let request = "{\"recipe\": \"ok\"}";
    put(&shared, GROUP_USER, &format!("{own}.json"), request, 0o640);
    // Others could have written it.
    put(
        &shared,
        GROUP_USER,
        &format!("{writable}.json"),
        request,
        0o660,
    );
    shared.drain();
    let word = format!("Submitted by: user {GROUP_USER}\n");
    for (id, word, json) in [
        (own, word.as_str(), format!("\"submitter\":{GROUP_USER}")),
        (
            writable,
            "Submitted by: unknown\n",
            "\"submitter\":null".to_owned(),
        ),
    ] {
        let page = shared.run(OWNER, &["status", &id]).stdout;
        assert!(page.contains(word), "{page}");
        for verb in ["status", "wait"] {
            let object = shared.run(OWNER, &[verb, &id, "--json"]).stdout;
            assert!(object.contains(&json), "{object}");
        }
    }
}

#[test]
fn text_of_a_group_user_is_escaped_on_a_terminal() {
    let shared = Shared::new();
    shared.recipe(
        "loud",
        "#!/bin/sh\nprintf '\\033[31mout\\n'\nprintf '\\033]0;err\\007' >&2\n",
    );
    let label = "x\\u001b[2Jy\\nfake_row\\u009b31m\\u202e";
    let request = format!(
        "{{\"recipe\": \"loud\", \"label\": \"{label}\", \"metadata\": {{\"a\": \"{label}\"}}}}"
    );
    let id = id_at(0, "text");
    put(&shared, GROUP_USER, &format!("{id}.json"), &request, 0o640);
    put(
        &shared,
        GROUP_USER,
        "a\u{1b}[2J\nb.json",
        "{\"recipe\": \"loud\"}",
        0o640,
    );
    put(&shared, GROUP_USER, "bad\u{1b}[2J\nb.json", "[]", 0o640);
    shared.drain();
    let is_safe = |text: &str| {
        !text.contains(['\u{1b}', '\u{9b}', '\u{202e}', '\u{7}']) && !text.contains("\nfake_row")
    };
    for arguments in [
        &["list"][..],
        &["list", "--json"],
        &["status", &id],
        &["status", &id, "--json"],
        &["wait", &id],
        &["doctor"],
    ] {
        let ran = shared.run(OWNER, arguments);
        let shown = format!("{}{}", ran.stdout, ran.stderr);
        assert!(is_safe(&shown), "{arguments:?}: {shown:?}");
    }
    assert_eq!(shared.run(OWNER, &["list"]).stdout.lines().count(), 2);
    // In a pipe a task's output is unchanged. On a terminal nothing in it is a control sequence.
    assert_eq!(
        shared.run(OWNER, &["result", &id]).stdout,
        "\u{1b}[31mout\n"
    );
    for verb in ["result", "logs", "list", "status"] {
        let mut on_terminal = shared.as_user(OWNER, "script");
        let command = match verb {
            "list" => format!("{} --color never list", crate::support::PROGRAM),
            verb => format!("{} --color never {verb} {id}", crate::support::PROGRAM),
        };
        on_terminal
            .args(["-qec", &command, "/dev/null"])
            .env("TERM", "xterm");
        let ran = crate::support::Ran::of(&mut on_terminal);
        assert!(is_safe(&ran.stdout), "{verb}: {:?}", ran.stdout);
        assert!(!ran.stdout.is_empty(), "{verb}: {}", ran.stderr);
    }
}

/// A lease makes the kernel refuse, for a while, to open the file.
#[test]
fn a_leased_drop_and_a_foreign_folder_stop_no_other_drop() {
    let shared = Shared::new();
    const LEASE: &str = "open(F, '>', 'incoming/leased.json') or die; print F '{\"recipe\": \"echo\"}'; \
        close F; open(F, '+<', 'incoming/leased.json') or die; $SIG{IO} = 'IGNORE'; \
        fcntl(F, 1024, 1) or die; $| = 1; print \"leased\\n\"; sleep 1000";
    let mut holder = shared
        .as_user(GROUP_USER, "perl")
        .args(["-e", LEASE])
        .current_dir(shared.spool())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut printed = String::new();
    let mut stdout = std::io::BufReader::new(holder.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut stdout, &mut printed).unwrap();
    assert_eq!(printed, "leased\n");
    let folders = "cd spool/incoming; mkdir -m 2777 a.json a.json/x b.cancel.json; \
        chmod 700 a.json/x; touch a.json/x/y";
    shared.shell(OTHER_GROUP_USER, folders).succeeds();
    let _watching = shared.watcher();
    let id = shared.submit(OTHER_GROUP_USER, &["--input", "1"]);
    shared.world.wait_until("the other task is done", || {
        shared.run(OTHER_GROUP_USER, &["result", &id]).stdout == "1\n"
    });
    holder.kill().unwrap();
    holder.wait().unwrap();
    // Nothing from their folders is put where the owner could not remove it.
    assert!(shared.spool().join("incoming/a.json").is_dir());
    assert!(
        names_in(&shared.spool().join("rejected"))
            .iter()
            .all(|name| !name.contains("a.json"))
    );
}

/// Folders, and files that cannot even be checked, under the names that others need.
#[test]
fn odd_files_under_needed_names_in_the_box_stop_no_drop() {
    let shared = Shared::new();
    shared.recipe("forever", "#!/bin/sh\nexec sleep 1000\n");
    let object = shared.json(GROUP_USER, &["submit", "--recipe", "forever"]);
    let id = object["task_id"].as_str().unwrap().to_owned();
    let refused = id_at(0, "refsd");
    put(
        &shared,
        GROUP_USER,
        &format!("{refused}.json"),
        "[1]",
        0o640,
    );
    let incoming = shared.spool().join("incoming");
    // A mount on a file: it cannot be moved and, as with FUSE, cannot always be checked.
    let mounted = put(
        &shared,
        OTHER_GROUP_USER,
        "mounted.json",
        "{\"recipe\": \"echo\"}",
        0o640,
    );
    crate::mount::run(
        "mount",
        &["--bind", "/etc/hostname", mounted.to_str().unwrap()],
    );
    let mut watching = shared.watcher();
    shared.world.wait_until("it runs", || {
        shared.json(GROUP_USER, &["status", &id])["status"] == "running"
    });
    let in_the_way = format!(
        "cd spool/incoming; mkdir -m 2777 {id}.cancel {id}.cancel/x {refused}.json {refused}.json/x"
    );
    shared.shell(OTHER_GROUP_USER, &in_the_way).succeeds();
    is_refused(&shared, &refused, "one JSON object");
    shared.run(GROUP_USER, &["cancel", &id]).succeeds();
    assert_eq!(shared.json(OWNER, &["status", &id])["status"], "cancelled");
    let good = shared.submit(GROUP_USER, &["--input", "1"]);
    watching.answers(&good, "1\n");
    crate::mount::run("umount", &[mounted.to_str().unwrap()]);
    // No folder of theirs was moved among the owner's.
    for folder in ["rejected", "staging", "trash"] {
        for name in names_in(&shared.spool().join(folder)) {
            let path = shared.spool().join(folder).join(&name);
            assert_ne!(
                fs::metadata(&path).unwrap().uid(),
                OTHER_GROUP_USER,
                "{name}"
            );
        }
    }
    assert!(incoming.join(format!("{id}.cancel")).is_dir());
    assert!(watching.is_alive());
}

/// Below the floor of free space nothing is accepted, but accepted tasks can still be stopped.
#[test]
fn without_free_space_a_group_user_can_still_cancel() {
    let shared = Shared::new();
    shared.recipe("forever", "#!/bin/sh\nexec sleep 1000\n");
    let object = shared.json(GROUP_USER, &["submit", "--recipe", "forever"]);
    let id = object["task_id"].as_str().unwrap().to_owned();
    let watching = shared.watcher();
    shared.world.wait_until("it runs", || {
        shared.json(GROUP_USER, &["status", &id])["status"] == "running"
    });
    let floor = (1u64 << 60).to_string();
    shared
        .run(OWNER, &["config", "set", "min_free_bytes", &floor])
        .succeeds();
    shared
        .world
        .wait_until("the watcher has read the floor", || {
            watching.log().contains("settings read again")
        });
    put(
        &shared,
        OTHER_GROUP_USER,
        "waits.json",
        "{\"recipe\": \"echo\"}",
        0o640,
    );
    put(&shared, OTHER_GROUP_USER, "bad.json", "[]", 0o640);
    shared.world.wait_until("the bad drops are refused", || {
        !shared.spool().join("incoming/bad.json").exists()
    });
    let whole = format!("{{\"v\":2,\"task\":\"{id}\",\"do\":\"cancel\"}}");
    put(&shared, GROUP_USER, &format!("{id}.cancel"), &whole, 0o640);
    shared.world.wait_until("it is cancelled", || {
        shared.json(GROUP_USER, &["status", &id])["status"] == "cancelled"
    });
    assert!(shared.spool().join("incoming/waits.json").exists());
}

/// A private file of the owner that a group user may move, because he may write in its folder.
#[test]
fn a_private_file_that_was_moved_into_the_box_is_not_shown() {
    let shared = Shared::new();
    shared
        .run(OWNER, &["config", "set", "drop_patience_sec", "0"])
        .succeeds();
    let id = id_at(0, "m0ved");
    put(
        &shared,
        OWNER,
        &format!("{id}.json"),
        "{\"recipe\": \"echo\", \"input\": \"hunter2\"}",
        0o600,
    );
    shared.drain();
    is_refused(&shared, &id, "the group cannot read it");
    let seen = shared.shell(GROUP_USER, "grep -r hunter2 spool");
    assert!(!seen.stdout.contains("hunter2"), "{}", seen.stdout);
}

/// An id is free again for a moment after it was checked, while a task is cleared and while another watcher
/// refuses its drop. This moment must be of no use.
#[test]
fn an_id_released_in_the_middle_of_a_pass_is_not_taken() {
    let shared = Shared::new();
    shared
        .run(OWNER, &["config", "set", "durability", "process"])
        .succeeds();
    for round in 0..pick(3, 50) {
        let id = shared.submit(GROUP_USER, &["--input", "\"mine\""]);
        shared.drain();
        const FORGE: &str = "my ($id, $n) = @ARGV; chdir 'spool/incoming' or die; \
            sub put { open(F, '>', \".$_[0].tmp\"); print F '{\"recipe\": \"echo\", \"input\": \"FORGED\"}'; close F; \
            chmod 0640, \".$_[0].tmp\"; rename \".$_[0].tmp\", \"$_[0].json\" } \
            put(\"n$_\") for 1..$n; put($id); $| = 1; print \"ready\\n\"; my $end = time + 20; \
            while (time < $end && !-e '../../stop') { put($id) unless -e \"$id.json\" }";
        let mut forger = shared
            .as_user(OTHER_GROUP_USER, "perl")
            .args(["-e", FORGE, &id, "240"])
            .current_dir(shared.spool().parent().unwrap())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut printed = [0u8; 6];
        std::io::Read::read_exact(forger.stdout.as_mut().unwrap(), &mut printed).unwrap();
        let mut watchers = [shared.watcher(), shared.watcher()];
        shared.run(OWNER, &["clear"]).succeeds();
        // Long enough for some passes: all drops of the flood are decided.
        shared.world.wait_until("the flood is decided", || {
            let left = names_in(&shared.spool().join("incoming"));
            !left.iter().any(|name| name.starts_with('n'))
        });
        let stop = shared.spool().parent().unwrap().join("stop");
        fs::write(&stop, "").unwrap();
        forger.wait().unwrap();
        fs::remove_file(&stop).unwrap();
        let task = shared.spool().join("tasks").join(&id);
        assert!(
            !task.exists(),
            "round {round}: {}",
            shared.run(OWNER, &["result", &id]).stdout
        );
        assert!(watchers.iter_mut().all(|watching| watching.is_alive()));
        drop(watchers);
        shared.drain();
        shared.run(OWNER, &["clear"]).succeeds();
    }
}

#[test]
fn many_drops_of_many_users_are_all_answered() {
    let shared = Shared::new();
    let _watching = shared.watcher();
    let many = pick(400, 10_000);
    // Half of them are not requests, and a third of all use ids that they cannot have.
    let flood = format!(
        "for my $n (0..{many} - 1) {{ my $name = $n % 3 ? \"odd-$n\" : sprintf('task_%020d%06d', 0, $n); \
         open(F, '>', \"incoming/$name.json\") or die; print F $n % 2 ? '{{\"recipe\": \"echo\"}}' : '[]'; close F }}"
    );
    let flood = shared
        .as_user(OTHER_GROUP_USER, "perl")
        .args(["-e", &flood])
        .current_dir(shared.spool())
        .spawn();
    let mut ids = Vec::new();
    for n in 0..20 {
        ids.push(shared.submit(GROUP_USER, &["--input", &n.to_string()]));
    }
    assert!(flood.unwrap().wait().unwrap().success());
    for (n, id) in ids.iter().enumerate() {
        shared.world.wait_until("it is done", || {
            shared.run(GROUP_USER, &["result", id]).stdout == format!("{n}\n")
        });
    }
    shared.world.wait_until("the box is empty", || {
        names_in(&shared.spool().join("incoming")).is_empty()
    });
    figure("group spool: odd drops among twenty good ones", many);
}

/// As an earlier program created it: others could write in it.
#[test]
fn a_group_spool_of_version_one_is_converted() {
    let shared = Shared::new();
    let own = shared.submit(OWNER, &["--name", "own", "--session-id", "s"]);
    let done = shared.submit(OWNER, &[]);
    shared.drain();
    let waiting = shared.submit(OWNER, &["--session-id", "s"]);
    let spool = shared.spool();
    let mode = |path: &Path, mode: u32| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    for folder in ["staging", "tasks", "names", "open", "sessions"] {
        mode(&spool.join(folder), 0o2770);
    }
    for id in [&own, &done, &waiting] {
        let task = spool.join("tasks").join(id);
        mode(&task, 0o2770);
        mode(&task.join("attempts"), 0o2770);
        for file in ["request.json", "status.json", "lock"] {
            mode(&task.join(file), 0o660);
        }
    }
    fs::write(
        spool.join("spool.json"),
        "{\"v\": 1, \"shared\": true, \"rescan_sec\": 0.3}",
    )
    .unwrap();
    let theirs = id_at(0, "thers");
    let planted = format!(
        "cd spool; mkdir -p tasks/{theirs}/attempts staging/x sessions/t open/y; \
         setfacl -d -m u:{GROUP_USER}:rwx tasks/{theirs} staging/x; echo '{{}}' >tasks/{theirs}/request.json; \
         mkdir -m 700 tasks/{theirs}/shut; touch tasks/{theirs}/shut/z open/{theirs}; ln -s /etc names/z; \
         mkdir tasks/{own}/attempts/2; setfacl -m u:{GROUP_USER}:rwx open/y"
    );
    shared.shell(GROUP_USER, &planted).succeeds();
    // A private file of the owner in the place of a request.
    let secret = shared.world.root().join("owner/secret");
    fs::write(&secret, "{\"recipe\": \"echo\"}").unwrap();
    chown(&secret, Some(OWNER), Some(GROUP)).unwrap();
    mode(&secret, 0o600);
    let linked = spool.join("tasks").join(id_at(0, "1nk"));
    fs::create_dir(&linked).unwrap();
    chown(&linked, Some(OWNER), Some(GROUP)).unwrap();
    mode(&linked, 0o2770);
    fs::hard_link(&secret, linked.join("request.json")).unwrap();
    // And a task whose attempts a group user exchanged.
    let exchanged = spool.join("tasks").join(id_at(0, "xch"));
    fs::create_dir_all(exchanged.join("attempts")).unwrap();
    chown(&exchanged, Some(OWNER), Some(GROUP)).unwrap();
    chown(exchanged.join("attempts"), Some(GROUP_USER), Some(GROUP)).unwrap();
    // The remains of an earlier crash: a claimed drop, and half a task.
    let claimed = spool
        .join("staging")
        .join(format!("{}.claim", id_at(0, "c1aim")));
    let half = spool
        .join("trash")
        .join(format!("{}.0123abcd", id_at(0, "ha1f")));
    for folder in [&claimed, &half] {
        fs::create_dir(folder).unwrap();
        fs::write(folder.join("old.json"), "{\"recipe\": \"echo\"}").unwrap();
        chown(folder, Some(OWNER), Some(GROUP)).unwrap();
        chown(folder.join("old.json"), Some(OWNER), Some(GROUP)).unwrap();
        mode(folder, 0o2770);
    }
    // The files that a session's tasks share, with a file of a group user deep in them.
    let deep = spool.join("sessions/s/state/of/own");
    fs::create_dir_all(&deep).unwrap();
    for folder in deep.ancestors().take(4) {
        chown(folder, Some(OWNER), Some(GROUP)).unwrap();
        mode(folder, 0o2770);
    }
    shared
        .shell(
            GROUP_USER,
            "echo theirs >spool/sessions/s/state/of/own/code",
        )
        .succeeds();
    // A group user keeps a request open for writing. One file belongs to the owner alone.
    let write = format!(
        "exec 3>>spool/tasks/{waiting}/request.json; echo held; read line; echo '{{}}' >&3 && echo wrote"
    );
    let mut writer = shared
        .as_user(GROUP_USER, "sh")
        .args(["-c", &write])
        .current_dir(spool.parent().unwrap())
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut opened = [0u8; 5];
    std::io::Read::read_exact(writer.stdout.as_mut().unwrap(), &mut opened).unwrap();
    let private = spool.join("tasks").join(&done).join("result.json");
    mode(&private, 0o600);
    // A group user holds an old lock for as long as he likes.
    const KEEP: &str =
        "open(F, '<', $ARGV[0]) or die; flock(F, 2) or die; $| = 1; print \"held\\n\"; sleep 1000";
    let mut keeper = shared
        .as_user(GROUP_USER, "perl")
        .args(["-e", KEEP])
        .arg(spool.join("tasks").join(&waiting).join("lock"))
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut kept = [0u8; 5];
    std::io::Read::read_exact(keeper.stdout.as_mut().unwrap(), &mut kept).unwrap();
    // A program of this version refuses it and says what to do.
    for verb in [&["list"][..], &["submit", "--recipe", "echo"], &["watch"]] {
        let ran = shared.run(OWNER, verb);
        ran.ends_with(8);
        assert!(ran.stderr.contains("format version 1"), "{}", ran.stderr);
        assert!(ran.stderr.contains("agentspool init"), "{}", ran.stderr);
    }
    // Not while an older watcher runs.
    let watcher_file = spool.join(format!("watchers/{:032x}.json", 7));
    fs::write(&watcher_file, "{}").unwrap();
    chown(&watcher_file, Some(OWNER), Some(GROUP)).unwrap();
    const HOLD: &str =
        "open(F, '<', $ARGV[0]) or die; flock(F, 2) or die; $| = 1; print \"held\\n\"; sleep 1000";
    let mut watcher = shared
        .as_user(OWNER, "perl")
        .args(["-e", HOLD, watcher_file.to_str().unwrap()])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut printed = [0u8; 5];
    std::io::Read::read_exact(watcher.stdout.as_mut().unwrap(), &mut printed).unwrap();
    let path = spool.to_str().unwrap();
    let ran = shared.run(OWNER, &["init", path]);
    ran.ends_with(8);
    assert!(ran.stderr.contains("watcher"), "{}", ran.stderr);
    fs::remove_file(&watcher_file).unwrap();
    watcher.kill().unwrap();
    watcher.wait().unwrap();
    // Also not while a task runs, whose files would be replaced.
    let attempt = spool.join("tasks").join(&waiting).join("attempts/1");
    fs::create_dir(&attempt).unwrap();
    fs::write(attempt.join("stdout.log"), "").unwrap();
    for path in [attempt.clone(), attempt.join("stdout.log")] {
        chown(&path, Some(OWNER), Some(GROUP)).unwrap();
    }
    let mut runner = shared
        .as_user(OWNER, "perl")
        .args([
            "-e",
            "open(F, '>>', $ARGV[0]) or die; $| = 1; print \"held\\n\"; sleep 1000",
        ])
        .arg(attempt.join("stdout.log"))
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Read::read_exact(runner.stdout.as_mut().unwrap(), &mut printed).unwrap();
    let ran = shared.run(OWNER, &["init", path]);
    ran.ends_with(8);
    let message = format!("in use by task {waiting} (pid {})", runner.id());
    assert!(ran.stderr.contains(&message), "{}", ran.stderr);
    runner.kill().unwrap();
    runner.wait().unwrap();
    fs::remove_dir_all(&attempt).unwrap();
    shared.run(OWNER, &["init", path]).succeeds();
    std::io::Write::write_all(writer.stdin.as_mut().unwrap(), b"now\n").unwrap();
    let wrote = writer.wait_with_output().unwrap().stdout;
    assert_eq!(String::from_utf8_lossy(&wrote), "wrote\n");
    let request =
        crate::support::read_json(&spool.join("tasks").join(&waiting).join("request.json"));
    assert_eq!(request["recipe"], "echo");
    assert_eq!(fs::metadata(&private).unwrap().mode() & 0o777, 0o600);
    assert!(
        !spool.join("sessions/s/state").exists(),
        "{}",
        shared.tree()
    );

    for entry in walkdir::WalkDir::new(&spool)
        .into_iter()
        .map(Result::unwrap)
    {
        let metadata = entry.metadata().unwrap();
        let inside = entry.path().strip_prefix(&spool).unwrap();
        if inside.starts_with("rejected")
            || inside == Path::new("incoming")
            || entry.path_is_symlink()
        {
            continue;
        }
        assert_eq!(
            metadata.uid(),
            OWNER,
            "{}\n{}",
            inside.display(),
            shared.tree()
        );
        assert_eq!(
            metadata.mode() & 0o022,
            0,
            "{}: {:o}",
            inside.display(),
            metadata.mode()
        );
        let is_lock = entry.file_name() == "lock";
        assert!(
            !is_lock || metadata.mode() & 0o077 == 0,
            "{}",
            inside.display()
        );
    }
    let put_away = |what: &str| {
        walkdir::WalkDir::new(spool.join("rejected"))
            .into_iter()
            .filter_map(Result::ok)
            .any(|entry| entry.file_name().to_string_lossy().contains(what))
    };
    assert!(put_away(&theirs), "{}", shared.tree());
    let acls = "find spool/tasks spool/open spool/staging spool/sessions -print | getfacl -sp -";
    let acls = shared.shell(OWNER, acls);
    assert!(
        !acls.stdout.contains(&GROUP_USER.to_string()),
        "{}",
        acls.stdout
    );
    assert_eq!(fs::metadata(&secret).unwrap().mode() & 0o777, 0o600);
    assert!(!claimed.exists() && !half.exists(), "{}", shared.tree());
    assert!(put_away("claim"), "the claimed drop is kept");
    assert!(!linked.exists(), "{}", shared.tree());
    // Tasks that were accepted before are run, and finished tasks are still known.
    shared.drain();
    keeper.kill().unwrap();
    keeper.wait().unwrap();
    assert_eq!(
        shared.json(OWNER, &["status", &waiting])["status"],
        "completed"
    );
    assert_eq!(crate::support::read_json(&spool.join("spool.json"))["v"], 2);
    let id = shared.submit(GROUP_USER, &[]);
    shared.drain();
    assert_eq!(
        shared.json(GROUP_USER, &["status", &id])["status"],
        "completed"
    );
}
