//! The loop that sends on time, and what it keeps.

use std::{
    cmp::{Ordering, Reverse},
    collections::{BinaryHeap, VecDeque},
    iter::Peekable,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use tokio::{
    runtime::Builder,
    sync::{Notify, oneshot},
};
use tokio_util::sync::CancellationToken;

use super::{
    Plan, RETRY_AFTER_MAX,
    alarm::Alarm,
    connection::Outcome,
    lanes::Lanes,
    mix::{Choice, Choices, Mix},
    report::{Attempt, Report, Tally, Verdict},
};

/// Tasks that are run before sockets and the alarm are looked at again: some ten microseconds
/// each, so that a send is not late by more than a few hundred.
const EVENT_INTERVAL: u32 = 16;

/// What a run has done so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// Since the first request was meant to be sent.
    pub elapsed: Duration,
    /// Requests, without retries.
    pub offered: u64,
    /// Sends.
    pub attempts: u64,
    /// Attempts that succeeded.
    pub succeeded: u64,
    /// Attempts that were turned away.
    pub refused: u64,
    /// Attempts that failed otherwise.
    pub failed: u64,
    /// Sends that found no connection.
    pub dropped: u64,
    /// Sends that were late.
    pub late: u64,
    /// Sends that are not answered.
    pub under_way: usize,
    /// Requests that wait for another attempt.
    pub waiting: usize,
}

/// A run in a thread of its own, so that the caller's work does not make it late. Dropping it
/// stops it.
#[derive(Debug)]
pub struct Run {
    state: Arc<State>,
    stop: CancellationToken,
    report: oneshot::Receiver<Result<Report>>,
}

impl Run {
    /// Begins.
    pub fn start(plan: Plan) -> Result<Self> {
        let state = State::new(plan)?;
        let stop = CancellationToken::new();
        let (sender, report) = oneshot::channel();
        let (there, stopped) = (Arc::clone(&state), stop.clone());
        let work = move || {
            // Nobody may be left to hear of it.
            let _ = sender.send(alone(&there, &stopped));
        };
        thread::Builder::new()
            .name("load".to_owned())
            .spawn(work)
            .context("start the generator's thread")?;
        Ok(Self {
            state,
            stop,
            report,
        })
    }

    /// How far it is.
    pub fn progress(&self) -> Progress {
        let elapsed = self.state.now();
        Progress {
            elapsed,
            ..self.state.books().progress
        }
    }

    /// Stops it early; what was sent so far is reported.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// Waits for its end. A wait that is given up may be taken up again, but for the report there
    /// is one answer.
    pub async fn finish(&mut self) -> Result<Report> {
        (&mut self.report)
            .await
            .context("the generator ended without a report")?
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Makes a run in a thread of its own.
pub async fn run(plan: Plan) -> Result<Report> {
    Run::start(plan)?.finish().await
}

/// Makes a run in this runtime. What else it does makes sends late, which is then seen.
pub async fn run_here(plan: Plan) -> Result<Report> {
    let state = State::new(plan)?;
    drive(&state, &CancellationToken::new()).await
}

fn alone(state: &Arc<State>, stop: &CancellationToken) -> Result<Report> {
    Builder::new_current_thread()
        .event_interval(EVENT_INTERVAL)
        .enable_all()
        .build()
        .context("start the generator's runtime")?
        .block_on(drive(state, stop))
}

/// A request to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Job {
    /// When this attempt is meant to be sent.
    intended: Duration,
    /// When the first one was.
    first: Duration,
    pub(super) choice: Choice,
    /// Attempts before this one.
    tries: u32,
}

impl Ord for Job {
    fn cmp(&self, other: &Self) -> Ordering {
        let Self {
            intended,
            first,
            choice,
            tries,
        } = self;
        (intended, first, choice.kind, choice.key, tries).cmp(&(
            &other.intended,
            &other.first,
            other.choice.kind,
            other.choice.key,
            &other.tries,
        ))
    }
}

impl PartialOrd for Job {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// What the loop and the lanes share.
#[derive(Debug)]
pub(super) struct State {
    pub(super) plan: Plan,
    /// Set when the connections that should be open at first are.
    began: OnceLock<Instant>,
    books: Mutex<Books>,
    /// Tells the loop of a retry that is due before its alarm, or of the last answer.
    news: Notify,
}

#[derive(Debug)]
struct Books {
    report: Report,
    /// By label.
    tallies: Vec<Tally>,
    progress: Progress,
    /// Lanes without a request, the last used at the end.
    free: VecDeque<usize>,
    retries: BinaryHeap<Reverse<Job>>,
    /// Until when the loop sleeps; forever when it waits for answers alone.
    asleep_until: Duration,
}

/// When the loop has something to do next.
enum Next {
    At(Duration),
    /// When answers have come.
    Answered,
    /// Never.
    Done,
}

impl State {
    fn new(plan: Plan) -> Result<Arc<Self>> {
        plan.check()?;
        let books = Books {
            report: Report::empty(plan.limits.lag),
            tallies: vec![Tally::default(); plan.mix.labels().len()],
            progress: Progress::default(),
            free: VecDeque::new(),
            retries: BinaryHeap::new(),
            asleep_until: Duration::ZERO,
        };
        Ok(Arc::new(Self {
            plan,
            began: OnceLock::new(),
            books: Mutex::new(books),
            news: Notify::new(),
        }))
    }

