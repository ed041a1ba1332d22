//! Letting clients in that do not say who they are.

use std::sync::Arc;

use weirmq_core::hook::{
    AuthenticateRequest, Authentication, Hook, HookPoint, HookPoints, Lease, PublishRight, Reply, Rights,
    SubscribeRight,
};
use weirmq_core::message::QoS;
use weirmq_core::topic::{TopicError, TopicFilter};

/// Lets in clients without a user name, as the principal `anonymous`. They may publish to every topic and
/// subscribe to everything, except that topics that begin with `$` are not theirs to publish to; of those they
/// may subscribe to `$SYS/#`.
///
/// What is done about clients with a user name is said by [`Names`]. Enhanced authentication is always left to
/// the next hook.
pub struct Anonymous {
    names: Names,
    principal: Arc<str>,
    rights: Arc<Rights>,
}

/// What is done about a client that shows a user name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Names {
    /// Whether the name is true is for the next hook to say: where plugins are configured. Nobody gets in with a
    /// wrong password by way of being anonymous.
    LeftToTheNext,
    /// There is nobody who could check it: the client is let in as `anonymous` like one without a name.
    Ignored,
}

impl Anonymous {
    /// The hook.
    ///
    /// # Errors
    /// None in practice: the filters are good.
    pub fn new(names: Names) -> Result<Self, TopicError> {
        let all = TopicFilter::new("#")?;
        let broker = TopicFilter::new("$SYS/#")?;
        // `#` matches no topic that begins with `$` [MQTT-4.7.2-1].
        let publish = vec![PublishRight { filter: all.clone(), qos_max: QoS::ExactlyOnce, retain: true }];
        let subscribe = [all, broker].map(|filter| SubscribeRight { filter, qos_max: QoS::ExactlyOnce });
        let rights = Arc::new(Rights { publish, subscribe: subscribe.to_vec() });
        Ok(Self { names, principal: Arc::from("anonymous"), rights })
    }
}

impl Hook for Anonymous {
    fn name(&self) -> &str {
        "anonymous"
    }

    fn points(&self) -> HookPoints {
        HookPoints::NONE.with(HookPoint::Authenticate)
    }

    fn authenticate(&self, request: &Arc<AuthenticateRequest>) -> Reply<Authentication> {
        let named = request.username.is_some() && self.names == Names::LeftToTheNext;
        if named || request.exchange.is_some() {
            return Reply::ready(Authentication::Next);
        }
        let lease = Lease {
            principal: Arc::clone(&self.principal),
            rights: Some(Arc::clone(&self.rights)),
            ..Lease::default()
        };
        Reply::ready(Authentication::Allow { lease, data: None })
    }
}

#[cfg(test)]
mod tests {
    use weirmq_core::hook::{AuthExchange, Version};

    use super::*;

    fn ask(names: Names, username: Option<&str>, exchange: bool) -> Authentication {
        let request = AuthenticateRequest {
            client_id: "c".into(),
            username: username.map(Into::into),
            password: None,
            version: Version::V5,
            clean_start: true,
            peer: None,
            listener: "main".into(),
            user_properties: Vec::new(),
            exchange: exchange.then(|| AuthExchange {
                id: 1,
                step: 0,
                method: "m".into(),
                data: None,
                renewal: false,
            }),
        };
        match Anonymous::new(names).unwrap().authenticate(&Arc::new(request)) {
            Reply::Now(answer) => answer.unwrap(),
            Reply::Later(_) => panic!("there is nothing to wait for"),
        }
    }

    #[test]
    fn a_name_is_never_taken_for_true_unchecked() {
        assert_eq!(ask(Names::LeftToTheNext, Some("admin"), false), Authentication::Next);
        for (names, username) in
            [(Names::LeftToTheNext, None), (Names::Ignored, None), (Names::Ignored, Some("admin"))]
        {
            let Authentication::Allow { lease, .. } = ask(names, username, false) else { panic!("let in") };
            assert_eq!(&*lease.principal, "anonymous");
        }
        assert_eq!(ask(Names::Ignored, None, true), Authentication::Next);
    }

    #[test]
    fn anonymous_clients_publish_to_no_topic_of_the_broker() {
        let rights = Anonymous::new(Names::Ignored).unwrap().rights;
        let may_publish = |topic| rights.publish.iter().any(|right| right.filter.matches(topic));
        assert!(may_publish("a/b") && !may_publish("$SYS/broker/uptime") && !may_publish("$other"));
        let may_subscribe = |filter| {
            let filter = TopicFilter::new(filter).unwrap();
            rights.subscribe.iter().any(|right| right.filter.covers(&filter))
        };
        assert!(may_subscribe("#") && may_subscribe("$SYS/#") && may_subscribe("$SYS/broker/+"));
        assert!(!may_subscribe("$other/#"));
    }
}
