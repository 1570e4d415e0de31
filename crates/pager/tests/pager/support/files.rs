//! What a pager is given: files in a folder that any user can enter, and a header in its normal form.

use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
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

/// Kinds of pages in the file of a working set.
pub const READ: u64 = 0;
pub const GUESSED: u64 = 1;
pub const WRITTEN: u64 = 2;

/// The file of a working set: runs of pages, and of which kind they are.
pub fn record(pages: u64, runs: &[(Range<u64>, u64)]) -> Vec<u8> {
    let run = |(run, kind): &(Range<u64>, u64)| [run.start, (run.end - run.start) | kind << 62];
    let mut words = vec![u64::from_le_bytes(*b"thawset1"), pages];
    words.extend(runs.iter().flat_map(run));
    let sum =
        words.iter().fold(0xcbf2_9ce4_8422_2325u64, |sum, word| (sum ^ word).wrapping_mul(0x100_0000_01b3));
    words.push(sum);
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// The pages of such a file, and of which kind each is.
pub fn read_record(bytes: &[u8]) -> BTreeMap<u64, u64> {
    let words: Vec<u64> = bytes.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word)).collect();
    let [_, _, runs @ .., _] = words.as_slice() else { panic!("{} words", words.len()) };
    let pages = |[start, length]: &[u64; 2]| {
        let (start, kind) = (*start, length >> 62);
        (start..start + (length & !(3 << 62))).map(move |page| (page, kind))
    };
    runs.as_chunks::<2>().0.iter().flat_map(pages).collect()
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
