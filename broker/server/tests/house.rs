//! The house rules that the compiler does not hold: who may know what.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that meets what it does not expect should stop there"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use weirmq_core::hook::HookPoint;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

const CRATES: [&str; 7] = ["wire", "core", "store", "script", "host", "sinks", "server"];

/// The crates that `[dependencies]` of a crate name; what tests need is their own affair.
fn dependencies(name: &str) -> BTreeSet<String> {
    let manifest = root().join("broker").join(name).join("Cargo.toml");
    let table: toml::Table = toml::from_str(&fs::read_to_string(manifest).unwrap()).unwrap();
    let mut all: BTreeSet<String> = table["dependencies"].as_table().unwrap().keys().cloned().collect();
    if let Some(targets) = table.get("target").and_then(toml::Value::as_table) {
        for target in targets.values() {
            all.extend(target["dependencies"].as_table().into_iter().flat_map(toml::Table::keys).cloned());
        }
    }
    all
}

#[test]
fn dependencies_point_only_the_way_that_the_design_allows() {
    let may_use: [(&str, &[&str]); 7] = [
        ("wire", &[]),
        ("core", &["wire"]),
        ("store", &["core"]),
        ("script", &["core"]),
        // `native` is the contract with shared libraries: the C header's types, and no code of the broker.
        ("host", &["core", "native"]),
        ("sinks", &["core"]),
        // `kit` makes projects and components for authors of plugins, and has no code of the broker.
        ("server", &["core", "store", "script", "host", "sinks", "kit"]),
    ];
    for (name, allowed) in may_use {
        for dependency in dependencies(name) {
            let Some(other) = dependency.strip_prefix("weirmq-") else { continue };
            assert!(allowed.contains(&other), "{name} may not use {other}");
        }
    }
}

#[test]
fn what_has_no_io_knows_nothing_that_has() {
    let with_io = [
        "tokio",
        "mio",
        "socket2",
        "reqwest",
        "rusqlite",
        "wasmtime",
        "rhai",
        "notify",
        "libloading",
        "serde_json",
    ];
    for name in ["wire", "core"] {
        let known = dependencies(name);
        for forbidden in with_io {
            assert!(!known.contains(forbidden), "{name} knows {forbidden}");
        }
        for (path, text) in sources(name) {
            for forbidden in
                ["std::fs", "std::net::Tcp", "SystemTime::now", "Instant::now", "std::thread", "std::process"]
            {
                assert!(!text.contains(forbidden), "{} has {forbidden}", path.display());
            }
        }
    }
}

fn sources(name: &str) -> Vec<(PathBuf, String)> {
    let mut folders = vec![root().join("broker").join(name).join("src")];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let text = fs::read_to_string(&path).unwrap();
                found.push((path, text));
            }
        }
    }
    found
}

#[test]
fn no_crate_has_unsafe_code_but_the_bindings_and_the_boundary_to_c_of_the_host() {
    for name in CRATES {
        let lib = fs::read_to_string(root().join("broker").join(name).join("src/lib.rs")).unwrap();
        let lint = if name == "host" { "#![deny(unsafe_code)]" } else { "#![forbid(unsafe_code)]" };
        assert!(lib.contains(lint), "{name} lacks {lint}");
    }
    let src = root().join("broker/host/src");
    for (path, text) in sources("host") {
        let own = path.strip_prefix(&src).unwrap();
        if own == Path::new("lib.rs") {
            let allowed: Vec<&str> = text
                .split("#[allow(unsafe_code)]\n")
                .skip(1)
                .filter_map(|rest| rest.lines().next())
                .collect();
            assert_eq!(allowed, ["mod bindings;", "mod native;"]);
        } else if own.starts_with("native") {
            // Every block says why it is sound.
            let lines: Vec<&str> = text.lines().map(str::trim).collect();
            for (at, line) in lines.iter().enumerate().filter(|(_, line)| line.contains("unsafe {")) {
                let above = &lines[at.saturating_sub(4)..at];
                let reason = above.iter().any(|line| line.contains("SAFETY:"));
                assert!(reason, "{}:{}: {line}", own.display(), at + 1);
            }
        } else {
            assert!(!text.contains("allow(unsafe_code)"), "{} allows unsafe code", own.display());
        }
    }
}

#[test]
fn every_hook_point_is_served_by_somebody_and_written_down() {
    let wit = fs::read_to_string(root().join("plugin-api/wit/v0.1.0/hooks.wit")).unwrap();
    let plugin_docs = fs::read_to_string(root().join("plugin-api/README.md")).unwrap();
    let rule_docs = fs::read_to_string(root().join("rules/README.md")).unwrap();
    for point in HookPoint::ALL {
        if point == HookPoint::OnMessage {
            assert!(rule_docs.contains("on("), "rules have no word for {point}");
        } else {
            assert!(wit.contains(&format!("interface {point} ")), "{point} has no interface in the WIT");
            assert!(plugin_docs.contains(&format!("`{point}`")), "{point} is not in plugin-api/README.md");
        }
    }
}

#[test]
fn the_documents_name_files_that_exist() {
    for document in [
        "README.md",
        "broker/ARCHITECTURE.md",
        "plugins/README.md",
        "plugin-api/README.md",
        "rules/README.md",
        "examples/quickstart/README.md",
    ] {
        let path = root().join(document);
        let text = fs::read_to_string(&path).unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = link.split('#').next().unwrap();
            if file.is_empty() || file.contains("://") {
                continue;
            }
            assert!(
                path.parent().unwrap().join(file).exists(),
                "{document} links to {file}, which is not there"
            );
        }
    }
}
