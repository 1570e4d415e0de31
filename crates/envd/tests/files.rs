//! `/files` against the real binary.

mod common;

use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::time::{Duration, Instant};

use common::{Answer, Envd, Options, Reader, open, wait_until};
use serde_json::json;

const RAW: (&str, &str) = ("content-type", "application/octet-stream");

fn get(envd: &Envd, path: &str) -> Answer {
    envd.ask("GET", &format!("/files?path={path}&username=root"), &[], b"")
}

fn put(envd: &Envd, path: &str, user: &str, body: &[u8]) -> Answer {
    envd.ask("POST", &format!("/files?path={path}&username={user}"), &[RAW], body)
}

/// Bytes that do not repeat within a file.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

#[test]
fn large_files_pass_through_little_memory() {
    let envd = Envd::start("large");
    let path = envd.path("large");
    let content = noise(64 << 20);
    let answer = put(&envd, &path, "root", &content);
    assert_eq!(answer.json(), json!([{ "path": path, "name": "large", "type": "file" }]));
    assert!(fs::read(&path).unwrap() == content);
    let answer = get(&envd, &path);
    assert_eq!(answer.header("content-length"), Some("67108864"));
    assert!(answer.body == content);
    // A client that takes nothing makes the agent read nothing ahead.
    let _idle: Vec<Reader> =
        (0..8).map(|_| open(envd.port, "GET", &format!("/files?path={path}"), &[], b"")).collect();
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert!(envd.resident_bytes_max() < 24 << 20, "{}", envd.resident_bytes_max());
}

#[test]
fn a_chunked_upload_needs_no_length() {
    let envd = Envd::start("chunked");
    let path = envd.path("chunked");
    let mut stream = TcpStream::connect(("127.0.0.1", envd.port)).unwrap();
    write!(
        stream,
        "POST /files?path={path} HTTP/1.1\r\nhost: g\r\ntransfer-encoding: chunked\r\n\
         content-type: application/octet-stream\r\n\r\n3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n"
    )
    .unwrap();
    assert_eq!(Reader::new(stream, "POST").read().status, 200);
    assert_eq!(fs::read_to_string(path).unwrap(), "abcdefg");
}

#[test]
fn an_upload_that_breaks_off_is_no_success() {
    let envd = Envd::start("broken");
    let path = envd.path("broken");
    let mut stream = TcpStream::connect(("127.0.0.1", envd.port)).unwrap();
    write!(
        stream,
        "POST /files?path={path} HTTP/1.1\r\nhost: g\r\ncontent-length: 100\r\n\
         content-type: application/octet-stream\r\n\r\nabc"
    )
    .unwrap();
    drop(stream);
    assert_eq!(envd.ask("GET", "/health", &[], b"").status, 204);
}

/// The head and the start of an upload that its length says is not complete.
fn begin(envd: &Envd, path: &str, start: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", envd.port)).unwrap();
    let length = start.len() + 1;
    write!(
        stream,
        "POST /files?path={path} HTTP/1.1\r\nhost: g\r\ncontent-length: {length}\r\n\
         content-type: application/octet-stream\r\n\r\n"
    )
    .unwrap();
    stream.write_all(start).unwrap();
    stream
}

#[test]
fn uploads_of_one_file_wait_for_each_other() {
    let envd = Envd::start("turns");
    for name in ["same", "link"] {
        let path = envd.path(&format!("file-{name}"));
        let other = if name == "same" { path.clone() } else { envd.path(name) };
        if other != path {
            std::os::unix::fs::symlink(&path, &other).unwrap();
        }
        let first = begin(&envd, &path, b"of the first");
        wait_until("the first writes", || fs::read(&path).is_ok_and(|content| !content.is_empty()));
        let mut second = begin(&envd, &other, b"of the secon");
        std::thread::sleep(std::time::Duration::from_millis(100));
        assert_eq!(fs::read_to_string(&path).unwrap(), "of the first", "{name} waits");
        assert_eq!(put(&envd, &envd.path("other"), "root", b"x").status, 200, "others do not");
        second.write_all(b"d").unwrap();
        first.shutdown(std::net::Shutdown::Both).unwrap();
        assert_eq!(Reader::new(second, "POST").read().status, 200);
        assert_eq!(fs::read_to_string(&path).unwrap(), "of the second", "{name}");
    }
}

