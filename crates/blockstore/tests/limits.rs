//! A full disk, many users at once, many blocks, and a real file system inside.

mod support;

use std::os::unix::fs::FileExt;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::mount::{MountFlags, UnmountFlags};
use serde_json::json;
use support::header::{Blocks, name};
use support::random::Random;
use support::{BLOCK, Directory, Server, allocated, private_mounts, punch, read, write};

const B: u64 = BLOCK as u64;
const BUILD: [u8; 16] = [3; 16];

#[test]
fn out_of_space_fails_that_write_and_nothing_else() {
    private_mounts();
    let (directory, small) = (Directory::new(), Directory::new());
    std::fs::create_dir(small.path("mount")).unwrap();
    let options = Some(c"size=2m");
    rustix::mount::mount("thaw-test", small.path("mount"), "tmpfs", MountFlags::empty(), options).unwrap();
    let build = directory.create("build");
    write(&build, 0, &[0x11; 64 * BLOCK]);
    let header = Blocks((0..64).map(|block| Some((BUILD, block * B))).collect()).write(&directory, "header");
    let (top, zeros) = (small.create("mount/top"), small.create("mount/zeros"));
    let files = [&top, &zeros, &header, &build];
    let server = Server::over_build(&directory, 2048 * B, &BUILD, files);

    let file = server.file(false);
    let mut random = Random::new(1);
    let mut stored: Vec<(u64, Vec<u8>)> = Vec::new();
    let failure = loop {
        let (block, bytes) = (64 + stored.len() as u64 * 3, random.bytes(3 * BLOCK));
        match file.write_all_at(&bytes, block * B) {
            Ok(()) => stored.push((block, bytes)),
            Err(error) => break (block, error),
        }
    };
    assert_eq!(failure.1.raw_os_error(), Some(rustix::io::Errno::NOSPC.raw_os_error()));
    let check = |stored: &[(u64, Vec<u8>)]| {
        for (block, bytes) in stored {
            assert!(read(&server.file(true), block * B, bytes.len()) == *bytes, "block {block}");
        }
        assert_eq!(read(&server.file(true), 0, 64 * BLOCK), [0x11; 64 * BLOCK]);
    };
    check(&stored);
    file.sync_data().expect("a flush still works");
    write(&file, stored[0].0 * B, &[0x22; 3 * BLOCK]);
    stored[0].1.fill(0x22);
    check(&stored);

    for (block, bytes) in stored.drain(..10) {
        punch(&file, block * B, bytes.len() as u64);
    }
    write(&file, failure.0 * B, &[0x33; 3 * BLOCK]);
    write(&file, 0, &[0; BLOCK]);
    write(&file, 0, &[0x11; BLOCK]);
    stored.push((failure.0, vec![0x33; 3 * BLOCK]));
    check(&stored);
    drop(file);
    drop(server);
    rustix::mount::unmount(small.path("mount"), UnmountFlags::DETACH).unwrap();
}

#[test]
fn many_threads_and_rotations_do_not_disturb_each_other() {
    const THREADS: u64 = 4;
    const BLOCKS: u64 = 4000;
    private_mounts();
    let directory = Directory::new();
    let build = directory.create("build");
    let original = Random::new(9).bytes(BLOCKS as usize * BLOCK);
    write(&build, 0, &original);
    let mut header = Blocks((0..BLOCKS).map(|block| Some((BUILD, block * B))).collect());
    let (top, zeros) = (directory.create("top0"), directory.create("zeros0"));
    let file = header.write(&directory, "header");
    let mut server = Server::over_build(&directory, BLOCKS * B, &BUILD, [&top, &zeros, &file, &build]);

    let stop = AtomicBool::new(false);
    let files: Vec<_> = (0..THREADS).map(|index| server.file(index % 2 == 0)).collect();
    std::thread::scope(|scope| {
        for (index, file) in files.iter().enumerate() {
            let (stop, original) = (&stop, &original);
            scope.spawn(move || {
                use_stripe(file, index as u64, THREADS, original, stop);
            });
        }
        let _stop = StopOnDrop(&stop);
        let mut builds = vec![(BUILD, "build".to_owned())];
        for round in 1..=12 {
            let names = [format!("top{round}"), format!("zeros{round}"), "runs".into()];
            let files = names.map(|name| directory.create(&name));
            let request = json!({"op": "rotate", "top": 0, "zeros": 1, "runs": 2});
            server.ask(request, &[&files[0], &files[1], &files[2]]).unwrap();
            std::thread::sleep(std::time::Duration::from_millis(30));
            if round % 3 == 0 {
                server.ask(json!({"op": "abort"}), &[]).unwrap();
                std::fs::rename(
                    directory.path(&format!("top{}", round - 1)),
                    directory.path(&format!("top{round}")),
                )
                .unwrap();
                continue;
            }
            server.ask(json!({"op": "flush"}), &[]).unwrap();
            let runs = support::header::parse_runs(&std::fs::read(directory.path("runs")).unwrap());
            let child = [round as u8 + 10; 16];
            header = header.apply(&runs, child, BLOCKS as usize);
            builds.push((child, format!("top{}", round - 1)));
            let mut fds = vec![header.write(&directory, "header")];
            let mut request = json!({"op": "commit", "header": 0, "builds": {}});
            for (build, file) in &builds {
                request["builds"][name(build)] = json!(fds.len());
                fds.push(directory.open(file));
            }
            let fds: Vec<&dyn std::os::fd::AsFd> = fds.iter().map(|file| file as _).collect();
            server.ask(request, &fds).unwrap();
        }
    });
}

