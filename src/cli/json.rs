//! The JSON output that scripts rely on (CLI-CONTRACT).
//!
//! Not the stored form, which may change with its version. Invariant: keys are only added, never changed.

use agentspool::client::{Client, TaskView};
use agentspool::task::{Condition, Json, Name, OutputEncoding, Status, TaskError, Timestamp};
use serde::Serialize;
use serde::ser::Error as _;
use serde_json::value::RawValue;

/// A task, as `status --json` prints it and as each row of `list --json`.
#[derive(Serialize)]
pub(crate) struct TaskJson {
    pub id: Option<String>,
    pub task_id: Option<String>,
    pub name: Option<Name>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    pub recipe: Option<Name>,
    pub status: Status,
    pub progress: f64,
    pub message: Option<String>,
    pub session_id: Option<Name>,
    pub result: Option<Json>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_file: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_encoding: Option<OutputEncoding>,
    pub error: Option<TaskError>,
    pub created_at: Option<Timestamp>,
    pub started_at: Option<Timestamp>,
    pub completed_at: Option<Timestamp>,
    pub duration: Option<f64>,
    pub duration_seconds: Option<f64>,
    pub attempt: u32,
    pub exit_code: Option<i32>,
    pub signal: Option<i32>,
    pub condition: Option<Condition>,
    pub metadata: Option<Json>,
    /// Absent if the spool's owner submitted the task; null if the submitter is unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub submitter: Option<Option<u32>>,
    #[serde(skip_serializing_if = "is_zero")]
    pub log_bytes_dropped: u64,
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

impl TaskJson {
    pub fn of(client: &Client, view: &TaskView) -> TaskJson {
        let status = &view.status;
        let result = view.result.as_ref();
        TaskJson {
            id: Some(status.task_id.to_string()),
            task_id: Some(status.task_id.to_string()),
            name: status.name.clone(),
            label: status.label.clone(),
            recipe: status.recipe.clone(),
            status: status.status,
            progress: status.progress,
            message: status.message.clone(),
            session_id: status.session_id.clone(),
            result: result.and_then(|result| result.output.clone()),
            output_file: result.and_then(|result| result.output_file.clone()),
            output_encoding: result.and_then(|result| result.output_encoding),
            error: status.error.clone(),
            created_at: Some(status.created_at),
            started_at: status.started_at,
            completed_at: status.completed_at,
            duration: status.duration_seconds,
            duration_seconds: status.duration_seconds,
            attempt: status.attempt,
            exit_code: status.exit_code,
            signal: status.signal,
            condition: status.condition,
            metadata: status.metadata.clone(),
            submitter: client.origin(status.task_id).map(|origin| origin.uid),
            log_bytes_dropped: status.log_bytes_dropped,
        }
    }

    /// A drop that is not a task yet.
    pub fn of_drop(name: &Name) -> TaskJson {
        TaskJson {
            id: None,
            task_id: None,
            name: Some(name.clone()),
            label: None,
            recipe: None,
            status: Status::Pending,
            progress: 0.0,
            message: None,
            session_id: None,
            result: None,
            output_file: None,
            output_encoding: None,
            error: None,
            created_at: None,
            started_at: None,
            completed_at: None,
            duration: None,
            duration_seconds: None,
            attempt: 0,
            exit_code: None,
            signal: None,
            condition: None,
            metadata: None,
            submitter: None,
            log_bytes_dropped: 0,
        }
    }
}

/// `{"ok": true}` together with the keys of `T`.
///
/// Joined as text: converting to a [`serde_json::Value`] would round the numbers of an output.
pub(crate) struct Ok<T>(pub T);

impl<T: Serialize> Serialize for Ok<T> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let fields = serde_json::to_string(&self.0).map_err(S::Error::custom)?;
        let fields = fields.strip_prefix('{').unwrap_or("}");
        let comma = if fields == "}" { "" } else { "," };
        let object = RawValue::from_string(format!("{{\"ok\":true{comma}{fields}"));
        object.map_err(S::Error::custom)?.serialize(serializer)
    }
}
