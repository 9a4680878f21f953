//! What isolates an App, and the Links that lead through.

use crds::{Egress, LinkPort, OnDrift};
use plan::baseline::Baseline;
use plan::province::{Force, LinkSide, Wall};
use serde_json::{Value, json};

use super::super::output::Painted;
use super::super::table::Table;
use super::Show;

pub(super) fn walls_as_json(walls: &[Wall]) -> Value {
    let one = |wall: &Wall| {
        let baseline = &wall.baseline;
        json!({
            "cluster": wall.cluster, "isolations": wall.isolations, "state": word(wall.force),
            "podSecurity": baseline.pod_security, "egress": baseline.egress,
            "registries": baseline.registries, "onDrift": baseline.on_drift,
            "message": wall.message,
        })
    };
    walls.iter().map(one).collect()
}

pub(super) fn walls_as_text(walls: &[Wall], show: Show) -> String {
    if walls.is_empty() {
        return String::new();
    }
    let mut table = Table::new(&["CLUSTER", "ISOLATION", "FROM", "MEANS"]).within(show.columns);
    for wall in walls {
        let names: Vec<&str> = wall.isolations.iter().map(|name| &**name).collect();
        let isolations = if names.is_empty() {
            "defaults".to_owned()
        } else {
            names.join(", ")
        };
        let message = wall.message.iter().map(|message| format!("; {message}"));
        table.row([
            wall.cluster.to_string().into(),
            state(wall.force, show),
            isolations.into(),
            format!("{}{}", means(&wall.baseline), message.collect::<String>()).into(),
        ]);
    }
    table.to_string()
}

fn word(force: Force) -> &'static str {
    match force {
        Force::Coming => "Coming",
        Force::InForce => "InForce",
        Force::Obstructed(reason) => reason.as_str(),
    }
}

fn state(force: Force, show: Show) -> Painted {
    match force {
        Force::Coming => show.paint.unsure(word(force)),
        Force::InForce => show.paint.good(word(force)),
        Force::Obstructed(_) => show.paint.bad(word(force)),
    }
}

/// What a baseline asks for, in words.
fn means(baseline: &Baseline) -> String {
    let egress = match baseline.egress {
        Egress::Allow => "opens connections to anywhere",
        Egress::Deny => "reaches DNS, its own namespace and its Links",
    };
    let registries = match &baseline.registries {
        None => "images from anywhere".to_owned(),
        Some(none) if none.is_empty() => "images from nowhere".to_owned(),
        Some(some) => {
            let names: Vec<&str> = some.iter().map(String::as_str).collect();
            format!("images from {}", names.join(", "))
        }
    };
    let drift = match baseline.on_drift {
        OnDrift::Report => "what somebody weakens is reported",
        OnDrift::Revert => "what somebody weakens is put back",
    };
    let standard = baseline.pod_security;
    format!("pods held to {standard:?}; {egress}; {registries}; {drift}")
}

pub(super) fn paths_as_json(paths: &[LinkSide]) -> Value {
    let one = |path: &LinkSide| {
        let ports: Vec<String> = path.ports.iter().map(port).collect();
        let (home, name) = &path.link;
        json!({
            "link": format!("{home}/{name}"), "direction": if path.leaves { "To" } else { "From" },
            "others": path.others, "ports": ports, "expires": path.expires,
            "inForce": path.in_force,
            "reason": path.refused.as_ref().map(|parked| parked.reason),
            "message": path.refused.as_ref().map(|parked| &parked.message),
        })
    };
    paths.iter().map(one).collect()
}

pub(super) fn paths_as_text(paths: &[LinkSide], show: Show) -> String {
    if paths.is_empty() {
        return String::new();
    }
    let mut table = Table::new(&["LINK", "WITH", "PORTS", "EXPIRES", "STATE"]).within(show.columns);
    for path in paths {
        let ports: Vec<String> = path.ports.iter().map(port).collect();
        let (home, name) = &path.link;
        let direction = if path.leaves { "to" } else { "from" };
        let state = match &path.refused {
            None if path.in_force => show.paint.good("InForce"),
            None => show.paint.unsure("Coming"),
            Some(parked) => {
                let text = format!("{}: {}", parked.reason, parked.message);
                show.paint.bad(&text)
            }
        };
        table.row([
            format!("{home}/{name}").into(),
            format!("{direction} {}", path.others.join(", ")).into(),
            ports.join(", ").into(),
            path.expires.to_string().into(),
            state,
        ]);
    }
    table.to_string()
}

fn port(port: &LinkPort) -> String {
    let end = port.end_port.filter(|end| *end != port.port);
    let end = end.map_or_else(String::new, |end| format!("-{end}"));
    format!("{}{end}/{:?}", port.port, port.protocol)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::super::output::Paint;
    use super::*;

    const SHOW: Show = Show {
        paint: Paint::never(),
        columns: None,
    };

    #[test]
    fn a_wall_says_how_far_it_stands_and_what_it_means() {
        let registries = BTreeSet::from(["registry.example".to_owned()]);
        let wall = Wall {
            cluster: "hangzhou-a".into(),
            isolations: vec!["own-images".into()],
            baseline: Baseline {
                registries: Some(registries),
                ..Baseline::default()
            },
            force: Force::Obstructed(crds::Reason::Conflict),
            message: Some("the namespace is somebody else's".to_owned()),
        };
        let text = walls_as_text(std::slice::from_ref(&wall), SHOW);
        assert_eq!(
            text.lines().nth(1).unwrap(),
            "hangzhou-a  Conflict   own-images  pods held to Baseline; reaches DNS, its own \
             namespace and its Links; images from registry.example; what somebody weakens is put back; the \
             namespace is somebody else's"
        );
        assert_eq!(walls_as_json(&[wall])[0]["state"], "Conflict");
    }

    #[test]
    fn a_link_says_which_way_it_leads_and_why_it_is_not_in_force() {
        let ports = vec![LinkPort {
            port: 8080,
            end_port: Some(8090),
            protocol: crds::Protocol::TCP,
        }];
        let refused = plan::world::Parked::new(crds::Reason::Expired, "spec.expires is over");
        let path = LinkSide {
            link: ("health".into(), "id".into()),
            leaves: true,
            others: vec!["police/sso".to_owned()],
            ports,
            expires: crds::Timestamp::from_millis(0),
            in_force: false,
            refused: Some(refused),
        };
        let text = paths_as_text(&[path], SHOW);
        assert_eq!(
            text.lines().nth(1).unwrap(),
            "health/id  to police/sso  8080-8090/TCP  1970-01-01T00:00:00Z  Expired: spec.expires \
             is over"
        );
    }
}
