//! Load for a guard that counts what it does, so that the next build is laid out for that.

use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::{
    load::{
        mix::{Keys, Kind, Mix},
        run,
    },
    measure::say,
};

use super::{
    lab::{AccessLog, Lab, Wire, browser, steady},
    policies::{CITIZEN, Document, VENUE, chain},
    upstream::Upstream,
};

/// What a guard that counts stands beside a generator; how late sends are is of no matter here.
const RATE: f64 = 1_500.0;
/// Twelve thousand requests: what happens once in a connection is rare beside them.
const LASTS: Duration = Duration::from_secs(8);
/// Citizens.
const KEYS: u32 = 1_000;
/// Limits within which everything passes, and within which next to nothing does.
const LIMITS: [u32; 2] = [PLENTY, 1];
const PLENTY: u32 = 1_000_000;
/// Of all requests so many may end otherwise than they should.
const OTHERS_ONE_IN: u64 = 100;
/// As long as what an app on a phone reports at once.
const REPORT_BYTES: usize = 1_000;

/// Passes and refuses requests by every wire, with a guard of its own for each, logging as it does where
/// nothing else is said, and ends them in order: what they counted is written at the end.
pub(super) async fn train(lab: &Lab) -> Result<()> {
    let upstream = Upstream::quick()?;
    for wire in Wire::ALL {
        for limit in LIMITS {
            let document = |port| Document::of(port, upstream.address(), chain(limit, limit));
            let guard = lab.guard_logging(AccessLog::Stdout, 1, wire, document);
            let guard = guard.await?;
            let mix = Mix::of(&kinds(), Keys::Uniform { of: KEYS })?;
            let plan = lab.plan(guard.at, wire, steady(RATE, LASTS)?, mix)?;
            let total = run::run(plan).await?.total;
            let meant = if limit == PLENTY {
                total.succeeded
            } else {
                total.refused
            };
            say(&format!(
                "{}: {} requests passed, {} refused",
                wire.name(),
                total.succeeded,
                total.refused
            ));
            ensure!(
                (total.attempts - meant) * OTHERS_ONE_IN <= total.attempts,
                "of {} requests {meant} ended as they should: {:?}, {:?}",
                total.attempts,
                total.statuses,
                total.failures
            );
            guard.end().await?;
        }
    }
    Ok(())
}

/// What a region's citizens send: most as where the cost is measured, but for the path, the others quite different.
fn kinds() -> [Kind; 3] {
    let code = Kind {
        weight: 3.0,
        ..browser("/codes/{key}?refresh=1")
    };
    let report = Kind {
        label: "report".to_owned(),
        method: "POST".to_owned(),
        path: "/api/reports".to_owned(),
        body: "x".repeat(REPORT_BYTES),
        ..Kind::get("localhost").with_headers([
            ("content-type", "application/json"),
            ("authorization", "Bearer 6f1d2a9b7c3e4f508192a3b4c5d6e7f8"),
            (CITIZEN, "610102-{key}"),
        ])
    };
    let page = Kind {
        label: "page".to_owned(),
        ..Kind::get("localhost").with_headers([
            ("accept", "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8"),
            ("accept-language", "en;q=0.8,zh-CN;q=0.9"),
            (VENUE, "venue-{key}"),
        ])
    };
    [code, report, page]
}
