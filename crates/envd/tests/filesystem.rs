//! `filesystem.Filesystem` against the real binary.

mod common;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::thread;
use std::time::Duration;

use common::{Answer, Envd, Events, Options, basic, open, wait_until};
use serde_json::{Value, json};

const SERVICE: &str = "filesystem.Filesystem";

fn call(envd: &Envd, method: &str, message: Value) -> Answer {
    envd.unary(SERVICE, method, message, &[("authorization", &basic("nobody"))])
}

fn ok(envd: &Envd, method: &str, message: Value) -> Value {
    let answer = call(envd, method, message);
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

fn code(envd: &Envd, method: &str, message: Value) -> (u16, String) {
    let answer = call(envd, method, message);
    (answer.status, answer.json()["code"].as_str().unwrap_or_default().to_string())
}

fn refused(code: &str, status: u16) -> (u16, String) {
    (status, code.into())
}

#[test]
fn an_entry_tells_what_is_there() {
    let envd = Envd::start("stat");
    let file = envd.path("file");
    fs::write(&file, "hello").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
    std::os::unix::fs::chown(&file, Some(65534), Some(65534)).unwrap();
    rustix::fs::setxattr(&file, "user.e2b.note", b"kept", rustix::fs::XattrFlags::empty()).unwrap();
    let mut entry = ok(&envd, "Stat", json!({ "path": file }))["entry"].take();
    let modified = entry["modifiedTime"].take();
    let modified = modified.as_str().unwrap();
    assert!(modified.starts_with("20") && modified.ends_with('Z') && modified.len() == 30, "{modified}");
    let group = String::from_utf8(
        std::process::Command::new("stat").args(["-c", "%G", &file]).output().unwrap().stdout,
    );
    assert_eq!(
        entry,
        json!({
            "name": "file", "type": "FILE_TYPE_FILE", "path": file, "size": "5", "mode": 0o640,
            "permissions": "-rw-r-----", "owner": "nobody", "group": group.unwrap().trim(),
            "modifiedTime": null, "metadata": { "note": "kept" },
        })
    );

    symlink("file", envd.path("link")).unwrap();
    symlink("/nowhere", envd.path("broken")).unwrap();
    symlink("loop", envd.path("loop")).unwrap();
    let stat = |name: &str| ok(&envd, "Stat", json!({ "path": envd.path(name) }))["entry"].take();
    let link = stat("link");
    assert_eq!((link["type"].as_str(), link["mode"].as_u64()), (Some("FILE_TYPE_FILE"), Some(0o640)));
    assert_eq!((link["permissions"].as_str(), &link["isSymlink"]), (Some("Lrwxrwxrwx"), &json!(true)));
    assert_eq!((link["symlinkTarget"].as_str(), link["size"].as_str()), (Some(file.as_str()), Some("4")));
    for name in ["broken", "loop"] {
        let found = stat(name);
        assert_eq!(found["type"], "FILE_TYPE_UNSPECIFIED");
        assert_eq!(found["symlinkTarget"], envd.path(name));
    }
    let directory = ok(&envd, "Stat", json!({ "path": envd.path("etc/") }))["entry"].take();
    assert_eq!((&directory["name"], &directory["path"]), (&json!("etc"), &json!(envd.path("etc"))));
    assert_eq!(directory["permissions"].as_str().unwrap().chars().next(), Some('d'));
    assert_eq!(ok(&envd, "Stat", json!({ "path": "/" }))["entry"]["name"], "/");
    assert_eq!(ok(&envd, "Stat", json!({ "path": "/dev/null" }))["entry"]["type"], "FILE_TYPE_UNSPECIFIED");

    for path in [envd.path("missing"), envd.path("file/below")] {
        assert_eq!(code(&envd, "Stat", json!({ "path": path })), refused("not_found", 404));
    }
    for path in ["~other", "a\0b", &envd.path(&"n".repeat(300))] {
        assert_eq!(code(&envd, "Stat", json!({ "path": path })), refused("invalid_argument", 400), "{path}");
    }
    let answer = envd.unary(SERVICE, "Stat", json!({}), &[("authorization", &basic("ghost"))]);
    assert_eq!((answer.status, answer.json()["code"].as_str()), (401, Some("unauthenticated")));
    assert_eq!(code(&envd, "Nothing", json!({})), refused("unimplemented", 501));
}

#[test]
fn a_tree_is_listed_depth_first_in_order() {
    let envd = Envd::start("list-dir");
    for directory in ["t/b/deep/deeper", "t/a", "other"] {
        fs::create_dir_all(envd.path(directory)).unwrap();
    }
    for file in ["t/b/x", "t/B", "t/c", "other/unseen"] {
        fs::write(envd.path(file), "").unwrap();
    }
    symlink(envd.path("other"), envd.path("t/link")).unwrap();
    symlink("t", envd.path("way")).unwrap();
    let list = |path: &str, depth: Value| {
        let entries = ok(&envd, "ListDir", json!({ "path": envd.path(path), "depth": depth }));
        let paths = entries["entries"].as_array().unwrap().iter();
        let prefix = envd.path(path) + "/";
        paths
            .map(|e| e["path"].as_str().unwrap().strip_prefix(&prefix).unwrap().to_string())
            .collect::<Vec<_>>()
    };
    assert_eq!(list("t", json!(0)), ["B", "a", "b", "c", "link"]);
    assert_eq!(list("t", json!(null)), ["B", "a", "b", "c", "link"]);
    let two = ["B", "a", "b", "b/deep", "b/x", "c", "link"];
    assert_eq!(list("t", json!(2)), two);
    assert_eq!(list("way", json!(2)), two, "the root may be a link");
    assert_eq!(list("t", json!(9)), ["B", "a", "b", "b/deep", "b/deep/deeper", "b/x", "c", "link"]);
    assert!(list("t/a", json!(1)).is_empty());

    let refuse = |path: &str| code(&envd, "ListDir", json!({ "path": envd.path(path) }));
    assert_eq!(refuse("missing"), refused("not_found", 404));
    assert_eq!(refuse("t/c"), refused("invalid_argument", 400));
    symlink("loop", envd.path("loop")).unwrap();
    assert_eq!(refuse("loop"), refused("failed_precondition", 400));
}

#[test]
fn a_large_tree_is_listed_in_little_memory() {
    let envd = Envd::start("list-large");
    for directory in 0..20 {
        let directory = envd.path(&format!("t/{directory:02}"));
        fs::create_dir_all(&directory).unwrap();
        for file in 0..1000 {
            fs::write(format!("{directory}/{}-{file:04}", "n".repeat(60)), "").unwrap();
        }
    }
    let message = json!({ "path": envd.path("t"), "depth": 3 });
    let entries = ok(&envd, "ListDir", message.clone());
    assert_eq!(entries["entries"].as_array().unwrap().len(), 20_020);
    // Those who take nothing.
    let body = message.to_string();
    let idle: Vec<_> = (0..40)
        .map(|_| {
            let headers = [("content-type", "application/json")];
            open(envd.port, "POST", "/filesystem.Filesystem/ListDir", &headers, body.as_bytes())
        })
        .collect();
    assert_eq!(ok(&envd, "Stat", json!({ "path": "/" }))["entry"]["name"], "/", "no thread is held");
    assert!(envd.resident_bytes_max() < 32 << 20, "{}", envd.resident_bytes_max());
    drop(idle);
}

#[test]
fn directories_are_made_for_the_user() {
    let envd = Envd::start("make-dir");
    let deep = envd.path("a/b/c");
    let entry = ok(&envd, "MakeDir", json!({ "path": deep }))["entry"].take();
    assert_eq!((&entry["path"], &entry["type"]), (&json!(deep), &json!("FILE_TYPE_DIRECTORY")));
    for name in ["a", "a/b", "a/b/c"] {
        let found = fs::metadata(envd.path(name)).unwrap();
        assert_eq!((found.uid(), found.gid(), found.mode() & 0o777), (65534, 65534, 0o755), "{name}");
    }
    assert_eq!(fs::metadata(&envd.root).unwrap().uid(), 0, "what was there keeps its owner");
    fs::write(envd.path("file"), "").unwrap();
    assert_eq!(code(&envd, "MakeDir", json!({ "path": deep })), refused("already_exists", 409));
    for path in ["file", "file/below"] {
        let message = json!({ "path": envd.path(path) });
        assert_eq!(code(&envd, "MakeDir", message), refused("invalid_argument", 400));
    }
}

#[test]
fn files_and_directories_move() {
    let envd = Envd::start("move");
    fs::create_dir(envd.path("d")).unwrap();
    fs::write(envd.path("d/f"), "x").unwrap();
    fs::write(envd.path("taken"), "old").unwrap();
    let message = |from: &str, to: &str| json!({ "source": envd.path(from), "destination": envd.path(to) });
    assert_eq!(ok(&envd, "Move", message("d", "new/place"))["entry"]["path"], envd.path("new/place"));
    assert_eq!(fs::metadata(envd.path("new")).unwrap().uid(), 65534);
    ok(&envd, "Move", message("new/place/f", "taken"));
    assert_eq!(fs::read_to_string(envd.path("taken")).unwrap(), "x", "replaced");
    assert_eq!(code(&envd, "Move", message("gone", "made/x")), refused("not_found", 404));
    assert!(!fs::exists(envd.path("made")).unwrap(), "nothing is made for what does not exist");
    assert_eq!(code(&envd, "Move", message("taken", "taken/below")), refused("invalid_argument", 400));
    assert_eq!(
        code(&envd, "Move", json!({ "source": envd.path("taken") })),
        refused("invalid_argument", 400)
    );
    fs::create_dir_all(envd.path("full/x")).unwrap();
    assert_eq!(code(&envd, "Move", message("new", "full")), refused("failed_precondition", 400));
}

#[test]
fn a_tree_moves_to_another_file_system_as_it_is() {
    let envd = Envd::with("carry", Options { small_disk_bytes: Some(4 << 20), ..Options::default() });
    fs::create_dir_all(envd.path("tree/a/b")).unwrap();
    fs::write(envd.path("tree/a/f"), "x").unwrap();
    std::os::unix::fs::symlink("a/f", envd.path("tree/link")).unwrap();
    std::os::unix::fs::symlink("nowhere", envd.path("tree/broken")).unwrap();
    fs::set_permissions(envd.path("tree/a/f"), fs::Permissions::from_mode(0o4751)).unwrap();
    fs::set_permissions(envd.path("tree/a"), fs::Permissions::from_mode(0o500)).unwrap();
    std::os::unix::fs::chown(envd.path("tree/a/b"), Some(7), Some(8)).unwrap();
    let path = |name: &str| envd.path(&format!("small/{name}"));
    // The disk is in the agent's mount namespace: it alone sees both.
    let list = |root: String| {
        let listed = ok(&envd, "ListDir", json!({ "path": root, "depth": 9 }));
        let shorten = |value: &Value| value.as_str().unwrap_or_default().replace(&root, "");
        let describe = |entry: &Value| {
            ["path", "type", "permissions", "owner", "group", "modifiedTime", "symlinkTarget"]
                .map(|key| shorten(&entry[key]))
                .join(" ")
        };
        listed["entries"].as_array().unwrap().iter().map(describe).collect::<Vec<_>>()
    };
    let before = list(envd.path("tree"));
    assert_eq!(before.len(), 5);
    let message = |from: String, to: String| json!({ "source": from, "destination": to });
    let moved = ok(&envd, "Move", message(envd.path("tree"), path("new/tree")));
    assert_eq!(moved["entry"]["path"], path("new/tree"));
    assert!(!fs::exists(envd.path("tree")).unwrap());
    assert_eq!(list(path("new/tree")), before);
    // And back, over a file and over an empty directory, but not over a full one.
    fs::write(envd.path("file"), "old").unwrap();
    fs::create_dir_all(envd.path("full/x")).unwrap();
    ok(&envd, "Move", message(path("new/tree/a/f"), envd.path("file")));
    assert_eq!(fs::read_to_string(envd.path("file")).unwrap(), "x");
    assert_eq!(
        code(&envd, "Move", message(path("new/tree"), envd.path("full"))),
        refused("failed_precondition", 400)
    );
    assert_eq!(
        code(&envd, "Move", message(path("new/tree"), envd.path("file"))),
        refused("invalid_argument", 400)
    );
    ok(&envd, "Move", message(path("new/tree"), envd.path("full/x")));
    assert!(fs::exists(envd.path("full/x/a/b")).unwrap());
    // What does not fit leaves everything where it was.
    fs::create_dir(envd.path("big")).unwrap();
    fs::write(envd.path("big/1"), "1").unwrap();
    fs::write(envd.path("big/2"), vec![1; 8 << 20]).unwrap();
    assert_eq!(code(&envd, "Move", message(envd.path("big"), path("big"))), refused("internal", 500));
    assert_eq!(fs::metadata(envd.path("big/2")).unwrap().len(), 8 << 20);
    let left = ok(&envd, "ListDir", json!({ "path": envd.path("small") }));
    assert_eq!(left["entries"].as_array().unwrap().len(), 1, "{left}");
}

#[test]
fn a_deep_tree_is_moved_and_removed() {
    let envd = Envd::with("deep", Options { small_disk_bytes: Some(64 << 20), ..Options::default() });
    let deep = "d/".repeat(800);
    ok(&envd, "MakeDir", json!({ "path": format!("{}/{deep}", envd.path("deep")) }));
    let (from, to) = (envd.path("deep"), envd.path("small/deep"));
    ok(&envd, "Move", json!({ "source": from, "destination": to }));
    ok(&envd, "Remove", json!({ "path": to }));
    assert_eq!(code(&envd, "Stat", json!({ "path": to })), refused("not_found", 404));
    // Deeper than a path can tell.
    let script =
        format!("mkdir {from} && cd {from} && perl -e 'for (1..4000) {{ mkdir \"d\"; chdir \"d\" or die }}'");
    assert_eq!(envd.shell(&script, &[]).finish().end["exitCode"], 0);
    ok(&envd, "Remove", json!({ "path": from }));
    assert!(!fs::exists(&from).unwrap());
}

#[test]
fn trees_are_removed_and_links_not_followed() {
    let envd = Envd::start("remove");
    fs::create_dir_all(envd.path("t/a/b")).unwrap();
    fs::create_dir(envd.path("kept")).unwrap();
    fs::write(envd.path("kept/file"), "").unwrap();
    symlink(envd.path("kept"), envd.path("t/link")).unwrap();
    symlink(envd.path("kept"), envd.path("link")).unwrap();
    for name in ["t", "t", "link", "never", "kept/file/below"] {
        assert_eq!(ok(&envd, "Remove", json!({ "path": envd.path(name) })), json!({}), "{name}");
    }
    assert!(!fs::exists(envd.path("t")).unwrap() && fs::symlink_metadata(envd.path("link")).is_err());
    assert!(fs::exists(envd.path("kept/file")).unwrap());
    for path in ["/", "", "//."] {
        assert_eq!(code(&envd, "Remove", json!({ "path": path })), refused("invalid_argument", 400));
    }
}

/// The events of a stream or of a watcher, as "KIND name".
fn plain(event: &Value) -> String {
    let kind = event["type"].as_str().unwrap().strip_prefix("EVENT_TYPE_").unwrap();
    format!("{kind} {}", event["name"].as_str().unwrap())
}

struct Watching(Events);

impl Watching {
    fn start(envd: &Envd, message: Value, headers: &[(&str, &str)]) -> Watching {
        let mut events = envd.stream_of(SERVICE, "WatchDir", &[message], headers);
        assert_eq!(events.next_frame(), Some((0, json!({ "start": {} }))));
        Watching(events)
    }

    fn next(&mut self) -> Value {
        let (flags, mut message) = self.0.next_frame().unwrap();
        assert_eq!(flags, 0, "{message}");
        message["filesystem"].take()
    }

    /// The events up to the one that says `last`.
    fn until(&mut self, last: &str) -> Vec<String> {
        let mut seen = Vec::new();
        while seen.last().is_none_or(|event| event != last) {
            seen.push(plain(&self.next()));
        }
        seen
    }
}

fn upload(envd: &Envd, path: &str) {
    let headers = [("content-type", "application/octet-stream")];
    assert_eq!(envd.ask("POST", &format!("/files?path={path}"), &headers, b"content").status, 200);
}

#[test]
fn a_watched_directory_tells_what_happens_in_it() {
    let envd = Envd::start("watch");
    let directory = envd.path("w");
    fs::create_dir(&directory).unwrap();
    let mut watching = Watching::start(&envd, json!({ "path": directory }), &[]);
    let at = |name: &str| format!("{directory}/{name}");
    upload(&envd, &at("new"));
    assert_eq!(watching.until("WRITE new"), ["CREATE new", "CHMOD new", "WRITE new"]);
    fs::set_permissions(at("new"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::rename(at("new"), at("other")).unwrap();
    fs::remove_file(at("other")).unwrap();
    assert_eq!(watching.until("REMOVE other"), ["CHMOD new", "RENAME new", "CREATE other", "REMOVE other"]);
    fs::create_dir(at("sub")).unwrap();
    fs::write(at("sub/unseen"), "").unwrap();
    fs::remove_dir_all(at("sub")).unwrap();
    assert_eq!(watching.until("REMOVE sub"), ["CREATE sub", "REMOVE sub"]);
    fs::remove_dir(&directory).unwrap();
    assert_eq!(watching.until("REMOVE ."), ["REMOVE ."]);
}

#[test]
fn new_directories_are_watched_with_all_that_is_in_them() {
    let envd = Envd::start("watch-deep");
    fs::create_dir_all(envd.path("w/old/deep")).unwrap();
    fs::create_dir_all(envd.path("outside/in")).unwrap();
    fs::write(envd.path("outside/in/file"), "").unwrap();
    let root = envd.path("w");
    let mut watching = Watching::start(&envd, json!({ "path": root, "recursive": true }), &[]);
    let at = |name: &str| format!("{root}/{name}");
    fs::write(at("old/deep/x"), "x").unwrap();
    assert_eq!(watching.until("WRITE old/deep/x"), ["CREATE old/deep/x", "WRITE old/deep/x"]);

    // Faster than anyone can watch it: nothing is lost, nothing is told twice.
    for round in 0..30 {
        let made = format!("r{round}/a/b/c");
        fs::create_dir_all(at(&made)).unwrap();
        fs::write(at(&format!("{made}/f")), "").unwrap();
        fs::write(at("end"), "").unwrap();
        fs::remove_file(at("end")).unwrap();
        let mut seen = watching.until("REMOVE end");
        seen.retain(|event| event.starts_with("CREATE") && event != "CREATE end");
        // Deep ones may be found after the mark was seen; they come next.
        while seen.len() < 5 {
            let event = plain(&watching.next());
            seen.extend(event.starts_with("CREATE").then_some(event));
        }
        let wanted = ["", "/a", "/a/b", "/a/b/c", "/a/b/c/f"].map(|below| format!("CREATE r{round}{below}"));
        assert_eq!(seen, wanted);
    }

    fs::rename(at("old"), at("moved")).unwrap();
    fs::write(at("moved/deep/y"), "").unwrap();
    let seen = watching.until("CREATE moved/deep/y");
    assert_eq!(seen, ["RENAME old", "CREATE moved", "CREATE moved/deep/y"]);
    fs::rename(at("moved"), envd.path("outside/gone")).unwrap();
    assert_eq!(watching.until("RENAME moved"), ["RENAME moved"]);
    fs::rename(envd.path("outside/in"), at("in")).unwrap();
    assert_eq!(watching.until("CREATE in/file"), ["CREATE in", "CREATE in/file"]);
    fs::write(envd.path("outside/gone/unseen"), "").unwrap();
    fs::set_permissions(at("in"), fs::Permissions::from_mode(0o700)).unwrap();
    assert_eq!(watching.until("CHMOD in"), ["CHMOD in"], "told once, and nothing of what has left");
}

#[test]
fn a_watcher_keeps_events_until_they_are_asked_for() {
    let envd = Envd::start("watcher");
    let root = envd.path("w");
    fs::create_dir(&root).unwrap();
    let message = json!({ "path": root, "recursive": true, "includeEntry": true });
    let id = ok(&envd, "CreateWatcher", message)["watcherId"].as_str().unwrap().to_string();
    let events = |id: &str| ok(&envd, "GetWatcherEvents", json!({ "watcherId": id }))["events"].take();
    assert_eq!(events(&id), json!([]));
    for round in 0..20 {
        fs::write(format!("{root}/f"), "x").unwrap();
        let seen = events(&id);
        let last = seen.as_array().unwrap().last().unwrap().clone();
        assert_eq!(plain(&last), "WRITE f", "round {round}: told as soon as it has happened");
        assert_eq!(
            (&last["entry"]["path"], &last["entry"]["size"]),
            (&json!(format!("{root}/f")), &json!("1"))
        );
    }
    fs::remove_file(format!("{root}/f")).unwrap();
    assert_eq!(events(&id), json!([{ "name": "f", "type": "EVENT_TYPE_REMOVE" }]));

    // It goes on when the VM does.
    assert_eq!(envd.control("/prepare", &json!({})).status, 200);
    fs::create_dir(format!("{root}/d")).unwrap();
    assert_eq!(envd.control("/init", &common::init(2, json!({}))).status, 204);
    wait_until("the new directory is watched", || {
        fs::write(format!("{root}/d/x"), "").unwrap();
        events(&id).as_array().unwrap().iter().any(|event| plain(event).ends_with("d/x"))
    });

    assert_eq!(ok(&envd, "RemoveWatcher", json!({ "watcherId": id })), json!({}));
    for method in ["GetWatcherEvents", "RemoveWatcher"] {
        assert_eq!(code(&envd, method, json!({ "watcherId": id })), refused("not_found", 404));
    }
}

#[test]
fn what_cannot_be_kept_is_told_as_lost() {
    let envd = Envd::start("watch-lost");
    let root = envd.path("w");
    fs::create_dir(&root).unwrap();
    let id = ok(&envd, "CreateWatcher", json!({ "path": root }))["watcherId"].take();
    let names = [format!("{root}/{}", "a".repeat(250)), format!("{root}/{}", "b".repeat(250))];
    fs::write(&names[0], "").unwrap();
    for round in 0..60_000 {
        fs::rename(&names[round % 2], &names[(round + 1) % 2]).unwrap();
    }
    let events = || call(&envd, "GetWatcherEvents", json!({ "watcherId": id }));
    let answer = events();
    assert_eq!((answer.status, answer.json()["code"].as_str()), (500, Some("data_loss")));
    assert_eq!(events().json(), json!({ "events": [] }), "once");
    fs::remove_file(&names[0]).unwrap();
    assert_eq!(events().json()["events"].as_array().unwrap().len(), 1);
    assert!(envd.resident_bytes_max() < 40 << 20, "{}", envd.resident_bytes_max());
}

#[test]
fn what_cannot_be_watched_is_refused_and_a_stream_has_its_limit() {
    let envd = Envd::with("watch-refused", Options { token: Some("t"), ..Options::default() });
    fs::write(envd.path("file"), "").unwrap();
    for (name, wanted) in [("missing", "not_found"), ("file", "invalid_argument")] {
        let message = json!({ "path": envd.path(name) });
        assert_eq!(code(&envd, "CreateWatcher", message.clone()).1, wanted);
        let mut stream = envd.stream_of(SERVICE, "WatchDir", &[message], &[]);
        let (flags, last) = stream.next_frame().unwrap();
        assert_eq!((flags, last["error"]["code"].as_str()), (2, Some(wanted)));
    }
    let headers = [("connect-timeout-ms", "1300"), ("keepalive-ping-interval", "1")];
    let mut watching = Watching::start(&envd, json!({ "path": envd.path("etc") }), &headers);
    assert_eq!(watching.0.next_frame(), Some((0, json!({ "keepalive": {} }))));
    let (flags, last) = watching.0.next_frame().unwrap();
    assert_eq!((flags, last["error"]["code"].as_str()), (2, Some("deadline_exceeded")));

    // One who leaves is forgotten.
    let instances = || {
        let fds = fs::read_dir(format!("/proc/{}/fd", envd.child.id())).unwrap().flatten();
        fds.filter(|fd| fs::read_link(fd.path()).is_ok_and(|to| to.to_string_lossy().contains("inotify")))
            .count()
    };
    wait_until("the watcher has ended", || instances() == 0);
    let watching = Watching::start(&envd, json!({ "path": envd.path("etc") }), &[]);
    assert_eq!(instances(), 1);
    thread::sleep(Duration::from_millis(20));
    drop(watching);
    wait_until("the watcher is gone", || instances() == 0);
}
