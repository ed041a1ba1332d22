//! The kinds of work that are publishers and subscribers in one event loop, with other topics.

use weirmq_wire::QoS;

use super::Options;
use crate::flow::{Audience, Flow, Pace, Publisher, Socket, Subscriber};
use crate::load::{Client, LoadError, Template};
use crate::report::Report;

/// How many publish to a shared subscription.
const SHARED_PUBLISHERS: u32 = 4;
/// Sessions and filters of each that make up the many other subscriptions.
const BYSTANDERS: u32 = 100;
const FILTERS_EACH: u32 = 1_000;

/// Who publishes and who subscribes. Publisher `n` publishes to `load/n/value`.
struct Cast {
    publishers: u32,
    /// By subscriber: its filter, the first publisher that it hears, and how many.
    subscribers: Vec<(String, u32, u32)>,
    /// How many receive each message.
    fan: u32,
    audience: Audience,
}

pub(super) fn pairs(options: &Options) -> Result<Report, LoadError> {
    perform(options, &mut pairs_cast(options.clients))
}

pub(super) fn fan_in(options: &Options) -> Result<Report, LoadError> {
    let subscribers = vec![("load/+/value".to_owned(), 0, options.clients)];
    perform(options, &mut Cast { publishers: options.clients, subscribers, fan: 1, audience: Audience::Each })
}

pub(super) fn fan_out(options: &Options) -> Result<Report, LoadError> {
    let subscribers = (0..options.clients).map(|_| (topic(0), 0, 1)).collect();
    let fan = options.clients;
    perform(options, &mut Cast { publishers: 1, subscribers, fan, audience: Audience::Each })
}

pub(super) fn shared(options: &Options) -> Result<Report, LoadError> {
    let subscribers = (0..options.clients).map(|_| ("$share/load/load/+/value".to_owned(), 0, 0)).collect();
    let audience = Audience::group(SHARED_PUBLISHERS as usize);
    perform(options, &mut Cast { publishers: SHARED_PUBLISHERS, subscribers, fan: 1, audience })
}

pub(super) fn many_subscriptions(options: &Options) -> Result<Report, LoadError> {
    let bystanders =
        (0..BYSTANDERS).map(|number| bystander(options, number)).collect::<Result<Vec<_>, _>>()?;
    let report = perform(options, &mut pairs_cast(options.clients));
    drop(bystanders);
    report
}

pub(super) fn deaf(options: &Options) -> Result<Report, LoadError> {
    let mut deaf = Client::connect(&options.hello("deaf"))?;
    deaf.subscribe(&["load/#".to_owned()], options.qos())?;
    let report = perform(options, &mut pairs_cast(options.clients));
    drop(deaf);
    report
}

fn pairs_cast(pairs: u32) -> Cast {
    let subscribers = (0..pairs).map(|number| (topic(number), number, 1)).collect();
    Cast { publishers: pairs, subscribers, fan: 1, audience: Audience::Each }
}

pub(super) fn topic(publisher: u32) -> String {
    format!("load/{publisher}/value")
}

/// A client with a thousand filters of three kinds, none of which match what is published.
fn bystander(options: &Options, number: u32) -> Result<Client, LoadError> {
    let filters: Vec<String> = (0..FILTERS_EACH)
        .map(|filter| match filter % 3 {
            0 => format!("site/{number}/device/{filter}/value"),
            1 => format!("site/{number}/+/{filter}/value"),
            _ => format!("site/{number}/device/{filter}/#"),
        })
        .collect();
    let mut client = Client::connect(&options.hello(&format!("bystander-{number}")))?;
    client.subscribe(&filters, QoS::AtMostOnce)?;
    Ok(client)
}

fn perform(options: &Options, cast: &mut Cast) -> Result<Report, LoadError> {
    let audience = std::mem::replace(&mut cast.audience, Audience::Each);
    let mut flow = Flow::new(audience)?;
    // Subscriptions are there before the first message; the flow wants its publishers first.
    let mut subscribers = Vec::new();
    for (number, (filter, first, count)) in cast.subscribers.iter().enumerate() {
        let mut client = Client::connect(&options.hello(&format!("subscriber-{number}")))?;
        client.subscribe(std::slice::from_ref(filter), options.qos())?;
        subscribers.push((Subscriber::new(options.version(), *first, *count), socket(client, options)));
    }
    let mut window = options.window;
    for number in 0..cast.publishers {
        let client = Client::connect(&options.hello(&format!("publisher-{number}")))?;
        window = window.min(u32::from(client.receive_max().get()).max(1));
        flow.add_publisher(publisher(options, number, cast.fan.into())?, socket(client, options))?;
    }
    for (subscriber, socket) in subscribers {
        flow.add_subscriber(subscriber, socket)?;
    }
    let pace = match options.pace() {
        Pace::Closed { window: asked } if options.qos > 0 => Pace::Closed { window: asked.min(window) },
        pace => pace,
    };
    let measured = flow.run(pace, options.pid, options.warm_up(), options.time())?;
    let mut report = Report::new(&options.scenario.to_string(), &measured, flow.faults());
    report.lateness = flow.lateness().percentiles();
    Ok(report)
}

pub(super) fn publisher(options: &Options, number: u32, fan: u64) -> Result<Publisher, LoadError> {
    let template =
        Template::new(options.version(), &topic(number), options.qos(), false, options.payload_bytes())?;
    Ok(Publisher::new(number, template, options.version(), options.qos(), fan))
}

pub(super) fn socket(client: Client, options: &Options) -> Socket {
    let (stream, read) = client.into_parts();
    (stream, read, options.version())
}
