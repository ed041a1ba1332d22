//! Records as JSON, twice: plainly, for webhooks, files and people, and exactly, for spill files.
//!
//! Plain JSON writes bytes as base64 text and numbers that JSON does not have (NaN, the infinities) as null.
//! Exact JSON reads back as the very same value: what plain JSON cannot tell apart is an object with one key,
//! `{"b": base64}` for bytes, `{"f": "NaN"}` for such numbers and `{"m": [[key, value]...]}` for maps.

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};
use weirmq_core::record::Value;

/// How deep lists and maps may be nested in a record. The reader of spill files stops at 128 levels of JSON, and
/// one level of a record is up to three of those.
pub(crate) const DEPTH_MAX: usize = 32;

/// A list of named values as a plain JSON object, in their order.
pub(crate) struct Fields<'a>(pub(crate) &'a [(Arc<str>, Value)]);

impl Serialize for Fields<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (key, value) in self.0 {
            map.serialize_entry(&**key, &Plain(value))?;
        }
        map.end()
    }
}

/// A value as plain JSON.
pub(crate) struct Plain<'a>(pub(crate) &'a Value);

impl Serialize for Plain<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::Null => serializer.serialize_unit(),
            Value::Bool(truth) => serializer.serialize_bool(*truth),
            Value::Int(number) => serializer.serialize_i64(*number),
            Value::Float(number) => serializer.serialize_f64(*number),
            Value::Text(text) => serializer.serialize_str(text),
            Value::Bytes(bytes) => serializer.serialize_str(&BASE64.encode(bytes)),
            Value::List(values) => serializer.collect_seq(values.iter().map(Plain)),
            Value::Map(fields) => Fields(fields).serialize(serializer),
        }
    }
}

/// A borrowed value as exact JSON.
pub(crate) struct Exact<'a>(pub(crate) &'a Value);

impl Serialize for Exact<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::Float(number) if !number.is_finite() => tagged(serializer, "f", &number.to_string()),
            Value::Bytes(bytes) => tagged(serializer, "b", &BASE64.encode(bytes)),
            Value::List(values) => serializer.collect_seq(values.iter().map(Exact)),
            Value::Map(fields) => tagged(serializer, "m", &ExactFields(fields)),
            plain @ (Value::Null | Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::Text(_)) => {
                Plain(plain).serialize(serializer)
            }
        }
    }
}

/// Borrowed named values as exact JSON: a list of pairs, so that order and doubled keys stay.
pub(crate) struct ExactFields<'a>(pub(crate) &'a [(Arc<str>, Value)]);

impl Serialize for ExactFields<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(Some(self.0.len()))?;
        for (key, value) in self.0 {
            list.serialize_element(&(&**key, Exact(value)))?;
        }
        list.end()
    }
}

/// A value that was read back from exact JSON.
#[derive(Debug)]
pub(crate) struct ReadBack(pub(crate) Value);

impl<'de> Deserialize<'de> for ReadBack {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ReadBackVisitor).map(Self)
    }
}

/// The values themselves.
pub(crate) fn unwrap_fields(fields: Vec<(String, ReadBack)>) -> Vec<(Arc<str>, Value)> {
    fields.into_iter().map(|(key, ReadBack(value))| (Arc::from(key), value)).collect()
}

fn tagged<S: Serializer, T: Serialize + ?Sized>(
    serializer: S,
    tag: &str,
    value: &T,
) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(Some(1))?;
    map.serialize_entry(tag, value)?;
    map.end()
}

struct ReadBackVisitor;

