//! Commands that need no cluster: exit codes, messages, formats.

mod protection;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn jiuzhou(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_jiuzhou"))
        .args(arguments)
        .env_remove("KUBECONFIG")
        .env("HOME", "/nonexistent")
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn examples(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../crds/examples")
        .join(folder)
}

#[test]
fn a_usage_error_exits_with_64_and_says_how_to_go_on() {
    for arguments in [
        &["simulat"][..],
        &["explain", "app"],
        &["explain", "quota", "x"],
        &["lint"],
        &["agent", "--cluster", "Not_a_name", "--hub-kubeconfig", "x"],
        &["effective"],
        &["effective", "service/x"],
        &["protection", "--guard", "127.0.0.1:9090"],
        &["protection", "--service", "guards"],
    ] {
        let output = jiuzhou(arguments);
        assert_eq!(
            output.status.code(),
            Some(64),
            "{arguments:?}: {}",
            text(&output.stderr)
        );
        assert!(
            text(&output.stderr).contains("--help"),
            "{}",
            text(&output.stderr)
        );
    }
}

#[test]
fn help_is_no_error() {
    let output = jiuzhou(&["--help"]);
    assert_eq!(output.status.code(), Some(0));
    for command in [
        "hub",
        "agent",
        "status",
        "capacity",
        "explain",
        "simulate",
        "protection",
        "effective",
        "lint",
        "crds",
    ] {
        assert!(
            text(&output.stdout).contains(command),
            "{command} is missing from the help"
        );
    }
}

#[test]
fn as_a_plugin_of_kubectl_it_names_itself_so() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("plugin");
    std::fs::create_dir_all(&folder).unwrap();
    let plugin = folder.join("kubectl-jiuzhou");
    // What an earlier run left there would be in the way.
    let _absent = std::fs::remove_file(&plugin);
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_jiuzhou"), &plugin).unwrap();
    let output = Command::new(&plugin)
        .args(["status", "--help"])
        .output()
        .unwrap();
    assert!(
        text(&output.stdout).contains("Usage: kubectl jiuzhou status"),
        "{}",
        text(&output.stdout)
    );
}

#[test]
fn crds_prints_exactly_the_committed_yaml() {
    let printed = text(&jiuzhou(&["crds"]).stdout);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crds/yaml");
    for entry in std::fs::read_dir(folder).unwrap() {
        let yaml = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        assert!(
            printed.contains(yaml.trim()),
            "a CRD is missing from the output"
        );
    }
}

#[test]
fn lint_finds_nothing_in_the_good_examples_and_something_in_each_bad_one() {
    let good = examples("good");
    let output = jiuzhou(&["lint", "-f", good.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stdout));
    let bad = examples("bad");
    let output = jiuzhou(&["lint", "-o", "json", "-f", bad.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let file = |finding: &serde_json::Value| PathBuf::from(finding["file"].as_str().unwrap());
    let findings = report["findings"].as_array().unwrap();
    let found: BTreeSet<PathBuf> = findings.iter().map(file).collect();
    let all = std::fs::read_dir(&bad).unwrap();
    let all: BTreeSet<PathBuf> = all.map(|entry| entry.unwrap().path()).collect();
    assert_eq!(found, all);
}

#[test]
fn lint_answers_programs_in_json_with_kind_and_version() {
    let bad = examples("bad").join("app-without-zone.yaml");
    let output = jiuzhou(&["lint", "-o", "json", "-f", bad.to_str().unwrap()]);
    let value: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (value["kind"].as_str(), value["apiVersion"].as_str()),
        (Some("LintReport"), Some("cli.jiuzhou.io/v1"))
    );
    assert_eq!(value["findings"][0]["kind"], "App");
}

#[test]
fn without_a_kubeconfig_the_message_says_what_to_set() {
    let output = jiuzhou(&["status"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output.stderr).contains("KUBECONFIG"),
        "{}",
        text(&output.stderr)
    );
}

#[test]
fn nothing_is_coloured_when_it_does_not_go_to_a_terminal() {
    let bad = examples("bad").join("app-without-zone.yaml");
    let output = jiuzhou(&["lint", "-f", bad.to_str().unwrap()]);
    assert!(!output.stdout.contains(&0x1b));
}

#[test]
fn a_reader_that_has_enough_is_no_error() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_jiuzhou"))
        .arg("crds")
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    // More is to come than a pipe holds.
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(
        (output.status.code(), text(&output.stderr)),
        (Some(0), String::new())
    );
}

