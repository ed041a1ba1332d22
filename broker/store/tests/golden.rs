//! Folders that earlier versions have written: each must open for ever, and hold what it held then.
//!
//! `WEIRMQ_STORE_GOLDEN=write cargo test -p weirmq-store --test golden` writes the folder of a new format
//! version; what is kept is never written again.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests stop where they fail")]

mod support;

use std::path::{Path, PathBuf};

use support::{small, snapshot, twin, words};
use weirmq_store::{CompactStep, LogStore, Store};

fn golden(version: u16) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(format!("v{version}"))
}

/// Writes a folder with every kind of frame and event in it.
fn write(folder: &Path) {
    std::fs::create_dir_all(folder).unwrap();
    let store = LogStore::open(folder, small()).unwrap();
    for record in words::records(120, 21) {
        store.append(&record).wait().unwrap();
    }
    while !matches!(store.compact_step().unwrap(), CompactStep::GaveBack { .. } | CompactStep::Idle) {}
    assert!(snapshot(&store) == snapshot(&twin(&words::records(120, 21))));
    let expected = lines_of(&store);
    store.close().unwrap();
    std::fs::remove_file(folder.join("lock")).unwrap();
    std::fs::write(folder.join("expected.jsonl"), expected).unwrap();
}

fn lines_of(store: &dyn Store) -> String {
    let mut lines = Vec::new();
    weirmq_store::portable::export(store, &mut lines).unwrap();
    String::from_utf8(lines).unwrap()
}

#[test]
fn a_folder_of_each_format_version_opens_and_holds_what_it_held() {
    if std::env::var("WEIRMQ_STORE_GOLDEN").is_ok_and(|what| what == "write") && !golden(1).exists() {
        write(&golden(1));
    }
    for version in 1..=1 {
        let copy = tempfile::tempdir().unwrap();
        for entry in std::fs::read_dir(golden(version)).unwrap() {
            let path = entry.unwrap().path();
            std::fs::copy(&path, copy.path().join(path.file_name().unwrap())).unwrap();
        }
        let store = LogStore::open(copy.path(), small()).unwrap();
        let expected = std::fs::read_to_string(golden(version).join("expected.jsonl")).unwrap();
        assert_eq!(lines_of(&store), expected, "version {version}");
        store.append(&[words::publish(1, &["a"])]).wait().unwrap();
    }
}
