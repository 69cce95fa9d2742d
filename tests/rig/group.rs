//! A spool that a group shares, seen by its owner, a user of the group and a stranger.
//!
//! Users and groups are bare numbers (`setpriv`, root), so no account is added to the machine. Checked: group
//! users submit, read and cancel their own tasks; only the owner decides what is run; strangers see nothing.
//! What group users cannot do is in `group_user.rs`, how they submit and cancel in `drop_box.rs`.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::support::{Ran, World, names_in};

pub const OWNER: u32 = 64_001;
pub const GROUP_USER: u32 = 64_002;
pub const OTHER_GROUP_USER: u32 = 64_003;
pub const STRANGER: u32 = 64_004;
pub const GROUP: u32 = 64_100;

/// A shared spool of OWNER, and the view of each user.
pub struct Shared {
    pub world: World,
}

impl Shared {
    pub fn new() -> Shared {
        let world = World::without_spool();
        // The test's own folder is 0700 and root's: every user must be able to reach the spool.
        fs::set_permissions(world.root(), fs::Permissions::from_mode(0o755)).unwrap();
        let home = world.root().join("owner");
        fs::create_dir(&home).unwrap();
        std::os::unix::fs::chown(&home, Some(OWNER), Some(GROUP)).unwrap();
        let shared = Shared { world };
        let spool = shared.spool().to_str().unwrap().to_owned();
        let group = GROUP.to_string();
        shared
            .run(OWNER, &["init", &spool, "--group", &group])
            .succeeds();
        shared
            .run(OWNER, &["config", "set", "rescan_sec", "0.3"])
            .succeeds();
        let recipe = shared.spool().join("recipes/echo");
        fs::write(&recipe, "#!/bin/sh\ncat\n").unwrap();
        fs::set_permissions(&recipe, fs::Permissions::from_mode(0o755)).unwrap();
        std::os::unix::fs::chown(&recipe, Some(OWNER), Some(GROUP)).unwrap();
        shared
    }

    pub fn spool(&self) -> std::path::PathBuf {
        self.world.root().join("owner/spool")
    }

    /// Any command, as some user. All users but the stranger are in the group.
    pub fn as_user(&self, uid: u32, program: &str) -> Command {
        let own_group = (uid + 1000).to_string();
        let mut command = self.world.command(&[]);
        let program = if program == "agentspool" {
            command.get_program().to_owned()
        } else {
            program.into()
        };
        command = as_number(&command, uid, &own_group, uid != STRANGER);
        command
            .arg(program)
            .env("AGENTSPOOL_DIR", self.spool())
            .env("HOME", self.world.root().join(format!("home-{uid}")));
        command
    }

    pub fn run(&self, uid: u32, arguments: &[&str]) -> Ran {
        Ran::of(self.as_user(uid, "agentspool").args(arguments))
    }

    pub fn shell(&self, uid: u32, script: &str) -> Ran {
        Ran::of(
            self.as_user(uid, "sh")
                .arg("-c")
                .arg(script)
                .current_dir(self.spool().parent().unwrap()),
        )
    }

    pub fn json(&self, uid: u32, arguments: &[&str]) -> Value {
        let mut all = arguments.to_vec();
        all.push("--json");
        self.run(uid, &all).json()
    }

    pub fn submit(&self, uid: u32, arguments: &[&str]) -> String {
        let mut all = vec!["submit", "--recipe", "echo"];
        all.extend(arguments);
        let object = self.json(uid, &all);
        assert_eq!(object["ok"], true, "{object}\n{}", self.tree());
        object["task_id"].as_str().unwrap().to_owned()
    }

    pub fn drain(&self) {
        self.run(OWNER, &["watch", "--drain"]).succeeds();
    }

    /// A recipe of the owner.
    pub fn recipe(&self, name: &str, script: &str) {
        let recipe = self.spool().join("recipes").join(name);
        crate::support::write_executable(&recipe, script);
        std::os::unix::fs::chown(&recipe, Some(OWNER), Some(GROUP)).unwrap();
    }

