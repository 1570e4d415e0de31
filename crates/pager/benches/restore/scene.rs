//! One restore after another: each with a new VMM and a new server of its memory.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;

use crate::bare::Bare;
use crate::cpu;
use crate::files::{Dir, listener, state};
use crate::image::Image;
use crate::pager::{Pager, borrow};
use crate::touch::{Backing, Toucher};
use crate::working_set::MEMORY_PAGES;

const NS_PER_MS: f64 = 1e6;
/// What a monitor needs at least from its start to the handshake.
const VMM_START: Duration = Duration::from_millis(30);

pub struct Scene {
    pub dir: Dir,
    /// Everything that the VM's memory holds, in one file.
    pub memory: PathBuf,
    /// Where the VM runs, and another processor.
    pub vm_cpu: usize,
    pub other_cpu: usize,
    starts: u32,
}

/// How a VM's memory is brought in.
pub struct Restore<'a> {
    pub image: &'a Image,
    /// A recorded working set.
    pub record: Option<&'a Path>,
    /// From the handshake to the first touch.
    pub head_start: Duration,
}

impl Scene {
    pub fn new(dir: Dir, memory: PathBuf) -> Self {
        let cpus = cpu::all();
        Self { dir, memory, vm_cpu: cpus[0], other_cpu: cpus[1 % cpus.len()], starts: 0 }
    }

    /// Milliseconds to touch everything in `touches`, of a private mapping of the file.
    pub fn mapped(&mut self, touches: &Path) -> f64 {
        let mut toucher = Toucher::start(&Backing::Mapped(&self.memory), self.vm_cpu);
        toucher.load(touches);
        toucher.touch() / NS_PER_MS
    }

    /// The same with the bare server on `cpu`, which has installed `ahead` before.
    pub fn bare(&mut self, touches: &Path, ahead: Option<&Path>, cpu: usize) -> f64 {
        let socket = self.dir.path.join("bare");
        let _server = Bare::start(&socket, &self.memory, ahead, cpu);
        let mut toucher = Toucher::start(&Backing::Served(&socket), self.vm_cpu);
        toucher.load(touches);
        if ahead.is_some() {
            // It says nothing when it is done; this is many times what it needs.
            std::thread::sleep(Duration::from_millis(100));
        }
        toucher.touch() / NS_PER_MS
    }

    /// The same with the pager.
    pub fn paged(&mut self, touches: &Path, restore: &Restore<'_>) -> f64 {
        let mut pager = self.start_pager(restore);
        std::thread::sleep(VMM_START);
        let mut toucher = self.start_vm(touches);
        pager.event("handshake");
        // A monitor loads its device state now.
        std::thread::sleep(restore.head_start);
        toucher.touch() / NS_PER_MS
    }

    /// Microseconds for each of `touches` faults, with a pager that has nothing else to do and runs where the VM does.
    pub fn one_fault(&mut self, touches: (&Path, usize), restore: &Restore<'_>) -> f64 {
        let mut pager = self.start_pager(restore);
        let mut toucher = self.start_vm(touches.0);
        pager.shake_hands(toucher.child.id());
        let mut ahead = None;
        loop {
            let now = pager.stats()["pages_ahead"].as_u64().unwrap();
            if ahead == Some(now) {
                break;
            }
            ahead = Some(now);
            std::thread::sleep(Duration::from_millis(50));
        }
        cpu::pin_process(pager.pid(), &[self.vm_cpu]);
        let us = toucher.touch() / 1e3 / touches.1 as f64;
        assert_eq!(pager.stats()["faults"], touches.1);
        us
    }

    /// Beside it: the bare server on the VM's processor.
    pub fn one_bare_fault(&mut self, touches: (&Path, usize), ahead: &Path) -> f64 {
        self.bare(touches.0, Some(ahead), self.vm_cpu) * 1e3 / touches.1 as f64
    }

    fn start_pager(&mut self, restore: &Restore<'_>) -> Pager {
        self.starts += 1;
        let open = |path: &Path| OwnedFd::from(File::open(path).unwrap());
        let mut fds = vec![listener(&self.dir, self.starts), state(&self.dir, 0)];
        fds.push(open(&restore.image.header));
        let builds = restore.image.names(fds.len());
        fds.extend(restore.image.builds.iter().map(|(_, path)| open(path)));
        let mut request = json!({"op": "start", "mode": "restore", "memory_bytes": MEMORY_PAGES * 4096,
            "tracker": "scan", "peer_uid": 0, "listen": 0, "state": 1, "header": 2, "builds": builds});
        if let Some(record) = restore.record {
            request["workset"] = json!(fds.len());
            fds.push(open(record));
        }
        let mut pager = Pager::spawn(&self.dir.path);
        pager.ask(request, &borrow(&fds)).unwrap();
        pager
    }

    fn start_vm(&self, touches: &Path) -> Toucher {
        let socket = self.dir.path.join(format!("socket-{}", self.starts));
        let mut toucher = Toucher::start(&Backing::Served(&socket), self.vm_cpu);
        toucher.load(touches);
        toucher
    }
}
