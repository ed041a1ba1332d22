//! A few threads for calls that may take their time, so that no worker of the broker waits for them.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::oneshot;
use weirmq_core::hook::{Failure, FailureKind, Reply};

type Job = Box<dyn FnOnce() + Send>;

/// Threads with a bounded queue in front. Dropping it finishes the jobs that wait.
pub(crate) struct Pool {
    jobs: Option<SyncSender<Job>>,
    threads: Vec<JoinHandle<()>>,
    queue_max: usize,
    wait_max: Duration,
}

impl Pool {
    /// Starts `threads` threads. At most `queue_max` jobs wait for one of them, and those that are asked for an
    /// answer at most `wait_max`.
    pub(crate) fn start(
        name: &str,
        threads: usize,
        queue_max: usize,
        wait_max: Duration,
    ) -> std::io::Result<Self> {
        let (jobs, queue) = sync_channel(queue_max);
        let queue = Arc::new(Mutex::new(queue));
        let threads = (0..threads)
            .map(|index| {
                let queue = Arc::clone(&queue);
                std::thread::Builder::new().name(format!("{name}-{index}")).spawn(move || work(&queue))
            })
            .collect::<std::io::Result<_>>()?;
        Ok(Self { jobs: Some(jobs), threads, queue_max, wait_max })
    }

    /// Runs `work` on one of the threads, and gives the answer when it is there. Nothing is run for somebody who
    /// has stopped waiting.
    pub(crate) fn ask<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
    ) -> Reply<T> {
        let (answer, later) = oneshot::channel();
        let (asked, wait_max) = (Instant::now(), self.wait_max);
        let job = move || {
            if answer.is_closed() {
                return;
            }
            let result = if asked.elapsed() > wait_max { Err(waited_too_long(wait_max)) } else { work() };
            let _ = answer.send(result);
        };
        if let Err(failure) = self.submit(job) {
            return Reply::failed(failure);
        }
        Reply::Later(Box::pin(async move {
            later.await.unwrap_or_else(|_| {
                Err(Failure::new(FailureKind::Unavailable, "the plugin host has stopped"))
            })
        }))
    }

    /// Runs `work` on one of the threads; nobody waits for it.
    pub(crate) fn submit(&self, work: impl FnOnce() + Send + 'static) -> Result<(), Failure> {
        let stopped = || Failure::new(FailureKind::Unavailable, "the plugin host is stopping");
        match self.jobs.as_ref().ok_or_else(stopped)?.try_send(Box::new(work)) {
            Ok(()) => Ok(()),
            Err(TrySendError::Disconnected(_)) => Err(stopped()),
            Err(TrySendError::Full(_)) => Err(Failure::new(
                FailureKind::Unavailable,
                format!("{} calls wait for a plugin thread already", self.queue_max),
            )),
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.jobs = None;
        let own = std::thread::current().id();
        for thread in self.threads.drain(..) {
            // The last one who holds the pool may be a job that runs on it.
            if thread.thread().id() != own {
                let _ = thread.join();
            }
        }
    }
}

fn work(queue: &Mutex<Receiver<Job>>) {
    loop {
        let next = queue.lock().recv();
        let Ok(job) = next else { return };
        job();
    }
}

fn waited_too_long(wait_max: Duration) -> Failure {
    let waited = format!("the call waited {} ms for a plugin thread", wait_max.as_millis());
    Failure::new(FailureKind::Unavailable, waited)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    fn block_on<T>(reply: Reply<T>) -> Result<T, Failure> {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(reply.get())
    }

    #[test]
    fn a_full_queue_refuses_at_once_and_what_waits_is_answered() {
        let pool = Pool::start("test", 1, 1, Duration::from_secs(60)).unwrap();
        let (started, is_running) = channel();
        let (go, gone) = channel::<()>();
        let first = pool.ask(move || {
            started.send(()).unwrap();
            gone.recv().ok();
            Ok(1)
        });
        is_running.recv().unwrap();
        let second = pool.ask(|| Ok(2));
        let third: Reply<i32> = pool.ask(|| Ok(3));
        assert!(matches!(third, Reply::Now(Err(failure)) if failure.kind == FailureKind::Unavailable));
        go.send(()).unwrap();
        assert_eq!(block_on(first), Ok(1));
        assert_eq!(block_on(second), Ok(2));
    }

    #[test]
    fn a_call_that_waited_too_long_is_not_run() {
        let pool = Pool::start("test", 1, 4, Duration::ZERO).unwrap();
        let reply = pool.ask(|| -> Result<(), Failure> { panic!("it must not run") });
        assert_eq!(block_on(reply).unwrap_err().kind, FailureKind::Unavailable);
    }

    #[test]
    fn nothing_is_run_for_a_client_that_has_gone() {
        let pool = Pool::start("test", 1, 4, Duration::from_secs(60)).unwrap();
        let (go, gone) = channel::<()>();
        pool.submit(move || gone.recv().unwrap_or(())).unwrap();
        drop(pool.ask(|| -> Result<(), Failure> { panic!("it must not run") }));
        go.send(()).unwrap();
        assert_eq!(block_on(pool.ask(|| Ok(7))), Ok(7), "the thread lives on");
    }
}