    /// A watcher of the owner, which logs everything to `watch.log` next to the spool.
    pub fn watcher(&self) -> Watching<'_> {
        let log = self.world.root().join("watch.log");
        let file = fs::File::options().create(true).append(true).open(&log);
        let mut command = self.as_user(OWNER, "agentspool");
        command
            .args(["watch"])
            .stdout(Stdio::null())
            .stderr(file.unwrap());
        let child = command.spawn().unwrap();
        let watching = Watching {
            shared: self,
            child,
            log,
        };
        self.world
            .wait_until("the watcher is shown as running", || {
                !names_in(&self.spool().join("watchers")).is_empty()
            });
        watching
    }

    pub fn tree(&self) -> String {
        let listed = Command::new("ls").arg("-lanR").arg(self.spool()).output();
        String::from_utf8_lossy(&listed.unwrap().stdout).into_owned()
    }
}

/// A running watcher of the owner. It is ended by its pid.
pub struct Watching<'a> {
    shared: &'a Shared,
    child: Child,
    log: PathBuf,
}

impl Watching<'_> {
    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }

    pub fn is_alive(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Kills it at once. Its runners continue.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// Waits until the task of this name has this output.
    #[track_caller]
    pub fn answers(&self, name: &str, output: &str) {
        let shared = self.shared;
        shared
            .world
            .wait_until(&format!("{name} gives {output:?}"), || {
                shared.run(OWNER, &["result", name]).stdout == output
            });
    }
}

impl Drop for Watching<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            println!("{}\n{}", self.log(), self.shared.tree());
        }
    }
}

/// The same sealed environment, as another user.
pub fn as_number(sealed: &Command, uid: u32, own_group: &str, in_group: bool) -> Command {
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid", &uid.to_string(), "--regid", own_group])
        .env_clear();
    if in_group {
        command.args(["--groups", &GROUP.to_string()]);
    } else {
        command.arg("--clear-groups");
    }
    for (name, value) in sealed.get_envs() {
        if let Some(value) = value {
            command.env(name, value);
        }
    }
    command.current_dir("/").stdin(std::process::Stdio::null());
    command
}

fn mode(path: &Path) -> (u32, u32, u32) {
    let metadata = fs::symlink_metadata(path).unwrap();
    (metadata.mode() & 0o7777, metadata.uid(), metadata.gid())
}

#[test]
fn the_modes_allow_each_user_only_one_part() {
    let shared = Shared::new();
    let spool = shared.spool();
    for (folder, expected) in [
        ("", 0o2750),
        ("incoming", 0o3730),
        ("staging", 0o2750),
        ("tasks", 0o2750),
        ("names", 0o2750),
        ("open", 0o2750),
        ("sessions", 0o700),
        ("recipes", 0o2750),
        ("rejected", 0o2750),
        ("trash", 0o2750),
        ("slots", 0o700),
        ("watchers", 0o2750),
    ] {
        let (mode, uid, gid) = mode(&spool.join(folder));
        assert_eq!(
            (format!("{mode:o}"), uid, gid),
            (format!("{expected:o}"), OWNER, GROUP),
            "{folder:?}\n{}",
            shared.tree()
        );
    }
    for file in ["spool.json", "identity.json"] {
        let (mode, uid, gid) = mode(&spool.join(file));
        assert_eq!((mode, uid, gid), (0o640, OWNER, GROUP), "{file}");
    }
}

/// A default access list on the folder above gives rights to everything that is created below it.
#[test]
fn a_group_spool_inherits_no_access_list() {
    let shared = Shared::new();
    let above = shared.world.root().join("owner");
    let given = format!(
        "setfacl -d -m u:{GROUP_USER}:rwx,u:{STRANGER}:rwx {}",
        above.display()
    );
    shared.shell(OWNER, &given).succeeds();
    let spool = above.join("second");
    let path = spool.to_str().unwrap();
    shared
        .run(OWNER, &["init", path, "--group", &GROUP.to_string()])
        .succeeds();
    let recipe = spool.join("recipes/echo");
    crate::support::write_executable(&recipe, "#!/bin/sh\ncat >kept\n");
    std::os::unix::fs::chown(&recipe, Some(OWNER), Some(GROUP)).unwrap();
    shared
        .run(OWNER, &["--spool", path, "submit", "--recipe", "echo"])
        .succeeds();
    shared
        .run(OWNER, &["--spool", path, "watch", "--drain"])
        .succeeds();
    let lists = shared.shell(OWNER, &format!("getfacl -Rsp {path}"));
    for uid in [GROUP_USER, STRANGER] {
        assert!(!lists.stdout.contains(&uid.to_string()), "{}", lists.stdout);
    }
    let id = names_in(&spool.join("tasks")).remove(0);
    let work = spool.join("tasks").join(id).join("attempts/1/work/kept");
    assert_ne!(
        shared
            .shell(GROUP_USER, &format!("echo x >{}", work.display()))
            .code,
        0
    );
}

