//! Identity, freezing and who may ask, against the real binary.

mod common;

use std::fs;
use std::io::Read;
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use common::{Envd, Options, exchange, exists, init, is_alive, wait_until};
use serde_json::json;

#[test]
fn nobody_is_served_before_the_identity() {
    let envd = Envd::with("closed", Options { init: false, ..Options::default() });
    assert_eq!(envd.ask("GET", "/health", &[], b"").status, 204);
    assert_eq!(envd.ask("GET", "/envs", &[], b"").status, 503);
    assert_eq!(envd.ask("GET", "/files?path=/etc/passwd", &[], b"").status, 503);
    let answer = envd.call("List", json!({}));
    assert_eq!((answer.status, answer.json()["code"].as_str()), (503, Some("unavailable")));
    assert_eq!(envd.control("/thaw", &json!({ "timestamp": "2026-01-01T00:00:00Z" })).status, 204);
    assert_eq!(envd.ask("GET", "/envs", &[], b"").status, 503, "a thaw gives no identity");
    assert_eq!(envd.control("/init", &init(5, json!({}))).status, 204);
    assert_eq!(envd.ask("GET", "/envs", &[], b"").status, 200);
}

#[test]
fn an_identity_is_applied_once_for_each_counter() {
    let envd = Envd::with("counter", Options { init: false, ..Options::default() });
    fs::write(envd.path("etc/hosts"), "127.0.0.1 localhost\n").unwrap();
    let apply = |counter: u64, name: &str| {
        let identity = json!({
            "envVars": { "NAME": name, "E2B_SANDBOX": "forged" },
            "hostname": name,
            "machineId": format!("{counter:032x}"),
            "sandboxId": name,
        });
        let answer = envd.control("/init", &init(counter, identity));
        assert_eq!(answer.status, 204, "{}", answer.text());
        envd.ask("GET", "/envs", &[], b"").json()
    };
    let one = json!({ "NAME": "one", "E2B_SANDBOX": "true", "E2B_SANDBOX_ID": "one", "E2B_TEMPLATE_ID": "template1" });
    assert_eq!(apply(7, "one"), one);
    assert_eq!(fs::read_to_string(envd.path("etc/hostname")).unwrap(), "one\n");
    assert_eq!(fs::read_to_string(envd.path("etc/machine-id")).unwrap(), format!("{:032x}\n", 7));
    assert_eq!(fs::read_to_string(envd.path("etc/hosts")).unwrap(), "127.0.0.1 localhost\n127.0.1.1\tone\n");
    assert_eq!(apply(7, "again"), one);
    assert_eq!(apply(3, "earlier"), one);
    assert_eq!(fs::read_to_string(envd.path("etc/hostname")).unwrap(), "one\n");

    // What a user left in the way does not stop it.
    fs::remove_file(envd.path("etc/hostname")).unwrap();
    std::os::unix::fs::symlink("/nowhere/else", envd.path("etc/hostname")).unwrap();
    assert_eq!(apply(8, "two")["NAME"], "two");
    assert_eq!(fs::read_to_string(envd.path("etc/hostname")).unwrap(), "two\n");
    assert_eq!(fs::read_to_string(envd.path("etc/hosts")).unwrap(), "127.0.0.1 localhost\n127.0.1.1\ttwo\n");
}

#[test]
fn a_bad_identity_changes_nothing() {
    let envd = Envd::with("bad", Options { init: false, ..Options::default() });
    for more in [
        json!({ "timestamp": "yesterday" }),
        json!({ "entropy": "c2hvcnQ=" }),
        json!({ "entropy": "?" }),
        json!({ "hostname": "two words" }),
        json!({ "hostname": "" }),
        json!({ "machineId": "0123" }),
        json!({ "counter": -1 }),
        json!({ "counter": "1" }),
        json!({ "envVars": { "A": 1 } }),
    ] {
        assert_eq!(envd.control("/init", &init(1, more.clone())).status, 400, "{more}");
    }
    assert_eq!(exchange(envd.control_port, "POST", "/init", &[], b"{").status, 400);
    assert_eq!(envd.control("/other", &json!({})).status, 404);
    assert_eq!(exchange(envd.control_port, "GET", "/init", &[], b"").status, 404);
    assert_eq!(envd.ask("GET", "/envs", &[], b"").status, 503);
    assert_eq!(envd.ask("POST", "/init", &[], init(1, json!({})).to_string().as_bytes()).status, 503);
}

