//! What all of it was measured on.

use std::fs;
use std::thread::available_parallelism;

/// Processor, cores, memory, kernel.
pub(super) fn describe() -> String {
    let read = |file| fs::read_to_string(file).unwrap_or_default();
    let after_colon = |text: &str, key: &str| {
        let line = text.lines().find(|line| line.starts_with(key)).unwrap_or_default();
        line.split_once(':').map_or_else(String::new, |(_, value)| value.trim().to_owned())
    };
    let processor = after_colon(&read("/proc/cpuinfo"), "model name");
    let cores = available_parallelism().map_or(0, usize::from);
    let memory = after_colon(&read("/proc/meminfo"), "MemTotal");
    let kernel = read("/proc/sys/kernel/osrelease");
    format!("{processor}, {cores} cores, {memory} of memory, Linux {}", kernel.trim())
}

/// How busy it was in the last minute: brokers share it with whatever else runs.
pub(super) fn load_average() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or_default().to_owned()
}
