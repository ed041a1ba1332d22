//! From a script's values to payloads, records and drafts.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rhai::{Dynamic, EvalAltResult, ImmutableString, Map};
use weirmq_core::hook::Draft;
use weirmq_core::message::{Message, Properties, QoS};
use weirmq_core::record::Value;
use weirmq_core::topic::{TOPIC_BYTES_MAX, TopicName};

use crate::json::{DEPTH_MAX, Found, Reader, Step};
use crate::run::{charge, step};
use crate::suggest::nearest_first;
use crate::view::{Answer, Json, Msg, Payload};

/// What `publish` and `replace` take besides topic and payload.
const OPTIONS: [&str; 8] = [
    "qos",
    "retain",
    "expires",
    "content_type",
    "response_topic",
    "correlation_data",
    "payload_is_utf8",
    "user",
];

/// The longest text that MQTT carries in a property, in bytes.
const PROPERTY_BYTES_MAX: usize = 65_535;

/// A draft to `topic`. What `options` leave open is taken from `model`, or from MQTT's defaults.
pub(crate) fn draft(topic: &str, payload: &Dynamic, options: &Map, model: Option<&Message>) -> Answer<Draft> {
    let topic =
        TopicName::new(topic).map_err(|error| format!("{topic:?} is no topic to publish to: {error}"))?;
    let payload = payload_bytes(payload)?;
    let mut draft = match model {
        Some(message) => Draft { topic: topic.as_str().to_owned(), payload, ..Draft::of(message) },
        None => Draft {
            topic: topic.as_str().to_owned(),
            payload,
            qos: QoS::AtMostOnce,
            retain: false,
            properties: Properties::default(),
            expires_in: None,
        },
    };
    for (name, value) in options {
        within(&format!("option {name}"), set_option(&mut draft, name, value))?;
    }
    check_utf8_mark(&mut draft, options)?;
    Ok(draft)
}

/// An error, said of `what`. One that ends the run stays what it is: a script must not catch it.
pub(crate) fn within<T>(what: &str, answer: Answer<T>) -> Answer<T> {
    answer.map_err(|error| match *error {
        EvalAltResult::ErrorRuntime(text, _) => format!("{what}: {text}").into(),
        other => other.into(),
    })
}

/// How many bytes `draft` stands for in a run's output.
pub(crate) fn draft_bytes(draft: &Draft) -> usize {
    let properties = &draft.properties;
    let texts = [&properties.content_type, &properties.response_topic].into_iter().flatten();
    let user = properties.user.iter().map(|(key, value)| key.len() + value.len());
    draft.topic.len()
        + draft.payload.len()
        + properties.correlation_data.as_ref().map_or(0, Bytes::len)
        + texts.map(|text| text.len()).sum::<usize>()
        + user.sum::<usize>()
}

/// `value` as a payload: text and bytes as they are, numbers and truth values as text, maps and arrays as
/// JSON, `()` as no bytes at all.
pub(crate) fn payload_bytes(value: &Dynamic) -> Answer<Bytes> {
    if value.is_unit() {
        return Ok(Bytes::new());
    }
    if let Some(text) = value.read_lock::<ImmutableString>() {
        return Ok(Bytes::copy_from_slice(text.as_bytes()));
    }
    if let Some(payload) = value.read_lock::<Payload>() {
        return Ok(payload.0.clone());
    }
    if let Some(json) = value.read_lock::<Json>() {
        return json.raw();
    }
    if let Some(blob) = value.read_lock::<rhai::Blob>() {
        return Ok(Bytes::copy_from_slice(&blob));
    }
    if let Ok(character) = value.as_char() {
        return Ok(character.to_string().into());
    }
    let mut text = Vec::new();
    write_json(value, &mut text, 0)?;
    Ok(text.into())
}

/// `value` as JSON, text included.
pub(crate) fn json_bytes(value: &Dynamic) -> Answer<Vec<u8>> {
    let mut text = Vec::new();
    write_json(value, &mut text, 0)?;
    Ok(text)
}

/// `value` as a record keeps it.
pub(crate) fn record_value(value: &Dynamic) -> Answer<Value> {
    record_value_at(value, 0)
}

/// The fields of a record.
pub(crate) fn record_fields(fields: &Dynamic) -> Answer<Vec<(Arc<str>, Value)>> {
    match record_value(fields)? {
        Value::Map(fields) => Ok(fields),
        _ => Err(format!("a record is a map, not {}", kind(fields)).into()),
    }
}

