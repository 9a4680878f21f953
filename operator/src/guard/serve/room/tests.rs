use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use http::HeaderMap;
use http::header::{COOKIE, RETRY_AFTER, SET_COOKIE};
use prometheus::Registry;
use serde_json::{Value, json};
use shield::Time;
use shield::room::Phase;
use shield::ticket::{GuardId, Wall};

use super::clock::Clock;
use super::*;
use crate::guard::rooms::{BEAT, Coordinator, RoomSummaries, RoomWords, SETTLE};
use crate::guard::serve::outgoing::Intake;

const NAME: &str = "health/code";
const START: u64 = 1_790_000_000_000;
const HOUR: i64 = 3_600_000;

/// A guard's clocks: one time for all, and how far this one's wall clock is off.
#[derive(Debug, Default)]
struct Hand {
    elapsed: Arc<AtomicU64>,
    step: AtomicI64,
}

impl Clock for Hand {
    fn wall(&self) -> Wall {
        let wall = START + self.elapsed.load(Ordering::Relaxed);
        Wall::from_millis(wall.strict_add_signed(self.step.load(Ordering::Relaxed)))
    }

    fn now(&self) -> Time {
        Time::ZERO.after(Duration::from_millis(self.elapsed.load(Ordering::Relaxed)))
    }
}

/// A guard as far as its rooms go.
struct Guard {
    rooms: Rooms,
    hand: Arc<Hand>,
    metrics: RoomMetrics,
    registry: Registry,
}

/// What a request came to.
struct Asked {
    pass: Option<Pass>,
    waiting: Option<Box<Waiting>>,
    ticket: Option<String>,
}

impl Asked {
    fn passes(&self) -> bool {
        self.pass.is_some()
    }
}

fn wanted(change: &Value) -> BTreeMap<String, WaitingRoom> {
    let mut room = json!({
        "scope": "Region", "activeUsers": 100_000, "newPerMinute": 600,
        "session": {"secs": 40, "nanos": 0}, "openWhen": {"errorPercent": 5},
        "keys": [{"id": 1, "secret": STANDARD.encode([1; 32])}],
    });
    for (field, value) in change.as_object().unwrap() {
        room[field] = value.clone();
    }
    [(NAME.to_owned(), serde_json::from_value(room).unwrap())].into()
}

impl Guard {
    fn start(elapsed: &Arc<AtomicU64>, id: u32, change: &Value) -> Self {
        let mut guard = Self::without_rooms(elapsed, id);
        guard.change(change);
        guard
    }

    fn without_rooms(elapsed: &Arc<AtomicU64>, id: u32) -> Self {
        let hand = Arc::new(Hand {
            elapsed: Arc::clone(elapsed),
            step: AtomicI64::new(0),
        });
        let clock: Arc<dyn Clock> = Arc::clone(&hand) as _;
        let registry = Registry::new();
        let metrics = RoomMetrics::register(&registry).unwrap();
        Self {
            rooms: Rooms::new(Arc::new(Common::of(GuardId(id), clock))),
            hand,
            metrics,
            registry,
        }
    }

    fn change(&mut self, change: &Value) {
        self.rooms = self.rooms.next(&wanted(change), &self.metrics).unwrap();
    }

    fn room(&self) -> Arc<Room> {
        self.rooms.get(NAME).unwrap()
    }

    fn ask(&self, ticket: Option<&str>) -> Asked {
        let mut request = Request::builder().uri("/");
        if let Some(ticket) = ticket {
            request = request.header("jiuzhou-ticket", ticket);
        }
        self.enter(&request.body(()).unwrap())
    }

    fn enter(&self, request: &Request<()>) -> Asked {
        let mut headers = HeaderMap::new();
        let (pass, waiting) = match self.room().enter(request, false) {
            Entered::Passes(pass) => {
                pass.stamp(&mut headers);
                (Some(pass), None)
            }
            Entered::Waits(waiting) => {
                headers = waiting.answer(false).headers().clone();
                (None, Some(waiting))
            }
        };
        let ticket = headers.get("jiuzhou-ticket");
        let ticket = ticket.map(|ticket| ticket.to_str().unwrap().to_owned());
        Asked {
            pass,
            waiting,
            ticket,
        }
    }

