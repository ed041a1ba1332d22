//! How plugins do: rows for who asks, figures for `$SYS/`.

use std::collections::BTreeMap;

use weirmq_core::hook::{FailureKind, HookPoint};
use weirmq_host::{Figure, PluginStats, ShadowStats};

use super::{DifferenceRow, LatencyRow, MetricRow, PluginRow, PluginState, ShadowRow};
use crate::assemble::{Assembly, Plugin};

/// The plugins, in the order in which they are asked.
pub(crate) fn rows(assembly: &Assembly) -> Vec<PluginRow> {
    assembly.plugins().iter().map(|plugin| row(plugin)).collect()
}

fn row(plugin: &Plugin) -> PluginRow {
    let config = plugin.config();
    let absent = PluginRow {
        name: config.name.clone(),
        file: config.file.display().to_string(),
        error: plugin.absence(),
        ..PluginRow::default()
    };
    let Some(hook) = plugin.serving() else { return absent };
    let (info, stats) = (hook.info(), hook.stats());
    let (shadow, shadow_error) = match hook.shadow() {
        Ok(shadow) => (shadow.map(shadow_row), None),
        Err(why) => (None, Some(why)),
    };
    PluginRow {
        state: match (plugin.is_disabled(), stats.quarantined) {
            (true, _) => PluginState::Disabled,
            (false, true) => PluginState::Quarantined,
            (false, false) => PluginState::Serving,
        },
        kind: Some(info.kind.name().to_owned()),
        version: Some(format!("{} {}", info.plugin, info.version)),
        file: info.file.display().to_string(),
        hooks: info.hooks.iter().map(|point| point.name().to_owned()).collect(),
        topics: info.topics,
        calls: stats.calls.iter().map(|(_, count)| count).sum(),
        failures: stats.failures.iter().map(|(_, count)| count).sum(),
        reloads: stats.reloads,
        calls_by_hook: by_hook(&stats.calls),
        latency: latency(&stats),
        failures_by_kind: by_kind(&stats.failures),
        failures_by_hook: stats
            .failures_by_hook
            .iter()
            .map(|(point, failures)| (point.name().to_owned(), by_kind(failures)))
            .collect(),
        events_dropped: stats.events_dropped,
        memory_bytes: stats.memory_bytes,
        metrics: hook.figures().into_iter().map(|(name, figure)| (name, metric_row(&figure))).collect(),
        metrics_left_out: stats.figures_left_out,
        shadow,
        shadow_error,
        ..absent
    }
}

fn by_hook(counts: &[(HookPoint, u64)]) -> BTreeMap<String, u64> {
    counts.iter().map(|(point, count)| (point.name().to_owned(), *count)).collect()
}

fn by_kind(counts: &[(FailureKind, u64)]) -> BTreeMap<String, u64> {
    counts.iter().map(|(kind, count)| (kind.name().to_owned(), *count)).collect()
}

fn latency(stats: &PluginStats) -> BTreeMap<String, LatencyRow> {
    let nanos = |span: std::time::Duration| u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
    let row = |((point, latency), (_, histogram)): (&(HookPoint, weirmq_host::Latency), &(_, Vec<_>))| {
        let row = LatencyRow {
            timed: latency.timed,
            p50_ns: nanos(latency.p50),
            p99_ns: nanos(latency.p99),
            max_ns: nanos(latency.max),
            histogram: histogram.iter().map(|(span, count)| (nanos(*span), *count)).collect(),
        };
        (point.name().to_owned(), row)
    };
    stats.latency.iter().zip(&stats.histograms).map(row).collect()
}

fn metric_row(figure: &Figure) -> MetricRow {
    // JSON has no word for what a sum may run over to.
    let finite = |value: f64| value.clamp(f64::MIN, f64::MAX);
    match *figure {
        Figure::Counter(value) => MetricRow::Counter { value },
        Figure::Gauge(value) => MetricRow::Gauge { value: finite(value) },
        Figure::Histogram { count, sum, p50, p99 } => {
            MetricRow::Histogram { count, sum: finite(sum), p50: finite(p50), p99: finite(p99) }
        }
    }
}

