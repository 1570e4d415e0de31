//! Programs with a terminal, and input as a stream, against the real binary.

mod common;

use std::fs;
use std::thread;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use common::{Envd, Event, basic, shell, wait_until};
use serde_json::{Value, json};

fn terminal(script: &str) -> Value {
    let mut message = shell(script, false);
    message["pty"] = json!({ "size": { "cols": 101, "rows": 31 } });
    message
}

fn keys(pid: u32, keys: &str) -> Value {
    json!({ "process": { "pid": pid }, "input": { "pty": BASE64_STANDARD.encode(keys) } })
}

/// Reads the terminal until it has shown `wanted`; returns all of it.
fn shown(events: &mut common::Events, wanted: &str) -> String {
    let mut text = String::new();
    while !text.contains(wanted) {
        match events.next_event() {
            Some(Event::Pty(bytes)) => text += &String::from_utf8_lossy(&bytes),
            other => panic!("{other:?} after {text:?}"),
        }
    }
    text
}

#[test]
fn a_terminal_is_the_programs_own() {
    let envd = Envd::start("terminal");
    let script = "tty; stty size; echo $TERM; echo err >&2; stat -c '%U %a' $(tty); ps -o sid=,tpgid= -p $$; \
                  echo again > $(tty); exit 4";
    let outcome = envd.stream("Start", terminal(script), &[("authorization", &basic("nobody"))]).finish();
    let text = String::from_utf8(outcome.pty).unwrap();
    let lines: Vec<&str> = text.split("\r\n").map(str::trim).collect();
    assert!(lines[0].starts_with("/dev/pts/"), "{text}");
    assert_eq!(lines[1..5], ["31 101", "xterm-256color", "err", "nobody 620"]);
    let ids: Vec<u32> = lines[5].split_whitespace().map(|id| id.parse().unwrap()).collect();
    assert_eq!(ids, [outcome.pid, outcome.pid], "leader of the session and in the foreground");
    assert_eq!((lines[6], &outcome.end["exitCode"]), ("again", &json!(4)));
    assert!(outcome.stdout.is_empty() && outcome.stderr.is_empty());

    let mut message = terminal("echo $TERM");
    message["process"]["envs"] = json!({ "TERM": "dumb" });
    message["pty"] = json!({});
    assert_eq!(envd.stream("Start", message, &[]).finish().pty, b"dumb\r\n");
}

#[test]
fn a_shell_is_typed_into_and_told_its_size() {
    let envd = Envd::start("typed");
    let mut message = terminal("");
    message["process"] =
        json!({ "cmd": "/bin/bash", "args": ["--norc", "-i"], "cwd": "/", "envs": { "PS1": "> " } });
    let mut events = envd.stream("Start", message, &[]);
    let pid = events.pid();
    let mut also = envd.stream("Connect", json!({ "process": { "pid": pid } }), &[]);
    assert_eq!(also.pid(), pid);
    let typed = |text: &str| assert_eq!(envd.call("SendInput", keys(pid, text)).status, 200);
    typed("trap 'echo size is $(stty size)' WINCH; echo rea''dy\n");
    shown(&mut events, "ready\r\n");
    let update = |size: Value| {
        let message = json!({ "process": { "pid": pid }, "pty": { "size": size } });
        envd.call("Update", message).status
    };
    assert_eq!(update(json!({ "cols": 77, "rows": 22 })), 200);
    shown(&mut events, "size is 22 77");
    // Ctrl-C reaches what runs in the foreground.
    typed("sh -c 'echo at-\"\"work; exec sleep 600'\n");
    shown(&mut events, "at-work");
    typed("\u{3}");
    typed("echo on''ward\n");
    shown(&mut events, "onward");
    shown(&mut also, "onward");
    let list = envd.call("List", json!({})).json();
    assert_eq!(list["processes"][0]["pid"], pid);

    let wrong = json!({ "process": { "pid": pid }, "input": { "stdin": "eA==" } });
    let answer = envd.call("SendInput", wrong);
    assert_eq!((answer.status, answer.json()["code"].as_str()), (500, Some("internal")));
    let answer = envd.call("CloseStdin", json!({ "process": { "pid": pid } }));
    assert_eq!((answer.status, answer.json()["code"].as_str()), (500, Some("unknown")));
    typed("exit 7\n");
    assert_eq!(events.finish().end["exitCode"], 7);
    assert_eq!(also.finish().end["exitCode"], 7);
    assert_eq!(envd.call("Update", json!({ "process": { "pid": pid } })).status, 404);
    let mut plain = envd.shell("sleep 600", &[]);
    let message = json!({ "process": { "pid": plain.pid() }, "pty": { "size": { "cols": 1, "rows": 1 } } });
    assert_eq!(envd.call("Update", message).status, 500);
}

