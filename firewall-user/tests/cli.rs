//! The binary as a shell sees it: exit codes and closed pipes.

use std::process::{Command, Output, Stdio};

fn portcullis(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
    command.args(arguments).env_remove("PORTCULLIS_INSTANCE");
    command
}

fn text(output: &Output) -> (Option<i32>, String, String) {
    (
        output.status.code(),
        String::from_utf8_lossy(&output.stdout).into_owned(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

#[test]
fn without_an_agent_the_exit_code_is_3() {
    for arguments in [
        &["status"][..],
        &["status", "--json"],
        &["reload"],
        &["bans"],
        &["lists"],
        &["confirm"],
        &["ban", "203.0.113.7"],
        &["unban", "203.0.113.7"],
    ] {
        let output = portcullis(arguments).args(["--instance", "no-such-instance"]).output().unwrap();
        let expected = "portcullis: no agent is running at /run/no-such-instance/control.sock\n";
        assert_eq!(text(&output), (Some(3), String::new(), expected.to_owned()), "{arguments:?}");
    }
}

#[test]
fn the_environment_names_the_instance() {
    let output = portcullis(&["status"]).env("PORTCULLIS_INSTANCE", "from-environment").output().unwrap();
    assert!(text(&output).2.contains("/run/from-environment/control.sock"));
    let output = portcullis(&["status"]).env("PORTCULLIS_INSTANCE", "../etc").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn wrong_input_exits_with_2_before_anything_is_asked() {
    for arguments in [&["ban", "203.0.113.7/24"][..], &["ban", "203.0.113.7", "--for", "never"], &["nonsense"], &[]] {
        assert_eq!(portcullis(arguments).output().unwrap().status.code(), Some(2), "{arguments:?}");
    }
}

#[test]
fn a_closed_pipe_is_no_failure() {
    for arguments in [&["version"][..], &["version", "--json"], &["completions", "bash"], &["--help"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = portcullis(arguments).stdout(writer).stderr(Stdio::piped()).output().unwrap();
        assert_eq!(text(&output), (Some(0), String::new(), String::new()), "{arguments:?}");
    }
}

#[test]
fn a_full_disk_is_one() {
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = portcullis(&["version"]).stdout(full).stderr(Stdio::piped()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn the_version_is_json_on_request() {
    let output = portcullis(&["version", "--json"]).output().unwrap();
    let version: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(version["version"], env!("CARGO_PKG_VERSION"));
}

#[test]
fn check_tells_of_a_group_that_does_not_exist() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("portcullis.toml");
    std::fs::write(&path, "interfaces = [\"eth0\"]\ncontrol.group = \"no-such-group\"\n").unwrap();
    let output = portcullis(&["check", "--config"]).arg(&path).output().unwrap();
    let (code, said, _) = text(&output);
    assert!(code == Some(0) && said.contains("warning: there is no group `no-such-group`"), "{said}");
}