fn shadow_row(shadow: ShadowStats) -> ShadowRow {
    let ShadowStats { info, compared, differed, latest, left_out, stats } = shadow;
    let difference = |difference: weirmq_host::Difference| DifferenceRow {
        hook: difference.point.name().to_owned(),
        about: difference.about,
        live: difference.live,
        shadow: difference.shadow,
    };
    ShadowRow {
        version: format!("{} {}", info.plugin, info.version),
        file: info.file.display().to_string(),
        compared: by_hook(&compared),
        differed: by_hook(&differed),
        latest: latest.into_iter().map(difference).collect(),
        left_out,
        failures_by_kind: by_kind(&stats.failures),
        latency: latency(&stats),
        memory_bytes: stats.memory_bytes,
    }
}

/// The figures of a plugin by their topics below `$SYS/broker/plugins/`.
pub(crate) fn figures(row: &PluginRow) -> Vec<(String, String)> {
    let mut all = Vec::new();
    let mut put = |topic: String, value: String| all.push((format!("{}/{topic}", row.name), value));
    put("state".to_owned(), row.state.in_words().to_owned());
    if let Some(version) = &row.version {
        put("version".to_owned(), version.clone());
    }
    put("reloads".to_owned(), row.reloads.to_string());
    put("events/dropped".to_owned(), row.events_dropped.to_string());
    put_calls(&mut put, "", &row.calls_by_hook, &row.latency, &row.failures_by_kind, row.memory_bytes);
    for (hook, failures) in &row.failures_by_hook {
        for (kind, count) in failures {
            put(format!("failures/{hook}/{kind}"), count.to_string());
        }
    }
    for (name, metric) in &row.metrics {
        let topic = format!("metrics/{name}");
        match metric {
            MetricRow::Counter { value } => put(topic, value.to_string()),
            MetricRow::Gauge { value } => put(topic, value.to_string()),
            MetricRow::Histogram { count, sum, p50, p99 } => {
                put(format!("{topic}/count"), count.to_string());
                put(format!("{topic}/sum"), sum.to_string());
                put(format!("{topic}/p50"), p50.to_string());
                put(format!("{topic}/p99"), p99.to_string());
            }
        }
    }
    if let Some(shadow) = &row.shadow {
        put("shadow/version".to_owned(), shadow.version.clone());
        put("shadow/left_out".to_owned(), shadow.left_out.to_string());
        for (hook, compared) in &shadow.compared {
            let differed = shadow.differed.get(hook).copied().unwrap_or_default();
            put(format!("shadow/differed/{hook}"), differed.to_string());
            put(format!("shadow/compared/{hook}"), compared.to_string());
        }
        let calls = BTreeMap::new();
        put_calls(
            &mut put,
            "shadow/",
            &calls,
            &shadow.latency,
            &shadow.failures_by_kind,
            shadow.memory_bytes,
        );
    }
    all
}

fn put_calls(
    put: &mut impl FnMut(String, String),
    prefix: &str,
    calls: &BTreeMap<String, u64>,
    latency: &BTreeMap<String, LatencyRow>,
    failures: &BTreeMap<String, u64>,
    memory_bytes: u64,
) {
    put(format!("{prefix}memory/bytes"), memory_bytes.to_string());
    for (hook, count) in calls {
        put(format!("{prefix}calls/{hook}"), count.to_string());
    }
    for (hook, row) in latency {
        put(format!("{prefix}latency/{hook}/p50_ns"), row.p50_ns.to_string());
        put(format!("{prefix}latency/{hook}/p99_ns"), row.p99_ns.to_string());
        put(format!("{prefix}latency/{hook}/max_ns"), row.max_ns.to_string());
    }
    for (kind, count) in failures {
        put(format!("{prefix}failures/{kind}"), count.to_string());
    }
}
