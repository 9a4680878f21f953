//! One side of a comparison: the same load, kept in all members by Jiuzhou or by the floor.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::ValueEnum;
use futures::future::try_join_all;
use serde_json::{Value, json};

use super::{
    arrivals::Arrivals,
    load::{Call, Load, send},
    readiness::{Readiness, Says},
    round,
    stage::{Controllers, Stage},
    tenant,
};
use crate::process::{Process, Program};

/// No phase of a thousand objects takes this long, on any machine.
const LIMIT: Duration = Duration::from_mins(15);
/// Revisions of the load before and after its update.
pub const FIRST: &str = "v1";
/// See [`FIRST`].
pub const SECOND: &str = "v2";

/// Who keeps the members as the hub is.
pub enum Side {
    /// Jiuzhou, through Apps, which say how far they are.
    Jiuzhou(Readiness),
    /// The floor program, through plain Deployments.
    Floor(Process),
}

/// A side with its namespace, its load and one watch per member.
pub struct Contest {
    side: Side,
    namespace: String,
    count: usize,
    load: Load,
    arrivals: Vec<Arrivals>,
}

/// How long a phase took.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// From the start of the load until all members have it all.
    pub arrived: f64,
    /// Until every App's status says so; nothing for the floor, which says nothing.
    pub told: Option<f64>,
}

/// What happens to the load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Phase {
    /// All objects are created at the hub.
    Create,
    /// All objects change label and image at the hub.
    Update,
    /// A tenth of the objects is deleted in the first member, behind the program's back.
    Drift,
    /// All objects are deleted at the hub.
    Delete,
}

impl Phase {
    /// All, in the order in which they make sense.
    pub const ALL: [Self; 4] = [Self::Create, Self::Update, Self::Drift, Self::Delete];

    /// Its name in the output.
    pub fn name(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Update => "update",
            Self::Drift => "drift",
            Self::Delete => "delete",
        }
    }
}

impl Contest {
    /// Jiuzhou's side. One App is created ahead, so that the namespace and its rights are there in
    /// every member, as they are for the floor.
    pub async fn jiuzhou(stage: &Stage, namespace: &str, count: usize) -> Result<Self> {
        stage.namespace(namespace).await?;
        let says = match stage.controllers() {
            Controllers::Off => Says::Applied,
            Controllers::On => Says::Ready,
        };
        let side = Side::Jiuzhou(Readiness::watch(stage.hub(), namespace, says));
        let mut contest = Self::new(stage, namespace, count, side).await?;
        let ahead = Call::Create(tenant::app, "ahead".to_owned());
        send(&stage.hub(), &contest.collection(), "ahead", &ahead).await?;
        contest.reach("ahead", 1).await?;
        Ok(contest)
    }

    /// The floor's side. `this` is the executable whose subcommand `floor` is the program.
    pub async fn floor(
        stage: &Stage,
        namespace: &str,
        count: usize,
        this: &std::path::Path,
    ) -> Result<Self> {
        stage.namespace(namespace).await?;
        stage.member_namespaces(namespace).await?;
        let mut program = Program::new("floor", this)
            .arg("floor")
            .flag("hub", stage.kubeconfig("hub")?)
            .flag("namespace", namespace);
        for member in &stage.members {
            program = program.flag("member", stage.kubeconfig(&member.name)?);
        }
        let process = stage.fleet.supervisor().spawn(program)?;
        Self::new(stage, namespace, count, Side::Floor(process)).await
    }

    async fn new(stage: &Stage, namespace: &str, count: usize, side: Side) -> Result<Self> {
        let load = Load::on(stage.fleet.hub()).await?;
        let mut arrivals = Vec::new();
        for member in &stage.members {
            let client = stage.fleet.cluster(&member.name)?.client().await?;
            arrivals.push(Arrivals::watch(client, namespace));
        }
        Ok(Self {
            side,
            namespace: namespace.to_owned(),
            count,
            load,
            arrivals,
        })
    }

    /// The floor program, on its side.
    pub fn program(&self) -> Option<&Process> {
        match &self.side {
            Side::Floor(process) => Some(process),
            Side::Jiuzhou(_) => None,
        }
    }

