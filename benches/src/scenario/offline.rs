//! Messages wait for clients that are away, and are sent when they come back.
//!
//! What is counted is the drain: from the moment in which the first client comes back until each has everything. CPU is
//! that of the drain too; how fast the broker took the messages in is printed to standard error.

use std::time::Instant;

use super::Options;
use super::flows::{publisher, socket, topic};
use crate::flow::{Audience, Flow, Subscriber};
use crate::load::{Client, Hello, LoadError};
use crate::report::Report;

pub(super) fn run(options: &Options) -> Result<Report, LoadError> {
    if options.qos == 0 {
        return Err(LoadError::Options(
            "messages with QoS 0 do not wait for anybody: use --qos 1 or 2".to_owned(),
        ));
    }
    for number in 0..options.clients {
        let mut client = come(options, number)?;
        client.subscribe(&[topic(number)], options.qos())?;
        client.disconnect()?;
    }
    let mut flow = Flow::new(Audience::Each)?;
    let mut window = options.window;
    for number in 0..options.clients {
        let client = Client::connect(&options.hello(&format!("publisher-{number}")))?;
        window = window.min(client.receive_max().get().into());
        flow.add_publisher(publisher(options, number, 0)?, socket(client, options))?;
    }
    let started = Instant::now();
    flow.publish_count(options.messages, window)?;
    let per_s = f64::from(options.messages) * f64::from(options.clients) / started.elapsed().as_secs_f64();
    eprintln!("weirmq-load: taken in at {per_s:.0}/s");

    flow.set_fan(1);
    let measured = flow.drain_measured(options.pid, |flow| {
        for number in 0..options.clients {
            let subscriber = Subscriber::new(options.version(), number, 1);
            flow.add_subscriber(subscriber, socket(come(options, number)?, options))?;
        }
        Ok(())
    })?;
    let mut report = Report::new(&options.scenario.to_string(), &measured, flow.faults());
    // How long the messages have waited says nothing about the broker.
    report.latency = None;
    Ok(report)
}

fn come(options: &Options, number: u32) -> Result<Client, LoadError> {
    Client::connect(&Hello { keeps_session: true, ..options.hello(&format!("sleeper-{number}")) })
}
