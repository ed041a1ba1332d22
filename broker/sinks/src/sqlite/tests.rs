//! Against real databases, some of them locked, damaged or changed by somebody else.

use std::fs;
use std::path::Path;

use bytes::Bytes;
use proptest::prelude::*;
use rusqlite::Connection;
use rusqlite::types::Value as Sql;
use tempfile::TempDir;
use weirmq_core::record::{Record, Sinks, Value};

use super::SqliteConfig;
use crate::config::SinkConfig;
use crate::testing::{any_value, numbered, parse, record, soon, start, submit_numbers};
use crate::{SinkSet, StartError};

/// A sink called `history` whose batches do not wait.
const PLAIN: &str = "[[sqlite]]\nname = 'history'\nfile = 'h.db'\nbusy_timeout_ms = 1\n\
                     buffer = { batch_wait_ms = 0, retry_initial_ms = 1, retry_max_ms = 5 }\n";

fn with(further: &str) -> String {
    format!("{PLAIN}{further}\n")
}

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn database(folder: &TempDir) -> Connection {
    Connection::open(folder.path().join("h.db")).unwrap()
}

/// All rows of a query, in its order.
fn rows(folder: &TempDir, sql: &str) -> Vec<Vec<Sql>> {
    let connection = database(folder);
    let mut statement = connection.prepare(sql).unwrap();
    let width = statement.column_count();
    let rows = statement.query_map([], |row| (0..width).map(|column| row.get(column)).collect()).unwrap();
    rows.map(Result::unwrap).collect()
}

fn column_names(folder: &TempDir) -> Vec<String> {
    let connection = database(folder);
    let mut statement = connection.prepare("SELECT name FROM pragma_table_info('history')").unwrap();
    statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
}

fn numbers(folder: &TempDir) -> Vec<i64> {
    let rows = rows(folder, "SELECT n FROM history ORDER BY rowid");
    rows.into_iter().map(|row| if let Sql::Integer(number) = row[0] { number } else { panic!() }).collect()
}

fn text(text: &str) -> Sql {
    Sql::Text(text.to_owned())
}

fn dead_reasons(folder: &Path) -> Vec<String> {
    let lines = fs::read_to_string(folder.join("sinks/history.dead.jsonl")).unwrap_or_default();
    let reason = |line| {
        serde_json::from_str::<serde_json::Value>(line).unwrap()["reason"].as_str().unwrap().to_owned()
    };
    lines.lines().map(reason).collect()
}

async fn written(set: &SinkSet, count: u64) {
    soon(set.until("history", |stats| stats.written == count)).await;
}

async fn dead(set: &SinkSet, count: u64) {
    soon(set.until("history", |stats| stats.dead_lettered == count)).await;
}

#[tokio::test]
async fn the_table_is_there_once_the_broker_has_started() {
    let folder = folder();
    let _set = start(PLAIN, folder.path());
    assert_eq!(column_names(&folder), ["_created_unix_ms", "_rule"]);
    assert_eq!(rows(&folder, "PRAGMA journal_mode"), [[text("wal")]]);
}

#[tokio::test]
async fn configured_columns_are_made_with_their_types_in_their_order() {
    let folder = folder();
    let columns =
        "columns = { line = 'text', machine = 'TEXT', celsius = 'real', at = 'integer', more = 'any' }";
    let _set = start(&with(columns), folder.path());
    let sql = rows(&folder, "SELECT sql FROM sqlite_schema WHERE name = 'history'");
    let made =
        r#"CREATE TABLE "history" ("line" TEXT, "machine" TEXT, "celsius" REAL, "at" INTEGER, "more")"#;
    assert_eq!(sql, [[text(made)]]);
}

#[tokio::test]
async fn each_reading_becomes_a_row() {
    let folder = folder();
    let set = start(PLAIN, folder.path());
    for celsius in [21.5, 91.5] {
        let fields = [
            ("line", Value::Text("第一ライン".into())),
            ("machine", Value::Text("press-1".into())),
            ("celsius", Value::Float(celsius)),
            ("at", Value::Int(1_700_000_000_000)),
        ];
        set.submit(record("history", fields)).unwrap();
    }
    written(&set, 2).await;
    let rows = rows(&folder, "SELECT line, machine, celsius, at, _rule, _created_unix_ms FROM history");
    let row = |celsius| {
        let at = Sql::Integer(1_700_000_000_000);
        vec![text("第一ライン"), text("press-1"), Sql::Real(celsius), at.clone(), text("a-rule"), at]
    };
    assert_eq!(rows, [row(21.5), row(91.5)]);
}

