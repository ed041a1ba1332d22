//! Files that are no plugin: `weirmq plugin check` says what is wrong with each and what to do, a broker that is given
//! one says the same and goes on serving with the version before, and one that starts with it serves without.

use std::process::Command;

use super::*;

const CONFIG: &str = "auth.allow_anonymous = true\n[[plugin]]\nname = 'guard'\nfile = 'guard.wasm'\n\
                      deadline_ms = { init = 300 }\nmemory_mb = 8\n";

/// What the file holds, what must be said of it, and how large it is made.
struct Bad {
    bytes: Vec<u8>,
    words: [&'static str; 2],
    length: Option<u64>,
}

fn bad_files() -> Vec<Bad> {
    let text = |text: &str| wat::parse_str(text).unwrap();
    let bad = |bytes: Vec<u8>, words| Bad { bytes, words, length: None };
    let starting = |start: &str| plugins::starting("1.0.0", start);
    vec![
        bad(b"#!/bin/sh".to_vec(), ["is not a WebAssembly file", "must name a component"]),
        bad(text("(module)"), ["is a core WebAssembly module", "`weirmq plugin seal`"]),
        bad(
            text(r#"(component (instance $i) (export "weirmq:plugin/guest@0.9.0" (instance $i)))"#),
            ["'weirmq:plugin/guest@0.9.0'", "build it against plugin-api/wit of this broker"],
        ),
        bad(
            text(r#"(component (import "weirmq:plugin/files@0.1.0" (instance)))"#),
            ["imports 'weirmq:plugin/files@0.1.0', which there is not", "it must be built without"],
        ),
        bad(
            starting("(func $start (loop $again (br $again))) (start $start)"),
            ["failed in its start function: deadline passed", "raise its limits"],
        ),
        bad(
            starting(
                "(func $start (if (i32.eq (memory.grow (i32.const 1000)) (i32.const -1)) (then unreachable))) \
                 (start $start)",
            ),
            ["failed in its start function: memory limit reached", "raise its limits"],
        ),
        Bad {
            bytes: b"\0asm".to_vec(),
            words: ["guard.wasm' has more than 67108864 bytes", "file_bytes_max"],
            length: Some(500 << 20),
        },
    ]
}

impl Bad {
    fn write(&self, folder: &Folder, name: &str) {
        folder.write(".unfinished", &self.bytes);
        if let Some(length) = self.length {
            let file = std::fs::File::options().write(true).open(folder.path(".unfinished")).unwrap();
            // A file with a hole: nothing of it is on the disk.
            file.set_len(length).unwrap();
        }
        std::fs::rename(folder.path(".unfinished"), folder.path(name)).unwrap();
    }

    fn assert_said(&self, said: &str) {
        for words in self.words {
            assert!(said.contains(words), "{words}: {said}");
        }
    }
}

#[test]
fn each_is_refused_by_check_in_a_sentence() {
    for bad in bad_files() {
        let folder = Folder::new(CONFIG);
        bad.write(&folder, "guard.wasm");
        let mut command = Command::new(env!("CARGO_BIN_EXE_weirmq"));
        command.env_remove("WEIRMQ_CONFIG").current_dir(folder.path(""));
        let output =
            command.args(["plugin", "check", "guard.wasm", "--config", "weirmq.toml"]).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(said.lines().count(), 1, "{said}");
        bad.assert_said(&said);
    }
}

#[tokio::test]
async fn a_broker_that_is_given_one_goes_on_with_the_version_before() {
    let folder = Folder::new(CONFIG);
    folder.write("guard.wasm", plugins::authenticating("1.0.0"));
    let running = Running::start(&folder).await;
    for bad in bad_files() {
        bad.write(&folder, "guard.wasm");
        let live = Arc::clone(&running.live);
        let refused = tokio::task::spawn_blocking(move || live.reload_plugin("guard")).await.unwrap();
        let said = refused.unwrap_err().to_string();
        bad.assert_said(&said);
        assert!(said.contains("goes on serving"), "{said}");
        let assembly = running.live.assembly();
        assert_eq!(assembly.plugins()[0].serving().unwrap().info().version, "1.0.0");
    }
    running.end().await;
}

#[tokio::test]
async fn a_broker_that_starts_with_one_serves_without_it() {
    for bad in bad_files() {
        let folder = Folder::new(CONFIG);
        bad.write(&folder, "guard.wasm");
        let running = Running::start(&folder).await;
        bad.assert_said(&running.live.assembly().plugins()[0].absence().unwrap());
        assert_eq!(
            running.hooks_at(HookPoint::Authenticate),
            ["anonymous", "guard"],
            "it denies what it would decide"
        );
        running.end().await;
    }
}
