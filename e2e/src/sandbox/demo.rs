//! What there is to look at in a fresh sandbox, and the commands to look at it with.

use std::{fmt::Write, path::Path, time::Duration};

use anyhow::{Context, Result};
use kube::Client;
use tokio::time::{Instant, sleep};

use crate::province::install;

/// A namespace and an App in all cities.
const OBJECTS: &str = include_str!("demo.yaml");

/// Time for an API server to serve a kind that was installed a moment ago, on a busy machine.
const SERVED: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(200);

/// Applies the demo objects at the hub; does not wait until they run.
pub(super) async fn apply(hub: &Client) -> Result<()> {
    let end = Instant::now() + SERVED;
    loop {
        match install::apply(hub, OBJECTS).await {
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

/// The kubeconfig of the hub and five commands, as lines for a shell in any folder.
pub(super) fn commands(kubeconfig: &Path, jiuzhou: &Path) -> String {
    let jiuzhou = quoted(jiuzhou);
    let mut text = format!("  export KUBECONFIG={}\n", quoted(kubeconfig));
    for command in [
        "kubectl wait --for=condition=Ready --timeout=1m -n demo japp/hello",
        "kubectl get japp,rg,mbc -n demo",
        &format!("{jiuzhou} status"),
        &format!("{jiuzhou} explain app hello -n demo"),
        &format!("{jiuzhou} simulate --lose quzhou"),
    ] {
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

    #[test]
    fn a_path_with_blanks_and_quotes_is_one_word_of_a_shell() {
        let text = commands(Path::new("/a/hub"), Path::new("/it's here/jiuzhou"));
        assert!(text.starts_with("  export KUBECONFIG=/a/hub\n"), "{text}");
        assert!(text.contains(r"  '/it'\''s here/jiuzhou' status"), "{text}");
        assert_eq!(text.lines().count(), 6);
    }
}
