//! The message, its payload and its JSON as a script sees them: views that copy nothing.

use std::sync::Arc;

use bytes::Bytes;
use rhai::{Blob, Dynamic, EvalAltResult, INT, ImmutableString};
use weirmq_core::message::{Message, Publisher, QoS};

use crate::json::{Found, JsonError, Reader, Step};
use crate::pattern::Pattern;
use crate::run::{Stop, bytes_left, charge, step};
use crate::suggest::nearest_first;

/// What a script function answers.
pub(crate) type Answer<T> = Result<T, Box<EvalAltResult>>;

/// The fields of a message, as scripts name them. No capture may have one of these names.
pub(crate) const FIELDS: [&str; 13] = [
    "topic",
    "payload",
    "text",
    "json",
    "qos",
    "retain",
    "time",
    "timestamp",
    "client_id",
    "principal",
    "content_type",
    "response_topic",
    "user",
];

/// What a rule knows of a topic before a message comes: made once per topic.
#[derive(Debug)]
pub(crate) struct Binding {
    topic: ImmutableString,
    captures: Vec<(ImmutableString, ImmutableString)>,
}

impl Binding {
    /// `topic` as `pattern` sees it.
    pub(crate) fn new(topic: &str, pattern: Option<&Pattern>) -> Self {
        let captures = pattern.map_or_else(Vec::new, |pattern| {
            pattern.captures(topic).map(|(name, level)| (name.into(), level.into())).collect()
        });
        Self { topic: topic.into(), captures }
    }
}

/// A message in the hands of a script.
#[derive(Clone)]
pub(crate) struct Msg {
    pub(crate) message: Arc<Message>,
    pub(crate) binding: Arc<Binding>,
}

impl Msg {
    /// `message` without captures.
    pub(crate) fn plain(message: Arc<Message>) -> Self {
        let binding = Arc::new(Binding::new(&message.topic, None));
        Self { message, binding }
    }

    pub(crate) fn topic(&mut self) -> ImmutableString {
        self.binding.topic.clone()
    }

    pub(crate) fn payload(&mut self) -> Payload {
        Payload(self.message.payload.clone())
    }

    pub(crate) fn text(&mut self) -> Answer<ImmutableString> {
        text_of(&self.message.payload)
    }

    pub(crate) fn json(&mut self) -> Answer<Dynamic> {
        let payload = &self.message.payload;
        if payload.is_empty() {
            return Err("the payload is empty: it is no JSON".into());
        }
        read(payload, 0, |reader| Ok(to_dynamic(reader.root()?, payload)))
    }

    pub(crate) fn qos(&mut self) -> INT {
        match self.message.qos {
            QoS::AtMostOnce => 0,
            QoS::AtLeastOnce => 1,
            QoS::ExactlyOnce => 2,
        }
    }

    pub(crate) fn retain(&mut self) -> bool {
        self.message.retain
    }

    pub(crate) fn time(&mut self) -> INT {
        INT::try_from(self.message.received_unix_ms).unwrap_or(INT::MAX)
    }

    pub(crate) fn timestamp(&mut self) -> ImmutableString {
        rfc3339(self.message.received_unix_ms).into()
    }

    pub(crate) fn client_id(&mut self) -> Dynamic {
        match &self.message.publisher {
            Publisher::Client { client_id, .. } => Dynamic::from(ImmutableString::from(&**client_id)),
            Publisher::Rule(_) | Publisher::Plugin(_) | Publisher::Broker => Dynamic::UNIT,
        }
    }

    pub(crate) fn principal(&mut self) -> Dynamic {
        match &self.message.publisher {
            Publisher::Client { principal, .. } => Dynamic::from(ImmutableString::from(&**principal)),
            Publisher::Rule(_) | Publisher::Plugin(_) | Publisher::Broker => Dynamic::UNIT,
        }
    }

    pub(crate) fn content_type(&mut self) -> Dynamic {
        optional_text(self.message.properties.content_type.as_deref())
    }

    pub(crate) fn response_topic(&mut self) -> Dynamic {
        optional_text(self.message.properties.response_topic.as_deref())
    }

    /// The first User Property called `key`.
    pub(crate) fn user(&mut self, key: &str) -> Dynamic {
        let user = &self.message.properties.user;
        optional_text(user.iter().find(|(name, _)| **name == *key).map(|(_, value)| &**value))
    }

    /// The capture called `name`.
    pub(crate) fn capture(&self, name: &str) -> Answer<ImmutableString> {
        match self.binding.captures.iter().find(|(known, _)| known == name) {
            Some((_, level)) => Ok(level.clone()),
            None => Err(self.unknown_field(name)),
        }
    }

