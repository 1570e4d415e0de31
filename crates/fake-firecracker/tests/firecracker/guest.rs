//! The guest on its network, alone and after restores.

use std::io::Read;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::agent::{
    GUEST_PORT, Ran, START, STREAM, ask, control, identity, init, output, request, run, run_with, script,
};
use crate::support::folder::{DRIVE_BYTES, Folder};
use crate::support::http;
use crate::support::namespace::{Namespace, TAP};
use crate::support::vmm::{Vmm, load};

fn boot(folder: &Folder, namespace: &Namespace) -> Vmm {
    let vmm = Vmm::spawn(folder, "vmm", Some(namespace));
    vmm.configure();
    vmm.configure_network(TAP);
    vmm.start();
    vmm
}

#[test]
fn nobody_is_served_before_the_identity() {
    let (folder, namespace) = (Folder::new(), Namespace::new());
    let _vmm = boot(&folder, &namespace);
    let start = |headers: &[(&str, &str)]| {
        ask(&namespace, GUEST_PORT, START, &[headers, &[STREAM]].concat(), &request(&["true"]))
    };
    assert_eq!(ask(&namespace, GUEST_PORT, "/health", &[], b"").status, 204);
    let answer = start(&[]);
    assert_eq!((answer.status, answer.json()["code"].as_str()), (503, Some("unavailable")));
    for (field, value) in
        [("timestamp", json!("yesterday")), ("entropy", json!("?")), ("machineId", json!("1"))]
    {
        let mut bad = identity(1, 1);
        bad[field] = value;
        assert_eq!(control(&namespace, "/init", bad).status, 400, "{field}");
    }
    let mut body = identity(5, 1);
    body["accessToken"] = json!("secret");
    body["envVars"] = json!({ "NAME": "value" });
    assert_eq!(control(&namespace, "/init", body).status, 204);
    assert_eq!(start(&[]).json()["code"], 401);
    let token = ("X-Access-Token", "secret");
    let env = run_with(&namespace, &["env"], &[token]).stdout;
    assert!(env.contains("NAME=value\n") && env.contains("E2B_SANDBOX_ID=sandbox5\n"), "{env}");
    // "nobody:", who is none of the guest's users.
    let nobody = run_with(&namespace, &["true"], &[token, ("Authorization", "Basic bm9ib2R5Og==")]);
    assert_eq!(nobody.end, Err("invalid username: 'nobody'".into()));
    assert_eq!(control(&namespace, "/init", identity(5, 2)).status, 204);
    assert_eq!(
        run_with(&namespace, &["cat", "/etc/hostname"], &[token]).stdout,
        "guest5\n",
        "once for a counter"
    );
}

#[test]
fn commands_say_what_they_say_elsewhere() {
    let (folder, namespace) = (Folder::new(), Namespace::new());
    let _vmm = boot(&folder, &namespace);
    init(&namespace, 1, 1);
    assert_eq!(run(&namespace, &["nope"]).end, Err("command 'nope' not found".into()));
    assert_eq!(run(&namespace, &["/bin/false"]).end, Ok(1));
    let time: i64 = output(&namespace, &["date", "+%s"]).parse().unwrap();
    assert!((1_767_323_045..1_767_323_055).contains(&time), "{time}");
    let ran = run(
        &namespace,
        &["sh", "-c", "echo 'a  b' > /dev/shm/x && cat /dev/shm/x; cat /gone; nope; exit 3; echo no"],
    );
    let stderr = "cat: /gone: No such file or directory\nsh: 1: nope: not found\n";
    assert_eq!(ran, Ran { stdout: "a  b\n".into(), stderr: stderr.into(), end: Ok(3) });
    assert_eq!(script(&namespace, "false && echo no; echo 1 > /f; echo 2 >> /f; cat /f"), "1\n2");
    let start = Instant::now();
    assert_eq!(script(&namespace, "sleep 0.2; echo late"), "late");
    assert!(start.elapsed() >= Duration::from_millis(200));
    let late = run_with(&namespace, &["sleep", "60"], &[("Connect-Timeout-Ms", "100")]);
    assert_eq!(late.end, Err("the process ran longer than its limit".into()));
    let ticks = || output(&namespace, &["ticks"]).parse::<u64>().unwrap();
    let before = ticks();
    std::thread::sleep(Duration::from_millis(100));
    assert!((5..30).contains(&(ticks() - before)));
    assert_eq!(run(&namespace, &["fill", "1", "1", "1"]).stderr, "fill: no such pages\n");
}

#[test]
fn many_are_served_at_once() {
    let (folder, namespace) = (Folder::new(), Namespace::new());
    let _vmm = boot(&folder, &namespace);
    init(&namespace, 1, 1);
    let mut streams: Vec<_> = (0..16).map(|_| namespace.connect(GUEST_PORT)).collect();
    let start = Instant::now();
    streams
        .iter_mut()
        .for_each(|stream| http::send(stream, "POST", START, &[STREAM], &request(&["sleep", "0.2"])));
    for stream in &mut streams {
        assert_eq!(http::receive(stream).unwrap().status, 200);
    }
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    // The connections stay open, and serve again.
    http::send(&mut streams[0], "GET", "/health", &[], b"");
    assert_eq!(http::receive(&mut streams[0]).unwrap().status, 204);
}