#[test]
fn a_group_user_submits_and_reads_and_the_owner_runs() {
    let shared = Shared::new();
    let id = shared.submit(GROUP_USER, &["--input", "\"mine\"", "--name", "report"]);
    let message = shared.run(GROUP_USER, &["status", &id]);
    message.succeeds();
    assert!(message.stdout.contains("Status: pending"));
    // Only the owner may run it, and no other user starts a watcher in a shared spool.
    shared.run(GROUP_USER, &["watch", "--drain"]).ends_with(4);
    assert_ne!(shared.run(GROUP_USER, &["runner", "--once", &id]).code, 0);
    assert!(names_in(&shared.spool().join("watchers")).is_empty());
    shared.drain();
    for uid in [GROUP_USER, OTHER_GROUP_USER, OWNER] {
        let result = shared.run(uid, &["result", "report"]);
        result.succeeds();
        assert_eq!(result.stdout, "mine\n");
        assert_eq!(shared.json(uid, &["list"])["total"], 1);
        shared.run(uid, &["logs", &id]).succeeds();
        assert_eq!(shared.json(uid, &["status", &id])["status"], "completed");
    }
    let result = shared.spool().join("tasks").join(&id).join("result.json");
    assert_eq!(mode(&result).1, OWNER);
}

#[test]
fn a_group_user_uses_the_drop_box_without_seeing_into_it() {
    let shared = Shared::new();
    let dropped = "printf '{\"recipe\": \"echo\", \"input\": 5}' > spool/incoming/five.json";
    shared.shell(GROUP_USER, dropped).succeeds();
    assert_eq!(
        shared.json(GROUP_USER, &["status", "five"])["status"],
        "pending"
    );
    assert_ne!(shared.shell(GROUP_USER, "ls spool/incoming").code, 0);
    // Sticky: another user cannot remove the drop of a group user.
    assert_ne!(
        shared
            .shell(OTHER_GROUP_USER, "rm -f spool/incoming/five.json")
            .code,
        0
    );
    shared
        .shell(GROUP_USER, "printf '[]' > spool/incoming/wrong.json")
        .succeeds();
    shared.drain();
    assert_eq!(shared.run(GROUP_USER, &["result", "five"]).stdout, "5\n");
    let message = shared.run(GROUP_USER, &["status", "wrong"]);
    message.ends_with(7);
    assert!(
        message.stderr.contains("one JSON object"),
        "{}",
        message.stderr
    );
}

/// The owner may move a file of a group user, but not a folder of his, and he cannot read a file that is
/// shut.
#[test]
fn odd_drops_of_a_group_user_stop_no_other_drop() {
    let shared = Shared::new();
    shared
        .run(OWNER, &["config", "set", "drop_patience_sec", "0"])
        .succeeds();
    shared
        .shell(
            GROUP_USER,
            "mkdir -m 700 spool/incoming/folder.json && mkfifo spool/incoming/fifo.json && \
             ln -s /etc/passwd spool/incoming/link.json && \
             printf '{\"recipe\": \"echo\"}' > spool/incoming/shut.json && \
             chmod 000 spool/incoming/shut.json",
        )
        .succeeds();
    shared
        .shell(
            OTHER_GROUP_USER,
            "printf '{\"recipe\": \"echo\", \"input\": 1}' > spool/incoming/good.json",
        )
        .succeeds();
    shared.drain();
    assert_eq!(
        shared.run(OTHER_GROUP_USER, &["result", "good"]).stdout,
        "1\n"
    );
    for name in ["fifo", "link", "shut"] {
        shared.run(GROUP_USER, &["status", name]).ends_with(7);
    }
    assert_eq!(names_in(&shared.spool().join("incoming")), ["folder.json"]);
}