    /// `msg[name]`: a capture or a field whose name is no identifier of the script language.
    pub(crate) fn index(&mut self, name: &str) -> Answer<Dynamic> {
        Ok(match name {
            "topic" => self.topic().into(),
            "payload" => Dynamic::from(self.payload()),
            "text" => self.text()?.into(),
            "json" => self.json()?,
            "qos" => self.qos().into(),
            "retain" => self.retain().into(),
            "time" => self.time().into(),
            "timestamp" => self.timestamp().into(),
            "client_id" => self.client_id(),
            "principal" => self.principal(),
            "content_type" => self.content_type(),
            "response_topic" => self.response_topic(),
            _ => self.capture(name)?.into(),
        })
    }

    /// Takes back what `name` gave, as long as it is that.
    pub(crate) fn keep(&mut self, name: &str, value: &Dynamic) -> Answer<()> {
        if is_view_of(value, &self.message.payload) || is_same(&self.index(name)?, value) {
            return Ok(());
        }
        Err("a message does not change; to send on another one, call replace() in a transform".into())
    }

    fn unknown_field(&self, name: &str) -> Box<EvalAltResult> {
        if name == "user" {
            return "user is a function: msg.user(\"key\")".into();
        }
        let captures = self.binding.captures.iter().map(|(name, _)| name.as_str());
        let known = nearest_first(name, captures.chain(FIELDS));
        format!("a message has no field '{name}'; it has {}", known.join(", ")).into()
    }
}

/// A payload, or a part of one: bytes that are not copied.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Payload(pub(crate) Bytes);

impl Payload {
    pub(crate) fn len(&mut self) -> INT {
        count(self.0.len())
    }

    pub(crate) fn is_empty(&mut self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn byte(&mut self, index: INT) -> Answer<INT> {
        let length = self.0.len();
        let byte = from_either_end(index, length).and_then(|index| self.0.get(index));
        byte.map(|byte| INT::from(*byte))
            .ok_or_else(|| format!("there is no byte {index} in a payload of {length} bytes").into())
    }

    /// `length` bytes from `start` on, or as many of them as there are.
    pub(crate) fn slice(&mut self, start: INT, length: INT) -> Self {
        let start = from_either_end(start, self.0.len()).unwrap_or(self.0.len()).min(self.0.len());
        let wanted = usize::try_from(length).unwrap_or(0);
        let end = start.saturating_add(wanted).min(self.0.len());
        Self(self.0.slice(start..end))
    }

    pub(crate) fn text(&mut self) -> Answer<ImmutableString> {
        text_of(&self.0)
    }

    pub(crate) fn hex(&mut self) -> Answer<ImmutableString> {
        charge(self.0.len().saturating_mul(2))?;
        let mut text = String::with_capacity(self.0.len().saturating_mul(2));
        for byte in &self.0 {
            for digit in [byte >> 4, byte & 15] {
                text.extend(char::from_digit(digit.into(), 16));
            }
        }
        Ok(text.into())
    }

    pub(crate) fn blob(&mut self) -> Answer<Blob> {
        charge(self.0.len())?;
        Ok(self.0.to_vec())
    }
}

/// An object or an array somewhere in a JSON payload.
#[derive(Debug, Clone)]
pub(crate) struct Json {
    payload: Bytes,
    at: usize,
}

impl Json {
    /// The value of `key`; `()` when it is not there.
    pub(crate) fn field(&mut self, key: &str) -> Answer<Dynamic> {
        if self.is_array() {
            return Err(format!("the JSON here is an array: it has items, but no field '{key}'").into());
        }
        self.read(|reader| Ok(self.found(reader.field(key)?)))
    }

    /// The item at `index`, from the end when negative; `()` when it is not there.
    pub(crate) fn item(&mut self, index: INT) -> Answer<Dynamic> {
        if !self.is_array() {
            return Err(format!("the JSON here is an object: it has fields, but no item {index}").into());
        }
        let index = match usize::try_from(index) {
            Ok(index) => index,
            Err(_) => match from_either_end(index, self.count()?) {
                Some(index) => index,
                None => return Ok(Dynamic::UNIT),
            },
        };
        self.read(|reader| Ok(self.found(reader.item(index)?)))
    }

    /// Takes back what `key` gave, as long as it is that.
    pub(crate) fn keep(&mut self, key: &str, value: &Dynamic) -> Answer<()> {
        if is_view_of(value, &self.payload) || is_same(&self.field(key)?, value) {
            return Ok(());
        }
        Err("a message's JSON does not change; take a copy that does with msg.json.value()".into())
    }

    /// Takes back what `index` gave, as long as it is that.
    pub(crate) fn keep_item(&mut self, index: INT, value: &Dynamic) -> Answer<()> {
        if is_view_of(value, &self.payload) || is_same(&self.item(index)?, value) {
            return Ok(());
        }
        Err("a message's JSON does not change; take a copy that does with msg.json.value()".into())
    }

