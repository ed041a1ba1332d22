//! From `weirmq plugin new` to a plugin that its own test and `weirmq plugin check` find good, in each language. The
//! components are those of `cargo xtask guests`, which builds them of the same projects by their own `build.sh`.

use std::process::Command;

use super::*;

/// What `weirmq plugin ARGUMENTS` does in the folder `at`.
fn plugin(at: &Path, arguments: &[&str]) -> (bool, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weirmq"));
    command.env_remove("WEIRMQ_CONFIG").current_dir(at).arg("plugin");
    let output = command.args(arguments).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(said).unwrap())
}

fn guest(name: &str) -> PathBuf {
    let folder = std::env::var_os("WEIRMQ_GUESTS").expect(
        "WEIRMQ_GUESTS is not set: this test needs the examples of plugins, so run it by `cargo xtask test`",
    );
    PathBuf::from(folder).join(format!("{name}.wasm"))
}

/// A project in `language`, with what its build makes; answers its folder and the name of its component.
fn built(parent: &Path, language: &str) -> (PathBuf, String) {
    let name = format!("example-{language}");
    let (good, said) = plugin(parent, &["new", "--lang", language, &name]);
    assert!(good, "{said}");
    let (folder, component) = (parent.join(&name), format!("{name}.wasm"));
    for line in [format!("cd {name}"), "sh build.sh".to_owned(), format!("weirmq plugin test {component}")] {
        assert!(said.contains(&line), "{said}");
        if !line.starts_with("cd ") {
            let readme = std::fs::read_to_string(folder.join("README.md")).unwrap();
            assert!(readme.contains(&line), "README.md says `{line}` too");
        }
    }
    let script = std::fs::read_to_string(folder.join("build.sh")).unwrap();
    assert!(script.contains(&format!("--output {component}")), "{script}");
    std::fs::copy(guest(&name), folder.join(&component)).unwrap();
    (folder, component)
}

fn a_new_project_passes_its_test(language: &str, tests: usize) {
    let folder = Folder::new("");
    let (project, component) = built(&folder.path(""), language);
    let (good, said) = plugin(&project, &["test", &component, "--config", "weirmq.toml"]);
    assert!(good && said.ends_with(&format!("{tests} tests passed\n")), "{said}");
    Config::load(&project.join("weirmq.toml")).unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn rust() {
    a_new_project_passes_its_test("rust", 3);
}

#[test]
fn c() {
    a_new_project_passes_its_test("c", 3);
}

#[test]
fn javascript() {
    a_new_project_passes_its_test("js", 3);
}

#[test]
fn python() {
    a_new_project_passes_its_test("python", 3);
}

#[test]
fn go() {
    a_new_project_passes_its_test("go", 4);
}

#[test]
fn what_is_no_project_is_refused_in_a_sentence() {
    let folder = Folder::new("");
    folder.write("taken/file", "");
    for (arguments, words) in [
        (&["new", "--lang", "c", "taken"][..], "taken is there already; take another name, or move it away"),
        (
            &["new", "--lang", "c", "Own_Login"],
            "'Own_Login' is no name for a plugin; take up to 64 lower case",
        ),
        (&["new", "--lang", "cobol", "own"], "[possible values: rust, c, js, python, go]"),
        (&["new", "own"], "--lang"),
        (&["new", "--lang", "go", "own", "--sdk", "."], "--sdk names the guest crate for Rust"),
        (&["new", "--lang", "rust", "own", "--sdk", "taken"], "taken is not the crate weirmq-plugin"),
        (&["new", "--lang", "rust", "weirmq-plugin"], "take another name"),
    ] {
        let (good, said) = plugin(&folder.path(""), arguments);
        assert!(!good && said.contains(words), "{arguments:?}: {said}");
    }
    assert!(!folder.path("own").exists(), "nothing is left behind");
    // Where nobody may write: below a file, whoever runs the test.
    let gone = Folder::new("");
    let at = gone.path("gone");
    std::fs::create_dir(&at).unwrap();
    let mut command = Command::new("sh");
    command.args([
        "-c",
        "rmdir ../gone && exec \"$0\" plugin new --lang c own",
        env!("CARGO_BIN_EXE_weirmq"),
    ]);
    let output = command.current_dir(&at).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && said.contains("choose a folder that you may write to"), "{said}");
}

