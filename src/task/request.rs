//! The request of a task: `request.json`, as dropped, as submitted and as stored.
//!
//! Not the status (`status.rs`). A request names a recipe and never contains a command. A drop, a submission
//! from the command line and a line of a batch are all parsed by [`Request::parse`], so that the same
//! mistakes are refused everywhere. Invariant: a request that [`Request::parse`] accepts can be stored, and a
//! stored request can be dropped again.

use serde::{Deserialize, Serialize};

use super::unknown_field::unknown_field;
use super::{
    FORMAT_VERSION, Json, Name, TIMEOUT_RANGE, describe_json_error, escape_label, is_timeout,
    is_typo_of, seconds_or_null, without_bom,
};

/// The largest request that is read, in bytes (docs/hazards.md, 7).
pub const MAX_REQUEST_BYTES: usize = 1024 * 1024;

/// The largest `config` of a request, in bytes. The recipe gets it in one environment variable, for which the
/// kernel allows 128 KiB. The difference is left for the recipe's own defaults.
const MAX_CONFIG_BYTES: usize = 100_000;

/// Fields that a later version may define. A request with one of them is refused, because the field would
/// have no effect.
const RESERVED: [&str; 5] = ["key", "retries", "priority", "after", "not_before"];

/// The fields of a request, as written in a file.
const FIELDS: [&str; 9] = [
    "v",
    "recipe",
    "input",
    "config",
    "session_id",
    "timeout_sec",
    "name",
    "label",
    "metadata",
];

/// The fields of `request.json`. Only `recipe` must be given.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// The format version. [`FORMAT_VERSION`] if absent.
    #[serde(default = "current_version")]
    pub v: u32,
    /// The recipe to run.
    pub recipe: Name,
    /// What the recipe reads on stdin: any JSON value, including `null`. `{}` if absent.
    #[serde(
        default,
        deserialize_with = "present",
        skip_serializing_if = "Option::is_none"
    )]
    pub input: Option<Json>,
    /// A JSON object. Its values override those of the recipe's `[config]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<Json>,
    /// The session. Tasks of one session run one after another. A stored request always has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_id: Option<Name>,
    /// How many seconds the recipe may run. If absent, the recipe's timeout applies, then the spool's.
    #[serde(
        default,
        deserialize_with = "seconds_or_null",
        skip_serializing_if = "Option::is_none"
    )]
    pub timeout_sec: Option<f64>,
    /// The task's name. `names/<name>` leads to the newest task with that name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Name>,
    /// Shown if there is no name: text for people, never a path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// The submitter's own notes: a JSON object that is kept and shown, but never interpreted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Json>,
}

/// A request as stored in `tasks/<id>/request.json`: the same type, with the defaults filled in.
pub type StoredRequest = Request;

fn current_version() -> u32 {
    FORMAT_VERSION
}

/// Reads a field that is present, even if its value is `null`. Without this, serde treats `null` as absent.
fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Json>, D::Error> {
    Json::deserialize(deserializer).map(Some)
}

/// Why a request is refused. [`RequestError::Incomplete`] may be a file that is still being written. All
/// other errors are final.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// More bytes than [`MAX_REQUEST_BYTES`].
    #[error("the request is larger than {MAX_REQUEST_BYTES} bytes")]
    TooLarge,
    /// The text ends before the JSON value is complete.
    #[error("the JSON text ends too early ({0})")]
    Incomplete(String),
    /// Not JSON.
    #[error("not valid JSON: {0}")]
    Syntax(String),
    /// UTF-16 text.
    #[error("the request is UTF-16 text: save it as UTF-8")]
    Utf16,
    /// JSON, but not an object with the fields and types of a request.
    #[error("not a request: {0}")]
    Shape(String),
    /// JSON with an unknown field. The message repeats the field only if it is similar to a known one.
    #[error("not a request: {0}")]
    UnknownField(String),
    /// A field that is reserved for a later version.
    #[error("the field `{0}` is reserved for a later version and has no effect yet: leave it out")]
    Reserved(&'static str),
    /// A request of a later version.
    #[error("the request has format version {0}, and this program knows only {FORMAT_VERSION}")]
    Newer(u32),
}

impl Request {
    /// A request for `recipe` without any other field.
    pub fn new(recipe: Name) -> Request {
        Request {
            v: FORMAT_VERSION,
            recipe,
            input: None,
            config: None,
            session_id: None,
            timeout_sec: None,
            name: None,
            label: None,
            metadata: None,
        }
    }