    /// How many fields or items it has.
    pub(crate) fn len(&mut self) -> Answer<INT> {
        self.count().map(count)
    }

    /// Whether it has the field `key`, be it null.
    pub(crate) fn contains(&mut self, key: &str) -> Answer<bool> {
        if self.is_array() {
            return Ok(false);
        }
        self.read(|reader| Ok(reader.field(key)?.is_some()))
    }

    /// The names of its fields, as they stand in the payload.
    pub(crate) fn keys(&mut self) -> Answer<rhai::Array> {
        let mut keys = rhai::Array::new();
        if !self.is_array() {
            self.read(|reader| {
                reader.members(|reader, name| -> Answer<Step> {
                    step()?;
                    keys.push(ImmutableString::from(&*name.text()?).into());
                    reader.skip_value(0)?;
                    Ok(Step::Next)
                })
            })?;
        }
        Ok(keys)
    }

    /// Its items, or its fields' values.
    pub(crate) fn values(&mut self) -> Answer<rhai::Array> {
        let mut values = rhai::Array::new();
        let mut keep = |reader: &mut Reader<'_>| -> Answer<Step> {
            step()?;
            let before = reader.at();
            values.push(to_dynamic(reader.shallow_value()?, &self.payload));
            if reader.at() == before {
                reader.skip_value(0)?;
            }
            Ok(Step::Next)
        };
        if self.is_array() {
            self.read(|reader| reader.items(keep))?;
        } else {
            self.read(|reader| reader.members(|reader, _| keep(reader)))?;
        }
        Ok(values)
    }

    /// It as it stands in the payload.
    pub(crate) fn raw(&self) -> Answer<Bytes> {
        self.read(|reader| {
            reader.skip_value(0)?;
            Ok(self.payload.slice(self.at..reader.at()))
        })
    }

    fn is_array(&self) -> bool {
        self.payload.get(self.at) == Some(&b'[')
    }

    fn count(&mut self) -> Answer<usize> {
        let mut count = 0;
        let mut pass = |reader: &mut Reader<'_>| -> Answer<Step> {
            count += 1;
            reader.skip_value(0)?;
            Ok(Step::Next)
        };
        if self.is_array() {
            self.read(|reader| reader.items(pass))?;
        } else {
            self.read(|reader| reader.members(|reader, _| pass(reader)))?;
        }
        Ok(count)
    }

    fn found(&self, found: Option<Found<'_>>) -> Dynamic {
        found.map_or(Dynamic::UNIT, |found| to_dynamic(found, &self.payload))
    }

    fn read<T>(&self, go: impl FnOnce(&mut Reader<'_>) -> Answer<T>) -> Answer<T> {
        read(&self.payload, self.at, go)
    }
}

/// An array is gone through item by item in a `for` loop.
impl IntoIterator for Json {
    type Item = Answer<Dynamic>;
    type IntoIter = std::vec::IntoIter<Answer<Dynamic>>;

    fn into_iter(mut self) -> Self::IntoIter {
        let items = if self.is_array() {
            self.values()
        } else {
            Err("the JSON here is an object: go through its keys() or its values()".into())
        };
        let items: Vec<Answer<Dynamic>> = match items {
            Ok(items) => items.into_iter().map(Ok).collect(),
            Err(error) => vec![Err(error)],
        };
        items.into_iter()
    }
}

/// Whether `value` shows a part of `payload`: such views have no method that changes them.
fn is_view_of(value: &Dynamic, payload: &Bytes) -> bool {
    let within = |part: &Bytes| payload.as_ptr_range().contains(&part.as_ptr());
    value.read_lock::<Json>().is_some_and(|json| within(&json.payload))
        || value.read_lock::<Payload>().is_some_and(|part| part.0.is_empty() || within(&part.0))
}

/// Whether two simple values are the same.
fn is_same(left: &Dynamic, right: &Dynamic) -> bool {
    match (left.read_lock::<ImmutableString>(), right.read_lock::<ImmutableString>()) {
        (Some(left), Some(right)) => *left == *right,
        (None, None) => {
            (left.is_unit() && right.is_unit())
                || left.as_int().is_ok_and(|number| right.as_int() == Ok(number))
                || left.as_bool().is_ok_and(|truth| right.as_bool() == Ok(truth))
                || left.as_float().is_ok_and(|number| {
                    right.as_float().is_ok_and(|other| other.to_bits() == number.to_bits())
                })
        }
        _ => false,
    }
}

