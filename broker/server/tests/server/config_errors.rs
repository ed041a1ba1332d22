//! What is wrong with a configuration is said with its line, all of it at once.

use std::net::SocketAddr;
use std::path::Path;

use weirmq::config::{Config, ConfigError};
use weirmq_core::limits::{Capabilities, Limits};

/// The problems of `text`, as `line: text`.
fn problems(text: &str) -> Vec<String> {
    match Config::parse(text, Path::new("/etc/weirmq.toml")) {
        Ok(_) => Vec::new(),
        Err(ConfigError::Invalid { problems, .. }) => {
            problems.into_iter().map(|problem| format!("{}: {}", problem.at.line, problem.text)).collect()
        }
        Err(other) => panic!("{other}"),
    }
}

/// What makes a configuration good that says nothing else.
const OPEN: &str = "auth.allow_anonymous = true\n";

#[test]
fn each_mistake_names_the_key_the_line_and_what_would_be_right() {
    for (text, line, words) in [
        ("listner = []", 2, &["unknown key `listner`", "the top level", "did you mean `listener`?"][..]),
        (
            "[limits]\nmax_connections = 5",
            3,
            &["`max_connections` in [limits]", "did you mean `connections_max`?"],
        ),
        ("[[listener]]\nadress = 'x'", 3, &["`adress` in [[listener]]", "did you mean `address`?"]),
        ("[[plugin]]\nname = 'a'\nfile = 'b'\nrequird = true", 5, &["`requird`", "did you mean `required`?"]),
        (
            "[[plugin]]\nname = 'a'\nfile = 'b'\n[plugin.deadline_ms]\non_publish = 1",
            6,
            &["`on_publish`", "did you mean `on-publish`?"],
        ),
        ("[[plugin]]\nname = 'a'", 2, &["[[plugin]]", "lacks the key `file`"]),
        ("[plugin]\nname = 'a'\nfile = 'b'", 2, &["[[plugin]]", "two brackets"]),
        ("[rules]\nfoldr = 'rules'", 3, &["`foldr` in [rules]", "did you mean `folder`?"]),
        (
            "[[sink.sqlite]]\nname = 'a'\nfile = 'a.db'\ntabel = 't'",
            5,
            &["`tabel` in [[sink.sqlite]]", "did you mean `table`?"],
        ),
        ("[[sink.sqllite]]\nname = 'a'", 2, &["`sqllite` in [sink]", "did you mean `sqlite`?"]),
        ("[log]\nformat = 'xml'", 3, &["`format` in [log] is \"xml\"", "\"text\" or \"json\""]),
        ("[log]\nlevel = 'inof'", 3, &["\"inof\" is no log level", "info"]),
        (
            "[mqtt]\nresponse_information = \"a\\u0000b\"",
            3,
            &["`response_information` in [mqtt] cannot be told to clients", "U+0000"],
        ),
        (
            &format!("[mqtt]\nserver_reference = '{}'", "x".repeat(1_025)),
            3,
            &["`server_reference` in [mqtt]", "more than 1024 bytes"],
        ),
        ("[limits]\nreceive_max = 0", 3, &["`receive_max` in [limits] is 0", "at least 1"]),
        ("[limits]\nreceive_max = 70000", 3, &["`receive_max` in [limits]", "0 to 65535"]),
        ("[limits]\npacket_bytes_max = 300000000", 3, &["`packet_bytes_max`", "at most 268435460"]),
        ("[limits]\nqueue_full = 'panic'", 3, &["`queue_full`", "\"refuse_newest\" or \"drop_oldest\""]),
        ("[limits]\nconnections_max = 'many'", 3, &["`connections_max` in [limits]", "a whole number"]),
        ("[capabilities]\nqos_max = 3", 3, &["`qos_max` in [capabilities] is 3", "0, 1 or 2"]),
        ("[capabilities]\nretained = false", 3, &["`retained`", "did you mean `retain`?"]),
        ("[[listener]]\naddress = 'example.org:1883'", 3, &["example.org:1883", "127.0.0.1:1883"]),
        ("[[listener]]\n[[listener]]\naddress = '127.0.0.1:1884'", 3, &["`name` of its own", "\"main\""]),
        (
            "[[listener]]\n[[listener]]\nname = 'b'\naddress = 'localhost:1883'",
            5,
            &["another [[listener]] listens at 127.0.0.1:1883"],
        ),
        (
            "[[plugin]]\nname = 'a'\nfile = 'b'\n[[plugin]]\nname = 'a'\nfile = 'c'",
            6,
            &["another [[plugin]] is called \"a\"", "give one of them another name"],
        ),
        ("[[sink.file]]\nname = 'a/b'\nfile = 'x'", 3, &["sink 'a/b'"]),
        ("[banner]\ntry = ['x']", 3, &["`try` in [banner]", "`try_it`"]),
        ("[shutdown]\ndrain = 1", 3, &["`drain` in [shutdown]", "drain_seconds"]),
        ("x = ", 2, &[]),
    ] {
        let found = problems(&format!("{OPEN}{text}"));
        assert_eq!(found.len(), 1, "{text}: {found:#?}");
        assert!(found[0].starts_with(&format!("{line}: ")), "{text}: {found:?}");
        for word in words {
            assert!(found[0].contains(word), "{text}: {word}: {found:?}");
        }
    }
}

