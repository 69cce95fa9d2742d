//! A JSON value whose text is kept: the recipe reads exactly what was submitted.
//!
//! Not a document model: this file does not give access to parts of a value. Numbers are not rounded through
//! `f64` and keys are not reordered, because the text itself is kept. Invariant: the text is one JSON value
//! without duplicate keys, numbers out of range, lone surrogates or nesting beyond [`MAX_DEPTH`].

use std::collections::HashSet;
use std::fmt;

use serde::de::{Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// The deepest nesting that serde_json accepts. This is its default limit. It is kept so that a hostile
/// document cannot exhaust the stack.
pub const MAX_DEPTH: usize = 128;

/// One JSON value, as text.
#[derive(Clone, Debug, Serialize)]
#[serde(transparent)]
pub struct Json(Box<RawValue>);

/// Why a text is not acceptable JSON. It never repeats a value of the document, which may be a secret.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct JsonError(String);

impl Json {
    /// Parses a text that is exactly one JSON value. White space around it is allowed.
    pub fn parse(text: &str) -> Result<Json, JsonError> {
        // Only JSON's own white space: other white space makes the text invalid.
        let text = text.trim_matches([' ', '\t', '\n', '\r']);
        serde_json::from_str(text).map_err(|error| JsonError(describe_json_error(&error)))
    }

    /// Serializes a value.
    ///
    /// # Errors
    /// The value has map keys that are not strings.
    pub fn of<T: Serialize + ?Sized>(value: &T) -> Result<Json, JsonError> {
        let raw = serde_json::value::to_raw_value(value).map_err(|e| JsonError(e.to_string()))?;
        Ok(Json(raw))
    }

    /// A JSON string.
    pub fn string(text: &str) -> Json {
        let quoted = serde_json::Value::from(text).to_string();
        Json(RawValue::from_string(quoted).unwrap_or_else(|_| RawValue::NULL.to_owned()))
    }

    /// The text, unchanged.
    pub fn text(&self) -> &str {
        self.0.get()
    }

    /// Whether the value is an object.
    pub fn is_object(&self) -> bool {
        self.text().starts_with('{')
    }

    /// Deserializes the value as another type.
    pub fn to<T: serde::de::DeserializeOwned>(&self) -> Result<T, JsonError> {
        serde_json::from_str(self.text()).map_err(|error| JsonError(describe_json_error(&error)))
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Json, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        // RawValue does not limit the depth or check for duplicate keys, so the text is parsed again.
        serde_json::from_str::<Checked>(raw.get())
            .map_err(|error| D::Error::custom(describe_json_error(&error)))?;
        Ok(Json(raw))
    }
}

/// Checks a whole value and keeps nothing of it.
struct Checked;

impl<'de> Deserialize<'de> for Checked {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Checked, D::Error> {
        deserializer.deserialize_any(Checked)
    }
}

impl<'de> Visitor<'de> for Checked {
    type Value = Checked;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Checked, E> {
        Ok(Checked)
    }
    fn visit_i64<E>(self, _: i64) -> Result<Checked, E> {
        Ok(Checked)
    }
    fn visit_u64<E>(self, _: u64) -> Result<Checked, E> {
        Ok(Checked)
    }
    fn visit_f64<E>(self, _: f64) -> Result<Checked, E> {
        Ok(Checked)
    }
    fn visit_str<E>(self, _: &str) -> Result<Checked, E> {
        Ok(Checked)
    }
    fn visit_unit<E>(self) -> Result<Checked, E> {
        Ok(Checked)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Checked, A::Error> {
        while seq.next_element::<Checked>()?.is_some() {}
        Ok(Checked)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Checked, A::Error> {
        let mut seen = HashSet::new();
        while let Some(key) = map.next_key::<String>()? {
            if !seen.insert(key) {
                return Err(A::Error::custom("an object has the same key twice"));
            }
            map.next_value::<Checked>()?;
        }
        Ok(Checked)
    }
}

/// A parser's error message without the values that it quotes. serde_json repeats what it found (`invalid
/// type: string "hunter2", expected …`), but other people can read a reason in `rejected/`.
pub fn describe_json_error(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let quotes_a_value = ["invalid type: ", "invalid value: ", "invalid length "];
    if !quotes_a_value.iter().any(|prefix| text.starts_with(prefix)) {
        return text;
    }
    match text.rfind(", expected ") {
        Some(at) => {
            let expected = at + ", expected ".len();
            format!("expected {}", in_plain_words(&text[expected..]))
        }
        None => format!(
            "unexpected value at line {} column {}",
            error.line(),
            error.column()
        ),
    }
}

/// The bytes of a file without the byte order mark that Windows programs write before UTF-8 text.
pub fn without_bom(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes)
}

/// Describes what a parser expected, without the names of Rust types.
pub fn in_plain_words(expected: &str) -> String {
    let (kind, place) = expected.split_once(" at line ").unwrap_or((expected, ""));
    let kind = match kind {
        "f32" | "f64" => "a number",
        "u32" => "a whole number from 0 to 4294967295",
        "u8" | "u16" | "u64" | "usize" => "a whole number of 0 or more",
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number",
        "a boolean" => "true or false",
        "a sequence" => "a list",
        "a string" | "string or map" => "a text",
        "a map" => "an object",
        _ if kind.starts_with("struct ") => "an object",
        other => other,
    };
    match place {
        "" => kind.to_owned(),
        place => format!("{kind} at line {place}"),
    }
}

#[cfg(test)]
mod tests {
    use serde::de::Unexpected;

    use super::*;

    #[test]
    fn the_text_is_kept() {
        for text in [
            "null",
            "12345678901234567890123",
            "{\"b\": 1.10, \"a\": [ 1 ]}",
            "\"\\u00e9\"",
        ] {
            assert_eq!(Json::parse(text).unwrap().text(), text);
        }
    }

    #[test]
    fn text_that_is_not_strict_json_is_refused() {
        let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
        for text in [
            "",
            "{",
            "{} {}",
            "{\"a\":1,\"a\":2}",
            "[{\"a\":1,\"a\":2}]",
            "1e400",
            "\"\\ud800\"",
            "NaN",
            "{}\0",
            "\u{feff}{}",
            &deep,
        ] {
            assert!(Json::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn an_error_never_repeats_a_value() {
        #[derive(serde::Deserialize, Debug)]
        struct Typed {
            #[expect(dead_code, reason = "only its type matters")]
            n: f64,
        }
        let error = serde_json::from_str::<Typed>("{\"n\": \"hunter2, expected \"}").unwrap_err();
        let message = describe_json_error(&error);
        assert!(!message.contains("hunter2"), "{message}");
        assert!(
            message.starts_with("expected a number at line 1"),
            "{message}"
        );
        // Only the message shows that the parser quotes a value, so each form of message is tested.
        let invalid = [
            serde_json::Error::invalid_type(Unexpected::Str("hunter2"), &"a name"),
            serde_json::Error::invalid_value(Unexpected::Str("hunter2"), &"a name"),
            serde_json::Error::invalid_length(7, &"a name"),
        ];
        for error in invalid {
            assert_eq!(describe_json_error(&error), "expected a name");
        }
    }
}
