//! Which TrafficPolicies there are for an App, and how far they are enforced.

use plan::report::PolicyAnswer;
use serde_json::{Value, json};

use super::super::table::Table;
use super::Show;

pub(super) fn as_json(policies: &[PolicyAnswer]) -> Value {
    let said = |(holds, reason, message): &(bool, crds::Reason, String)| json!({"status": holds, "reason": reason, "message": message});
    let one = |policy: &PolicyAnswer| {
        json!({
            "name": policy.name, "accepted": said(&policy.accepted),
            "programmed": said(&policy.programmed),
        })
    };
    policies.iter().map(one).collect()
}

pub(super) fn as_text(policies: &[PolicyAnswer], show: Show) -> String {
    if policies.is_empty() {
        return String::new();
    }
    let mut table = Table::new(&["POLICY", "ACCEPTED", "PROGRAMMED", "WHY"]).within(show.columns);
    for policy in policies {
        let ((accepted, ..), (programmed, ..)) = (&policy.accepted, &policy.programmed);
        let word = |holds: bool| {
            if holds {
                show.paint.good("yes")
            } else {
                show.paint.unsure("no")
            }
        };
        let why = if *accepted {
            format!("{} {}", policy.accepted.2, policy.programmed.2)
        } else {
            policy.accepted.2.clone()
        };
        table.row([
            policy.name.to_string().into(),
            word(*accepted),
            word(*programmed),
            why.into(),
        ]);
    }
    table.to_string()
}
