//! A JSON value that is kept to the letter: what a person submitted is what the recipe reads.
//!
//! Not a document model: nobody here looks inside. Numbers are not rounded through `f64` and
//! keys are not reordered, because the text itself is kept. Invariant: the text is one JSON value
//! without duplicate keys, numbers out of range, lone surrogates or nesting beyond [`MAX_DEPTH`].

use std::collections::HashSet;
use std::fmt;

use serde::de::{Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// The nesting serde_json allows before it refuses a document; its own default, left on so that a
/// hostile document cannot exhaust the stack.
pub const MAX_DEPTH: usize = 128;

/// One JSON value, as text.
#[derive(Clone, Debug, Serialize)]
#[serde(transparent)]
pub struct Json(Box<RawValue>);

/// Why a text is no acceptable JSON. Never repeats a value of the document: it may be a secret.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct JsonError(String);

impl Json {
    /// Takes a text that is exactly one JSON value, with white space around it allowed.
    pub fn parse(text: &str) -> Result<Json, JsonError> {
        // Only JSON's own white space: any other character around a value belongs to a text.
        let text = text.trim_matches([' ', '\t', '\n', '\r']);
        serde_json::from_str(text).map_err(|error| JsonError(describe_json_error(&error)))
    }

    /// From anything that serializes.
    ///
    /// # Errors
    /// When the value has map keys that are no strings.
    pub fn of<T: Serialize + ?Sized>(value: &T) -> Result<Json, JsonError> {
        let raw = serde_json::value::to_raw_value(value).map_err(|e| JsonError(e.to_string()))?;
        Ok(Json(raw))
    }

    /// A JSON string.
    pub fn string(text: &str) -> Json {
        let quoted = serde_json::Value::from(text).to_string();
        Json(RawValue::from_string(quoted).unwrap_or_else(|_| RawValue::NULL.to_owned()))
    }

    /// The text, as given.
    pub fn text(&self) -> &str {
        self.0.get()
    }

    /// Whether the value is an object.
    pub fn is_object(&self) -> bool {
        self.text().starts_with('{')
    }

    /// Reads the value as something else.
    pub fn to<T: serde::de::DeserializeOwned>(&self) -> Result<T, JsonError> {
        serde_json::from_str(self.text()).map_err(|error| JsonError(describe_json_error(&error)))
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Json, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        // RawValue skips over the text without a depth limit; this second look has one.
        serde_json::from_str::<Checked>(raw.get())
            .map_err(|error| D::Error::custom(describe_json_error(&error)))?;
        Ok(Json(raw))
    }
}

/// Walks a value and keeps nothing of it.
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

/// A parser's complaint without the values it quotes: serde_json repeats what it met (`invalid
/// type: string "hunter2", expected …`), and a reason in `rejected/` is read by other people.
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

/// A file without the byte order mark that Windows programs write before UTF-8 text.
pub fn without_bom(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes)
}

/// What a parser expected, without the words of its programming language.
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
    fn the_text_survives() {
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
    fn what_is_no_strict_json_is_refused() {
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
    fn a_complaint_never_repeats_a_value() {
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
        // The parser says only in words that it quotes a value: each wording is held here.
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
