//! Turns what is published below `shout/` into upper case.

use weirmq_native::{Answer, Broker, Level, Message, Plugin, Topics, export_native};

struct Shout;

impl Plugin for Shout {
    fn create(_config: &str, broker: Broker) -> Result<Self, String> {
        broker.log(Level::Info, "ready to shout");
        Ok(Self)
    }

    fn publish_topics(&mut self, topics: &mut Topics<'_>) {
        topics.want("shout/#");
    }

    fn on_publish(&mut self, message: Message<'_>, answer: Answer<'_>) {
        let payload = message.payload().to_ascii_uppercase();
        answer.emit(&[message.draft().payload(&payload)]);
    }
}

export_native!(Shout: on_publish);
