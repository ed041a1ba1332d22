//! JSON read in place: only as far as the field that is asked for.
//!
//! A document is never parsed as a whole unless a script asks for that. What stands before a field is
//! checked for its grammar while it is skipped; what stands behind it is not looked at. Of a key that
//! occurs twice the first is read. Every error names the byte offset in the payload.

use std::borrow::Cow;

use serde_json::Error as SerdeError;

/// How deep arrays and objects may be nested in each other.
pub(crate) const DEPTH_MAX: usize = 128;

/// One value found in a document.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Found<'a> {
    Null,
    Bool(bool),
    /// A number without fraction and exponent that fits.
    Int(i64),
    Float(f64),
    Text(Cow<'a, str>),
    /// An object begins at this offset.
    Object(usize),
    /// An array begins at this offset.
    Array(usize),
}

/// What is wrong with a document, at which byte of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("it is no valid JSON at byte {offset}: {what}")]
pub(crate) struct JsonError {
    pub(crate) offset: usize,
    pub(crate) what: String,
}

/// A place in a document.
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// Reads `bytes` from offset `at` on.
    pub(crate) fn new(bytes: &'a [u8], at: usize) -> Self {
        Self { bytes, at }
    }

    /// How far it has read.
    pub(crate) fn at(&self) -> usize {
        self.at
    }

    /// The value of `key` in the object that begins here; `None` when it has no such key.
    pub(crate) fn field(&mut self, key: &str) -> Result<Option<Found<'a>>, JsonError> {
        let mut found = None;
        self.members(|reader, name| -> Result<Step, JsonError> {
            if name.is(key)? {
                found = Some(reader.shallow_value()?);
                return Ok(Step::Stop);
            }
            reader.skip_value(0)?;
            Ok(Step::Next)
        })?;
        Ok(found)
    }

    /// The item at `index` of the array that begins here; `None` when it is shorter.
    pub(crate) fn item(&mut self, index: usize) -> Result<Option<Found<'a>>, JsonError> {
        let mut found = None;
        let mut position = 0;
        self.items(|reader| -> Result<Step, JsonError> {
            if position == index {
                found = Some(reader.shallow_value()?);
                return Ok(Step::Stop);
            }
            position += 1;
            reader.skip_value(0)?;
            Ok(Step::Next)
        })?;
        Ok(found)
    }

    /// Goes through the members of the object that begins here. `visit` must read or skip each value,
    /// unless it stops.
    pub(crate) fn members<E: From<JsonError>>(
        &mut self,
        mut visit: impl FnMut(&mut Self, Name<'a>) -> Result<Step, E>,
    ) -> Result<(), E> {
        self.expect(b'{')?;
        self.skip_space();
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(());
        }
        loop {
            self.skip_space();
            let name = self.name()?;
            self.skip_space();
            self.expect(b':')?;
            self.skip_space();
            if let Step::Stop = visit(self, name)? {
                return Ok(());
            }
            if self.comma_or(b'}')? {
                return Ok(());
            }
        }
    }

    /// Goes through the items of the array that begins here. `visit` must read or skip each, unless it
    /// stops.
    pub(crate) fn items<E: From<JsonError>>(
        &mut self,
        mut visit: impl FnMut(&mut Self) -> Result<Step, E>,
    ) -> Result<(), E> {
        self.expect(b'[')?;
        self.skip_space();
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(());
        }
        loop {
            self.skip_space();
            if let Step::Stop = visit(self)? {
                return Ok(());
            }
            if self.comma_or(b']')? {
                return Ok(());
            }
        }
    }

    /// The value that begins here. Of an object or an array only the beginning is read.
    pub(crate) fn shallow_value(&mut self) -> Result<Found<'a>, JsonError> {
        match self.peek() {
            Some(b'{') => Ok(Found::Object(self.at)),
            Some(b'[') => Ok(Found::Array(self.at)),
            Some(b'"') => Ok(Found::Text(self.string()?)),
            Some(b't') => self.word("true", Found::Bool(true)),
            Some(b'f') => self.word("false", Found::Bool(false)),
            Some(b'n') => self.word("null", Found::Null),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(_) => Err(self.fault("a value was expected here")),
            None => Err(self.fault("a value was expected, but here is the end")),
        }
    }

    /// The value that makes up the whole document; what stands around it may only be white space when it
    /// is a scalar. Of an object or an array only the beginning is read.
    pub(crate) fn root(&mut self) -> Result<Found<'a>, JsonError> {
        self.skip_space();
        let root = self.shallow_value()?;
        if !matches!(root, Found::Object(_) | Found::Array(_)) {
            self.end()?;
        }
        Ok(root)
    }

    /// Checks that nothing but white space follows.
    pub(crate) fn end(&mut self) -> Result<(), JsonError> {
        self.skip_space();
        if self.at < self.bytes.len() {
            return Err(self.fault("something follows behind the end of the value"));
        }
        Ok(())
    }

    /// Goes behind the value that begins here, checking its grammar on the way.
    pub(crate) fn skip_value(&mut self, depth: usize) -> Result<(), JsonError> {
        if depth >= DEPTH_MAX {
            return Err(self.fault(format!("it is nested deeper than {DEPTH_MAX} levels")));
        }
        match self.peek() {
            Some(b'{') => self.members(|reader, _| -> Result<Step, JsonError> {
                reader.skip_value(depth + 1)?;
                Ok(Step::Next)
            }),
            Some(b'[') => self.items(|reader| -> Result<Step, JsonError> {
                reader.skip_value(depth + 1)?;
                Ok(Step::Next)
            }),
            Some(b'"') => self.raw_string().map(drop),
            _ => self.shallow_value().map(drop),
        }
    }

    pub(crate) fn skip_space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn expect(&mut self, wanted: u8) -> Result<(), JsonError> {
        if self.peek() == Some(wanted) {
            self.at += 1;
            return Ok(());
        }
        Err(self.fault(format!("'{}' was expected here", char::from(wanted))))
    }

    /// Reads `,` (false) or the closing bracket (true).
    fn comma_or(&mut self, close: u8) -> Result<bool, JsonError> {
        self.skip_space();
        match self.peek() {
            Some(b',') => {
                self.at += 1;
                Ok(false)
            }
            Some(byte) if byte == close => {
                self.at += 1;
                Ok(true)
            }
            _ => Err(self.fault(format!("',' or '{}' was expected here", char::from(close)))),
        }
    }

    fn name(&mut self) -> Result<Name<'a>, JsonError> {
        let start = self.at;
        self.raw_string().map(|raw| Name { raw, start })
    }

    fn string(&mut self) -> Result<Cow<'a, str>, JsonError> {
        let start = self.at;
        self.raw_string()?.decode(start)
    }

    /// Goes behind the string that begins here. Escapes are checked only as far as to find its end.
    fn raw_string(&mut self) -> Result<RawString<'a>, JsonError> {
        let start = self.at;
        self.expect(b'"')?;
        let mut escapes = false;
        loop {
            match self.peek() {
                Some(b'"') => break,
                Some(b'\\') => {
                    escapes = true;
                    self.at += 1;
                    self.escape()?;
                }
                Some(0..=0x1f) => return Err(self.fault("a control character inside a string")),
                Some(_) => self.at += 1,
                None => return Err(Self::fault_at(start, "a string that is not closed")),
            }
        }
        let inside = self.bytes.get(start + 1..self.at).unwrap_or_default();
        self.at += 1;
        let quoted = self.bytes.get(start..self.at).unwrap_or_default();
        Ok(RawString { inside, quoted, escapes })
    }

    fn escape(&mut self) -> Result<(), JsonError> {
        match self.peek() {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 1,
            Some(b'u') => {
                let digits = self.bytes.get(self.at + 1..self.at + 5);
                if !digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit)) {
                    return Err(self.fault("'\\u' must be followed by four hexadecimal digits"));
                }
                self.at += 5;
            }
            _ => return Err(self.fault("an unknown escape in a string")),
        }
        Ok(())
    }

    fn word(&mut self, word: &str, found: Found<'a>) -> Result<Found<'a>, JsonError> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        if !rest.starts_with(word.as_bytes()) {
            return Err(self.fault(format!("'{word}' was expected here")));
        }
        self.at += word.len();
        Ok(found)
    }

    fn number(&mut self) -> Result<Found<'a>, JsonError> {
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        match self.peek() {
            Some(b'0') => self.at += 1,
            Some(b'1'..=b'9') => self.digits(),
            _ => return Err(self.fault("a digit was expected here")),
        }
        let mut whole = true;
        if self.peek() == Some(b'.') {
            whole = false;
            self.at += 1;
            self.some_digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            whole = false;
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            self.some_digits()?;
        }
        let text = self.bytes.get(start..self.at).and_then(|digits| std::str::from_utf8(digits).ok());
        let text = text.unwrap_or_default();
        if whole
            && text != "-0"
            && let Ok(number) = text.parse()
        {
            return Ok(Found::Int(number));
        }
        match text.parse::<f64>() {
            Ok(number) if number.is_finite() => Ok(Found::Float(number)),
            _ => Err(Self::fault_at(start, "a number that is out of range")),
        }
    }

    fn digits(&mut self) {
        while let Some(b'0'..=b'9') = self.peek() {
            self.at += 1;
        }
    }

    fn some_digits(&mut self) -> Result<(), JsonError> {
        let start = self.at;
        self.digits();
        if self.at == start { Err(self.fault("a digit was expected here")) } else { Ok(()) }
    }

    fn fault(&self, what: impl Into<String>) -> JsonError {
        Self::fault_at(self.at, what)
    }

    fn fault_at(offset: usize, what: impl Into<String>) -> JsonError {
        JsonError { offset, what: what.into() }
    }
}

