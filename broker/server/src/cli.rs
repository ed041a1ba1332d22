//! The commands of `weirmq`.

use std::fmt::Display;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::admin::{self, Answer, Request, client};
use crate::config::{Config, DATA_FOLDER_DEFAULT, LISTENER_DEFAULT, LogFormat};
use crate::store_command::{self, StoreCommand};
use crate::{check, hash, plugin, run};

/// The configuration that is looked for where none is named.
pub(crate) const CONFIG_DEFAULT: &str = "weirmq.toml";

/// WeirMQ, a programmable MQTT broker.
#[derive(Debug, Parser)]
#[command(name = "weirmq", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start the broker
    Run(Run),
    /// Say whether a configuration, its plugins, rules and sinks are good, without starting
    Check {
        /// The configuration
        #[arg(long, value_name = "FILE", env = "WEIRMQ_CONFIG", default_value = CONFIG_DEFAULT)]
        config: PathBuf,
    },
    /// How a running broker is
    Status(Target),
    /// The plugins of a running broker
    #[command(subcommand)]
    Plugin(Plugin),
    /// The rules: those of a running broker, and their tests
    #[command(subcommand)]
    Rules(Rules),
    /// How a client's session is, and what was not delivered to it, by reason
    #[command(args_conflicts_with_subcommands = true, arg_required_else_help = true)]
    Client {
        #[command(subcommand)]
        command: Option<Client>,
        /// Its client identifier
        #[arg(required = true)]
        id: Option<String>,
        #[command(flatten)]
        target: Target,
    },
    /// Take back what clients were allowed: their subscriptions are authorized again, within a second
    Revoke {
        /// Those that logged in as this principal
        #[arg(long, conflicts_with_all = ["client", "everyone"], required_unless_present_any = ["client", "everyone"])]
        principal: Option<String>,
        /// The client of this identifier
        #[arg(long, value_name = "ID", conflicts_with = "everyone")]
        client: Option<String>,
        /// Everybody
        #[arg(long)]
        everyone: bool,
        /// Their leases are over: they are disconnected (0x87) and may log in anew
        #[arg(long)]
        end: bool,
        #[command(flatten)]
        target: Target,
    },
    /// The store of sessions, queues and retained messages
    #[command(subcommand)]
    Store(StoreCommand),
    /// Make the hash of a password for the login plugin; asks for it, or reads a line of standard input
    HashPassword,
}

#[derive(Debug, Args)]
struct Run {
    /// The configuration
    #[arg(long, value_name = "FILE", env = "WEIRMQ_CONFIG")]
    config: Option<PathBuf>,
    /// Where to listen without a configuration, such as 127.0.0.1:1883
    #[arg(long, value_name = "ADDRESS:PORT", conflicts_with = "config")]
    listen: Option<SocketAddr>,
    /// Without a configuration: let everybody in who can reach the broker
    #[arg(long, conflicts_with = "config")]
    allow_anonymous: bool,
    /// Where to keep data without a configuration
    #[arg(long, value_name = "FOLDER", conflicts_with = "config", default_value = DATA_FOLDER_DEFAULT)]
    data_folder: PathBuf,
    /// How to write logs, whatever the configuration says
    #[arg(long, value_enum, value_name = "FORMAT")]
    log_format: Option<LogFormat>,
}

#[derive(Debug, Subcommand)]
enum Plugin {
    /// Which plugins there are
    List(Target),
    /// Load a plugin's file anew, without dropping a connection
    Reload {
        /// Its name in the configuration
        name: String,
        #[command(flatten)]
        target: Target,
    },
    /// Take a plugin out of service until it is enabled or the broker restarts
    ///
    /// It decides nothing any more: for logins, rights, subscribing and unsubscribing its failure policies apply,
    /// which is to deny unless `on_failure` says otherwise, so that a guard that is disabled lets nobody in. It
    /// changes no messages and is told of no events. A plugin that serves persistence cannot be disabled.
    Disable {
        /// Its name in the configuration
        name: String,
        #[command(flatten)]
        target: Target,
    },
    /// Take a plugin back into service
    Enable {
        /// Its name in the configuration
        name: String,
        #[command(flatten)]
        target: Target,
    },
    /// Bring back the version that served before, until the file changes again
    Rollback {
        /// Its name in the configuration
        name: String,
        #[command(flatten)]
        target: Target,
    },
    New(weirmq_kit::command::New),
    Bindings(weirmq_kit::command::Bindings),
    Seal(weirmq_kit::command::Seal),
    /// Run the tests of a plugin: what it is asked, and what it must answer; without a broker
    Test(plugin::test::Test),
    /// Say what a plugin's file is, what it wants and whether it would load; without a broker
    Check(plugin::check::Check),
    /// Ask a plugin's hook by hand, JSON in and out; without a broker
    Call(plugin::call::Call),
    /// Measure what calls into a plugin cost; without a broker
    Bench(plugin::bench::Bench),
}