    fn refused(&self, reason: &str) -> u64 {
        let families = self.registry.gather();
        let family = families
            .iter()
            .find(|f| f.name() == "jiuzhou_tickets_refused_total");
        let metrics = family.map(|family| family.get_metric().to_vec());
        let of = |metric: &prometheus::proto::Metric| metric.get_label()[0].value() == reason;
        let found = metrics.unwrap_or_default().into_iter().find(of);
        found.map_or(0, |metric| {
            let value = metric.get_counter().get_value();
            value.to_string().parse().unwrap()
        })
    }

    /// Requests of one citizen fail until the room is open, and then all is well again.
    fn fail(&self) {
        let ticket = self.ask(None).ticket;
        for _ in 0..300 {
            let mut asked = self.ask(ticket.as_deref());
            asked.pass.as_mut().unwrap().ended(Some(true));
        }
    }

    fn is_open(&self) -> bool {
        self.room().live.room.word().phase != Phase::Closed
    }
}

/// Guards and a coordinator.
struct Fleet {
    guards: Vec<Guard>,
    coordinator: Coordinator,
    elapsed: Arc<AtomicU64>,
}

impl Fleet {
    fn of(guards: u32, change: &Value) -> Self {
        let elapsed = Arc::new(AtomicU64::new(0));
        let mut coordinator = Coordinator::new();
        let started = (1..=guards).map(|id| Guard::start(&elapsed, id, change));
        let guards: Vec<Guard> = started.collect();
        for guard in &guards {
            let number = u32::try_from(guards.len()).unwrap();
            guard.rooms.common.share(number.try_into().unwrap());
        }
        let settings = guards[0].room().settings.clone();
        coordinator.configure([(NAME.to_owned(), settings)].into());
        let mut fleet = Self {
            guards,
            coordinator,
            elapsed,
        };
        fleet.pass(SETTLE * 2);
        fleet
    }

    fn open(change: &Value) -> Self {
        let mut fleet = Self::of(2, change);
        fleet.guards[0].fail();
        fleet.pass(Duration::from_secs(12));
        assert!(fleet.guards.iter().all(Guard::is_open));
        fleet
    }

    fn pass(&mut self, span: Duration) {
        for _ in 0..span.as_millis().div_ceil(BEAT.as_millis()) {
            self.beat();
        }
    }

    /// What the coordinator, whose clock is right, says now.
    fn words(&mut self) -> RoomWords {
        let clock = Hand {
            elapsed: Arc::clone(&self.elapsed),
            step: AtomicI64::new(0),
        };
        self.coordinator.advance(clock.wall(), clock.now())
    }

    /// A guard that heard the coordinator before it has rooms, as one of so many.
    fn joined(&mut self, guards: u32) -> Guard {
        let guard = Guard::without_rooms(&self.elapsed, 77);
        guard.rooms.common.share(guards.try_into().unwrap());
        guard.rooms.hear(&self.words());
        guard
    }

    fn beat(&mut self) {
        let beat = u64::try_from(BEAT.as_millis()).unwrap();
        self.elapsed.fetch_add(beat, Ordering::Relaxed);
        // The coordinator's clock is right.
        let clock = Hand {
            elapsed: Arc::clone(&self.elapsed),
            step: AtomicI64::new(0),
        };
        for (number, guard) in self.guards.iter().enumerate() {
            guard.rooms.beat();
            let told = serde_json::to_string(&guard.rooms.summaries()).unwrap();
            let told: RoomSummaries = serde_json::from_str(&told).unwrap();
            assert_eq!(told.0.len(), 1);
            let name = format!("guard-{number}");
            self.coordinator.hear(&name, told, clock.now()).unwrap();
        }
        let words = serde_json::to_string(&self.words()).unwrap();
        let words: RoomWords = serde_json::from_str(&words).unwrap();
        for guard in &self.guards {
            guard.rooms.hear(&words);
        }
    }
}

