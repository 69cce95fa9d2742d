//! What must hold for any bytes: the checks of the fuzz targets, and of the test that runs their corpus.
//!
//! Not a fuzzer (`fuzz/`) and not a search for cases. Each function takes any bytes and panics if a promise
//! is broken. Invariant: only the library's public functions are used, so the checks hold for every program
//! that uses the library.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use agentspool::config::Overrides;
use agentspool::internals::{
    Admission, DropFile, DropRefusal, Pickup, ProgressReader, Reason, Rules, Spool, Submission,
};
use agentspool::internals::{Manifest, RecipePath};
use agentspool::task::{Json, Request, TaskId};

/// Replaces each `@` of the bytes in a drop. It is not the name of a recipe, which a reason may repeat, so it
/// must not appear in any output.
const SECRET: &str = "hunter2 of sesame";
/// The content of a file next to the spool that must not be read or changed.
const CANARY: &[u8] = b"{\"recipe\": \"hello\", \"input\": \"the canary\"}";

/// A request that is accepted can be stored, and is read back unchanged. A request that is cut off is never
/// accepted.
pub fn request(bytes: &[u8]) {
    let Ok(parsed) = Request::parse(bytes) else {
        return;
    };
    let stored = parsed.to_bytes();
    let again = Request::parse(&stored).expect("what is stored can be read");
    assert_eq!(again.to_bytes(), stored, "reading changes nothing");
    assert_eq!(text(&again.input), text(&parsed.input));
    assert_eq!(text(&again.config), text(&parsed.config));
    assert_eq!(text(&again.metadata), text(&parsed.metadata));
    let whole = bytes.trim_ascii_end();
    for end in (0..whole.len()).step_by(whole.len() / 64 + 1) {
        assert!(
            Request::parse(&whole[..end]).is_err(),
            "a cut request is accepted: {end}"
        );
    }
}

fn text(json: &Option<Json>) -> Option<&str> {
    json.as_ref().map(Json::text)
}

