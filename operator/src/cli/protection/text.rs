//! What guards told, as people read it: a few lines and a table for each policy, then what is ejected.

use std::fmt::Write as _;

use super::super::output::{Paint, Painted, number};
use super::super::table::{Table, cut, hung};
use super::sum::{PolicySum, Report, RuleSum, ServiceSum, Stands};

/// The name of a rule takes this much, so that its row fits into a hundred columns; `-o json` has all of it.
const NAME: usize = 24;
/// Likewise a hot key's.
const KEY: usize = 28;
/// Likewise that of a service.
const SERVICE: usize = 40;
/// Hot keys that are named; a rule may know thousands.
const KEYS: usize = 5;
/// Lines below a policy stand in by this much.
const INDENT: usize = 2;

/// All that is shown to people, of one namespace or of all.
pub(super) fn of(
    report: &Report,
    namespace: Option<&str>,
    paint: Paint,
    columns: Option<usize>,
) -> String {
    let mut sections = vec![head(report, paint, columns)];
    if report.policies.is_empty() {
        let of = namespace.map_or_else(String::new, |of| format!(" of namespace {of}"));
        sections.push(format!("No TrafficPolicy{of} is enforced.\n"));
    }
    let policies = report.policies.iter();
    sections.extend(policies.map(|policy| of_policy(policy, report, paint, columns)));
    sections.extend(ejected(report, paint, columns));
    sections.join("\n")
}

/// Who answered, and by which configuration.
fn head(report: &Report, paint: Paint, columns: Option<usize>) -> String {
    let (answered, silent) = (report.guards.len(), report.silent.len());
    let mut text = format!(
        "{answered} of {} answered\n",
        number(answered + silent, "guard")
    );
    if silent > 0 {
        let line = format!("no answer, so not counted: {}", report.silence());
        text.push_str(&hung(&line, INDENT, columns, |line| paint.bad(&line)));
    }
    if report.is_split() {
        let line = "Guards serve by different configurations: a change is on its way, or a guard does not \
                    hear of it.";
        text.push_str(&hung(line, INDENT, columns, |line| paint.unsure(&line)));
    }
    text
}

fn of_policy(policy: &PolicySum, report: &Report, paint: Paint, columns: Option<usize>) -> String {
    let mut text = format!("TrafficPolicy {}\n", policy.name);
    let routes: Vec<&str> = policy.routes.iter().map(String::as_str).collect();
    let plain = |line: &str| hung(line, INDENT, columns, Painted::from);
    text.push_str(&plain(&format!("routes {}", routes.join(", "))));
    text.push_str(&plain(&counts(policy)));
    let mut table =
        Table::new(&["RULE", "KIND", "LIMIT", "REFUSED", "SHADOWED", "STATE"]).within(columns);
    if let Some(room) = &policy.waiting_room {
        table.row([
            "waitingRoom".to_owned().into(),
            "WaitingRoom".to_owned().into(),
            short(room.active_users).into(),
            short(room.refused).into(),
            "-".to_owned().into(),
            room.state(paint),
        ]);
    }
    for rule in &policy.rules {
        table.row([
            cut(&rule.name, NAME, columns).into(),
            kind(rule).to_owned().into(),
            limit(rule).into(),
            short(rule.refused).into(),
            shadow(rule).into(),
            state(rule, report.guards.len(), paint),
        ]);
    }
    if let Some(now) = &policy.concurrency {
        table.row([
            "concurrency".to_owned().into(),
            "Concurrency".to_owned().into(),
            short(now.limit.into()).into(),
            short(now.refused).into(),
            "-".to_owned().into(),
            format!(
                "{} under way, {} waiting",
                short(now.running.into()),
                short(now.waiting)
            )
            .into(),
        ]);
    }
    let has_room = policy.waiting_room.is_some();
    if has_room || !policy.rules.is_empty() || policy.concurrency.is_some() {
        // What a table shows cannot fail to be written into memory.
        let _written = write!(text, "{table}");
    }
    text
}

/// What came of the requests, each counted under one reason.
fn counts(policy: &PolicySum) -> String {
    let refused = policy.refused;
    let mut line = format!(
        "since the guards began {} admitted, {} refused",
        short(policy.admitted),
        short(refused)
    );
    let total = policy.admitted.saturating_add(refused);
    if refused > 0 {
        let by = policy.refused_by.iter();
        let by: Vec<String> = by.map(|(why, n)| format!("{} {why}", short(*n))).collect();
        let _written = write!(line, " ({}): {}", share(refused, total), by.join(", "));
    }
    line
}

fn kind(rule: &RuleSum) -> &'static str {
    match rule.stands {
        Stands::RateLimit { .. } => "RateLimit",
        Stands::HotKeys { .. } => "HotKeys",
        Stands::Breaker { .. } => "Breaker",
    }
}