/// A group user cancels only his own tasks. Without a running watcher nothing is done yet, and that is
/// reported.
#[test]
fn a_group_user_cancels_only_own_tasks() {
    let shared = Shared::new();
    let early = shared.submit(GROUP_USER, &[]);
    let ran = shared.run(GROUP_USER, &["cancel", &early]);
    ran.succeeds();
    assert!(
        ran.stderr.contains("no watcher is running"),
        "{}",
        ran.stderr
    );
    assert_eq!(shared.json(OWNER, &["status", &early])["status"], "pending");
    shared.drain();
    assert_eq!(
        shared.json(GROUP_USER, &["status", &early])["status"],
        "cancelled"
    );

    shared.recipe("forever", "#!/bin/sh\nexec sleep 1000\n");
    let mut watching = shared.watcher();
    let submitted = shared.json(
        GROUP_USER,
        &["submit", "--recipe", "forever", "--name", "mine"],
    );
    let id = submitted["task_id"].as_str().unwrap();
    shared.world.wait_until("it runs", || {
        shared.json(OTHER_GROUP_USER, &["status", id])["status"] == "running"
    });
    let refused = shared.run(OTHER_GROUP_USER, &["cancel", id]);
    refused.ends_with(4);
    assert!(
        refused.stderr.contains("belongs to another user"),
        "{}",
        refused.stderr
    );
    let object = shared.json(GROUP_USER, &["cancel", "mine"]);
    assert_eq!(object["status"], "cancelled", "{object}");
    // The owner cancels his own tasks and those of all others.
    let owners = shared.json(OWNER, &["submit", "--recipe", "forever"]);
    let owners = owners["task_id"].as_str().unwrap();
    shared.run(GROUP_USER, &["cancel", owners]).ends_with(4);
    let theirs = shared.submit(OTHER_GROUP_USER, &["--name", "theirs"]);
    for id in [owners, &theirs] {
        shared.world.wait_until("it is a task", || {
            shared.spool().join("tasks").join(id).exists()
        });
        shared.run(OWNER, &["cancel", id]).succeeds();
    }
    assert!(watching.is_alive());
}

#[test]
fn group_users_share_a_session_in_order() {
    let shared = Shared::new();
    let ids: Vec<String> = [GROUP_USER, OWNER, OTHER_GROUP_USER]
        .iter()
        .map(|uid| shared.submit(*uid, &["--session-id", "ours", "--name", "same"]))
        .collect();
    shared.drain();
    for id in &ids {
        assert_eq!(
            shared.json(GROUP_USER, &["status", id])["status"],
            "completed",
            "{}",
            shared.tree()
        );
    }
    assert_eq!(
        shared.json(GROUP_USER, &["status", "same"])["task_id"],
        ids[2].as_str()
    );
    // The owner clears all of them, whoever submitted them.
    shared.run(OWNER, &["clear"]).succeeds();
    assert_eq!(
        shared.json(GROUP_USER, &["list"])["total"],
        0,
        "{}",
        shared.tree()
    );
}

#[test]
fn only_the_owner_decides_what_is_run() {
    let shared = Shared::new();
    let id = shared.submit(GROUP_USER, &[]);
    shared.drain();
    for script in [
        "echo '{}' > spool/spool.json",
        "mv spool/spool.json spool/other.json",
        "rm -f spool/identity.json",
        "echo > spool/recipes/new",
        "echo > spool/recipes/echo",
        "mv spool/recipes/echo spool/recipes/other",
        "rm -rf spool/recipes",
        "touch spool/sweep.lock",
        "touch spool/slots/0",
        "mv spool/recipes spool/tasks/r",
    ] {
        assert_ne!(shared.shell(GROUP_USER, script).code, 0, "{script}");
    }
    shared
        .run(GROUP_USER, &["config", "set", "max_concurrent", "9"])
        .ends_with(4);
    shared.run(GROUP_USER, &["sweep"]).ends_with(4);
    assert_eq!(shared.json(OWNER, &["status", &id])["status"], "completed");
    shared.run(OWNER, &["recipe", "info", "echo"]).succeeds();
}

