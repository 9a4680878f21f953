//! What a policy says about single requests, in the words of the configuration.

use std::time::Duration;

use crds::{RetryOn as On, TrafficPolicySpec};
use shield::{BudgetSettings, RetryBudget};

use super::translate::{count, span};
use crate::guard::config::{Retries, RetryOn};

/// Times that the kind allows a request to be sent again.
const ATTEMPTS_MAX: i32 = 3;

/// What is done with each request of the rules, beside the shield's rules.
#[derive(Clone, Debug, Default)]
pub(super) struct Requests {
    /// Most time for a request.
    pub(super) timeout: Option<Duration>,
    /// When it is sent once more. No attempts at all is something else than nothing said.
    pub(super) retries: Option<Retries>,
}

pub(super) fn read(spec: &TrafficPolicySpec) -> Result<Requests, String> {
    let timeout = spec.timeout.as_ref();
    Ok(Requests {
        timeout: timeout.map(|text| span("timeout", text)).transpose()?,
        retries: spec.retries.as_ref().map(retries).transpose()?,
    })
}

fn retries(said: &crds::Retries) -> Result<Retries, String> {
    let attempts = u8::try_from(said.attempts()).ok();
    let attempts = attempts.filter(|_| said.attempts() <= ATTEMPTS_MAX);
    let attempts = attempts.ok_or_else(|| {
        format!(
            "retries: attempts is {}, allowed is 0 to {ATTEMPTS_MAX}; correct it",
            said.attempts()
        )
    })?;
    let budget_percent = count("retries: budgetPercent", i64::from(said.budget_percent()))?;
    let settings = BudgetSettings {
        percent: budget_percent,
        ..BudgetSettings::default()
    };
    // The shield knows best what it takes.
    RetryBudget::new(settings).map_err(|fault| format!("retries: {fault}; correct it"))?;
    Ok(Retries {
        attempts,
        on: said.on().iter().copied().map(after).collect(),
        budget_percent,
    })
}

fn after(on: On) -> RetryOn {
    match on {
        On::ConnectFailure => RetryOn::ConnectFailure,
        On::Refused => RetryOn::Refused,
        On::Reset => RetryOn::Reset,
        On::GatewayError => RetryOn::GatewayError,
    }
}
