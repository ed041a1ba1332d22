//! The quickstart holds together: its passwords, its rules, and, where the guests are built, all of it.

use argon2::password_hash::PasswordVerifier;
use argon2::password_hash::phc::PasswordHash;
use weirmq::check::check;

use super::*;

pub(crate) fn assert_verifies(password: &str, hash: &str) {
    let hash = PasswordHash::new(hash).unwrap();
    assert!(argon2::Argon2::default().verify_password(password.as_bytes(), &hash).is_ok(), "{password}");
}

#[test]
fn the_passwords_in_the_readme_are_those_of_the_configuration() {
    let config = Config::load(&example("quickstart/weirmq.toml")).unwrap();
    let users = config.plugins[0].config["users"].as_object().unwrap();
    let readme = std::fs::read_to_string(example("quickstart/README.md")).unwrap();
    for (user, table) in users {
        let row = readme.lines().find(|line| line.starts_with(&format!("| `{user}` |")));
        let password =
            row.unwrap_or_else(|| panic!("{user} is not in the README")).split('`').nth(3).unwrap();
        assert_verifies(password, table["password_hash"].as_str().unwrap());
    }
    for line in &config.banner.try_it {
        assert!(readme.contains(line), "{line}");
    }
}

#[test]
fn the_rules_pass_their_tests() {
    let config = Config::load(&example("quickstart/weirmq.toml")).unwrap();
    let report = weirmq_script::run_tests(config.rules.unwrap()).unwrap();
    assert!(report.passed() && !report.tests.is_empty(), "{report}");
}

#[test]
fn the_quickstart_is_good_whatever_its_plugin_says() {
    let folder = tempfile::tempdir().unwrap();
    let login = folder.path().join("login.wasm");
    std::fs::write(&login, plugins::authenticating("1.0.0")).unwrap();
    assert_good_with(&login);
}

#[test]
fn the_quickstart_is_good() {
    let folder = std::env::var_os("WEIRMQ_GUESTS").expect(
        "WEIRMQ_GUESTS is not set: this test needs the plugins that ship, so run it by `cargo xtask test`",
    );
    let login = PathBuf::from(folder).join("login.wasm");
    assert!(login.is_file(), "{} is not there: run `cargo xtask test`", login.display());
    assert_good_with(&login);
}

/// Checks a copy of the quickstart whose plugin is in the file `login`.
fn assert_good_with(login: &Path) {
    let text = std::fs::read_to_string(example("quickstart/weirmq.toml")).unwrap();
    let text = text.replace("../../target/guests/login.wasm", login.to_str().unwrap());
    let folder = Folder::new(&text);
    for file in std::fs::read_dir(example("quickstart/rules")).unwrap() {
        let file = file.unwrap();
        let name = format!("rules/{}", file.file_name().to_str().unwrap());
        folder.write(&name, std::fs::read(file.path()).unwrap());
    }
    let mut out = Vec::new();
    let good = check(&folder.config_file(), &mut out).unwrap();
    assert!(good, "{}", String::from_utf8(out).unwrap());
}
