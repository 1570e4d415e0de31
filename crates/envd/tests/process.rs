//! `process.Process` against the real binary.

mod common;

use std::fs;
use std::thread;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use common::{Envd, Event, basic, exists, is_alive, shell, wait_until};
use serde_json::{Value, json};

fn pid(pid: u32) -> Value {
    json!({ "process": { "pid": pid } })
}

#[test]
fn a_program_tells_its_output_and_its_exit_code() {
    let envd = Envd::start("exit");
    let outcome = envd.shell("echo out; echo err >&2; echo $$; exit 3", &[]).finish();
    assert_eq!(outcome.text(), format!("out\n{}\n", outcome.pid));
    assert_eq!(outcome.stderr, b"err\n");
    let status = "exit status 3";
    assert_eq!(outcome.end, json!({ "exitCode": 3, "exited": true, "status": status, "error": status }));
    assert_eq!(outcome.error, Value::Null);
    assert!(!exists(outcome.pid), "reaped before the end is told");

    let end = envd.shell("true", &[]).finish().end;
    assert_eq!(end, json!({ "exitCode": 0, "exited": true, "status": "exit status 0" }));
    let end = envd.shell("kill -SEGV $$", &[]).finish().end;
    let status = "signal: segmentation fault";
    assert_eq!(end, json!({ "exitCode": -1, "exited": false, "status": status, "error": status }));
}

#[test]
fn a_signal_ends_the_program_and_the_wait_for_its_output() {
    let envd = Envd::start("signal");
    for (signal, status) in [("SIGNAL_SIGKILL", "signal: killed"), ("SIGNAL_SIGTERM", "signal: terminated")] {
        // The child keeps the pipe open for much longer than the test may take.
        let mut events = envd.shell("echo before; sleep 600 & wait", &[]);
        let number = events.pid();
        assert_eq!(events.next_event(), Some(Event::Stdout(b"before\n".into())));
        let answer = envd.call("SendSignal", json!({ "process": { "pid": number }, "signal": signal }));
        assert_eq!((answer.status, answer.json()), (200, json!({})));
        let outcome = events.finish();
        assert_eq!((&outcome.end["exitCode"], &outcome.end["status"]), (&json!(-1), &json!(status)));
        assert!(!exists(number));
        let answer = envd.call("SendSignal", json!({ "process": { "pid": number }, "signal": signal }));
        assert_eq!(answer.status, 404);
        assert_eq!(answer.json()["message"], format!("process with pid {number} not found"));
    }
    let mut events = envd.shell("sleep 600", &[]);
    let number = events.pid();
    let answer =
        envd.call("SendSignal", json!({ "process": { "pid": number }, "signal": "SIGNAL_UNSPECIFIED" }));
    assert_eq!((answer.status, answer.json()["code"].as_str()), (501, Some("unimplemented")));
}

#[test]
fn input_reaches_the_program_until_it_is_closed() {
    let envd = Envd::start("stdin");
    let mut events = envd.stream("Start", shell("cat", true), &[]);
    let number = events.pid();
    let mut sent = Vec::new();
    for part in 0..20u8 {
        let bytes = vec![b'a' + part; 50_000];
        let input =
            json!({ "process": { "pid": number }, "input": { "stdin": BASE64_STANDARD.encode(&bytes) } });
        // Reading and writing at once: the pipes hold less than the whole.
        let answer = envd.call("SendInput", input);
        assert_eq!(answer.status, 200, "{}", answer.text());
        sent.extend(bytes);
    }
    let empty = json!({ "process": { "pid": number }, "input": { "stdin": "" } });
    assert_eq!(envd.call("SendInput", empty.clone()).status, 200);
    assert_eq!(envd.call("CloseStdin", pid(number)).status, 200);
    assert_eq!(envd.call("CloseStdin", pid(number)).status, 200, "closing twice is fine");
    let outcome = events.finish();
    let differs = outcome.stdout.iter().zip(&sent).position(|(got, wanted)| got != wanted);
    assert_eq!((outcome.stdout.len(), differs), (sent.len(), None), "{}", outcome.end);
    assert_eq!(outcome.end["exitCode"], 0);

    let mut events = envd.shell("cat; sleep 600", &[]);
    let number = events.pid();
    let input = json!({ "process": { "pid": number }, "input": { "stdin": "eA==" } });
    let answer = envd.call("SendInput", input);
    assert_eq!((answer.status, answer.json()["code"].as_str()), (500, Some("internal")));
    let terminal = json!({ "process": { "pid": number }, "input": { "pty": "eA==" } });
    assert_eq!(envd.call("SendInput", terminal).status, 500);
    assert_eq!(envd.shell("cat", &[]).finish().end["exitCode"], 0, "no stdin is /dev/null");
}