/// Ends the threads also when the test fails.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn thousands_of_zeroed_blocks_are_freed_without_waiting_for_a_flush() {
    const BLOCKS: u64 = 12_000;
    private_mounts();
    let directory = Directory::new();
    let build = directory.create("build");
    build.set_len(BLOCKS * B).unwrap();
    let header =
        Blocks((0..BLOCKS).map(|block| Some((BUILD, block * B))).collect()).write(&directory, "header");
    let (top, zeros) = (directory.create("top"), directory.create("zeros"));
    let start = || Server::over_build(&directory, BLOCKS * B, &BUILD, [&top, &zeros, &header, &build]);
    let mut server = start();
    let file = server.file(false);
    let odd = || (1..BLOCKS).step_by(2);
    odd().for_each(|block| write(&file, block * B, &[0xaa; BLOCK]));
    assert_eq!(allocated(&directory.open("top")).len() as u64, BLOCKS / 2);
    odd().for_each(|block| punch(&file, block * B, B));
    assert!((allocated(&directory.open("top")).len() as u64) < BLOCKS / 4);
    drop(file);
    let stats = server.ask(json!({"op": "stats"}), &[]).unwrap();
    assert_eq!((&stats["stored_bytes"], &stats["zero_bytes"]), (&json!(0), &json!(BLOCKS / 2 * B)));
    server.kill();
    server = start();
    assert!(read(&server.file(true), 0, (BLOCKS * B) as usize).iter().all(|byte| *byte == 0));
    server.ask(json!({"op": "flush"}), &[]).unwrap();
    assert!(allocated(&directory.open("top")).is_empty());
}

#[test]
fn a_file_system_inside_can_be_grown() {
    private_mounts();
    let directory = Directory::new();
    let run = |program: &str, arguments: &[&str], path: &str| {
        let output = Command::new(program).args(arguments).arg(directory.path(path)).output().unwrap();
        assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    };
    let image = directory.create("build");
    image.set_len(4096 * B).unwrap();
    run("mkfs.ext4", &["-q", "-F", "-b", "4096"], "build");
    let stored = allocated(&image);
    let blocks = (0..4096).map(|block| stored.binary_search(&block).is_ok().then_some((BUILD, block * B)));
    let header = Blocks(blocks.collect()).write(&directory, "header");
    let (top, zeros) = (directory.create("top"), directory.create("zeros"));
    let server = Server::over_build(&directory, 4 * 4096 * B, &BUILD, [&top, &zeros, &header, &image]);
    run("e2fsck", &["-fp"], "mount/rootfs.ext4");
    run("resize2fs", &[], "mount/rootfs.ext4");
    run("e2fsck", &["-fn"], "mount/rootfs.ext4");
    let superblock = read(&server.file(true), 1024, 8);
    assert_eq!(superblock[4..8], (4 * 4096_u32).to_le_bytes());
}

/// Writes, zeroes and reads every `of`th pair of blocks, and knows what is in them.
fn use_stripe(file: &std::fs::File, index: u64, of: u64, original: &[u8], stop: &AtomicBool) {
    let mut random = Random::new(index + 1);
    let mut fills: Vec<Option<u8>> = vec![None; original.len() / BLOCK];
    let check = |fills: &[Option<u8>], block: u64| {
        let found = read(file, block * B, BLOCK);
        match fills[block as usize] {
            None => assert!(found == original[block as usize * BLOCK..][..BLOCK], "block {block}"),
            Some(fill) => {
                assert!(found.iter().all(|byte| *byte == fill), "block {block} {fill} {}", found[0])
            }
        }
    };
    let own: Vec<u64> = (0..fills.len() as u64).filter(|block| block / 2 % of == index).collect();
    while !stop.load(Ordering::Relaxed) {
        let block = own[random.below(own.len() as u64) as usize];
        match random.below(10) {
            0..4 => {
                let fill = random.below(4) as u8 * 80;
                write(file, block * B, &[fill; BLOCK]);
                fills[block as usize] = Some(fill);
            }
            4 => {
                punch(file, block * B, B);
                fills[block as usize] = Some(0);
            }
            5 if random.chance(10) => file.sync_data().unwrap(),
            _ => check(&fills, block),
        }
    }
    own.iter().for_each(|block| check(&fills, *block));
}
