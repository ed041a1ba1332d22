//! Connections that do nothing: memory for each. What is counted per second is how fast they were let in, one
//! after the other.

use std::time::{Duration, Instant};

use super::Options;
use crate::load::{Client, CpuSpan, Latency, LoadError, rss_bytes};
use crate::report::Report;

/// Connections before the first look at the memory: what a broker sets up once is not counted for each.
const BEFORE: u32 = 50;
/// How long the broker may tidy up before the second look.
const SETTLE: Duration = Duration::from_secs(1);

pub(super) fn run(options: &Options) -> Result<Report, LoadError> {
    let connect = |number: u32| Client::connect(&options.hello(&format!("idle-{number}")));
    let before =
        (0..BEFORE).map(|number| connect(options.clients + number)).collect::<Result<Vec<_>, _>>()?;
    let rss_before = options.pid.map(rss_bytes).transpose()?;
    let broker = options.pid.map(CpuSpan::start).transpose()?;
    let own = CpuSpan::start(std::process::id())?;
    let mut latency = Latency::default();
    let started = Instant::now();
    let mut clients = Vec::new();
    for number in 0..options.clients {
        let began = Instant::now();
        clients.push(connect(number)?);
        latency.record(u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX));
    }
    let seconds = started.elapsed().as_secs_f64();
    let each = |microseconds: u64| microseconds as f64 / f64::from(options.clients.max(1));
    let broker_cpu_us = broker.map(|broker| broker.used_us()).transpose()?.map(each);
    let load_cpu_us = each(own.used_us()?);
    std::thread::sleep(SETTLE);
    let rss = options.pid.map(rss_bytes).transpose()?;
    drop((before, clients));
    Ok(Report {
        scenario: options.scenario.to_string(),
        count: options.clients.into(),
        seconds,
        per_s: f64::from(options.clients) / seconds.max(f64::EPSILON),
        broker_cpu_us,
        load_cpu_us,
        latency: latency.percentiles(),
        broker_rss_bytes: rss,
        rss_bytes_per_connection: rss.zip(rss_before).map(|(now, then)| each(now.saturating_sub(then))),
        ..Report::default()
    })
}