/// Reads `payload` from `at` on, no further than the run's budget goes, and counts what was read: also where
/// that ended in an error, which a script can catch and run into again.
fn read<T>(payload: &Bytes, at: usize, go: impl FnOnce(&mut Reader<'_>) -> Answer<T>) -> Answer<T> {
    let end = at.saturating_add(bytes_left()).min(payload.len());
    let mut reader = Reader::new(payload.get(..end).unwrap_or_default(), at);
    let outcome = go(&mut reader);
    charge(reader.at().saturating_sub(at))?;
    let cut_short = end < payload.len() && reader.at().saturating_add(LONGEST_WORD) >= end;
    if cut_short { Err(Stop::Operations.error()) } else { outcome }
}

/// So far before the end a reader may stand that misses what was cut off: in front of `false`.
const LONGEST_WORD: usize = 5;

impl From<JsonError> for Box<EvalAltResult> {
    fn from(error: JsonError) -> Self {
        error.to_string().into()
    }
}

/// What a script gets of a value in `payload`.
fn to_dynamic(found: Found<'_>, payload: &Bytes) -> Dynamic {
    match found {
        Found::Null => Dynamic::UNIT,
        Found::Bool(value) => value.into(),
        Found::Int(value) => value.into(),
        Found::Float(value) => value.into(),
        Found::Text(text) => ImmutableString::from(&*text).into(),
        Found::Object(at) | Found::Array(at) => Dynamic::from(Json { payload: payload.clone(), at }),
    }
}

fn text_of(payload: &[u8]) -> Answer<ImmutableString> {
    charge(payload.len())?;
    match std::str::from_utf8(payload) {
        Ok(text) => Ok(text.into()),
        Err(error) => {
            Err(format!("the payload is no UTF-8 text: byte {} is wrong", error.valid_up_to()).into())
        }
    }
}

fn optional_text(text: Option<&str>) -> Dynamic {
    text.map_or(Dynamic::UNIT, |text| ImmutableString::from(text).into())
}

fn count(length: usize) -> INT {
    INT::try_from(length).unwrap_or(INT::MAX)
}

/// `index` from the beginning, or from the end when it is negative.
fn from_either_end(index: INT, length: usize) -> Option<usize> {
    match usize::try_from(index) {
        Ok(index) => Some(index),
        Err(_) => length.checked_sub(usize::try_from(index.unsigned_abs()).ok()?),
    }
}

/// Milliseconds since 1970-01-01T00:00:00Z as RFC 3339 text.
fn rfc3339(unix_ms: u64) -> String {
    let (days, in_day) = (unix_ms / 86_400_000, unix_ms % 86_400_000);
    let (year, month, day) = civil(days);
    let (hours, minutes) = (in_day / 3_600_000, in_day / 60_000 % 60);
    let (seconds, millis) = (in_day / 1_000 % 60, in_day % 1_000);
    format!("{year:04}-{month:02}-{day:02}T{hours:02}:{minutes:02}:{seconds:02}.{millis:03}Z")
}

/// Year, month and day of the Gregorian calendar, `days` after 1970-01-01. Years are counted from March,
/// so that the day that leap years add is a year's last.
fn civil(days: u64) -> (u64, u64, u64) {
    const DAYS_TO_1970_FROM_MARCH_0: u64 = 719_468;
    const DAYS_OF_400_YEARS: u64 = 146_097;
    let days = days + DAYS_TO_1970_FROM_MARCH_0;
    let (era, in_era) = (days / DAYS_OF_400_YEARS, days % DAYS_OF_400_YEARS);
    let year = (in_era - in_era / 1_460 + in_era / 36_524 - in_era / 146_096) / 365;
    let in_year = in_era - (365 * year + year / 4 - year / 100);
    let from_march = (5 * in_year + 2) / 153;
    let day = in_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (year + era * 400 + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_written_as_the_calendar_has_them() {
        for (unix_ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399_999, "2000-02-28T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_700_000_000_000, "2023-11-14T22:13:20.000Z"),
            (4_102_444_800_000, "2100-01-01T00:00:00.000Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(rfc3339(unix_ms), text);
        }
        let _ = rfc3339(u64::MAX);
    }

    #[test]
    fn a_slice_never_leaves_its_payload() {
        let mut payload = Payload(Bytes::from_static(b"abcdef"));
        assert_eq!(payload.slice(1, 2).0, "bc");
        assert_eq!(payload.slice(-2, 9).0, "ef");
        assert_eq!(payload.slice(9, 1).0, "");
        assert_eq!(payload.slice(0, -1).0, "");
        assert_eq!(payload.slice(INT::MIN, INT::MAX).0, "");
        assert!(payload.byte(6).is_err() && payload.byte(INT::MIN).is_err());
        assert_eq!(payload.byte(-1).unwrap(), 102);
    }
}
