//! From signals to an orderly end.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

/// The request to end, as everybody sees it who has to. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Shutdown(watch::Receiver<bool>);

/// What makes the request. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ShutdownTrigger(watch::Sender<bool>);

impl Shutdown {
    /// A request that nobody has made yet, and what makes it.
    #[must_use]
    pub fn new() -> (ShutdownTrigger, Self) {
        let (sender, receiver) = watch::channel(false);
        (ShutdownTrigger(sender), Self(receiver))
    }

    /// Whether it has been made.
    #[must_use]
    pub fn is_requested(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until it is made, or until nobody can make it any more.
    pub async fn requested(&self) {
        let _ = self.0.clone().wait_for(|requested| *requested).await;
    }
}

impl ShutdownTrigger {
    /// Makes the request.
    pub fn request(&self) {
        self.0.send_replace(true);
    }
}

/// The signals that the broker listens to.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    /// SIGTERM and SIGINT, with the number.
    End(i32),
    /// SIGHUP.
    Reload,
}

impl Signals {
    /// Takes the signals over. From then on they no longer end the process by themselves.
    ///
    /// # Errors
    /// What the system says.
    pub fn listen() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    /// Requests an orderly end at the first SIGTERM or SIGINT and ends the process at the second. SIGHUP calls
    /// `reload`. Never returns.
    pub async fn obey(mut self, trigger: ShutdownTrigger, reload: impl Fn()) {
        let mut ending = false;
        loop {
            match self.next().await {
                Wish::Reload => reload(),
                Wish::End(number) if ending => {
                    tracing::warn!("asked to end a second time: ending at once");
                    std::process::exit(128 + number);
                }
                Wish::End(_) => {
                    ending = true;
                    tracing::info!("asked to end: draining (a second signal ends at once)");
                    trigger.request();
                }
            }
        }
    }

    async fn next(&mut self) -> Wish {
        tokio::select! {
            _ = self.terminate.recv() => Wish::End(SignalKind::terminate().as_raw_value()),
            _ = self.interrupt.recv() => Wish::End(SignalKind::interrupt().as_raw_value()),
            _ = self.hang_up.recv() => Wish::Reload,
        }
    }
}