#[test]
fn what_is_left_of_a_broken_upload_never_comes_after_the_next() {
    let envd = Envd::start("late-chunk");
    let path = envd.path("file");
    let content = noise(1 << 20);
    for round in 0..40 {
        drop(begin(&envd, &path, &content[..content.len() >> (round % 6)]));
        assert_eq!(put(&envd, &path, "root", b"whole").status, 200);
        assert_eq!(fs::read_to_string(&path).unwrap_or_default(), "whole", "round {round}");
    }
    std::thread::sleep(std::time::Duration::from_millis(100));
    assert_eq!(fs::read_to_string(&path).unwrap(), "whole");
}

#[test]
fn an_upload_makes_directories_for_the_user_and_writes_in_place() {
    let envd = Envd::start("parents");
    let path = envd.path("new/deep/a.txt");
    assert_eq!(put(&envd, &path, "nobody", b"first content").status, 200);
    for (name, mode) in [("new", 0o755), ("new/deep", 0o755), ("new/deep/a.txt", 0o644)] {
        let found = fs::metadata(envd.path(name)).unwrap();
        assert_eq!((found.uid(), found.gid(), found.mode() & 0o777), (65534, 65534, mode), "{name}");
    }
    assert_eq!(fs::metadata(&envd.root).unwrap().uid(), 0, "what was there keeps its owner");
    let inode = fs::metadata(&path).unwrap().ino();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(put(&envd, &path, "root", b"second").status, 200);
    let found = fs::metadata(&path).unwrap();
    assert_eq!((found.ino(), found.uid(), found.mode() & 0o777), (inode, 0, 0o600));
    assert_eq!(fs::read_to_string(&path).unwrap(), "second");
}

#[test]
fn a_form_carries_several_files() {
    let envd = Envd::start("form");
    let part = |name: &str, file: &str, body: &str| {
        format!("--B\r\nContent-Disposition: form-data; name=\"{name}\"{file}\r\n\r\n{body}\r\n")
    };
    let named = |file: &str, body: &str| part("file", &format!("; filename=\"{}\"", envd.path(file)), body);
    let send = |query: &str, parts: &[String]| {
        let body = parts.concat() + "--B--\r\n";
        let headers = [("content-type", "multipart/form-data; boundary=B")];
        envd.ask("POST", &format!("/files?{query}"), &headers, body.as_bytes())
    };
    let answer = send("", &[named("x/a", "one"), part("other", "", "ignored"), named("b", "two")]);
    let names: Vec<String> =
        answer.json().as_array().unwrap().iter().map(|e| e["path"].as_str().unwrap().into()).collect();
    assert_eq!(names, [envd.path("x/a"), envd.path("b")]);
    assert_eq!(fs::read_to_string(envd.path("x/a")).unwrap(), "one");
    assert_eq!(fs::read_to_string(envd.path("b")).unwrap(), "two");

    let query = format!("path={}", envd.path("c"));
    assert_eq!(
        send(&query, &[part("file", "", "three")]).status,
        200,
        "no file name is needed beside a path"
    );
    assert_eq!(fs::read_to_string(envd.path("c")).unwrap(), "three");
    assert_eq!(send(&query, &[named("d", "four")]).status, 200, "the path goes before the file name");
    assert_eq!(fs::read_to_string(envd.path("c")).unwrap(), "four");

    assert_eq!(send("", &[named("e", "1"), named("e", "2")]).status, 400, "the same file twice");
    assert_eq!(send("", &[part("file", "", "x")]).status, 400, "a file without a name");
    assert_eq!(send("", &["--B\r\nnonsense".into()]).status, 400);
    let headers = [("content-type", "multipart/form-data")];
    assert_eq!(envd.ask("POST", "/files", &headers, b"").status, 400);
}