#[test]
fn input_that_nobody_reads_does_not_hold_up_the_end() {
    let envd = Envd::start("stuck-input");
    let mut events =
        envd.stream("Start", shell("sleep 600 & sleep 4", true), &[("connect-timeout-ms", "5000")]);
    let number = events.pid();
    let input = json!({ "process": { "pid": number }, "input": { "stdin": BASE64_STANDARD.encode(vec![0; 1 << 20]) } });
    let headers = [("content-type", "application/json"), ("connect-timeout-ms", "300")];
    let answer = envd.ask("POST", "/process.Process/SendInput", &headers, input.to_string().as_bytes());
    assert_eq!((answer.status, answer.json()["code"].as_str()), (504, Some("deadline_exceeded")));
    assert_eq!(events.finish().error["code"], "deadline_exceeded");
    wait_until("the process is forgotten", || {
        envd.call("List", json!({})).json() == json!({ "processes": [] })
    });
}

/// Large enough that no buffer on the way holds it.
const LINES: usize = 1_450_000;

fn numbers() -> Vec<u8> {
    (1..=LINES).flat_map(|number| format!("{number}\n").into_bytes()).collect()
}

#[test]
fn every_subscriber_gets_every_byte_in_order() {
    let envd = Envd::start("fan-out");
    let mut first = envd.stream("Start", shell(&format!("read go; seq {LINES}"), true), &[]);
    let number = first.pid();
    let mut slow = envd.stream("Connect", pid(number), &[]);
    assert_eq!(slow.pid(), number);
    // Listens, takes nothing, leaves in the middle.
    let mut idle = envd.stream("Connect", pid(number), &[]);
    assert_eq!(idle.pid(), number);

    let expected = numbers();
    assert!(expected.len() > 10_000_000);
    thread::scope(|scope| {
        let fast = scope.spawn(|| first.finish());
        let slow = scope.spawn(move || {
            let mut stdout = Vec::new();
            let mut events = 0;
            loop {
                match slow.next_event() {
                    Some(Event::Stdout(bytes)) => stdout.extend(bytes),
                    Some(Event::End(end)) => return (stdout, end),
                    other => panic!("{other:?}"),
                }
                events += 1;
                if events % 64 == 0 {
                    thread::sleep(Duration::from_millis(20));
                }
            }
        });
        assert_eq!(envd.call("CloseStdin", pid(number)).status, 200);
        thread::sleep(Duration::from_millis(500));
        assert!(!fast.is_finished(), "one who takes nothing holds the output back");
        assert_eq!(envd.ask("GET", "/health", &[], b"").status, 204);
        drop(idle);
        let fast = fast.join().unwrap();
        let (stdout, end) = slow.join().unwrap();
        assert!(fast.stdout == expected && stdout == expected);
        assert_eq!((&fast.end["exitCode"], &end["exitCode"]), (&json!(0), &json!(0)));
    });
    assert!(envd.resident_bytes_max() < 16 << 20, "{}", envd.resident_bytes_max());
}

