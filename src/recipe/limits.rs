//! The limits of one task of a recipe: memory, processor time and processes.
//!
//! Not their enforcement: the kernel enforces them if the task is a unit with its own cgroup (`launcher =
//! "systemd"`). The local pool cannot enforce them, and `recipe info` shows this. Invariant: systemd accepts
//! every limit that was read.

use super::error::ManifestError;
use crate::task::parse_size;

/// The smallest memory limit of a task in bytes. The task's runner could not run with less.
const LEAST_MEMORY: u64 = 16 << 20;

/// The limits of one task. `None` means no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Memory in bytes, including the runner.
    pub memory_max: Option<u64>,
    /// Processor time in percent of one processor: 200 is two processors.
    pub cpu_quota: Option<u32>,
    /// The number of processes and threads, including those of the runner.
    pub tasks_max: Option<u32>,
}

impl Limits {
    /// The limits as properties of a systemd unit. Empty if there is no limit.
    pub fn properties(&self) -> Vec<String> {
        let memory = self.memory_max.map(|bytes| format!("MemoryMax={bytes}"));
        // With swap, a task above its limit would not end but make the machine slow.
        let swap = self.memory_max.map(|_| "MemorySwapMax=0".to_owned());
        let cpu = self.cpu_quota.map(|percent| format!("CPUQuota={percent}%"));
        let tasks = self.tasks_max.map(|most| format!("TasksMax={most}"));
        [memory, swap, cpu, tasks].into_iter().flatten().collect()
    }
}

/// Parses bytes: a number, or a text with K, M, G or T. They are powers of 1024, as in systemd.
pub(super) fn bytes(value: &toml::Value) -> Result<u64, ManifestError> {
    let bytes = match value {
        toml::Value::Integer(n) => u64::try_from(*n).ok(),
        toml::Value::String(text) => parse_size(text),
        _ => None,
    };
    bytes
        .filter(|bytes| (LEAST_MEMORY..1 << 60).contains(bytes))
        .ok_or_else(|| {
            let message =
                "`memory_max` must be a number of bytes or a text such as \"512M\" or \"2G\", and at least 16M";
            ManifestError(message.into())
        })
}

/// Parses a quota: `150%` is one and a half processors.
pub(super) fn percent(text: &str) -> Result<u32, ManifestError> {
    text.strip_suffix('%')
        .and_then(|number| number.parse().ok())
        .filter(|percent| (1..=100_000).contains(percent))
        .ok_or_else(|| {
            ManifestError("`cpu_quota` must be a text such as \"50%\" or \"200%\"".into())
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_parsed_as_systemd_parses_them() {
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
    fn only_limits_that_are_set_become_properties() {
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