/// So many citizens come, one each 300 ms, to one guard after the other; then all who wait ask again
/// at each beat, the last first, each another guard.
/// Returns how many milliseconds somebody overtook another who asked in the same beat.
fn overtaking(fleet: &mut Fleet, people: usize) -> u64 {
    let mut waiting: Vec<(u64, String)> = Vec::new();
    for number in 0..people {
        let asked = fleet.guards[number % fleet.guards.len()].ask(None);
        assert!(!asked.passes());
        let came = fleet.elapsed.load(Ordering::Relaxed);
        waiting.push((came, asked.ticket.unwrap()));
        fleet.beat();
        fleet.beat();
    }
    let mut worst = 0;
    for beat in 0..2000 {
        let mut last_in = None;
        let guards = fleet.guards.len();
        let mut left = Vec::new();
        for (number, (came, ticket)) in waiting.into_iter().enumerate().rev() {
            let asked = fleet.guards[(number + beat) % guards].ask(Some(&ticket));
            if asked.passes() {
                last_in = last_in.max(Some(came));
            } else {
                worst = worst.max(last_in.map_or(0, |last: u64| last.saturating_sub(came)));
                left.push((came, asked.ticket.unwrap()));
            }
        }
        left.reverse();
        if left.is_empty() {
            return worst;
        }
        waiting = left;
        fleet.beat();
    }
    panic!("{} still wait", waiting.len());
}

#[test]
fn whoever_came_first_is_let_in_first_whichever_guards_they_ask() {
    let mut fleet = Fleet::open(&json!({"newPerMinute": 60}));
    assert_eq!(overtaking(&mut fleet, 40), 0);
}

#[test]
fn clocks_that_differ_let_nobody_be_overtaken_by_more_than_they_differ() {
    let mut fleet = Fleet::open(&json!({"newPerMinute": 60}));
    fleet.guards[1].hand.step.store(-200, Ordering::Relaxed);
    let worst = overtaking(&mut fleet, 40);
    assert!(worst <= 200, "{worst}");
}

#[test]
fn a_wall_clock_that_is_set_by_an_hour_costs_nobody_the_place() {
    for step in [HOUR, -HOUR] {
        let mut fleet = Fleet::open(&json!({"newPerMinute": 60}));
        let first = fleet.guards[1].ask(None).ticket;
        fleet.guards[1].hand.step.store(step, Ordering::Relaxed);
        let worst = overtaking(&mut fleet, 20);
        assert!(worst <= 1000, "{worst}");
        assert!(fleet.guards[1].ask(first.as_deref()).passes());
        let refused = |guard: &Guard| guard.refused("FromTheFuture") + guard.refused("Expired");
        assert_eq!(fleet.guards.iter().map(refused).sum::<u64>(), 0);
    }
}

#[test]
fn a_ticket_of_an_hour_ahead_is_a_newcomers() {
    let fleet = Fleet::open(&json!({}));
    let stray = Guard::start(&fleet.elapsed, 9, &json!({"activeUsers": 1}));
    stray.hand.step.store(HOUR, Ordering::Relaxed);
    for _ in 0..2 {
        let ticket = stray.ask(None).ticket;
        let asked = fleet.guards[0].ask(ticket.as_deref());
        assert!(!asked.passes());
        assert_ne!(asked.ticket, ticket);
    }
    assert_eq!(fleet.guards[0].refused("FromTheFuture"), 2);
}

#[test]
fn tickets_are_good_at_a_guard_that_has_started_again() {
    let mut fleet = Fleet::open(&json!({"newPerMinute": 60}));
    let early = fleet.guards[0].ask(None).ticket;
    fleet.pass(Duration::from_secs(3));
    let inside = fleet.guards[0].ask(early.as_deref());
    assert!(inside.passes());
    for _ in 0..30 {
        fleet.guards[1].ask(None);
    }
    let late = fleet.guards[0].ask(None);
    fleet.beat();
    let position = late.waiting.unwrap().position;
    fleet.guards[0] = Guard::start(&fleet.elapsed, 7, &json!({"newPerMinute": 60}));
    fleet.guards[0].rooms.common.share(2.try_into().unwrap());
    fleet.beat();
    let restarted = &fleet.guards[0];
    assert!(restarted.ask(inside.ticket.as_deref()).passes());
    let again = restarted.ask(late.ticket.as_deref());
    assert!(again.waiting.unwrap().position <= position);
    let reasons = ["Forged", "UnknownKey", "Lapsed", "Expired", "OtherRoom"];
    assert!(reasons.iter().all(|reason| restarted.refused(reason) == 0));
}

