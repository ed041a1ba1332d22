//! Logs at a bounded rate, so that what goes wrong a thousand times a second does not fill the disk too.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// How long a line stands for what follows it.
const INTERVAL: Duration = Duration::from_secs(10);

/// Lets one line pass per interval and counts what it holds back.
#[derive(Debug, Default)]
pub(crate) struct Throttle(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    last: Option<Instant>,
    held_back: u64,
}

impl Throttle {
    /// `Some` when a line may be written now, with the number of lines held back since the last one.
    pub(crate) fn pass(&self) -> Option<u64> {
        let now = Instant::now();
        let mut state = self.0.lock();
        if state.last.is_some_and(|last| now.duration_since(last) < INTERVAL) {
            state.held_back = state.held_back.saturating_add(1);
            return None;
        }
        state.last = Some(now);
        Some(std::mem::take(&mut state.held_back))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_line_per_interval_says_how_many_it_stands_for() {
        let throttle = Throttle::default();
        assert_eq!(throttle.pass(), Some(0));
        assert_eq!(throttle.pass(), None);
        assert_eq!(throttle.pass(), None);
        tokio::time::advance(INTERVAL).await;
        assert_eq!(throttle.pass(), Some(2));
    }
}