/// Whether to go on to the next member or item.
pub(crate) enum Step {
    Next,
    Stop,
}

/// The key of a member.
pub(crate) struct Name<'a> {
    raw: RawString<'a>,
    start: usize,
}

impl<'a> Name<'a> {
    /// Whether it is `key`. Decodes only where it has escapes.
    fn is(&self, key: &str) -> Result<bool, JsonError> {
        if !self.raw.escapes {
            return Ok(self.raw.inside == key.as_bytes());
        }
        Ok(self.raw.decode(self.start)? == key)
    }

    /// It as text.
    pub(crate) fn text(&self) -> Result<Cow<'a, str>, JsonError> {
        self.raw.decode(self.start)
    }
}

struct RawString<'a> {
    inside: &'a [u8],
    quoted: &'a [u8],
    escapes: bool,
}

impl<'a> RawString<'a> {
    fn decode(&self, start: usize) -> Result<Cow<'a, str>, JsonError> {
        if self.escapes {
            let fault = |error: SerdeError| JsonError { offset: start, what: error.to_string() };
            return serde_json::from_slice(self.quoted).map(Cow::Owned).map_err(fault);
        }
        std::str::from_utf8(self.inside).map(Cow::Borrowed).map_err(|error| JsonError {
            offset: start + 1 + error.valid_up_to(),
            what: "a string that is not UTF-8".to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value as Tree;

    fn field<'a>(text: &'a str, key: &str) -> Result<Option<Found<'a>>, JsonError> {
        Reader::new(text.as_bytes(), 0).field(key)
    }

