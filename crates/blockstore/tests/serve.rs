//! What the mounted file does, case by case.

mod support;

use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::process::Command;

use serde_json::json;
use support::header::{Blocks, name, parse_runs};
use support::{BLOCK, Directory, Server, allocated, private_mounts, punch, read, write};

const BUILD: [u8; 16] = [7; 16];
const B: u64 = BLOCK as u64;

/// A disk of 64 blocks over a build of 32, the even blocks of which hold their index + 1 in every byte.
struct Case {
    server: Server,
    directory: Directory,
}

impl Case {
    fn new() -> Self {
        private_mounts();
        let directory = Directory::new();
        let build = directory.create("build");
        build.set_len(32 * B).unwrap();
        let mut blocks = Blocks::default();
        for index in 0..32u64 {
            let stored = index % 2 == 0;
            blocks.0.push(stored.then_some((BUILD, index * B)));
            if stored {
                write(&build, index * B, &[index as u8 + 1; BLOCK]);
            }
        }
        blocks.write(&directory, "header");
        for file in ["top", "zeros"] {
            directory.create(file);
        }
        let mut case = Self { server: Server::spawn(&directory).0, directory };
        case.restart();
        case
    }

    fn restart(&mut self) {
        self.server.kill();
        let files = ["top", "zeros", "header", "build"].map(|name| self.directory.open(name));
        self.server = Server::over_build(&self.directory, 64 * B, &BUILD, files.each_ref());
    }

    fn rotate(&mut self) -> (Vec<support::header::RunRecord>, serde_json::Value) {
        let (top, zeros, runs) =
            (self.directory.create("top2"), self.directory.create("zeros2"), self.directory.create("runs"));
        let request = json!({"op": "rotate", "top": 0, "zeros": 1, "runs": 2});
        let sizes = self.server.ask(request, &[&top, &zeros, &runs]).unwrap();
        (parse_runs(&std::fs::read(self.directory.path("runs")).unwrap()), sizes)
    }

    /// The byte that fills a block, past the page cache.
    fn fill(&self, block: u64) -> u8 {
        let bytes = read(&self.server.file(true), block * B, BLOCK);
        assert!(bytes.iter().all(|byte| *byte == bytes[0]), "block {block} is mixed");
        bytes[0]
    }
}

