//! Every string and whole number in a JSON text, however it nests.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use crate::cql::cost;

/// One of them; keys are strings, too.
pub enum Part<'t> {
    Text(&'t str),
    Int(i32),
}

/// Whether `is_meant` holds for any. Nothing is kept of what was read.
///
/// # Errors
/// The text is not JSON, or nests too deeply.
pub fn any(text: &str, mut is_meant: impl FnMut(Part<'_>) -> bool) -> Result<bool, serde_json::Error> {
    cost::steps(text.len());
    let mut found = false;
    let mut deserializer = serde_json::Deserializer::from_str(text);
    Walk(&mut |part| found |= is_meant(part)).deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(found)
}

struct Walk<'w>(&'w mut dyn FnMut(Part<'_>));

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        (self.0)(Part::Text(text));
        Ok(())
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<(), E> {
        if let Ok(number) = i32::try_from(number) {
            (self.0)(Part::Int(number));
        }
        Ok(())
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<(), E> {
        if let Ok(number) = i32::try_from(number) {
            (self.0)(Part::Int(number));
        }
        Ok(())
    }

    fn visit_f64<E: Error>(self, _number: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E: Error>(self, _is: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        while elements.next_element_seed(Walk(&mut *self.0))?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        while entries.next_key_seed(Walk(&mut *self.0))?.is_some() {
            entries.next_value_seed(Walk(&mut *self.0))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_keys_and_numbers_are_found_wherever_they_are() {
        let is_meant = |part: Part<'_>| matches!(part, Part::Text("x\n") | Part::Int(-7));
        for (text, expected) in [
            (r#""x\n""#, Some(true)),
            ("-7", Some(true)),
            (r#"[1, [{"a": ["x\n"]}]]"#, Some(true)),
            (r#"{"x\n": null}"#, Some(true)),
            (r#"{"a": {"b": [true, -7]}}"#, Some(true)),
            (r#"{"a": [1.5, 7, "x", -4294967303, 18446744073709551615, 1e400]}"#, None),
            (r#"{"a": [1.5, 7, "x", -4294967303, 18446744073709551615]}"#, Some(false)),
            ("", None),
            ("{} {}", None),
            ("[1", None),
        ] {
            assert_eq!(any(text, is_meant).ok(), expected, "{text}");
        }
        assert!(any(&"[".repeat(100_000), is_meant).is_err());
    }
}