    /// The lane of the next request. The last used one, so that few connections do most of the work as in a browser
    /// or a gateway; at several addresses the one that rested longest, or whoever refuses fastest would be asked by
    /// nearly all. That shares them about evenly as long as most lanes rest.
    pub(super) fn take_free(&self) -> Option<usize> {
        let mut books = self.books();
        if self.plan.target.is_balanced() {
            books.free.pop_front()
        } else {
            books.free.pop_back()
        }
    }

    pub(super) fn is_free(&self, lane: usize) {
        self.books().free.push_back(lane);
    }

    /// Notes that a request goes out now.
    pub(super) fn sends(&self, job: Job) {
        let lag = self.now().saturating_sub(job.intended);
        let mut books = self.books();
        books.report.sent_late_by(lag);
        books.progress.late = books.report.late;
        books.progress.attempts += 1;
        books.tally(&self.plan, job).sent(job.intended);
    }

    /// Notes what came of a request, and whether it is tried again.
    pub(super) fn settle(&self, lane: usize, job: Job, outcome: Outcome) {
        let now = self.now();
        let verdict = self.plan.verdict(outcome.ending);
        let again = self.again(now, job, outcome, verdict);
        let mut books = self.books();
        let tally = books.tally(&self.plan, job);
        tally.ended(Attempt {
            intended: job.intended,
            ended: now,
            ending: outcome.ending,
            verdict,
        });
        if verdict == Verdict::Succeeded {
            tally.served += 1;
            tally.served_at_once += u64::from(job.tries == 0);
            tally.served_after.record(now.saturating_sub(job.first));
        } else if again.is_none() {
            tally.given_up += 1;
        }
        match verdict {
            Verdict::Succeeded => books.progress.succeeded += 1,
            Verdict::Refused => books.progress.refused += 1,
            Verdict::Failed => books.progress.failed += 1,
        }
        books.progress.under_way -= 1;
        books.free.push_back(lane);
        let due = again.map_or(Duration::MAX, |job| job.intended);
        books.retries.extend(again.map(Reverse));
        books.progress.waiting = books.retries.len();
        let last = books.progress.under_way == 0 && books.asleep_until == Duration::MAX;
        if due < books.asleep_until || last {
            drop(books);
            self.news.notify_one();
        }
    }

    /// The attempt after this one, if there is any.
    fn again(&self, now: Duration, job: Job, outcome: Outcome, verdict: Verdict) -> Option<Job> {
        let retry = self.plan.retry?;
        if verdict == Verdict::Succeeded || job.tries >= retry.times {
            return None;
        }
        let asked = outcome.retry_after.filter(|_| retry.honours_retry_after);
        Some(Job {
            intended: now + asked.unwrap_or(retry.after).min(RETRY_AFTER_MAX),
            tries: job.tries + 1,
            ..job
        })
    }

