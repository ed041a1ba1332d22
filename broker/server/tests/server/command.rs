//! The command itself: start, what it says, signals, how it ends.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use super::*;

pub(super) fn weirmq() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weirmq"));
    command.env_remove("WEIRMQ_CONFIG").env_remove("WEIRMQ_LOG").stdin(Stdio::null());
    command
}

/// A broker that is killed when the test is over.
struct Process {
    child: Child,
    said: Vec<String>,
}

impl Process {
    /// Starts and waits until it says what it keeps: the last thing that it always says.
    fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut said = Vec::new();
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            let line = line.unwrap();
            let last = line.trim_start().starts_with("keeps ");
            said.push(line);
            if last {
                break;
            }
        }
        Self { child, said }
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([name, &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// The exit code, once it has ended.
    fn end(mut self) -> Option<i32> {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            std::thread::yield_now();
        }
        panic!("it has not ended");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn code_and_errors(command: &mut Command) -> (Option<i32>, String) {
    let output = command.output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn a_bare_broker_says_where_it_listens_and_ends_when_asked() {
    let folder = Folder::new("");
    let data = folder.path("data");
    let mut command = weirmq();
    command.args(["run", "--listen", "127.0.0.1:0", "--allow-anonymous", "--data-folder"]).arg(&data);
    let broker = Process::start(&mut command);
    let said = broker.said.join("\n");
    assert!(said.contains("listens at  127.0.0.1:") && !said.contains("127.0.0.1:0 "), "{said}");
    let status = weirmq().args(["status", "--data-folder"]).arg(&data).output().unwrap();
    assert!(String::from_utf8(status.stdout).unwrap().contains("0 clients connected"));
    let (code, errors) = code_and_errors(&mut command);
    assert_eq!(code, Some(1), "a second broker with the same data");
    assert!(errors.contains("another broker is running"), "{errors}");
    broker.signal("-TERM");
    assert_eq!(broker.end(), Some(0));
    assert!(!data.join("admin.sock").exists());
}

#[test]
fn the_start_tells_what_is_live() {
    let folder = Folder::new(
        "[[listener]]\naddress = '127.0.0.1:0'\n[[plugin]]\nname = 'guard'\nfile = 'guard.wasm'\n[rules]\n\
         [[sink.file]]\nname = 'history'\nfile = 'history.jsonl'\n",
    );
    folder.write("guard.wasm", plugins::authenticating("1.0.0"));
    folder.write("rules/a.rhai", rule("first"));
    let broker = Process::start(weirmq().args(["run", "--config"]).arg(folder.config_file()));
    let said = broker.said.join("\n");
    for words in
        ["guard 1.0.0", "authenticate", "first", "on a/{b}", "a.rhai:1", "history (file)", "weirmq-data"]
    {
        assert!(said.contains(words), "{words}: {said}");
    }
    let list = weirmq().args(["plugin", "list", "--config"]).arg(folder.config_file()).output().unwrap();
    assert!(String::from_utf8(list.stdout).unwrap().contains("serving"));
    let mut reload = weirmq();
    reload.args(["plugin", "reload", "guard", "--json", "--config"]).arg(folder.config_file());
    let said = String::from_utf8(reload.output().unwrap().stdout).unwrap();
    assert!(said.contains(r#""before":"1.0.0""#), "{said}");
    broker.signal("-INT");
    assert_eq!(broker.end(), Some(0));
}

#[test]
fn what_is_refused_is_refused_in_words_and_with_a_code() {
    let folder = Folder::new("[limits]\nmax_connections = 3\n");
    for (arguments, words) in [
        (&["run", "--listen", "0.0.0.0:0", "--allow-anonymous"][..], "refusing to listen at 0.0.0.0:0"),
        (&["run", "--listen", "127.0.0.1:0"], "--allow-anonymous"),
        (&["run", "--config", "weirmq.toml"], "weirmq.toml:2:1: unknown key `max_connections`"),
        (&["run", "--config", "nowhere.toml"], "nowhere.toml"),
        (&["plugin", "list", "--data-folder", "nowhere"], "no broker answers"),
    ] {
        let (code, errors) = code_and_errors(weirmq().current_dir(folder.path("")).args(arguments));
        assert_eq!(code, Some(1), "{arguments:?}: {errors}");
        assert!(errors.contains(words), "{arguments:?}: {errors}");
    }
    let checked = weirmq().current_dir(folder.path("")).arg("check").output().unwrap();
    assert_eq!(checked.status.code(), Some(1));
    assert!(String::from_utf8(checked.stdout).unwrap().contains("did you mean `connections_max`?"));
}

#[test]
fn a_password_is_read_from_standard_input() {
    let mut command = weirmq();
    command.arg("hash-password").stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"sesame\n").unwrap();
    let hash = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
    assert!(hash.starts_with("$argon2id$v=19$m=19456,t=4,p=1$"), "{hash}");
    quickstart::assert_verifies("sesame", hash.trim_end());
    let (code, errors) = code_and_errors(weirmq().arg("hash-password"));
    assert_eq!((code, errors.as_str()), (Some(1), "error: the password is empty\n"));
}
