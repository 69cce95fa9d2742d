//! The layout of a spool: the names of its files and folders, and their modes.
//!
//! Not what is in them, nor how a spool is opened or made (`open/`). Invariant: a name that
//! docs/spool-format.md knows is written down here and nowhere else.

use rustix::fs::Mode;

use super::disk::Making;

/// The names in a spool's root.
pub(super) mod name {
    pub const SETTINGS: &str = "spool.json";
    pub const IDENTITY: &str = "identity.json";
    pub const PAUSED: &str = "paused";
    pub const SWEEP: &str = "sweep.json";
    pub const SWEEP_LOCK: &str = "sweep.lock";
    /// Locked while a file of the root is made or replaced.
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
    /// In a group spool, made and locked by a reader of the owner's who wants the task kept.
    pub const READERS: &str = "readers";
    pub const ENVIRONMENT: &str = "env.json";
    /// The bytes of `submit --attach`.
    pub const ATTACHMENT: &str = "attachment";
    pub const ATTEMPTS: &str = "attempts";

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
    /// What a foreign result is called in the attempt's folder.
    pub const FOREIGN: &str = "foreign-result";
    /// The same in the task's own folder, where that of the attempt is gone.
    pub const FOREIGN_BESIDE: &str = ".foreign-result";

    // In a session's folder.
    pub const QUEUE: &str = "queue";
    pub const STATE: &str = "state";

    // In `open/` and `names/`.
    /// Which boot the index was last compared in.
    pub const BOOT: &str = ".boot";
    /// A link that is being made: `.<id>.link`.
    pub const LINK_SUFFIX: &str = ".link";

    // In `watchers/`.
    pub const START: &str = "start";
    pub const LOG: &str = "log";
    pub const OLD_LOG: &str = "log.1";
    pub const WATCHER_SUFFIX: &str = ".json";

    // In `incoming/`, and in the claims of drops.
    pub const DROP_SUFFIX: &str = ".json";
    /// Of a drop that is being written: `.<name>.new`.
    pub const HIDDEN_SUFFIX: &str = ".new";
    pub const CLAIM_SUFFIX: &str = ".claim";
    /// A file in a claim of a chosen id, made before its task is built: from then on `staging/<id>` and
    /// `open/<id>` are this claim's.
    pub const BUILDING: &str = ".building";
    /// The same before the refusal of a drop under the id that it brought: from then on `rejected/<id>-<id>` is this
    /// claim's.
    pub const REFUSING: &str = ".refusing";

    // In `rejected/` and `trash/`.
    pub const REASON_SUFFIX: &str = ".reason.json";
    /// What the name of a folder ends in into which a conversion put what it did not keep, behind an id.
    pub const OF_CONVERSION: &str = "version-1";
    /// Of the file that keeps the id of a task that was removed.
    pub const REMOVED_SUFFIX: &str = ".removed";

    // In `staging/` and in the root.
    /// What the name of a probe in `staging/` begins with; one that was cut off is litter.
    pub const PROBE_PREFIX: &str = "probe.";
    /// In the root, until the conversion is done.
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

/// Larger than any settings or status file we write by hand or by program.
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

/// The one place that the group may write: its users put files in, but neither list them nor remove
/// those of others.
pub(super) const DROP_BOX: Mode = Mode::from_bits_retain(0o3730);

/// Of claim folders: a user of the group may ask whether a name is in one, but not open the folder,
/// because who can open it can lock it.
pub(super) const CLAIM_FOLDER: Mode = Mode::from_bits_retain(0o710);

/// The spool's owner reads it through the group; nobody else writes it.
pub(super) const DROP_FILE: Mode = Mode::from_bits_retain(0o640);

/// Of a folder that `init` found open to others, until it has dealt with what is in it: no other folder has this mode.
pub(super) const CLOSED: Mode = Mode::from_bits_retain(0o1700);

/// Mode bits by which others than the owner can write. An access list shows in the group's.
pub(super) const WRITABLE: u32 = 0o022;

/// Who may use a spool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sharing {
    Private,
    Group,
}

/// How things in a folder of such a spool are made.
pub(super) fn making_in(sharing: Sharing, folder: &str) -> Making {
    match (sharing, folder) {
        (Sharing::Private, _) => OURS_ONLY,
        // What is locked in them a user of the group must not be able to open.
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
