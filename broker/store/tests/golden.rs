//! Folders that earlier versions have written: each must open for ever, and hold what it held then.
//!
//! `WEIRMQ_STORE_GOLDEN=write cargo test -p weirmq-store --test golden` writes the folders that are not
//! there yet; what is kept is never written again.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests stop where they fail")]

mod support;

use std::path::{Path, PathBuf};

use support::{small, snapshot, twin, words};
use weirmq_store::{CompactStep, LogStore, Store, verify};

/// The folders: as an orderly end leaves version 1, and as `kill -9` leaves each version, with a file that is extended by
/// zeros, and messages that persistence hooks have sealed.
const FOLDERS: [&str; 3] = ["v1", "v1-killed", "v2-killed"];

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

/// Writes a folder with every kind of frame and event in it, as `kill -9` leaves it.
fn write(folder: &Path) {
    let running = tempfile::tempdir().unwrap();
    let store = LogStore::open(running.path(), small()).unwrap();
    for record in words::records(120, 21) {
        store.append(&record).wait().unwrap();
    }
    while !matches!(store.compact_step().unwrap(), CompactStep::GaveBack { .. } | CompactStep::Idle) {}
    assert!(snapshot(&store) == snapshot(&twin(&words::records(120, 21))));
    std::fs::create_dir_all(folder).unwrap();
    for entry in std::fs::read_dir(running.path()).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, folder.join(path.file_name().unwrap())).unwrap();
    }
    std::fs::remove_file(folder.join("lock")).unwrap();
    std::fs::write(folder.join("expected.jsonl"), lines_of(&store)).unwrap();
}

fn lines_of(store: &dyn Store) -> String {
    let mut lines = Vec::new();
    weirmq_store::portable::export(store, &mut lines).unwrap();
    String::from_utf8(lines).unwrap()
}

#[test]
fn a_folder_of_each_format_version_opens_and_holds_what_it_held() {
    let writes = std::env::var("WEIRMQ_STORE_GOLDEN").is_ok_and(|what| what == "write");
    for name in FOLDERS {
        let golden = golden(name);
        if writes && !golden.exists() {
            write(&golden);
        }
        let copy = tempfile::tempdir().unwrap();
        for entry in std::fs::read_dir(&golden).unwrap() {
            let path = entry.unwrap().path();
            std::fs::copy(&path, copy.path().join(path.file_name().unwrap())).unwrap();
        }
        assert!(verify(copy.path()).unwrap().is_sound(), "{name}");
        let store = LogStore::open(copy.path(), small()).unwrap();
        let expected = std::fs::read_to_string(golden.join("expected.jsonl")).unwrap();
        assert_eq!(lines_of(&store), expected, "{name}");
        store.append(&[words::publish(1, &["a"])]).wait().unwrap();
    }
}

#[test]
fn an_empty_segment_of_an_older_format_is_not_gone_on_with() {
    let folder = tempfile::tempdir().unwrap();
    LogStore::open(folder.path(), small()).unwrap().close().unwrap();
    let first = folder.path().join("0000000001.log");
    let mut older = std::fs::read(&first).unwrap();
    older[8] = 1;
    let checksum = crc32c::crc32c(&older[..36]).to_le_bytes();
    older[36..40].copy_from_slice(&checksum);
    std::fs::write(&first, &older).unwrap();
    let store = LogStore::open(folder.path(), small()).unwrap();
    store.append(&[words::publish(1, &["a"])]).wait().unwrap();
    store.close().unwrap();
    assert!(std::fs::read(&first).unwrap() == older, "what is of format 1 stays so");
    assert_eq!(std::fs::read(folder.path().join("0000000002.log")).unwrap()[8], 2);
}