/// A manifest that is accepted has a command, and no text makes the reader panic.
pub fn manifest(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    match Manifest::parse(&text) {
        Ok(manifest) => assert!(!manifest.command[0].is_empty()),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// A private spool with one recipe, and a folder next to it that must not change.
pub struct DropBox {
    world: tempfile::TempDir,
    spool: Spool,
}

/// A drop: its kind, its name and its content, all from the bytes.
struct Case {
    kind: u8,
    file_name: Vec<u8>,
    content: Vec<u8>,
}

impl Case {
    const SYMLINK: u8 = 1;
    const HARD_LINK: u8 = 2;
    const FOLDER: u8 = 3;
    /// A regular file that is replaced by another one after it was read.
    const REPLACED: u8 = 4;

    fn of(data: &[u8]) -> Option<Case> {
        let (&kind, data) = data.split_first()?;
        let (&length, data) = data.split_first()?;
        let (name, content) = data.split_at_checked(length.into())?;
        let is_plain = !name.is_empty() && !name.iter().any(|b| b"/\0".contains(b));
        if !is_plain || name == b"." || name == b".." {
            return None;
        }
        let mut filled = Vec::new();
        for byte in content {
            match byte {
                b'@' => filled.extend(SECRET.as_bytes()),
                byte => filled.push(*byte),
            }
        }
        Some(Case {
            kind,
            file_name: name.to_owned(),
            content: filled,
        })
    }

    fn is_regular(&self) -> bool {
        !matches!(self.kind, Case::SYMLINK | Case::HARD_LINK | Case::FOLDER)
    }
}

impl DropBox {
    /// Creates the spool in a folder for temporary files.
    pub fn new() -> DropBox {
        let world = tempfile::tempdir().unwrap();
        let outside = world.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("canary.json"), CANARY).unwrap();
        let mut overrides = Overrides::default();
        overrides
            .flags
            .insert("durability".into(), "process".into());
        let spool = Spool::init(&world.path().join("spool"), None, overrides).unwrap();
        let hello = spool.recipes_path().join("hello");
        fs::write(&hello, "#!/bin/sh\n").unwrap();
        let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(&hello, executable).unwrap();
        DropBox { world, spool }
    }

    /// Puts the drop of these bytes into the box. It must become a task with the same input, or be moved to
    /// `rejected/` with a reason, or stay. No content may leak and no other file may change.
    pub fn take(&self, data: &[u8]) {
        let Some(case) = Case::of(data) else {
            return;
        };
        if !self.plant(&case) {
            return;
        }
        let drops = self.spool.in_box().unwrap().drops;
        match drops.as_slice() {
            [] => assert_eq!(
                self.names("incoming"),
                std::slice::from_ref(&case.file_name)
            ),
            [drop] => self.decide(&case, drop),
            more => panic!("there is one drop, but {} are listed", more.len()),
        }
        self.check_that_nothing_else_changed();
        self.empty();
    }

    /// Returns `false` if the file system refuses the name.
    fn plant(&self, case: &Case) -> bool {
        let place = self.place(&case.file_name);
        let canary = self.world.path().join("outside/canary.json");
        let planted = match case.kind {
            Case::SYMLINK => std::os::unix::fs::symlink(canary, place),
            Case::HARD_LINK => fs::hard_link(canary, place),
            Case::FOLDER => fs::create_dir(place),
            _ => fs::write(place, &case.content),
        };
        planted.is_ok()
    }

    fn place(&self, file_name: &[u8]) -> PathBuf {
        let name = std::ffi::OsStr::from_bytes(file_name);
        self.spool.path().join("incoming").join(name)
    }

    fn decide(&self, case: &Case, drop: &DropFile) {
        assert_no_secret(&drop.label());
        match self.spool.look_at(drop).unwrap() {
            Pickup::Gone => panic!("no process took the drop"),
            Pickup::Ready(request, bytes) => self.admit(case, drop, *request, &bytes),
            Pickup::NotYet(why) | Pickup::Refused(why) => self.reject(case, drop, why),
        }
    }

    fn admit(&self, case: &Case, drop: &DropFile, request: Request, bytes: &[u8]) {
        match case.kind {
            Case::HARD_LINK => assert_eq!(bytes, CANARY),
            _ => assert_eq!(bytes, case.content),
        }
        // As the watcher does before it takes a drop.
        if let Err(why) = self.check_recipe(&request) {
            return self.reject(case, drop, why);
        }
        let mut asked = request.clone();
        if case.kind == Case::REPLACED {
            // The other file has the name now, so it becomes the task.
            let later = b"{\"recipe\": \"hello\", \"input\": \"later\"}";
            let other = self.place(b".other");
            fs::write(&other, later).unwrap();
            fs::rename(other, self.place(&case.file_name)).unwrap();
            asked = Request::parse(later).unwrap();
        }
        let rules = Rules {
            check: &|request| Ok(self.check_recipe(request)),
            spent: &self.spool.spent_ids().unwrap(),
        };
        let admitted = self.spool.admit(drop, request.clone(), bytes, rules);
        match admitted.unwrap() {
            Admission::Task(id) => self.check_admitted_task(id, &asked),
            Admission::Rejected(_, why) => self.check_refusal(case, &why),
            other => panic!("a complete request is taken or refused: {other:?}"),
        }
    }

    fn check_recipe(&self, request: &Request) -> Result<(), DropRefusal> {
        let path = RecipePath::new(self.spool.recipes_path(), &[], None);
        let found = path.find(&request.recipe);
        found.map(|_| ()).map_err(|error| DropRefusal {
            reason: error.to_string(),
            hint: "-",
        })
    }

    fn reject(&self, case: &Case, drop: &DropFile, why: DropRefusal) {
        let rules = Rules {
            check: &|request| Ok(self.check_recipe(request)),
            spent: &self.spool.spent_ids().unwrap(),
        };
        if drop.is_folder() {
            // A folder stays where it is.
            self.spool.reject(drop, why, rules).unwrap_err();
            assert_eq!(
                self.names("incoming"),
                std::slice::from_ref(&case.file_name)
            );
            return;
        }
        match self.spool.reject(drop, why, rules).unwrap() {
            Admission::Rejected(_, why) => self.check_refusal(case, &why),
            other => panic!("{other:?}"),
        }
    }

    fn check_admitted_task(&self, id: TaskId, asked: &Request) {
        assert!(self.names("incoming").is_empty());
        let task = self.spool.task(id).unwrap().expect("the task exists");
        let stored = task.request().expect("the stored request can be read");
        assert_eq!(stored.recipe, asked.recipe);
        if asked.input.is_some() {
            assert_eq!(text(&stored.input), text(&asked.input));
        }
        assert_eq!(text(&stored.config), text(&asked.config));
        assert_eq!(text(&stored.metadata), text(&asked.metadata));
        assert!(stored.name.is_some() || stored.label.is_some());
        let view = self.spool.glance(id).unwrap();
        assert!(view.is_some(), "the task can be shown");
    }

    fn check_refusal(&self, case: &Case, why: &DropRefusal) {
        assert!(self.names("incoming").is_empty());
        assert_no_secret(&why.reason);
        let rejected = self.spool.path().join("rejected");
        let names = self.names("rejected");
        assert_eq!(names.len(), 2, "the drop and its reason");
        for name in names {
            let path = rejected.join(std::ffi::OsStr::from_bytes(&name));
            if name.ends_with(b".reason.json") {
                let message = fs::read_to_string(path).unwrap();
                assert_no_secret(&message);
                let reason: Reason = serde_json::from_str(&message).unwrap();
                assert!(!reason.reason.is_empty() && !reason.reason.contains('\n'));
            } else if case.is_regular() && case.kind != Case::REPLACED {
                assert_eq!(fs::read(path).unwrap(), case.content, "nothing is lost");
            }
        }
    }

    fn check_that_nothing_else_changed(&self) {
        assert_eq!(
            names_of(self.world.path()),
            [b"outside".to_vec(), b"spool".to_vec()]
        );
        let outside = self.world.path().join("outside");
        assert_eq!(names_of(&outside), [b"canary.json".to_vec()]);
        assert_eq!(fs::read(outside.join("canary.json")).unwrap(), CANARY);
        assert!(self.names("staging").is_empty());
        assert_eq!(self.names("recipes"), [b"hello".to_vec()]);
    }

    fn names(&self, folder: &str) -> Vec<Vec<u8>> {
        names_of(&self.spool.path().join(folder))
    }

    fn empty(&self) {
        for folder in ["incoming", "tasks", "names", "open", "sessions", "rejected"] {
            for entry in fs::read_dir(self.spool.path().join(folder)).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() && !path.is_symlink() {
                    fs::remove_dir_all(path).unwrap();
                } else {
                    fs::remove_file(path).unwrap();
                }
            }
        }
    }
}

