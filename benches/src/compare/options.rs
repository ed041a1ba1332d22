//! What can be asked for.

use std::path::PathBuf;

use clap::Parser;

use super::broker::{Broker, Kind};

/// Brokers side by side: the same loads on each, in turns.
#[derive(Debug, Clone, Parser)]
#[command(name = "weirmq-compare", version)]
pub struct Options {
    /// WeirMQ's program
    #[arg(long, value_name = "FILE")]
    pub weirmq: Option<PathBuf>,
    /// mosquitto's program
    #[arg(long, value_name = "FILE")]
    pub mosquitto: Option<PathBuf>,
    /// rumqttd's program
    #[arg(long, value_name = "FILE")]
    pub rumqttd: Option<PathBuf>,
    /// A component for WeirMQ to load: the guest `lean.wasm`, for the rows about hooks and transforms
    #[arg(long, value_name = "FILE")]
    pub plugin: Option<PathBuf>,
    /// The load generator
    #[arg(long, value_name = "FILE")]
    pub load: Option<PathBuf>,
    /// Where the table and the single results go
    #[arg(long, value_name = "FOLDER", default_value = "target/bench")]
    pub out: PathBuf,
    /// How often each broker has its turn
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub rounds: u32,
    /// How long each turn is measured
    #[arg(long, default_value_t = 2.0)]
    pub seconds: f64,
    /// Only these rows, separated by commas; `pairs` stands for all that begin so
    #[arg(long, value_delimiter = ',', value_name = "ROWS")]
    pub only: Vec<String>,
    /// Say which rows there are, and end
    #[arg(long)]
    pub list: bool,
}

impl Options {
    /// The brokers whose programs are named.
    pub(super) fn brokers(&self) -> Vec<Broker> {
        let with_plugin = self.plugin.as_ref().and(self.weirmq.clone());
        [
            (Kind::Weirmq, self.weirmq.clone()),
            (Kind::Hooked, with_plugin.clone()),
            (Kind::Passing, with_plugin.clone()),
            (Kind::Replacing, with_plugin),
            (Kind::Mosquitto, self.mosquitto.clone()),
            (Kind::Rumqttd, self.rumqttd.clone()),
        ]
        .into_iter()
        .filter_map(|(kind, program)| Some(Broker { kind, program: program?, plugin: self.plugin.clone() }))
        .collect()
    }

    /// The load generator: beside this program unless named.
    pub(super) fn load_program(&self) -> PathBuf {
        let beside = || {
            let own = std::env::current_exe().unwrap_or_default();
            own.with_file_name("weirmq-load")
        };
        self.load.clone().unwrap_or_else(beside)
    }
}
