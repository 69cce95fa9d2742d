//! On which field of an object a strict parser stopped because it knows none of that name.
//!
//! serde says it in words only, and nothing may hang on words. Not the message (`request.rs`). Invariant: a field is named
//! only where the parser came to it before it met anything else that is wrong.

use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::value::{MapAccessDeserializer, StringDeserializer};
use serde::de::{DeserializeSeed, Deserializer, MapAccess, Visitor};

/// Reads a text as `T`, whose fields these are and which denies all others; the field at which that ended, where it was
/// for its name. For texts that were refused: it reads them once more.
pub(super) fn unknown_field<'de, T: Deserialize<'de>>(
    text: &'de str,
    fields: &[&str],
) -> Option<String> {
    let mut unknown = None;
    let object = Object::<T> {
        fields,
        unknown: &mut unknown,
        kind: PhantomData,
    };
    // What is wrong is known; here it only matters how far the parser comes.
    let _ = serde_json::Deserializer::from_str(text).deserialize_map(object);
    unknown
}

struct Object<'a, T> {
    fields: &'a [&'a str],
    unknown: &'a mut Option<String>,
    kind: PhantomData<T>,
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for Object<'_, T> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        let keys = Keys {
            map,
            fields: self.fields,
            unknown: self.unknown,
        };
        T::deserialize(MapAccessDeserializer::new(keys)).map(drop)
    }
}

/// An object whose keys are noted as they are handed on.
struct Keys<'a, A> {
    map: A,
    fields: &'a [&'a str],
    unknown: &'a mut Option<String>,
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Keys<'_, A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, A::Error> {
        let Some(key) = self.map.next_key::<String>()? else {
            return Ok(None);
        };
        if !self.fields.contains(&key.as_str()) {
            *self.unknown = Some(key.clone());
        }
        seed.deserialize(StringDeserializer::new(key)).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, A::Error> {
        self.map.next_value_seed(seed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Typed {
        #[expect(dead_code, reason = "only its name matters")]
        n: u32,
    }

    #[test]
    fn a_field_is_named_only_where_it_is_the_reason() {
        for (text, expected) in [
            ("{\"m\": 1}", Some("m")),
            ("{\"n\": 1, \"m\": 1}", Some("m")),
            ("{\"n\": \"x\", \"m\": 1}", None),
            ("{\"n\": 1, \"n\": 1, \"m\": 1}", None),
            ("{\"unknown field `m`\": 1}", Some("unknown field `m`")),
            ("{\"n\": 1}", None),
            ("{}", None),
            ("[1]", None),
            ("{\"n\"", None),
        ] {
            let found = unknown_field::<Typed>(text, &["n"]);
            assert_eq!(found.as_deref(), expected, "{text}");
        }
    }
}
