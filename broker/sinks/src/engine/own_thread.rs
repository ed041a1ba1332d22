//! A thread for a sink whose library blocks: jobs go in, answers come out, no tokio worker waits.

use std::io;
use std::sync::mpsc;
use std::thread;

use tokio::sync::oneshot;

type Job<T> = Box<dyn FnOnce(&mut T) + Send>;

/// A thread with a state of its own. Ends once this is dropped and the job at hand is done.
pub(crate) struct OwnThread<T> {
    jobs: mpsc::Sender<Job<T>>,
}

impl<T: Send + 'static> OwnThread<T> {
    /// Starts a thread called `name` around `state`.
    pub(crate) fn start(name: &str, mut state: T) -> io::Result<Self> {
        let (jobs, inbox) = mpsc::channel::<Job<T>>();
        thread::Builder::new().name(format!("sink {name}")).spawn(move || {
            for job in inbox {
                job(&mut state);
            }
        })?;
        Ok(Self { jobs })
    }

    /// Has `job` done on the thread; `None` when the thread is gone, which only a panic in a job brings about.
    /// The job is done even when nobody waits for its answer any more.
    pub(crate) async fn run<R: Send + 'static>(
        &self,
        job: impl FnOnce(&mut T) -> R + Send + 'static,
    ) -> Option<R> {
        let (sender, answer) = oneshot::channel();
        let job: Job<T> = Box::new(move |state| {
            let _nobody_waits = sender.send(job(state));
        });
        self.jobs.send(job).ok()?;
        answer.await.ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn jobs_are_done_in_order_on_one_thread() {
        let thread = OwnThread::start("test", Vec::new()).unwrap();
        for number in 0..3 {
            thread.run(move |list: &mut Vec<i32>| list.push(number)).await.unwrap();
        }
        assert_eq!(thread.run(|list: &mut Vec<i32>| list.clone()).await.unwrap(), [0, 1, 2]);
    }

    #[tokio::test]
    async fn a_panic_in_a_job_is_told_and_does_not_hang() {
        let thread = OwnThread::start("test", ()).unwrap();
        assert_eq!(thread.run(|()| panic!("on purpose")).await, None::<()>);
        assert_eq!(thread.run(|()| 1).await, None);
    }
}
