//! Standing in for a plugin that could not be loaded.

use std::sync::Arc;

use weirmq_core::hook::{
    AuthenticateRequest, Authentication, AuthorizeRequest, Decision, Failure, FailureKind, FilterRequest,
    FilterVerdict, Hook, HookPoint, HookPoints, Reply, Transform, Transformed,
};
use weirmq_core::message::Message;
use weirmq_core::time::Now;
use weirmq_core::topic::TopicName;
use weirmq_host::PluginConfig;

/// Stands in the chains where a plugin should that could not be loaded, and fails whenever it is asked: so the
/// failure policy of the plugin applies.
///
/// Nobody knows which hook points the plugin would have served. It is taken to serve `authenticate` and
/// `authorize`, so that nobody gets in because a guard is missing; and every point for which `on_failure` in its
/// configuration says what is to be done. It also stands in for a plugin that an operator has disabled.
pub struct Absent {
    name: String,
    points: HookPoints,
    why: Arc<str>,
}

impl Absent {
    /// In the place of the plugin of `config`, which could not be loaded because of `why`.
    #[must_use]
    pub fn new(config: &PluginConfig, why: &str) -> Self {
        let configured = config.on_failure.policies().into_iter().map(|(point, _)| point);
        let points = [HookPoint::Authenticate, HookPoint::Authorize].into_iter().chain(configured).collect();
        Self { name: config.name.clone(), points, why: Arc::from(format!("not loaded: {why}")) }
    }

    /// In the place of the plugin of `config`, which serves `points` and was disabled by an operator. What it decides
    /// is decided by its failure policies, so that a guard that is disabled lets nobody in; it changes nothing.
    #[must_use]
    pub fn disabled(config: &PluginConfig, points: HookPoints) -> Self {
        let guards =
            [HookPoint::Authenticate, HookPoint::Authorize, HookPoint::OnSubscribe, HookPoint::OnUnsubscribe];
        let points = guards.into_iter().filter(|point| points.contains(*point)).collect();
        Self { name: config.name.clone(), points, why: Arc::from("an operator has disabled it") }
    }

    /// Why the plugin is not in service.
    #[must_use]
    pub fn why(&self) -> &str {
        self.why.strip_prefix("not loaded: ").unwrap_or(&self.why)
    }

    fn failure(&self) -> Failure {
        unavailable(&self.why)
    }
}

fn unavailable(why: &str) -> Failure {
    Failure::new(FailureKind::Unavailable, why)
}

impl Hook for Absent {
    fn name(&self) -> &str {
        &self.name
    }

    fn points(&self) -> HookPoints {
        self.points
    }

    fn authenticate(&self, _: &Arc<AuthenticateRequest>) -> Reply<Authentication> {
        Reply::failed(self.failure())
    }

    fn authorize(&self, _: &Arc<AuthorizeRequest>) -> Reply<Decision> {
        Reply::failed(self.failure())
    }

    fn on_publish(self: Arc<Self>, _: &TopicName) -> Option<Arc<dyn Transform>> {
        Some(Arc::new(AbsentTransform(Arc::clone(&self.why))))
    }

    fn on_subscribe(&self, _: &Arc<FilterRequest>) -> Reply<FilterVerdict> {
        Reply::failed(self.failure())
    }

    fn on_unsubscribe(&self, _: &Arc<FilterRequest>) -> Reply<FilterVerdict> {
        Reply::failed(self.failure())
    }
}

struct AbsentTransform(Arc<str>);

impl Transform for AbsentTransform {
    fn transform(&self, _: &Arc<Message>, _: Now) -> Reply<Transformed> {
        Reply::failed(unavailable(&self.0))
    }
}

#[cfg(test)]
mod tests {
    use weirmq_host::{FailurePolicy, OnFailure};

    use super::*;

    #[test]
    fn a_plugin_that_is_not_there_guards_logins_and_what_its_configuration_names() {
        let mut config = PluginConfig::new("mask", "mask.wasm");
        let points: Vec<HookPoint> = Absent::new(&config, "no file").points().iter().collect();
        assert_eq!(points, [HookPoint::Authenticate, HookPoint::Authorize]);
        config.on_failure = OnFailure { on_publish: Some(FailurePolicy::Deny), ..OnFailure::default() };
        let absent = Arc::new(Absent::new(&config, "no file"));
        assert!(absent.points().contains(HookPoint::OnPublish));
        let topic = TopicName::new("a").unwrap();
        assert!(Arc::clone(&absent).on_publish(&topic).is_some(), "for every topic");
        assert_eq!(absent.failure().to_string(), "not in service: not loaded: no file");
    }
    #[test]
    fn a_guard_that_is_disabled_lets_nobody_in_and_a_transform_that_is_changes_nothing() {
        let config = PluginConfig::new("guard", "guard.wasm");
        let served =
            [HookPoint::Authenticate, HookPoint::OnSubscribe, HookPoint::OnPublish, HookPoint::Timer];
        let disabled = Absent::disabled(&config, served.into_iter().collect());
        let points: Vec<HookPoint> = disabled.points().iter().collect();
        assert_eq!(points, [HookPoint::Authenticate, HookPoint::OnSubscribe]);
        assert_eq!(disabled.failure().to_string(), "not in service: an operator has disabled it");
        assert_eq!(HookPoint::Authenticate.default_policy(), weirmq_core::hook::Policy::Deny);
    }
}
