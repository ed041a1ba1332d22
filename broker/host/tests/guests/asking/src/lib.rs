//! A plugin that asks for everything that must be granted, for the tests of the plugin host. The command stands in the
//! user name of a login, or in the payload of a message, and the answer is who the client is let in as.

use weirmq_plugin::host::{self, Consequence, Request, Whom, keys};
use weirmq_plugin::*;

struct Asking;

impl Plugin for Asking {
    type Config = NoConfig;

    fn new(_: NoConfig) -> Result<Self, String> {
        Ok(Self)
    }
}

/// Does what `command` says: a verb and what follows it.
fn obey(command: &str) -> String {
    let (verb, rest) = command.split_once(' ').unwrap_or((command, ""));
    let (first, second) = rest.split_once(' ').unwrap_or((rest, ""));
    match verb {
        "secret" => host::secret(first).unwrap_or_else(|| "(none)".to_owned()),
        "random" => {
            let bytes = host::random(first.parse().unwrap_or(0));
            format!("{} {}", bytes.len(), bytes.iter().any(|byte| *byte != 0))
        }
        "set" => format!("{:?}", keys::set(first, second.as_bytes())),
        "get" => match keys::get(first) {
            Ok(Some(value)) => String::from_utf8_lossy(&value).into_owned(),
            other => format!("{other:?}"),
        },
        "swap" => format!("{:?}", keys::compare_and_set(first, None, second.as_bytes())),
        "delete" => format!("{:?}", keys::delete(first)),
        "list" => format!("{:?}", keys::list(first, None, 10)),
        "publish" => format!("{:?}", host::publish(&draft(first, second))),
        "http" => match host::send(&request(first, second)) {
            Ok(response) => format!("{} {}", response.status, String::from_utf8_lossy(&response.body)),
            Err(error) => format!("{error:?}"),
        },
        "revoke" => {
            let whom = match first {
                "everyone" => Whom::Everyone,
                client => Whom::Client(client.to_owned()),
            };
            let consequence = match second.parse() {
                Ok(code) => Consequence::End(code),
                Err(_) => Consequence::AskAgain,
            };
            format!("{:?}", host::revoke(&whom, consequence, "told to revoke"))
        }
        "panic" => panic!("told to panic"),
        _ => command.to_owned(),
    }
}

fn draft(topic: &str, payload: &str) -> Draft {
    Draft {
        topic: topic.to_owned(),
        payload: payload.as_bytes().to_vec(),
        qos: Qos::AtLeastOnce,
        retain: false,
        properties: Properties {
            payload_is_utf8: None,
            content_type: None,
            response_topic: None,
            correlation_data: None,
            user: Vec::new(),
        },
        expires_in_ms: None,
    }
}

fn request(url: &str, body: &str) -> Request {
    let method = if body.is_empty() { "GET" } else { "POST" };
    Request {
        method: method.to_owned(),
        url: url.to_owned(),
        headers: vec![Pair { name: "x-asked-by".to_owned(), value: "asking".to_owned() }],
        body: body.as_bytes().to_vec(),
        timeout_ms: None,
    }
}

impl Authenticate for Asking {
    fn authenticate(&mut self, request: AuthenticateRequest) -> Answer {
        let mut answer = String::new();
        for command in request.username.unwrap_or_default().split(';') {
            answer = obey(command.trim());
        }
        Answer::allow(Lease::new(answer).publishing_at_most(50).subscribing_at_most(2))
    }
}

impl OnPublish for Asking {
    fn topics(&mut self) -> Vec<String> {
        vec!["ask/#".to_owned()]
    }

    fn on_publish(&mut self, message: Message) -> Verdict {
        let answer = obey(&String::from_utf8_lossy(&message.payload));
        Verdict::Replace(Draft { payload: answer.into_bytes(), ..Draft::from(message) })
    }
}

impl OnDeliver for Asking {
    fn topics(&mut self) -> Vec<String> {
        vec!["ask/#".to_owned()]
    }

    fn on_deliver(&mut self, message: Message, _: Identity) -> DeliverVerdict {
        let answer = obey(&String::from_utf8_lossy(&message.payload));
        DeliverVerdict::Replace(Content { payload: answer.into_bytes(), properties: message.properties })
    }
}

export!(
    Asking: authenticate, on_publish, on_deliver;
    manifest r#"{ "secrets": ["token"], "publish": ["alerts/#"], "key-value": true }"#
);
