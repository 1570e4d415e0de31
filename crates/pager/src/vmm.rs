//! The VMM as the pager holds it after the handshake.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};

use crate::pagemap::Pagemap;
use crate::process::Process;
use crate::regions::Regions;
use crate::session::lock;
use crate::uffd::Uffd;

pub struct Vmm {
    pub process: Process,
    pub pagemap: Pagemap,
    pub uffd: Uffd,
    /// The VMM keeps its end open as long as it lives.
    pub socket: OwnedFd,
    regions: Mutex<Arc<Regions>>,
}

impl Vmm {
    pub fn new(process: Process, pagemap: Pagemap, uffd: Uffd, socket: OwnedFd, regions: Regions) -> Self {
        Self { process, pagemap, uffd, socket, regions: Mutex::new(Arc::new(regions)) }
    }

    pub fn regions(&self) -> Arc<Regions> {
        Arc::clone(&lock(&self.regions))
    }

    pub fn set_regions(&self, regions: Regions) {
        *lock(&self.regions) = Arc::new(regions);
    }
}
