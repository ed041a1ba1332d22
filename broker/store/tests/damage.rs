//! Files that are not what was written: cut anywhere, one bit flipped anywhere, missing, foreign.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests stop where they fail")]

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use support::sim::SimDisk;
use support::{small, snapshot, twin, words};
use weirmq_store::{LogStore, OpenError, ReadOnlyStore, Snapshot, Store, StoreError};

type Files = BTreeMap<String, Vec<u8>>;

/// A small log of several segments, as `kill -9` leaves it: everything in it was acknowledged.
fn log(records_count: usize) -> (Files, Snapshot) {
    let disk = SimDisk::default();
    let records = words::records(records_count, 3);
    let store = support::open(&disk);
    let mut expected = None;
    for record in &records {
        store.append(record).wait().unwrap();
        expected = Some(disk.files());
    }
    assert!(disk.files().len() >= 3, "several segments");
    (expected.unwrap(), snapshot(&twin(&records)))
}

fn open(files: &Files) -> Result<LogStore, OpenError> {
    LogStore::open_on(Arc::new(SimDisk::with(files)), small())
}

/// Between the slots of the mark there are only zeros that nobody reads.
fn is_padding(name: &str, at: usize) -> bool {
    name == "durable.mark" && at % 4096 > 40 && !at.is_multiple_of(512)
}

/// How much of each segment is in use. Behind that there may be zeros, of which nobody reads anything.
fn used(files: &Files) -> BTreeMap<String, u64> {
    let store = ReadOnlyStore::open_on(Arc::new(SimDisk::with(files))).unwrap();
    store.stats().segments.into_iter().collect()
}

/// Opens what is damaged: an error that names the file, or all that was acknowledged.
fn reported_or_whole(files: &Files, expected: &Snapshot, damage: &str) -> bool {
    let disk = SimDisk::with(files);
    match LogStore::open_on(Arc::new(disk.clone()), small()) {
        Ok(store) => {
            assert!(snapshot(&store) == *expected, "{damage}: something acknowledged was lost silently");
            false
        }
        Err(
            error @ (OpenError::Corrupt { .. } | OpenError::Missing { .. } | OpenError::NewerFormat { .. }),
        ) => {
            assert!(error.to_string().contains("/sim/"), "{damage}: {error}");
            assert!(disk.files() == *files, "{damage}: something on the disk was changed");
            true
        }
        Err(error) => panic!("{damage}: {error}"),
    }
}

#[test]
fn a_log_cut_at_any_byte_is_reported() {
    let (files, expected) = log(24);
    let used = used(&files);
    for (name, content) in &files {
        for length in 0..content.len() {
            if is_padding(name, length) {
                continue;
            }
            let mut cut = files.clone();
            cut.get_mut(name).unwrap().truncate(length);
            let damage = format!("{name} cut at {length}");
            let reported = reported_or_whole(&cut, &expected, &damage);
            let harmless = used.get(name).is_none_or(|used| length as u64 >= *used);
            assert!(reported || harmless, "{damage}: something acknowledged was cut");
        }
    }
}

#[test]
fn one_flipped_bit_anywhere_is_reported_or_does_no_harm() {
    let (files, expected) = log(24);
    let used = used(&files);
    for (name, content) in &files {
        for byte in 0..content.len() {
            if is_padding(name, byte) {
                continue;
            }
            for bit in 0..8 {
                let mut flipped = files.clone();
                flipped.get_mut(name).unwrap()[byte] ^= 1 << bit;
                let damage = format!("{name}, byte {byte}, bit {bit}");
                let reported = reported_or_whole(&flipped, &expected, &damage);
                let harmless = used.get(name).is_none_or(|used| byte as u64 >= *used);
                assert!(reported || harmless, "{damage}: a record was changed unseen");
            }
        }
    }
}

#[test]
fn damage_that_the_mark_does_not_cover_is_seen_by_what_the_log_says_of_itself() {
    let (mut files, _) = log(70);
    // The mark as power loss may leave it: its unsynced slot is lost.
    files.get_mut("durable.mark").unwrap().truncate(4096 + 40);
    let last = files.keys().rfind(|name| name.ends_with(".log")).unwrap().clone();
    files.get_mut(&last).unwrap()[60] ^= 1;
    let Err(OpenError::Corrupt { path, offset, .. }) = open(&files) else { panic!("it is not reported") };
    assert!(path.ends_with(&last) && (40..=60).contains(&offset), "{path:?} at {offset}");
}

