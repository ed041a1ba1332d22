//! CPU and memory of a process, from `/proc`.

use std::fs;

use super::LoadError;

/// CPU time that a process has used from a moment on, all its threads together.
#[derive(Debug, Clone, Copy)]
pub struct CpuSpan {
    pid: u32,
    from_us: u64,
}

impl CpuSpan {
    /// From now on.
    ///
    /// # Errors
    /// [`LoadError::Io`] where there is no such process.
    pub fn start(pid: u32) -> Result<Self, LoadError> {
        Ok(Self { pid, from_us: cpu_us(pid)? })
    }

    /// Of which process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Until now, in microseconds.
    ///
    /// # Errors
    /// [`LoadError::Io`] where the process has ended.
    pub fn used_us(&self) -> Result<u64, LoadError> {
        Ok(cpu_us(self.pid)?.saturating_sub(self.from_us))
    }
}

/// Memory of a process that is in RAM.
///
/// # Errors
/// [`LoadError::Io`] where there is no such process.
pub fn rss_bytes(pid: u32) -> Result<u64, LoadError> {
    let file = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&file).map_err(LoadError::io(file))?;
    Ok(rss_in(&text).unwrap_or(0))
}

fn cpu_us(pid: u32) -> Result<u64, LoadError> {
    match scheduled_us(pid) {
        Some(microseconds) => Ok(microseconds),
        None => ticked_us(pid),
    }
}

/// By the scheduler's own account, exact to a few milliseconds; without threads that have ended. `None` where the
/// kernel does not keep it.
fn scheduled_us(pid: u32) -> Option<u64> {
    let mut nanoseconds = 0_u64;
    for thread in fs::read_dir(format!("/proc/{pid}/task")).ok()? {
        // A thread may end while its neighbours are read.
        let Ok(text) = fs::read_to_string(thread.ok()?.path().join("schedstat")) else { continue };
        nanoseconds += text.split_ascii_whitespace().next()?.parse::<u64>().ok()?;
    }
    (nanoseconds > 0).then_some(nanoseconds / 1_000)
}

/// By `/proc/PID/stat`, in ticks, usually of 10 ms.
fn ticked_us(pid: u32) -> Result<u64, LoadError> {
    let file = format!("/proc/{pid}/stat");
    let text = fs::read_to_string(&file).map_err(LoadError::io(file))?;
    let ticks = ticks_in(&text).unwrap_or(0);
    Ok(ticks.saturating_mul(1_000_000) / rustix::param::clock_ticks_per_second().max(1))
}

/// The sum of `utime` and `stime` in a line of `/proc/PID/stat`.
fn ticks_in(stat: &str) -> Option<u64> {
    // The name of the program may contain blanks and parentheses; it ends with the last one.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut times = fields.split_ascii_whitespace().skip(11);
    let user: u64 = times.next()?.parse().ok()?;
    let system: u64 = times.next()?.parse().ok()?;
    Some(user + system)
}

fn rss_in(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.split_ascii_whitespace().next()?.parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_times_are_found_behind_a_name_with_blanks_and_parentheses() {
        let stat = "77 (a) b (c)) S 1 77 77 0 -1 4194560 1 2 3 4 250 31 7 8 20 0 3 0 12345 1 1";
        assert_eq!(ticks_in(stat), Some(281));
        assert_eq!(ticks_in("77 (a"), None);
    }

    #[test]
    fn memory_is_read_in_bytes() {
        assert_eq!(rss_in("Name:\tx\nVmRSS:\t   2048 kB\nThreads:\t1\n"), Some(2 * 1024 * 1024));
    }

    #[test]
    fn this_process_can_be_watched_and_one_that_is_not_there_is_named() {
        let own = std::process::id();
        assert!(CpuSpan::start(own).unwrap().used_us().is_ok());
        assert!(rss_bytes(own).unwrap() > 0);
        assert!(ticked_us(own).is_ok());
        assert!(CpuSpan::start(u32::MAX).unwrap_err().to_string().starts_with("/proc/4294967295/stat: "));
    }
}