#[test]
fn only_the_host_reaches_the_control_port() {
    let options = Options { init: false, arguments: &["--control-peer", "127.0.0.9"], ..Options::default() };
    let envd = Envd::with("peer", options);
    let mut stream = TcpStream::connect(("127.0.0.1", envd.control_port)).unwrap();
    let mut rest = Vec::new();
    assert!(matches!(stream.read_to_end(&mut rest), Ok(0) | Err(_)), "closed without a word");
}

#[test]
fn a_token_is_asked_for_everywhere() {
    let mut envd = Envd::with("token", Options { token: Some("secret"), ..Options::default() });
    assert_eq!(envd.ask("GET", "/envs", &[], b"").status, 200);
    assert_eq!(envd.shell("echo hi", &[]).finish().text(), "hi\n");
    for token in [None, Some("secreT"), Some("secret2"), Some("")] {
        envd.token = token.map(Into::into);
        for path in ["/envs", "/metrics", "/nothing"] {
            let answer = envd.ask("GET", path, &[], b"");
            assert_eq!((answer.status, answer.json()["code"].as_u64()), (401, Some(401)), "{path}");
            assert!(answer.json()["message"].is_string());
        }
        let answer = envd.call("List", json!({}));
        assert_eq!((answer.status, answer.json()["code"].as_u64()), (401, Some(401)));
        let headers = [("content-type", "application/connect+json")];
        assert_eq!(envd.ask("POST", "/process.Process/Start", &headers, b"").status, 401);
        assert_eq!(envd.ask("GET", "/files?path=/etc/hostname", &[], b"").status, 401);
    }
    assert_eq!(envd.ask("GET", "/health", &[], b"").status, 204);
    assert_eq!(envd.control("/init", &init(2, json!({ "accessToken": "" }))).status, 204);
    envd.token = None;
    assert_eq!(envd.ask("GET", "/envs", &[], b"").status, 200, "an empty token is none");
}

#[test]
fn only_the_host_rehearses_and_only_until_there_is_an_identity() {
    let mut envd = Envd::with("rehearsal", Options { init: false, ..Options::default() });
    let secret = "0123456789abcdef0123456789abcdef";
    let start = [("content-type", "application/connect+json")];
    envd.token = Some(secret.into());
    assert_eq!(envd.ask("POST", "/process.Process/Start", &start, b"").status, 503);
    assert_eq!(
        envd.control("/rehearse", &json!({ "token": "short", "init": init(1, json!({})) })).status,
        400
    );
    assert_eq!(
        envd.control(
            "/rehearse",
            &json!({ "token": secret, "init": init(1, json!({ "hostname": "nobody" })) })
        )
        .status,
        204
    );
    assert_eq!(envd.shell("echo practised", &[]).finish().text(), "practised\n");
    if envd.cgroup.is_some() {
        let cgroup = envd.shell("cat /proc/self/cgroup", &[]).finish().text();
        assert!(cgroup.trim_end().ends_with("-rehearsal"), "{cgroup}");
    }
    for path in ["/envs", "/files?path=/etc/hostname", "/metrics"] {
        assert_eq!(envd.ask("GET", path, &[], b"").status, 503, "{path}");
    }
    assert_eq!(fs::read_to_string(envd.path("etc/hostname")).unwrap(), "nobody\n");
    assert_eq!(envd.call("List", json!({})).status, 503);
    for wrong in [None, Some("0123456789abcdef0123456789abcdeF"), Some("")] {
        envd.token = wrong.map(Into::into);
        assert_eq!(envd.ask("POST", "/process.Process/Start", &start, b"").status, 503);
    }
    envd.token = Some(secret.into());
    assert_eq!(envd.control("/init", &init(1, json!({ "accessToken": "its own" }))).status, 204);
    assert_eq!(envd.ask("POST", "/process.Process/Start", &start, b"").status, 401);
    assert_eq!(
        envd.control(
            "/rehearse",
            &json!({ "token": secret, "init": init(1, json!({ "hostname": "nobody" })) })
        )
        .status,
        409
    );
    assert_eq!(envd.control("/prepare", &json!({})).status, 200);
    assert_eq!(envd.ask("POST", "/process.Process/Start", &start, b"").status, 503, "over with the identity");
}

