//! Who is asked in which order at each hook point, and who can never be: what `weirmq check` says of the chains.

use weirmq_core::hook::HookPoint;
use weirmq_host::PluginInfo;

use crate::config::{Config, Durability};

/// A line for each hook point that somebody serves, first asked first.
pub(crate) fn orders(config: &Config, plugins: &[PluginInfo]) -> Vec<String> {
    let order = |point: HookPoint| {
        let anonymous = config.auth.allow_anonymous && point == HookPoint::Authenticate;
        let built_in = anonymous.then_some("anonymous (clients without a user name)");
        let plugins = plugins.iter().filter(|plugin| plugin.hooks.contains(point));
        let names: Vec<&str> = built_in.into_iter().chain(plugins.map(|plugin| &*plugin.name)).collect();
        (!names.is_empty()).then(|| format!("{point} asks {}", names.join(", then ")))
    };
    HookPoint::ALL.into_iter().filter_map(order).collect()
}

/// What is configured and can never be asked, each with the reason and what to do.
pub(crate) fn unreachable(config: &Config, plugins: &[PluginInfo]) -> Vec<String> {
    let authenticates = plugins.iter().any(|plugin| plugin.hooks.contains(HookPoint::Authenticate));
    let mut found = Vec::new();
    for plugin in plugins {
        let mut never = |point: HookPoint, why: &str| {
            if plugin.hooks.contains(point) {
                found.push(format!("plugin '{}' is never asked at {point}: {why}", plugin.name));
            }
        };
        if config.auth.allow_anonymous && !authenticates {
            never(
                HookPoint::Authorize,
                "all clients are anonymous, and what those may do is fixed; add a plugin that serves authenticate",
            );
        }
        if config.store.durability == Durability::Memory {
            never(
                HookPoint::Persistence,
                "nothing is stored; give `durability` in [store] another value than \"memory\"",
            );
        }
        for (point, topics) in [
            (HookPoint::OnPublish, &plugin.topics),
            (HookPoint::OnDeliver, &plugin.deliver_topics),
            (HookPoint::Persistence, &plugin.stored_topics),
        ] {
            if topics.is_empty() {
                never(point, "it asks for no topic; see its `topics`, which may depend on its configuration");
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use weirmq_core::hook::HookPoints;
    use weirmq_host::{Manifest, PluginKind};

    use super::*;

    fn config(text: &str) -> Config {
        let text = format!("{text}\n[[plugin]]\nname = 'a'\nfile = 'a.wasm'\n");
        Config::parse(&text, Path::new("weirmq.toml")).unwrap_or_else(|error| panic!("{error}"))
    }

    fn plugin(name: &str, hooks: &[HookPoint], topics: &[&str]) -> PluginInfo {
        let topics: Vec<String> = topics.iter().map(ToString::to_string).collect();
        PluginInfo {
            name: name.to_owned(),
            plugin: name.to_owned(),
            version: "1.0.0".to_owned(),
            api_version: "0.1.0".to_owned(),
            kind: PluginKind::Wasm,
            file: "a.wasm".into(),
            hooks: hooks.iter().copied().collect(),
            in_brief: HookPoints::NONE,
            is_store_backend: false,
            topics: topics.clone(),
            deliver_topics: topics.clone(),
            stored_topics: topics,
            imports: Vec::new(),
            asked: Manifest::default(),
            bytes: 1,
            compiled_in: Duration::ZERO,
            loaded_unix_ms: 0,
        }
    }

    #[test]
    fn the_order_is_that_of_the_configuration_behind_the_built_in() {
        let plugins = [
            plugin("login", &[HookPoint::Authenticate], &[]),
            plugin("policy", &[HookPoint::Authenticate, HookPoint::Authorize], &[]),
        ];
        assert_eq!(
            orders(&config("auth.allow_anonymous = true"), &plugins),
            [
                "authenticate asks anonymous (clients without a user name), then login, then policy",
                "authorize asks policy",
            ]
        );
        assert_eq!(orders(&config(""), &plugins)[0], "authenticate asks login, then policy");
    }

    #[test]
    fn what_can_never_be_asked_is_said_with_the_reason() {
        let authorize = plugin("policy", &[HookPoint::Authorize], &[]);
        let anonymous = config("auth.allow_anonymous = true");
        let said = unreachable(&anonymous, std::slice::from_ref(&authorize));
        assert!(
            said[0].starts_with("plugin 'policy' is never asked at authorize: all clients are anonymous")
        );
        let login = plugin("login", &[HookPoint::Authenticate], &[]);
        assert_eq!(unreachable(&anonymous, &[login, authorize]), Vec::<String>::new());

        let mask = plugin("mask", &[HookPoint::OnPublish], &[]);
        assert!(unreachable(&config(""), &[mask])[0].contains("at on-publish: it asks for no topic"));
        let seal = [plugin("seal", &[HookPoint::Persistence], &["#"])];
        assert_eq!(unreachable(&config(""), &seal), Vec::<String>::new());
        let memory = config("store.durability = 'memory'");
        assert!(unreachable(&memory, &seal)[0].contains("nothing is stored"));
    }
}