#[derive(Debug, Subcommand)]
enum Client {
    /// End a client's connection (0x98); its session stays, its will is published
    Disconnect {
        /// Its client identifier
        id: String,
        #[command(flatten)]
        target: Target,
    },
}

#[derive(Debug, Subcommand)]
enum Rules {
    /// Which rules are live
    List(Target),
    /// Run the tests in the rule files, without a broker
    Test {
        /// The configuration that names the folder
        #[arg(long, value_name = "FILE", env = "WEIRMQ_CONFIG", default_value = CONFIG_DEFAULT)]
        config: PathBuf,
        /// Only this folder, with the limits that hold unless configured
        #[arg(long, value_name = "FOLDER", conflicts_with = "config")]
        folder: Option<PathBuf>,
    },
}

/// Which broker is asked.
#[derive(Debug, Args)]
pub(crate) struct Target {
    /// The broker's configuration; ./weirmq.toml where there is one and nothing else is said
    #[arg(long, value_name = "FILE", env = "WEIRMQ_CONFIG")]
    config: Option<PathBuf>,
    /// The broker's data folder
    #[arg(long, value_name = "FOLDER", conflicts_with = "config")]
    data_folder: Option<PathBuf>,
    /// Print the answer as JSON
    #[arg(long)]
    json: bool,
}

/// Does what the command line asks.
#[must_use]
pub fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Run(arguments) => start(arguments),
        Command::Check { config } => match check::check(&config, &mut io::stdout().lock()) {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => ExitCode::FAILURE,
            Err(error) => fail(&error),
        },
        Command::Status(target) => ask(&target, &Request::Status {}),
        Command::Plugin(Plugin::List(target)) => ask(&target, &Request::PluginList {}),
        Command::Plugin(Plugin::Reload { name, target }) => ask(&target, &Request::PluginReload { name }),
        Command::Plugin(Plugin::Disable { name, target }) => ask(&target, &Request::PluginDisable { name }),
        Command::Plugin(Plugin::Enable { name, target }) => ask(&target, &Request::PluginEnable { name }),
        Command::Plugin(Plugin::Rollback { name, target }) => ask(&target, &Request::PluginRollback { name }),
        Command::Plugin(Plugin::New(new)) => ended(new.run(&mut io::stdout().lock())),
        Command::Plugin(Plugin::Bindings(bindings)) => ended(bindings.run()),
        Command::Plugin(Plugin::Seal(seal)) => ended(seal.run()),
        Command::Plugin(Plugin::Test(test)) => ended(test.run(&mut io::stdout().lock())),
        Command::Plugin(Plugin::Check(check)) => ended(check.run(&mut io::stdout().lock())),
        Command::Plugin(Plugin::Call(call)) => ended(call.run(&mut io::stdout().lock())),
        Command::Plugin(Plugin::Bench(bench)) => ended(bench.run(&mut io::stdout().lock())),
        Command::Client { command: Some(Client::Disconnect { id, target }), .. } => {
            ask(&target, &Request::ClientDisconnect { id })
        }
        Command::Client { command: None, id, target } => {
            ask(&target, &Request::Client { id: id.unwrap_or_default() })
        }
        Command::Revoke { principal, client, everyone: _, end, target } => {
            ask(&target, &Request::Revoke { principal, client, end })
        }
        Command::Rules(Rules::List(target)) => ask(&target, &Request::RulesList {}),
        Command::Rules(Rules::Test { config, folder }) => test_rules(&config, folder),
        Command::Store(command) => store_command::run(command),
        Command::HashPassword => match hash::ask().and_then(|password| hash::hash(&password)) {
            Ok(hash) => {
                println!("{hash}");
                ExitCode::SUCCESS
            }
            Err(error) => fail(&error),
        },
    }
}