/// How many bytes `value` stands for in a run's output: also an empty one takes room.
pub(crate) fn value_bytes(value: &Value) -> usize {
    const EACH: usize = 8;
    EACH + match value {
        Value::Null | Value::Bool(_) | Value::Int(_) | Value::Float(_) => 0,
        Value::Text(text) => text.len(),
        Value::Bytes(bytes) => bytes.len(),
        Value::List(items) => items.iter().map(value_bytes).sum(),
        Value::Map(fields) => fields.iter().map(|(key, value)| key.len() + value_bytes(value)).sum(),
    }
}

/// `value` as a test sees it in a record.
pub(crate) fn record_value_to_script(value: &Value) -> Dynamic {
    match value {
        Value::Null => Dynamic::UNIT,
        Value::Bool(value) => (*value).into(),
        Value::Int(value) => (*value).into(),
        Value::Float(value) => (*value).into(),
        Value::Text(text) => ImmutableString::from(&**text).into(),
        Value::Bytes(bytes) => Dynamic::from(Payload(bytes.clone())),
        Value::List(items) => items.iter().map(record_value_to_script).collect::<rhai::Array>().into(),
        Value::Map(fields) => {
            let map: Map =
                fields.iter().map(|(key, value)| ((&**key).into(), record_value_to_script(value))).collect();
            map.into()
        }
    }
}

/// The whole of a JSON value as maps and arrays of the script language.
pub(crate) fn json_to_script(json: &Json) -> Answer<Dynamic> {
    Ok(record_value_to_script(&json_tree(json)?))
}

/// JSON text as maps and arrays of the script language.
pub(crate) fn parse_json(text: &str) -> Answer<Dynamic> {
    charge(text.len())?;
    let mut reader = Reader::new(text.as_bytes(), 0);
    reader.skip_space();
    let tree = tree(&mut reader, 0)?;
    reader.end()?;
    Ok(record_value_to_script(&tree))
}

fn json_tree(json: &Json) -> Answer<Value> {
    let raw = json.raw()?;
    tree(&mut Reader::new(&raw, 0), 0)
}

/// Whether two values are the same: numbers by value, maps whatever the order of their keys, a JSON view
/// like the map or array that it shows.
pub(crate) fn same(left: &Dynamic, right: &Dynamic) -> Answer<bool> {
    if let (Some(left), Some(right)) = (left.read_lock::<Msg>(), right.read_lock::<Msg>()) {
        return Ok(left.message == right.message);
    }
    Ok(same_value(&record_value(left)?, &record_value(right)?))
}

/// `value` as a test report shows it.
pub(crate) fn shown(value: &Dynamic) -> String {
    if let Some(message) = value.read_lock::<Msg>() {
        return format!("a message to {:?}", message.message.topic.as_str());
    }
    if value.is_unit() {
        return "()".to_owned();
    }
    if let Some(payload) = value.read_lock::<Payload>() {
        return format!("the payload {:?}", String::from_utf8_lossy(&payload.0));
    }
    let mut text = Vec::new();
    match write_json(value, &mut text, 0) {
        Ok(()) => String::from_utf8_lossy(&text).into_owned(),
        Err(_) => format!("{value} ({})", kind(value)),
    }
}

/// What sort of value it is, in the words of scripts.
pub(crate) fn kind(value: &Dynamic) -> &'static str {
    match () {
        () if value.is_unit() => "()",
        () if value.is::<bool>() => "a truth value",
        () if value.is::<i64>() || value.is::<f64>() => "a number",
        () if value.is::<ImmutableString>() || value.is::<char>() => "text",
        () if value.is::<rhai::Array>() => "an array",
        () if value.is::<Map>() => "a map",
        () if value.is::<rhai::Blob>() => "a blob",
        () if value.is::<rhai::FnPtr>() => "a function",
        () if value.is::<Msg>() => "a message",
        () if value.is::<Json>() => "JSON",
        () if value.is::<Payload>() => "a payload",
        () => "a value of another kind",
    }
}