    /// Parses one request from the bytes of a file or a line. The bytes must be one JSON object with nothing
    /// after it, no unknown field and no duplicate key.
    pub fn parse(bytes: &[u8]) -> Result<Request, RequestError> {
        if bytes.len() > MAX_REQUEST_BYTES {
            return Err(RequestError::TooLarge);
        }
        let bytes = without_bom(bytes);
        if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") {
            return Err(RequestError::Utf16);
        }
        let text = match std::str::from_utf8(bytes) {
            Ok(text) => text,
            // The file may end inside a character because it is still being written.
            Err(error) if error.error_len().is_none() => {
                return Err(RequestError::Incomplete("inside a UTF-8 character".into()));
            }
            Err(error) => {
                let at = error.valid_up_to();
                return Err(RequestError::Syntax(format!("not UTF-8 at byte {at}")));
            }
        };
        // The version is read first, because a newer request may have other fields.
        #[derive(Deserialize)]
        struct Version {
            v: Option<u32>,
        }
        if let Ok(Version { v: Some(v) }) = serde_json::from_str(text)
            && v != FORMAT_VERSION
        {
            return Err(RequestError::Newer(v));
        }
        let request: Request = serde_json::from_str(text).map_err(|e| refuse(text, &e))?;
        // serde would also read the fields of a struct from an array.
        if !is_object(text) {
            return Err(not_an_object());
        }
        request.check()?;
        Ok(request)
    }

    /// Checks the rules that the types do not enforce. Also for requests that were built and not parsed.
    pub fn check(&self) -> Result<(), RequestError> {
        for (field, value) in [("config", &self.config), ("metadata", &self.metadata)] {
            if value.as_ref().is_some_and(|json| !json.is_object()) {
                return Err(RequestError::Shape(format!(
                    "`{field}` must be a JSON object"
                )));
            }
        }
        if self
            .config
            .as_ref()
            .is_some_and(|json| json.text().len() > MAX_CONFIG_BYTES)
        {
            return Err(RequestError::Shape(format!(
                "`config` may have at most {MAX_CONFIG_BYTES} bytes, because it is passed in an environment variable: put the data into `input`"
            )));
        }
        if self.timeout_sec.is_some_and(|seconds| !is_timeout(seconds)) {
            return Err(RequestError::Shape(format!(
                "`timeout_sec` {TIMEOUT_RANGE}"
            )));
        }
        if self
            .name
            .as_ref()
            .is_some_and(|name| !name.is_allowed_for_a_task())
        {
            return Err(RequestError::Shape(
                "`name` may not be `last`, start with `task_`, or look like a part of a task id (8 to 26 characters of 0-9 a-z without i, l, o, u, with a digit before a letter)".into(),
            ));
        }
        Ok(())
    }

    /// The bytes of the file: indented for people, with one newline at the end.
    pub fn to_bytes(&self) -> Vec<u8> {
        super::status::to_pretty(self)
    }
}

/// Whether a JSON text is an object.
fn is_object(text: &str) -> bool {
    text.trim_start().starts_with('{')
}

fn not_an_object() -> RequestError {
    RequestError::Shape("expected one JSON object".into())
}

fn refuse(text: &str, error: &serde_json::Error) -> RequestError {
    use serde_json::error::Category;
    // An error of the category `Data` may contain a key as long as the file, so its text is created last.
    match error.classify() {
        Category::Eof | Category::Io => RequestError::Incomplete(describe_json_error(error)),
        Category::Syntax => RequestError::Syntax(describe_json_error(error)),
        Category::Data => {
            if !is_object(text) {
                return not_an_object();
            }
            let Some(field) = unknown_field::<Request>(text, &FIELDS) else {
                return RequestError::Shape(describe_json_error(error));
            };
            match RESERVED.into_iter().find(|word| *word == field) {
                Some(word) => RequestError::Reserved(word),
                None => RequestError::UnknownField(describe_unknown(&field, error)),
            }
        }
    }
}