#[test]
fn serves_the_build_and_zeros_beyond_it() {
    let case = Case::new();
    let metadata = case.server.file(false).metadata().unwrap();
    assert_eq!((metadata.size(), metadata.permissions().mode() & 0o777), (64 * B, 0o666));
    assert_eq!([0, 1, 30, 31, 32, 63].map(|block| case.fill(block)), [1, 0, 31, 0, 0, 0]);
    let names: Vec<_> = std::fs::read_dir(case.directory.path("mount"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(names, ["rootfs.ext4"]);
    assert_eq!(case.server.file(false).read_at(&mut [0; 9], 64 * B).unwrap(), 0);
}

#[test]
fn refuses_to_change_its_size_or_to_grow_a_write_past_it() {
    let case = Case::new();
    let file = case.server.file(false);
    assert!(file.set_len(B).is_err());
    assert!(file.write_at(&[1; BLOCK], 64 * B).is_err());
    assert_eq!(file.metadata().unwrap().size(), 64 * B);
    assert!(std::fs::write(case.directory.path("mount/other"), "x").is_err());
}

#[test]
fn a_partial_write_keeps_the_rest_of_its_block() {
    let mut case = Case::new();
    write(&case.server.file(false), 2 * B + 100, &[0xee; 200]);
    write(&case.server.file(true), 4 * B - 10, &[0xdd; BLOCK + 20]);
    case.restart();
    let bytes = read(&case.server.file(false), 2 * B, BLOCK);
    assert_eq!((bytes[99], bytes[100], bytes[299], bytes[300]), (3, 0xee, 0xee, 3));
    let bytes = read(&case.server.file(false), 3 * B, 3 * BLOCK);
    assert_eq!(
        (bytes[BLOCK - 11], bytes[BLOCK - 10], bytes[2 * BLOCK + 9], bytes[2 * BLOCK + 10]),
        (0, 0xdd, 0xdd, 0)
    );
    assert_eq!(allocated(&case.directory.open("top")), [2, 3, 4, 5]);
}

#[test]
fn zeros_over_a_build_stay_zeros() {
    let mut case = Case::new();
    write(&case.server.file(false), 0, &[0; 4 * BLOCK]);
    punch(&case.server.file(false), 6 * B, 2 * B + 100);
    let mode = rustix::fs::FallocateFlags::ZERO_RANGE;
    rustix::fs::fallocate(case.server.file(false), mode, 10 * B - 5, 10).unwrap();
    let check = |case: &Case| {
        assert_eq!([0, 1, 2, 3, 4, 6, 7, 12].map(|block| case.fill(block)), [0, 0, 0, 0, 5, 0, 0, 13]);
        let bytes = read(&case.server.file(true), 8 * B, 3 * BLOCK);
        assert_eq!((bytes[99], bytes[100]), (0, 9));
        assert_eq!(
            (bytes[2 * BLOCK - 6], bytes[2 * BLOCK], bytes[2 * BLOCK + 4], bytes[2 * BLOCK + 5]),
            (0, 0, 0, 11)
        );
    };
    check(&case);
    case.restart();
    check(&case);
    assert_eq!(allocated(&case.directory.open("top")), [8, 10], "zeros take no space");
}

#[test]
fn a_stored_block_that_turns_to_zero_is_freed_by_the_flush_and_can_be_written_again() {
    let mut case = Case::new();
    let file = case.server.file(false);
    write(&file, 0, &[0xaa; 3 * BLOCK]);
    file.sync_data().unwrap();
    write(&file, 0, &[0; 3 * BLOCK]);
    assert_eq!(
        allocated(&case.directory.open("top")),
        [0, 2],
        "no build has block 1, the others wait for the flush"
    );
    file.sync_data().unwrap();
    assert!(allocated(&case.directory.open("top")).is_empty());
    write(&file, 2 * B, &[0xbb; BLOCK]);
    drop(file);
    case.restart();
    assert_eq!([0, 1, 2].map(|block| case.fill(block)), [0, 0, 0xbb]);
}

#[test]
fn rotate_reports_the_changes_and_an_abort_takes_them_back_into_one_top() {
    let mut case = Case::new();
    write(&case.server.file(false), 4 * B, &[0xaa; 3 * BLOCK]);
    write(&case.server.file(false), 0, &[0; 4 * BLOCK]);
    write(&case.server.file(false), 40 * B, &[0; BLOCK]);
    let (runs, sizes) = case.rotate();
    let runs: Vec<_> = runs.iter().map(|run| (run.offset / B, run.length / B, run.kind)).collect();
    assert_eq!(runs, [(0, 1, 2), (2, 1, 2), (4, 3, 1)]);
    assert_eq!(sizes, json!({"stored_bytes": 3 * B, "zero_bytes": 2 * B}));
    let again = json!({"op": "rotate", "top": 0, "zeros": 1, "runs": 2});
    let files = ["top3", "zeros3", "runs3"].map(|name| case.directory.create(name));
    let refusal = case.server.ask(again, &[&files[0], &files[1], &files[2]]).unwrap_err();
    assert_eq!(refusal.0, "invalid_state");

    let file = case.server.file(false);
    write(&file, 2 * B, &[0xbb; BLOCK]);
    write(&file, 4 * B, &[0; BLOCK]);
    write(&file, 5 * B + 1, &[0xcc; 1]);
    punch(&file, 8 * B, B);
    file.sync_data().unwrap();
    drop(file);
    case.server.ask(json!({"op": "abort"}), &[]).unwrap();
    let check = |case: &Case| {
        assert_eq!([0, 2, 3, 4, 6, 8, 10].map(|block| case.fill(block)), [0, 0xbb, 0, 0, 0xaa, 0, 11]);
        assert_eq!(read(&case.server.file(false), 5 * B, 3), [0xaa, 0xcc, 0xaa]);
    };
    check(&case);
    assert_eq!(case.directory.open("top2").metadata().unwrap().len(), 0);
    case.restart();
    check(&case);
}

#[test]
fn a_flush_between_rotate_and_commit_and_a_commit_keep_everything() {
    let mut case = Case::new();
    write(&case.server.file(false), 4 * B, &[0xaa; 2 * BLOCK]);
    let (runs, _) = case.rotate();
    let file = case.server.file(false);
    write(&file, 5 * B, &[0xbb; BLOCK]);
    file.sync_data().unwrap();
    case.server.ask(json!({"op": "flush"}), &[]).unwrap();
    drop(file);

    let parent = Blocks((0..32).map(|index| (index % 2 == 0).then_some((BUILD, index * B))).collect());
    let wrong = parent.write(&case.directory, "wrong");
    let (build, top) = (case.directory.open("build"), case.directory.open("top"));
    let request = json!({"op": "commit", "header": 0, "builds": {name(&BUILD): 1}});
    assert_eq!(case.server.ask(request, &[&wrong, &build]).unwrap_err().0, "invalid_request");

    let child = [8; 16];
    let header = parent.apply(&runs, child, 64).write(&case.directory, "header2");
    let request = json!({"op": "commit", "header": 0, "builds": {name(&BUILD): 1, name(&child): 2}});
    case.server.ask(request.clone(), &[&header, &build, &top]).unwrap();
    assert_eq!([2, 4, 5, 6].map(|block| case.fill(block)), [3, 0xaa, 0xbb, 7]);
    assert_eq!(case.server.ask(request, &[&header, &build, &top]).unwrap_err().0, "invalid_state");
    assert_eq!(allocated(&case.directory.open("top2")), [5]);
}

#[test]
fn odd_requests_are_answered_and_change_nothing() {
    let mut case = Case::new();
    for request in [
        json!({"op": "nonsense"}),
        json!({}),
        json!({"op": "rotate"}),
        json!({"op": "rotate", "top": 0, "zeros": 1, "runs": 2}),
        json!({"op": "commit", "header": 70}),
        json!({"op": "commit", "header": -1}),
    ] {
        assert_eq!(case.server.ask(request, &[]).unwrap_err().0, "invalid_request");
    }
    assert_eq!(case.server.ask(json!({"op": "start"}), &[]).unwrap_err().0, "invalid_state");
    assert_eq!(case.fill(2), 3);
    case.server.ask(json!({"op": "abort"}), &[]).unwrap();
    let stats = case.server.ask(json!({"op": "stats"}), &[]).unwrap();
    assert_eq!((&stats["uncommitted"], &stats["stored_bytes"]), (&json!(false), &json!(0)));
}

#[test]
fn a_start_with_wrong_files_is_refused() {
    private_mounts();
    let directory = Directory::new();
    let (mut server, fuse) = Server::spawn(&directory);
    assert_eq!(server.ask(json!({"op": "flush"}), &[]).unwrap_err().0, "invalid_state");
    let (top, zeros) = (directory.create("top"), directory.create("zeros"));
    let ask = |server: &mut Server, size: u64, header: Option<&[u8]>| {
        let mut request = json!({"op": "start", "size_bytes": size, "fuse": 0, "top": 1, "zeros": 2});
        let file = directory.create("header");
        if let Some(bytes) = header {
            file.write_all_at(bytes, 0).unwrap();
            request["header"] = json!(3);
        }
        server.ask(request, &[&fuse, &top, &zeros, &file]).map_err(|refusal| refusal.0)
    };
    let blocks = Blocks(vec![Some((BUILD, 0)), None]);
    assert_eq!(ask(&mut server, 100, None), Err("invalid_request".into()));
    assert_eq!(ask(&mut server, 0, None), Err("invalid_request".into()));
    assert_eq!(
        ask(&mut server, B, Some(&blocks.serialize())),
        Err("invalid_request".into()),
        "header too large"
    );
    assert_eq!(ask(&mut server, 2 * B, Some(&blocks.serialize()[..70])), Err("invalid_request".into()));
    assert_eq!(ask(&mut server, 2 * B, Some(&blocks.serialize())), Err("invalid_request".into()), "no build");
    top.set_len(3 * B).unwrap();
    assert_eq!(ask(&mut server, 2 * B, None), Err("invalid_request".into()), "top too long");
    ask(&mut server, 3 * B, None).unwrap();
    assert_eq!(read(&server.file(false), 0, 3 * BLOCK), [0; 3 * BLOCK]);
}

#[test]
fn serves_confined() {
    let case = Case::new();
    for task in std::fs::read_dir(format!("/proc/{}/task", case.server.pid())).unwrap() {
        let status = std::fs::read_to_string(task.unwrap().path().join("status")).unwrap();
        assert!(status.contains("Seccomp:\t2"), "{status}");
    }
}

#[test]
fn leaves_when_the_control_channel_closes() {
    let case = Case::new();
    assert!(case.server.hang_up().success());
}

#[test]
fn probes_a_directory() {
    let directory = Directory::new();
    let run = |path: &std::path::Path| {
        Command::new(env!("CARGO_BIN_EXE_thaw-blockstore")).arg("probe").arg(path).output().unwrap()
    };
    let good = run(&directory.path(""));
    assert_eq!(String::from_utf8_lossy(&good.stdout), "{\"ok\":true}\n");
    assert!(good.status.success());
    let bad = run(std::path::Path::new("/proc"));
    let answer: serde_json::Value = serde_json::from_slice(&bad.stdout).unwrap();
    assert_eq!((bad.status.code(), &answer["ok"]), (Some(1), &json!(false)));
    assert!(answer["reason"].as_str().is_some_and(|reason| !reason.is_empty()));
}