#[test]
fn defaults_come_with_the_identity() {
    let envd = Envd::start("defaults");
    let defaults = json!({ "defaultUser": "nobody", "defaultWorkdir": "/usr" });
    assert_eq!(envd.control("/init", &init(2, defaults)).status, 204);
    let message = json!({ "process": { "cmd": "sh", "args": ["-c", "id -un; pwd"] } });
    assert_eq!(envd.stream("Start", message, &[]).finish().text(), "nobody\n/usr\n");
}

const TIME: &str = "2026-01-01T00:00:00Z";

#[test]
fn a_prepared_vm_stands_still_and_serves_nobody() {
    let envd = Envd::start("freeze");
    let count = envd.path("count");
    let script = format!("i=0; while :; do i=$((i+1)); echo $i > {count}; done");
    let mut events = envd.shell(&script, &[]);
    let pid = events.pid();
    let read = || fs::read_to_string(&count).unwrap_or_default().trim().parse().unwrap_or(0u64);
    wait_until("it counts", || read() > 10);

    let answer = envd.control("/prepare", &json!({}));
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(envd.ask("GET", "/envs", &[], b"").status, 503);
    assert_eq!(envd.ask("GET", "/health", &[], b"").status, 204);
    if envd.cgroup.is_none() {
        eprintln!("skipped: no writable cgroup v2 here, so nothing is frozen");
        assert_eq!(answer.json()["frozen"], false);
        return;
    }
    assert_eq!(answer.json()["frozen"], true);
    assert!(answer.json()["ms"].is_u64());
    let before = read();
    thread::sleep(Duration::from_millis(100));
    assert_eq!(read(), before);

    // A snapshot was taken: the same VM goes on, its streams too.
    assert_eq!(envd.control("/thaw", &json!({ "timestamp": TIME })).status, 204);
    wait_until("it counts again", || read() > before + 10);
    assert_eq!(envd.ask("GET", "/envs", &[], b"").status, 200);
    let kill = json!({ "process": { "pid": pid }, "signal": "SIGNAL_SIGKILL" });
    assert_eq!(envd.call("SendSignal", kill).status, 200);
    assert_eq!(events.finish().end["status"], "signal: killed");
}

#[test]
fn a_restored_vm_starts_a_new_life_with_its_old_processes() {
    let envd = Envd::start("restore");
    let mut events = envd.shell("sleep 600", &[("thaw-kill-on-disconnect", "1")]);
    let pid = events.pid();
    assert_eq!(envd.control("/prepare", &json!({})).status, 200);
    // The first counter again, as a late repetition would have it.
    assert_eq!(envd.control("/init", &init(1, json!({}))).status, 204);
    assert_eq!(envd.ask("GET", "/envs", &[], b"").status, 503, "a counter of the past opens nothing");

    let answer = envd.control("/init", &init(2, json!({ "sandboxId": "other" })));
    assert_eq!(answer.status, 204);
    assert_eq!(events.next_event(), None, "connections of the old life are cut");
    assert_eq!(envd.ask("GET", "/envs", &[], b"").json()["E2B_SANDBOX_ID"], "other");
    assert!(is_alive(pid), "cut by the restore is not left by its caller");
    let list = envd.call("List", json!({})).json();
    assert_eq!(list["processes"][0]["pid"], pid);
    let mut again = envd.stream("Connect", json!({ "process": { "pid": pid } }), &[]);
    assert_eq!(again.pid(), pid);
}

