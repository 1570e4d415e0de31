//! What a pager is given: files in a folder that any user can enter, and a header in its normal form.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use thaw_snapshot::{BuildId, ZERO_FILL};

const PAGE: usize = 4096;

/// Where one page of an image is stored; `None` if it is zero.
pub type Place = Option<(BuildId, u64)>;

pub fn listener(dir: &Dir, n: u32) -> OwnedFd {
    UnixListener::bind(dir.path.join(format!("socket-{n}"))).unwrap().into()
}

pub fn state(dir: &Dir, n: u32) -> OwnedFd {
    dir.create(&format!("state-{n}"))
}

/// A header in its normal form.
pub fn header(places: &[Place], generation: u64, builds: &[BuildId]) -> Vec<u8> {
    let mut entries: Vec<(u64, u64, BuildId, u64)> = Vec::new();
    for (at, place) in places.iter().enumerate() {
        let (id, storage) = place.unwrap_or((ZERO_FILL, 0));
        match entries.last_mut() {
            Some(last) if last.2 == id && (id == ZERO_FILL || last.3 + last.1 == storage) => {
                last.1 += PAGE as u64
            }
            _ => entries.push(((at * PAGE) as u64, PAGE as u64, id, storage)),
        }
    }
    let mut bytes = Vec::new();
    for word in [1, PAGE as u64, (places.len() * PAGE) as u64, generation] {
        bytes.extend_from_slice(&word.to_le_bytes());
    }
    bytes.extend_from_slice(builds.last().unwrap());
    bytes.extend_from_slice(&builds[0]);
    for (offset, length, id, storage) in entries {
        bytes.extend_from_slice(&offset.to_le_bytes());
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(&id);
        bytes.extend_from_slice(&storage.to_le_bytes());
    }
    bytes
}

/// A temporary folder any user can enter.
pub struct Dir {
    pub path: PathBuf,
}

impl Dir {
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("thaw-pager-{}-{n}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        Self { path }
    }

    pub fn create(&self, name: &str) -> OwnedFd {
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(true);
        options.open(self.path.join(name)).unwrap().into()
    }

    pub fn open(&self, name: &str) -> OwnedFd {
        File::options().read(true).write(true).open(self.path.join(name)).unwrap().into()
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.path);
    }
}