    /// Runs one phase.
    pub async fn run(&mut self, stage: &Stage, phase: Phase) -> Result<Times> {
        let began = Instant::now();
        match phase {
            Phase::Create => {
                self.create().await?;
            }
            Phase::Update => {
                let patch = self.pick(
                    tenant::deployment_update(SECOND),
                    tenant::app_update(SECOND),
                );
                self.put(&Call::Update(patch), SECOND).await?;
            }
            Phase::Drift => self.drift(stage).await?,
            Phase::Delete => self.delete().await?,
        }
        let arrived = began.elapsed().as_secs_f64();
        // Besides the load there is the App that was created ahead.
        let left = if phase == Phase::Delete {
            1
        } else {
            self.count + 1
        };
        let told = self
            .await_told(left)
            .await?
            .then(|| began.elapsed().as_secs_f64());
        Ok(Times { arrived, told })
    }

    /// Creates all objects and says how long until every member has them. Statuses are not waited
    /// for: they tell of all clusters of the province, also of one that hardly answers.
    pub async fn create(&mut self) -> Result<f64> {
        let began = Instant::now();
        let object = self.pick(tenant::deployment as fn(&str, &str) -> Value, tenant::app);
        self.put(&Call::Create(object, FIRST.to_owned()), FIRST)
            .await?;
        Ok(began.elapsed().as_secs_f64())
    }

    /// Waits until the statuses of so many Apps say so; false on the floor's side, which has none.
    async fn await_told(&mut self, count: usize) -> Result<bool> {
        match &mut self.side {
            Side::Jiuzhou(readiness) => readiness.reach(count, LIMIT).await.map(|()| true),
            Side::Floor(_) => Ok(false),
        }
    }

    fn pick<T>(&self, floor: T, jiuzhou: T) -> T {
        match self.side {
            Side::Floor(_) => floor,
            Side::Jiuzhou(_) => jiuzhou,
        }
    }

    fn collection(&self) -> String {
        let (group, plural) =
            self.pick(("apps/v1", "deployments"), ("jiuzhou.io/v1alpha1", "apps"));
        format!("/apis/{group}/namespaces/{}/{plural}", self.namespace)
    }

    fn in_members(&self) -> String {
        format!("/apis/apps/v1/namespaces/{}/deployments", self.namespace)
    }

    async fn put(&mut self, call: &Call, revision: &str) -> Result<()> {
        let collection = self.collection();
        self.load.run(&collection, self.count, call).await?;
        self.reach(revision, self.count).await
    }

    async fn reach(&mut self, revision: &str, count: usize) -> Result<()> {
        let all = self
            .arrivals
            .iter_mut()
            .map(|member| member.reach(revision, count, LIMIT));
        try_join_all(all).await.map(drop)
    }

    async fn delete(&mut self) -> Result<()> {
        self.load
            .run(&self.collection(), self.count, &Call::Delete)
            .await?;
        let all = self
            .arrivals
            .iter_mut()
            .map(|member| member.leave(SECOND, LIMIT));
        try_join_all(all).await.map(drop)
    }

    /// Deletes a tenth in the first member and waits until it is back. The floor does not repair:
    /// on its side the load itself puts the objects back, which no operator could do faster.
    async fn drift(&mut self, stage: &Stage) -> Result<()> {
        let first = stage.members.first().context("a member")?;
        let load = Load::on(stage.fleet.cluster(&first.name)?).await?;
        let (collection, tenth) = (self.in_members(), self.count / 10);
        let deletions = self.arrivals[0].deletions() + tenth;
        load.run(&collection, tenth, &Call::Delete).await?;
        if let Side::Floor(_) = self.side {
            let again = Call::Create(tenant::deployment, SECOND.to_owned());
            load.run(&collection, tenth, &again).await?;
        }
        self.arrivals[0]
            .recover(deletions, SECOND, self.count, LIMIT)
            .await
    }
}

impl Times {
    /// As it stands in the output.
    pub fn json(self) -> Value {
        json!({"seconds": round(self.arrived), "told_seconds": self.told.map(round)})
    }
}
