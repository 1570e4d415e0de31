//! Descriptors and questions for children, the received stream, and callers that make no sense.

mod common;

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use common::{Client, TestKeeper, UID};
use serde_json::{Value, json};

#[test]
fn brokers_descriptors_through_ask() {
    let mut keeper = TestKeeper::start();
    let pid = keeper.spawn_stand_in("pager", &[]);
    let secret = keeper.dir.join("secret");
    std::fs::write(&secret, "only root can open this").unwrap();
    let mut ask = |request: Value, fds: Value| {
        keeper
            .client
            .call(json!({"op": "ask", "role": "pager", "request": request, "fds": fds, "timeout_ms": 5000}))
    };
    let answer =
        ask(json!({"op": "read", "file": 1}), json!([{"tmpfile": 8192}, {"open": secret, "flags": "r"}]));
    assert_eq!(answer["result"], json!({"text": "only root can open this"}), "{answer}");
    let answer = ask(json!({"op": "read", "file": 0}), json!([{"tmpfile": 5}]));
    assert_eq!(answer["result"]["text"], "\0\0\0\0\0");
    let answer = ask(json!({"op": "read", "file": 4}), json!([]));
    assert_eq!(answer["error"]["kind"], "invalid_request");
    let answer = ask(json!({"op": "read", "file": 0}), json!([{"open": "/nothing", "flags": "r"}]));
    assert_eq!(answer["error"]["kind"], "not_found");
    let answer = ask(json!({"op": "read", "file": 0}), json!([{"fuse": "/tmp/x"}]));
    assert_eq!(answer["error"]["kind"], "invalid_state");
    let answer = ask(json!({"op": "read", "file": 0}), json!([{"kept": "pager.handshake"}]));
    assert_eq!(answer["error"]["kind"], "not_found");
    let made = keeper.dir.join("made");
    let mut create = |kind: &str| {
        let fds = json!([{"open": made, "flags": "create"}]);
        let answer =
            keeper.client.call(json!({"op": "ask", "role": "pager", "request": {"op": "read", "file": 0},
            "fds": fds, "timeout_ms": 5000}));
        assert_eq!(answer["error"]["kind"].as_str().unwrap_or("none"), kind, "{answer}");
    };
    create("none");
    create("internal");

    // A descriptor that comes with an event is kept, and can be handed out again.
    let request = json!({"op": "ask", "role": "pager", "request": {"op": "shake"}, "timeout_ms": 5000});
    keeper.client.ok(request);
    let event = keeper.client.event();
    assert_eq!(
        event,
        json!({"event": "child", "role": "pager", "body": {"event": "handshake", "regions": 1}})
    );
    assert_eq!(keeper.client.ok(json!({"op": "status"}))["kept"], json!(["pager.handshake"]));
    let request = json!({"op": "ask", "role": "pager", "request": {"op": "read", "file": 0}, "timeout_ms": 5000,
        "fds": [{"kept": "pager.handshake"}]});
    assert_eq!(keeper.client.ok(request)["text"], "from the child");
    let open = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    assert!(open < 10, "the child holds {open} descriptors");
}

#[test]
fn questions_overlap_and_end() {
    let mut keeper = TestKeeper::start();
    keeper.spawn_stand_in("pager", &[]);
    let ask = |op: &str, timeout_ms: u64| json!({"op": "ask", "role": "pager", "request": {"op": op}, "timeout_ms": timeout_ms});
    let mut second = Client::new(UnixStream::connect(keeper.dir.join("keeper.sock")).unwrap());
    assert_eq!(keeper.client.kind_of_error(ask("slow", 10)), "timeout");
    let slow = keeper.client.begin(ask("slow", 5000));
    second.ok(json!({"op": "status"}));
    assert_eq!(second.ok(ask("fast", 5000)), json!({}));
    assert_eq!(keeper.client.answer(slow)["ok"], true);
    let dies = keeper.client.call(ask("die", 5000));
    assert_eq!(dies["error"]["kind"], "unavailable");
    assert_eq!(keeper.client.kind_of_error(ask("fast", 5000)), "unavailable");
    assert_eq!(second.event()["event"], "exit");
}

