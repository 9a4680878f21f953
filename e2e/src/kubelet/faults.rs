//! What a pod's annotations and template ask of it: start slowly, answer badly, never get ready.

use std::{collections::BTreeMap, num::NonZeroU32, time::Duration};

use http::StatusCode;
use k8s_openapi::api::core::v1::{Container, Pod};
use kube::ResourceExt;

/// On a Pod: `"false"` keeps it from ever being Ready; it still answers.
pub const READY: &str = "sandbox.jiuzhou.io/ready";
/// On a Pod: the HTTP status that it answers with.
pub const STATUS: &str = "sandbox.jiuzhou.io/status";
/// On a Pod: how long it takes over each answer, such as `800ms`.
pub const LATENCY: &str = "sandbox.jiuzhou.io/latency";
/// On a Pod: how many requests it works on at a time, such as `4`. The others wait for their turn in the
/// order in which they came, without a bound: so a pod that takes [`LATENCY`] over each does as many a second
/// as the one divided by the other, and no more.
pub const CAPACITY: &str = "sandbox.jiuzhou.io/capacity";
/// On a Pod: time from its binding until it is Ready, instead of the cluster's setting.
pub const START_DELAY: &str = "sandbox.jiuzhou.io/start-delay";
/// On a Pod that is to end by itself, as those of Jobs are: how long it runs.
pub const RUN_FOR: &str = "sandbox.jiuzhou.io/run-for";
/// On a Node: `"true"` makes the node die: no heartbeat, no answers.
pub const DEAD: &str = "sandbox.jiuzhou.io/dead";

/// How a pod answers requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) latency: Duration,
    /// How many requests it works on at a time; none is all.
    pub(super) capacity: Option<NonZeroU32>,
}

/// Reads how `pod` is to answer. An annotation that cannot be read counts as absent; the log says so.
pub(super) fn answer(pod: &Pod) -> Answer {
    let status = annotation(pod, STATUS, |text| {
        StatusCode::from_bytes(text.as_bytes()).ok()
    });
    Answer {
        status: status.unwrap_or(StatusCode::OK),
        latency: annotation(pod, LATENCY, parse_duration).unwrap_or_default(),
        capacity: annotation(pod, CAPACITY, |text| text.parse().ok()),
    }
}

pub(super) fn start_delay(pod: &Pod) -> Option<Duration> {
    annotation(pod, START_DELAY, parse_duration)
}

pub(super) fn run_for(pod: &Pod) -> Option<Duration> {
    annotation(pod, RUN_FOR, parse_duration)
}

pub(super) fn kept_unready(pod: &Pod) -> bool {
    pod.annotations()
        .get(READY)
        .is_some_and(|value| value == "false")
}

pub(super) fn is_dead(annotations: &BTreeMap<String, String>) -> bool {
    annotations.get(DEAD).is_some_and(|value| value == "true")
}

/// Whether a container crashes at start: its image's tag is `broken`, or `CRASH=true`.
pub(super) fn crashes(container: &Container) -> bool {
    let image = container.image.as_deref().unwrap_or_default();
    let tagged = image.split('@').next().unwrap_or_default();
    let told = container.env.iter().flatten();
    tagged.ends_with(":broken")
        || told
            .into_iter()
            .any(|v| v.name == "CRASH" && v.value.as_deref() == Some("true"))
}

fn annotation<T>(pod: &Pod, name: &str, parse: impl Fn(&str) -> Option<T>) -> Option<T> {
    let text = pod.annotations().get(name)?;
    let parsed = parse(text);
    if parsed.is_none() {
        tracing::warn!(
            pod = pod.name_any(),
            annotation = name,
            value = text,
            "cannot be read"
        );
    }
    parsed
}

/// `800ms`, `1.5s`, `2m`.
pub(super) fn parse_duration(text: &str) -> Option<Duration> {
    let (number, seconds) = if let Some(number) = text.strip_suffix("ms") {
        (number, 0.001)
    } else if let Some(number) = text.strip_suffix('s') {
        (number, 1.0)
    } else {
        (text.strip_suffix('m')?, 60.0)
    };
    Duration::try_from_secs_f64(number.parse::<f64>().ok()? * seconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_durations_as_go_writes_them() {
        assert_eq!(parse_duration("800ms"), Some(Duration::from_millis(800)));
        assert_eq!(parse_duration("1.5s"), Some(Duration::from_millis(1500)));
        assert_eq!(parse_duration("2m"), Some(Duration::from_mins(2)));
        for bad in ["", "5", "-1s", "ms", "soon"] {
            assert_eq!(parse_duration(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_pod_answers_as_its_annotations_say_and_as_usual_without_them() {
        let annotated = |annotations: &[(&str, &str)]| {
            let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
            let mut pod = Pod::default();
            pod.metadata.annotations = Some(annotations.iter().map(own).collect());
            answer(&pod)
        };
        let usual = Answer {
            status: StatusCode::OK,
            latency: Duration::ZERO,
            capacity: None,
        };
        assert_eq!(annotated(&[]), usual);
        assert_eq!(
            annotated(&[(LATENCY, "80ms"), (CAPACITY, "8"), (STATUS, "503")]),
            Answer {
                status: StatusCode::SERVICE_UNAVAILABLE,
                latency: Duration::from_millis(80),
                capacity: NonZeroU32::new(8),
            }
        );
        for unreadable in ["0", "-1", "many", ""] {
            assert_eq!(annotated(&[(CAPACITY, unreadable)]), usual, "{unreadable}");
        }
    }

    #[test]
    fn a_broken_tag_crashes_and_a_name_with_broken_does_not() {
        let with_image = |image: &str| Container {
            image: Some(image.into()),
            ..Default::default()
        };
        assert!(crashes(&with_image("registry.example/app:broken")));
        assert!(crashes(&with_image("app:broken@sha256:00")));
        assert!(!crashes(&with_image("registry.example/broken:1.0")));
    }
}