    fn now(&self) -> Duration {
        self.began.get().map_or(Duration::ZERO, Instant::elapsed)
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a request goes to a lane, before it does.
    fn hands(&self, job: Job) {
        let mut books = self.books();
        books.progress.under_way += 1;
        if job.tries == 0 {
            books.progress.offered += 1;
            books.tally(&self.plan, job).offer(job.intended);
        }
    }

    /// Notes that no lane took it.
    fn drops(&self, job: Job) {
        let mut books = self.books();
        books.progress.under_way -= 1;
        books.progress.dropped += 1;
        books.tally(&self.plan, job).dropped += 1;
    }

    /// A retry that is due.
    fn due_retry(&self, now: Duration) -> Option<Job> {
        let mut books = self.books();
        let due = books.retries.peek()?.0.intended <= now;
        let job = due.then(|| books.retries.pop()).flatten()?.0;
        books.progress.waiting = books.retries.len();
        Some(job)
    }

    /// When the loop has to wake up, given the next time in the schedule.
    fn sleeps(&self, scheduled: Option<Duration>) -> Next {
        let mut books = self.books();
        let retry = books.retries.peek().map(|job| job.0.intended);
        let next = [scheduled, retry].into_iter().flatten().min();
        books.asleep_until = next.unwrap_or(Duration::MAX);
        match next {
            Some(at) => Next::At(at),
            None if books.progress.under_way > 0 => Next::Answered,
            None => Next::Done,
        }
    }

    fn report(&self, stopped: bool) -> Report {
        let mut books = self.books();
        let Books {
            report,
            tallies,
            retries,
            ..
        } = &mut *books;
        for tally in &mut *tallies {
            let ended = tally.served + tally.given_up + tally.dropped;
            tally.unfinished = tally.offered - ended;
        }
        retries.clear();
        let labels = self.plan.mix.labels().iter().cloned();
        report.labels = labels.zip(std::mem::take(tallies)).collect();
        report.close(stopped);
        report.clone()
    }
}

impl Books {
    fn tally(&mut self, plan: &Plan, job: Job) -> &mut Tally {
        &mut self.tallies[plan.mix.label(job.choice)]
    }
}

/// What the schedule and the mix have still to come.
struct Feed<'a, S: Iterator<Item = Duration>> {
    sends: Peekable<S>,
    mix: &'a Mix,
    choices: Choices,
}

impl<S: Iterator<Item = Duration>> Feed<'_, S> {
    /// A first attempt that is due.
    fn due(&mut self, now: Duration) -> Option<Job> {
        let intended = self.sends.next_if(|at| *at <= now)?;
        Some(Job {
            intended,
            first: intended,
            choice: self.mix.choose(&mut self.choices),
            tries: 0,
        })
    }
}

/// Sends everything on time and waits for the answers.
async fn drive(state: &Arc<State>, stop: &CancellationToken) -> Result<Report> {
    let mut alarm = Alarm::new()?;
    let mut lanes = Lanes::open(state).await;
    let plan = &state.plan;
    let mut feed = Feed {
        sends: plan.schedule.sends(plan.seed).peekable(),
        mix: &plan.mix,
        choices: Mix::choices(plan.seed),
    };
    state.began.get_or_init(Instant::now);
    loop {
        let now = state.now();
        while let Some(job) = feed.due(now).or_else(|| state.due_retry(now)) {
            state.hands(job);
            if let Some(job) = lanes.hand(job) {
                state.drops(job);
            }
        }
        match state.sleeps(feed.sends.peek().copied()) {
            Next::At(at) => alarm.set(at.saturating_sub(state.now()))?,
            Next::Answered => {}
            Next::Done => return Ok(state.report(false)),
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(state.report(true)),
            rings = alarm.rings() => rings?,
            () = state.news.notified() => {}
        }
    }
}