/// Only the owner's recipe reads an attachment, and a drop cannot have one.
#[test]
fn only_the_owner_attaches_and_nobody_else_reads_it() {
    let shared = Shared::new();
    let sent = shared.world.root().join("sent");
    fs::write(&sent, "hunter2").unwrap();
    fs::set_permissions(&sent, fs::Permissions::from_mode(0o644)).unwrap();
    let sent = sent.to_str().unwrap();
    let submit = ["submit", "--recipe", "echo", "--attach", sent];
    let refused = shared.run(GROUP_USER, &submit);
    refused.ends_with(4);
    assert!(
        refused.stderr.contains("only for the spool's owner"),
        "{}",
        refused.stderr
    );
    assert!(names_in(&shared.spool().join("incoming")).is_empty());
    shared.run(OWNER, &["pause"]).succeeds();
    let id = shared.json(OWNER, &submit)["task_id"]
        .as_str()
        .unwrap()
        .to_owned();
    let file = shared.spool().join("tasks").join(&id).join("attachment");
    assert_eq!(fs::read_to_string(&file).unwrap(), "hunter2");
    assert_eq!(mode(&file), (0o600, OWNER, GROUP));
    shared.run(OWNER, &["resume"]).succeeds();
    shared.drain();
    shared.run(GROUP_USER, &["wait", &id]).succeeds();
    assert!(!file.exists());
}

/// Only the owner removes tasks. A task that a group user may not remove keeps its name.
#[test]
fn a_group_user_cannot_clear_tasks() {
    let shared = Shared::new();
    let id = shared.submit(GROUP_USER, &["--name", "kept"]);
    shared.drain();
    shared.run(GROUP_USER, &["wait", "kept"]).succeeds();
    let object = shared.json(GROUP_USER, &["clear"]);
    assert_eq!(object["code"], 4, "{object}");
    assert_eq!(shared.json(GROUP_USER, &["status", "kept"])["task_id"], id);
    assert_eq!(shared.run(GROUP_USER, &["result", "kept"]).code, 0);
}

/// Problems that only the owner can fix are not reported to a group user.
#[test]
fn a_group_user_asks_the_doctor() {
    let shared = Shared::new();
    let without = shared.run(GROUP_USER, &["doctor"]);
    without.ends_with(1);
    assert!(
        without.stdout.contains("ask the spool's owner"),
        "{}",
        without.stdout
    );
    let _watching = shared.watcher();
    let message = shared.run(GROUP_USER, &["doctor"]);
    message.succeeds();
    assert_eq!(message.stdout.lines().count(), 5, "{}", message.stdout);
}

#[test]
fn a_stranger_gets_only_a_refusal() {
    let shared = Shared::new();
    let id = shared.submit(GROUP_USER, &["--name", "secret-name"]);
    for arguments in [
        &["list"][..],
        &["status", &id],
        &["result", "secret-name"],
        &["submit", "--recipe", "echo"],
        &["cancel", &id],
        &["clear"],
        &["sweep"],
        &["watch", "--drain"],
        &["recipe", "list"],
    ] {
        let ran = shared.run(STRANGER, arguments);
        assert!(
            ran.code == 4 || ran.code == 8,
            "{arguments:?}: {}",
            ran.code
        );
        assert_eq!(ran.stdout, "", "{arguments:?}");
        assert!(ran.stderr.starts_with("error:"), "{}", ran.stderr);
    }
    for script in [
        "ls spool",
        "cat spool/spool.json",
        "cp /etc/hostname spool/incoming/x.json",
    ] {
        let ran = shared.shell(STRANGER, script);
        assert_ne!(ran.code, 0, "{script}");
        assert_eq!(ran.stdout, "");
    }
}