#[test]
fn errors_have_a_status_and_a_shape() {
    let envd = Envd::start("errors");
    let root = envd.path("");
    fs::write(envd.path("file"), "x").unwrap();
    let check = |answer: Answer, status: u16| {
        let body = answer.json();
        assert_eq!((answer.status, body["code"].as_u64()), (status, Some(status.into())), "{body}");
        assert!(body["message"].is_string());
        assert_eq!(body.as_object().unwrap().len(), 2);
    };
    check(get(&envd, &envd.path("missing")), 404);
    check(get(&envd, &envd.path("file/below")), 404);
    check(get(&envd, &root), 400);
    check(get(&envd, "~other/x"), 400);
    check(get(&envd, "a%00b"), 400);
    check(get(&envd, "/dev/zero"), 400);
    check(put(&envd, "/dev/null", "root", b"x"), 400);
    check(put(&envd, &root, "root", b"x"), 400);
    check(put(&envd, &envd.path("file/below"), "root", b"x"), 400);
    check(put(&envd, &envd.path(&"n".repeat(300)), "root", b"x"), 400);
    check(put(&envd, "", "root", b"x"), 400);
    check(put(&envd, &envd.path("a"), "ghost", b"x"), 401);
    check(
        envd.ask("POST", &format!("/files?path={}", envd.path("a")), &[("content-type", "text/plain")], b""),
        400,
    );
    check(envd.ask("DELETE", "/files?path=/x", &[], b""), 405);
    let path = format!("/files?path={}", envd.path("file"));
    check(envd.ask("GET", &path, &[("accept-encoding", "br, identity;q=0")], b""), 406);
    std::os::unix::fs::symlink("loop", envd.path("loop")).unwrap();
    check(get(&envd, &envd.path("loop")), 400);
    let fifo = envd.path("fifo");
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    check(get(&envd, &fifo), 400);
    check(put(&envd, &fifo, "root", b"x"), 400);
    assert_eq!(fs::metadata("/dev/null").unwrap().uid(), 0);
}

#[test]
fn a_full_disk_is_told() {
    let envd = Envd::with("full", Options { small_disk_bytes: Some(1 << 20), ..Options::default() });
    let answer = put(&envd, &envd.path("small/big"), "root", &noise(8 << 20));
    assert_eq!((answer.status, answer.json()["code"].as_u64()), (507, Some(507)), "{}", answer.text());
    assert_eq!(put(&envd, &envd.path("small/big"), "root", b"fits").status, 200);
}