#[test]
fn a_segment_that_is_missing_is_named() {
    let (files, _) = log(24);
    for name in files.keys().filter(|name| *name != "lock") {
        let mut without = files.clone();
        without.remove(name);
        let Err(OpenError::Missing { path }) = open(&without) else { panic!("{name} is not missed") };
        assert!(path.ends_with(name), "{path:?}");
    }
}

#[test]
fn a_segment_of_another_store_is_refused() {
    let (files, _) = log(24);
    let (others, _) = log(24);
    for name in files.keys().filter(|name| name.ends_with(".log")) {
        let mut mixed = files.clone();
        mixed.insert(name.clone(), others[name].clone());
        assert!(matches!(open(&mixed), Err(OpenError::Corrupt { .. })), "{name}");
    }
}

#[test]
fn a_newer_format_is_told_from_damage_and_left_alone() {
    let (mut files, _) = log(24);
    let content = files.get_mut("0000000001.log").unwrap();
    content[8] = 9;
    let checksum = crc32c::crc32c(&content[..36]).to_le_bytes();
    content[36..40].copy_from_slice(&checksum);
    let disk = SimDisk::with(&files);
    let error = LogStore::open_on(Arc::new(disk.clone()), small()).unwrap_err();
    assert!(matches!(error, OpenError::NewerFormat { version: 9, version_max: 2, .. }), "{error}");
    assert!(disk.files() == files);
}

#[test]
fn what_is_damaged_after_opening_is_reported_when_it_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let store = LogStore::open(folder.path(), small()).unwrap();
    let number = {
        let ticket = store.append(&[words::publish(9, &["a"])]);
        let number = ticket.number();
        ticket.wait().unwrap();
        number
    };
    let path = folder.path().join("0000000001.log");
    let mut content = std::fs::read(&path).unwrap();
    let used = ReadOnlyStore::open(folder.path()).unwrap().stats().segments[0].1;
    let last = used as usize - 20;
    content[last] ^= 1;
    std::fs::write(&path, content).unwrap();
    assert!(matches!(store.message("a", number), Err(StoreError::Corrupt { .. })));
}

#[test]
fn a_second_opening_of_the_same_folder_is_refused_until_the_first_is_closed() {
    let folder = tempfile::tempdir().unwrap();
    let store = LogStore::open(folder.path(), small()).unwrap();
    assert!(matches!(LogStore::open(folder.path(), small()), Err(OpenError::Locked { .. })));
    store.close().unwrap();
    LogStore::open(folder.path(), small()).unwrap();
}

#[test]
fn a_path_that_is_a_file_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    std::fs::write(&path, "mine").unwrap();
    assert!(matches!(LogStore::open(&path, small()), Err(OpenError::NotAFolder { .. })));
    assert_eq!(std::fs::read(&path).unwrap(), b"mine");
}

#[test]
fn the_zeros_that_a_file_is_extended_by_are_no_damage_and_no_cut_and_are_given_back() {
    let disk = SimDisk::default();
    let store = support::open(&disk);
    store.append(&[words::publish(1, &["a"])]).wait().unwrap();
    let used = used(&disk.files())["0000000001.log"] as usize;
    let deadline = Instant::now() + Duration::from_secs(30);
    while disk.files()["0000000001.log"].len() <= used + 100 {
        assert!(Instant::now() < deadline, "it is not extended");
        std::thread::yield_now();
    }
    // As `kill -9` leaves it.
    let files = disk.files();
    let content = &files["0000000001.log"];
    assert!(content[used..].iter().all(|byte| *byte == 0));
    store.close().unwrap();
    assert_eq!(
        disk.files()["0000000001.log"].len(),
        used,
        "an orderly end gives back what it was extended by"
    );
    for length in used..=content.len() {
        let mut cut = files.clone();
        cut.get_mut("0000000001.log").unwrap().truncate(length);
        let disk = SimDisk::with(&cut);
        let store = LogStore::open_on(Arc::new(disk.clone()), small()).unwrap();
        assert_eq!(store.recovery().cut, None);
        assert_eq!(disk.files()["0000000001.log"].len(), used, "and so does the next opening");
        assert_eq!(store.queue("a", 0, usize::MAX).len(), 1);
    }
    // What is not zero is a record that was torn, and said so.
    let mut torn = files.clone();
    torn.get_mut("0000000001.log").unwrap()[used + 50] = 1;
    let store = open(&torn).unwrap();
    assert_eq!(store.recovery().cut.as_ref().map(|cut| cut.offset), Some(used as u64));
}