#[test]
fn the_end_of_a_terminal_hangs_up_on_those_who_stay() {
    let envd = Envd::start("hang-up");
    let told = envd.path("told");
    let stays = format!("(trap 'echo hup > {told}; exit' HUP; echo stays; while :; do sleep 0.02; done)");
    // In the foreground of the terminal when its leader is killed.
    let mut events = envd.stream("Start", terminal(&stays), &[]);
    let pid = events.pid();
    shown(&mut events, "stays");
    let kill = json!({ "process": { "pid": pid }, "signal": "SIGNAL_SIGKILL" });
    assert_eq!(envd.call("SendSignal", kill).status, 200);
    assert_eq!(events.finish().end["status"], "signal: killed");
    wait_until("it was hung up on", || fs::exists(&told).unwrap());
    let terminals = || {
        let fds = fs::read_dir(format!("/proc/{}/fd", envd.child.id())).unwrap().flatten();
        fds.filter(|fd| fs::read_link(fd.path()).is_ok_and(|to| to.ends_with("ptmx"))).count()
    };
    wait_until("the terminal is closed", || terminals() == 0);
    // One that holds the terminal open does not hold up the end.
    let outcome = envd.stream("Start", terminal("trap '' HUP; sleep 600 & exit 0"), &[]).finish();
    assert_eq!(outcome.end["exitCode"], 0);
    // But what was written before it is told whole.
    let outcome = envd.stream("Start", terminal("seq 20000"), &[]).finish();
    assert!(outcome.pty.ends_with(b"\r\n20000\r\n") && outcome.pty.len() > 100_000);
}

#[test]
fn a_slow_reader_stops_what_floods_its_terminal() {
    let envd = Envd::start("flood");
    let mut events = envd.stream("Start", terminal("stty raw; exec cat /dev/zero"), &[]);
    let pid = events.pid();
    let read = || {
        let io = fs::read_to_string(format!("/proc/{pid}/io")).unwrap_or_default();
        io.lines().next().unwrap_or_default().to_string()
    };
    wait_until("it stands still", || {
        let before = read();
        thread::sleep(Duration::from_millis(300));
        before == read() && before.len() > "rchar: 10000".len()
    });
    assert!(envd.resident_bytes_max() < 24 << 20, "{}", envd.resident_bytes_max());
    assert!(matches!(events.next_event(), Some(Event::Pty(_))));
}

#[test]
fn a_stream_of_input_is_fed_in_order() {
    let envd = Envd::start("stream-input");
    let data = |text: &str| json!({ "data": { "input": { "stdin": BASE64_STANDARD.encode(text) } } });
    let mut events = envd.stream("Start", shell("cat", true), &[]);
    let pid = events.pid();
    let start = json!({ "start": { "process": { "pid": pid } } });
    let mut messages = vec![start.clone(), data("a\n"), json!({ "keepalive": {} })];
    messages.extend((0..500).map(|line| data(&format!("{line}\n"))));
    let send = |messages: &[Value]| {
        let mut stream = envd.stream_of("process.Process", "StreamInput", messages, &[]);
        let first = stream.next_frame().unwrap();
        (first.clone(), if first.0 == 2 { None } else { stream.next_frame() })
    };
    assert_eq!(send(&messages), ((0, json!({})), Some((2, json!({})))));
    assert_eq!(envd.call("CloseStdin", json!({ "process": { "pid": pid } })).status, 200);
    let wanted: String = std::iter::once("a\n".into()).chain((0..500).map(|n| format!("{n}\n"))).collect();
    assert_eq!(events.finish().text(), wanted);

    let refused = |messages: &[Value]| send(messages).0.1["error"]["code"].as_str().unwrap().to_string();
    assert_eq!(refused(std::slice::from_ref(&start)), "not_found");
    assert_eq!(refused(&[]), "invalid_argument");
    assert_eq!(refused(&[data("x")]), "invalid_argument");
    let mut events = envd.stream("Start", terminal("head -n 1"), &[]);
    let start = json!({ "start": { "process": { "pid": events.pid() } } });
    assert_eq!(refused(&[start.clone(), start.clone()]), "invalid_argument");
    assert_eq!(refused(&[start.clone(), data("x")]), "internal");
    let typed = json!({ "data": { "input": { "pty": BASE64_STANDARD.encode("line\n") } } });
    assert_eq!(send(&[start, typed]).0, (0, json!({})));
    assert_eq!(events.finish().pty, b"line\r\nline\r\n", "the echo and the output");
}
