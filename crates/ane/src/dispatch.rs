//! The engine's thread: everything that a framework is asked, in order, with deadlines.
//!
//! Frameworks are not documented as safe for threads, and a call may not come back. So one thread makes all calls, and whoever
//! waits for one does so for a limited time. After a call that did not end in time nothing is asked any more, and everything
//! that the call uses stays alive: the engine may still write to it.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};
use std::time::Duration;

use crate::fault::Fault;
use crate::worker::Worker;

/// How long who lets go of the engine waits for the thread to finish what it does.
pub(crate) const DRAIN: Duration = Duration::from_secs(10);
/// Jobs that wait at once without an allocation.
const WAITING: usize = 256;

/// Something to be done again and again, without an allocation.
pub(crate) trait Task: Send + Sync {
    fn run(self: Arc<Self>, worker: &mut Worker);
}

enum Job {
    Once(Box<dyn FnOnce(&mut Worker) + Send>),
    Task(Arc<dyn Task>),
}

struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    jobs: VecDeque<Job>,
    closed: bool,
    stuck: bool,
    finished: bool,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, job: Job) {
        self.lock().jobs.push_back(job);
        self.changed.notify_all();
    }

    /// The thread: runs jobs until the queue is closed and empty.
    fn serve(&self, mut worker: Worker) {
        loop {
            let job = {
                let mut state = self.lock();
                loop {
                    match state.jobs.pop_front() {
                        Some(job) => break Some(job),
                        None if state.closed => break None,
                        None => state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                    }
                }
            };
            match job {
                Some(Job::Once(job)) => job(&mut worker),
                Some(Job::Task(task)) => task.run(&mut worker),
                None => break,
            }
        }
        drop(worker);
        self.lock().finished = true;
        self.changed.notify_all();
    }
}

/// The thread's handle; the last one to go waits until everything is done.
pub(crate) struct Dispatcher {
    queue: Arc<Queue>,
    thread: ThreadId,
}

impl Dispatcher {
    /// Starts the thread.
    pub(crate) fn start(worker: Worker) -> io::Result<Self> {
        let jobs = VecDeque::with_capacity(WAITING);
        let state = State { jobs, closed: false, stuck: false, finished: false };
        let queue = Arc::new(Queue { state: Mutex::new(state), changed: Condvar::new() });
        let served = Arc::clone(&queue);
        let handle = thread::Builder::new().name("arcane-ane".into()).spawn(move || served.serve(worker))?;
        Ok(Self { queue, thread: handle.thread().id() })
    }

    /// Runs a job and waits for what it gives.
    ///
    /// # Errors
    /// [`Fault::Timeout`] if it takes longer than the deadline, [`Fault::Stuck`] if an earlier one did.
    pub(crate) fn run<T: Send + 'static>(
        &self,
        deadline: Duration,
        job: impl FnOnce(&mut Worker) -> T + Send + 'static,
    ) -> Result<T, Fault> {
        self.check()?;
        let result = Arc::new((Mutex::new(None), Condvar::new()));
        let shared = Arc::clone(&result);
        self.queue.push(Job::Once(Box::new(move |worker| {
            let value = job(worker);
            *shared.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(value);
            shared.1.notify_all();
        })));
        let (slot, changed) = &*result;
        let waiting = slot.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut slot, _) = changed
            .wait_timeout_while(waiting, deadline, |value| value.is_none())
            .unwrap_or_else(PoisonError::into_inner);
        slot.take().ok_or_else(|| self.give_up())
    }

    /// Runs a task; its owner waits for it.
    ///
    /// # Errors
    /// [`Fault::Stuck`].
    pub(crate) fn submit(&self, task: Arc<dyn Task>) -> Result<(), Fault> {
        self.check()?;
        self.queue.push(Job::Task(task));
        Ok(())
    }

    /// Runs a job after all that are there.
    pub(crate) fn later(&self, job: impl FnOnce(&mut Worker) + Send + 'static) {
        self.queue.push(Job::Once(Box::new(job)));
    }

    /// Takes the thread for lost.
    pub(crate) fn give_up(&self) -> Fault {
        self.queue.lock().stuck = true;
        Fault::Timeout
    }

    fn check(&self) -> Result<(), Fault> {
        if self.queue.lock().stuck { Err(Fault::Stuck) } else { Ok(()) }
    }
}

impl Drop for Dispatcher {
    fn drop(&mut self) {
        let mut state = self.queue.lock();
        state.closed = true;
        self.queue.changed.notify_all();
        if state.stuck || thread::current().id() == self.thread {
            return;
        }
        let waited = self.queue.changed.wait_timeout_while(state, DRAIN, |s| !s.finished);
        // After that the thread goes on alone, with everything that it holds.
        drop(waited);
    }
}
