//! `weirmq store`: on a folder, and on folders that are none.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use bytes::Bytes;
use serde_json::Value;
use weirmq_store::event::SessionHeader;
use weirmq_store::{Config, Event, LogStore, ReadOnlyStore, Snapshot, Store};

use super::command::weirmq;

fn run(arguments: &[&str]) -> Output {
    weirmq().arg("store").args(arguments).output().unwrap()
}

fn said(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// What it says when it refuses: one line.
fn refused(arguments: &[&str]) -> String {
    let output = run(arguments);
    assert!(!output.status.success(), "{arguments:?} is done");
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(error.trim_end().lines().count(), 1, "{error}");
    error
}

fn session() -> Event {
    let session = SessionHeader {
        principal: "someone".into(),
        expiry_s: 60,
        ends_at_unix_ms: None,
        will: None,
        will_due_unix_ms: None,
    };
    Event::SessionSet { client: "press-17".into(), session }
}

fn key(number: u8) -> Event {
    let value = Bytes::from(vec![number; 100]);
    Event::KeySet { namespace: "a plugin".into(), key: vec![number].into(), value }
}

/// A data folder with a store in it, that no broker runs on.
fn data_folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let store = LogStore::open(&folder.path().join("store"), Config::default()).unwrap();
    store.append(&[session(), key(1), key(255)]).wait().unwrap();
    store.close().unwrap();
    folder
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn a_store_is_looked_at_exported_and_imported() {
    let data = data_folder();
    let folder = data.path().join("store");
    let info = said(&run(&["info", "--data-folder", text(data.path())]));
    for part in
        [text(&folder), "format 2", "no broker runs on it", "sessions             1", "2 in 'a plugin'"]
    {
        assert!(info.contains(part), "'{part}' is not in\n{info}");
    }
    let info: Value = serde_json::from_str(&said(&run(&["info", "--json", text(&folder)]))).unwrap();
    assert_eq!((&info["sessions"], &info["keys"]["a plugin"]), (&1.into(), &2.into()));
    assert!(said(&run(&["verify", text(&folder)])).contains("is sound"));

    let lines = said(&run(&["export", text(&folder)]));
    let file = data.path().join("lines");
    run(&["export", "--output", text(&file), text(&folder)]);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), lines);
    let error = refused(&["export", "--output", text(&file), text(&folder)]);
    assert!(error.contains(text(&file)) && error.contains("that is not there yet"), "{error}");
    let elsewhere = tempfile::tempdir().unwrap();
    said(&run(&["import", text(&file), "--data-folder", text(elsewhere.path())]));
    let snapshot = |folder: &Path| Snapshot::of(&ReadOnlyStore::open(folder).unwrap()).unwrap();
    assert!(snapshot(&elsewhere.path().join("store")) == snapshot(&folder));

    let error = refused(&["import", text(&file), "--data-folder", text(elsewhere.path())]);
    assert!(error.contains("is not empty; name a new folder"), "{error}");
    std::fs::write(&file, lines.replace("\"expiry_s\":60", "\"expiry_s\":-60")).unwrap();
    let new = elsewhere.path().join("new");
    let error = refused(&["import", text(&file), text(&new)]);
    assert!(error.contains(": line 2, session.facts.expiry_s: invalid value: integer `-60`"), "{error}");
    assert!(error.contains(text(&file)) && !new.exists(), "{error}");
}

#[test]
fn lines_come_from_standard_input_too() {
    let data = data_folder();
    let mut export = weirmq()
        .args(["store", "export", "--data-folder", text(data.path())])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let new = data.path().join("new");
    let import = weirmq()
        .args(["store", "import", "-", text(&new)])
        .stdin(export.stdout.take().unwrap())
        .output()
        .unwrap();
    assert!(export.wait().unwrap().success());
    assert!(said(&import).contains("1 sessions"), "{import:?}");
    assert!(ReadOnlyStore::open(&new).is_ok());
}

#[test]
fn damage_is_said_by_file_and_by_the_exit_code_and_nothing_is_changed() {
    let data = data_folder();
    let folder = data.path().join("store");
    let file = folder.join("0000000001.log");
    let mut content = std::fs::read(&file).unwrap();
    content[80] ^= 1;
    std::fs::write(&file, &content).unwrap();
    let output = run(&["verify", text(&folder)]);
    assert_eq!(output.status.code(), Some(1));
    let found = String::from_utf8(output.stdout).unwrap();
    assert!(found.contains(&format!("damaged  {}", text(&file))), "{found}");
    assert!(found.contains("good ") && found.contains("restore it from a backup"), "{found}");
    let output = run(&["verify", "--json", text(&folder)]);
    assert_eq!(output.status.code(), Some(1));
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(found["sound"], false);
    let error = refused(&["info", text(&folder)]);
    assert!(error.contains(text(&file)) && error.contains("damaged at byte 40"), "{error}");
    refused(&["export", text(&folder)]);
    assert_eq!(std::fs::read(&file).unwrap(), content);
}

#[test]
fn what_is_no_store_is_said_so() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "mine").unwrap();
    for command in ["info", "verify", "export"] {
        let error = refused(&[command, text(folder.path())]);
        assert!(error.contains("has no store in it; name the folder"), "{error}");
        let error = refused(&[command, text(&file)]);
        assert!(error.contains(text(&file)) && error.contains("is not a folder"), "{error}");
        let error = refused(&[command, "--data-folder", text(folder.path())]);
        assert!(error.contains("No such file") && error.contains("name a folder that is there"), "{error}");
    }
    let error = refused(&["backup", text(&folder.path().join("b")), "--data-folder", text(folder.path())]);
    assert!(error.contains("no broker answers at"), "{error}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn a_store_that_may_not_be_read_is_said_so() {
    use std::os::unix::fs::PermissionsExt;
    let data = data_folder();
    std::fs::set_permissions(data.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let folder = data.path().join("store");
    std::fs::set_permissions(&folder, PermissionsExt::from_mode(0o700)).unwrap();
    let output = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", env!("CARGO_BIN_EXE_weirmq")])
        .args(["store", "info", text(&folder)])
        .output();
    let Ok(output) = output.map(|output| (output.status.code(), String::from_utf8(output.stderr).unwrap()))
    else {
        use std::io::Write;
        writeln!(std::io::stderr(), "SKIPPED: no test without rights, as there is no setpriv here").unwrap();
        return;
    };
    let (code, error) = output;
    assert_eq!(code, Some(1), "{error}");
    assert!(error.contains("Permission denied") && error.contains("give this process's user"), "{error}");
}
