//! The layout of a spool: the names of its files and folders, and their modes.
//!
//! Not what is in them, nor how a spool is opened or created (`open/`). Invariant: a name that is in
//! docs/spool-format.md is defined here and nowhere else.

use rustix::fs::Mode;

use super::disk::Making;

/// The names in a spool's root.
pub(super) mod name {
    pub const SETTINGS: &str = "spool.json";
    pub const IDENTITY: &str = "identity.json";
    pub const PAUSED: &str = "paused";
    pub const SWEEP: &str = "sweep.json";
    pub const SWEEP_LOCK: &str = "sweep.lock";
    /// Locked while a file of the root is created or replaced.
    pub const ROOT_LOCK: &str = "spool.lock";
    /// Locked while a link in `names/` is compared and moved.
    pub const NAMES_LOCK: &str = "names.lock";
    pub const INCOMING: &str = "incoming";
    pub const TASKS: &str = "tasks";
    pub const NAMES: &str = "names";
    pub const SESSIONS: &str = "sessions";
    pub const OPEN: &str = "open";
    pub const STAGING: &str = "staging";
    pub const TRASH: &str = "trash";
    pub const REJECTED: &str = "rejected";
    pub const SLOTS: &str = "slots";
    pub const WATCHERS: &str = "watchers";
    pub const RECIPES: &str = "recipes";
    pub const EVENTS: &str = "events";

    // In a task's folder.
    pub const REQUEST: &str = "request.json";
    pub const STATUS: &str = "status.json";
    pub const RESULT: &str = "result.json";
    pub const CANCEL: &str = "cancel";
    pub const LOCK: &str = "lock";
    pub const ORIGIN: &str = "origin.json";
    /// In a group spool: the owner's commands that read a task create and lock it, so that the task is kept.
    pub const READERS: &str = "readers";
    pub const ENVIRONMENT: &str = "env.json";
    /// The bytes of `submit --attach`.
    pub const ATTACHMENT: &str = "attachment";
    pub const ATTEMPTS: &str = "attempts";
    /// The prefix of the marker of a submission that may not be durable: `.new.<boot>.<digest>`.
    pub const NEW_PREFIX: &str = ".new.";

    // In an attempt's folder.
    pub const STDOUT: &str = "stdout.log";
    pub const STDERR: &str = "stderr.log";
    pub const RUN: &str = "run.json";
    pub const WORK: &str = "work";
    pub const INPUT: &str = "input.json";
    pub const PROGRESS: &str = "progress";
    pub const OUTPUT: &str = "output";
    pub const RESULT_PART: &str = "result.part";
    pub const CUT: &str = "cut.json";
    /// The name of a foreign result in the attempt's folder.
    pub const FOREIGN: &str = "foreign-result";
    /// The name of a foreign result in the task's folder, if the attempt's folder is gone.
    pub const FOREIGN_BESIDE: &str = ".foreign-result";

    // In a session's folder.
    pub const QUEUE: &str = "queue";
    pub const STATE: &str = "state";

    // In `open/` and `names/`.
    /// The boot in which the index was last compared.
    pub const BOOT: &str = ".boot";
    /// The suffix of a link that is being created: `.<id>.link`.
    pub const LINK_SUFFIX: &str = ".link";

    // In `watchers/`.
    pub const START: &str = "start";
    pub const LOG: &str = "log";
    pub const OLD_LOG: &str = "log.1";
    pub const WATCHER_SUFFIX: &str = ".json";

    // In `incoming/`, and in the claims of drops.
    pub const DROP_SUFFIX: &str = ".json";
    /// The suffix of a drop that is being written: `.<name>.new`.
    pub const HIDDEN_SUFFIX: &str = ".new";
    pub const CLAIM_SUFFIX: &str = ".claim";
    /// A file in the claim of a drop with a chosen id, created before the task is built. From then on
    /// `staging/<id>` and `open/<id>` belong to this claim.
    pub const BUILDING: &str = ".building";
    /// A file in such a claim, created before the drop is refused under the id that it brought. From then on
    /// `rejected/<id>-<id>` belongs to this claim.
    pub const REFUSING: &str = ".refusing";

    // In `rejected/` and `trash/`.
    pub const REASON_SUFFIX: &str = ".reason.json";
    /// The end of a folder's name, after an id: a conversion puts what it does not keep into such folders.
    pub const OF_CONVERSION: &str = "version-1";
    /// The suffix of the file that records the id of a task that was removed.
    pub const REMOVED_SUFFIX: &str = ".removed";

    // In `staging/` and in the root.
    /// The prefix of a probe in `staging/`. A probe that was interrupted may be removed.
    pub const PROBE_PREFIX: &str = "probe.";
    /// In the root until the conversion is done.
    pub const CONVERTING: &str = ".converting";
}

/// The root's folders.
pub(super) const FOLDERS: [&str; 12] = [
    name::INCOMING,
    name::TASKS,
    name::NAMES,
    name::SESSIONS,
    name::OPEN,
    name::STAGING,
    name::TRASH,
    name::REJECTED,
    name::SLOTS,
    name::WATCHERS,
    name::RECIPES,
    name::EVENTS,
];

/// The most bytes that are read of a small file. Settings and status files are smaller.
pub(super) const SMALL_FILE: usize = 4 << 20;

pub(super) const OURS_ONLY: Making = Making {
    file: Mode::from_bits_retain(0o600),
    dir: Mode::from_bits_retain(0o700),
    sync: true,
};

/// The owner writes, the group reads.
pub(super) const GROUP_READS: Making = Making {
    file: Mode::from_bits_retain(0o640),
    dir: Mode::from_bits_retain(0o2750),
    sync: true,
};

/// The only folder that the group may write: its users can put files into it. They can neither list the files
/// nor remove those of others.
pub(super) const DROP_BOX: Mode = Mode::from_bits_retain(0o3730);

/// The mode of claim folders. A user of the group may check whether a name is in one, but may not open the
/// folder, because a process that can open it can lock it.
pub(super) const CLAIM_FOLDER: Mode = Mode::from_bits_retain(0o710);

/// The spool's owner reads it through the group. Nobody else can write it.
pub(super) const DROP_FILE: Mode = Mode::from_bits_retain(0o640);

/// The mode of a folder that `init` found open to others, until its content has been checked. No other folder
/// has this mode.
pub(super) const CLOSED: Mode = Mode::from_bits_retain(0o1700);

/// Mode bits that let users other than the owner write. An access list shows in the group's bits.
pub(super) const WRITABLE: u32 = 0o022;

/// Which users may use a spool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sharing {
    Private,
    Group,
}

/// The modes for files and folders that are created in a folder of such a spool.
pub(super) fn making_in(sharing: Sharing, folder: &str) -> Making {
    match (sharing, folder) {
        (Sharing::Private, _) => OURS_ONLY,
        // A user of the group must not be able to open the files that are locked in them.
        (Sharing::Group, name::SLOTS | name::SESSIONS) => OURS_ONLY,
        (Sharing::Group, name::WATCHERS) => Making {
            file: OURS_ONLY.file,
            ..GROUP_READS
        },
        (Sharing::Group, _) => GROUP_READS,
    }
}

/// The mode of one of the root's folders.
pub(super) fn folder_mode(sharing: Sharing, folder: &str) -> Mode {
    if sharing == Sharing::Group && folder == name::INCOMING {
        DROP_BOX
    } else {
        making_in(sharing, folder).dir
    }
}