/// The message for an unknown field. It repeats the field only if it is similar to a known one: keys of a
/// wrong file can be secrets too, and other people can read the reason.
fn describe_unknown(field: &str, error: &serde_json::Error) -> String {
    // `timeout` and `session` are the names of flags, and the beginnings of fields.
    let is_beginning = |known: &str| field.len() > 2 && known.starts_with(field);
    let meant = FIELDS
        .iter()
        .find(|known| is_typo_of(field, known) || is_beginning(known));
    let written = meant.map_or(String::new(), |known| {
        let field = escape_label(field.as_bytes());
        format!(" `{field}` (did you mean `{known}`?)")
    });
    let expected = FIELDS.map(|known| format!("`{known}`")).join(", ");
    format!(
        "unknown field{written}, expected one of {expected} at line {} column {}",
        error.line(),
        error.column()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_request_with_one_field_and_one_with_all_fields_are_parsed() {
        let small = Request::parse(b"{\"recipe\":\"hello\"}").unwrap();
        assert_eq!((small.v, small.recipe.as_str()), (1, "hello"));
        let full =
            br#" {"v":1,"recipe":"r","input":[1,{"a":null}],"config":{"k":1},"session_id":"s_1",
            "timeout_sec":0.5,"name":"n","label":"l","metadata":{"who":"me"}} "#;
        let full = Request::parse(full).unwrap();
        assert_eq!(full.input.as_ref().unwrap().text(), "[1,{\"a\":null}]");
        assert_eq!(full.timeout_sec, Some(0.5));
        let again = Request::parse(&full.to_bytes()).unwrap();
        assert_eq!(again.to_bytes(), full.to_bytes());
    }

    /// The time of one processor that this thread needs, which does not depend on other processes.
    fn cost(text: &str) -> std::time::Duration {
        use rustix::time::{ClockId, clock_gettime};
        let now = || {
            let now = clock_gettime(ClockId::ThreadCPUTime);
            std::time::Duration::try_from(now).unwrap()
        };
        let start = now();
        let _ = Request::parse(text.as_bytes());
        now() - start
    }

    #[test]
    fn a_key_as_long_as_the_file_is_not_compared_with_the_fields() {
        let long = "input".repeat(200_000);
        let known = cost(&format!("{{\"recipe\":\"h\",\"input\":\"{long}\"}}"));
        let unknown = cost(&format!("{{\"recipe\":\"h\",\"{long}\":1}}"));
        assert!(unknown < 20 * known, "{unknown:?} {known:?}");
    }

    #[test]
    fn a_byte_order_mark_is_not_part_of_a_request() {
        let request = Request::parse(b"\xef\xbb\xbf{\"recipe\":\"hello\"}\r\n").unwrap();
        assert_eq!(request.recipe.as_str(), "hello");
    }

    #[test]
    fn an_input_of_null_is_kept() {
        let request = Request::parse(b"{\"recipe\":\"h\",\"input\":null}").unwrap();
        assert_eq!(request.input.as_ref().map(Json::text), Some("null"));
        let again = Request::parse(&request.to_bytes()).unwrap();
        assert_eq!(again.input.as_ref().map(Json::text), Some("null"));
    }

    #[test]
    fn each_refusal_names_its_reason() {
        let cases: &[(&[u8], &str)] = &[
            (b"", "ends too early"),
            (b"{\"recipe\":\"he", "ends too early"),
            (b"{\"recipe\":\"h\xc3", "ends too early"),
            (b"{\"recipe\":\"h\xff\"}", "not UTF-8"),
            (b"[]", "expected one JSON object"),
            (b"\"x\"", "expected one JSON object"),
            // Found by fuzzing: the fields of a request, in an array.
            (b"[4  ,\"i\"]", "expected one JSON object"),
            (b"[1, \"h\", {}]", "expected one JSON object"),
            (b"{\"recipe\":\"h\"} x", "trailing"),
            (b"{\"recipe\":\"h\"}\0", "trailing"),
            (b"\xff\xfe{\0}\0", "UTF-16"),
            (b"\xef\xbb\xbf", "ends too early"),
            (b"\xef\xbb", "ends too early"),
            (b"{}", "missing field `recipe`"),
            (b"hello", "not valid JSON"),
            (b"{\"recipe\":\"h\",\"inptu\":1}", "unknown field `inptu`"),
            (b"{\"recipe\":\"h\",\"recipe\":\"h\"}", "duplicate field"),
            (
                b"{\"recipe\":\"h\",\"input\":{\"a\":1,\"a\":1}}",
                "same key twice",
            ),
            (b"{\"recipe\":\"../h\"}", "a name has"),
            (b"{\"recipe\":\"h\",\"retries\":3}", "reserved"),
            (b"{\"recipe\":\"h\",\"config\":[]}", "must be a JSON object"),
            (b"{\"recipe\":\"h\",\"timeout_sec\":0}", "timeout_sec"),
            (b"{\"recipe\":\"h\",\"timeout_sec\":-1}", "timeout_sec"),
            (b"{\"recipe\":\"h\",\"timeout_sec\":1e300}", "timeout_sec"),
            (b"{\"recipe\":\"h\",\"name\":\"last\"}", "may not be `last`"),
            (
                b"{\"v\":2,\"recipe\":\"h\",\"shiny\":1}",
                "format version 2",
            ),
        ];
        for (bytes, expected) in cases {
            let error = Request::parse(bytes).unwrap_err().to_string();
            let shown = String::from_utf8_lossy(bytes);
            assert!(
                error.contains(expected),
                "{shown} gave {error:?}, not {expected:?}"
            );
        }
    }

    #[test]
    fn an_unknown_key_is_repeated_only_if_it_is_a_typo() {
        for (key, is_reported) in [
            ("inptu", true),
            ("Recipe", true),
            ("timeout_secs", true),
            ("session-id", true),
            // The beginnings of fields, and the names of flags.
            ("timeout", true),
            ("session", true),
            ("hunter2", false),
            ("x", false),
            ("x`, expected one of `y", false),
            ("a\\nb", false),
            // Found by fuzzing: a typo can be a line break.
            ("name\\n", true),
        ] {
            let text = format!("{{\"recipe\":\"h\",\"{key}\":1}}");
            let message = Request::parse(text.as_bytes()).unwrap_err().to_string();
            assert_eq!(
                message.contains(&format!("`{key}`")),
                is_reported,
                "{message}"
            );
            assert!(message.contains("unknown field"), "{message}");
            assert!(
                message.contains("expected one of `v`") && message.contains("line 1"),
                "{message}"
            );
            assert!(!message.contains('\n'), "{message}");
        }
    }

    // The fields are listed in `FIELDS` and in the struct. The parser's message shows that both lists agree.
    #[test]
    fn an_unknown_field_is_described_as_the_parser_does() {
        let text = "{\"recipe\":\"h\",\n \"inptu\":1}";
        let theirs = serde_json::from_str::<Request>(text).unwrap_err();
        let ours = Request::parse(text.as_bytes()).unwrap_err();
        assert!(matches!(ours, RequestError::UnknownField(_)));
        let ours = ours.to_string().replace(" (did you mean `input`?)", "");
        assert_eq!(ours, format!("not a request: {theirs}"));
    }

    // Found by fuzzing: a parser that rounds gave a different number each time the request was stored.
    #[test]
    fn a_timeout_is_stored_to_the_last_digit() {
        let text = b"{\"recipe\":\"hello\",\"timeout_sec\":123.456789354210678}";
        let stored = Request::parse(text).unwrap().to_bytes();
        assert_eq!(Request::parse(&stored).unwrap().to_bytes(), stored);
    }

    #[test]
    fn size_and_depth_are_limited() {
        let huge = format!(
            "{{\"recipe\":\"h\",\"input\":\"{}\"}}",
            "x".repeat(MAX_REQUEST_BYTES)
        );
        assert!(matches!(
            Request::parse(huge.as_bytes()),
            Err(RequestError::TooLarge)
        ));
        let deep = format!(
            "{{\"recipe\":\"h\",\"input\":{}{}}}",
            "[".repeat(9999),
            "]".repeat(9999)
        );
        assert!(Request::parse(deep.as_bytes()).is_err());
    }

    proptest! {
        // The drop box relies on this: an incomplete file is never read as a complete request.
        #[test]
        fn no_strict_prefix_of_a_request_is_a_request(text in "[a-z]{1,8}", n in 0i64..9999) {
            let whole = format!("{{\"recipe\":\"{text}\",\"input\":{{\"n\":{n},\"é\":[1,2]}}}}");
            for end in 0..whole.len() {
                let prefix = &whole.as_bytes()[..end];
                let is_incomplete = matches!(Request::parse(prefix), Err(RequestError::Incomplete(_)));
                prop_assert!(is_incomplete, "{}", String::from_utf8_lossy(prefix));
            }
        }

        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            let _ = Request::parse(&bytes);
        }
    }
}