#[test]
fn a_program_without_listeners_runs_on() {
    let envd = Envd::start("absent");
    let done = envd.path("done");
    let mut events =
        envd.stream("Start", shell(&format!("read go; seq {LINES}; touch {done}; read end"), true), &[]);
    let number = events.pid();
    drop(events);
    let input = json!({ "process": { "pid": number }, "input": { "stdin": BASE64_STANDARD.encode("go\n") } });
    assert_eq!(envd.call("SendInput", input.clone()).status, 200);
    wait_until("it has written everything", || fs::exists(&done).unwrap());

    let mut late = envd.stream("Connect", pid(number), &[]);
    assert_eq!(late.pid(), number);
    assert_eq!(envd.call("SendInput", input).status, 200);
    let outcome = late.finish();
    assert!(outcome.stdout.is_empty(), "no replay");
    assert_eq!(outcome.end["exitCode"], 0);

    let outcome = envd.stream("Connect", pid(number), &[]).finish();
    assert_eq!((outcome.pid, &outcome.end["exitCode"]), (number, &json!(0)), "the end is kept for a while");
}

#[test]
fn processes_are_listed_and_found_by_pid_or_tag() {
    let envd = Envd::start("list");
    let start = |tag: &str| {
        let mut message = shell("sleep 600", false);
        message["tag"] = tag.into();
        let mut events = envd.stream("Start", message, &[]);
        (events.pid(), events)
    };
    let (one, _one) = start("one");
    let (two, _two) = start("two");
    let list = envd.call("List", json!({})).json();
    let processes = list["processes"].as_array().unwrap();
    let mut found: Vec<(u64, &str)> =
        processes.iter().map(|p| (p["pid"].as_u64().unwrap(), p["tag"].as_str().unwrap())).collect();
    found.sort_by_key(|(_, tag)| *tag);
    assert_eq!(found, [(u64::from(one), "one"), (u64::from(two), "two")]);
    assert_eq!(processes[0]["config"]["args"], json!(["-c", "sleep 600"]));

    for (tag, number) in [("one", one), ("two", two)] {
        let kill = json!({ "process": { "tag": tag }, "signal": "SIGNAL_SIGKILL" });
        assert_eq!(envd.call("SendSignal", kill).status, 200);
        wait_until("it is gone", || !exists(number));
    }
    wait_until("the list is empty", || envd.call("List", json!({})).json() == json!({ "processes": [] }));

    let error = envd.stream("Connect", pid(4_000_000), &[]).finish().error;
    assert_eq!(error, json!({ "code": "not_found", "message": "process with pid 4000000 not found" }));
    assert_eq!(envd.call("CloseStdin", json!({ "process": { "tag": "none" } })).status, 404);
    assert_eq!(envd.call("CloseStdin", json!({})).status, 400);
}

#[test]
fn a_limit_kills_the_program_and_its_children() {
    let envd = Envd::start("limit");
    let mut events = envd.shell("sleep 600 & echo $!; wait", &[("connect-timeout-ms", "400")]);
    let leader = events.pid();
    let Some(Event::Stdout(text)) = events.next_event() else { panic!("no pid") };
    let child: u32 = String::from_utf8(text).unwrap().trim().parse().unwrap();
    assert!(is_alive(child));
    let outcome = events.finish();
    assert_eq!(outcome.error["code"], "deadline_exceeded");
    assert_eq!(outcome.end, Value::Null);
    wait_until("both are gone", || !exists(leader) && !is_alive(child));

    // A limit of Connect ends the stream alone.
    let mut events = envd.shell("sleep 600", &[]);
    let leader = events.pid();
    let outcome = envd.stream("Connect", pid(leader), &[("connect-timeout-ms", "100")]).finish();
    assert_eq!(outcome.error["code"], "deadline_exceeded");
    assert!(is_alive(leader));
}

#[test]
fn a_limit_holds_after_the_client_has_left() {
    let envd = Envd::start("limit-left");
    let mut events = envd.shell("sleep 600", &[("connect-timeout-ms", "500")]);
    let leader = events.pid();
    drop(events);
    thread::sleep(Duration::from_millis(100));
    assert!(is_alive(leader));
    wait_until("it is killed", || !exists(leader));
}

