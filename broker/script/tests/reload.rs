//! Saved is live: what a reload does with files that changed, broke, went, moved or cannot be read.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::sync::Arc;

use support::{Folder, Rules, message};
use weirmq_core::hook::{Actions, Hook, Observe};
use weirmq_script::{Config, Report, check};

const GOOD: &str = r#"on("good", "a", |msg| publish("b", 1));"#;
const OTHER: &str = r#"on("other", "a", |msg| publish("c", 2));"#;

/// Where the live rules publish to.
fn topics(rules: &Rules) -> Vec<String> {
    rules.actions("a", "").publish.into_iter().map(|(_, draft)| draft.topic).collect()
}

fn reload(rules: &Rules) -> Report {
    rules.hook.reload()
}

#[test]
fn what_is_saved_is_live_with_the_next_reload() {
    let folder = Folder::with(&[("a.rhai", GOOD)]);
    let (rules, report) = folder.load();
    assert_eq!((report.loaded, topics(&rules)), (vec!["a.rhai".to_owned()], vec!["b".to_owned()]));

    let report = reload(&rules);
    assert_eq!((report.changed(), report.unchanged), (false, vec!["a.rhai".to_owned()]));

    folder.write("a.rhai", OTHER);
    let report = reload(&rules);
    assert!(report.changed() && report.is_good());
    assert_eq!((report.replaced, topics(&rules)), (vec!["a.rhai".to_owned()], vec!["c".to_owned()]));

    folder.write("0.rhai", GOOD);
    let report = reload(&rules);
    assert_eq!((report.loaded, report.unchanged), (vec!["0.rhai".to_owned()], vec!["a.rhai".to_owned()]));
    assert_eq!(topics(&rules), ["b", "c"], "files run in the order of their names");

    folder.remove("a.rhai");
    let report = reload(&rules);
    assert_eq!((report.removed, topics(&rules)), (vec!["a.rhai".to_owned()], vec!["b".to_owned()]));
}

#[test]
fn a_broken_file_leaves_its_former_version_live_and_is_told_once() {
    let folder = Folder::with(&[("a.rhai", GOOD)]);
    let (rules, _) = folder.load();
    folder.write("a.rhai", "on(\"a\", |msg| {\n    publish(\"b\" 2);\n});");
    let report = reload(&rules);
    let error = &report.errors[0];
    assert_eq!((&*error.file, error.line, error.column, error.kept_old), ("a.rhai", 2, 17, true));
    assert!(!report.changed() && !report.is_good());
    assert!(
        report.to_string().contains("a.rhai:2:17") && report.to_string().contains("stays live"),
        "{report}"
    );
    assert_eq!(topics(&rules), ["b"]);

    let report = reload(&rules);
    assert_eq!((report.errors.len(), report.still_broken.len()), (0, 1));

    folder.write("a.rhai", OTHER);
    let report = reload(&rules);
    assert!(report.is_good() && report.replaced == ["a.rhai"]);
    assert_eq!(topics(&rules), ["c"]);
}

#[test]
fn a_file_that_was_never_good_has_no_rules_and_keeps_no_other_from_them() {
    let folder = Folder::with(&[("a.rhai", "on("), ("b.rhai", GOOD)]);
    let (rules, report) = folder.load();
    assert_eq!((report.errors.len(), report.errors[0].kept_old), (1, false));
    assert_eq!(topics(&rules), ["b"]);
    folder.remove("a.rhai");
    let report = reload(&rules);
    assert!(report.is_good() && !report.changed(), "{report}");
}

#[test]
fn a_file_that_throws_at_its_top_level_registers_nothing() {
    let folder = Folder::with(&[("a.rhai", &format!("{GOOD}\nthrow \"no\";"))]);
    let (rules, report) = folder.load();
    assert_eq!(report.errors[0].to_string(), "a.rhai:2:1: no");
    assert!(topics(&rules).is_empty());
}

#[test]
fn a_renamed_file_is_another_file_and_its_rule_keeps_its_name() {
    let folder = Folder::with(&[("z.rhai", GOOD)]);
    let (rules, _) = folder.load();
    std::fs::rename(folder.file("z.rhai"), folder.file("a.rhai")).unwrap();
    let report = reload(&rules);
    assert_eq!((report.loaded, report.removed), (vec!["a.rhai".to_owned()], vec!["z.rhai".to_owned()]));
    assert_eq!(&*rules.hook.rules()[0].file, "a.rhai");
}

#[test]
fn a_rule_may_move_between_files_in_either_direction() {
    let folder = Folder::with(&[("a.rhai", ""), ("b.rhai", GOOD)]);
    let (rules, _) = folder.load();
    folder.write("a.rhai", GOOD);
    folder.write("b.rhai", "");
    let report = reload(&rules);
    assert!(report.is_good(), "the name is free when b.rhai is through: {report}");
    assert_eq!(topics(&rules), ["b"]);
    folder.write("a.rhai", "");
    folder.write("b.rhai", GOOD);
    assert!(reload(&rules).is_good());
    assert_eq!(topics(&rules), ["b"]);
}

