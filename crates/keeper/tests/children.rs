//! Starting, watching and ending children.

mod common;

use common::{TestKeeper, UID, await_gone, is_alive, spawn_keeper, status_of};
use serde_json::{Value, json};

#[test]
fn exits_keep_their_reasons() {
    let mut keeper = TestKeeper::start();
    keeper.spawn("vmm", &["/bin/sh", "-c", "echo out; echo err >&2; exit 7"]);
    let exit = keeper.client.ok(json!({"op": "wait", "role": "vmm", "timeout_ms": 5000}));
    assert_eq!(exit, json!({"code": 7, "signal": null}));
    let event = keeper.client.event();
    assert_eq!(event, json!({"event": "exit", "role": "vmm", "code": 7, "signal": null}));
    let logs = keeper.client.ok(json!({"op": "logs", "role": "vmm"}));
    assert_eq!(logs, json!({"text": "out\nerr\n", "dropped_bytes": 0}));

    keeper.spawn("vmm", &["/bin/sleep", "1000"]);
    let request = json!({"op": "wait", "role": "vmm", "timeout_ms": 10});
    assert_eq!(keeper.client.kind_of_error(request), "timeout");
    keeper.client.ok(json!({"op": "signal", "role": "vmm", "signal": "KILL"}));
    let exit = keeper.client.ok(json!({"op": "wait", "role": "vmm", "timeout_ms": 5000}));
    assert_eq!(exit, json!({"code": null, "signal": 9}));
    let status = keeper.client.ok(json!({"op": "status"}));
    assert_eq!(status["roles"]["vmm"]["running"], false);
    assert_eq!(status["roles"]["vmm"]["exit"]["signal"], 9);
}

#[test]
fn a_role_runs_once_at_a_time_and_a_missing_program_is_an_error() {
    let mut keeper = TestKeeper::start();
    keeper.spawn("pager", &["/bin/sleep", "1000"]);
    let again = json!({"op": "spawn", "role": "pager", "argv": ["/bin/sleep", "1"], "uid": UID, "gid": UID,
        "root": "host"});
    assert_eq!(keeper.client.kind_of_error(again), "invalid_state");
    let missing =
        json!({"op": "spawn", "role": "x", "argv": ["/nothing"], "uid": UID, "gid": UID, "root": "host"});
    let answer = keeper.client.call(missing);
    assert_eq!(answer["error"]["kind"], "internal");
    assert!(answer["error"]["message"].as_str().unwrap().contains("/nothing"), "{answer}");
    assert_eq!(keeper.client.kind_of_error(json!({"op": "logs", "role": "x"})), "not_found");
}

#[test]
fn a_child_has_no_privileges() {
    let mut keeper = TestKeeper::start();
    let plain = keeper.spawn("vmm", &["/bin/sleep", "1000"]);
    for name in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(status_of(plain, name), "0000000000000000", "{name}");
    }
    assert_eq!(status_of(plain, "Uid"), format!("{UID} {UID} {UID} {UID}"));
    assert_eq!(status_of(plain, "Gid"), format!("{UID} {UID} {UID} {UID}"));
    assert_eq!(status_of(plain, "Groups"), "");
    assert_eq!(status_of(plain, "NoNewPrivs"), "1");
    let limits = std::fs::read_to_string(format!("/proc/{plain}/limits")).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().filter(|word| *word == "0").count(), 2, "{core}");
    let fds = std::fs::read_dir(format!("/proc/{plain}/fd")).unwrap().count();
    assert_eq!(fds, 3, "only stdin, stdout and stderr are inherited");

    // Root's capabilities must not come back through uid 0 either.
    let request = json!({"op": "run", "argv": ["/bin/grep", "CapEff", "/proc/self/status"], "uid": 0, "gid": 0,
        "root": "host", "timeout_ms": 5000});
    let result = keeper.client.ok(request);
    assert_eq!(result["output"], "CapEff:\t0000000000000000\n");

    let ptrace = keeper.spawn_stand_in("pager", &["SYS_PTRACE"]);
    for name in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(status_of(ptrace, name), "0000000000080000", "{name}");
    }
}

