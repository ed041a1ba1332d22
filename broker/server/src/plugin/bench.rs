//! `weirmq plugin bench`: what a call costs.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use weirmq_core::hook::{Hook, HookPoint};
use weirmq_host::{HOOKS, PluginHook};

use super::question::{self, Question};
use super::{PluginCommandError, Subject};

/// The most calls of one hook.
const CALLS_MAX: usize = 200_000;
/// Before the clock runs.
const WARM_UP: usize = 200;

/// What is measured, and for how long.
#[derive(Debug, Args)]
pub(crate) struct Bench {
    #[command(flatten)]
    subject: Subject,
    /// How long each hook is called, in milliseconds
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..=600_000))]
    each_ms: u64,
}

impl Bench {
    /// Measures, and writes a line for each hook to `out`. Each is asked the example of `weirmq plugin call --help`, on
    /// the first topic that the plugin wants to see. Events and timers are not on anybody's way and are left out.
    pub(crate) fn run(&self, out: &mut dyn Write) -> Result<(), PluginCommandError> {
        let (host, config) = self.subject.open()?;
        let begun = Instant::now();
        let plugin = host.load(&config)?;
        let (loaded_in, info) = (begun.elapsed(), plugin.info());
        writeln!(out, "{} {}, {} bytes", info.plugin, info.version, info.bytes)?;
        writeln!(
            out,
            "loaded in {:.1} ms, of which compiling {:.1} ms",
            ms(loaded_in),
            ms(info.compiled_in)
        )?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let each = Duration::from_millis(self.each_ms);
        writeln!(out, "{:15}  {:>10}  {:>10}  {:>10}", "hook", "mean ns", "p50 ns", "p99 ns")?;
        for hook in HOOKS.into_iter().filter(|hook| plugin.points().contains(*hook)) {
            if matches!(hook, HookPoint::Lifecycle | HookPoint::Timer) {
                continue;
            }
            let question = Question::parse(hook, &asked(&plugin, hook))?;
            match runtime.block_on(measure(&question, &plugin, each)) {
                Ok(spans) => row(out, hook, spans)?,
                Err(error) => writeln!(out, "{:15}  {error}", hook.name())?,
            }
        }
        Ok(writeln!(out, "memory of its instances: {} KiB", plugin.stats().memory_bytes / 1024)?)
    }
}

async fn measure(
    question: &Question,
    plugin: &Arc<PluginHook>,
    each: Duration,
) -> Result<Vec<Duration>, PluginCommandError> {
    for _ in 0..WARM_UP {
        question.ask(plugin).await?;
    }
    let begun = Instant::now();
    let mut spans = Vec::new();
    while spans.len() < CALLS_MAX && (spans.is_empty() || begun.elapsed() < each) {
        let call = Instant::now();
        question.ask(plugin).await?;
        spans.push(call.elapsed());
    }
    Ok(spans)
}

fn row(out: &mut dyn Write, hook: HookPoint, mut spans: Vec<Duration>) -> io::Result<()> {
    spans.sort_unstable();
    let at =
        |share: usize| spans.get(spans.len().saturating_sub(1) * share / 100).map_or(0, Duration::as_nanos);
    let mean = spans.iter().sum::<Duration>().as_nanos() / spans.len().max(1) as u128;
    writeln!(out, "{:15}  {mean:>10}  {:>10}  {:>10}", hook.name(), at(50), at(99))
}

/// The example for `hook`, on a topic that the plugin wants to see.
fn asked(plugin: &PluginHook, hook: HookPoint) -> String {
    let info = plugin.info();
    let topics = match hook {
        HookPoint::OnDeliver => info.deliver_topics,
        HookPoint::Persistence => info.stored_topics,
        _ => info.topics,
    };
    let example = question::example(hook);
    match topics.first().map(|filter| topic_of(filter)) {
        Some(topic) => example.replace("a/b", &topic),
        None => example.to_owned(),
    }
}

/// A topic that `filter` matches.
fn topic_of(filter: &str) -> String {
    filter.replace('+', "a").replace('#', "a/b")
}

fn ms(span: Duration) -> f64 {
    span.as_secs_f64() * 1e3
}
