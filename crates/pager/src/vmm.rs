//! The VMM as the pager holds it after the handshake.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, OnceLock};

use crate::pagemap::Pagemap;
use crate::process::Process;
use crate::regions::Regions;
use crate::session::lock;
use crate::uffd::Uffd;

pub struct Vmm {
    pub process: Process,
    pagemap: OnceLock<Pagemap>,
    clear_refs: OnceLock<File>,
    pub uffd: Uffd,
    /// The VMM keeps its end open as long as it lives.
    pub socket: OwnedFd,
    regions: Mutex<Arc<Regions>>,
}

impl Vmm {
    pub fn new(process: Process, uffd: Uffd, socket: OwnedFd, regions: Regions) -> Self {
        Self {
            process,
            pagemap: OnceLock::new(),
            clear_refs: OnceLock::new(),
            uffd,
            socket,
            regions: Mutex::new(Arc::new(regions)),
        }
    }

    /// Fails until `set_pagemap`, unless this process may open the map itself.
    pub fn pagemap(&self, uid: u32) -> io::Result<&Pagemap> {
        if let Some(pagemap) = self.pagemap.get() {
            return Ok(pagemap);
        }
        let pagemap = Pagemap::open(self.process.pid, uid)?;
        Ok(self.pagemap.get_or_init(|| pagemap))
    }

    /// The map comes from the keeper: its file belongs to the VMM's user, and no capability this process has
    /// opens another user's files.
    pub fn set_pagemap(&self, pagemap: Pagemap) {
        let _ = self.pagemap.set(pagemap);
    }

    /// Its /proc/PID/clear_refs, which only its user opens.
    pub fn set_clear_refs(&self, file: File) {
        let _ = self.clear_refs.set(file);
    }

    pub fn clear_refs(&self) -> Option<&File> {
        self.clear_refs.get()
    }

    pub fn regions(&self) -> Arc<Regions> {
        Arc::clone(&lock(&self.regions))
    }

    pub fn set_regions(&self, regions: Regions) {
        *lock(&self.regions) = Arc::new(regions);
    }
}
