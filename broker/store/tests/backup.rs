//! A backup of a store that goes on: it opens, and holds what had been acknowledged when it was asked for.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests stop where they fail")]

mod support;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use support::{records_before, small, snapshot, twin, words};
use weirmq_store::{BackupError, Config, Durability, LogStore, Store, verify};

#[test]
fn a_backup_holds_what_was_acknowledged_and_the_store_goes_on() {
    let parent = tempfile::tempdir().unwrap();
    let store = LogStore::open(&parent.path().join("store"), small()).unwrap();
    let records = words::records(120, 9);
    for record in &records[..60] {
        store.append(record).wait().unwrap();
    }
    let before = snapshot(&store);
    let folder = parent.path().join("backups/one");
    let backup = store.backup(&folder).unwrap();
    assert!(backup.linked >= 2 && backup.copied == 1, "{backup:?}");
    for record in &records[60..] {
        store.append(record).wait().unwrap();
        store.compact_step().unwrap();
    }
    assert!(verify(&folder).unwrap().is_sound());
    let opened = LogStore::open(&folder, small()).unwrap();
    assert!(snapshot(&opened) == before);
    assert_eq!(opened.recovery().cut, None);
    // Both live on, and neither sees the other.
    let after = snapshot(&store);
    for record in &records[..60] {
        opened.append(record).wait().unwrap();
        opened.compact_step().unwrap();
    }
    assert!(snapshot(&store) == after);
    store.close().unwrap();
    let store = LogStore::open(&parent.path().join("store"), small()).unwrap();
    assert!(snapshot(&store) == after);
}

fn backups_while_appends_and_compaction_go_on(durability: Durability) {
    let parent = tempfile::tempdir().unwrap();
    let config = Config { durability, ..small() };
    let store = LogStore::open(&parent.path().join("store"), config).unwrap();
    let records: Vec<_> = words::records(400, 10).into_iter().cycle().take(4_000).collect();
    let acknowledged = AtomicUsize::new(0);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for (index, batch) in records.chunks(5).enumerate() {
                let tickets: Vec<_> = batch.iter().map(|record| store.append(record)).collect();
                tickets.into_iter().for_each(|ticket| ticket.wait().unwrap());
                acknowledged.store(index * 5 + batch.len(), Ordering::SeqCst);
                store.compact_step().unwrap();
            }
            done.store(true, Ordering::SeqCst);
        });
        let mut taken = 0;
        while !done.load(Ordering::SeqCst) && taken < 40 {
            let folder = parent.path().join(format!("backup-{taken}"));
            let promised = acknowledged.load(Ordering::SeqCst);
            store.backup(&folder).unwrap();
            let opened = LogStore::open(&folder, small()).unwrap();
            let left = records_before(&records, opened.stats().next_number);
            assert!(left >= promised, "{left} of {promised}");
            assert!(snapshot(&opened) == snapshot(&twin(&records[..left])), "backup {taken}: another state");
            taken += 1;
        }
        assert!(taken > 3, "{taken} backups were made");
    });
}

#[test]
fn backups_while_appends_and_compaction_go_on_with_fsync() {
    backups_while_appends_and_compaction_go_on(Durability::Fsync);
}

#[test]
fn backups_while_appends_and_compaction_go_on_without_fsync() {
    backups_while_appends_and_compaction_go_on(Durability::Os);
}

#[test]
fn a_folder_that_has_something_is_refused_and_left_alone() {
    let parent = tempfile::tempdir().unwrap();
    let store = LogStore::open(&parent.path().join("store"), small()).unwrap();
    store.append(&[words::publish(1, &["a"])]).wait().unwrap();
    assert!(matches!(store.backup(&parent.path().join("store")), Err(BackupError::NotEmpty { .. })));
    let file = parent.path().join("file");
    std::fs::write(&file, "mine").unwrap();
    assert!(matches!(store.backup(&file), Err(BackupError::NotAFolder { .. })));
    assert!(store.backup(&file.join("in/it")).is_err());
    assert_eq!(std::fs::read(&file).unwrap(), b"mine");
}
