//! A file in the place of a disk that is served.

use std::path::PathBuf;

use crate::guest;
use crate::pager::Pager;

pub struct Disk {
    path: PathBuf,
}

impl Disk {
    /// `size_bytes` of zeros after its first word. A guest waits for one of `guest::DISK_BYTES`.
    pub fn write(pager: &Pager, size_bytes: u64) -> Self {
        let path = pager.dir.join("disk");
        let mut bytes = vec![0; size_bytes as usize];
        bytes[..4].copy_from_slice(b"disk");
        std::fs::write(&path, bytes).unwrap();
        Self { path }
    }

    pub fn variables(&self) -> [(&'static str, String); 2] {
        [
            ("THAW_DISK_PATH", self.path.display().to_string()),
            ("THAW_DISK_BYTES", guest::DISK_BYTES.to_string()),
        ]
    }

    /// Its first 32 bytes.
    pub fn read(&self) -> Vec<u8> {
        std::fs::read(&self.path).unwrap()[..32].to_vec()
    }
}