#[test]
fn all_that_is_wrong_is_said_at_once_in_the_order_of_the_file() {
    let text = "data_foldr = 'x'
[[listener]]
address = 'nowhere'
[limits]
recieve_max = 5
inflight_max = 0
connect_timeout_ms = 'soon'
[[plugin]]
name = 'a'
file = 7
[[plugin]]
name = 'b'
file = 'b.wasm'
extra = 1
";
    let found = problems(text);
    let starts: Vec<&str> = found.iter().map(|problem| problem.split_once(' ').unwrap().0).collect();
    assert_eq!(starts, ["1:", "3:", "5:", "6:", "7:", "10:", "14:"], "{found:#?}");
}

#[test]
fn a_listener_beyond_loopback_without_authentication_is_refused_with_what_to_do() {
    for address in ["0.0.0.0:1883", "[::]:1883", "192.0.2.1:1883"] {
        let found = problems(&format!("{OPEN}[[listener]]\naddress = '{address}'"));
        assert_eq!(found.len(), 1, "{found:?}");
        for word in ["3: ", address, "not a loopback address", "[[plugin]]", "127.0.0.1:1883"] {
            assert!(found[0].contains(word), "{word}: {found:?}");
        }
        let bare = Config::bare(address.parse().unwrap(), true, "data".into()).unwrap_err();
        assert!(matches!(bare, ConfigError::OpenToTheNetwork { .. }), "{bare}");
    }
    let guarded = "[[listener]]\naddress = '0.0.0.0:1883'\n[[plugin]]\nname = 'login'\nfile = 'login.wasm'";
    assert_eq!(problems(guarded), [""; 0]);
    for address in ["127.0.0.1:1883", "127.8.8.8:1", "[::1]:0"] {
        assert_eq!(problems(&format!("{OPEN}[[listener]]\naddress = '{address}'")), [""; 0]);
    }
}

#[test]
fn a_broker_that_nobody_could_log_in_to_is_refused_with_what_to_do() {
    let found = problems("");
    assert_eq!(found.len(), 1);
    assert!(
        found[0].contains("nobody could log in") && found[0].contains("allow_anonymous = true"),
        "{found:?}"
    );
    let address: SocketAddr = "127.0.0.1:1883".parse().unwrap();
    let bare = Config::bare(address, false, "data".into()).unwrap_err().to_string();
    assert!(bare.contains("--allow-anonymous") && bare.contains("--config"), "{bare}");
}

#[test]
fn what_is_not_said_has_its_default_and_paths_are_the_files_own() {
    let text = "
        data_folder = 'data'
        [rules]
        [[plugin]]
        name = 'login'
        file = '../plugins/login.wasm'
        [plugin.config.users.a]
        role = 'b'
        [limits]
        receive_max = 5
        queue_full = 'drop_oldest'
        [capabilities]
        qos_max = 1
    ";
    let config = Config::parse(text, Path::new("/srv/weirmq/weirmq.toml")).unwrap();
    assert_eq!(config.listeners.len(), 1);
    assert_eq!(config.listeners[0].name, "main");
    assert_eq!(config.listeners[0].address, "127.0.0.1:1883".parse().unwrap());
    assert_eq!(config.data_folder, Path::new("/srv/weirmq/data"));
    assert_eq!(config.admin_socket(), Path::new("/srv/weirmq/data/admin.sock"));
    assert_eq!(config.plugins[0].file, Path::new("/srv/plugins/login.wasm"));
    assert_eq!(config.plugins[0].config["users"]["a"]["role"], "b");
    assert_eq!(config.rules.unwrap().folder, Path::new("/srv/weirmq/rules"));
    let queue_full = weirmq_core::limits::QueueFull::DropOldest;
    assert_eq!(config.limits, Limits { receive_max: 5, queue_full, ..Limits::default() });
    let qos_max = weirmq_core::message::QoS::AtLeastOnce;
    assert_eq!(config.capabilities, Capabilities { qos_max, ..Capabilities::default() });
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let error = Config::load(Path::new("/nowhere/weirmq.toml")).unwrap_err().to_string();
    assert!(error.contains("/nowhere/weirmq.toml"), "{error}");
}