fn assert_no_secret(message: &str) {
    assert!(
        !message.contains(SECRET),
        "repeats the content of the drop: {message}"
    );
}

fn names_of(folder: &Path) -> Vec<Vec<u8>> {
    let mut names: Vec<Vec<u8>> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().as_bytes().to_owned())
        .collect();
    names.sort();
    names
}

/// One task of a spool, with files that are replaced by any bytes.
pub struct DamagedTask {
    drop_box: DropBox,
    id: TaskId,
}

impl DamagedTask {
    const FILES: [&str; 6] = [
        "request.json",
        "status.json",
        "result.json",
        "env.json",
        "attempts/1/run.json",
        "attempts/1/progress",
    ];

    /// Creates a spool with a task that has an attempt.
    pub fn new() -> DamagedTask {
        let drop_box = DropBox::new();
        let id = drop_box.spool.new_id();
        let submission = Submission {
            id,
            request: Request::new("hello".parse().unwrap()),
            origin: None,
            environment: serde_json::Map::new(),
            attachment: None,
        };
        drop_box.spool.submit(vec![submission]).unwrap();
        fs::create_dir(Self::folder(&drop_box, id).join("attempts/1")).unwrap();
        DamagedTask { drop_box, id }
    }

    fn folder(drop_box: &DropBox, id: TaskId) -> PathBuf {
        drop_box.spool.path().join("tasks").join(id.to_string())
    }

    /// The first byte selects the file that the others replace. Then every reader reads it, and none of them
    /// changes it.
    pub fn read(&self, data: &[u8]) {
        let Some((&which, bytes)) = data.split_first() else {
            return;
        };
        let name = Self::FILES[usize::from(which) % Self::FILES.len()];
        let path = Self::folder(&self.drop_box, self.id).join(name);
        let before = fs::read(&path).ok();
        fs::write(&path, bytes).unwrap();
        let spool = &self.drop_box.spool;
        spool
            .glance(self.id)
            .unwrap()
            .expect("the task can be shown");
        let task = spool.task(self.id).unwrap().expect("the task exists");
        task.view().unwrap();
        let _ = (task.request(), task.result(), task.environment());
        let attempt = task.attempt(1).unwrap().expect("the attempt exists");
        attempt.run();
        let lines = ProgressReader::default().lines(&attempt);
        assert!(lines.len() <= 3 * bytes.len());
        assert_eq!(fs::read(&path).unwrap(), bytes, "a reader writes nothing");
        match before {
            Some(before) => fs::write(&path, before).unwrap(),
            None => fs::remove_file(&path).unwrap(),
        }
    }
}
