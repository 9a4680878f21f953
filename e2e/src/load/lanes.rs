//! Lanes: as many as requests may be under way, each a task that lasts as long as the run. A task
//! for each request would cost more than the request.

use std::sync::Arc;

use http::{HeaderValue, Request, Uri, header};
use http_body_util::Full;
use hyper::body::Bytes;
use tokio::{sync::mpsc, task::JoinSet, time::timeout};

use super::{
    Plan,
    connection::{Line, Outcome, Trunk, attempt},
    mix::Choice,
    report::Failure,
    run::{Job, State},
    target::Protocol,
};

/// A lane has one request at a time.
const INBOX: usize = 1;

/// The lanes that are open.
pub(super) struct Lanes {
    state: Arc<State>,
    inboxes: Vec<mpsc::Sender<Job>>,
    trunks: Vec<Arc<Trunk>>,
    tasks: JoinSet<()>,
}

/// What one lane needs.
struct Lane {
    number: usize,
    state: Arc<State>,
    trunk: Arc<Trunk>,
    line: Option<Line>,
    inbox: mpsc::Receiver<Job>,
}

impl Lanes {
    /// Opens the connections that are to be open from the beginning.
    pub(super) async fn open(state: &Arc<State>) -> Self {
        let mut lanes = Self {
            state: Arc::clone(state),
            inboxes: Vec::new(),
            trunks: Vec::new(),
            tasks: JoinSet::new(),
        };
        let plan = &state.plan;
        for _ in 0..plan.limits.warm {
            let trunk = Arc::new(Trunk::default());
            let dial = Line::dial(&plan.target, &trunk);
            // Whoever is not there yet is dialled again by the first request, which then reports it.
            let line = timeout(plan.limits.timeout, dial).await;
            let line = line.ok().and_then(Result::ok);
            lanes.trunks.push(Arc::clone(&trunk));
            let number = lanes.add(trunk, line);
            state.is_free(number);
        }
        lanes
    }

    /// Hands a job to a free lane, or to a new one. Without either, the job comes back.
    pub(super) fn hand(&mut self, job: Job) -> Option<Job> {
        let number = match self.state.take_free() {
            Some(number) => number,
            None if self.inboxes.len() < self.state.plan.lanes() => {
                let trunk = self.next_trunk();
                self.add(trunk, None)
            }
            None => return Some(job),
        };
        // A free lane has an empty inbox.
        self.inboxes[number]
            .try_send(job)
            .err()
            .map(|full| match full {
                mpsc::error::TrySendError::Full(job) | mpsc::error::TrySendError::Closed(job) => {
                    job
                }
            })
    }

    fn add(&mut self, trunk: Arc<Trunk>, line: Option<Line>) -> usize {
        let number = self.inboxes.len();
        let (sender, inbox) = mpsc::channel(INBOX);
        self.inboxes.push(sender);
        let state = Arc::clone(&self.state);
        let opened = Lane {
            number,
            state,
            trunk,
            line,
            inbox,
        };
        self.tasks.spawn(opened.run());
        number
    }

    /// The trunk of the next lane. Those opened at first are filled in turn, so that a run with
    /// several connections uses all of them; then one after the other is filled up.
    fn next_trunk(&mut self) -> Arc<Trunk> {
        let number = self.inboxes.len();
        let limits = self.state.plan.limits;
        let at = match self.state.plan.target.protocol() {
            // Each lane has a connection of its own, and never looks at its trunk.
            Protocol::Http1 => return Arc::default(),
            Protocol::Http2 if number < limits.warm * limits.streams => number % limits.warm,
            Protocol::Http2 => number / limits.streams,
        };
        if self.trunks.len() <= at {
            self.trunks.resize_with(at + 1, Arc::default);
        }
        Arc::clone(&self.trunks[at])
    }
}

impl Lane {
    async fn run(mut self) {
        while let Some(job) = Line::idle(&mut self.line, self.inbox.recv()).await {
            self.state.sends(job);
            let outcome = self.attempt(job.choice).await;
            self.state.settle(self.number, job, outcome);
        }
    }

    async fn attempt(&mut self, choice: Choice) -> Outcome {
        let plan = &self.state.plan;
        let request = || request(plan, choice);
        let attempt = attempt(&mut self.line, &plan.target, &self.trunk, request);
        // A line whose attempt ends early is gone: its answer may still come.
        timeout(plan.limits.timeout, attempt)
            .await
            .unwrap_or_else(|_| Outcome::failed(Failure::Timeout))
    }
}

fn request(plan: &Plan, choice: Choice) -> Request<Full<Bytes>> {
    let (mix, target) = (&plan.mix, &plan.target);
    let path = mix.path(choice);
    let mut headers = mix.headers(choice);
    let host = mix.host(choice);
    let uri: Uri = match target.protocol() {
        Protocol::Http1 => {
            // A kind may ask for another host than its own, to see what a gateway does.
            headers
                .entry(header::HOST)
                .or_insert_with(|| HeaderValue::clone(host));
            path.try_into()
        }
        Protocol::Http2 => {
            let host = host.to_str().unwrap_or_default();
            format!("{}://{host}{path}", target.scheme()).try_into()
        }
    }
    .expect("the mix was checked with a key");
    let mut request = Request::new(Full::new(mix.body(choice)));
    *request.method_mut() = mix.method(choice);
    *request.uri_mut() = uri;
    *request.headers_mut() = headers;
    request
}
