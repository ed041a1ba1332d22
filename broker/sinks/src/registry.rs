//! The kinds of sink: one line for each. A line makes `[[sink.KIND]]` a table of the configuration.

use serde::Deserialize;

use crate::config::SinkConfig;

macro_rules! registry {
    ($($(#[$doc:meta])+ $kind:ident: $config:ty,)+) => {
        /// The sinks of a broker: the table `sink` of its configuration, a list per kind.
        #[derive(Debug, Clone, Default, PartialEq, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub struct SinksConfig {
            $($(#[$doc])+ pub $kind: Vec<$config>,)+
        }

        impl SinksConfig {
            /// The kinds of sink that this broker has, as the configuration names them.
            pub const KINDS: &[&str] = &[$(stringify!($kind)),+];

            /// Every configured sink with its kind, in the order of the kinds and then of the configuration.
            pub(crate) fn each(&self) -> Vec<(&'static str, &dyn SinkConfig)> {
                let mut all: Vec<(&'static str, &dyn SinkConfig)> = Vec::new();
                $(all.extend(self.$kind.iter().map(|config| (stringify!($kind), config as &dyn SinkConfig)));)+
                all
            }
        }
    };
}

registry! {
    /// Rows in a table of an embedded SQLite database.
    sqlite: crate::sqlite::SqliteConfig,
    /// HTTP POST requests with a JSON body.
    webhook: crate::webhook::WebhookConfig,
    /// Lines of JSON in a file.
    file: crate::file::FileConfig,
}

impl SinksConfig {
    /// Whether no sink is configured.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.each().is_empty()
    }

    /// The names of the sinks that are configured.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.each().into_iter().map(|(_, config)| config.name().to_owned()).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    #[test]
    fn every_sink_folder_has_the_same_files_and_a_line_in_the_registry() {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let mut folders: Vec<String> = fs::read_dir(&source)
            .unwrap()
            .map(|entry| entry.unwrap())
            .filter(|entry| entry.file_type().unwrap().is_dir())
            .map(|entry| entry.file_name().into_string().unwrap())
            .filter(|name| name != "engine")
            .collect();
        folders.sort();
        let mut kinds = SinksConfig::KINDS.to_vec();
        kinds.sort_unstable();
        assert_eq!(folders, kinds);
        for folder in folders {
            for file in ["mod.rs", "config.rs", "sink.rs", "tests.rs"] {
                assert!(source.join(&folder).join(file).is_file(), "{folder}/{file} is missing");
            }
        }
    }

    #[test]
    fn a_misspelt_key_is_an_error_that_names_it() {
        for (text, key) in [
            ("[[sqlite]]\nname = 'a'\nfile = 'a.db'\ntabel = 't'", "tabel"),
            ("[[sqlite]]\nname = 'a'\nfile = 'a.db'\n[sqlite.buffer]\nrecord_max = 3", "record_max"),
            ("[[webhook]]\nname = 'a'\nurl = 'http://h/'\nheader = {}", "header"),
            ("[[file]]\nname = 'a'\nfile = 'a'\nrotate = 1", "rotate"),
            ("[[sqllite]]\nname = 'a'", "sqllite"),
        ] {
            let error = toml::from_str::<SinksConfig>(text).unwrap_err().to_string();
            assert!(error.contains(&format!("unknown field `{key}`")), "{error}");
        }
    }
}
