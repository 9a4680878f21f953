//! `sandbox tour`: a health code goes live over a province and lives through what happens to it.
//! Every step ends with its evidence or ends the tour with its name.

mod act;
mod launch;
mod look;
mod peak;
mod quota;
mod steps;

use std::{
    io::{self, Write},
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use crate::{
    fleet::{Fleet, FleetConfig},
    province::{self, Province, guards::Guards},
    sandbox::{Member, default_members},
};

/// The command line of `sandbox tour`.
#[derive(Debug, Clone, clap::Args)]
pub struct Tour {
    /// Folder for kubeconfigs and logs; what an earlier run left there is removed
    #[arg(long, default_value = "target/tour")]
    pub dir: PathBuf,
    /// Play the steps about traffic alone
    #[arg(long)]
    pub traffic: bool,
}

/// A living province and what the tour knows of it.
struct Stage {
    fleet: Fleet,
    province: Province,
    members: Vec<Member>,
    /// Those of one city, from the first peak on: five clusters with guards would cost this machine more than
    /// the steps before need.
    guards: Option<Guards>,
}

/// Number of nodes of a cluster. Cities differ, so that dividing by capacity shows.
fn nodes(cluster: &str) -> u32 {
    match cluster {
        "hangzhou-a" => 6,
        "quzhou-a" => 2,
        _ => 3,
    }
}

/// Plays the tour from the first cluster to the last removal.
pub async fn tour(options: Tour) -> Result<()> {
    let began = Instant::now();
    let members = default_members();
    let names = members.iter().map(|member| member.name.clone());
    let mut config = FleetConfig::new(&options.dir, names);
    config.progress = say;
    for cluster in &mut config.clusters {
        cluster.nodes = nodes(&cluster.name);
    }
    let fleet = Fleet::start(config).await?;
    let province = province::start(&fleet, &members, say).await?;
    let mut stage = Stage {
        fleet,
        province,
        members,
        guards: None,
    };
    let played = play(&mut stage, options.traffic).await;
    say("stopping");
    drop(stage.guards.take());
    stage.province.stop().await?;
    stage.fleet.stop().await?;
    let steps = played?;
    writeln!(
        io::stdout(),
        "\ntour passed: {steps} steps in {:.0} s",
        began.elapsed().as_secs_f32()
    )?;
    Ok(())
}

/// Plays a step after so many, and shows what it saw.
macro_rules! step {
    ($done:ident, $name:literal, $play:expr) => {{
        let began = Instant::now();
        let evidence: String = $play.await.context(concat!("step failed: ", $name))?;
        show($done + 1, $name, began.elapsed(), &evidence)?;
        $done += 1;
    }};
}

async fn play(stage: &mut Stage, traffic_alone: bool) -> Result<usize> {
    let mut done = 0;
    if !traffic_alone {
        done = live(stage, done).await?;
        done = launch(stage, done).await?;
    }
    peaks(stage, done).await
}

/// An app comes, lives through what happens to it, and goes.
async fn live(stage: &mut Stage, mut done: usize) -> Result<usize> {
    step!(
        done,
        "a province, three cities and a county join",
        steps::join(stage)
    );
    step!(
        done,
        "an app is placed by capacity, with a reason for every cluster",
        steps::place(stage)
    );
    step!(
        done,
        "an override differs in one city",
        steps::differ(stage)
    );
    step!(done, "an edit rolls out in waves", steps::roll_out(stage));
    step!(
        done,
        "a bad version is stopped after the first wave",
        steps::stop_bad(stage)
    );
    step!(
        done,
        "setting the content back heals the first wave",
        steps::roll_back(stage)
    );
    step!(done, "drift is repaired", steps::repair(stage));
    step!(
        done,
        "the hub is killed and a city still repairs, also with its agent restarted",
        steps::lose_hub(stage)
    );
    step!(
        done,
        "the hub returns and nothing is deleted",
        steps::hub_returns(stage)
    );
    step!(
        done,
        "a cluster is cut off: shown as stale, and nothing moves by itself",
        steps::cut_off(stage)
    );
    step!(
        done,
        "a department borrows what another one does not use, and a third one is refused",
        quota::borrow(stage)
    );
    step!(
        done,
        "the lender wants it back, and has it in time",
        quota::take_back(stage)
    );
    step!(done, "the app is deleted everywhere", steps::delete(stage));
    Ok(done)
}

/// Tenants come, have their walls, and go.
async fn launch(stage: &mut Stage, mut done: usize) -> Result<usize> {
    step!(
        done,
        "a launch in one file: tenants, a grant, walls, a link and the apps",
        launch::launch(stage)
    );
    step!(done, "what is declared passes, and nothing else", async {
        launch::refuse(stage)
    });
    step!(
        done,
        "a wall that is torn down in a member is put back, and a pod of its own finds no room",
        launch::hold(stage)
    );
    step!(
        done,
        "the tenants go, with everything that was theirs",
        launch::clear(stage)
    );
    Ok(done)
}

/// An app has more to do than it can, and then less.
async fn peaks(stage: &mut Stage, mut done: usize) -> Result<usize> {
    step!(
        done,
        "ten times the load, with everybody trying again: codes are shown, statistics wait",
        peak::overload(stage)
    );
    step!(
        done,
        "a dependency becomes slow: it is left alone, and nothing else notices",
        peak::slow_dependency(stage)
    );
    step!(
        done,
        "one venue makes up 40 % of the requests, and is limited alone",
        peak::hot_key(stage)
    );
    step!(
        done,
        "a service that apps share becomes slow: the one that matters most still has it",
        peak::shared_service(stage)
    );
    Ok(done)
}

fn show(number: usize, name: &str, took: Duration, evidence: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "\n{number:>2}. {name} ({:.1} s)", took.as_secs_f32())?;
    for line in evidence.lines() {
        let indent = if line.trim().is_empty() { "" } else { "    " };
        writeln!(out, "{indent}{}", line.trim_end())?;
    }
    out.flush().context("write to standard output")
}

fn say(text: &str) {
    eprintln!("tour: {text}");
}
