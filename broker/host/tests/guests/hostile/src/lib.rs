//! A plugin that misbehaves on command, for the tests of the plugin host. It serves every hook point. The
//! command stands in what the hook is asked about: the user name, the topic or filter, the payload.
//!
//! What it does when it starts stands in its configuration (`init`, `health`), or in [`MARKER`], which a test can
//! overwrite in the file to make another version of the plugin.

use std::hint::black_box;

use serde::Deserialize;
use weirmq_plugin::host::{self, Level};
use weirmq_plugin::*;

/// `hostile-marker:`, the name of this generation, and what it does when it starts. Tests rewrite it in place.
static MARKER: [u8; 32] = *b"hostile-marker:A:serve..........";

struct Hostile {
    config: Config,
    calls: u32,
    kept: Vec<Vec<u8>>,
}

#[derive(Deserialize)]
#[serde(default)]
struct Config {
    init: String,
    health: String,
    topics: Vec<String>,
    events: Vec<String>,
    interval_ms: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            init: "serve".to_owned(),
            health: "serve".to_owned(),
            topics: vec!["#".to_owned()],
            events: Vec::new(),
            interval_ms: 1000,
        }
    }
}

impl Plugin for Hostile {
    type Config = Config;

    fn new(config: Config) -> Result<Self, String> {
        let mut plugin = Self { config, calls: 0, kept: Vec::new() };
        let (init, marked) = (plugin.config.init.clone(), marker().1);
        if init == "refuse" {
            return Err("init was told to refuse".to_owned());
        }
        plugin.obey(&init);
        plugin.obey(&marked);
        Ok(plugin)
    }

    fn health(&mut self) -> Result<(), String> {
        let health = self.config.health.clone();
        self.obey(&health);
        if health == "sick" { Err("health was told to be sick".to_owned()) } else { Ok(()) }
    }
}

impl Hostile {
    /// Does what `command` says, as far as it ends the call or takes time.
    fn obey(&mut self, command: &str) {
        self.calls += 1;
        let (verb, number) = command.split_once(':').unwrap_or((command, ""));
        let number: u64 = number.parse().unwrap_or(0);
        match verb {
            "loop" => loop {
                black_box(self.calls);
            },
            "allocate" => loop {
                self.kept.push(black_box(vec![1; 1 << 20]));
            },
            "trap" => trap(),
            "panic" => panic!("told to panic"),
            "recurse" => drop(black_box(recurse(1))),
            "slow" => {
                let until = host::monotonic_us() + number * 1000;
                while host::monotonic_us() < until {}
            }
            "count" => (0..number).for_each(|_| host::count("counted", 1)),
            "flood" => (0..number).for_each(|line| host::log(Level::Info, &format!("flood line {line}"))),
            _ => {}
        }
    }
}

impl Authenticate for Hostile {
    fn authenticate(&mut self, request: AuthenticateRequest) -> Answer {
        let command = request.username.unwrap_or_default();
        self.obey(&command);
        match command.as_str() {
            "next" => Answer::Next,
            "calls" => Answer::allow(Lease::new(self.calls.to_string())),
            "generation" => Answer::allow(Lease::new(marker().0)),
            "config" => Answer::allow(Lease::new(host::config_value("topics").unwrap_or_default())),
            "challenge" => Answer::Continue(Some(b"challenge".to_vec())),
            "bad-filter" => Answer::allow(Lease::new("x").with_rights(Rights::none().publish("a/#/b"))),
            "bad-principal" => Answer::allow(Lease::new("")),
            "bad-code" => Answer::deny(0x00, "a refusal that says success"),
            "unknown-code" => Answer::deny(0xff, "a code that does not exist"),
            "huge" => Answer::allow(Lease::new("x".repeat(8 << 20))),
            "many" => {
                let mut lease = Lease::new("x");
                lease.attributes = vec![Pair { name: String::new(), value: String::new() }; 500_000];
                Answer::allow(lease)
            }
            "deny" => Answer::deny(BAD_USER_NAME_OR_PASSWORD, "told to deny"),
            "everything" => Answer::Allow(Welcome {
                lease: Lease::new("everything")
                    .with_attribute("peer", request.peer.unwrap_or_default())
                    .with_attribute("listener", request.listener)
                    .with_attribute("client-id", request.client_id)
                    .with_attribute("properties", format!("{:?}", request.user_properties.len()))
                    .with_rights(Rights::none().publish("a/+").subscribe("b/#"))
                    .expiring_in(60),
                data: request.password,
            }),
            _ => Answer::allow(Lease::new(command)),
        }
    }
}

