//! Folders that cannot be a store: one sentence with the path, the cause and what to do, and nothing is changed.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests stop where they fail")]
#![allow(
    clippy::explicit_write,
    reason = "that a test is skipped is to be seen though its output is captured"
)]

mod support;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use support::{small, words};
use weirmq_store::{LogStore, ReadOnlyStore, Store, verify};

/// All that is in a folder: what each file has in it, and when it was last changed.
fn image(folder: &Path) -> BTreeMap<PathBuf, (Vec<u8>, std::time::SystemTime)> {
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            files.insert(path.clone(), (Vec::new(), std::time::UNIX_EPOCH));
            files.append(&mut image(&path));
        } else {
            let modified = path.metadata().unwrap().modified().unwrap();
            files.insert(path.clone(), (std::fs::read(&path).unwrap(), modified));
        }
    }
    files
}

/// A parent folder with a store in `store`, that was closed, without its lock: as a backup brings it back.
fn a_store() -> tempfile::TempDir {
    let parent = tempfile::tempdir().unwrap();
    let store = LogStore::open(&parent.path().join("store"), small()).unwrap();
    for record in words::records(60, 2) {
        store.append(&record).wait().unwrap();
    }
    store.close().unwrap();
    std::fs::remove_file(parent.path().join("store/lock")).unwrap();
    parent
}

/// Opening `folder` fails with a sentence that has all of `says` in it, and changes nothing in `parent`.
fn refused(parent: &Path, folder: &Path, says: &[&str]) {
    let before = image(parent);
    let error = LogStore::open(folder, small()).unwrap_err().to_string();
    assert!(!error.contains('\n'), "one sentence: {error}");
    for part in says {
        assert!(error.contains(part), "'{part}' is not in: {error}");
    }
    assert!(image(parent) == before, "something on the disk was changed");
}

#[test]
fn a_corrupt_folder() {
    let parent = a_store();
    let folder = parent.path().join("store");
    let file = folder.join("0000000001.log");
    let mut content = std::fs::read(&file).unwrap();
    content[200] ^= 1;
    std::fs::write(&file, content).unwrap();
    refused(
        parent.path(),
        &folder,
        &[file.to_str().unwrap(), "damaged at byte", "checksum", "restore it from a backup"],
    );
    assert!(!verify(&folder).unwrap().is_sound());
}

#[test]
fn a_newer_format() {
    let parent = a_store();
    let folder = parent.path().join("store");
    let file = folder.join("0000000001.log");
    let mut content = std::fs::read(&file).unwrap();
    content[8] = 7;
    let checksum = crc32c::crc32c(&content[..36]).to_le_bytes();
    content[36..40].copy_from_slice(&checksum);
    std::fs::write(&file, content).unwrap();
    refused(parent.path(), &folder, &[file.to_str().unwrap(), "format 7", "up to 2", "use a newer broker"]);
}

#[test]
fn a_path_that_is_a_file_or_goes_through_one() {
    let parent = tempfile::tempdir().unwrap();
    let file = parent.path().join("file");
    std::fs::write(&file, "mine").unwrap();
    refused(parent.path(), &file, &[file.to_str().unwrap(), "is not a folder", "configure one"]);
    let through = file.join("store");
    refused(parent.path(), &through, &[through.to_str().unwrap(), "is not a folder", "configure one"]);
}

#[test]
fn a_file_that_is_missing() {
    let parent = a_store();
    let file = parent.path().join("store/durable.mark");
    std::fs::remove_file(&file).unwrap();
    refused(parent.path(), &parent.path().join("store"), &[file.to_str().unwrap(), "is missing", "backup"]);
}

#[test]
fn no_store_at_all_for_who_wants_to_look_at_one() {
    let parent = tempfile::tempdir().unwrap();
    for (folder, says) in
        [(parent.path().to_owned(), "has no store in it"), (parent.path().join("a"), "No such file")]
    {
        for error in [ReadOnlyStore::open(&folder).unwrap_err(), verify(&folder).unwrap_err()] {
            let error = error.to_string();
            assert!(error.contains(folder.to_str().unwrap()) && error.contains(says), "{error}");
        }
    }
    assert!(image(parent.path()).is_empty());
}

const NOBODY_FOLDER: &str = "WEIRMQ_STORE_NOBODY_FOLDER";

/// What the child does that has no right to anything.
#[test]
fn child_that_may_nothing() {
    let Ok(folder) = std::env::var(NOBODY_FOLDER) else { return };
    let error = LogStore::open(Path::new(&folder), small()).unwrap_err();
    println!("said: {error}");
}

/// What opening `folder` says to a user who may nothing; `None` where there is no such user to be had.
fn said_to_nobody(folder: &Path) -> Option<String> {
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "child_that_may_nothing", "--nocapture"])
        .env(NOBODY_FOLDER, folder);
    let output = command.output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return text.split_once("said: ").and_then(|(_, rest)| rest.lines().next()).map(str::to_owned);
    }
    let why = String::from_utf8_lossy(&output.stderr);
    writeln!(std::io::stderr(), "SKIPPED: no test without rights, as setpriv does not work here: {why}")
        .unwrap();
    None
}