/// What a terminal gets to see of a command.
fn on_a_terminal(command: &mut Command) -> String {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    use std::io::Read as _;
    let screen = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&screen).unwrap();
    unlockpt(&screen).unwrap();
    let name = ptsname(&screen, Vec::new()).unwrap();
    let terminal = std::fs::File::options()
        .read(true)
        .write(true)
        .open(name.to_str().unwrap())
        .unwrap();
    let mut child = command.stdout(terminal).spawn().unwrap();
    // The last hold on the terminal goes with the child: then reading ends, with an error.
    command.stdout(std::process::Stdio::null());
    let mut shown = Vec::new();
    let _ends = std::fs::File::from(screen).read_to_end(&mut shown);
    child.wait().unwrap();
    text(&shown)
}

#[test]
fn on_a_terminal_there_are_colours_unless_somebody_wants_none() {
    let bad = examples("bad").join("app-without-zone.yaml");
    let lint = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_jiuzhou"));
        command
            .arg("lint")
            .arg("-f")
            .arg(&bad)
            .env_remove("NO_COLOR");
        command
    };
    let shown = on_a_terminal(&mut lint());
    assert!(
        shown.contains("\u{1b}[") && shown.contains("zone"),
        "{shown}"
    );
    let plain = on_a_terminal(lint().env("NO_COLOR", "1"));
    assert!(
        !plain.contains('\u{1b}') && plain.contains("zone"),
        "{plain}"
    );
}

#[test]
fn several_files_in_kubeconfig_are_read_together_as_kubectl_does() {
    let folder = std::env::temp_dir().join(format!("jiuzhou-cli-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    // Nothing listens on port 1: the command gets as far as the connection.
    let cluster = write(
        "cluster",
        "{apiVersion: v1, kind: Config, clusters: [{name: k, cluster: {server: 'http://127.0.0.1:1'}}]}",
    );
    let context = write(
        "context",
        "{apiVersion: v1, kind: Config, current-context: c, users: [{name: u, user: {token: t}}], \
         contexts: [{name: c, context: {cluster: k, user: u}}]}",
    );
    let output = Command::new(env!("CARGO_BIN_EXE_jiuzhou"))
        .arg("status")
        .env(
            "KUBECONFIG",
            std::env::join_paths([cluster, context]).unwrap(),
        )
        .output()
        .unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
    let error = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{error}");
    let expected = "cannot reach the API server at http://127.0.0.1:1 (";
    assert!(error.contains(expected), "{error}");
}

#[test]
fn lint_of_a_folder_without_manifests_fails_and_says_what_was_looked_for() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("no-manifests");
    std::fs::create_dir_all(folder.join("below")).unwrap();
    std::fs::write(folder.join("below/README.md"), "nothing here").unwrap();
    let good = examples("good");
    let (good, empty) = (good.to_str().unwrap(), folder.to_str().unwrap());
    for arguments in [
        &["lint", "-f", empty][..],
        &["lint", "-f", good, "-f", empty],
    ] {
        let output = jiuzhou(arguments);
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{error}");
        assert!(error.contains(empty), "{error}");
        assert!(error.contains(".yaml, .yml, .json"), "{error}");
    }
}

#[test]
fn a_lint_counts_as_people_do() {
    let bad = examples("bad").join("app-without-zone.yaml");
    let output = jiuzhou(&["lint", "-f", bad.to_str().unwrap()]);
    let said = text(&output.stdout);
    assert!(said.ends_with("1 file, 1 finding\n"), "{said}");
}

#[test]
fn the_help_fits_into_a_hundred_columns() {
    for command in [
        "status",
        "capacity",
        "explain",
        "simulate",
        "protection",
        "effective",
        "lint",
    ] {
        for help in ["-h", "--help"] {
            let said = text(&jiuzhou(&[command, help]).stdout);
            let widest = said.lines().map(str::len).max().unwrap_or(0);
            assert!(widest <= 100, "{command} {help}: {widest}\n{said}");
        }
    }
}

#[test]
fn a_guard_without_a_source_of_its_configuration_is_told_of_both() {
    let output = jiuzhou(&["guard", "serve"]);
    let error = text(&output.stderr);
    assert_eq!(output.status.code(), Some(64), "{error}");
    assert!(error.contains("--configuration"), "{error}");
    assert!(error.contains("--control"), "{error}");
}

#[test]
fn lint_reads_standard_input() {
    let bad = std::fs::File::open(examples("bad").join("app-without-zone.yaml")).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_jiuzhou"))
        .args(["lint", "-f", "-"])
        .stdin(bad)
        .output()
        .unwrap();
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.ends_with("1 file, 1 finding\n"), "{said}");
}
