//! What users of a group put into the drop box of a group spool: requests under ids that they choose, and
//! control files; what the box takes of it, and what it makes of the rest.
//!
//! Not plain use (`group.rs`) nor odd files of any kind (`hostile.rs`). What is held: an id stands for one task
//! for ever, a task has the submitter that the kernel names or none, only he and the owner control it, and
//! no text of his reaches anybody's terminal as it is.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::group::{GROUP, MEMBER, OTHER_MEMBER, OWNER, Shared};
use crate::scale::{figure, pick};
use crate::support::names_in;

const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// An id whose moment is so many seconds from now, and that ends in these characters.
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

/// Puts a file into the box as somebody, whole and with this mode.
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
    let message = shared.run(MEMBER, &["status", id]);
    message.ends_with(7);
    assert!(message.stderr.contains(words), "{}", message.stderr);
}

#[test]
fn what_is_printed_becomes_that_task() {
    let shared = Shared::new();
    let ids: Vec<String> = (0..3)
        .map(|n| shared.submit(MEMBER, &["--input", &n.to_string()]))
        .collect();
    for (n, id) in ids.iter().enumerate() {
        let file = shared.spool().join(format!("incoming/{id}.json"));
        let metadata = fs::metadata(&file).unwrap();
        assert_eq!((metadata.mode() & 0o7777, metadata.uid()), (0o640, MEMBER));
        assert_eq!(
            shared.json(OTHER_MEMBER, &["status", id])["status"],
            "pending",
            "{n}"
        );
    }
    shared.drain();
    for (n, id) in ids.iter().enumerate() {
        assert_eq!(
            shared.run(OTHER_MEMBER, &["result", id]).stdout,
            format!("{n}\n")
        );
        assert_eq!(origin(&shared, id)["uid"], MEMBER);
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
    let ran = shared.shell(MEMBER, &script);
    ran.succeeds();
    assert_eq!(ran.stdout.lines().count(), 2, "{}", ran.stdout);
    shared.drain();
    let first = ran.stdout.lines().next().unwrap();
    assert_eq!(shared.json(OWNER, &["status", "one"])["task_id"], first);
    assert_eq!(origin(&shared, first)["uid"], MEMBER);
}

#[test]
fn an_id_of_another_moment_is_refused() {
    let shared = Shared::new();
    for (seconds, name) in [(3600, "f"), (150, "s"), (-150, "m")] {
        let id = id_at(seconds, name);
        drop_request(&shared, MEMBER, &id, name);
        shared.drain();
        assert!(
            !shared.spool().join("tasks").join(&id).exists(),
            "{seconds}"
        );
        is_refused(&shared, &id, "the moment in its id");
    }
    // An old id may have been a task's that was cleared, which nobody knows any more: it is not reported as refused.
    for seconds in [-320, -86_400 * 365] {
        let old = id_at(seconds, "p");
        drop_request(&shared, MEMBER, &old, "p");
        shared.drain();
        is_refused(&shared, &old, "no task is called");
        let rejected = names_in(&shared.spool().join("rejected"));
        let is_it = |name: &&String| name.contains(&format!("-{old}."));
        let kept: Vec<&String> = rejected.iter().filter(is_it).collect();
        assert_eq!(kept.len(), 2, "{rejected:?}");
        assert!(!kept.iter().any(|name| name.starts_with(&old)), "{kept:?}");
    }
    let near = id_at(-60, "n");
    drop_request(&shared, MEMBER, &near, "near");
    shared.drain();
    assert_eq!(shared.run(MEMBER, &["result", &near]).stdout, "near\n");
    // `last` is the task that came last.
    let last = shared.submit(MEMBER, &[]);
    shared.drain();
    assert_eq!(
        shared.json(OWNER, &["status", "last"])["task_id"],
        last.as_str()
    );
}

#[test]
fn an_id_stands_for_one_task_for_ever() {
    let shared = Shared::new();
    let id = shared.submit(MEMBER, &["--input", "\"first\""]);
    shared.drain();
    let again = |who| {
        drop_request(&shared, who, &id, "forged");
        shared.drain();
    };
    // While it stands: whoever brings it.
    for who in [OTHER_MEMBER, MEMBER] {
        again(who);
        assert_eq!(shared.run(MEMBER, &["result", &id]).stdout, "first\n");
        assert_eq!(origin(&shared, &id)["uid"], MEMBER);
    }
    // One that waited in the box while the task was removed, and one that came after that.
    drop_request(&shared, OTHER_MEMBER, &id, "forged");
    shared.run(OWNER, &["clear"]).succeeds();
    assert!(names_in(&shared.spool().join("incoming")).is_empty());
    again(OTHER_MEMBER);
    shared.run(OWNER, &["sweep"]).succeeds();
    again(OTHER_MEMBER);
    assert!(
        names_in(&shared.spool().join("tasks")).is_empty(),
        "{}",
        shared.tree()
    );
    let trash = names_in(&shared.spool().join("trash"));
    assert!(trash.iter().any(|name| name.starts_with(&id)), "{trash:?}");
    // And of what was refused.
    let refused = names_in(&shared.spool().join("rejected"));
    let taken: String = refused[0].chars().take(id.len()).collect();
    drop_request(&shared, OTHER_MEMBER, &taken, "forged");
    shared.drain();
    assert!(!shared.spool().join("tasks").join(&taken).exists());
}

/// A watcher that died between the claim and the task: the moment counts that the file had before.
#[test]
fn a_claim_is_finished_with_the_moment_that_it_tells() {
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
        drop_request(&shared, MEMBER, &id, ending);
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
        .map(|id| shared.run(MEMBER, &["result", id]).stdout)
        .collect();
    assert_eq!(inputs, ["a\n"], "{}", shared.tree());
    assert!(names_in(&shared.spool().join("staging")).is_empty());
}

#[test]
fn the_submitter_is_who_alone_could_write_the_file() {
    let shared = Shared::new();
    let linked = id_at(0, "n");
    for (ending, mode, links, expected) in [
        ("a", 0o640, 1, json!(MEMBER)),
        ("b", 0o600, 1, json!(null)),
        ("c", 0o660, 1, json!(null)),
        ("d", 0o666, 1, json!(null)),
        ("e", 0o642, 1, json!(null)),
        ("f", 0o640, 2, json!(null)),
        ("g", 0o444, 1, json!(MEMBER)),
    ] {
        let id = id_at(0, ending);
        let request = "{\"recipe\": \"echo\"}";
        if links == 2 {
            put(&shared, MEMBER, ".hidden", request, mode);
            let incoming = shared.spool().join("incoming");
            fs::hard_link(
                incoming.join(".hidden"),
                incoming.join(format!("{id}.json")),
            )
            .unwrap();
        } else {
            put(&shared, MEMBER, &format!("{id}.json"), request, mode);
        }
        shared
            .run(OWNER, &["config", "set", "drop_patience_sec", "0"])
            .succeeds();
        shared.drain();
        if mode == 0o600 {
            // The owner cannot read it at all.
            is_refused(&shared, &id, "may not read");
            continue;
        }
        assert_eq!(origin(&shared, &id)["uid"], expected, "{mode:o} {links}");
    }
    assert!(!shared.spool().join("tasks").join(linked).exists());
    // Of the owner's own there is none.
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

/// A file's owner alone proves nothing: another user may have moved it here.
#[test]
fn only_a_whole_control_file_of_the_right_user_counts() {
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
    let object = shared.json(MEMBER, &["submit", "--recipe", "slow"]);
    let id = object["task_id"].as_str().unwrap().to_owned();
    let mut watching = shared.watcher();
    shared.world.wait_until("it runs", || {
        shared.json(MEMBER, &["status", &id])["status"] == "running"
    });
    let whole = format!("{{\"v\":2,\"task\":\"{id}\",\"do\":\"cancel\"}}");
    let name = format!("{id}.cancel");
    let incoming = shared.spool().join("incoming");
    let gone = |what: &str| {
        shared.world.wait_until(&format!("{what} is judged"), || {
            !incoming.join(&name).exists()
        });
        let status = shared.json(MEMBER, &["status", &id]);
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
    put(&shared, OTHER_MEMBER, &name, &whole, 0o640);
    gone("another user's");
    for mode in [0o660, 0o602] {
        put(&shared, MEMBER, &name, &whole, mode);
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
        put(&shared, MEMBER, &name, &content, 0o640);
        gone(&content);
    }
    put(&shared, MEMBER, ".second", &whole, 0o640);
    fs::hard_link(incoming.join(".second"), incoming.join(&name)).unwrap();
    gone("one with two names");
    shared
        .shell(MEMBER, &format!("ln -s /etc/passwd spool/incoming/{name}"))
        .succeeds();
    gone("a link");
    shared
        .shell(MEMBER, &format!("mkfifo spool/incoming/{name}"))
        .succeeds();
    gone("a FIFO");
    // For a task that is not there: it waits for a while, then it is refused.
    let nobody = id_at(0, "n0b0dy");
    put(
        &shared,
        MEMBER,
        &format!("{nobody}.cancel"),
        &whole.replace(&id, &nobody),
        0o640,
    );
    let begun = std::time::Instant::now();
    shared.world.wait_until("it is refused", || {
        assert!(
            begun.elapsed().as_secs() < 30,
            "{}\n{}",
            watching.log(),
            shared.tree()
        );
        !incoming.join(format!("{nobody}.cancel")).exists()
    });
    assert!(watching.is_alive());
    put(&shared, MEMBER, &name, &whole, 0o640);
    shared.world.wait_until("it is cancelled", || {
        shared.json(MEMBER, &["status", &id])["status"] == "cancelled"
    });
    // Afterwards one is pointless, and goes.
    put(&shared, MEMBER, &name, &whole, 0o640);
    shared
        .world
        .wait_until("it goes", || !incoming.join(&name).exists());
}

#[test]
fn the_submitter_is_reported_or_said_to_be_unknown() {
    let shared = Shared::new();
    shared.recipe("ok", "#!/bin/sh\n");
    let (own, writable) = (id_at(0, "a"), id_at(0, "b"));
    let request = "{\"recipe\": \"ok\"}";
    put(&shared, MEMBER, &format!("{own}.json"), request, 0o640);
    // Others could have written it.
    put(&shared, MEMBER, &format!("{writable}.json"), request, 0o660);
    shared.drain();
    let word = format!("Submitted by: user {MEMBER}\n");
    for (id, word, json) in [
        (own, word.as_str(), format!("\"submitter\":{MEMBER}")),
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
fn no_text_of_a_group_user_reaches_a_terminal_as_it_is() {
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
    put(&shared, MEMBER, &format!("{id}.json"), &request, 0o640);
    put(
        &shared,
        MEMBER,
        "a\u{1b}[2J\nb.json",
        "{\"recipe\": \"loud\"}",
        0o640,
    );
    put(&shared, MEMBER, "bad\u{1b}[2J\nb.json", "[]", 0o640);
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
    // In a pipe a task's output is as it was; on a terminal nothing in it is a command.
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

/// A lease makes the kernel refuse, for a while, whoever opens the file.
#[test]
fn a_leased_drop_and_a_foreign_folder_stop_nobody() {
    let shared = Shared::new();
    const LEASE: &str = "open(F, '>', 'incoming/leased.json') or die; print F '{\"recipe\": \"echo\"}'; \
        close F; open(F, '+<', 'incoming/leased.json') or die; $SIG{IO} = 'IGNORE'; \
        fcntl(F, 1024, 1) or die; $| = 1; print \"leased\\n\"; sleep 1000";
    let mut holder = shared
        .as_user(MEMBER, "perl")
        .args(["-e", LEASE])
        .current_dir(shared.spool())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = String::new();
    let mut stdout = std::io::BufReader::new(holder.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut stdout, &mut said).unwrap();
    assert_eq!(said, "leased\n");
    let folders = "cd spool/incoming; mkdir -m 2777 a.json a.json/x b.cancel.json; \
        chmod 700 a.json/x; touch a.json/x/y";
    shared.shell(OTHER_MEMBER, folders).succeeds();
    let _watching = shared.watcher();
    let id = shared.submit(OTHER_MEMBER, &["--input", "1"]);
    shared.world.wait_until("the other one is done", || {
        shared.run(OTHER_MEMBER, &["result", &id]).stdout == "1\n"
    });
    holder.kill().unwrap();
    holder.wait().unwrap();
    // Of folders of theirs nothing comes to be where the owner could not remove it.
    assert!(shared.spool().join("incoming/a.json").is_dir());
    assert!(
        names_in(&shared.spool().join("rejected"))
            .iter()
            .all(|name| !name.contains("a.json"))
    );
}

/// Folders, and what cannot even be looked at, under the names that others need.
#[test]
fn what_stands_in_the_way_in_the_box_stops_nobody() {
    let shared = Shared::new();
    shared.recipe("forever", "#!/bin/sh\nexec sleep 1000\n");
    let object = shared.json(MEMBER, &["submit", "--recipe", "forever"]);
    let id = object["task_id"].as_str().unwrap().to_owned();
    let refused = id_at(0, "refsd");
    put(&shared, MEMBER, &format!("{refused}.json"), "[1]", 0o640);
    let incoming = shared.spool().join("incoming");
    // A mount on a file: it can be neither moved nor, as with FUSE, always looked at.
    let mounted = put(
        &shared,
        OTHER_MEMBER,
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
        shared.json(MEMBER, &["status", &id])["status"] == "running"
    });
    let in_the_way = format!(
        "cd spool/incoming; mkdir -m 2777 {id}.cancel {id}.cancel/x {refused}.json {refused}.json/x"
    );
    shared.shell(OTHER_MEMBER, &in_the_way).succeeds();
    is_refused(&shared, &refused, "one JSON object");
    shared.run(MEMBER, &["cancel", &id]).succeeds();
    assert_eq!(shared.json(OWNER, &["status", &id])["status"], "cancelled");
    let good = shared.submit(MEMBER, &["--input", "1"]);
    watching.answers(&good, "1\n");
    crate::mount::run("umount", &[mounted.to_str().unwrap()]);
    // No folder of theirs came to be among the owner's.
    for folder in ["rejected", "staging", "trash"] {
        for name in names_in(&shared.spool().join(folder)) {
            let path = shared.spool().join(folder).join(&name);
            assert_ne!(fs::metadata(&path).unwrap().uid(), OTHER_MEMBER, "{name}");
        }
    }
    assert!(incoming.join(format!("{id}.cancel")).is_dir());
    assert!(watching.is_alive());
}

/// Below the floor of free room nothing is accepted; what was accepted can still be stopped.
#[test]
fn without_room_a_group_user_still_cancels() {
    let shared = Shared::new();
    shared.recipe("forever", "#!/bin/sh\nexec sleep 1000\n");
    let object = shared.json(MEMBER, &["submit", "--recipe", "forever"]);
    let id = object["task_id"].as_str().unwrap().to_owned();
    let watching = shared.watcher();
    shared.world.wait_until("it runs", || {
        shared.json(MEMBER, &["status", &id])["status"] == "running"
    });
    let floor = (1u64 << 60).to_string();
    shared
        .run(OWNER, &["config", "set", "min_free_bytes", &floor])
        .succeeds();
    shared.world.wait_until("the watcher knows the floor", || {
        watching.log().contains("settings read again")
    });
    put(
        &shared,
        OTHER_MEMBER,
        "waits.json",
        "{\"recipe\": \"echo\"}",
        0o640,
    );
    put(&shared, OTHER_MEMBER, "bad.json", "[]", 0o640);
    shared.world.wait_until("what is bad is refused", || {
        !shared.spool().join("incoming/bad.json").exists()
    });
    let whole = format!("{{\"v\":2,\"task\":\"{id}\",\"do\":\"cancel\"}}");
    put(&shared, MEMBER, &format!("{id}.cancel"), &whole, 0o640);
    shared.world.wait_until("it is cancelled", || {
        shared.json(MEMBER, &["status", &id])["status"] == "cancelled"
    });
    assert!(shared.spool().join("incoming/waits.json").exists());
}

/// A private file of the owner's that a member may move, because he may write the folder it is in.
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
    is_refused(&shared, &id, "the group may not read it");
    let seen = shared.shell(MEMBER, "grep -r hunter2 spool");
    assert!(!seen.stdout.contains("hunter2"), "{}", seen.stdout);
}

/// The moment in which an id is free again after a look must be of no use: while a task is cleared, and
/// while its drop is refused by another watcher.
#[test]
fn an_id_that_was_given_up_in_the_middle_of_a_pass_is_not_taken() {
    let shared = Shared::new();
    shared
        .run(OWNER, &["config", "set", "durability", "process"])
        .succeeds();
    for round in 0..pick(3, 50) {
        let id = shared.submit(MEMBER, &["--input", "\"mine\""]);
        shared.drain();
        const FORGE: &str = "my ($id, $n) = @ARGV; chdir 'spool/incoming' or die; \
            sub put { open(F, '>', \".$_[0].tmp\"); print F '{\"recipe\": \"echo\", \"input\": \"FORGED\"}'; close F; \
            chmod 0640, \".$_[0].tmp\"; rename \".$_[0].tmp\", \"$_[0].json\" } \
            put(\"n$_\") for 1..$n; put($id); $| = 1; print \"ready\\n\"; my $end = time + 20; \
            while (time < $end && !-e '../../stop') { put($id) unless -e \"$id.json\" }";
        let mut forger = shared
            .as_user(OTHER_MEMBER, "perl")
            .args(["-e", FORGE, &id, "240"])
            .current_dir(shared.spool().parent().unwrap())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = [0u8; 6];
        std::io::Read::read_exact(forger.stdout.as_mut().unwrap(), &mut said).unwrap();
        let mut watchers = [shared.watcher(), shared.watcher()];
        shared.run(OWNER, &["clear"]).succeeds();
        // Long enough for some passes: the drops of the flood are all decided on.
        shared.world.wait_until("the flood is decided on", || {
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
    // Half of them are no requests, and a third of all bring ids that cannot be had.
    let flood = format!(
        "for my $n (0..{many} - 1) {{ my $name = $n % 3 ? \"odd-$n\" : sprintf('task_%020d%06d', 0, $n); \
         open(F, '>', \"incoming/$name.json\") or die; print F $n % 2 ? '{{\"recipe\": \"echo\"}}' : '[]'; close F }}"
    );
    let flood = shared
        .as_user(OTHER_MEMBER, "perl")
        .args(["-e", &flood])
        .current_dir(shared.spool())
        .spawn();
    let mut ids = Vec::new();
    for n in 0..20 {
        ids.push(shared.submit(MEMBER, &["--input", &n.to_string()]));
    }
    assert!(flood.unwrap().wait().unwrap().success());
    for (n, id) in ids.iter().enumerate() {
        shared.world.wait_until("it is done", || {
            shared.run(MEMBER, &["result", id]).stdout == format!("{n}\n")
        });
    }
    shared.world.wait_until("the box is empty", || {
        names_in(&shared.spool().join("incoming")).is_empty()
    });
    figure("group spool: odd drops beside twenty good ones", many);
}

/// As an earlier program made it: others could write in it.
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
         setfacl -d -m u:{MEMBER}:rwx tasks/{theirs} staging/x; echo '{{}}' >tasks/{theirs}/request.json; \
         mkdir -m 700 tasks/{theirs}/shut; touch tasks/{theirs}/shut/z open/{theirs}; ln -s /etc names/z; \
         mkdir tasks/{own}/attempts/2; setfacl -m u:{MEMBER}:rwx open/y"
    );
    shared.shell(MEMBER, &planted).succeeds();
    // A private file of the owner's in the place of a request.
    let secret = shared.world.root().join("owner/secret");
    fs::write(&secret, "{\"recipe\": \"echo\"}").unwrap();
    chown(&secret, Some(OWNER), Some(GROUP)).unwrap();
    mode(&secret, 0o600);
    let linked = spool.join("tasks").join(id_at(0, "1nk"));
    fs::create_dir(&linked).unwrap();
    chown(&linked, Some(OWNER), Some(GROUP)).unwrap();
    mode(&linked, 0o2770);
    fs::hard_link(&secret, linked.join("request.json")).unwrap();
    // And one whose attempts a member exchanged.
    let exchanged = spool.join("tasks").join(id_at(0, "xch"));
    fs::create_dir_all(exchanged.join("attempts")).unwrap();
    chown(&exchanged, Some(OWNER), Some(GROUP)).unwrap();
    chown(exchanged.join("attempts"), Some(MEMBER), Some(GROUP)).unwrap();
    // What a crash of before left: a claimed drop, and half a task.
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
    // What a session's tasks share, with something of a member's deep in it.
    let deep = spool.join("sessions/s/state/of/own");
    fs::create_dir_all(&deep).unwrap();
    for folder in deep.ancestors().take(4) {
        chown(folder, Some(OWNER), Some(GROUP)).unwrap();
        mode(folder, 0o2770);
    }
    shared
        .shell(MEMBER, "echo theirs >spool/sessions/s/state/of/own/code")
        .succeeds();
    // A member keeps a request open to write. One file is the owner's alone.
    let write = format!(
        "exec 3>>spool/tasks/{waiting}/request.json; echo held; read line; echo '{{}}' >&3 && echo wrote"
    );
    let mut writer = shared
        .as_user(MEMBER, "sh")
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
    // A member holds a lock of before for as long as he likes.
    const KEEP: &str =
        "open(F, '<', $ARGV[0]) or die; flock(F, 2) or die; $| = 1; print \"held\\n\"; sleep 1000";
    let mut keeper = shared
        .as_user(MEMBER, "perl")
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
    // Not while a watcher of before lives.
    let seat = spool.join(format!("watchers/{:032x}.json", 7));
    fs::write(&seat, "{}").unwrap();
    chown(&seat, Some(OWNER), Some(GROUP)).unwrap();
    const HOLD: &str =
        "open(F, '<', $ARGV[0]) or die; flock(F, 2) or die; $| = 1; print \"held\\n\"; sleep 1000";
    let mut watcher = shared
        .as_user(OWNER, "perl")
        .args(["-e", HOLD, seat.to_str().unwrap()])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = [0u8; 5];
    std::io::Read::read_exact(watcher.stdout.as_mut().unwrap(), &mut said).unwrap();
    let path = spool.to_str().unwrap();
    let ran = shared.run(OWNER, &["init", path]);
    ran.ends_with(8);
    assert!(ran.stderr.contains("watcher"), "{}", ran.stderr);
    fs::remove_file(&seat).unwrap();
    watcher.kill().unwrap();
    watcher.wait().unwrap();
    // Nor while a task runs, whose files would become others.
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
    std::io::Read::read_exact(runner.stdout.as_mut().unwrap(), &mut said).unwrap();
    let ran = shared.run(OWNER, &["init", path]);
    ran.ends_with(8);
    let message = format!("while task {waiting} (pid {}) is running", runner.id());
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
        !acls.stdout.contains(&MEMBER.to_string()),
        "{}",
        acls.stdout
    );
    assert_eq!(fs::metadata(&secret).unwrap().mode() & 0o777, 0o600);
    assert!(!claimed.exists() && !half.exists(), "{}", shared.tree());
    assert!(put_away("claim"), "what was claimed is kept");
    assert!(!linked.exists(), "{}", shared.tree());
    // What was accepted before is run, and what was done is still known.
    shared.drain();
    keeper.kill().unwrap();
    keeper.wait().unwrap();
    assert_eq!(
        shared.json(OWNER, &["status", &waiting])["status"],
        "completed"
    );
    assert_eq!(crate::support::read_json(&spool.join("spool.json"))["v"], 2);
    let id = shared.submit(MEMBER, &[]);
    shared.drain();
    assert_eq!(shared.json(MEMBER, &["status", &id])["status"], "completed");
}