#[test]
fn a_guard_that_starts_while_people_queue_lets_nobody_past_them() {
    let change = json!({"newPerMinute": 60});
    let mut fleet = Fleet::open(&change);
    for _ in 0..30 {
        fleet.guards[0].ask(None);
    }
    fleet.pass(Duration::from_secs(1));
    let mut started = fleet.joined(3);
    started.change(&change);
    assert!(started.is_open() && !started.ask(None).passes());
    started.rooms.beat();
    assert!(!started.ask(None).passes());
}

#[test]
fn a_guard_knows_whether_it_heard_of_all_rooms_that_are_shared() {
    let fresh = Guard::without_rooms(&Arc::default(), 1);
    let instance = json!({"scope": "Instance"});
    assert!(!fresh.rooms.has_heard(&wanted(&json!({}))));
    assert!(fresh.rooms.has_heard(&wanted(&instance)));
    let joined = Fleet::of(1, &json!({})).joined(2);
    // An answer without rooms says nothing, and takes nothing back.
    joined.rooms.hear(&RoomWords::default());
    assert!(joined.rooms.has_heard(&wanted(&json!({}))));
}

#[test]
fn a_guard_that_starts_lets_in_no_more_than_its_part_before_it_is_counted() {
    let change = json!({"activeUsers": 100});
    let mut started = Fleet::of(1, &change).joined(4);
    started.change(&change);
    let inside = (0..100).filter(|_| started.ask(None).passes());
    assert_eq!(inside.count(), 25);
}

#[test]
fn what_was_said_long_ago_of_a_room_is_not_what_it_begins_by() {
    let mut fleet = Fleet::open(&json!({}));
    let mut started = fleet.joined(2);
    fleet.elapsed.fetch_add(30_000, Ordering::Relaxed);
    started.change(&json!({}));
    assert!(!started.is_open());
}

#[test]
fn forged_tickets_are_a_newcomers_and_hold_no_memory() {
    let fleet = Fleet::open(&json!({"newPerMinute": 60}));
    let guard = &fleet.guards[0];
    let good = guard.ask(None).ticket.unwrap();
    let mut forged = good.clone().into_bytes();
    for number in 0..10_000_u32 {
        let at = forged.len() - 5;
        forged[at..].copy_from_slice(format!("{number:05}").as_bytes());
        let asked = guard.ask(std::str::from_utf8(&forged).ok());
        assert!(!asked.passes());
    }
    assert_eq!(guard.refused("Forged"), 10_000);
    assert!(!guard.ask(Some("garbage")).passes());
    assert_eq!(guard.refused("Malformed"), 1);
    guard.rooms.beat();
    let told = guard.rooms.summaries();
    assert!(
        told.0[NAME].crowd.cells.len() < 10,
        "one cell for each moment"
    );
}

#[test]
fn keys_are_changed_without_a_place_being_lost() {
    let mut fleet = Fleet::open(&json!({"newPerMinute": 60}));
    let old = fleet.guards[0].ask(None).ticket;
    let secret = |byte| STANDARD.encode([byte; 32]);
    let both = json!({"newPerMinute": 60, "keys": [
        {"id": 2, "secret": secret(2)}, {"id": 1, "secret": secret(1)}]});
    let only = json!({"newPerMinute": 60, "keys": [{"id": 2, "secret": secret(2)}]});
    let guard = &mut fleet.guards[0];
    guard.change(&both);
    let new = guard.ask(old.as_deref()).ticket;
    assert_eq!(guard.refused("UnknownKey"), 0);
    guard.change(&only);
    guard.ask(new.as_deref());
    assert_eq!(guard.refused("UnknownKey"), 0);
    guard.ask(old.as_deref());
    assert_eq!(guard.refused("UnknownKey"), 1);
}