fn set_option(draft: &mut Draft, name: &str, value: &Dynamic) -> Answer<()> {
    let properties = &mut draft.properties;
    match name {
        "qos" => draft.qos = qos(value)?,
        "retain" => draft.retain = truth(value)?,
        "expires" => draft.expires_in = Some(seconds(value)?),
        "content_type" => properties.content_type = property(value)?,
        "response_topic" => {
            properties.response_topic = property(value)?;
            if let Some(topic) = properties.response_topic.as_deref() {
                TopicName::new(topic).map_err(|error| format!("{topic:?} is no topic: {error}"))?;
            }
        }
        "correlation_data" => {
            let data = payload_bytes(value)?;
            if data.len() > PROPERTY_BYTES_MAX {
                return Err("it is longer than 65,535 bytes".into());
            }
            properties.correlation_data = (!value.is_unit()).then_some(data);
        }
        "payload_is_utf8" => {
            properties.payload_is_utf8 = if value.is_unit() { None } else { Some(truth(value)?) };
        }
        "user" => set_user(&mut properties.user, value)?,
        _ => return Err(unknown_option(name)),
    }
    Ok(())
}

fn unknown_option(name: &str) -> Box<EvalAltResult> {
    format!("there is none called {name:?}; there are {}", nearest_first(name, OPTIONS).join(", ")).into()
}

/// Sets User Properties: a key of the map takes the place of all of that name, `()` takes them away.
fn set_user(user: &mut Vec<(Box<str>, Box<str>)>, value: &Dynamic) -> Answer<()> {
    let Some(map) = value.read_lock::<Map>() else {
        return Err(format!("a map of texts is needed, not {}", kind(value)).into());
    };
    for (key, value) in map.iter() {
        user.retain(|(name, _)| **name != **key);
        if key.len() > PROPERTY_BYTES_MAX || key.contains('\0') {
            return Err("a key is longer than 65,535 bytes or contains U+0000".into());
        }
        if let Some(text) = property(value)? {
            user.push((Box::from(&**key), text));
        }
    }
    Ok(())
}

fn qos(value: &Dynamic) -> Answer<QoS> {
    match value.as_int() {
        Ok(0) => Ok(QoS::AtMostOnce),
        Ok(1) => Ok(QoS::AtLeastOnce),
        Ok(2) => Ok(QoS::ExactlyOnce),
        _ => Err(format!("0, 1 or 2 is needed, not {}", shown(value)).into()),
    }
}

fn truth(value: &Dynamic) -> Answer<bool> {
    value.as_bool().map_err(|_| format!("true or false is needed, not {}", shown(value)).into())
}

fn seconds(value: &Dynamic) -> Answer<Duration> {
    let seconds = match (value.as_int(), value.as_float()) {
        (Ok(seconds), _) => u64::try_from(seconds).ok().map(Duration::from_secs),
        (_, Ok(seconds)) => Duration::try_from_secs_f64(seconds).ok(),
        _ => None,
    };
    seconds.ok_or_else(|| format!("a number of seconds from 0 on is needed, not {}", shown(value)).into())
}

fn property(value: &Dynamic) -> Answer<Option<Box<str>>> {
    if value.is_unit() {
        return Ok(None);
    }
    let Some(text) = value.read_lock::<ImmutableString>() else {
        return Err(format!("text is needed, not {}", shown(value)).into());
    };
    if text.len() > PROPERTY_BYTES_MAX || text.contains('\0') {
        return Err("it is longer than 65,535 bytes or contains U+0000".into());
    }
    Ok(Some(Box::from(text.as_str())))
}

/// A payload that is said to be UTF-8 has to be. Where the mark was only inherited, it goes.
fn check_utf8_mark(draft: &mut Draft, options: &Map) -> Answer<()> {
    if draft.properties.payload_is_utf8 == Some(true) && std::str::from_utf8(&draft.payload).is_err() {
        if options.contains_key("payload_is_utf8") {
            return Err("option payload_is_utf8: the payload is no UTF-8 text".into());
        }
        draft.properties.payload_is_utf8 = None;
    }
    Ok(())
}

fn too_deep() -> Box<EvalAltResult> {
    format!("a value is nested deeper than {DEPTH_MAX} levels").into()
}