#[test]
fn tests_of_a_plugin_say_what_was_wanted_and_what_came() {
    let folder = Folder::new("");
    folder.write("guard.wasm", plugins::authenticating("1.0.0"));
    let test = |answer: &str| {
        let ask = r#"{"client_id": "c"}"#;
        format!(r#"[{{"name": "it", "hook": "authenticate", "ask": {ask}, "answer": {answer}}}]"#)
    };
    folder.write("tests.json", test("\"next\""));
    let at = folder.path("");
    assert_eq!(plugin(&at, &["test", "guard.wasm"]), (true, "ok: it\n1 tests passed\n".to_owned()));
    folder.write("tests.json", test(r#"{"allow": {}}"#));
    let (good, said) = plugin(&at, &["test", "guard.wasm"]);
    assert!(!good && said.contains(r#"wanted {"allow":{}}"#) && said.contains(r#"got    "next""#), "{said}");
    assert!(said.ends_with("error: 1 of 1 tests failed\n"), "{said}");
    for (tests, words) in [
        ("[]", "there is no test in tests.json"),
        ("[{}]", "the tests tests.json are not right: missing field `name`"),
        (&test("1").replace("authenticate", "authorise"), "there is no hook 'authorise'"),
        (&test("1").replace("authenticate", "timer"), "it serves: authenticate"),
        (&test("1").replace("client_id", "id"), "test 'it': the JSON for authenticate is not right"),
    ] {
        folder.write("tests.json", tests);
        let (good, said) = plugin(&at, &["test", "guard.wasm"]);
        assert!(!good && said.contains(words), "{words}: {said}");
    }
    let (good, said) = plugin(&at, &["test", "guard.wasm", "--tests", "nowhere.json"]);
    assert!(!good && said.contains("cannot read the tests nowhere.json"), "{said}");
}

#[test]
fn bindings_are_written_and_what_is_no_interface_is_named() {
    let folder = Folder::new("");
    let wit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../plugin-api/wit/v0.1.0");
    let wit = wit.to_str().unwrap();
    let bindings = |rest: &[&str]| {
        let arguments = [&["bindings", "--output", "out", "--wit"], rest].concat();
        plugin(&folder.path(""), &arguments)
    };
    let (good, said) = bindings(&[wit, "--lang", "c", "--world", "auth-plugin"]);
    assert!(good && folder.path("out/auth_plugin.h").exists(), "{said}");
    folder.write("out/go.mod", "module mine");
    let (good, said) = bindings(&[wit, "--lang", "go", "--world", "auth-plugin"]);
    assert!(good && folder.path("out/wit_exports.go").exists(), "{said}");
    assert_eq!(std::fs::read_to_string(folder.path("out/go.mod")).unwrap(), "module mine");
    for (arguments, words) in [
        (&[wit, "--lang", "c", "--world", "auht-plugin"][..], "auht-plugin"),
        (&["nowhere", "--lang", "c"], "nowhere: "),
        (&[wit, "--lang", "perl"], "[possible values: c, go]"),
    ] {
        let (good, said) = bindings(arguments);
        assert!(!good && said.contains(words), "{arguments:?}: {said}");
    }
}

#[test]
fn what_asks_for_wasi_is_sealed_and_what_cannot_be_is_named() {
    let folder = Folder::new("");
    folder.write("guard.wasm", plugins::authenticating("1.0.0"));
    folder.write("wasi.wasm", plugins::asking_for_wasi("1.0.0"));
    folder.write("other.wasm", "no plugin");
    folder.write("module.wasm", wat::parse_str("(module)").unwrap());
    let at = folder.path("");
    let (good, said) = plugin(&at, &["check", "wasi.wasm"]);
    assert!(!good && said.contains("wasi:clocks/monotonic-clock@0.2.0"), "{said}");
    assert!(said.contains("weirmq plugin seal"), "{said}");
    let (good, said) = plugin(&at, &["seal", "wasi.wasm", "--output", "sealed.wasm"]);
    assert!(good && said.is_empty(), "{said}");
    let (good, said) = plugin(&at, &["check", "sealed.wasm"]);
    assert!(good && said.contains("imports     types, log, clock\n"), "{said}");
    let (good, said) = plugin(&at, &["seal", "guard.wasm", "--output", "same.wasm"]);
    assert!(good, "{said}");
    assert!(std::fs::read(folder.path("same.wasm")).unwrap() == plugins::authenticating("1.0.0"));
    for (arguments, words) in [
        (&["other.wasm", "--output", "x.wasm"][..], "other.wasm is not a WebAssembly file"),
        (&["nowhere.wasm", "--output", "x.wasm"], "cannot read nowhere.wasm"),
        (&["module.wasm", "--output", "x.wasm"], "name it with --wit and --world"),
        (&["wasi.wasm", "--output", "nowhere/x.wasm"], "cannot write nowhere/x.wasm"),
        (&["wasi.wasm"], "--output"),
        (&["wasi.wasm", "--output", "x.wasm", "--world", "auth-plugin"], "--wit"),
    ] {
        let (good, said) = plugin(&at, &[&["seal"], arguments].concat());
        assert!(!good && said.contains(words), "{arguments:?}: {said}");
    }
    assert!(!folder.path("x.wasm").exists());
}

#[test]
fn what_is_asked_for_stands_beside_what_is_granted() {
    let table = "[[plugin]]\nname = 'asking'\nfile = 'asking.wasm'\n";
    let folder = Folder::new(&format!(
        "{table}secrets.token = {{ env = 'TOKEN' }}\ngrant = {{ publish = ['alerts/#'], key-value = true }}\n"
    ));
    std::fs::copy(guest("asking"), folder.path("asking.wasm")).unwrap();
    let at = folder.path("");
    // Nobody can have granted anything.
    let (good, said) = plugin(&at, &["check", "asking.wasm"]);
    assert!(good, "{said}");
    for words in [
        "interface   0.1.0",
        "hooks       authenticate",
        "bytes",
        "compiled in ",
        "http        (not said which)  none",
        "publish     alerts/#          none",
        "it was not started; add to its [[plugin]] table in weirmq.toml what it may have:",
        "\n  grant.http = [\"HOST\"]\n",
        "\n  grant.publish = [\"alerts/#\"]\n",
        "\n  secrets.token = { file = \"FILE\" }\n",
        "\n  grant.key-value = true\n",
        "\n  grant.revoke = true\n",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
    // Somebody has, and not everything.
    let (good, said) = plugin(&at, &["check", "asking.wasm", "--config", "weirmq.toml"]);
    assert!(!good, "{said}");
    for words in [
        "publish     alerts/#          alerts/#",
        "secrets     token             token",
        "key-value   yes               100000 keys, 16777216 bytes",
        "revoke      yes               none",
        "error: plugin 'asking' asks for HTTP requests, revoking, which nothing grants; if it may have that, add to \
         its [[plugin]] table in weirmq.toml: grant.http = [\"HOST\"]; grant.revoke = true\n",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
    // And everything.
    folder.write("token", "s3cret");
    folder.write(
        "weirmq.toml",
        format!(
            "{table}secrets.token = {{ file = 'token' }}\n\
             grant = {{ http = ['a.example'], publish = ['alerts/#'], key-value = true, revoke = true }}\n"
        ),
    );
    let (good, said) = plugin(&at, &["check", "asking.wasm", "--config", "weirmq.toml"]);
    assert!(good && said.ends_with("it loads\n"), "{said}");
    assert!(said.contains("http        (not said which)  a.example") && !said.contains("s3cret"), "{said}");
}