impl<'de> Visitor<'de> for ReadBackVisitor {
    type Value = Value;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a value of a record")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, truth: bool) -> Result<Value, E> {
        Ok(Value::Bool(truth))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(Value::Int(number))
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Value, E> {
        i64::try_from(number)
            .map(Value::Int)
            .map_err(|_| E::invalid_value(de::Unexpected::Unsigned(number), &"a 64-bit signed number"))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Value, E> {
        Ok(Value::Float(number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::Text(Arc::from(text)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(ReadBack(value)) = list.next_element()? {
            values.push(value);
        }
        Ok(Value::List(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let Some(tag) = map.next_key::<String>()? else {
            return Err(de::Error::invalid_length(0, &"an object with one key"));
        };
        let value = match tag.as_str() {
            "b" => bytes_of(&map.next_value::<String>()?)?,
            "f" => float_of(&map.next_value::<String>()?)?,
            "m" => Value::Map(unwrap_fields(map.next_value()?)),
            other => return Err(de::Error::unknown_variant(other, &["b", "f", "m"])),
        };
        match map.next_key::<String>()? {
            None => Ok(value),
            Some(_) => Err(de::Error::invalid_length(2, &"an object with one key")),
        }
    }
}

fn bytes_of<E: de::Error>(text: &str) -> Result<Value, E> {
    BASE64.decode(text).map(|bytes| Value::Bytes(Bytes::from(bytes))).map_err(E::custom)
}

fn float_of<E: de::Error>(text: &str) -> Result<Value, E> {
    text.parse().map(Value::Float).map_err(E::custom)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::any_value;

    /// What plain JSON makes of a value, by way of serde_json's own tree.
    fn expected(value: &Value) -> serde_json::Value {
        match value {
            Value::Null => serde_json::Value::Null,
            Value::Bool(truth) => (*truth).into(),
            Value::Int(number) => (*number).into(),
            Value::Float(number) => (*number).into(),
            Value::Text(text) => (&**text).into(),
            Value::Bytes(bytes) => BASE64.encode(bytes).into(),
            Value::List(values) => values.iter().map(expected).collect(),
            Value::Map(fields) => fields.iter().map(|(key, value)| (&**key, expected(value))).collect(),
        }
    }

    /// Equal, where NaN is NaN.
    fn same(left: &Value, right: &Value) -> bool {
        match (left, right) {
            (Value::Float(left), Value::Float(right)) => {
                left.to_bits() == right.to_bits() || (left.is_nan() && right.is_nan())
            }
            (Value::List(left), Value::List(right)) => {
                left.len() == right.len() && left.iter().zip(right).all(|(left, right)| same(left, right))
            }
            (Value::Map(left), Value::Map(right)) => {
                left.len() == right.len()
                    && left
                        .iter()
                        .zip(right)
                        .all(|(left, right)| left.0 == right.0 && same(&left.1, &right.1))
            }
            (left, right) => left == right,
        }
    }

    proptest! {
        #[test]
        fn a_value_spilled_reads_back_as_the_very_same_value(value in any_value()) {
            let text = serde_json::to_string(&Exact(&value)).unwrap();
            prop_assert!(!text.contains('\n'));
            let ReadBack(back) = serde_json::from_str(&text).unwrap();
            prop_assert!(same(&value, &back), "{value:?} -> {text} -> {back:?}");
        }

        #[test]
        fn plain_json_says_what_the_value_says(value in any_value()) {
            let text = serde_json::to_string(&Plain(&value)).unwrap();
            let back: serde_json::Value = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(back, expected(&value));
        }

        #[test]
        fn text_that_is_no_spilled_value_is_an_error_not_a_panic(text in ".{0,40}") {
            let _ = serde_json::from_str::<ReadBack>(&text);
        }
    }

    #[test]
    fn the_deepest_record_that_is_taken_can_be_read_back() {
        let mut value = Value::Null;
        for _ in 0..DEPTH_MAX {
            value = Value::Map(vec![(Arc::from("k"), value)]);
        }
        let text = serde_json::to_string(&ExactFields(&[(Arc::from("deep"), value.clone())])).unwrap();
        let back: Vec<(String, ReadBack)> = serde_json::from_str(&text).unwrap();
        assert_eq!(unwrap_fields(back), [(Arc::from("deep"), value)]);
    }

    #[test]
    fn japanese_text_and_key_order_stay() {
        let fields: Vec<(Arc<str>, Value)> =
            vec![("温度".into(), Value::Float(21.0)), ("場所".into(), Value::Text("リビング".into()))];
        let text = serde_json::to_string(&Fields(&fields)).unwrap();
        assert_eq!(text, r#"{"温度":21.0,"場所":"リビング"}"#);
    }
}
