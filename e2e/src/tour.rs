//! `sandbox tour`: a health code goes live over a province and lives through what happens to it.
//! Every step ends with its evidence or ends the tour with its name.

mod act;
mod launch;
mod look;
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
    province::{self, Province},
    sandbox::{Member, default_members},
};

/// The command line of `sandbox tour`.
#[derive(Debug, Clone, clap::Args)]
pub struct Tour {
    /// Folder for kubeconfigs and logs; what an earlier run left there is removed
    #[arg(long, default_value = "target/tour")]
    pub dir: PathBuf,
}

/// A living province and what the tour knows of it.
struct Stage {
    fleet: Fleet,
    province: Province,
    members: Vec<Member>,
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
    };
    let played = play(&mut stage).await;
    say("stopping");
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

async fn play(stage: &mut Stage) -> Result<usize> {
    let mut done = 0;
    macro_rules! step {
        ($name:literal, $play:expr) => {{
            let began = Instant::now();
            let evidence: String = $play.await.context(concat!("step failed: ", $name))?;
            show(done + 1, $name, began.elapsed(), &evidence)?;
            done += 1;
        }};
    }
    step!(
        "a province, three cities and a county join",
        steps::join(stage)
    );
    step!(
        "an app is placed by capacity, with a reason for every cluster",
        steps::place(stage)
    );
    step!("an override differs in one city", steps::differ(stage));
    step!("an edit rolls out in waves", steps::roll_out(stage));
    step!(
        "a bad version is stopped after the first wave",
        steps::stop_bad(stage)
    );
    step!(
        "setting the content back heals the first wave",
        steps::roll_back(stage)
    );
    step!("drift is repaired", steps::repair(stage));
    step!(
        "the hub is killed and a city still repairs, also with its agent restarted",
        steps::lose_hub(stage)
    );
    step!(
        "the hub returns and nothing is deleted",
        steps::hub_returns(stage)
    );
    step!(
        "a cluster is cut off: shown as stale, and nothing moves by itself",
        steps::cut_off(stage)
    );
    step!(
        "a department borrows what another one does not use, and a third one is refused",
        quota::borrow(stage)
    );
    step!(
        "the lender wants it back, and has it in time",
        quota::take_back(stage)
    );
    step!("the app is deleted everywhere", steps::delete(stage));
    step!(
        "a launch in one file: tenants, a grant, walls, a link and the apps",
        launch::launch(stage)
    );
    step!("what is declared passes, and nothing else", async {
        launch::refuse(stage)
    });
    step!(
        "a wall that is torn down in a member is put back, and a pod of its own finds no room",
        launch::hold(stage)
    );
    step!(
        "the tenants go, with everything that was theirs",
        launch::clear(stage)
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
