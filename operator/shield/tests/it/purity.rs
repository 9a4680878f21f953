//! The crate that decides cannot do I/O: nothing it depends on can.

use std::process::Command;

const BANNED: [&str; 8] = [
    "tokio",
    "hyper",
    "kube-client",
    "kube-runtime",
    "reqwest",
    "mio",
    "socket2",
    "rand",
];

#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "the test asks Cargo; the shield starts nothing"
)]
fn nothing_the_shield_depends_on_does_io_runs_tasks_or_draws_numbers() {
    let tree = Command::new(env!("CARGO"))
        .args([
            "tree",
            "--package",
            "shield",
            "--edges",
            "normal",
            "--prefix",
            "none",
        ])
        .args(["--format", "{p}", "--offline", "--locked"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    let tree = String::from_utf8(tree.stdout).unwrap();
    let crates: Vec<&str> = tree
        .lines()
        .filter_map(|line| line.split(' ').next())
        .collect();
    assert!(
        crates.contains(&"shield") && crates.contains(&"serde"),
        "the tree is that of the shield"
    );
    for banned in BANNED {
        assert!(!crates.contains(&banned), "shield depends on {banned}");
    }
}
