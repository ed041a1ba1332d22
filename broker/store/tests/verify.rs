//! `verify` says of a folder what opening it would say, for every damage, and more: which files, and all of them.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests stop where they fail")]

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;

use support::sim::{Loss, SimDisk};
use support::{open, small, words};
use weirmq_store::{Condition, LogStore, ReadOnlyStore, Snapshot, Store, verify, verify_on};

type Files = BTreeMap<String, Vec<u8>>;

fn log(records: usize) -> Files {
    let disk = SimDisk::default();
    let store = open(&disk);
    for record in words::records(records, 3) {
        store.append(&record).wait().unwrap();
    }
    disk.files()
}

/// Whether it is sound, which must be what opening says; nothing may be changed.
fn sound(files: &Files, damage: &str) -> bool {
    let disk = SimDisk::with(files);
    let verification = verify_on(&disk);
    let opens_to_be_read = ReadOnlyStore::open_on(Arc::new(disk.clone())).is_ok();
    assert!(disk.files() == *files, "{damage}: something on the disk was changed");
    let opened = LogStore::open_on(Arc::new(disk), small());
    let sound = verification.as_ref().is_ok_and(|found| found.is_sound());
    assert_eq!(sound, opened.is_ok(), "{damage}: {verification:#?}, and opening says {opened:?}");
    assert_eq!(sound, opens_to_be_read, "{damage}");
    sound
}

#[test]
fn every_cut_and_every_flipped_bit_is_judged_as_opening_judges_it() {
    let files = log(24);
    let (mut good, mut bad) = (0, 0);
    for (name, content) in &files {
        for at in
            (0..content.len()).filter(|at| if name == "durable.mark" { at % 4096 <= 40 } else { at % 3 == 0 })
        {
            let mut cut = files.clone();
            cut.get_mut(name).unwrap().truncate(at);
            let mut flipped = files.clone();
            flipped.get_mut(name).unwrap()[at] ^= 1 << (at % 8);
            for (damaged, damage) in [(cut, "cut"), (flipped, "flipped")] {
                match sound(&damaged, &format!("{name} {damage} at {at}")) {
                    true => good += 1,
                    false => bad += 1,
                }
            }
        }
        let mut without = files.clone();
        without.remove(name);
        sound(&without, &format!("{name} is not there"));
    }
    assert!(good > 50 && bad > 500, "{good} did no harm, {bad} did");
}

#[test]
fn what_power_loss_leaves_is_sound() {
    let disk = SimDisk::default();
    let store = open(&disk);
    for (index, record) in words::records(60, 4).iter().enumerate() {
        store.append(record).wait().unwrap();
        if index % 3 == 0 {
            store.compact_step().unwrap();
        }
    }
    let mut cuts = 0;
    for calls in 0..disk.trace_len() {
        for loss in [Loss::All, Loss::Torn, Loss::Nothing, Loss::Random(9)] {
            let image = disk.after_power_loss(calls, loss);
            let Ok(found) = verify_on(&image) else {
                assert!(image.files().keys().all(|name| !name.ends_with(".log")), "there is a store");
                continue;
            };
            assert!(found.is_sound(), "{calls}, {loss:?}: {found:#?}");
            let cut = |condition: &Condition| matches!(condition, Condition::Cut { .. });
            cuts += usize::from(found.files.iter().any(|file| cut(&file.condition)));
        }
    }
    assert!(cuts > 20, "cuts were seen: {cuts}");
}

#[test]
fn each_damaged_file_is_named_and_the_others_are_called_good() {
    let mut files = log(120);
    let names: Vec<_> = files.keys().filter(|name| name.ends_with(".log")).cloned().collect();
    assert!(names.len() > 3, "{names:?}");
    files.get_mut(&names[0]).unwrap()[100] ^= 1;
    files.get_mut(&names[2]).unwrap().truncate(60);
    let found = verify_on(&SimDisk::with(&files)).unwrap();
    for file in &found.files {
        let name = file.path.file_name().unwrap().to_str().unwrap();
        let damaged = name == names[0] || name == names[2];
        assert_eq!(matches!(file.condition, Condition::Damaged { .. }), damaged, "{file:?}");
        assert_eq!(file.condition == Condition::Good, !damaged, "{file:?}");
        assert!(damaged || file.frames > 0, "{file:?}");
    }
}

#[test]
fn a_store_that_is_in_use_can_be_looked_at_and_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let store = LogStore::open(folder.path(), small()).unwrap();
    let records = words::records(40, 6);
    for record in &records {
        store.append(record).wait().unwrap();
    }
    let read = ReadOnlyStore::open(folder.path()).unwrap();
    assert!(read.stats().in_use && verify(folder.path()).unwrap().in_use);
    let before = Snapshot::of(&store).unwrap();
    assert!(Snapshot::of(&read).unwrap() == before);
    assert!(read.append(&records[0]).wait().is_err());
    for record in &records {
        store.append(record).wait().unwrap();
        store.compact_step().unwrap();
    }
    assert!(
        Snapshot::of(&read).unwrap() == before,
        "what it held then can be read for as long as it is wanted"
    );
    store.close().unwrap();
    assert!(!ReadOnlyStore::open(folder.path()).unwrap().stats().in_use);
}

#[test]
fn a_store_can_be_looked_at_again_and_again_while_appends_and_compaction_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let config = weirmq_store::Config { durability: weirmq_store::Durability::Os, ..small() };
    let store = LogStore::open(folder.path(), config).unwrap();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for record in words::records(600, 8).iter().cycle().take(1000) {
                store.append(record).wait().unwrap();
                store.compact_step().unwrap();
            }
            done.store(true, std::sync::atomic::Ordering::SeqCst);
        });
        let mut looks = 0;
        while !done.load(std::sync::atomic::Ordering::SeqCst) {
            ReadOnlyStore::open(folder.path()).unwrap();
            looks += 1;
        }
        assert!(looks > 0);
    });
}