#[test]
fn a_child_has_a_descriptor_for_each_build() {
    let mut keeper = TestKeeper::start();
    // A VMM that maps a memory of 256 builds has them and its own.
    let fds: Vec<Value> = (3..=269).map(|number| json!({"as": number, "tmpfile": 1})).collect();
    let many = keeper
        .client
        .ok(json!({"op": "spawn", "role": "many", "argv": ["/bin/sleep", "1000"], "uid": UID, "gid": UID,
        "root": "host", "fds": fds, "rlimits": {"nofile": 4096 + fds.len()}}));
    let inherited = std::fs::read_dir(format!("/proc/{}/fd", many["pid"])).unwrap().count();
    assert_eq!(inherited, 270);
    let beyond = json!({"op": "spawn", "role": "x", "argv": ["/bin/sleep", "1"], "uid": UID, "gid": UID, "root": "host",
        "fds": [{"as": 320, "tmpfile": 1}]});
    assert_eq!(keeper.client.kind_of_error(beyond), "invalid_request");
}

#[test]
fn runs_one_shot_commands() {
    let mut keeper = TestKeeper::start();
    let mut run = |script: &str, timeout_ms: u64| {
        keeper.client.call(json!({"op": "run", "argv": ["/bin/sh", "-c", script], "env": {"A": "b c"},
            "uid": UID, "gid": UID, "root": "host", "timeout_ms": timeout_ms}))
    };
    let answer = run("echo $A; pwd; umask; exit 3", 5000);
    assert_eq!(answer["result"], json!({"code": 3, "signal": null, "output": "b c\n/\n0077\n"}));
    let answer = run("exec sleep 1000", 20);
    assert_eq!(answer["error"]["kind"], "timeout");
}

#[test]
fn a_killed_keeper_takes_its_children_along() {
    let mut keeper = TestKeeper::start();
    let first = keeper.spawn("vmm", &["/bin/sleep", "1000"]);
    let second = keeper.spawn_stand_in("pager", &["SYS_PTRACE"]);
    assert!(is_alive(first) && is_alive(second));
    keeper.process.kill().unwrap();
    keeper.process.wait().unwrap();
    await_gone(first);
    await_gone(second);

    // What is left is a socket nobody listens on: the next keeper takes the folder over.
    let (mut process, mut client) = spawn_keeper(&keeper.dir);
    client.ok(json!({"op": "end"}));
    assert!(process.wait().unwrap().success());
}

#[test]
fn a_second_keeper_is_refused() {
    let mut keeper = TestKeeper::start();
    let second = std::process::Command::new(env!("CARGO_BIN_EXE_thaw-keeper"))
        .arg(&keeper.dir)
        .stderr(std::process::Stdio::null())
        .status()
        .unwrap();
    assert_eq!(second.code(), Some(1));
    keeper.client.ok(json!({"op": "status"}));
}

#[test]
fn end_leaves_nothing() {
    let mut keeper = TestKeeper::start();
    keeper.client.ok(json!({"op": "jail", "uid": UID, "devices": ["null"]}));
    let first = keeper.spawn("vmm", &["/bin/sleep", "1000"]);
    let second = keeper.spawn_stand_in("pager", &[]);
    let socket = keeper.dir.join("vmm/a.sock");
    keeper.client.ok(json!({"op": "ask", "role": "pager", "timeout_ms": 5000, "request": {"op": "count"},
        "fds": [{"listen": socket, "uid": UID, "mode": 0o600}]}));
    let receive = json!({"op": "receive", "socket": keeper.dir.join("vmm/s.sock"),
        "file": keeper.dir.join("state"), "uid": UID});
    keeper.client.ok(receive);
    keeper.client.ok(json!({"op": "end"}));
    assert!(keeper.process.wait().unwrap().success());
    assert!(!is_alive(first) && !is_alive(second));
    let mut left: Vec<_> =
        std::fs::read_dir(&keeper.dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["stand-in", "state", "vmm"]);
    assert_eq!(std::fs::read_dir(keeper.dir.join("vmm")).unwrap().count(), 0);
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(keeper.dir.to_str().unwrap()), "a mount of the keeper is visible to the host");
}

