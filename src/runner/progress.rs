//! Parses the lines of a recipe's progress file.
//!
//! Two forms: `45 Reading pages` (percent) and `{"progress": 0.45, "message": "…", "metrics": {…}}`, in
//! which every key is optional. Does not read the file (`spool/`). Other lines are ignored; they do not
//! fail the task. Invariant: progress is from 0 to 1.

use serde::Deserialize;
use serde_json::{Map, Value};

/// The longest message that is shown.
const MAX_MESSAGE: usize = 200;

/// The content of one line. A value that is absent stays as it was.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Report {
    pub progress: Option<f64>,
    pub message: Option<String>,
    pub metrics: Option<Map<String, Value>>,
}

/// The combined content of many lines.
#[derive(Debug, Default)]
pub(super) struct Latest {
    pub progress: Option<f64>,
    pub message: Option<String>,
    /// All metrics, the oldest first.
    pub metrics: Vec<Map<String, Value>>,
}

/// Reads lines from the last one backwards. Only the latest progress and message count, so older lines
/// are parsed only if they may contain metrics: a recipe can write megabytes of lines.
pub(super) fn latest(lines: &str) -> Latest {
    let mut latest = Latest::default();
    let may_have_metrics = lines.contains("metrics");
    for line in lines.lines().rev() {
        let is_known = latest.progress.is_some() && latest.message.is_some();
        if is_known && !may_have_metrics {
            break;
        }
        if is_known && !line.contains("metrics") {
            continue;
        }
        // A hole punched before a line leaves NUL characters in its block.
        let Some(report) = parse(line.trim_matches('\0')) else {
            continue;
        };
        latest.progress = latest.progress.or(report.progress);
        latest.message = latest.message.or(report.message);
        latest.metrics.extend(report.metrics);
    }
    latest.metrics.reverse();
    latest
}

#[derive(Deserialize)]
struct Line {
    progress: Option<f64>,
    message: Option<String>,
    metrics: Option<Map<String, Value>>,
}

/// Parses a line. `None` if it contains nothing usable.
pub(super) fn parse(line: &str) -> Option<Report> {
    let line = line.trim();
    let (progress, message, metrics) = if line.starts_with('{') {
        let line: Line = serde_json::from_str(line).ok()?;
        (line.progress, line.message, line.metrics)
    } else {
        let (number, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let percent: f64 = number.trim_end_matches('%').parse().ok()?;
        if !percent.is_finite() {
            return None;
        }
        let message = rest.trim();
        (
            Some(percent / 100.0),
            (!message.is_empty()).then(|| message.to_owned()),
            None,
        )
    };
    let progress = progress
        .filter(|p| p.is_finite())
        .map(|p| p.clamp(0.0, 1.0));
    let message = message.map(|text| clean(&text));
    let has_content = progress.is_some() || message.is_some() || metrics.is_some();
    has_content.then_some(Report {
        progress,
        message,
        metrics,
    })
}

/// One line without control characters, so that it cannot change how a list is displayed.
fn clean(text: &str) -> String {
    let printable = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    printable
        .take(MAX_MESSAGE)
        .collect::<String>()
        .trim()
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_read_and_other_lines_are_ignored() {
        for (line, progress, message) in [
            ("45 Reading pages", Some(0.45), Some("Reading pages")),
            ("45", Some(0.45), None),
            ("45%", Some(0.45), None),
            ("12.5  half", Some(0.125), Some("half")),
            ("250 too much", Some(1.0), Some("too much")),
            ("-3", Some(0.0), None),
            (
                r#"{"progress": 0.45, "message": "m"}"#,
                Some(0.45),
                Some("m"),
            ),
            (r#"{"message": "only"}"#, None, Some("only")),
        ] {
            let report = parse(line).unwrap();
            assert_eq!(
                (report.progress, report.message.as_deref()),
                (progress, message),
                "{line}"
            );
        }
        for line in ["", "hello", "{", "{}", "NaN x", "[1]"] {
            let report = parse(line);
            assert!(report.is_none(), "{line} gave {report:?}");
        }
    }

    #[test]
    fn metrics_are_read_with_and_without_progress() {
        let metrics = |line: &str| parse(line).and_then(|report| report.metrics);
        for line in [
            r#"{"metrics": {"tokens": 12}}"#,
            r#"{"progress": 1, "metrics": {"tokens": 12}}"#,
        ] {
            assert_eq!(metrics(line).unwrap()["tokens"], 12, "{line}");
        }
        assert!(metrics(r#"{"metrics": 12}"#).is_none());
    }

    #[test]
    fn the_latest_of_many_lines_counts() {
        let latest = latest(
            "10 first\n{\"metrics\": {\"a\": 1}}\nnonsense\n20\n{\"message\": \"m\", \"metrics\": {\"a\": 2}}\n\0\0 30\n",
        );
        assert_eq!(
            (latest.progress, latest.message.as_deref()),
            (Some(0.3), Some("m"))
        );
        let values: Vec<&Value> = latest.metrics.iter().map(|metrics| &metrics["a"]).collect();
        assert_eq!(values, [1, 2]);
    }

    #[test]
    fn control_characters_are_removed_from_a_message() {
        let report = parse("1 \u{1b}[31mred\u{7}").unwrap();
        assert_eq!(report.message.as_deref(), Some("[31mred"));
    }
}