#[test]
fn a_lone_guard_coordinates_itself_and_a_change_forgets_nobody() {
    let elapsed = Arc::new(AtomicU64::new(0));
    let mut guard = Guard::start(&elapsed, 1, &json!({"activeUsers": 1}));
    let beat = |guard: &Guard| {
        elapsed.fetch_add(150, Ordering::Relaxed);
        guard.rooms.beat();
    };
    let first = guard.ask(None);
    assert!(first.passes());
    beat(&guard);
    let second = guard.ask(None);
    assert!(!second.passes() && guard.is_open());
    guard.change(&json!({"activeUsers": 2}));
    assert!(guard.ask(first.ticket.as_deref()).passes());
    for _ in 0..10 {
        beat(&guard);
    }
    assert!(guard.ask(second.ticket.as_deref()).passes());
    assert!(!guard.ask(None).passes(), "two are in");
    assert!(guard.rooms.summaries().0.is_empty());
}

#[test]
fn a_room_of_each_instance_hears_no_coordinator() {
    let elapsed = Arc::new(AtomicU64::new(0));
    let guard = Guard::start(&elapsed, 1, &json!({"scope": "Instance", "activeUsers": 1}));
    guard.rooms.common.share(2.try_into().unwrap());
    guard.rooms.beat();
    assert!(guard.rooms.summaries().0.is_empty());
    assert!(guard.ask(None).passes() && !guard.ask(None).passes());
}

#[test]
fn requests_that_clients_give_up_open_the_room_too() {
    let mut fleet = Fleet::of(2, &json!({}));
    give_up(&mut fleet, true);
    assert!(fleet.guards[0].is_open() && fleet.guards[1].is_open());
}

#[test]
fn who_leaves_within_the_time_that_the_service_may_take_does_not_open_the_room() {
    let slow = json!({"p99Over": {"secs": 3, "nanos": 0}, "errorPercent": 5});
    let mut fleet = Fleet::of(1, &json!({"openWhen": slow}));
    give_up(&mut fleet, true);
    assert!(!fleet.guards[0].is_open());
}

#[test]
fn who_leaves_before_the_service_was_asked_does_not_open_the_room() {
    let mut fleet = Fleet::of(1, &json!({}));
    give_up(&mut fleet, false);
    assert!(!fleet.guards[0].is_open());
}

#[test]
fn the_time_before_the_service_is_asked_does_not_open_the_room() {
    let slow = json!({"p99Over": {"secs": 1, "nanos": 0}});
    let mut fleet = Fleet::of(1, &json!({"openWhen": slow}));
    let mut paced = crowd(&fleet);
    fleet.pass(Duration::from_secs(2));
    for (number, asked) in paced.iter_mut().enumerate() {
        let pass = asked.pass.as_mut().unwrap();
        // The others are answered by a redirect.
        if number.is_multiple_of(2) {
            pass.sent(Intake::nothing());
        }
        pass.ended(Some(false));
    }
    fleet.pass(Duration::from_secs(5));
    assert!(!fleet.guards[0].is_open());
}

/// Three hundred requests of somebody who is in.
fn crowd(fleet: &Fleet) -> Vec<Asked> {
    let ticket = fleet.guards[0].ask(None).ticket;
    let ask = |_| fleet.guards[0].ask(ticket.as_deref());
    (0..300).map(ask).collect()
}

/// A crowd leaves after two seconds, and the room has time to be opened by that.
fn give_up(fleet: &mut Fleet, is_sent: bool) {
    let mut hanging = crowd(fleet);
    for asked in hanging.iter_mut().filter(|_| is_sent) {
        asked.pass.as_mut().unwrap().sent(Intake::nothing());
    }
    fleet.pass(Duration::from_secs(2));
    drop(hanging);
    fleet.pass(Duration::from_secs(5));
}

#[test]
fn what_says_nothing_about_the_service_does_not_open_the_room() {
    let mut fleet = Fleet::of(1, &json!({}));
    let ticket = fleet.guards[0].ask(None).ticket;
    for _ in 0..300 {
        let mut asked = fleet.guards[0].ask(ticket.as_deref());
        asked.pass.as_mut().unwrap().ended(None);
    }
    fleet.pass(Duration::from_secs(5));
    assert!(!fleet.guards[0].is_open());
}