#[test]
fn leaving_kills_only_when_asked() {
    let envd = Envd::start("leave");
    let start = |headers: &[(&str, &str)]| {
        let mut events = envd.shell("sleep 600 & echo $!; wait", headers);
        let leader = events.pid();
        let Some(Event::Stdout(text)) = events.next_event() else { panic!("no pid") };
        (leader, String::from_utf8(text).unwrap().trim().parse::<u32>().unwrap(), events)
    };
    let (kept, kept_child, events) = start(&[]);
    drop(events);
    let (killed, killed_child, events) = start(&[("thaw-kill-on-disconnect", "1")]);
    drop(events);
    wait_until("the group is gone", || !exists(killed) && !is_alive(killed_child));
    assert!(is_alive(kept) && is_alive(kept_child));
}

#[test]
fn silence_is_filled_with_keepalives() {
    let envd = Envd::start("keepalive");
    let mut events = envd.shell("sleep 600", &[("keepalive-ping-interval", "1")]);
    events.pid();
    assert_eq!(events.next_event(), Some(Event::Keepalive));
    assert_eq!(events.next_event(), Some(Event::Keepalive));
}

#[test]
fn a_program_runs_as_the_user_and_nothing_else_is_inherited() {
    let envd = Envd::start("user");
    let nobody = basic("nobody");
    let script = "id -un; id -G; umask; cat /proc/self/oom_score_adj; ps -o sid= -p $$; env | sort; \
                  grep -E '^Sig(Blk|Ign)' /proc/self/status";
    let outcome = envd.shell(script, &[("authorization", &nobody)]).finish();
    let text = outcome.text();
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    assert_eq!(
        lines[..4],
        ["nobody", "65534", "0022", "100"],
        "{text} {:?}",
        String::from_utf8(outcome.stderr)
    );
    assert_eq!(lines[4], outcome.pid.to_string(), "a session of its own");
    assert!(text.contains("USER=nobody\n") && text.contains("LOGNAME=nobody\n") && text.contains("\nPATH="));
    assert!(text.contains("HOME=/nonexistent\n"));
    assert!(text.contains("E2B_SANDBOX_ID=sandbox1\n") && text.contains("E2B_TEMPLATE_ID=template1\n"));
    assert!(!text.contains("NOT_INHERITED"));
    // Two more belong to C libraries, which nobody but them can change.
    let signals: Vec<u64> = text
        .lines()
        .filter_map(|line| u64::from_str_radix(line.strip_prefix("Sig")?.get(5..)?.trim(), 16).ok())
        .collect();
    assert_eq!(signals.iter().map(|set| set & 0x7fff_ffff).collect::<Vec<_>>(), [0, 0], "{text}");

    let error = envd.shell("true", &[("authorization", &basic("ghost"))]).finish().error;
    assert_eq!(error, json!({ "code": "unauthenticated", "message": "invalid username: 'ghost'" }));
    let error = envd.shell("true", &[("authorization", "Bearer x")]).finish().error;
    assert_eq!(error["code"], "unauthenticated");
}

