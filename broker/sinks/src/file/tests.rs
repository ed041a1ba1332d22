//! Against real files, some of them moved, torn or in the way.

use std::fs;
use std::path::PathBuf;

use bytes::Bytes;
use tempfile::TempDir;
use weirmq_core::record::{Sinks, Value};

use crate::SinkSet;
use crate::testing::{parse, record, soon, start, submit_numbers};

const PLAIN: &str = "[[file]]\nname = 'lines'\nfile = 'lines.jsonl'\n\
                     buffer = { batch_wait_ms = 0, retry_initial_ms = 1, retry_max_ms = 5 }\n";

fn folder() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("lines.jsonl");
    (folder, file)
}

async fn written(set: &SinkSet, count: u64) {
    soon(set.until("lines", |stats| stats.written == count)).await;
}

#[tokio::test]
async fn each_record_is_a_line_of_json() {
    let (folder, file) = folder();
    let set = start(PLAIN, folder.path());
    let fields = [("温度", Value::Float(21.0)), ("raw", Value::Bytes(Bytes::from_static(b"\xff")))];
    set.submit(record("lines", fields)).unwrap();
    set.submit(record("lines", [("text", Value::Text("two\nlines".into()))])).unwrap();
    written(&set, 2).await;
    let text = fs::read_to_string(file).unwrap();
    assert_eq!(text, "{\"温度\":21.0,\"raw\":\"/w==\"}\n{\"text\":\"two\\nlines\"}\n");
}

#[tokio::test]
async fn lines_are_appended_to_a_file_that_is_there_after_a_torn_one_is_ended() {
    let (folder, file) = folder();
    fs::write(&file, "{\"n\":0}\n{\"n\":").unwrap();
    let set = start(PLAIN, folder.path());
    submit_numbers(&set, "lines", [1]);
    written(&set, 1).await;
    assert_eq!(fs::read_to_string(file).unwrap(), "{\"n\":0}\n{\"n\":\n{\"n\":1}\n");
}

#[cfg(unix)]
#[tokio::test]
async fn a_file_that_was_rotated_away_is_begun_anew() {
    let (folder, file) = folder();
    let set = start(PLAIN, folder.path());
    submit_numbers(&set, "lines", [1]);
    written(&set, 1).await;
    let rotated = folder.path().join("lines.1");
    fs::rename(&file, &rotated).unwrap();
    submit_numbers(&set, "lines", [2]);
    written(&set, 2).await;
    // Another program puts its own in the place.
    fs::rename(&file, folder.path().join("lines.2")).unwrap();
    fs::write(&file, "").unwrap();
    submit_numbers(&set, "lines", [3]);
    written(&set, 3).await;
    assert_eq!(fs::read_to_string(rotated).unwrap(), "{\"n\":1}\n");
    assert_eq!(fs::read_to_string(file).unwrap(), "{\"n\":3}\n");
}

#[cfg(unix)]
#[tokio::test]
async fn records_wait_while_the_file_cannot_be_written() {
    let (folder, file) = folder();
    let set = start(PLAIN, folder.path());
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    submit_numbers(&set, "lines", [1, 2]);
    let stats = soon(set.until("lines", |stats| stats.failing.is_some())).await;
    assert!(stats.failing.unwrap().contains("lines.jsonl"));
    fs::remove_dir(&file).unwrap();
    written(&set, 2).await;
    assert_eq!(fs::read_to_string(file).unwrap(), "{\"n\":1}\n{\"n\":2}\n");
}

#[test]
fn what_is_no_place_for_lines_is_refused_in_words() {
    let (folder, _) = folder();
    let cases =
        [("no/such/folder/f", "create it"), (".", "is a folder"), ("sinks/x", "the broker's own files")];
    fs::create_dir(folder.path().join("sinks")).unwrap();
    for (file, part) in cases {
        let problems = SinkSet::check(&parse(&PLAIN.replace("lines.jsonl", file)), folder.path());
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].text.contains(part), "{problems:?}");
    }
}

#[cfg(unix)]
#[test]
fn devices_and_pipes_are_refused() {
    let (folder, _) = folder();
    let problems = SinkSet::check(&parse(&PLAIN.replace("lines.jsonl", "/dev/null")), folder.path());
    assert!(problems[0].text.contains("not a regular file"), "{problems:?}");
}