#[tokio::test]
async fn values_keep_their_kind() {
    let folder = folder();
    let set = start(PLAIN, folder.path());
    let nested = Value::Map(vec![("k".into(), Value::List(vec![Value::Int(1), Value::Null]))]);
    let fields = [
        ("a", Value::Null),
        ("b", Value::Bool(true)),
        ("c", Value::Int(i64::MIN)),
        ("d", Value::Float(21.0)),
        ("e", Value::Text("07".into())),
        ("f", Value::Bytes(Bytes::from_static(b"\0\xff"))),
        ("g", Value::List(vec![Value::Text("x".into())])),
        ("h", nested),
        ("i", Value::Float(f64::NAN)),
    ];
    set.submit(record("history", fields)).unwrap();
    written(&set, 1).await;
    let expected = vec![
        Sql::Null,
        Sql::Integer(1),
        Sql::Integer(i64::MIN),
        Sql::Real(21.0),
        text("07"),
        Sql::Blob(b"\0\xff".to_vec()),
        text(r#"["x"]"#),
        text(r#"{"k":[1,null]}"#),
        Sql::Null,
    ];
    assert_eq!(rows(&folder, "SELECT a, b, c, d, e, f, g, h, i FROM history"), [expected]);
}

#[tokio::test]
async fn records_wait_while_another_program_holds_the_lock_and_arrive_in_order() {
    let folder = folder();
    let set = start(PLAIN, folder.path());
    submit_numbers(&set, "history", 0..3);
    written(&set, 3).await;
    let other = database(&folder);
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    submit_numbers(&set, "history", 3..500);
    let stats = soon(set.until("history", |stats| stats.failing.is_some())).await;
    assert!(stats.failing.as_ref().unwrap().contains("database is locked"), "{stats:?}");
    submit_numbers(&set, "history", 500..1_000);
    assert_eq!(set.stats().sinks[0].buffered_records, 997);
    other.execute_batch("COMMIT").unwrap();
    written(&set, 1_000).await;
    assert_eq!(numbers(&folder), (0..1_000).collect::<Vec<_>>());
    assert_eq!(set.stats().sinks[0].failing, None);
}

#[tokio::test]
async fn a_database_that_is_locked_at_start_does_not_keep_the_broker_from_starting() {
    let folder = folder();
    let other = database(&folder);
    other.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let set = start(PLAIN, folder.path());
    submit_numbers(&set, "history", [1]);
    soon(set.until("history", |stats| stats.failing.is_some())).await;
    other.execute_batch("COMMIT").unwrap();
    written(&set, 1).await;
    assert_eq!(numbers(&folder), [1]);
}

#[tokio::test]
async fn a_field_without_a_column_brings_one_where_none_are_configured() {
    let folder = folder();
    let set = start(PLAIN, folder.path());
    set.submit(record("history", [("a", Value::Int(1))])).unwrap();
    set.submit(record("history", [("A", Value::Int(2)), ("b", Value::Int(3))])).unwrap();
    set.submit(record("history", [])).unwrap();
    written(&set, 3).await;
    assert_eq!(column_names(&folder), ["_created_unix_ms", "_rule", "a", "b"]);
    let expected = [[Sql::Integer(1), Sql::Null], [Sql::Integer(2), Sql::Integer(3)], [Sql::Null, Sql::Null]];
    assert_eq!(rows(&folder, "SELECT a, b FROM history ORDER BY rowid"), expected);
}

#[tokio::test]
async fn a_field_without_a_column_is_a_dead_letter_where_columns_are_configured() {
    let folder = folder();
    let set = start(&with("columns = ['n']"), folder.path());
    submit_numbers(&set, "history", [1]);
    set.submit(record("history", [("n", Value::Int(2)), ("celsius", Value::Int(3))])).unwrap();
    submit_numbers(&set, "history", [4]);
    written(&set, 2).await;
    dead(&set, 1).await;
    assert_eq!(numbers(&folder), [1, 4]);
    assert_eq!(dead_reasons(folder.path()), ["table 'history' has no column 'celsius'; add it to `columns`"]);
}

#[tokio::test]
async fn columns_configured_later_are_added_to_the_table_that_is_there() {
    let folder = folder();
    let first = start(&with("columns = ['n']"), folder.path());
    submit_numbers(&first, "history", [1]);
    written(&first, 1).await;
    let second = start(&with("columns = { n = 'any', celsius = 'real', _rule = 'text' }"), folder.path());
    second.submit(record("history", [("celsius", Value::Int(20))])).unwrap();
    written(&second, 1).await;
    let expected = [[Sql::Integer(1), Sql::Null, Sql::Null], [Sql::Null, Sql::Real(20.0), text("a-rule")]];
    assert_eq!(rows(&folder, "SELECT n, celsius, _rule FROM history ORDER BY rowid"), expected);
}

#[tokio::test]
async fn rules_cannot_widen_a_table_without_end() {
    let folder = folder();
    let set = start(&with("columns_max = 3"), folder.path());
    set.submit(record("history", [("a", Value::Int(1))])).unwrap();
    set.submit(record("history", [("b", Value::Int(1))])).unwrap();
    dead(&set, 1).await;
    assert_eq!(column_names(&folder), ["_created_unix_ms", "_rule", "a"]);
    assert!(dead_reasons(folder.path())[0].contains("columns_max = 3"));
}

#[tokio::test]
async fn a_table_of_somebody_elses_making_keeps_its_constraints() {
    let folder = folder();
    let make = "CREATE TABLE history (id INTEGER PRIMARY KEY, n INTEGER NOT NULL UNIQUE CHECK (n < 10), \
                twice AS (n * 2))";
    database(&folder).execute_batch(make).unwrap();
    let set = start(&with("columns_max = 3"), folder.path());
    submit_numbers(&set, "history", [1, 2, 1, 11, 3]);
    set.submit(record("history", [("n", Value::Null)])).unwrap();
    set.submit(record("history", [("n", Value::Int(4)), ("twice", Value::Int(0))])).unwrap();
    set.submit(record("history", [("n", Value::Int(5)), ("id", Value::Text("x".into()))])).unwrap();
    dead(&set, 5).await;
    written(&set, 3).await;
    assert_eq!(numbers(&folder), [1, 2, 3]);
    let reasons = dead_reasons(folder.path());
    for (reason, part) in reasons.iter().zip(["UNIQUE", "CHECK", "NOT NULL", "generated column", "mismatch"])
    {
        assert!(reason.contains(part), "{reasons:?}");
    }
}

#[tokio::test]
async fn names_are_names_and_never_sql() {
    let folder = folder();
    let table = r#"t"; DROP TABLE x; --"#;
    let set = start(&with(&format!("table = '{table}'")), folder.path());
    let field = r#"a"), ("b'; --"#;
    set.submit(record(
        "history",
        [(field, Value::Int(1)), ("select", Value::Int(2)), ("温度 °C", Value::Int(3))],
    ))
    .unwrap();
    written(&set, 1).await;
    let connection = database(&folder);
    let (name, count): (String, i64) = connection
        .query_row("SELECT name, count(*) FROM sqlite_schema", [], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap();
    assert_eq!((name.as_str(), count), (table, 1));
    let sum: i64 = connection
        .query_row(
            r#"SELECT "a""), (""b'; --" + "select" + "温度 °C" FROM "t""; DROP TABLE x; --""#,
            [],
            |row| row.get(0),
        )
        .unwrap();
    assert_eq!(sum, 6);
}

#[tokio::test]
async fn names_that_no_column_can_have_are_told_in_the_dead_letter() {
    let folder = folder();
    let set = start(PLAIN, folder.path());
    let long = "x".repeat(129);
    for name in ["", "a\0b", &long] {
        set.submit(record("history", [(name, Value::Null)])).unwrap();
    }
    set.submit(record("history", [("n", Value::Null), ("N", Value::Null)])).unwrap();
    dead(&set, 4).await;
    let reasons = dead_reasons(folder.path());
    for (reason, part) in reasons.iter().zip(["empty", "NUL", "longer than 128", "'n' and 'N' are the same"])
    {
        assert!(reason.contains(part), "{reasons:?}");
    }
    assert_eq!(column_names(&folder), ["_created_unix_ms", "_rule"]);
}

#[tokio::test]
async fn a_table_that_somebody_dropped_or_changed_is_looked_at_again() {
    let folder = folder();
    let set = start(PLAIN, folder.path());
    submit_numbers(&set, "history", [1]);
    written(&set, 1).await;
    database(&folder).execute_batch("DROP TABLE history").unwrap();
    submit_numbers(&set, "history", [2]);
    written(&set, 2).await;
    assert_eq!(numbers(&folder), [2]);
    database(&folder).execute_batch("ALTER TABLE history DROP COLUMN n").unwrap();
    submit_numbers(&set, "history", [3]);
    written(&set, 3).await;
    assert_eq!(rows(&folder, "SELECT n FROM history ORDER BY rowid"), [[Sql::Null], [Sql::Integer(3)]]);
}

#[cfg(unix)]
#[tokio::test]
async fn rows_go_into_the_file_that_is_there_not_into_one_that_was_deleted() {
    let folder = folder();
    let set = start(PLAIN, folder.path());
    submit_numbers(&set, "history", [1]);
    written(&set, 1).await;
    for end in ["", "-wal", "-shm"] {
        fs::remove_file(folder.path().join(format!("h.db{end}"))).unwrap();
    }
    submit_numbers(&set, "history", [2]);
    written(&set, 2).await;
    assert_eq!(numbers(&folder), [2]);
}

#[tokio::test]
async fn two_sinks_may_share_a_database() {
    let folder = folder();
    let set =
        start(&format!("{PLAIN}{}", PLAIN.replace("name = 'history'", "name = 'other'")), folder.path());
    submit_numbers(&set, "history", 0..100);
    submit_numbers(&set, "other", 100..200);
    written(&set, 100).await;
    soon(set.until("other", |stats| stats.written == 100)).await;
    assert_eq!(numbers(&folder), (0..100).collect::<Vec<_>>());
    assert_eq!(rows(&folder, "SELECT sum(n) FROM other"), [[Sql::Integer((100..200).sum())]]);
}

#[tokio::test]
async fn what_waiting_does_not_heal_is_refused_at_start_in_words() {
    let folder = folder();
    fs::write(folder.path().join("notes.txt"), "Dear diary, today I am no database at all.").unwrap();
    for (further, part) in [
        ("file = 'notes.txt'", "is not an SQLite database; choose another file"),
        ("file = 'no/such/folder/h.db'", "does not exist; create it"),
        ("file = '.'", "is a folder"),
        ("table = ''", "the name of its table is empty"),
        ("table = 'sqlite_x'", "SQLite's own"),
        ("columns = ['a', 'A']", "column 'A' is there twice"),
        ("columns = { \"\" = 'text' }", "is empty"),
        ("busy_timeout_ms = 60000", "busy_timeout_ms is 60000; it may be 2000 at most"),
        ("columns_max = 0", "columns_max is 0"),
    ] {
        let key = further.split(' ').next().unwrap();
        let config: String =
            PLAIN.lines().filter(|line| !line.starts_with(key)).map(|line| format!("{line}\n")).collect();
        let config = parse(&format!("{config}{further}\n"));
        let problems = SinkSet::check(&config, folder.path());
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].to_string().starts_with("sink 'history': "), "{problems:?}");
        assert!(problems[0].text.contains(part), "{problems:?}");
        let error = SinkSet::start(&config, folder.path()).err().unwrap();
        assert!(matches!(error, StartError::Config(all) if all == problems));
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "a check makes no files");
}

#[test]
fn types_that_sqlite_does_not_know_are_refused_by_the_parser() {
    let error =
        toml::from_str::<SqliteConfig>("name = 'a'\nfile = 'a'\ncolumns = { a = 'varchar' }").unwrap_err();
    assert!(error.to_string().contains("unknown variant `varchar`"), "{error}");
}

#[test]
fn defaults_are_as_documented() {
    let config: SqliteConfig = toml::from_str("name = 'history'\nfile = 'h.db'").unwrap();
    assert_eq!((config.columns_max, config.busy_timeout_ms), (200, 500));
    assert_eq!(config.target(Path::new("/data")), "/data/h.db, table history");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn whatever_rules_send_is_written_or_buried_and_blocks_nothing(
        records in prop::collection::vec(prop::collection::vec((".{0,6}", any_value()), 0..6), 1..20),
    ) {
        let folder = folder();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let set = start(PLAIN, folder.path());
            let count = records.len() as u64;
            for fields in records {
                let fields = fields.into_iter().map(|(name, value)| (name.into(), value)).collect();
                set.submit(Record { fields, ..numbered("history", 0) }).unwrap();
            }
            let stats = soon(set.until("history", |stats| stats.written + stats.dead_lettered == count)).await;
            assert_eq!((stats.retried, stats.failing), (0, None));
            let there = rows(&folder, "SELECT count(*) FROM history");
            assert_eq!(there, [[Sql::Integer(i64::try_from(stats.written).unwrap())]]);
        });
    }
}