impl Authorize for Hostile {
    fn authorize(&mut self, identity: Identity, action: Action) -> Decision {
        let command = match &action {
            Action::Publish(publish) => &publish.topic,
            Action::Subscribe(subscribe) => &subscribe.filter,
        };
        self.obey(command);
        match command.as_str() {
            "next" => Decision::Next,
            "deny" => Decision::deny(NOT_AUTHORIZED, format!("{} may not", identity.principal)),
            "retell" => Decision::deny(NOT_AUTHORIZED, format!("{identity:?} {action:?}")),
            "bad-code" => Decision::deny(0x10, "no refusal"),
            _ => Decision::Allow,
        }
    }
}

impl OnPublish for Hostile {
    fn topics(&mut self) -> Vec<String> {
        self.config.topics.clone()
    }

    fn on_publish(&mut self, message: Message) -> Verdict {
        // Padded with spaces by the bench, which wants a payload of 64 bytes.
        let command = String::from_utf8_lossy(&message.payload).trim_end().to_owned();
        self.obey(&command);
        if command == "retell" {
            return Verdict::drop(PAYLOAD_FORMAT_INVALID, format!("{message:?}"));
        }
        let mut draft = Draft::from(message);
        match command.as_str() {
            "other-qos" => draft.qos = Qos::AtMostOnce,
            "other-topic" => draft.topic.push_str("/other"),
            "retained" => draft.retain = true,
            "marked" => draft.properties.user.push(Pair { name: "seen".to_owned(), value: "yes".to_owned() }),
            "for-ever" => draft.expires_in_ms = None,
            "none" => return Verdict::Several(Vec::new()),
            "drop" => return Verdict::drop(PAYLOAD_FORMAT_INVALID, "told to drop"),
            "generation" => draft.payload = marker().0.into_bytes(),
            "upper" => draft.payload.make_ascii_uppercase(),
            "several" => {
                let mut second = draft.clone();
                second.topic.push_str("/copy");
                return Verdict::Several(vec![draft, second]);
            }
            "bad-topic" => draft.topic = "a/+".to_owned(),
            "bad-response-topic" => draft.properties.response_topic = Some("a/#".to_owned()),
            "bad-property" => draft.properties.content_type = Some("a\0b".to_owned()),
            "bad-utf8" => {
                draft.payload = vec![0xff];
                draft.properties.payload_is_utf8 = Some(true);
            }
            "bad-second" => {
                let mut second = draft.clone();
                second.topic = String::new();
                return Verdict::Several(vec![draft, second]);
            }
            "huge" => draft.payload = vec![0; 8 << 20],
            _ => return Verdict::Pass,
        }
        Verdict::Replace(draft)
    }
}

impl OnSubscribe for Hostile {
    fn on_subscribe(&mut self, _: Identity, filter: String, _: Qos) -> FilterVerdict {
        self.obey(&filter);
        match filter.as_str() {
            "rewrite" => FilterVerdict::Rewrite("$share/g/rewritten/#".to_owned()),
            "bad-filter" => FilterVerdict::Rewrite("a/#/b".to_owned()),
            "deny" => FilterVerdict::deny(NOT_AUTHORIZED, "told to deny"),
            _ => FilterVerdict::Pass,
        }
    }
}

