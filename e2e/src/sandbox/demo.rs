//! What there is to look at in a fresh sandbox, and the commands to look at it with.

use std::{fmt::Write, path::Path, time::Duration};

use anyhow::{Context, Result};
use kube::Client;
use tokio::time::{Instant, sleep};

use crate::province::{Guard, install};

/// A namespace and an App in all cities, then what protects the App.
const OBJECTS: [&str; 2] = [
    include_str!("demo.yaml"),
    include_str!("../../../docs/examples/protection.yaml"),
];

/// Time for an API server to serve a kind that was installed a moment ago, on a busy machine.
const SERVED: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(200);

/// Applies the demo objects at the hub; does not wait until they run.
pub(super) async fn apply(hub: &Client) -> Result<()> {
    for objects in OBJECTS {
        apply_all(hub, objects).await?;
    }
    Ok(())
}

async fn apply_all(hub: &Client, objects: &str) -> Result<()> {
    let end = Instant::now() + SERVED;
    loop {
        match install::apply(hub, objects).await {
            // An established kind is answered with 503 until the server has its handler.
            Err(error) if unavailable(&error) && Instant::now() < end => sleep(POLL).await,
            applied => return applied.context("apply the demo App"),
        }
    }
}

fn unavailable(error: &anyhow::Error) -> bool {
    let found = error.chain().find_map(|e| e.downcast_ref::<kube::Error>());
    matches!(found, Some(kube::Error::Api(status)) if status.code == 503)
}

/// The kubeconfig of the hub and some commands for it, then some for a city's own cluster and its guard, as
/// lines for a shell in any folder.
pub(super) fn commands(
    kubeconfig: &Path,
    jiuzhou: &Path,
    city: Option<&Path>,
    guard: Option<&Guard>,
) -> String {
    let mut text = format!("  export KUBECONFIG={}\n", quoted(kubeconfig));
    let folder = jiuzhou.parent().unwrap_or(Path::new("."));
    let mut commands = vec![
        format!("export PATH={}:\"$PATH\"", quoted(folder)),
        "kubectl wait --for=condition=Ready --timeout=1m -n demo japp/hello".to_owned(),
        "kubectl get japp,rg,mbc -n demo".to_owned(),
        "jiuzhou status".to_owned(),
        "jiuzhou explain app hello -n demo".to_owned(),
        "jiuzhou simulate --lose quzhou".to_owned(),
    ];
    if let Some(city) = city.map(quoted) {
        commands.push(format!("kubectl --kubeconfig {city} get pods -n demo"));
        commands.push(format!(
            "jiuzhou reach --kubeconfig {city} demo/hello demo/hello:8080"
        ));
    }
    if let Some(Guard { http, endpoint }) = guard {
        commands.push("kubectl get tp -n demo".to_owned());
        commands.push(format!("curl -H 'Host: hello.example' {http}/"));
        // More than one citizen may ask at once: the last ones are refused, with the rule's name.
        commands.push(format!(
            "for i in $(seq 15); do curl -H 'Host: hello.example' -H 'x-citizen: zhang' {http}/; echo; done"
        ));
        // Guards are no pods here, so they are named.
        commands.push(format!("jiuzhou protection --guard {}", endpoint.metrics));
    }
    for command in commands {
        // Writing into a String cannot fail.
        let _ = writeln!(text, "  {command}");
    }
    text
}

/// A path as one word of a shell.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_alphanumeric() || "/._-+".contains(c);
    if text.chars().all(plain) {
        text
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::province::Endpoint;

    #[test]
    fn a_path_with_blanks_and_quotes_is_one_word_of_a_shell() {
        let binary = Path::new("/it's here/jiuzhou");
        let guard = Guard {
            http: "http://127.20.0.1:10080".into(),
            endpoint: Endpoint {
                metrics: "http://127.20.0.2:9090/metrics".into(),
                pid: 1,
            },
        };
        let city = Path::new("/a/city");
        let text = commands(Path::new("/a/hub"), binary, Some(city), Some(&guard));
        assert!(text.starts_with("  export KUBECONFIG=/a/hub\n"), "{text}");
        assert!(
            text.contains(r#"  export PATH='/it'\''s here':"$PATH""#),
            "{text}"
        );
        assert!(text.contains("kubectl --kubeconfig /a/city get"), "{text}");
        let asked = "  curl -H 'Host: hello.example' http://127.20.0.1:10080/\n";
        assert!(text.contains(asked), "{text}");
        let guards = "  jiuzhou protection --guard http://127.20.0.2:9090/metrics\n";
        assert!(text.contains(guards), "{text}");
    }
}