#[test]
fn no_permission() {
    use std::os::unix::fs::PermissionsExt;
    let parent = a_store();
    let mode = |path: &Path, mode| std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    mode(parent.path(), 0o755);
    let folder = parent.path().join("store");
    for (what, folder) in [("a new one", parent.path().join("new")), ("one that is there", folder.clone())] {
        mode(&parent.path().join("store"), 0o755);
        let before = image(parent.path());
        let Some(error) = said_to_nobody(&folder) else { return };
        assert!(error.contains(folder.to_str().unwrap()), "{what}: {error}");
        assert!(error.contains("Permission denied") && error.contains("give this process's user"), "{error}");
        assert!(image(parent.path()) == before, "{what}: something on the disk was changed");
    }
}

/// A small file system of its own in a folder, until it is dropped. `None` where none can be mounted.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", "size=256k", "tmpfs"]).arg(folder.path());
        let output = command.output().ok()?;
        if output.status.success() {
            return Some(Self(folder));
        }
        let why = String::from_utf8_lossy(&output.stderr);
        writeln!(std::io::stderr(), "SKIPPED: no test on a full disk, as none can be mounted: {why}")
            .unwrap();
        None
    }

    /// Leaves so many bytes of room, rounded up to pages.
    fn fill_but(&self, bytes: usize) {
        let mut ballast = std::fs::File::create(self.0.path().join("ballast")).unwrap();
        while ballast.write_all(&[0; 1024]).is_ok() {}
        let length = ballast.metadata().unwrap().len();
        ballast.set_len(length.saturating_sub(bytes as u64)).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.0.path()).status();
    }
}

#[test]
fn a_full_disk_at_the_start_of_a_new_store() {
    let Some(disk) = SmallDisk::mount() else { return };
    disk.fill_but(0);
    let folder = disk.0.path().join("store");
    refused(disk.0.path(), &folder, &[folder.to_str().unwrap(), "No space left", "make room on its disk"]);
    // Room for the lock and the mark, and none for a segment.
    disk.fill_but(8 * 1024);
    refused(disk.0.path(), &folder, &["No space left", "make room on its disk"]);
}

#[test]
fn a_full_disk_at_the_start_of_a_store_that_comes_back_when_there_is_room() {
    let Some(disk) = SmallDisk::mount() else { return };
    let folder = disk.0.path().join("store");
    let store = LogStore::open(&folder, small()).unwrap();
    for record in words::records(60, 2) {
        store.append(&record).wait().unwrap();
    }
    let held = support::snapshot(&store);
    store.close().unwrap();
    disk.fill_but(0);
    let before: Vec<_> =
        image(disk.0.path()).into_iter().map(|(path, (content, _))| (path, content)).collect();
    let error = LogStore::open(&folder, small()).unwrap_err().to_string();
    assert!(error.contains("No space left") && error.contains("make room on its disk"), "{error}");
    let after: Vec<_> =
        image(disk.0.path()).into_iter().map(|(path, (content, _))| (path, content)).collect();
    assert!(before == after, "something on the disk was changed");
    std::fs::remove_file(disk.0.path().join("ballast")).unwrap();
    assert!(support::snapshot(&LogStore::open(&folder, small()).unwrap()) == held);
}

#[test]
fn a_disk_that_runs_full_stops_acknowledgements_and_what_was_acknowledged_is_there_when_there_is_room() {
    let Some(disk) = SmallDisk::mount() else { return };
    let folder = disk.0.path().join("store");
    let store = LogStore::open(&folder, small()).unwrap();
    disk.fill_but(64 * 1024);
    let mut acknowledged = 0;
    let full = loop {
        match store.append(&[words::publish(7, &["a"])]).wait() {
            Ok(()) => acknowledged += 1,
            Err(error) => break error,
        }
    };
    assert!(full.is_full() && acknowledged > 10, "{acknowledged}, {full}");
    assert!(store.append(&[words::publish(7, &["a"])]).wait().is_err());
    assert_eq!(store.message("a", 1).unwrap().unwrap().0, words::message(7), "reads go on");
    drop(store);
    std::fs::remove_file(disk.0.path().join("ballast")).unwrap();
    let store = LogStore::open(&folder, small()).unwrap();
    assert!(store.queue("a", 0, usize::MAX).len() >= acknowledged);
    store.append(&[words::publish(7, &["a"])]).wait().unwrap();
}

#[test]
fn neither_a_backup_nor_an_import_leaves_anything_on_a_disk_that_is_full() {
    let Some(disk) = SmallDisk::mount() else { return };
    let parent = a_store();
    let store = LogStore::open(&parent.path().join("store"), small()).unwrap();
    let mut lines = Vec::new();
    weirmq_store::portable::export(&store, &mut lines).unwrap();
    let (mut refused, mut done) = (0, 0);
    for room in (0..96).step_by(4) {
        disk.fill_but(room * 1024);
        let before = image(disk.0.path());
        for made in ["backup", "import"] {
            let folder = disk.0.path().join(made);
            let error = if made == "backup" {
                store.backup(&folder).map(drop).map_err(|error| error.to_string())
            } else {
                weirmq_store::portable::import(&mut &*lines, &folder)
                    .map(drop)
                    .map_err(|error| error.to_string())
            };
            match error {
                Err(error) => {
                    refused += 1;
                    assert!(error.contains("No space left"), "{made}, {room} KiB: {error}");
                    assert!(image(disk.0.path()) == before, "{made}, {room} KiB: something was left behind");
                }
                Ok(()) => {
                    done += 1;
                    let opened = ReadOnlyStore::open(&folder).unwrap();
                    assert!(support::snapshot(&opened) == support::snapshot(&store), "{made}, {room} KiB");
                    std::fs::remove_dir_all(folder).unwrap();
                }
            }
        }
    }
    assert!(refused > 4 && done > 4, "{refused} were refused, {done} were done");
}
