//! Finds the unknown field at which a strict parser stopped.
//!
//! serde names the field only in its message, and no decision may depend on the text of a message. Not the
//! message itself (`request.rs`). Invariant: a field is returned only if the parser found nothing wrong
//! before it.

use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::value::{MapAccessDeserializer, StringDeserializer};
use serde::de::{DeserializeSeed, Deserializer, MapAccess, Visitor};

/// Parses a text as `T`, a type with these `fields` that denies all others. Returns the unknown field at
/// which the parser stopped, if there is one. Used only for texts that were refused, because it parses them
/// again.
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
    // The caller has the error already. Only the field at which the parser stops matters here.
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

/// Passes on the keys of an object and records an unknown one.
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
    fn a_field_is_named_only_if_it_is_the_reason() {
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
