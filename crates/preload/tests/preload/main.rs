//! The library in a process that does what QEMU does with its memory, and a pager in this one. Needs root.

mod disk;
mod guest;
mod image;
mod pager;

use std::process::Output;

use disk::Disk;
use guest::{Guest, run_to_end, run_with};
use image::Image;
use pager::{Pager, serve_one};

#[test]
fn a_booted_guest_has_private_memory_where_it_wanted_it() {
    for tracker in ["scan", "compare"] {
        let pager = Pager::listen();
        let mut guest = Guest::start(&pager, &[("THAW_PAGER_MODE", "boot"), ("THAW_TRACKER", tracker)]);
        let (regions, uffd, socket) = pager.accept();
        let base = guest.answer();
        assert_eq!(
            regions,
            serde_json::json!([{"base_host_virt_addr": base.parse::<u64>().unwrap(),
            "size": guest::MEMORY_BYTES, "offset": 0, "page_size": 4096, "page_size_kib": 4096}])
        );
        assert_eq!(guest.ask("write 3 77"), "77");
        assert_eq!(guest.ask("read 4"), "0", "missing pages are the kernel's business");
        assert_eq!(guest.ask("flags"), "", "neither merged nor huge, whatever QEMU asks for");
        assert!(!pager.memory_path().exists(), "the file is of no use any more");
        drop((uffd, socket));
    }
}

#[test]
fn a_restored_guest_gets_its_pages_from_the_pager() {
    for tracker in ["scan", "compare"] {
        let pager = Pager::listen();
        let mut guest = Guest::start(&pager, &[("THAW_PAGER_MODE", "restore"), ("THAW_TRACKER", tracker)]);
        let (_, uffd, _socket) = pager.accept();
        guest.answer();
        guest.send("read 5");
        serve_one(&uffd, 1234, tracker == "scan");
        assert_eq!(guest.answer(), "1234");
    }
}

#[test]
fn a_mapped_guest_reads_its_build_and_writes_to_itself() {
    for tracker in ["scan", "compare"] {
        let pager = Pager::listen();
        let image = Image::write(&pager.dir, guest::MEMORY_BYTES);
        let mut guests = [(); 2].map(|()| {
            let mut guest = Guest::start(&pager, &image.variables(tracker));
            let (regions, uffd, socket) = pager.accept();
            assert_eq!(regions.as_array().unwrap().len(), 1);
            guest.answer();
            (guest, uffd, socket)
        });
        let (first, second) = guests.split_at_mut(1);
        let (first, second) = (&mut first[0].0, &mut second[0].0);
        for (page, value) in [(0, 0), (1, 101), (3, 103), (4, 0), (20, 120), (31, 131), (63, 0)] {
            assert_eq!(first.ask(&format!("read {page}")), value.to_string(), "page {page}");
        }
        assert_eq!(first.ask("write 3 77"), "77");
        assert_eq!(first.ask("write 4 78"), "78");
        assert_eq!(first.ask("discard 3"), "done", "and nothing happens: the build's bytes would come back");
        assert_eq!(first.ask("discard 4"), "done");
        assert_eq!(first.ask("stretch 31"), "refused", "what follows in the file is not the guest's");
        assert_eq!((first.ask("read 3"), first.ask("read 4")), ("77".into(), "78".into()));
        assert_eq!((second.ask("read 3"), second.ask("read 4")), ("103".into(), "0".into()));
        assert_eq!(first.ask("flags"), "");
        image.assert_unchanged();
    }
}

#[test]
fn a_guest_that_waits_gets_its_disk_and_its_memory_when_both_are_there() {
    for (mode, tracker) in [("restore", "scan"), ("restore", "compare")] {
        let pager = Pager::listen();
        let disk = Disk::write(&pager, guest::DISK_BYTES);
        let writes = ("GUEST_WRITES", "1".to_owned());
        let more = [("THAW_PAGER_MODE", mode.to_owned()), ("THAW_TRACKER", tracker.to_owned()), writes];
        let mut guest = Guest::start(&pager, &[&disk.variables()[..], &more].concat());
        let (_, uffd, _socket) = pager.accept();
        guest.answer();
        assert_eq!(guest.ask("disk"), "disk disk", "both descriptors mean the disk that is served");
        assert_eq!(disk.read(), [&b"disk\0\0\0\0kept\0\0\0\0kept"[..], &[0; 12]].concat());
        guest.send("read 0");
        serve_one(&uffd, 1234, tracker == "scan");
        assert_eq!(guest.answer(), "1234", "what was written before it had a past is gone");
    }
}

