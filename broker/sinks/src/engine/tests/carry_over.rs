//! What is unwritten at the end comes back at the next start.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;

use super::super::Entry;
use super::super::spill::SpillFile;
use super::{Rig, Scripted, numbers, quick, written};
use crate::config::BufferConfig;
use crate::testing::soon;

fn spill_of(folder: &Path) -> SpillFile {
    SpillFile::new(folder, "s".into(), 1_000)
}

#[tokio::test]
async fn what_is_spilled_comes_back_as_it_was_with_the_same_ids() {
    let rig = Rig::new(quick());
    rig.push(0..3);
    let before = rig.buffer.drain();
    rig.spill.write(&before).unwrap();
    rig.buffer.spilled(true);
    assert_eq!((rig.buffer.stats().spilled, rig.buffer.stats().buffered_records), (3, 0));
    let restored = spill_of(rig.folder.path()).restore().unwrap();
    assert!(restored.damage.is_none());
    for (old, new) in before.iter().zip(&restored.entries) {
        assert_eq!((old.id, &old.record), (new.id, &new.record));
    }
    assert_eq!(restored.entries.len(), 3);
}

#[tokio::test]
async fn the_spill_file_stays_until_all_that_it_holds_has_met_its_end() {
    let first = Rig::new(quick());
    first.push(0..4);
    first.spill.write(&first.buffer.drain()).unwrap();
    let rig = Rig::new(BufferConfig { batch_records_max: 2, ..quick() });
    fs::copy(first.spill.path(), rig.spill.path()).unwrap();
    let entries = rig.spill.restore().unwrap().entries;
    rig.buffer.restore(entries.into_iter().map(|entry| (entry, None)));
    rig.push([4]);
    let path = rig.spill.path().to_owned();
    let there = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&there);
    let (worker, _stop) = rig.work(Scripted(move |batch: &[i64]| {
        log.lock().push((batch.to_vec(), path.exists()));
        written(batch)
    }));
    rig.buffer.close();
    soon(worker).await.unwrap();
    assert_eq!(*there.lock(), [(vec![0, 1], true), (vec![2, 3], true), (vec![4], false)]);
    let stats = rig.buffer.stats();
    assert_eq!((stats.restored, stats.accepted, stats.written), (4, 1, 5));
}

#[test]
fn a_damaged_spill_file_gives_what_can_be_read_and_is_kept_aside_whole() {
    let rig = Rig::new(quick());
    rig.push(0..3);
    rig.spill.write(&rig.buffer.drain()).unwrap();
    let good = fs::read_to_string(rig.spill.path()).unwrap();
    let lines: Vec<&str> = good.lines().collect();
    // The disk lost a line, somebody edited one, the last was cut off.
    let damaged = format!("{}\n\0\0\0\n{}\n{{\"id\":7}}\n{}", lines[0], lines[1], lines[2]);
    fs::write(rig.spill.path(), &damaged).unwrap();
    let spill = spill_of(rig.folder.path());
    let restored = spill.restore().unwrap();
    let read: Vec<Arc<Entry>> = restored.entries.into_iter().map(Arc::new).collect();
    assert_eq!(numbers(&read), [0, 1]);
    let damage = restored.damage.unwrap();
    assert_eq!((damage.lines, damage.first.0), (3, 2));
    assert_eq!(fs::read_to_string(damage.kept).unwrap(), damaged);
    assert!(!spill.path().exists() && !spill.is_pending());
}

#[test]
fn a_spill_file_that_is_no_text_at_all_is_an_answer_not_a_panic() {
    let folder = tempfile::tempdir().unwrap();
    let spill = spill_of(folder.path());
    assert!(spill.restore().unwrap().entries.is_empty());
    let noise: Vec<u8> = (0..50_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    for content in [&noise[..], b"[", b"\xff\xfe", "[".repeat(100_000).as_bytes()] {
        fs::write(spill.path(), content).unwrap();
        let restored = spill.restore().unwrap();
        assert!(restored.entries.is_empty() && restored.damage.is_some());
    }
}