#[test]
fn the_request_may_set_variables_and_directory() {
    let envd = Envd::start("request");
    let mut message = shell("echo $A-$E2B_SANDBOX-$HOME; pwd", false);
    message["process"]["envs"] = json!({ "A": "x y", "HOME": "/h" });
    message["process"]["cwd"] = "/usr".into();
    assert_eq!(envd.stream("Start", message.clone(), &[]).finish().text(), "x y-true-/h\n/usr\n");

    let refused = |change: fn(&mut Value)| {
        let mut message = shell("true", false);
        change(&mut message);
        let outcome = envd.stream("Start", message, &[]).finish();
        assert_eq!(outcome.pid, 0);
        (
            outcome.error["code"].as_str().unwrap().to_string(),
            outcome.error["message"].as_str().unwrap().to_string(),
        )
    };
    let invalid = |message: &str| ("invalid_argument".to_string(), message.to_string());
    assert_eq!(
        refused(|m| m["process"]["cwd"] = "/no/where".into()),
        invalid("cwd '/no/where' does not exist")
    );
    assert_eq!(
        refused(|m| m["process"]["cwd"] = "/etc/passwd".into()),
        invalid("cwd '/etc/passwd' is not a directory")
    );
    assert_eq!(refused(|m| m["process"]["cmd"] = "no-such".into()), invalid("command 'no-such' not found"));
    assert_eq!(refused(|m| m["process"]["cmd"] = "".into()).0, "invalid_argument");
    assert_eq!(refused(|m| m["process"]["cmd"] = "/etc".into()).0, "invalid_argument");
    assert_eq!(refused(|m| m["process"]["envs"] = json!({ "A=B": "x" })).0, "invalid_argument");
    assert_eq!(refused(|m| m["process"]["args"] = json!("x")).0, "invalid_argument");
    let root_only = Envd::start("root-only");
    let private = root_only.path("private");
    fs::create_dir(&private).unwrap();
    fs::set_permissions(&private, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    let mut message = shell("true", false);
    message["process"]["cwd"] = private.into();
    let error = envd.stream("Start", message, &[("authorization", &basic("nobody"))]).finish().error;
    assert_eq!(error["code"], "invalid_argument");
}

#[test]
fn calls_that_make_no_sense_are_refused_in_their_own_form() {
    let envd = Envd::start("refused");
    let post = |path: &str, content_type: &str, body: &[u8]| {
        envd.ask("POST", path, &[("content-type", content_type)], body)
    };
    let list = "/process.Process/List";
    assert_eq!(post(list, "application/json", b"{").json()["code"], "invalid_argument");
    assert_eq!(post(list, "application/json", b"{\"unknown\":1}").status, 200, "unknown fields are ignored");
    assert_eq!(post(list, "application/json", b"").status, 200);
    assert_eq!(post(list, "application/proto", b"").status, 415);
    assert_eq!(envd.ask("GET", list, &[], b"").status, 405);
    assert_eq!(post("/process.Process/Nothing", "application/json", b"{}").status, 501);
    assert_eq!(post("/filesystem.Filesystem/Nothing", "application/json", b"{}").status, 501);
    assert_eq!(post("/filesystem.Filesystem/Stat", "application/connect+json", b"").body[0], 2);
    assert_eq!(envd.call("Update", json!({})).json()["code"], "invalid_argument");
    for body in [&b""[..], b"\0\0\0", b"\0\0\0\0\x05{}", b"\x01\0\0\0\x02{}", b"\0\xff\xff\xff\xff{}"] {
        let answer = post("/process.Process/Start", "application/connect+json", body);
        assert_eq!((answer.status, answer.body[0]), (200, 2), "{body:?}");
    }
    let large = vec![b' '; (16 << 20) + 10];
    assert_eq!(post(list, "application/json", &large).json()["code"], "resource_exhausted");
    let headers = [("content-type", "application/json"), ("connect-timeout-ms", "soon")];
    assert_eq!(envd.ask("POST", list, &headers, b"{}").status, 400);
    assert_eq!(envd.ask("GET", "/nothing", &[], b"").status, 404);
    assert_eq!(envd.ask("OPTIONS", list, &[], b"").header("access-control-allow-origin"), Some("*"));
}

#[test]
fn starting_a_program_does_not_copy_the_agent() {
    let envd = Envd::start("spawn");
    let faults = || {
        let stat = fs::read_to_string(format!("/proc/{}/stat", envd.child.id())).unwrap();
        stat.rsplit_once(") ").unwrap().1.split(' ').nth(7).unwrap().parse::<u64>().unwrap()
    };
    let run = || assert_eq!(envd.shell("exit 0", &[]).finish().end["exitCode"], 0);
    run();
    let before = faults();
    for _ in 0..50 {
        run();
    }
    // After a fork each page that the agent writes again would be one.
    assert!(faults() - before < 50 * 10, "{}", faults() - before);
}