#[test]
fn a_guest_whose_disk_is_another_never_runs() {
    let pager = Pager::listen();
    let disk = Disk::write(&pager, guest::DISK_BYTES - 4096);
    let [path, size] = disk.variables();
    for (variables, word) in [
        (vec![path.clone(), size.clone()], "another size"),
        (vec![path.clone()], "THAW_DISK_BYTES is not set"),
        (vec![path.clone(), ("THAW_DISK_BYTES", "many".into())], "no number"),
        (vec![("THAW_DISK_PATH", pager.dir.join("none").display().to_string()), size.clone()], "opened"),
    ] {
        let Output { status, stderr, .. } = run_with(&pager, &variables);
        let stderr = String::from_utf8_lossy(&stderr);
        assert_eq!(status.code(), Some(97), "{variables:?}: {stderr}");
        assert!(stderr.contains(word), "{variables:?}: {stderr}");
    }
}

#[test]
fn what_qemu_will_use_is_there_before_it_waits() {
    let pager = Pager::listen();
    let mut guest = Guest::start::<&str>(&pager, &[]);
    let (_, _uffd, _socket) = pager.accept();
    guest.answer();
    let faults: u64 = guest.ask("allocate").parse().unwrap();
    assert!(faults < 100, "{faults} page faults in 2,048 pages");
    for (region_mib, mib) in [(64, 24..=26), (4, 23..=26)] {
        let mut guest = Guest::start::<&str>(&pager, &[]);
        let (_, _uffd, _socket) = pager.accept();
        guest.answer();
        let kib: u64 = guest.ask(&format!("translate {region_mib}")).parse().unwrap();
        assert!(mib.contains(&(kib >> 10)), "{kib} KiB of code memory in regions of {region_mib} MiB");
    }
}

#[test]
fn the_end_of_the_guest_ends_its_socket() {
    let pager = Pager::listen();
    let mut guest = Guest::start::<&str>(&pager, &[]);
    let (_, _uffd, socket) = pager.accept();
    guest.answer();
    drop(guest);
    let mut byte = [0];
    assert_eq!(std::io::Read::read(&mut &socket, &mut byte).unwrap(), 0);
}

/// A guest whose memory nobody serves never runs.
#[test]
fn it_fails_closed() {
    let pager = Pager::listen();
    let nobody = pager.dir.join("nobody").display().to_string();
    let long = "x".repeat(200);
    for (name, value, word) in [
        ("THAW_PAGER_MODE", Some("mapped"), "THAW_MEM_HEADER_FD is not set"),
        ("THAW_MEM_PATH", None, "THAW_MEM_PATH is not set"),
        ("THAW_UFFD_DEV_FD", None, "THAW_UFFD_DEV_FD is not set"),
        ("THAW_UFFD_DEV_FD", Some("x"), "no descriptor"),
        ("THAW_UFFD_DEV_FD", Some("999"), "no userfaultfd"),
        ("THAW_UFFD_DEV_FD", Some("2"), "no userfaultfd"),
        ("THAW_PAGER_SOCKET", None, "THAW_PAGER_SOCKET is not set"),
        ("THAW_PAGER_SOCKET", Some(nobody.as_str()), "no pager"),
        ("THAW_PAGER_SOCKET", Some(long.as_str()), "too long"),
        ("THAW_PAGER_MODE", Some("other"), "THAW_PAGER_MODE"),
        ("THAW_TRACKER", None, "THAW_TRACKER is not set"),
        ("GUEST_MAPS", Some("private"), "not mapped shared"),
        ("GUEST_MAPS", Some("twice"), "mapped twice"),
    ] {
        let Output { status, stderr, .. } = run_to_end(&pager, name, value);
        let stderr = String::from_utf8_lossy(&stderr);
        assert_eq!(status.code(), Some(97), "{name}={value:?}: {stderr}");
        assert!(stderr.contains(word), "{name}={value:?}: {stderr}");
    }
}

#[test]
fn a_damaged_build_is_never_run() {
    let pager = Pager::listen();
    let image = Image::write(&pager.dir, guest::MEMORY_BYTES);
    let short = Image::write(&pager.dir, guest::MEMORY_BYTES);
    short.truncate();
    let small = Image::write(&pager.dir, guest::MEMORY_BYTES / 2);
    let good = image.variables("scan");
    let with = |name: &str, value: &str| {
        let other = |(given, was): &(&'static str, String)| {
            (*given, if *given == name { value.to_owned() } else { was.clone() })
        };
        good.iter().map(other).collect::<Vec<_>>()
    };
    let header_only = good[3].1.split('=').next().unwrap().to_owned();
    for (variables, word) in [
        (short.variables("scan"), "stores less"),
        (small.variables("scan"), "another size"),
        (with("THAW_MEM_HEADER_FD", "2"), "header"),
        (with("THAW_MEM_HEADER_FD", "999"), "no descriptors"),
        (with("THAW_MEM_BUILDS", ""), "is not there"),
        (with("THAW_MEM_BUILDS", &header_only), "no list of builds"),
        (with("THAW_MEM_BUILDS", &format!("{header_only}=999")), "no descriptors"),
    ] {
        let Output { status, stderr, .. } = run_with(&pager, &variables);
        let stderr = String::from_utf8_lossy(&stderr);
        assert_eq!(status.code(), Some(97), "{variables:?}: {stderr}");
        assert!(stderr.contains(word), "{variables:?}: {stderr}");
    }
}