#[test]
fn a_prepared_guest_stands_still_and_its_disk_is_written() {
    let (folder, namespace) = (Folder::new(), Namespace::new());
    let vmm = boot(&folder, &namespace);
    init(&namespace, 1, 1);
    let on_disk = |text: &str| {
        let mut bytes = vec![0; 1 << 20];
        std::fs::File::open(folder.file("root.img"))
            .unwrap()
            .read_exact_at(&mut bytes, DRIVE_BYTES - (1 << 20))
            .unwrap();
        bytes.windows(text.len()).any(|window| window == text.as_bytes())
    };
    script(&namespace, "echo first > /data; sync; echo second > /data; echo third > /dev/shm/memory");
    assert!(on_disk("first") && !on_disk("second"));
    let mut sleeper = namespace.connect(GUEST_PORT);
    http::send(&mut sleeper, "POST", START, &[STREAM], &request(&["sleep", "0.1"]));
    let answer = control(&namespace, "/prepare", json!({ "sequence": 10 }));
    assert_eq!(answer.json(), json!({ "frozen": true, "ms": 0 }));
    assert!(on_disk("second") && !on_disk("third"));
    assert_eq!(ask(&namespace, GUEST_PORT, "/envs", &[], b"").status, 503);
    let time = json!({ "timestamp": "2030-01-01T00:00:00Z", "sequence": 11 });
    assert_eq!(control(&namespace, "/thaw", time).status, 204);
    assert_eq!(http::receive(&mut sleeper).unwrap().status, 200, "it goes on");
    assert!(output(&namespace, &["date", "+%s"]).starts_with("18934560"));
    let late: Value = control(&namespace, "/prepare", json!({ "sequence": 9 })).json();
    assert_eq!((late["frozen"].as_bool(), script(&namespace, "cat /data")), (Some(false), "second".into()));

    // Another machine with the same drive has the files that were written, and none of the memory.
    vmm.kill();
    let _vmm = boot(&folder, &namespace);
    init(&namespace, 1, 1);
    assert_eq!(script(&namespace, "cat /data"), "second");
    assert_eq!(run(&namespace, &["cat", "/dev/shm/memory"]).end, Ok(1));
}

#[test]
fn a_restored_guest_knows_all_but_its_connections() {
    let (folder, namespace) = (Folder::new(), Namespace::new());
    let vmm = boot(&folder, &namespace);
    let start = Instant::now();
    init(&namespace, 1, 1);
    script(&namespace, "echo kept > /dev/shm/memory; echo unsynced > /data");
    let ticks: u64 = output(&namespace, &["ticks"]).parse().unwrap();
    let mut old = namespace.connect(GUEST_PORT);
    http::send(&mut old, "GET", "/health", &[], b"");
    assert_eq!(http::receive(&mut old).unwrap().status, 204);
    vmm.snapshot("Full", "snap");
    vmm.set_paused(false);
    http::send(&mut old, "GET", "/health", &[], b"");
    assert_eq!(http::receive(&mut old).unwrap().status, 204, "the same VM goes on with its connections");
    vmm.kill();

    std::thread::sleep(Duration::from_millis(1100));
    let vmm = Vmm::spawn(&folder, "vmm", Some(&namespace));
    vmm.tell("PUT", "/snapshot/load", load("snap", "File", "snap"));
    assert_eq!(script(&namespace, "cat /dev/shm/memory; cat /data; hostname"), "kept\nunsynced\nguest1");
    let after: u64 = output(&namespace, &["ticks"]).parse().unwrap();
    let lived_ms = start.elapsed().as_millis() as u64 - 1100;
    assert!((ticks..=ticks + lived_ms / 10).contains(&after), "it did not run meanwhile: {ticks} {after}");
    let time: u64 = output(&namespace, &["date", "+%s"]).parse().unwrap();
    let lived_ms = start.elapsed().as_millis() as u64 - 1100;
    assert!(time <= (1_767_323_045_678 + lived_ms) / 1000, "nor did its clock: {time} {lived_ms}");
    http::send(&mut old, "GET", "/health", &[], b"");
    assert!(old.read(&mut [0]).is_err(), "an unknown connection is reset");

    // A new identity is a new life: who is connected is cut off.
    let mut cut = namespace.connect(GUEST_PORT);
    http::send(&mut cut, "POST", START, &[STREAM], &request(&["sleep", "9"]));
    std::thread::sleep(Duration::from_millis(50));
    init(&namespace, 2, 2);
    assert!(http::receive(&mut cut).is_none());
    assert_eq!(output(&namespace, &["hostname"]), "guest2");
}