    #[test]
    fn only_what_stands_before_the_field_is_looked_at() {
        assert_eq!(field(r#"{"a":1,"b":2,!!!"#, "b"), Ok(Some(Found::Int(2))));
        let error = field(r#"{"a":1,"b":2,!!!"#, "c").unwrap_err();
        assert_eq!((error.offset, error.what.as_str()), (13, "'\"' was expected here"));
    }

    #[test]
    fn every_fault_names_its_byte() {
        for (text, offset) in [
            ("", 0),
            ("[]", 0),
            (r#"{"a" 1}"#, 5),
            (r#"{"a":}"#, 5),
            (r#"{"a":01}"#, 6),
            (r#"{"a":1.}"#, 7),
            (r#"{"a":-}"#, 6),
            (r#"{"a":1e}"#, 7),
            (r#"{"a":nul}"#, 5),
            (r#"{"a":"x"#, 5),
            ("{\"a\":\"x\ny\"}", 7),
            (r#"{"a":"\x"}"#, 7),
            (r#"{"a":"\u12"}"#, 7),
            (r#"{"a":1,}"#, 7),
            (r#"{"a":[1,]}"#, 8),
            (r#"{"a":1e999}"#, 5),
        ] {
            let error = field(text, "zz").unwrap_err();
            assert_eq!(error.offset, offset, "{text}: {error}");
        }
    }

    #[test]
    fn keys_with_escapes_and_of_any_script_are_found() {
        assert_eq!(field(r#"{"\u0061":1}"#, "a"), Ok(Some(Found::Int(1))));
        assert_eq!(field(r#"{"温度":1.5}"#, "温度"), Ok(Some(Found::Float(1.5))));
        assert_eq!(field(r#"{"a":"\ud83d\ude00"}"#, "a"), Ok(Some(Found::Text("😀".into()))));
        assert_eq!(field(r#"{"a":"\ud83d"}"#, "a").unwrap_err().offset, 5, "half a surrogate pair");
        let broken = b"{\"a\":\"x\xff\"}";
        assert_eq!(Reader::new(broken, 0).field("a").unwrap_err().offset, 7);
    }

    #[test]
    fn the_first_of_two_equal_keys_is_read() {
        assert_eq!(field(r#"{"a":1,"a":2}"#, "a"), Ok(Some(Found::Int(1))));
    }

    #[test]
    fn a_document_nested_without_end_is_refused() {
        let deep = format!("{{\"a\":{}", "[".repeat(100_000));
        assert!(field(&deep, "z").unwrap_err().what.contains("128"));
    }

    fn tree() -> impl Strategy<Value = Tree> {
        let leaf = prop_oneof![
            Just(Tree::Null),
            any::<bool>().prop_map(Tree::from),
            any::<i64>().prop_map(Tree::from),
            any::<u64>().prop_map(Tree::from),
            (-1e300..1e300f64).prop_map(Tree::from),
            ".{0,8}".prop_map(Tree::from),
        ];
        leaf.prop_recursive(4, 48, 6, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..6).prop_map(Tree::from),
                proptest::collection::btree_map(".{0,4}", inner, 0..6)
                    .prop_map(|map| Tree::Object(map.into_iter().collect())),
            ]
        })
    }

    /// Whether what was found at `bytes` is what serde_json has.
    fn agrees(found: &Found<'_>, bytes: &[u8], expected: &Tree) -> bool {
        match (found, expected) {
            (Found::Null, Tree::Null) => true,
            (Found::Bool(left), Tree::Bool(right)) => left == right,
            (Found::Int(left), Tree::Number(right)) => right.as_i64() == Some(*left),
            (Found::Float(left), Tree::Number(right)) => {
                // serde_json may be off by the last bit.
                let right = right.as_f64().unwrap();
                (left - right).abs() <= left.abs() * 1e-15
            }
            (Found::Text(left), Tree::String(right)) => left == right,
            (Found::Object(start), Tree::Object(map)) => map.iter().all(|(key, value)| {
                let found = Reader::new(bytes, *start).field(key).unwrap();
                found.is_some_and(|found| agrees(&found, bytes, value))
            }),
            (Found::Array(start), Tree::Array(items)) => {
                let end = Reader::new(bytes, *start).item(items.len()).unwrap();
                end.is_none()
                    && items.iter().enumerate().all(|(index, value)| {
                        let found = Reader::new(bytes, *start).item(index).unwrap();
                        found.is_some_and(|found| agrees(&found, bytes, value))
                    })
            }
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn reading_field_by_field_agrees_with_serde_json(tree in tree(), pretty in any::<bool>()) {
            let text = if pretty { serde_json::to_vec_pretty(&tree) } else { serde_json::to_vec(&tree) }.unwrap();
            let parsed: Tree = serde_json::from_slice(&text).unwrap();
            let found = Reader::new(&text, 0).root().unwrap();
            prop_assert!(agrees(&found, &text, &parsed), "{found:?} in {tree}");
        }

        #[test]
        fn skipping_accepts_exactly_what_serde_json_accepts(
            text in r#"[\[\]{}:,"\\ 0-9eE.+\-a-du]{0,12}|\[?(true|null|-?[0-9]{1,3}(\.[0-9])?(e[0-9])?|"(\\n|\\u00e9|x)*"),?\]?"#
        ) {
            let mut reader = Reader::new(text.as_bytes(), 0);
            reader.skip_space();
            let ours = reader.skip_value(0).and_then(|()| reader.end());
            let theirs = serde_json::from_str::<Tree>(&text);
            // The one thing that is not looked at in what is skipped: whether surrogates come in pairs.
            if !text.contains("\\u") {
                prop_assert_eq!(ours.is_ok(), theirs.is_ok(), "{}: {:?} {:?}", text, ours, theirs);
            }
        }

        #[test]
        fn no_bytes_make_the_reader_panic_or_run_over_the_end(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let mut reader = Reader::new(&bytes, 0);
            let _ = reader.skip_value(0);
            prop_assert!(reader.at() <= bytes.len());
            let _ = Reader::new(&bytes, 0).field("a");
            let _ = Reader::new(&bytes, 0).item(3);
            let _ = Reader::new(&bytes, 0).root();
        }
    }
}