#[test]
fn a_caller_who_leaves_during_a_snapshot_is_remembered() {
    let envd = Envd::start("left");
    let start = || {
        let mut events = envd.shell("sleep 600", &[("thaw-kill-on-disconnect", "1")]);
        (events.pid(), events)
    };
    let (killed, events) = start();
    assert_eq!(envd.control("/prepare", &json!({})).status, 200);
    drop(events);
    thread::sleep(Duration::from_millis(100));
    assert!(is_alive(killed));
    assert_eq!(envd.control("/thaw", &json!({ "timestamp": TIME })).status, 204);
    wait_until("it is killed", || !exists(killed));

    // But it lives on in a VM that was restored.
    let (kept, events) = start();
    assert_eq!(envd.control("/prepare", &json!({})).status, 200);
    drop(events);
    thread::sleep(Duration::from_millis(100));
    assert_eq!(envd.control("/init", &init(2, json!({}))).status, 204);
    assert_eq!(envd.control("/prepare", &json!({})).status, 200);
    assert_eq!(envd.control("/thaw", &json!({ "timestamp": TIME })).status, 204);
    assert!(is_alive(kept));
}

#[test]
fn metrics_are_those_of_the_machine() {
    let envd = Envd::start("metrics");
    let metrics = envd.ask("GET", "/metrics", &[], b"").json();
    let number = |name: &str| metrics[name].as_f64().unwrap_or_else(|| panic!("{name} in {metrics}"));
    assert!(number("cpu_count") >= 1.0);
    assert!((0.0..=100.0).contains(&number("cpu_used_pct")));
    assert!(number("mem_total") > number("mem_used") && number("mem_used") > 0.0);
    assert!(number("disk_total") > number("disk_used"));
    assert_eq!(number("mem_total_mib"), (number("mem_total") / 1_048_576.0).floor());
    assert!(number("ts") > 1.7e9 && number("mem_cache") > 0.0);
}

#[test]
fn an_agent_that_was_killed_goes_on_as_the_same_vm() {
    let mut envd = Envd::with("again", Options { token: Some("secret"), ..Options::default() });
    envd.restart();
    assert_eq!(envd.ask("GET", "/envs", &[], b"").json()["E2B_SANDBOX_ID"], "sandbox1");
    envd.token = None;
    assert_eq!(envd.ask("GET", "/envs", &[], b"").status, 401);
    assert_eq!(envd.control("/init", &init(1, json!({ "sandboxId": "other" }))).status, 204);
    assert_eq!(envd.ask("GET", "/envs", &[], b"").status, 401, "the counter is remembered too");

    let kept = envd.path("run/thaw/identity.json");
    assert_eq!(std::os::unix::fs::MetadataExt::mode(&fs::metadata(&kept).unwrap()) & 0o777, 0o600);
    if envd.cgroup.is_some() {
        assert_eq!(envd.control("/prepare", &json!({})).status, 200);
        envd.restart();
        assert_eq!(envd.ask("GET", "/envs", &[], b"").status, 503, "frozen");
        assert_eq!(envd.control("/thaw", &json!({ "timestamp": TIME })).status, 204);
        assert_eq!(envd.ask("GET", "/envs", &[], b"").status, 401);
    }
    let text = fs::read_to_string(&kept).unwrap().replacen("\"boot_id\":\"", "\"boot_id\":\"0", 1);
    fs::write(&kept, text).unwrap();
    envd.restart();
    assert_eq!(envd.ask("GET", "/envs", &[], b"").status, 503, "a file of another boot is nothing");
}

#[test]
fn a_refusal_is_seen_by_one_who_sends_much() {
    let envd = Envd::with("much", Options { init: false, ..Options::default() });
    let body = vec![b'x'; 8 << 20];
    let headers = [("content-type", "application/octet-stream")];
    assert_eq!(envd.ask("POST", "/files?path=/x", &headers, &body).status, 503);
    assert_eq!(envd.ask("POST", "/nothing", &headers, &body).status, 503);
}

#[test]
fn a_prepare_that_comes_after_its_thaw_is_passed_over() {
    let envd = Envd::start("late");
    let thaw = json!({ "timestamp": TIME, "sequence": 8 });
    assert_eq!(envd.control("/thaw", &thaw).status, 204);
    let late = envd.control("/prepare", &json!({ "sequence": 7 }));
    assert_eq!(late.json()["frozen"], false, "{}", late.text());
    assert_eq!(envd.ask("GET", "/envs", &[], b"").status, 200);
    assert_eq!(envd.control("/prepare", &json!({ "sequence": 9 })).status, 200);
    assert_eq!(envd.ask("GET", "/envs", &[], b"").status, 503);
}
