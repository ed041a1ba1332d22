//! Retained messages are read back: one client after the other subscribes to all of them and gets each once.

use std::time::Instant;

use weirmq_wire::{Packet, QoS};

use super::Options;
use crate::load::{Client, CpuSpan, Faults, Latency, LoadError, Stamp, Template, rss_bytes};
use crate::report::Report;

/// How many are set before their acknowledgements are waited for.
const BATCH: u32 = 20;

pub(super) fn run(options: &Options) -> Result<Report, LoadError> {
    set(options)?;
    let mut latency = Latency::default();
    let mut faults = Faults::default();
    let mut count = 0;
    let broker = options.pid.map(CpuSpan::start).transpose()?;
    let own = CpuSpan::start(std::process::id())?;
    let started = Instant::now();
    for reader in 0.. {
        let began = Instant::now();
        let found = read_back(options, reader)?;
        latency.record(u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX));
        count += u64::from(options.messages);
        faults += found;
        if started.elapsed() >= options.time() || !faults.is_clean() {
            break;
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    let each = |microseconds: u64| microseconds as f64 / count.max(1) as f64;
    Ok(Report {
        scenario: options.scenario.to_string(),
        count,
        seconds,
        per_s: count as f64 / seconds.max(f64::EPSILON),
        broker_cpu_us: broker.map(|broker| broker.used_us()).transpose()?.map(each),
        load_cpu_us: each(own.used_us()?),
        latency: latency.percentiles(),
        broker_rss_bytes: options.pid.map(rss_bytes).transpose()?,
        faults,
        ..Report::default()
    })
}

fn set(options: &Options) -> Result<(), LoadError> {
    let mut client = Client::connect(&options.hello("setter"))?;
    let mut bytes = Vec::new();
    for number in 0..options.messages {
        let topic = format!("retained/{number}/value");
        let template =
            Template::new(options.version(), &topic, QoS::AtLeastOnce, true, options.payload_bytes())?;
        let stamp = Stamp { publisher: 0, number, at_ns: 0 };
        template.append(u16::try_from(number % BATCH + 1).unwrap_or(1), stamp, &mut bytes);
        if number % BATCH == BATCH - 1 || number + 1 == options.messages {
            client.write(&bytes)?;
            bytes.clear();
            for _ in 0..=number % BATCH {
                match client.read()? {
                    Packet::PubAck(ack) if !ack.code.is_error() => {}
                    other => {
                        return Err(LoadError::Broker(format!(
                            "a retained message was answered with {other:?}"
                        )));
                    }
                }
            }
        }
    }
    client.disconnect()
}

/// Gets every message once, in any order: they are of different topics.
fn read_back(options: &Options, reader: u32) -> Result<Faults, LoadError> {
    let mut client = Client::connect(&options.hello(&format!("reader-{reader}")))?;
    client.subscribe(&["retained/+/value".to_owned()], QoS::AtMostOnce)?;
    let mut seen = vec![false; usize::try_from(options.messages).unwrap_or(0)];
    let mut faults = Faults::default();
    for _ in 0..options.messages {
        let Packet::Publish(publish) = client.read()? else {
            faults.refused += 1;
            continue;
        };
        let place = Stamp::read(&publish.payload).map_or(usize::MAX, |stamp| stamp.number as usize);
        match seen.get_mut(place) {
            Some(seen) if publish.retain => faults.duplicated += u64::from(std::mem::replace(seen, true)),
            _ => faults.refused += 1,
        }
    }
    faults.lost += seen.iter().filter(|seen| !**seen).count() as u64;
    client.disconnect()?;
    Ok(faults)
}