/// A reset would take the answer with it, so the connection is closed only after the client had time to read.
#[test]
fn who_sends_on_after_a_refusal_sees_it() {
    let envd = Envd::start("late");
    let path = envd.path("");
    let mut stream = TcpStream::connect(("127.0.0.1", envd.port)).unwrap();
    let head = format!(
        "POST /files?path={path}&username=root HTTP/1.1\r\nhost: x\r\n\
         content-type: application/octet-stream\r\ncontent-length: 99999999999\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    let piece = [0; 64 * 1024];
    // The answer is there from here on; what is sent until it is seen must be taken.
    let peeking = stream.try_clone().unwrap();
    let answered = std::thread::spawn(move || peeking.peek(&mut [0]).unwrap());
    while !answered.is_finished() {
        stream.write_all(&piece).unwrap();
    }
    let until = Instant::now() + Duration::from_millis(500);
    while Instant::now() < until {
        stream.write_all(&piece).unwrap();
    }
    assert_eq!(Reader::new(stream, "POST").read().status, 400);
}

#[test]
fn files_that_the_kernel_makes_up_are_read_to_their_end() {
    let envd = Envd::start("proc");
    let answer = get(&envd, "/proc/version");
    assert_eq!(answer.text(), fs::read_to_string("/proc/version").unwrap());
    assert_ne!(answer.header("content-length"), Some("0"));
    assert_eq!(get(&envd, "/sys/kernel/mm/transparent_hugepage/enabled").status, 200);
    let large = get(&envd, "/proc/kallsyms");
    assert!(large.status == 200 && large.body.len() > 128 * 1024);
    fs::write(envd.path("empty"), "").unwrap();
    assert_eq!(get(&envd, &envd.path("empty")).header("content-length"), Some("0"));
}

#[test]
fn names_and_paths_survive_the_way() {
    let envd = Envd::start("names");
    fs::write(envd.path("a b ü\".txt"), "x").unwrap();
    for name in ["a%20b%20%C3%BC%22.txt", "a+b+%C3%BC%22.txt"] {
        let answer = get(&envd, &envd.path(name));
        assert_eq!(answer.text(), "x");
        let wanted = "inline; filename=\"a_b___.txt\"; filename*=UTF-8''a%20b%20%C3%BC%22.txt";
        assert_eq!(answer.header("content-disposition"), Some(wanted));
    }
    assert_eq!(
        envd.ask("HEAD", &format!("/files?path={}", envd.path("a+b+%C3%BC%22.txt")), &[], b"").status,
        200
    );
}

#[test]
fn a_compressed_upload_is_stored_plain() {
    let envd = Envd::start("gzip");
    let content = noise(300_000);
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(&content).unwrap();
    let packed = encoder.finish().unwrap();
    let path = envd.path("plain");
    let send = |coding: &str, body: &[u8]| {
        envd.ask("POST", &format!("/files?path={path}"), &[RAW, ("content-encoding", coding)], body)
    };
    assert_eq!(send("gzip", &packed).status, 200);
    assert!(fs::read(&path).unwrap() == content);
    assert_eq!(send("gzip", b"not gzip at all").status, 400);
    assert_eq!(send("gzip", &packed[..packed.len() / 2]).status, 400, "cut off");
    assert_eq!(send("br", &packed).status, 400);
}

#[test]
fn metadata_is_kept_with_the_file() {
    let envd = Envd::start("metadata");
    let path = envd.path("noted");
    let send = |headers: &[(&str, &str)]| {
        let mut all = vec![RAW];
        all.extend(headers);
        envd.ask("POST", &format!("/files?path={path}"), &all, b"x")
    };
    let answer = send(&[("X-Metadata-Foo", "bar"), ("x-metadata-b", "2")]);
    assert_eq!(answer.json()[0]["metadata"], json!({ "foo": "bar", "b": "2" }));
    let attributes = || {
        let mut names = vec![0u8; 4096];
        let length = rustix::fs::listxattr(&path, &mut names[..]).unwrap();
        String::from_utf8(names[..length].to_vec()).unwrap()
    };
    assert!(attributes().contains("user.e2b.foo\0"));
    let answer = send(&[]);
    assert_eq!(answer.json(), json!([{ "path": path, "name": "noted", "type": "file" }]));
    assert!(!attributes().contains("user.e2b"));
    assert_eq!(send(&[("x-metadata-a", &"v".repeat(4100))]).status, 400);
    assert_eq!(send(&[("x-metadata-a", "\u{fc}")]).status, 400);
    assert_eq!(send(&[(&format!("x-metadata-{}", "k".repeat(247)), "v")]).status, 400);
}

#[test]
fn a_signed_url_opens_one_path() {
    use base64::Engine;
    use sha2::Digest;

    let mut envd = Envd::with("signed", Options { token: Some("t0k"), ..Options::default() });
    envd.token = None;
    let path = envd.path("signed");
    fs::write(&path, "x").unwrap();
    let sign = |raw: &str| {
        let digest = sha2::Sha256::digest(raw);
        let text = base64::prelude::BASE64_STANDARD_NO_PAD.encode(digest);
        format!("v1_{text}").replace('+', "%2B").replace('/', "%2F")
    };
    let ask = |method: &str, query: String| {
        envd.ask(method, &format!("/files?path={path}{query}"), &[RAW], b"x").status
    };
    let read = sign(&format!("{path}:read::t0k"));
    assert_eq!(ask("GET", format!("&signature={read}")), 200);
    assert_eq!(ask("POST", format!("&signature={read}")), 401);
    assert_eq!(ask("POST", format!("&signature={}", sign(&format!("{path}:write::t0k")))), 200);
    assert_eq!(ask("GET", String::new()), 401);
    assert_eq!(ask("GET", format!("&signature={}", sign(&format!("{path}:read::other")))), 401);
    let until = |seconds: &str| {
        let signature = sign(&format!("{path}:read:root:t0k:{seconds}"));
        format!("&username=root&signature_expiration={seconds}&signature={signature}")
    };
    assert_eq!(ask("GET", until("99999999999")), 200);
    assert_eq!(ask("GET", until("1000000000")), 401);
}

#[test]
fn a_part_of_a_file_is_read() {
    let envd = Envd::start("range");
    let path = envd.path("file");
    let content = noise(400_000);
    fs::write(&path, &content).unwrap();
    let ask = |headers: &[(&str, &str)]| envd.ask("GET", &format!("/files?path={path}"), headers, b"");
    let whole = ask(&[]);
    assert_eq!(whole.header("accept-ranges"), Some("bytes"));
    let modified = whole.header("last-modified").unwrap().to_string();
    for (range, part) in [("0-9", 0..10), ("1000-300999", 1000..301_000), ("399000-", 399_000..400_000)] {
        let answer = ask(&[("range", &format!("bytes={range}")), ("accept-encoding", "gzip")]);
        assert_eq!((answer.status, answer.header("content-encoding")), (206, None));
        let wanted = format!("bytes {}-{}/400000", part.start, part.end - 1);
        assert_eq!(answer.header("content-range"), Some(wanted.as_str()));
        assert!(answer.body == content[part], "{range}");
    }
    assert_eq!(ask(&[("range", "bytes=400000-")]).status, 416);
    assert_eq!(ask(&[("if-modified-since", &modified)]).status, 304);
    assert_eq!(ask(&[("if-unmodified-since", "Mon, 23 Nov 1998 10:00:00 GMT")]).status, 412);
    let answer = ask(&[("range", "bytes=0-1"), ("if-range", "Mon, 23 Nov 1998 10:00:00 GMT")]);
    assert_eq!((answer.status, answer.body.len()), (200, content.len()));
    let answer = envd.ask("GET", "/files?path=/proc/version", &[("range", "bytes=0-1")], b"");
    assert_eq!(answer.status, 200);
}

#[test]
fn a_file_is_compressed_for_those_who_ask() {
    use std::io::Read;

    let envd = Envd::start("gzip-read");
    let path = envd.path("file");
    for content in [b"small".to_vec(), vec![b'x'; 128 * 1024], noise(1 << 20)] {
        fs::write(&path, &content).unwrap();
        let read = |accepted: &str| {
            envd.ask("GET", &format!("/files?path={path}"), &[("accept-encoding", accepted)], b"")
        };
        let answer = read("gzip");
        assert_eq!((answer.status, answer.header("content-encoding")), (200, Some("gzip")));
        assert_eq!(answer.header("vary"), Some("Accept-Encoding"));
        let mut plain = Vec::new();
        flate2::read::GzDecoder::new(&answer.body[..]).read_to_end(&mut plain).unwrap();
        assert!(plain == content);
        assert!(read("gzip, deflate").body == content);
    }
    let answer = envd.ask("GET", "/files?path=/proc/version", &[("accept-encoding", "gzip")], b"");
    let mut plain = String::new();
    flate2::read::GzDecoder::new(&answer.body[..]).read_to_string(&mut plain).unwrap();
    assert_eq!(plain, fs::read_to_string("/proc/version").unwrap());
}

#[test]
fn files_are_composed_and_gone() {
    let envd = Envd::start("compose");
    for (name, text) in [("1", "one "), ("2", ""), ("3", "three")] {
        fs::write(envd.path(name), text).unwrap();
    }
    let compose = |sources: &[&str], destination: &str, user: &str| {
        let sources: Vec<String> = sources.iter().map(|name| envd.path(name)).collect();
        let body =
            json!({ "source_paths": sources, "destination": envd.path(destination), "username": user });
        envd.ask(
            "POST",
            "/files/compose",
            &[("content-type", "application/json")],
            body.to_string().as_bytes(),
        )
    };
    let refused = |answer: Answer, status: u16| {
        assert_eq!(answer.status, status, "{}", answer.text());
        assert_eq!(answer.json()["code"], status);
    };
    refused(compose(&["1", "gone"], "all", "nobody"), 404);
    refused(compose(&["1", "3"], "3", "nobody"), 400);
    refused(compose(&["1", "etc"], "all", "nobody"), 400);
    refused(compose(&[], "all", "nobody"), 400);
    refused(compose(&["1"], "all", "nobodyx"), 401);
    refused(envd.ask("POST", "/files/compose", &[], b"{}"), 400);
    assert_eq!(fs::read_to_string(envd.path("3")).unwrap(), "three", "nothing is touched");
    assert!(!fs::exists(envd.path("all")).unwrap());
    let answer = compose(&["1", "2", "3"], "new/all", "nobody");
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!((&answer.json()["path"], &answer.json()["size"]), (&json!(envd.path("new/all")), &json!("9")));
    assert_eq!(fs::read_to_string(envd.path("new/all")).unwrap(), "one three");
    assert_eq!(fs::metadata(envd.path("new/all")).unwrap().uid(), 65534);
    for name in ["1", "2", "3"] {
        assert!(!fs::exists(envd.path(name)).unwrap());
    }
}