impl OnUnsubscribe for Hostile {
    fn on_unsubscribe(&mut self, identity: Identity, filter: String) -> FilterVerdict {
        self.on_subscribe(identity, filter, Qos::AtMostOnce)
    }
}

impl OnDeliver for Hostile {
    fn topics(&mut self) -> Vec<String> {
        self.config.topics.clone()
    }

    fn on_deliver(&mut self, message: Message, receiver: Identity) -> DeliverVerdict {
        let command = String::from_utf8_lossy(&message.payload).into_owned();
        self.obey(&command);
        let Message { payload, mut properties, .. } = message;
        match command.as_str() {
            "drop" => return DeliverVerdict::Drop(format!("not for {}", receiver.principal)),
            "upper" => {}
            "bad-property" => properties.content_type = Some("a\0b".to_owned()),
            _ => return DeliverVerdict::Pass,
        }
        properties.user.push(Pair { name: "for".to_owned(), value: receiver.client_id });
        DeliverVerdict::Replace(Content { payload: payload.to_ascii_uppercase(), properties })
    }
}

/// What is sealed begins so; what does not is of somebody else.
const SEAL: &[u8] = b"sealed:";

impl Persistence for Hostile {
    fn topics(&mut self) -> Vec<String> {
        self.config.topics.clone()
    }

    fn before_store(&mut self, message: Message) -> Stored {
        let command = String::from_utf8_lossy(&message.payload).into_owned();
        self.obey(&command);
        match command.as_str() {
            "keep" => Stored::Keep,
            "skip" => Stored::Skip,
            _ => Stored::Replace([SEAL, &message.payload].concat()),
        }
    }

    fn after_load(&mut self, message: Message) -> Result<Vec<u8>, String> {
        match message.payload.strip_prefix(SEAL) {
            Some(payload) => Ok(payload.to_vec()),
            None => Err("it has no seal".to_owned()),
        }
    }
}

impl Timer for Hostile {
    fn interval_ms(&mut self) -> u32 {
        self.config.interval_ms
    }

    fn on_timer(&mut self, at_unix_ms: u64) {
        host::count("ticks", 1);
        host::gauge("ticked-at", at_unix_ms as f64);
    }
}

impl Lifecycle for Hostile {
    fn events(&mut self) -> Vec<EventKind> {
        let all = [
            ("connected", EventKind::Connected),
            ("disconnected", EventKind::Disconnected),
            ("session-ended", EventKind::SessionEnded),
            ("message-dropped", EventKind::MessageDropped),
            ("message-delivered", EventKind::MessageDelivered),
            ("message-acked", EventKind::MessageAcked),
        ];
        let wanted =
            |name: &str| self.config.events.is_empty() || self.config.events.iter().any(|own| own == name);
        all.into_iter().filter(|(name, _)| wanted(name)).map(|(_, kind)| kind).collect()
    }

    fn on_event(&mut self, event: Event, at_unix_ms: u64) {
        if let Event::SessionEnded(command) = &event {
            self.obey(command);
        }
        host::log(Level::Info, &format!("event at {at_unix_ms}: {event:?}"));
    }
}

export!(
    Hostile: authenticate, authorize, on_publish, on_deliver, on_subscribe, on_unsubscribe, persistence, lifecycle, timer
);

/// The name of this generation, and what it does when it starts.
fn marker() -> (String, String) {
    let text = String::from_utf8_lossy(black_box(&MARKER)).into_owned();
    let mut fields = text.split(':').skip(1).map(|field| field.trim_end_matches('.').to_owned());
    (fields.next().unwrap_or_default(), fields.next().unwrap_or_default())
}

fn trap() -> ! {
    #[cfg(target_arch = "wasm32")]
    core::arch::wasm32::unreachable();
    #[cfg(not(target_arch = "wasm32"))]
    std::process::abort();
}

#[expect(unconditional_recursion, reason = "it is what it is for")]
fn recurse(depth: u64) -> u64 {
    black_box(recurse(black_box(depth + 1))) + depth
}