fn start(arguments: Run) -> ExitCode {
    let config = match arguments.config {
        Some(file) => Config::load(&file),
        None => {
            let data_folder = std::path::absolute(&arguments.data_folder).unwrap_or(arguments.data_folder);
            Config::bare(arguments.listen.unwrap_or(LISTENER_DEFAULT), arguments.allow_anonymous, data_folder)
        }
    };
    match config {
        Err(error) => fail(&error),
        Ok(mut config) => {
            if let Some(format) = arguments.log_format {
                config.log.format = format;
                config.log.format_is_given = true;
            }
            match run::run(config) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => fail(&error),
            }
        }
    }
}

pub(crate) fn ask(target: &Target, request: &Request) -> ExitCode {
    let answer = match target.socket() {
        Ok(socket) => client::ask(&socket, request).map_err(|error| error.to_string()),
        Err(why) => Err(why),
    };
    match answer {
        Err(why) => fail(&why),
        Ok(answer) if target.json => match serde_json::to_string(&answer) {
            Ok(text) => {
                println!("{text}");
                done(&answer)
            }
            Err(error) => fail(&error),
        },
        Ok(Answer::Failed { error }) => fail(&error),
        Ok(answer) => {
            println!("{}", client::in_words(&answer));
            done(&answer)
        }
    }
}

fn ended(outcome: Result<(), impl Display>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

fn done(answer: &Answer) -> ExitCode {
    if matches!(answer, Answer::Failed { .. }) { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

impl Target {
    /// Where the broker's admin socket is.
    fn socket(&self) -> Result<PathBuf, String> {
        if let Some(folder) = &self.data_folder {
            return Ok(admin::socket_in(folder));
        }
        let found = Some(PathBuf::from(CONFIG_DEFAULT)).filter(|file| file.is_file());
        match self.config.clone().or(found) {
            Some(file) => data_folder_of(&file).map(|folder| admin::socket_in(&folder)),
            None => Ok(admin::socket_in(Path::new(DATA_FOLDER_DEFAULT))),
        }
    }
}

/// The data folder that `file` names, whatever else is wrong with it: the broker that runs may be older than
/// what the file says now.
pub(crate) fn data_folder_of(file: &Path) -> Result<PathBuf, String> {
    match Config::inspect(file) {
        Ok((Some(config), _)) => Ok(config.data_folder),
        Ok((None, _)) => Err(format!("{} is no configuration; name the --data-folder", file.display())),
        Err(error) => Err(error.to_string()),
    }
}

fn test_rules(config: &Path, folder: Option<PathBuf>) -> ExitCode {
    let rules = match folder {
        Some(folder) => weirmq_script::Config { folder, ..weirmq_script::Config::default() },
        None => match Config::load(config) {
            Ok(Config { rules: Some(rules), .. }) => rules,
            Ok(_) => return fail(&format!("{} has no table [rules]", config.display())),
            Err(error) => return fail(&error),
        },
    };
    match weirmq_script::run_tests(rules) {
        Ok(report) => {
            println!("{report}");
            if report.passed() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => fail(&error),
    }
}

pub(crate) fn fail(error: &dyn Display) -> ExitCode {
    let text = error.to_string();
    for line in text.lines() {
        eprintln!("error: {line}");
    }
    ExitCode::FAILURE
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_commands_hold_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_file_and_the_bare_broker_exclude_each_other() {
        for arguments in [
            &["weirmq", "run", "--config", "a.toml", "--allow-anonymous"][..],
            &["weirmq", "run", "--config", "a.toml", "--listen", "127.0.0.1:1"],
        ] {
            assert!(Cli::try_parse_from(arguments).is_err(), "{arguments:?}");
        }
        Cli::try_parse_from(["weirmq", "run", "--listen", "127.0.0.1:0", "--allow-anonymous"]).unwrap();
        Cli::try_parse_from(["weirmq", "run", "--config", "a.toml"]).unwrap();
    }
}
