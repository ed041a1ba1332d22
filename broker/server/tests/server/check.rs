//! `weirmq check` finds what would keep a broker from starting or serving, and starts nothing.

use weirmq::check::check;

use super::*;

fn checked(folder: &Folder) -> (bool, String) {
    let mut out = Vec::new();
    let good = check(&folder.config_file(), &mut out).unwrap();
    (good, String::from_utf8(out).unwrap())
}

const WHOLE: &str = "
    [[plugin]]
    name = 'guard'
    file = 'guard.wasm'
    required = true
    [rules]
    [[sink.file]]
    name = 'log'
    file = 'log.jsonl'
";

#[test]
fn a_good_configuration_is_good_and_nothing_is_made() {
    let folder = Folder::new(WHOLE);
    folder.write("guard.wasm", plugins::authenticating("1.0.0"));
    folder.write("rules/a.rhai", rule("first"));
    let (good, said) = checked(&folder);
    assert!(good, "{said}");
    assert!(said.contains("ok: plugin guard 1.0.0 (test by its own name): authenticate"), "{said}");
    assert!(said.contains("a.rhai"), "{said}");
    assert!(said.ends_with("no errors, no warnings\n"), "{said}");
    assert!(!folder.path("weirmq-data").exists());
}

#[test]
fn everything_that_is_bad_is_listed() {
    let folder = Folder::new(&format!("{WHOLE}\n[limits]\nreceive_max = 0\nrecieve_max = 1\n"));
    folder.write("guard.wasm", "no plugin");
    folder.write("rules/a.rhai", rule("first"));
    folder.write("rules/b.rhai", "on(\"x\", \"a/#\", |msg| {\n  let = 3;\n});\n");
    folder.write("rules/c.rhai", "on(\"a\", |msg| sink(\"lag\", #{}));\n");
    let (good, said) = checked(&folder);
    assert!(!good);
    for words in [
        "error: ",
        "weirmq.toml:12:1: `receive_max` in [limits] is 0",
        "weirmq.toml:13:1: unknown key `recieve_max`",
        "plugin 'guard'",
        "is not a WebAssembly file",
        "rules/b.rhai:2:",
        "rules/c.rhai:1:20: there is no sink 'lag' in the configuration: did you mean 'log'?",
        "ok: rule file",
        "5 errors",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
}

#[test]
fn plugins_that_let_nobody_in_are_an_error() {
    let folder = Folder::new("[[plugin]]\nname = 'guard'\nfile = 'guard.wasm'\n");
    folder.write("guard.wasm", plugins::observing("1.0.0"));
    let (good, said) = checked(&folder);
    assert!(!good && said.contains("none of the plugins serves authenticate"), "{said}");
    folder.write(
        "weirmq.toml",
        "[[listener]]\naddress = '0.0.0.0:1883'\n[auth]\nallow_anonymous = true\n\
         [[plugin]]\nname = 'guard'\nfile = 'guard.wasm'\n",
    );
    let (good, said) = checked(&folder);
    assert!(!good && said.contains("refusing to listen at 0.0.0.0:1883"), "{said}");
}

#[test]
fn a_store_is_read_and_what_is_wrong_with_it_is_said() {
    let folder = Folder::new("auth.allow_anonymous = true");
    let store = folder.path("weirmq-data/store");
    weirmq_store::LogStore::open(&store, weirmq_store::Config::default()).unwrap().close().unwrap();
    let (good, said) = checked(&folder);
    assert!(good && said.contains(&format!("ok: store {}", store.display())), "{said}");
    let mark = store.join("durable.mark");
    std::fs::rename(&mark, folder.path("elsewhere")).unwrap();
    let (good, said) = checked(&folder);
    assert!(
        !good && said.contains(&format!("{} is missing; restore it from a backup", mark.display())),
        "{said}"
    );
}
