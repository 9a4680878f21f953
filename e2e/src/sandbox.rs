//! The `sandbox` command: a fleet in a folder, until Ctrl-C.

mod demo;
mod description;
mod layout;

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use tokio::signal::unix::{SignalKind, signal};

pub use layout::{Member, Mode, default_members};

use crate::{
    assets::Binaries,
    fleet::{Fleet, FleetConfig},
    process::Process,
    province::{self, Guard, Pace, Province},
};

/// How often the processes are looked at once everything runs.
const CHECK_EVERY: Duration = Duration::from_secs(1);

/// The command line of `sandbox up`.
#[derive(Debug, Clone, clap::Args)]
pub struct Up {
    /// Number of clusters, the province's own included
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub clusters: u16,
    /// Folder for kubeconfigs, logs and sandbox.json; what an earlier run left there is removed
    #[arg(long, default_value = "target/sandbox")]
    pub dir: PathBuf,
    /// Number of nodes in each cluster; a node takes 110 pods
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(0..=200))]
    pub nodes: u16,
    /// Number of guards in each cluster
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(0..=8))]
    pub guards: u16,
    /// Control planes and nodes alone: no jiuzhou process, no demo objects
    #[arg(long)]
    pub bare: bool,
}

/// Starts the sandbox and keeps it until it is told to end.
pub async fn up(options: Up) -> Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let stop = async {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    };
    tokio::pin!(stop);

    let members = layout::members(options.clusters.into());
    let started = tokio::select! {
        started = start(&options, &members) => started?,
        // Dropping what has been started so far ends it.
        () = &mut stop => return Ok(()),
    };
    let (fleet, province) = started;
    tokio::select! {
        () = report_ended_processes(&fleet, province.as_ref()) => {}
        () = &mut stop => {}
    }
    progress("stopping");
    if let Some(province) = province {
        province.stop().await?;
    }
    fleet.stop().await
}

/// Builds missing binaries; before signals are handled, so that Ctrl-C ends a build.
pub fn prepare() -> Result<()> {
    Binaries::ensure(progress).map(drop)
}

async fn start(options: &Up, members: &[Member]) -> Result<(Fleet, Option<Province>)> {
    let began = Instant::now();
    let names = members.iter().map(|member| member.name.clone());
    let mut config = FleetConfig::new(&options.dir, names);
    config.progress = progress;
    for cluster in &mut config.clusters {
        cluster.nodes = options.nodes.into();
    }
    let fleet = Fleet::start(config).await?;
    let hub = fleet.dir().join("hub.kubeconfig");
    fs::copy(fleet.hub().kubeconfig_file(), &hub).context("write hub.kubeconfig")?;
    let province = if options.bare {
        None
    } else {
        let pace = Pace {
            guards: Some(options.guards),
            ..Pace::QUICK
        };
        Some(province::start_at(&fleet, members, pace, progress).await?)
    };
    if province.is_some() {
        progress("applying the demo App");
        demo::apply(&fleet.hub().client().await?).await?;
    }
    description::write(&fleet, members, province.as_ref(), &hub)?;
    let mut cities = fleet.clusters().iter().zip(members);
    let city = cities.find(|(_, member)| member.mode == Mode::Pull);
    let city = city.map(|(cluster, _)| cluster.kubeconfig_file());
    let guard = cities_guard(province.as_ref(), members);
    let commands = province
        .as_ref()
        .map(|province| demo::commands(&hub, &province.binary, city, guard));
    announce(fleet.dir(), &hub, commands.as_deref(), began.elapsed())?;
    Ok((fleet, province))
}

/// A guard of the first city.
fn cities_guard<'a>(province: Option<&'a Province>, members: &[Member]) -> Option<&'a Guard> {
    let city = members.iter().find(|member| member.mode == Mode::Pull)?;
    province?.guards.get(&city.name)?.first()
}

/// The last line is `ready`, for programs that wait for it.
fn announce(dir: &Path, hub: &Path, commands: Option<&str>, took: Duration) -> Result<()> {
    let mut out = io::stdout().lock();
    writeln!(
        out,
        "sandbox in {} after {:.1} s",
        dir.display(),
        took.as_secs_f32()
    )?;
    match commands {
        Some(commands) => {
            writeln!(out, "\nIn another shell:\n\n{commands}")?;
            let all = dir.join(description::NAME);
            writeln!(out, "Kubeconfigs of all clusters: {}", all.display())?;
        }
        None => writeln!(out, "  kubectl --kubeconfig {} get nodes", hub.display())?,
    }
    writeln!(out, "Ctrl-C stops everything it started")?;
    writeln!(out, "ready")?;
    out.flush().context("write to standard output")
}

/// Says when a process has ended that nobody stopped; the rest goes on, as it would in a real
/// province. Never returns.
async fn report_ended_processes(fleet: &Fleet, province: Option<&Province>) {
    let mut reported = std::collections::HashSet::new();
    loop {
        for process in all_processes(fleet, province) {
            if let Err(error) = process.check()
                && reported.insert(process.pid())
            {
                progress(&format!("{error:#}"));
            }
        }
        tokio::time::sleep(CHECK_EVERY).await;
    }
}

fn all_processes<'a>(
    fleet: &'a Fleet,
    province: Option<&'a Province>,
) -> impl Iterator<Item = &'a Process> {
    fleet.processes().chain(
        province
            .into_iter()
            .flat_map(|province| &province.processes),
    )
}

fn progress(line: &str) {
    // Progress is lost if nobody reads it; the sandbox goes on.
    let _ = writeln!(io::stderr(), "sandbox: {line}");
}