#[test]
fn receives_from_the_right_user_only() {
    let mut keeper = TestKeeper::start();
    keeper.client.ok(json!({"op": "jail", "uid": UID, "devices": ["null"]}));
    let (socket, file) = (keeper.dir.join("vmm/save.sock"), keeper.dir.join("vmstate"));
    let request = json!({"op": "receive", "socket": socket, "file": file, "uid": UID});
    keeper.client.ok(request.clone());
    let waiting = keeper.client.begin(json!({"op": "received", "timeout_ms": 10_000}));

    // This test is root, not the sandbox's user: hung up on without a byte taken.
    let mut wrong = UnixStream::connect(&socket).unwrap();
    let _ = wrong.write_all(b"lies");
    assert_eq!(wrong.read(&mut [0]).unwrap_or(0), 0);

    let script = "use IO::Socket::UNIX; my $s = IO::Socket::UNIX->new(Peer => '/run/save.sock') or die $!; \
        print $s 'x' x 300000; close $s";
    let argv = ["/usr/bin/perl", "-e", script];
    let sent =
        json!({"op": "run", "argv": argv, "uid": UID, "gid": UID, "root": "jail", "timeout_ms": 10_000});
    let result = keeper.client.ok(sent);
    assert_eq!(result["code"], 0, "{result}");
    assert_eq!(keeper.client.answer(waiting)["result"], json!({"size_bytes": 300_000}));
    assert_eq!(std::fs::read(&file).unwrap(), vec![b'x'; 300_000]);
    assert!(!socket.exists());
    // Never over an existing file.
    assert_eq!(keeper.client.kind_of_error(request), "internal");
}

#[test]
fn nonsense_is_answered_or_hung_up_on() {
    let mut keeper = TestKeeper::start();
    let connect = || Client::new(UnixStream::connect(keeper.dir.join("keeper.sock")).unwrap());
    let lines = [
        "not json",
        "[]",
        "42",
        "{}",
        r#"{"id":1}"#,
        r#"{"op":7}"#,
        "\u{0}\u{1}",
        r#"{"op":"no-such"}"#,
        r#"{"op":"spawn"}"#,
        r#"{"op":"spawn","role":"x","argv":[],"uid":1,"gid":1,"root":"host"}"#,
        r#"{"op":"spawn","role":"x","argv":["sh"],"uid":1,"gid":1,"root":"host"}"#,
        r#"{"op":"spawn","role":"x","argv":["/bin/sh"],"uid":-1,"gid":1,"root":"host"}"#,
        r#"{"op":"spawn","role":"x","argv":["/bin/sh"],"uid":1,"gid":1,"root":"jail"}"#,
        r#"{"op":"spawn","role":"x","argv":["/bin/sh"],"uid":1,"gid":1,"root":"host","fds":[{"as":1,"tmpfile":1}]}"#,
        r#"{"op":"spawn","role":"x","argv":["/bin/sh"],"uid":1,"gid":1,"root":"host","caps":["SYS_ADMIN"]}"#,
        r#"{"op":"wait","role":"nobody","timeout_ms":1}"#,
        r#"{"op":"received","timeout_ms":1}"#,
    ];
    let mut client = connect();
    for line in lines {
        writeln!(client.stream, "{line}").unwrap();
        assert_eq!(client.frame()["ok"], false, "{line}");
    }
    let mut client = connect();
    let huge = vec![b'a'; 3 << 20];
    let _ = client.stream.write_all(&huge);
    let mut rest = String::new();
    let _ = client.stream.read_to_string(&mut rest);
    assert!(rest.is_empty() || rest.contains("too long"), "{rest}");
    let mut client = connect();
    client.stream.write_all(br#"{"op":"sta"#).unwrap();
    drop(client);
    keeper.client.ok(json!({"op": "status"}));
}

#[test]
fn measures_the_counter() {
    let output =
        Command::new(env!("CARGO_BIN_EXE_thaw-keeper")).arg("tsc").stderr(Stdio::inherit()).output().unwrap();
    let khz: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(khz["tsc_khz"].as_u64().unwrap() > 100_000, "{khz}");
}

/// Not a test unless a keeper started it: a child that answers on the control channel.
#[test]
fn stand_in_child() {
    if std::env::var_os("STAND_IN").is_none() {
        return;
    }
    let channel = thaw_control::child_channel();
    let events = &channel;
    thaw_control::serve(&channel, |mut request| {
        match request.op.as_str() {
            "fast" => {}
            "slow" => std::thread::sleep(std::time::Duration::from_millis(200)),
            "die" => std::process::exit(3),
            "shake" => {
                let (mut reader, mut writer) = UnixStream::pair()?;
                writer.write_all(b"from the child")?;
                reader.flush()?;
                drop(writer);
                let event = json!({"event": "handshake", "regions": 1});
                events.send(&event, &[std::os::fd::AsFd::as_fd(&reader)])?;
            }
            "read" => {
                let index = usize::try_from(request.json["file"].as_u64().unwrap()).unwrap();
                let mut file = File::from(request.take_fd(index)?);
                let mut text = String::new();
                let _ = file.rewind();
                file.read_to_string(&mut text)?;
                return Ok(json!({"text": text}));
            }
            other => return Err(thaw_control::ControlError::invalid(other)),
        }
        Ok(json!({}))
    })
    .unwrap();
}