#[test]
fn a_jailed_child_sees_only_its_jail() {
    let mut keeper = TestKeeper::start();
    std::fs::write(keeper.dir.join("kernel"), "bytes").unwrap();
    let request = json!({"op": "jail", "uid": UID, "devices": ["null", "urandom", "net/tun"], "dirs": ["/mem"],
        "binds": [{"source": keeper.dir.join("kernel"), "target": "/boot/kernel", "ro": true}]});
    keeper.client.ok(request.clone());
    assert_eq!(keeper.client.kind_of_error(request), "invalid_state");
    let script = "ls /; ls -A /run /mem /tmp /root /dev/net; cat /boot/kernel; echo x > /mem/x && echo y > /run/y; \
        echo z > /boot/kernel; echo z > /usr/z; echo z > /z; head -c4 /dev/urandom | wc -c; echo null > /dev/null";
    let result =
        keeper.client.ok(json!({"op": "run", "argv": ["/bin/sh", "-c", script], "env": {"PATH": "/bin"},
        "uid": UID, "gid": UID, "root": "jail", "timeout_ms": 10_000}));
    let output = result["output"].as_str().unwrap();
    let root: Vec<_> = output.lines().take_while(|line| !line.contains(':')).collect();
    let allowed = ["bin", "boot", "dev", "etc", "lib", "lib64", "mem", "run", "sbin", "usr"];
    assert!(root.iter().all(|name| name.is_empty() || allowed.contains(name)), "{output}");
    assert!(output.contains("bytes"), "{output}");
    assert_eq!(output.matches("cannot create").count(), 3, "{output}");
    assert!(output.trim_end().ends_with('4'), "{output}");
    assert_eq!(std::fs::read_to_string(keeper.dir.join("vmm/y")).unwrap(), "y\n");

    let escape = json!({"op": "jail", "uid": UID, "dirs": ["/../x"]});
    assert_eq!(TestKeeper::start().client.kind_of_error(escape), "internal");
    let pid = {
        let request = json!({"op": "spawn", "role": "vmm", "argv": ["/bin/sleep", "1000"], "uid": UID, "gid": UID,
            "root": "jail"});
        common::pid_of(&keeper.client.ok(request))
    };
    let mounts = std::fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap();
    let points: Vec<_> = mounts.lines().filter_map(|line| line.split(' ').nth(4)).collect();
    let own = ["/", "/boot/kernel", "/dev", "/etc/ld.so.cache", "/run", "/usr"];
    let system = ["/bin", "/sbin", "/lib", "/lib64"];
    assert!(points.iter().all(|point| own.contains(point) || system.contains(point)), "{mounts}");
    assert_eq!(points.iter().filter(|point| **point == "/").count(), 1, "{mounts}");
    let namespace = |pid: &str, name: &str| std::fs::read_link(format!("/proc/{pid}/ns/{name}")).unwrap();
    for name in ["mnt", "ipc", "uts"] {
        assert_ne!(namespace(&pid.to_string(), name), namespace(&keeper.pid().to_string(), name), "{name}");
    }
}

#[test]
fn stand_in_child() {
    serve_stand_in();
}

/// Not a test unless a keeper started it: a child that answers on the control channel.
fn serve_stand_in() {
    if std::env::var_os("STAND_IN").is_none() {
        return;
    }
    let channel = thaw_control::child_channel();
    thaw_control::serve(&channel, |request| match request.op.as_str() {
        "count" => Ok(json!({})),
        other => Err(thaw_control::ControlError::invalid(other)),
    })
    .unwrap();
}