#[test]
fn a_cookie_is_answered_by_a_cookie_and_on_tls_it_is_the_hosts_alone() {
    let fleet = Fleet::open(&json!({}));
    let room = fleet.guards[0].room();
    let ask = |request: Request<()>, is_tls| match room.enter(&request, is_tls) {
        Entered::Passes(_) => panic!("the queue is open"),
        Entered::Waits(waiting) => waiting.answer(true).headers().clone(),
    };
    let plain = Request::builder().body(()).unwrap();
    let both = ask(plain, true);
    let cookie = both[SET_COOKIE].to_str().unwrap().to_owned();
    assert!(cookie.starts_with("__Host-jiuzhou-ticket-"), "{cookie}");
    for part in [
        "; Path=/",
        "; HttpOnly",
        "; SameSite=Lax",
        "; Secure",
        "; Max-Age=43200",
    ] {
        assert!(cookie.contains(part), "{cookie}");
    }
    assert!(both[SET_COOKIE].is_sensitive() && both.contains_key("jiuzhou-ticket"));
    let pair = format!("a=b; {}", cookie.split(';').next().unwrap());
    let known = Request::builder().header(COOKIE, &pair).body(()).unwrap();
    let again = ask(known, true);
    assert!(again.contains_key(SET_COOKIE) && !again.contains_key("jiuzhou-ticket"));
    let known = Request::builder().header(COOKIE, &pair).body(()).unwrap();
    let without_tls = ask(known, false);
    let cookie = without_tls[SET_COOKIE].to_str().unwrap();
    assert!(
        cookie.starts_with("jiuzhou-ticket-") && !cookie.contains("Secure"),
        "{cookie}"
    );
    assert!(again.contains_key(RETRY_AFTER));
}

#[test]
fn a_question_whether_one_may_ask_passes_and_counts_for_nobody() {
    let fleet = Fleet::open(&json!({}));
    let preflight = Request::builder()
        .method(Method::OPTIONS)
        .header(ORIGIN, "https://a.example")
        .header(ACCESS_CONTROL_REQUEST_METHOD, "GET");
    let asked = fleet.guards[0].enter(&preflight.body(()).unwrap());
    assert!(asked.passes() && asked.ticket.is_none());
    let options = Request::builder().method(Method::OPTIONS).body(()).unwrap();
    assert!(!fleet.guards[0].enter(&options).passes());
}

#[test]
fn a_page_reloads_by_itself_but_for_what_was_sent_by_a_form() {
    let fleet = Fleet::open(&json!({}));
    let page = |method: Method| {
        let request = Request::builder().method(method).body(()).unwrap();
        let waiting = fleet.guards[0].enter(&request).waiting.unwrap();
        format!("{:?}", waiting.answer(true).into_body())
    };
    assert!(page(Method::GET).contains("http-equiv=refresh"));
    assert!(!page(Method::POST).contains("http-equiv=refresh"));
}

#[test]
fn a_room_that_cannot_be_kept_is_refused_by_what_is_wrong() {
    let secret = STANDARD.encode([1; 32]);
    let key = |id: u8| json!({"id": id, "secret": secret});
    let cases = [
        (json!({"activeUsers": 0}), "activeUsers"),
        (json!({"keys": []}), "0 keys"),
        (json!({"keys": [key(1), key(2), key(3)]}), "3 keys"),
        (json!({"keys": [key(1), key(1)]}), "id 1"),
        (json!({"keys": [{"id": 4, "secret": "c2hvcnQ="}]}), "key 4"),
        (json!({"keys": [{"id": 4, "secret": "%"}]}), "key 4"),
    ];
    let elapsed = Arc::new(AtomicU64::new(0));
    let guard = Guard::start(&elapsed, 1, &json!({}));
    for (change, expected) in cases {
        let fault = guard
            .rooms
            .next(&wanted(&change), &guard.metrics)
            .unwrap_err();
        let text = format!("{:#}", anyhow::Error::new(fault));
        assert!(text.contains(expected) && text.contains(NAME), "{text}");
    }
}
