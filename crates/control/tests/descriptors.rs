//! A request carries any number of descriptors, in order.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{MemfdFlags, memfd_create};
use serde_json::json;
use thaw_control::{Channel, serve};

fn numbered(number: usize) -> OwnedFd {
    let mut file = File::from(memfd_create("number", MemfdFlags::CLOEXEC).unwrap());
    write!(file, "{number}").unwrap();
    file.into()
}

fn read(fd: OwnedFd) -> usize {
    let (mut file, mut text) = (File::from(fd), String::new());
    file.rewind().unwrap();
    file.read_to_string(&mut text).unwrap();
    text.parse().unwrap()
}

#[test]
fn every_descriptor_arrives_in_its_place() {
    for count in [0, 1, 64, 65, 128, 300] {
        let (ours, theirs) = Channel::pair().unwrap();
        let child = std::thread::spawn(move || {
            serve(&theirs, |mut request| {
                let mut seen = Vec::new();
                for index in 0..count {
                    seen.push(read(request.take_fd(index)?));
                }
                assert!(request.take_fd(count).is_err());
                Ok(json!(seen))
            })
        });
        let fds: Vec<OwnedFd> = (0..count).map(numbered).collect();
        let borrowed: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
        ours.send(&json!({"id": 7, "op": "count"}), &borrowed).unwrap();
        let answer = ours.recv().unwrap().unwrap().json;
        assert_eq!(answer, json!({"id": 7, "ok": true, "result": (0..count).collect::<Vec<_>>()}));
        // What was held is not left for the next request.
        ours.send(&json!({"id": 8, "op": "count"}), &borrowed).unwrap();
        assert_eq!(ours.recv().unwrap().unwrap().json["ok"], true);
        drop(ours);
        child.join().unwrap().unwrap();
    }
}
