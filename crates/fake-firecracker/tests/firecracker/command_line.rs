//! Arguments, versions, exit codes.

use std::fs::File;
use std::process::{Command, Output};

use crate::support::folder::Folder;
use crate::support::vmm::{PROGRAM, Vmm};

fn run(folder: &Folder, args: &[&str]) -> Output {
    Command::new(PROGRAM)
        .args(args)
        .current_dir(folder)
        .env_remove("FAKE_FIRECRACKER_VERSION")
        .output()
        .unwrap()
}

fn first_line(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().to_owned()
}

#[test]
fn versions_are_printed_before_a_log_line() {
    let folder = Folder::new();
    let output = run(&folder, &["--version"]);
    assert_eq!((first_line(&output).as_str(), output.status.code()), ("Firecracker v1.17.0-dev", Some(0)));
    assert_eq!(output.stdout.iter().filter(|byte| **byte == b'\n').count(), 2);
    assert_eq!(first_line(&run(&folder, &["--snapshot-version"])), "v11.0.0");
    let older =
        Command::new(PROGRAM).arg("--version").env("FAKE_FIRECRACKER_VERSION", "1.9.0").output().unwrap();
    assert_eq!(first_line(&older), "Firecracker v1.9.0");
}

#[test]
fn a_snapshot_is_described() {
    let folder = Folder::new();
    let vmm = Vmm::spawn(&folder, "vmm", None);
    vmm.configure();
    vmm.start();
    vmm.snapshot("Full", "snap");
    assert_eq!(first_line(&run(&folder, &["--describe-snapshot", "snap"])), "v11.0.0");
    assert_eq!(run(&folder, &["--describe-snapshot", "vmlinux"]).status.code(), Some(1));
}

#[test]
fn wrong_arguments_are_refused() {
    let folder = Folder::new();
    for args in [["--nonsense"].as_slice(), &["--no-api"], &["--api-sock"], &["--id", "a_b"]] {
        assert_eq!(run(&folder, args).status.code(), Some(153), "{args:?}");
    }
}

#[test]
fn a_socket_that_is_there_is_not_taken() {
    let folder = Folder::new();
    File::create(folder.file("a.sock")).unwrap();
    let output = run(&folder, &["--api-sock", "a.sock", "--id", "a-b", "--no-seccomp"]);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        text.contains("Failed to open the API socket at: a.sock. Check that it is not already used."),
        "{text}"
    );

    let vmm = Vmm::spawn(&folder, "killed", None);
    drop(vmm);
    assert!(folder.file("killed.sock").exists(), "a killed one leaves its socket");
}
