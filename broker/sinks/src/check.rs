//! What can be said against a configuration of sinks before anything is opened.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::config::{Finding, Problem, Severity, common_findings};
use crate::disk;
use crate::engine::spill;
use crate::registry::SinksConfig;
use crate::set::StartError;

/// Everything that is wrong with `config`, sink by sink; changes nothing.
pub(crate) fn problems(config: &SinksConfig, data_folder: &Path) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut names: HashMap<String, &str> = HashMap::new();
    let mut files: HashMap<PathBuf, User<'_>> = HashMap::new();
    for (kind, sink) in config.each() {
        let name = sink.name();
        let mut findings = common_findings(sink);
        findings.extend(sink.findings(data_folder));
        if let Some(taken) = names.insert(name.to_lowercase(), name) {
            findings.push((Severity::Error, name_clash(name, taken)));
        }
        if let Some(file) = sink.file(data_folder) {
            let user = User { kind, name, shares: sink.shares_file() };
            findings.extend(file_clash(&file, data_folder, &user, files.get(&file)));
            files.entry(file).or_insert(user);
        }
        problems.extend(findings.into_iter().map(|(severity, text)| Problem {
            sink: name.to_owned(),
            severity,
            text,
        }));
    }
    problems.extend(left_behind(config, data_folder));
    problems
}

/// The sink that writes to a file.
struct User<'a> {
    kind: &'static str,
    name: &'a str,
    /// Whether others of its kind may, too.
    shares: bool,
}

/// Logs warnings, and turns errors into a refusal to start.
///
/// # Errors
/// [`StartError::Config`] with all errors.
pub(crate) fn heed(problems: Vec<Problem>) -> Result<(), StartError> {
    let (errors, warnings): (Vec<_>, Vec<_>) =
        problems.into_iter().partition(|problem| problem.severity == Severity::Error);
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    if errors.is_empty() { Ok(()) } else { Err(StartError::Config(errors)) }
}

/// Names are also names of files, and there are file systems that do not tell `A` from `a`.
fn name_clash(name: &str, taken: &str) -> String {
    if name == taken {
        "another sink has this name too; give each its own".to_owned()
    } else {
        format!("another sink is called '{taken}'; names must differ in more than upper and lower case")
    }
}

fn file_clash(file: &Path, data_folder: &Path, user: &User<'_>, first: Option<&User<'_>>) -> Option<Finding> {
    let clash = first.filter(|first| !(user.shares && first.kind == user.kind));
    let text = if let Some(first) = clash {
        format!("{} is written to by sink '{}' already; choose another file", file.display(), first.name)
    } else if file.starts_with(disk::own_folder(data_folder)) {
        format!("{} is in the folder of the broker's own files; choose another", file.display())
    } else {
        return None;
    };
    Some((Severity::Error, text))
}

/// Spill files of sinks that are no longer configured: nobody delivers what they hold.
fn left_behind(config: &SinksConfig, data_folder: &Path) -> Vec<Problem> {
    let sinks = config.each();
    let Ok(files) = fs::read_dir(disk::own_folder(data_folder)) else { return Vec::new() };
    let names = files.flatten().filter_map(|file| file.file_name().into_string().ok());
    let mut left: Vec<Problem> = names
        .filter_map(|file| file.strip_suffix(spill::SUFFIX).map(str::to_owned))
        .filter(|name| !sinks.iter().any(|(_, sink)| sink.name() == name))
        .map(|sink| Problem {
            text: format!(
                "it is not configured, but {} holds records for it; configure it again to have them delivered, \
                 or delete the file",
                disk::own_folder(data_folder).join(format!("{sink}{}", spill::SUFFIX)).display()
            ),
            severity: Severity::Warning,
            sink,
        })
        .collect();
    left.sort_by(|one, other| one.sink.cmp(&other.sink));
    left
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::parse;

    fn texts(toml: &str, data_folder: &Path) -> Vec<String> {
        problems(&parse(toml), data_folder).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn two_sinks_of_one_name_are_an_error_also_across_kinds() {
        let data = tempfile::tempdir().unwrap();
        let config = "[[sqlite]]\nname = 'a'\nfile = 'a.db'\n[[file]]\nname = 'a'\nfile = 'a.jsonl'\n\
                      [[webhook]]\nname = 'A'\nurl = 'http://localhost/'\n";
        // In the order of the registry: SQLite, webhooks, files.
        assert_eq!(
            texts(config, data.path()),
            [
                "sink 'A': another sink is called 'a'; names must differ in more than upper and lower case",
                "sink 'a': another sink is called 'A'; names must differ in more than upper and lower case",
            ]
        );
        let twice = "[[file]]\nname = 'a'\nfile = '1'\n[[file]]\nname = 'a'\nfile = '2'\n";
        assert_eq!(
            texts(twice, data.path()),
            ["sink 'a': another sink has this name too; give each its own"]
        );
    }

    #[test]
    fn two_sinks_do_not_write_to_one_file() {
        let data = tempfile::tempdir().unwrap();
        let config = "[[file]]\nname = 'a'\nfile = 'x'\n[[file]]\nname = 'b'\nfile = './x'\n\
                      [[sqlite]]\nname = 'c'\nfile = 'y'\n[[sqlite]]\nname = 'd'\nfile = 'y'\n";
        let shared = texts(&config.replace("'./x'", "'z'"), data.path());
        assert!(shared.is_empty(), "{shared:?}");
        let mixed = texts(&config.replace("'./x'", "'y'"), data.path());
        assert!(matches!(&mixed[..], [text] if text.contains("written to by sink 'c' already")), "{mixed:?}");
        let texts = texts(config, data.path());
        assert!(
            matches!(&texts[..], [text] if text.ends_with("/x is written to by sink 'a' already; choose another file")),
            "{texts:?}"
        );
    }

    #[test]
    fn bad_names_and_limits_are_told_together() {
        let data = tempfile::tempdir().unwrap();
        let config = "[[file]]\nname = '../a'\nfile = 'x'\nbuffer = { records_max = 0 }\n";
        assert_eq!(
            texts(config, data.path()),
            [
                "sink '../a': buffer.records_max is 0; it must be at least 1",
                "sink '../a': its name has '.' in it; use letters, digits, '_' and '-'",
            ]
        );
    }

    #[test]
    fn records_left_behind_for_a_sink_that_is_gone_are_warned_about() {
        let data = tempfile::tempdir().unwrap();
        fs::create_dir(data.path().join("sinks")).unwrap();
        for file in ["old.spill.jsonl", "a.spill.jsonl", "old.dead.jsonl"] {
            fs::write(data.path().join("sinks").join(file), "").unwrap();
        }
        let found = problems(&parse("[[file]]\nname = 'a'\nfile = 'x'\n"), data.path());
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].sink.as_str(), found[0].severity), ("old", Severity::Warning));
        assert!(heed(found).is_ok());
    }
}
