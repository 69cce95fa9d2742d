//! What one task of a recipe may have of the machine: memory, processor, processes.
//!
//! Only written down here. The kernel holds a task to it where the task is a unit with a cgroup of
//! its own (`launcher = "systemd"`); the local pool cannot, and `recipe info` says so. Invariant: a
//! limit that was read is one that systemd takes.

use super::error::ManifestError;

/// The least memory a task is given: below this its runner itself could not live.
const LEAST_MEMORY: u64 = 16 << 20;

/// Limits of one task; `None` is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Bytes, runner included.
    pub memory_max: Option<u64>,
    /// Percent of one processor: 200 is two of them.
    pub cpu_quota: Option<u32>,
    /// Processes and threads, the runner's own included.
    pub tasks_max: Option<u32>,
}

impl Limits {
    /// The limits as systemd's properties of a unit; empty when there are none.
    pub fn properties(&self) -> Vec<String> {
        let memory = self.memory_max.map(|bytes| format!("MemoryMax={bytes}"));
        // Else what does not fit goes to disk, and the limit only makes the machine slow.
        let swap = self.memory_max.map(|_| "MemorySwapMax=0".to_owned());
        let cpu = self.cpu_quota.map(|percent| format!("CPUQuota={percent}%"));
        let tasks = self.tasks_max.map(|most| format!("TasksMax={most}"));
        [memory, swap, cpu, tasks].into_iter().flatten().collect()
    }
}

/// Bytes as a number, or as text with K, M, G or T, which are powers of 1024 as in systemd.
pub(super) fn bytes(value: &toml::Value) -> Result<u64, ManifestError> {
    let bytes = match value {
        toml::Value::Integer(n) => u64::try_from(*n).ok(),
        toml::Value::String(text) => bytes_of_text(text),
        _ => None,
    };
    bytes
        .filter(|bytes| (LEAST_MEMORY..1 << 60).contains(bytes))
        .ok_or_else(|| {
            let message =
                "`memory_max` must be bytes or a text as \"512M\" or \"2G\", at least 16M";
            ManifestError(message.into())
        })
}

fn bytes_of_text(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit: u64 = match &text[digits.len()..] {
        "" | "B" => 1,
        "K" => 1 << 10,
        "M" => 1 << 20,
        "G" => 1 << 30,
        "T" => 1 << 40,
        _ => return None,
    };
    let number: f64 = digits.parse().ok()?;
    (0.0..1e18)
        .contains(&number)
        .then_some((number * unit as f64) as u64)
}

/// `150%`: one and a half processors.
pub(super) fn percent(text: &str) -> Result<u32, ManifestError> {
    text.strip_suffix('%')
        .and_then(|number| number.parse().ok())
        .filter(|percent| (1..=100_000).contains(percent))
        .ok_or_else(|| ManifestError("`cpu_quota` must be a text as \"50%\" or \"200%\"".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_as_systemd_reads_them() {
        for (text, expected) in [
            ("16777216", Some(16 << 20)),
            ("512M", Some(512 << 20)),
            ("1.5G", Some(3 << 29)),
            ("16T", Some(16 << 40)),
            ("1M", None),
            ("512m", None),
            ("512MiB", None),
            ("-1G", None),
            ("G", None),
            ("", None),
            ("nan", None),
        ] {
            let read = bytes(&toml::Value::String(text.into())).ok();
            assert_eq!(read, expected, "{text}");
        }
    }

    #[test]
    fn properties_name_what_is_limited_and_nothing_else() {
        assert!(Limits::default().properties().is_empty());
        let limits = Limits {
            memory_max: Some(64 << 20),
            cpu_quota: Some(50),
            tasks_max: Some(9),
        };
        let expected = [
            "MemoryMax=67108864",
            "MemorySwapMax=0",
            "CPUQuota=50%",
            "TasksMax=9",
        ];
        assert_eq!(limits.properties(), expected);
    }
}
