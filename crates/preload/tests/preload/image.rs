//! A build's memory as the keeper hands it over: header and file as descriptors that a child inherits.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

const PAGE: u64 = 4096;
const BUILD: [u8; 16] = [7; 16];
const NAME: &str = "07070707-0707-0707-0707-070707070707";
/// First page, pages, and where they are stored, in pages.
const RUNS: [(u64, u64, u64); 2] = [(1, 3, 2), (20, 12, 5)];
const STORED_PAGES: u64 = 17;

pub struct Image {
    header: File,
    memfile: File,
    bytes: Vec<u8>,
}

impl Image {
    /// Page N of those stored begins with the number 100 + N.
    pub fn write(dir: &Path, memory_bytes: usize) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = |kind: &str| dir.join(format!("{kind}-{}", COUNT.fetch_add(1, Ordering::Relaxed)));
        let mut bytes = vec![0; (STORED_PAGES * PAGE) as usize];
        for (first, pages, at) in RUNS {
            for page in 0..pages {
                let word = &mut bytes[((at + page) * PAGE) as usize..][..8];
                word.copy_from_slice(&(100 + first + page).to_le_bytes());
            }
        }
        let (header, memfile) = (name("header"), name("memfile"));
        std::fs::write(&header, header_of(memory_bytes as u64)).unwrap();
        std::fs::write(&memfile, &bytes).unwrap();
        Self { header: inheritable(&header), memfile: inheritable(&memfile), bytes }
    }

    pub fn variables(&self, tracker: &str) -> Vec<(&'static str, String)> {
        vec![
            ("THAW_PAGER_MODE", "mapped".into()),
            ("THAW_TRACKER", tracker.into()),
            ("THAW_MEM_HEADER_FD", self.header.as_raw_fd().to_string()),
            ("THAW_MEM_BUILDS", format!("{NAME}={}", self.memfile.as_raw_fd())),
        ]
    }

    pub fn truncate(&self) {
        self.memfile.set_len(self.bytes.len() as u64 - PAGE).unwrap();
    }

    pub fn assert_unchanged(&self) {
        let mut now = vec![0; self.bytes.len()];
        std::os::unix::fs::FileExt::read_exact_at(&self.memfile, &mut now, 0).unwrap();
        assert!(now == self.bytes, "the build has changed");
    }
}

fn header_of(memory_bytes: u64) -> Vec<u8> {
    let mut bytes: Vec<u8> =
        [1, PAGE, memory_bytes, 0].iter().flat_map(|word: &u64| word.to_le_bytes()).collect();
    bytes.extend_from_slice(&BUILD);
    bytes.extend_from_slice(&BUILD);
    let mut entry = |offset: u64, length: u64, build: [u8; 16], storage: u64| {
        bytes.extend_from_slice(&offset.to_le_bytes());
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(&build);
        bytes.extend_from_slice(&storage.to_le_bytes());
    };
    let mut end = 0;
    for (first, pages, at) in RUNS {
        entry(end, first * PAGE - end, [0; 16], 0);
        entry(first * PAGE, pages * PAGE, BUILD, at * PAGE);
        end = (first + pages) * PAGE;
    }
    if end < memory_bytes {
        entry(end, memory_bytes - end, [0; 16], 0);
    }
    bytes
}

/// Open for writing too, and not closed in a child.
fn inheritable(path: &Path) -> File {
    let file = File::options().read(true).write(true).open(path).unwrap();
    // SAFETY: plain arguments.
    assert_eq!(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETFD, 0) }, 0);
    file
}