#[test]
fn two_rules_of_one_name_are_refused_until_one_of_them_is_gone() {
    let folder = Folder::with(&[("a.rhai", GOOD), ("b.rhai", GOOD)]);
    let (rules, report) = folder.load();
    assert_eq!(report.loaded, ["a.rhai"]);
    assert!(report.errors[0].to_string().contains("registered at a.rhai:1 already"), "{report}");
    assert_eq!(reload(&rules).still_broken.len(), 1);
    folder.remove("a.rhai");
    let report = reload(&rules);
    assert!(report.is_good(), "{report}");
    assert_eq!((report.loaded, topics(&rules)), (vec!["b.rhai".to_owned()], vec!["b".to_owned()]));
}

#[test]
fn what_cannot_be_read_is_an_error_and_the_former_version_stays() {
    let folder = Folder::with(&[("a.rhai", GOOD)]);
    let (rules, _) = folder.load();
    // A link to nowhere cannot be read by anybody, root included.
    folder.remove("a.rhai");
    std::os::unix::fs::symlink(folder.file("nowhere"), folder.file("a.rhai")).unwrap();
    let report = reload(&rules);
    assert!(report.errors[0].message.contains("cannot be read") && report.errors[0].kept_old, "{report}");
    assert_eq!(topics(&rules), ["b"]);
    assert_eq!((reload(&rules).errors.len(), reload(&rules).still_broken.len()), (0, 1), "told once");
    folder.remove("a.rhai");
    folder.write("a.rhai", OTHER);
    assert!(reload(&rules).is_good());
    assert_eq!(topics(&rules), ["c"]);

    std::fs::write(folder.file("a.rhai"), b"on(\"a\", |msg| {\n  // \xff\n});").unwrap();
    assert_eq!(
        reload(&rules).errors[0].to_string().split(" (").next(),
        Some("a.rhai:2:6: the file is no UTF-8 text")
    );
}

#[test]
fn a_device_in_the_folder_does_not_hold_the_reload_up() {
    let folder = Folder::with(&[("b.rhai", GOOD)]);
    std::os::unix::fs::symlink("/dev/zero", folder.file("a.rhai")).unwrap();
    let (rules, report) = folder.load();
    assert!(report.errors[0].to_string().contains("it is no file"), "{report}");
    assert_eq!(topics(&rules), ["b"]);
}

#[test]
fn subfolders_and_files_of_other_names_are_not_read() {
    let folder =
        Folder::with(&[("a.rhai", GOOD), (".hidden.rhai", "on("), ("notes.txt", "on("), ("b.rhai~", "on(")]);
    std::fs::create_dir(folder.file("sub.rhai")).unwrap();
    std::fs::write(folder.file("sub.rhai").join("c.rhai"), "on(").unwrap();
    let (_, report) = folder.load();
    assert!(report.is_good(), "{report}");
    assert_eq!(report.loaded, ["a.rhai"]);
}

#[test]
fn a_folder_that_is_gone_leaves_everything_live() {
    let folder = Folder::with(&[("a.rhai", GOOD)]);
    let (rules, _) = folder.load();
    std::fs::rename(folder.path(), folder.path().with_extension("away")).unwrap();
    let report = reload(&rules);
    assert!(!report.changed() && report.errors[0].message.contains("cannot be read"), "{report}");
    assert_eq!(topics(&rules), ["b"]);
    std::fs::rename(folder.path().with_extension("away"), folder.path()).unwrap();
    assert!(reload(&rules).is_good());
}

#[test]
fn what_is_bound_goes_on_as_it_was_until_it_is_bound_anew() {
    let folder = Folder::with(&[("a.rhai", GOOD)]);
    let (rules, _) = folder.load();
    let message = message("a", "");
    let bound: Vec<Arc<dyn Observe>> = Arc::clone(&rules.hook).on_message(&message.topic);
    folder.write("a.rhai", OTHER);
    reload(&rules);
    let mut actions = Actions::default();
    bound[0].observe(&message, support::NOW, &mut actions).unwrap();
    assert_eq!(actions.publish[0].1.topic, "b");
    assert_eq!(topics(&rules), ["c"]);
}

#[test]
fn a_rule_goes_on_counting_as_long_as_it_keeps_its_name() {
    let folder = Folder::with(&[("a.rhai", r#"on("good", "a", |msg| { throw "one"; });"#)]);
    let (rules, _) = folder.load();
    rules.failure("a", "");
    folder.write("a.rhai", "\non(\"good\", \"a\", |msg| {});");
    reload(&rules);
    rules.actions("a", "");
    let info = rules.hook.rules().remove(0);
    assert_eq!((info.runs, info.failures, info.line), (2, 1, 2));
    assert_eq!(info.last_failure.as_deref(), Some("crashed: a.rhai:1:25: one"));
}

#[test]
fn checking_puts_nothing_to_work_and_says_the_same() {
    let folder = Folder::with(&[("a.rhai", GOOD), ("b.rhai", "publihs(1);")]);
    let report = check(Config { folder: folder.path().to_owned(), ..Config::default() }).unwrap();
    assert_eq!(report.loaded, ["a.rhai"]);
    assert_eq!(
        report.errors[0].to_string(),
        "b.rhai:1:1: there is no function 'publihs': did you mean 'publish'?"
    );
}
