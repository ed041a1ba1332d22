//! What the broker says when it starts: in plain words, on standard output.

use std::fmt;
use std::net::SocketAddr;

use crate::assemble::{Assembly, Plugin};
use crate::durable::Restored;

/// Everything that is live, and what to paste to see it work.
pub struct Banner<'a> {
    assembly: &'a Assembly,
    listening: &'a [(String, SocketAddr)],
    restored: Option<Restored>,
}

impl<'a> Banner<'a> {
    /// Of `assembly`, which listens at `listening`: names and addresses. `restored` is what came back, where something is
    /// kept.
    #[must_use]
    pub fn new(
        assembly: &'a Assembly,
        listening: &'a [(String, SocketAddr)],
        restored: Option<Restored>,
    ) -> Self {
        Self { assembly, listening, restored }
    }

    fn kept(&self) -> Vec<String> {
        let Some(restored) = self.restored else {
            return vec!["nothing: sessions and retained messages end with the broker".to_owned()];
        };
        let store = &self.assembly.config().store;
        let mut lines = vec![match &store.backend {
            Some(plugin) => format!("what is acknowledged, in the plugin {plugin}"),
            None => format!("what is acknowledged, durability {}", store.durability),
        }];
        if restored != Restored::default() {
            lines.push(format!("came back: {restored}"));
        }
        lines
    }

    fn plugins(&self) -> Vec<String> {
        self.assembly.plugins().iter().map(plugin_line).collect()
    }

    fn rules(&self) -> Vec<String> {
        let Some(rules) = self.assembly.rules() else { return Vec::new() };
        let live = rules.live();
        let width = live.iter().map(|rule| rule.name.chars().count()).max().unwrap_or(0);
        let live = live.iter().map(|rule| {
            let filter = format!("{} {}", rule.kind, rule.filter);
            format!("{:width$}  {filter}  ({}:{})", rule.name, rule.file, rule.line)
        });
        let broken = rules.broken().into_iter().map(|error| format!("NOT LIVE: {error}"));
        live.chain(broken).collect()
    }

    fn sinks(&self) -> Vec<String> {
        let infos = self.assembly.sinks().infos();
        infos.iter().map(|sink| format!("{} ({}) to {}", sink.name, sink.kind, sink.target)).collect()
    }

    fn try_it(&self) -> Vec<String> {
        let config = self.assembly.config();
        if !config.banner.try_it.is_empty() {
            return config.banner.try_it.clone();
        }
        match self.listening.first() {
            Some((_, address)) if config.auth.allow_anonymous => {
                let (host, port) = (address.ip(), address.port());
                vec![
                    format!("mosquitto_sub -h {host} -p {port} -t 'hello/#' -v &"),
                    format!("sleep 1; mosquitto_pub -h {host} -p {port} -t hello/weirmq -m 'it works'"),
                ]
            }
            _ => Vec::new(),
        }
    }
}

impl fmt::Display for Banner<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let config = self.assembly.config();
        writeln!(out, "WeirMQ {} is running.", env!("CARGO_PKG_VERSION"))?;
        let listening = self.listening.iter().map(|(name, address)| format!("{address} ({name})"));
        section(out, "listens at", listening.collect(), "nowhere")?;
        section(out, "plugins", self.plugins(), "none")?;
        section(out, "rules", self.rules(), "none")?;
        section(out, "sinks", self.sinks(), "none")?;
        section(out, "data in", vec![config.data_folder.display().to_string()], "")?;
        section(out, "keeps", self.kept(), "")?;
        if config.auth.allow_anonymous {
            section(out, "anonymous", vec!["clients without a user name are let in".to_owned()], "")?;
        }
        if let Some(rules) = self.assembly.rules() {
            section(
                out,
                "reloads",
                vec![format!("{} and the plugins' files, when they are saved", rules.folder().display())],
                "",
            )?;
        }
        let try_it = self.try_it();
        if !try_it.is_empty() {
            writeln!(out, "\nTo see it work, paste this into another terminal:\n")?;
            for line in try_it {
                writeln!(out, "    {line}")?;
            }
        }
        Ok(())
    }
}

/// What a plugin is, in a line; used by `weirmq check` too.
pub(crate) fn info_line(info: &weirmq_host::PluginInfo) -> String {
    let own_name =
        if info.plugin == info.name { String::new() } else { format!(" ({} by its own name)", info.plugin) };
    format!("{} {}{own_name}: {}", info.name, info.version, info.served().join(", "))
}

fn plugin_line(plugin: &Plugin) -> String {
    match plugin.serving() {
        Some(hook) => info_line(&hook.info()),
        None => format!(
            "{}: NOT LOADED, its failure policy applies: {}",
            plugin.config().name,
            plugin.absence().unwrap_or_default()
        ),
    }
}

/// A title and its lines, or `nothing`.
fn section(out: &mut fmt::Formatter<'_>, title: &str, lines: Vec<String>, nothing: &str) -> fmt::Result {
    let lines = if lines.is_empty() { vec![nothing.to_owned()] } else { lines };
    for (number, line) in lines.iter().enumerate() {
        let title = if number == 0 { title } else { "" };
        writeln!(out, "  {title:10}  {line}")?;
    }
    Ok(())
}