fn write_json(value: &Dynamic, out: &mut Vec<u8>, depth: usize) -> Answer<()> {
    if depth > DEPTH_MAX {
        return Err(too_deep());
    }
    if let Some(text) = value.read_lock::<ImmutableString>() {
        write_json_text(&text, out);
    } else if let Ok(number) = value.as_float() {
        if !number.is_finite() {
            return Err(format!("{number} has no JSON form").into());
        }
        write_json_scalar(&number, out);
    } else if let Ok(number) = value.as_int() {
        write_json_scalar(&number, out);
    } else if let Ok(truth) = value.as_bool() {
        write_json_scalar(&truth, out);
    } else if value.is_unit() {
        out.extend_from_slice(b"null");
    } else if let Some(map) = value.read_lock::<Map>() {
        write_json_map(&map, out, depth)?;
    } else if let Some(items) = value.read_lock::<rhai::Array>() {
        write_json_array(&items, out, depth)?;
    } else if let Some(json) = value.read_lock::<Json>() {
        out.extend_from_slice(&json.raw()?);
    } else if let Ok(character) = value.as_char() {
        write_json_text(character.encode_utf8(&mut [0; 4]), out);
    } else {
        return Err(no_json_form(value));
    }
    Ok(())
}

fn no_json_form(value: &Dynamic) -> Box<EvalAltResult> {
    let hint = if value.is::<Payload>() || value.is::<rhai::Blob>() {
        "; use its text() or hex()"
    } else if value.is::<Msg>() {
        "; use its payload, text or json"
    } else {
        ""
    };
    format!("{} has no JSON form{hint}", kind(value)).into()
}

fn write_json_map(map: &Map, out: &mut Vec<u8>, depth: usize) -> Answer<()> {
    out.push(b'{');
    for (index, (key, value)) in map.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write_json_text(key, out);
        out.push(b':');
        write_json(value, out, depth + 1)?;
    }
    out.push(b'}');
    Ok(())
}

fn write_json_array(items: &[Dynamic], out: &mut Vec<u8>, depth: usize) -> Answer<()> {
    out.push(b'[');
    for (index, value) in items.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write_json(value, out, depth + 1)?;
    }
    out.push(b']');
    Ok(())
}

fn write_json_text(text: &str, out: &mut Vec<u8>) {
    write_json_scalar(&text, out);
}

/// Text, truth values and finite numbers are written without fail: the writer is a vector.
fn write_json_scalar(scalar: &impl serde::Serialize, out: &mut Vec<u8>) {
    let written = serde_json::to_writer(out, scalar);
    debug_assert!(written.is_ok(), "a scalar is written to memory");
}

fn record_value_at(value: &Dynamic, depth: usize) -> Answer<Value> {
    if depth > DEPTH_MAX {
        return Err(too_deep());
    }
    if let Some(text) = value.read_lock::<ImmutableString>() {
        return Ok(Value::Text(Arc::from(text.as_str())));
    }
    if let Ok(number) = value.as_float() {
        return Ok(Value::Float(number));
    }
    if let Ok(number) = value.as_int() {
        return Ok(Value::Int(number));
    }
    if value.is_unit() {
        return Ok(Value::Null);
    }
    if let Ok(truth) = value.as_bool() {
        return Ok(Value::Bool(truth));
    }
    if let Some(payload) = value.read_lock::<Payload>() {
        return Ok(Value::Bytes(payload.0.clone()));
    }
    if let Some(map) = value.read_lock::<Map>() {
        let fields = map.iter().map(|(key, value)| {
            Ok::<_, Box<EvalAltResult>>((Arc::from(&**key), record_value_at(value, depth + 1)?))
        });
        return Ok(Value::Map(fields.collect::<Result<_, _>>()?));
    }
    if let Some(items) = value.read_lock::<rhai::Array>() {
        let items = items.iter().map(|value| record_value_at(value, depth + 1));
        return Ok(Value::List(items.collect::<Result<_, _>>()?));
    }
    if let Some(blob) = value.read_lock::<rhai::Blob>() {
        return Ok(Value::Bytes(Bytes::copy_from_slice(&blob)));
    }
    if let Some(json) = value.read_lock::<Json>() {
        return json_tree(&json);
    }
    if let Ok(character) = value.as_char() {
        return Ok(Value::Text(Arc::from(character.encode_utf8(&mut [0; 4]) as &str)));
    }
    Err(format!("{} cannot be kept in a record", kind(value)).into())
}