#[test]
fn only_its_owner_uses_a_private_spool() {
    let shared = Shared::new();
    let private = shared.world.root().join("owner/private");
    let path = private.to_str().unwrap();
    shared.run(OWNER, &["init", path]).succeeds();
    assert_eq!(mode(&private).0, 0o700);
    for folder in names_in(&private) {
        let is_dir = private.join(&folder).is_dir();
        let expected = if is_dir { 0o700 } else { 0o600 };
        assert_eq!(mode(&private.join(&folder)).0, expected, "{folder}");
    }
    for uid in [GROUP_USER, STRANGER] {
        let ran = shared.run(uid, &["--spool", path, "list"]);
        assert!(ran.code == 4 || ran.code == 8, "{}", ran.stderr);
    }
    // Root could read it, and would leave files that its owner cannot remove.
    let ran = shared.world.run(&["--spool", path, "list"]);
    ran.ends_with(4);
    assert!(ran.stderr.contains(&OWNER.to_string()), "{}", ran.stderr);
}

/// A user who may write in a folder above could put another spool there, so the owner's watcher does not run.
#[test]
fn a_folder_above_in_which_others_write_is_refused() {
    let shared = Shared::new();
    let above = shared.spool().parent().unwrap().to_owned();
    let set = |mode| fs::set_permissions(&above, fs::Permissions::from_mode(mode)).unwrap();
    set(0o2775);
    let watch = shared.run(OWNER, &["watch", "--drain"]);
    assert_eq!(watch.code, 4, "{}", watch.stderr);
    let name = above.display().to_string();
    assert!(
        watch.stderr.contains(&name) && watch.stderr.contains("chmod"),
        "{}",
        watch.stderr
    );
    let again = shared.run(OWNER, &["init"]);
    assert_eq!(again.code, 4, "{}", again.stderr);
    let doctor = shared.run(OWNER, &["doctor"]);
    assert!(
        doctor.stdout.contains("problem  folders above"),
        "{}",
        doctor.stdout
    );
    assert!(
        watch.stderr.contains(&format!("group {GROUP} may write")),
        "{}",
        watch.stderr
    );
    // Sticky: a user renames only his own files.
    set(0o3775);
    shared.run(OWNER, &["watch", "--drain"]).succeeds();
}

/// Also if a link leads through such a folder, and if a folder is another user's.
#[test]
fn a_user_who_could_change_the_path_to_a_spool_is_named() {
    let shared = Shared::new();
    let above = shared.spool().parent().unwrap().to_owned();
    let make = "mkdir team && chgrp 64100 team && chmod 2775 team && ln -s ../spool team/turn && ln -s team/turn way";
    shared.shell(OWNER, make).succeeds();
    let way = above.join("way");
    let watch = |path: &Path| {
        shared.run(
            OWNER,
            &["--spool", path.to_str().unwrap(), "watch", "--drain"],
        )
    };
    let refused = watch(&way);
    refused.ends_with(4);
    let team = format!(
        "{} is a folder above the spool in which group {GROUP} may write",
        above.join("team").display()
    );
    assert!(refused.stderr.contains(&team), "{}", refused.stderr);
    watch(&shared.spool()).succeeds();
    // Another user can change his own link in a sticky folder, and also his own folder.
    fs::set_permissions(above.join("team"), fs::Permissions::from_mode(0o3775)).unwrap();
    watch(&way).succeeds();
    shared
        .shell(GROUP_USER, "ln -s ../spool team/his")
        .succeeds();
    let refused = watch(&above.join("team/his"));
    refused.ends_with(4);
    assert!(
        refused
            .stderr
            .contains(&format!("belongs to user {GROUP_USER}")),
        "{}",
        refused.stderr
    );
    std::os::unix::fs::chown(&above, Some(GROUP_USER), None).unwrap();
    let refused = watch(&shared.spool());
    refused.ends_with(4);
    assert!(
        refused
            .stderr
            .contains(&format!("belongs to user {GROUP_USER}"))
            && refused.stderr.contains("chown"),
        "{}",
        refused.stderr
    );
}

#[test]
fn only_the_owner_runs_a_task_of_a_group_spool() {
    let shared = Shared::new();
    let id = shared.submit(OWNER, &[]);
    let spool = shared.spool();
    let as_root = ["--spool", spool.to_str().unwrap(), "runner", "--once", &id];
    let refused = shared.world.run(&as_root);
    refused.ends_with(4);
    assert!(
        refused.stderr.contains("only the owner"),
        "{}",
        refused.stderr
    );
    shared
        .run(GROUP_USER, &["runner", "--once", &id])
        .ends_with(4);
    assert!(names_in(&spool.join("slots")).is_empty());
}