fn limit(rule: &RuleSum) -> String {
    match rule.stands {
        Stands::RateLimit { per_second, .. } => rate(per_second),
        Stands::HotKeys { .. } | Stands::Breaker { .. } => "-".to_owned(),
    }
}

fn shadow(rule: &RuleSum) -> String {
    if rule.is_shadow {
        short(rule.would_refuse)
    } else {
        "-".to_owned()
    }
}

fn state(rule: &RuleSum, guards: usize, paint: Paint) -> Painted {
    match &rule.stands {
        Stands::RateLimit {
            burst, is_per_key, ..
        } => {
            let each = if *is_per_key { ", each key alone" } else { "" };
            format!("burst {}{each}", short(*burst)).into()
        }
        Stands::HotKeys { hot } if hot.is_empty() => "no key is hot".to_owned().into(),
        Stands::HotKeys { hot } => {
            let named = hot.iter().take(KEYS).map(|key| {
                let name = cut(&key.key, KEY, Some(KEY));
                let time = seconds(key.seconds);
                format!("{name} {:.0} % for {time}", key.percent)
            });
            let mut named: Vec<String> = named.collect();
            if hot.len() > KEYS {
                named.push(format!("and {} more", hot.len() - KEYS));
            }
            paint.unsure(&named.join(", "))
        }
        Stands::Breaker {
            half_open, open, ..
        } => {
            let at = |count: usize, word: &str| {
                (count > 0).then(|| format!("{word} at {count} of {}", number(guards, "guard")))
            };
            let bad = [at(*open, "Open"), at(*half_open, "HalfOpen")];
            let bad: Vec<String> = bad.into_iter().flatten().collect();
            match (*open, bad.as_slice()) {
                (_, []) => paint.good("Closed"),
                (0, _) => paint.unsure(&bad.join(", ")),
                (_, _) => paint.bad(&bad.join(", ")),
            }
        }
    }
}

/// Services that guards leave endpoints of alone.
fn ejected(report: &Report, paint: Paint, columns: Option<usize>) -> Option<String> {
    let guards = number(report.guards.len(), "guard");
    let mut table =
        Table::new(&["SERVICE", "ENDPOINTS", "EJECTED SINCE THEY FAIL"]).within(columns);
    let services = report.services.iter();
    let services: Vec<&ServiceSum> = services.filter(|s| !s.ejected.is_empty()).collect();
    for service in &services {
        let endpoints = service.ejected.iter();
        let endpoints: Vec<String> = endpoints
            .map(|(endpoint, at)| format!("{endpoint} at {at} of {guards}"))
            .collect();
        table.row([
            cut(&service.name, SERVICE, columns).into(),
            service.endpoints.to_string().into(),
            paint.bad(&endpoints.join(", ")),
        ]);
    }
    (!services.is_empty()).then(|| table.to_string())
}

/// A count in at most six characters: exact below ten thousand, then with three digits.
pub(super) fn short(count: u64) -> String {
    const UNITS: [(u64, &str); 4] = [
        (1_000_000_000_000, "T"),
        (1_000_000_000, "G"),
        (1_000_000, "M"),
        (1_000, "k"),
    ];
    if count < 10_000 {
        return count.to_string();
    }
    // What is cut off, and not rounded up, never reads as more than there was.
    let unit = UNITS.iter().find(|(size, _)| count >= *size);
    let (size, unit) = unit.copied().unwrap_or((1, ""));
    let (whole, rest) = (count / size, count % size);
    match whole {
        0..=9 => format!("{whole}.{:02}{unit}", rest / (size / 100)),
        10..=99 => format!("{whole}.{}{unit}", rest / (size / 10)),
        _ => format!("{whole}{unit}"),
    }
}

/// A rate in the unit in which it is a number of requests: 2.5/s, 30/min, 2/h.
fn rate(per_second: f64) -> String {
    let units = [(1.0, "s"), (60.0, "min"), (3600.0, "h")];
    let whole = units.iter().find(|(factor, _)| per_second * factor >= 1.0);
    let (factor, unit) = whole.copied().unwrap_or((3600.0, "h"));
    let number = per_second * factor;
    let whole = format!("{number:.0}").parse().unwrap_or(u64::MAX);
    let text = if whole >= 1000 {
        short(whole)
    } else {
        format!("{number:.1}").trim_end_matches(".0").to_owned()
    };
    format!("{text}/{unit}")
}

/// A share in percent, with a decimal below ten.
fn share(part: u64, total: u64) -> String {
    // Parts in a thousand, so that no number has to be rounded to a float.
    let thousandths = u128::from(part) * 1000 / u128::from(total.max(1));
    match (thousandths, part) {
        (0, 1..) => "less than 0.1 %".to_owned(),
        (0..=99, _) => format!("{}.{} %", thousandths / 10, thousandths % 10),
        (_, _) => format!("{} %", thousandths / 10),
    }
}

