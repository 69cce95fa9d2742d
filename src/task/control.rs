//! Control files: a group user puts one into the drop box to cancel one of their tasks.
//!
//! Not where such a file is or who must own it (`spool/control.rs`). Invariant: a [`Control`] agrees with the
//! name of its file, so that a file that was moved or renamed has no effect.

use serde::{Deserialize, Serialize};

use super::{SPOOL_VERSION, TaskId};

/// What is to be done to a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Cancel it.
    Cancel,
}

impl Action {
    /// The word in the file and at the end of its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Action::Cancel => "cancel",
        }
    }

    fn of_word(word: &str) -> Option<Action> {
        (word == Action::Cancel.as_str()).then_some(Action::Cancel)
    }
}

/// The content of a control file, `{"v":2,"task":"task_…","do":"cancel"}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Control {
    /// Format version, [`SPOOL_VERSION`].
    pub v: u32,
    /// Which task.
    pub task: TaskId,
    /// What to do to it.
    #[serde(rename = "do")]
    pub action: Action,
}

impl Control {
    /// A control file's content.
    pub fn new(task: TaskId, action: Action) -> Control {
        Control {
            v: SPOOL_VERSION,
            task,
            action,
        }
    }

    /// A name for its file, `<task id>.<16 hex digits>.<action>`. The random digits make it unique.
    pub fn file_name(&self, random: u64) -> String {
        format!("{}.{random:016x}.{}", self.task, self.action.as_str())
    }

    /// The control that a file with this name requests. The digits may be missing. `None` for every other
    /// name.
    pub fn of_file_name(name: &[u8]) -> Option<Control> {
        let name = std::str::from_utf8(name).ok()?;
        let (id, rest) = name.strip_suffix(".json").unwrap_or(name).split_once('.')?;
        let word = match rest.split_once('.') {
            Some((digits, word)) if is_random(digits) => word,
            Some(_) => return None,
            None => rest,
        };
        Some(Control::new(id.parse().ok()?, Action::of_word(word)?))
    }

    /// The content of the file: one line.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec(self).unwrap_or_default();
        bytes.push(b'\n');
        bytes
    }

    /// Whether a file contains exactly this control and nothing else.
    pub fn is_content(&self, bytes: &[u8]) -> bool {
        serde_json::from_slice::<Control>(bytes).is_ok_and(|read| read == *self)
            && bytes.trim_ascii_start().starts_with(b"{")
    }
}

fn is_random(digits: &str) -> bool {
    digits.len() == 16 && digits.bytes().all(|b| b.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "task_01m85x906pb06zhxqqsktssv9k";

    #[test]
    fn the_name_gives_the_task_and_the_action() {
        let control = Control::of_file_name(format!("{ID}.cancel").as_bytes()).unwrap();
        assert_eq!(control, Control::new(ID.parse().unwrap(), Action::Cancel));
        let name = control.file_name(0x2a);
        assert_eq!(name, format!("{ID}.000000000000002a.cancel"));
        assert_eq!(Control::of_file_name(name.as_bytes()), Some(control));
        for name in [
            format!("{ID}.json"),
            format!("{ID}.cance"),
            format!("{ID}.cancel.x"),
            format!("{ID}.2a.cancel"),
            format!(".{ID}.cancel"),
            "x.cancel".to_owned(),
            "cancel".to_owned(),
        ] {
            assert_eq!(Control::of_file_name(name.as_bytes()), None, "{name}");
        }
    }

    #[test]
    fn only_the_exact_content_is_accepted() {
        let control = Control::new(ID.parse().unwrap(), Action::Cancel);
        assert!(control.is_content(&control.to_bytes()));
        let spaced = format!("{{ \"do\": \"cancel\", \"task\": \"{ID}\", \"v\": 2 }}\n");
        assert!(control.is_content(spaced.as_bytes()));
        for content in [
            String::new(),
            "{}".to_owned(),
            format!("{{\"v\":1,\"task\":\"{ID}\",\"do\":\"cancel\"}}"),
            format!("{{\"v\":2,\"task\":\"{ID}\",\"do\":\"cancel\",\"x\":1}}"),
            format!("{{\"v\":2,\"task\":\"{ID}\",\"do\":\"hold\"}}"),
            format!("{{\"v\":2,\"task\":\"{ID}\",\"do\":\"cancel\"}} x"),
            format!("[2,\"{ID}\",\"cancel\"]"),
            format!(
                "{{\"v\":2,\"task\":\"{}\",\"do\":\"cancel\"}}",
                ID.replace('k', "j")
            ),
        ] {
            assert!(!control.is_content(content.as_bytes()), "{content}");
        }
    }
}