/// The value that begins where `reader` is, as a tree; of equal keys the first is kept. Each value in it counts
/// as an operation: it takes many times the memory that it takes in the payload.
fn tree(reader: &mut Reader<'_>, depth: usize) -> Answer<Value> {
    step()?;
    if depth > DEPTH_MAX {
        return Err(too_deep());
    }
    Ok(match reader.shallow_value()? {
        Found::Null => Value::Null,
        Found::Bool(value) => Value::Bool(value),
        Found::Int(value) => Value::Int(value),
        Found::Float(value) => Value::Float(value),
        Found::Text(text) => Value::Text(Arc::from(&*text)),
        Found::Array(_) => {
            let mut items = Vec::new();
            reader.items(|reader| -> Answer<Step> {
                items.push(tree(reader, depth + 1)?);
                Ok(Step::Next)
            })?;
            Value::List(items)
        }
        Found::Object(_) => {
            let mut fields: Vec<(Arc<str>, Value)> = Vec::new();
            let mut known = std::collections::HashSet::new();
            reader.members(|reader, name| -> Answer<Step> {
                let name: Arc<str> = Arc::from(&*name.text()?);
                let value = tree(reader, depth + 1)?;
                if known.insert(Arc::clone(&name)) {
                    fields.push((name, value));
                }
                Ok(Step::Next)
            })?;
            Value::Map(fields)
        }
    })
}

fn same_value(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Int(left), Value::Float(right)) | (Value::Float(right), Value::Int(left)) => {
            *left as f64 == *right
        }
        (Value::List(left), Value::List(right)) => {
            left.len() == right.len() && left.iter().zip(right).all(|(left, right)| same_value(left, right))
        }
        (Value::Map(left), Value::Map(right)) => {
            let right: HashMap<&str, &Value> = right.iter().map(|(key, value)| (&**key, value)).collect();
            left.len() == right.len()
                && left
                    .iter()
                    .all(|(key, left)| right.get(&**key).is_some_and(|right| same_value(left, right)))
        }
        _ => left == right,
    }
}

const _: () = assert!(PROPERTY_BYTES_MAX == TOPIC_BYTES_MAX, "both are MQTT's longest string");

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(value: impl Into<Dynamic>) -> String {
        String::from_utf8(payload_bytes(&value.into()).unwrap().to_vec()).unwrap()
    }

    #[test]
    fn payloads_are_written_as_documented() {
        assert_eq!(bytes(Dynamic::UNIT), "");
        assert_eq!(bytes("温度"), "温度");
        assert_eq!(bytes(80.0), "80.0");
        assert_eq!(bytes(7_i64), "7");
        assert_eq!(bytes(true), "true");
        assert_eq!(bytes('x'), "x");
        let map: Map = [("b".into(), 1_i64.into()), ("a".into(), "q\"\n".into())].into_iter().collect();
        assert_eq!(bytes(map), r#"{"a":"q\"\n","b":1}"#);
        let array: rhai::Array = vec![Dynamic::UNIT, 1.5.into(), 'c'.into()];
        assert_eq!(bytes(array), r#"[null,1.5,"c"]"#);
    }

    #[test]
    fn what_has_no_json_form_is_an_error() {
        let infinite: rhai::Array = vec![f64::INFINITY.into()];
        assert!(payload_bytes(&infinite.into()).unwrap_err().to_string().contains("no JSON form"));
        let blob: rhai::Array = vec![Dynamic::from_blob(vec![1])];
        assert!(payload_bytes(&blob.into()).unwrap_err().to_string().contains("hex()"));
        let mut deep = Dynamic::UNIT;
        for _ in 0..200 {
            deep = Dynamic::from_array(vec![deep]);
        }
        assert!(payload_bytes(&deep).unwrap_err().to_string().contains("nested"));
        assert!(record_value(&deep).unwrap_err().to_string().contains("nested"));
    }

    #[test]
    fn options_are_checked_one_by_one() {
        let fault = |name: &str, value: Dynamic| {
            let options: Map = [(name.into(), value)].into_iter().collect();
            draft("a", &Dynamic::UNIT, &options, None).unwrap_err().to_string()
        };
        assert!(fault("qos", 3_i64.into()).contains("0, 1 or 2"));
        assert!(fault("expires", (-1_i64).into()).contains("seconds"));
        assert!(fault("expires", f64::NAN.into()).contains("seconds"));
        assert!(fault("response_topic", "a/+".into()).contains("no topic"));
        assert!(fault("content_type", "a\0".into()).contains("U+0000"));
        assert!(fault("retained", true.into()).contains("there are retain"));
        assert!(
            draft("a/#", &Dynamic::UNIT, &Map::new(), None).unwrap_err().to_string().contains("wildcard")
        );
    }
}