fn seconds(seconds: u64) -> String {
    match seconds {
        0..=119 => format!("{seconds}s"),
        120..=7199 => format!("{}m", seconds / 60),
        _ => format!("{}h", seconds / 3600),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::sum::tests::{guard, two};
    use super::*;

    #[test]
    fn a_screen_tells_limits_refusals_by_reason_and_states() {
        assert_eq!(
            of(&two(), None, Paint::never(), None),
            "2 of 3 guards answered\n\
             \x20 no answer, so not counted: guard-2 (connection refused)\n\
             \n\
             TrafficPolicy venue/venue-code\n\
             \x20 routes venue/code\n\
             \x20 since the guards began 1.23M admitted, 250 refused (less than 0.1 %): 60 HotKey, 10 Other, \
             30 Overloaded, 140 RateLimited, 10 Waiting\n\
             RULE         KIND         LIMIT   REFUSED  SHADOWED  STATE\n\
             waitingRoom  WaitingRoom  50      10       -         12 queue since it is full; 50 in, 14 let in \
             within a minute\n\
             total        RateLimit    5000/s  140      -         burst 5000\n\
             per-citizen  RateLimit    5/s     0        3000      burst 10, each key alone\n\
             venue        HotKeys      -       60       -         stadium 42 % for 12s\n\
             slow         Breaker      -       0        -         Open at 1 of 2 guards\n\
             concurrency  Concurrency  200     30       -         80 under way, 4 waiting\n\
             \n\
             SERVICE          ENDPOINTS  EJECTED SINCE THEY FAIL\n\
             venue/code:8080  3          10.0.0.7:8080 at 2 of 2 guards\n"
        );
    }

    #[test]
    fn people_read_at_most_a_hundred_columns_however_long_names_are() {
        let long = "x".repeat(63);
        let hot: Vec<_> = (0..9)
            .map(|n| json!({"key": format!("{n}{long}"), "percent": 9.5, "seconds": 86_400}))
            .collect();
        let mut standing = guard(u64::MAX / 2, "HalfOpen", &json!(hot));
        let policy = &mut standing.policies[0];
        policy.name = format!("{long}/{long}");
        policy.refused = u64::MAX / 3;
        policy.routes = vec![format!("{long}/a"), format!("{long}/b")];
        for rule in &mut policy.rules {
            rule.name.clone_from(&long);
            rule.refused = 999_999_999;
            rule.would_refuse = 999_999_999;
            rule.is_shadow = true;
        }
        let room = &mut standing.rooms[0];
        room.name.clone_from(&policy.name);
        (room.waiting, room.active) = (u64::MAX / 3, u64::MAX / 3);
        room.admitted_per_minute = u64::MAX / 3;
        standing.services[0].name = format!("{long}/{long}:8080");
        let silent = ("guard-9".to_owned(), Err("a b c ".repeat(40)));
        let report = Report::of(vec![("guard-0".into(), Ok(standing)), silent]);
        let text = of(&report, None, Paint::never(), Some(100));
        let heads = |line: &&str| !line.starts_with("TrafficPolicy ");
        for line in text.lines().filter(heads) {
            assert!(line.chars().count() <= 100, "{}: {line}", line.len());
        }
        assert!(text.contains("and 4 more"), "{text}");
    }

    #[test]
    fn where_nothing_is_enforced_that_is_said() {
        let mut report = two();
        report.policies.clear();
        let text = |namespace| of(&report, namespace, Paint::never(), None);
        assert!(text(None).contains("No TrafficPolicy is enforced."));
        let of_one = "No TrafficPolicy of namespace venue is enforced.";
        assert!(text(Some("venue")).contains(of_one));
    }

    #[test]
    fn counts_and_rates_are_short_and_never_more_than_there_was() {
        let counts = [0, 9999, 10_000, 123_456, 1_999_999, 1_234_567_890_123];
        let shown = counts.map(short);
        assert_eq!(shown, ["0", "9999", "10.0k", "123k", "1.99M", "1.23T"]);
        let rates = [5000.0, 2.5, 0.5, 1.0 / 3600.0, 0.0].map(rate);
        assert_eq!(rates, ["5000/s", "2.5/s", "30/min", "1/h", "0/h"]);
        let shares = [(1, 3), (1, 30), (1, 30_000), (0, 0)].map(|(part, all)| share(part, all));
        assert_eq!(shares, ["33 %", "3.3 %", "less than 0.1 %", "0.0 %"]);
        assert_eq!([59, 180, 7200].map(seconds), ["59s", "3m", "2h"]);
    }
}
