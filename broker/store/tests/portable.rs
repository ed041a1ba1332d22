//! A store as lines of JSON: what comes out goes in again, and what is wrong with a line is said.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests stop where they fail")]

mod support;

use proptest::collection::vec;
use proptest::prelude::*;
use support::{snapshot, twin, words};
use weirmq_store::portable::{ImportError, export, import};
use weirmq_store::{Config, Event, LogStore, MemoryStore, ReadOnlyStore, Store};

fn lines_of(store: &dyn Store) -> String {
    let mut out = Vec::new();
    export(store, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

/// Imports lines into a new folder; what is there then, or why not.
fn import_anew(lines: &str) -> Result<LogStore, ImportError> {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("a/new");
    match import(&mut lines.as_bytes(), &folder) {
        Ok(_) => Ok(LogStore::open(&folder, Config::default()).unwrap()),
        Err(error) => {
            assert_eq!(std::fs::read_dir(parent.path()).unwrap().count(), 0, "something was left behind");
            Err(error)
        }
    }
}

fn sample() -> MemoryStore {
    twin(&words::records(80, 17))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_exported_and_imported_is_equal(records in vec(words::record(), 0..60)) {
        let store = twin(&records);
        let lines = lines_of(&store);
        let imported = import_anew(&lines).unwrap();
        prop_assert!(snapshot(&imported) == snapshot(&store));
        prop_assert_eq!(lines_of(&imported), lines, "and so are its lines");
    }
}

#[test]
fn what_is_appended_to_an_imported_store_comes_after_what_was_imported() {
    let store = sample();
    let imported = import_anew(&lines_of(&store)).unwrap();
    let number = imported.append(&[words::publish(5, &["a"])]).number();
    let queue = imported.queue("a", 0, usize::MAX);
    assert!(queue.len() > 1 && queue.last().unwrap().number == number);
}

#[test]
fn an_export_of_a_folder_is_that_of_its_store() {
    let folder = tempfile::tempdir().unwrap();
    let store = LogStore::open(folder.path(), support::small()).unwrap();
    for record in words::records(60, 2) {
        store.append(&record).wait().unwrap();
    }
    assert_eq!(lines_of(&ReadOnlyStore::open(folder.path()).unwrap()), lines_of(&store));
}

#[test]
fn what_people_can_read_is_text_and_the_rest_is_base64() {
    let store = MemoryStore::new();
    for (key, value) in [("umlaut", "grün".as_bytes()), ("nul", &[0]), ("not text", &[0xFF, 1])] {
        let (key, value) = (key.as_bytes().to_vec().into(), value.to_vec().into());
        drop(store.append(&[Event::KeySet { namespace: "n".into(), key, value }]));
    }
    let lines = lines_of(&store);
    for expected in [
        r#"{"key":{"namespace":"n","key":"umlaut","value":"grün"}}"#,
        r#"{"key":{"namespace":"n","key":"nul","value":{"base64":"AA=="}}}"#,
        r#"{"key":{"namespace":"n","key":"not text","value":{"base64":"/wE="}}}"#,
    ] {
        assert!(lines.lines().any(|line| line == expected), "{expected} is not in\n{lines}");
    }
}

const HEAD: &str = r#"{"store":{"version":1,"next_number":9}}"#;
const SESSION: &str = r#"{"session":{"client":"a"}}"#;

fn message(number: u64, recipients: &str) -> String {
    format!(
        r#"{{"message":{{"number":{number},"content":{{"topic":"t","payload":"p","qos":1,"retain":false,"publisher":"broker","received_unix_ms":0,"hops":0}},"recipients":[{recipients}]}}}}"#
    )
}

#[test]
fn what_is_wrong_is_said_with_its_line_and_its_key() {
    let to_a = r#"{"client":"a","qos":1,"retain":false,"stage":"waiting"}"#;
    let good = [HEAD, SESSION, &message(3, to_a), r#"{"end":{"lines":3}}"#].join("\n");
    import_anew(&good).unwrap();
    let cases = [
        ("", "line 1, end: the lines end before the line 'end': they are not whole"),
        ("?", "line 1, it: expected value at column 1"),
        (r#"{"store":{"version":2,"next_number":1}}"#, "line 1, store.version: 2 is not known, 1 is"),
        (r#"{"store":{"version":1,"next_number":0}}"#, "line 1, store.next_number: 0 is out of range"),
        (r#"{"store":{"version":1}}"#, "line 1, store: missing field `next_number`"),
        (SESSION, "line 1, store: the first line is to be 'store'"),
        (&format!("{HEAD}\n{HEAD}"), "line 2, store: there is one"),
        (&format!("{HEAD}\n{SESSION}"), "line 3, end: the lines end before"),
        (&format!("{HEAD}\n{SESSION}\n{SESSION}"), "line 3, session.client: 'a' has had a line before"),
        (&format!("{HEAD}\n{{\"sesion\":{{}}}}"), "line 2, it: unknown variant `sesion`"),
        (&format!("{HEAD}\n{SESSION} {SESSION}"), "line 2, it: trailing characters"),
        (&format!(r#"{HEAD}{}{{"session":{{"client":"a","cleint":1}}}}"#, "\n"), "unknown field `cleint`"),
        (
            &format!(
                r#"{HEAD}{}{{"session":{{"client":"a","subscriptions":[{{"filter":"a/#/b","qos":1,"no_local":false,"retain_as_published":false}}]}}}}"#,
                "\n"
            ),
            "line 2, session.subscriptions[0].filter: 'a/#/b' is no filter: '#' must be the last level",
        ),
        (
            &format!(r#"{HEAD}{}{{"session":{{"client":"a","taken":[0]}}}}"#, "\n"),
            "line 2, session.taken[0]: invalid value: integer `0`",
        ),
        (
            &[HEAD, SESSION, &message(3, &to_a.replace("\"qos\":1", "\"qos\":3"))].join("\n"),
            "line 3, message.recipients[0].qos: 3 is no QoS: it is 0, 1 or 2",
        ),
        (
            &[HEAD, SESSION, &message(3, &to_a.replace("\"a\"", "\"b\""))].join("\n"),
            "line 3, message.recipients[0].client: no line 'session' before it has 'b'",
        ),
        (
            &[HEAD, SESSION, &message(3, &format!("{to_a},{to_a}"))].join("\n"),
            "line 3, message.recipients[1].client: 'a' is there twice",
        ),
        (&[HEAD, SESSION, &message(3, "")].join("\n"), "line 3, message.recipients: there is none"),
        (
            &[HEAD, SESSION, &message(9, to_a)].join("\n"),
            "line 3, message.number: 9 is not less than store.next_number, 9",
        ),
        (
            &[HEAD, SESSION, &message(3, to_a), &message(3, to_a)].join("\n"),
            "line 4, message.number: 3 is not greater than that of the line before, 3",
        ),
        (
            &[HEAD, SESSION, &message(3, to_a).replace("\"topic\":\"t\"", "\"topic\":\"t/+\"")].join("\n"),
            "line 3, message.content.topic: 't/+' is no topic: a topic name must not contain",
        ),
        (
            &format!(r#"{HEAD}{}{{"key":{{"namespace":"n","key":"k","value":{{"base64":"?"}}}}}}"#, "\n"),
            "line 2, key.value: Invalid symbol 63",
        ),
        (
            &format!(r#"{HEAD}{}{{"end":{{"lines":2}}}}"#, "\n"),
            "line 2, end.lines: 2 lines were written, 1 are here",
        ),
        (&format!("{good}\n{SESSION}"), "line 5, it: there is something behind the line 'end'"),
    ];
    for (lines, expected) in cases {
        let error = import_anew(lines).unwrap_err().to_string();
        assert!(error.contains(expected), "{lines}\nsays: {error}\nnot: {expected}");
    }
}

#[test]
fn lines_cut_anywhere_are_refused() {
    let lines = lines_of(&sample());
    let whole = lines.trim_end().len();
    let steps = (0..whole).step_by(97).chain(whole - 3..whole);
    for cut in steps.filter(|cut| lines.is_char_boundary(*cut)) {
        assert!(matches!(import_anew(&lines[..cut]), Err(ImportError::Line { .. })), "cut at {cut}");
    }
}

#[test]
fn a_folder_that_has_something_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let lines = lines_of(&sample());
    std::fs::write(folder.path().join("mine"), "mine").unwrap();
    let error = import(&mut lines.as_bytes(), folder.path()).unwrap_err();
    assert!(matches!(error, ImportError::NotEmpty { .. }), "{error}");
    assert!(error.to_string().contains(folder.path().to_str().unwrap()), "{error}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    let error = import(&mut lines.as_bytes(), &folder.path().join("mine")).unwrap_err();
    assert!(error.to_string().contains("is not a folder"), "{error}");
    assert_eq!(std::fs::read(folder.path().join("mine")).unwrap(), b"mine");
}

#[test]
fn an_import_that_nobody_has_ended_is_no_store() {
    // As `kill -9` leaves it: all that is beside.
    let folder = tempfile::tempdir().unwrap();
    LogStore::open(&folder.path().join("unfinished"), Config::default()).unwrap().close().unwrap();
    assert!(ReadOnlyStore::open(folder.path()).is_err());
    assert!(matches!(
        import(&mut lines_of(&sample()).as_bytes(), folder.path()),
        Err(ImportError::NotEmpty { .. })
    ));
}
