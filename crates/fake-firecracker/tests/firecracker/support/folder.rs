//! A folder of a test's own, with what a VM is made of; removed when dropped.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

pub struct Folder {
    pub path: PathBuf,
}

pub const DRIVE_BYTES: u64 = 2 << 20;

/// A name that no other test of any process has.
pub fn unique() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("thaw-ff-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

impl Folder {
    pub fn new() -> Folder {
        let path = std::env::temp_dir().join(unique());
        fs::create_dir(&path).unwrap();
        fs::write(path.join("vmlinux"), [b"\x7fELF".as_slice(), &[0; 60]].concat()).unwrap();
        File::create(path.join("root.img")).unwrap().set_len(DRIVE_BYTES).unwrap();
        Folder { path }
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    pub fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.file(name)).unwrap()
    }

    pub fn set_faults(&self, faults: &serde_json::Value) {
        fs::write(self.file("faults.json"), faults.to_string()).unwrap();
    }
}

impl AsRef<Path> for Folder {
    fn as_ref(&self) -> &Path {
        &self.path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}
