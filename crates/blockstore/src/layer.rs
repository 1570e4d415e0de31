//! One writable layer: a sparse file with blocks at their own offsets, and its tombstones.
//!
//! A block's life in a layer (S stored, M masked, Z zero; see `tombstones` for what survives a crash):
//! ```text
//!                    data                        data
//!   ─ (below) ───────────────► S ◄───────────────────────────────┐
//!       │                      │ zero, nothing below: punched ─► ─
//!       │ zero, held below     │ zero, held below                │
//!       ▼                      ▼                                 │
//!      M Z ◄── synced, ──── S M Z ─── data ─► S M ── data ──► S M┘
//!       └─────── punched      ▲────────── zero ┘
//! ```

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{FallocateFlags, SeekFrom, fallocate, seek};
use rustix::io::Errno;

use crate::block_map::{BLOCK_BYTES, BlockMap, Content, Flags};
use crate::store::{Turn, lock};
use crate::tombstones;

/// So many stale ranges are punched at once, without waiting for the next flush.
const STALE_RANGES_MAX: usize = 4096;

pub struct Layer {
    file: File,
    tombstones: File,
    map: BlockMap,
    /// Ranges that were stored when they became zero: to be punched once their tombstones are on disk.
    stale: Mutex<Vec<Range<u64>>>,
    file_changed: AtomicBool,
    tombstones_changed: AtomicBool,
    syncing: Mutex<()>,
    /// A sync failed: the kernel forgets what it could not write, so no later flush may claim success.
    lost: AtomicBool,
}

impl Layer {
    /// Reads the layer's map from its files; a shorter file is grown to `size_bytes`.
    pub fn open(file: File, tombstones: File, size_bytes: u64) -> io::Result<Self> {
        let length = file.metadata()?.len();
        if length > size_bytes {
            let message = format!("a layer of {length} bytes is longer than the disk of {size_bytes}");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        if length < size_bytes {
            file.set_len(size_bytes)?;
        }
        let map = BlockMap::new(size_bytes / BLOCK_BYTES);
        for extent in extents(&file)? {
            map.change(
                extent.start / BLOCK_BYTES..extent.end.div_ceil(BLOCK_BYTES),
                Flags::STORED,
                Flags::NONE,
            );
        }
        tombstones::load(&tombstones, &map)?;
        let stale =
            map.runs(0..map.blocks(), is_stale).filter(|(stale, _)| *stale).map(|(_, run)| run).collect();
        Ok(Self {
            file,
            tombstones,
            map,
            stale: Mutex::new(stale),
            file_changed: AtomicBool::new(true),
            tombstones_changed: AtomicBool::new(true),
            syncing: Mutex::default(),
            lost: AtomicBool::new(false),
        })
    }

    /// Whether no block of it is stored or hides one below.
    pub fn is_empty(&self) -> bool {
        self.map.run(0, self.map.blocks(), |flags| flags) == (Flags::NONE, self.map.blocks())
    }

    /// The layer's blocks in runs of equal content, ascending.
    pub fn contents(&self) -> impl Iterator<Item = (Content, Range<u64>)> {
        self.map.runs(0..self.map.blocks(), Flags::content)
    }

    /// The content of `block` and the end of its run below `end`.
    pub fn content(&self, block: u64, end: u64) -> (Content, u64) {
        self.map.run(block, end, Flags::content)
    }

    /// Stored blocks only.
    pub fn read(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(out, offset)
    }

    /// Stores whole blocks. On an error those before it are stored.
    pub fn store(&self, _: &Turn, first: u64, data: &[u8]) -> io::Result<()> {
        let (written, result) = write_prefix(&self.file, data, first * BLOCK_BYTES);
        self.file_changed.store(true, Ordering::Release);
        let end = first + written / BLOCK_BYTES;
        for (zero, run) in self.map.runs(first..end, |flags| flags.has(Flags::ZERO)) {
            self.map.change(run.clone(), Flags::STORED, Flags::NONE);
            if zero {
                self.unbury(run)?;
            }
        }
        if !written.is_multiple_of(BLOCK_BYTES) && !self.map.get(end).has(Flags::STORED) {
            // Half a block would show zeros beside it.
            self.punch(end..end + 1)?;
        }
        result
    }

    /// Makes blocks zero. `held` tells whether lower layers have content for a block, and the end of that answer's run.
    pub fn clear(
        &self,
        turn: &Turn,
        range: Range<u64>,
        held: impl Fn(u64, u64) -> (bool, u64),
    ) -> io::Result<()> {
        let mut block = range.start;
        while block < range.end {
            let (held, held_end) = held(block, range.end);
            let (flags, end) = self.map.run(block, held_end, |flags| flags);
            match (flags.content(), held) {
                (Content::Zero, _) | (Content::Below, false) => {}
                (Content::Stored, false) => {
                    self.punch(block..end)?;
                    self.map.change(block..end, Flags::NONE, Flags::STORED);
                }
                (Content::Stored | Content::Below, true) => self.bury(turn, block..end)?,
            }
            block = end;
        }
        Ok(())
    }

    /// Everything acknowledged before the call is on disk after it.
    pub fn sync(&self, turn: &Mutex<Turn>) -> io::Result<()> {
        // A second caller waits for the first: what that one is writing is not on disk yet.
        let _one_at_a_time = lock(&self.syncing);
        let stale = std::mem::take(&mut *lock(&self.stale));
        self.sync_if(&self.tombstones, &self.tombstones_changed)?;
        if !stale.is_empty() {
            self.punch_stale(&lock(turn), &stale)?;
        }
        self.sync_if(&self.file, &self.file_changed)
    }

    /// Like [`Layer::sync`] for a caller whose turn it is. Syncs whatever the marks of change say, and so may overlap
    /// with other syncs.
    pub fn sync_in_turn(&self, turn: &Turn) -> io::Result<()> {
        if self.lost.load(Ordering::Acquire) {
            return Err(Errno::IO.into());
        }
        let stale = std::mem::take(&mut *lock(&self.stale));
        self.sync_data(&self.tombstones)?;
        self.punch_stale(turn, &stale)?;
        self.sync_data(&self.file)
    }

    /// Makes the files those of an empty layer, on disk. Nobody may use the layer any more.
    pub fn empty(&self) -> io::Result<()> {
        self.file.set_len(0)?;
        self.tombstones.set_len(0)?;
        self.sync_data(&self.file)?;
        self.sync_data(&self.tombstones)
    }

    fn sync_if(&self, file: &File, changed: &AtomicBool) -> io::Result<()> {
        if self.lost.load(Ordering::Acquire) {
            return Err(Errno::IO.into());
        }
        if changed.swap(false, Ordering::AcqRel) { self.sync_data(file) } else { Ok(()) }
    }

    fn sync_data(&self, file: &File) -> io::Result<()> {
        file.sync_data().inspect_err(|_| self.lost.store(true, Ordering::Release))
    }

    fn bury(&self, turn: &Turn, range: Range<u64>) -> io::Result<()> {
        let on = Flags::MASKED.with(Flags::ZERO);
        let stored = self.map.get(range.start).has(Flags::STORED);
        let result = tombstones::change(&self.tombstones, &self.map, range.clone(), on, Flags::NONE);
        self.tombstones_changed.store(true, Ordering::Release);
        if !stored {
            return result;
        }
        let mut stale = lock(&self.stale);
        match stale.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => stale.push(range),
        }
        if stale.len() >= STALE_RANGES_MAX {
            let ranges = std::mem::take(&mut *stale);
            drop(stale);
            self.sync_data(&self.tombstones)?;
            self.punch_stale(turn, &ranges)?;
        }
        result
    }

    fn unbury(&self, range: Range<u64>) -> io::Result<()> {
        let result = tombstones::change(&self.tombstones, &self.map, range.clone(), Flags::NONE, Flags::ZERO);
        self.tombstones_changed.store(true, Ordering::Release);
        if result.is_err() {
            lock(&self.stale).push(range);
        }
        result
    }

    /// Frees the blocks of `ranges` that are still stale; their tombstones are on disk.
    fn punch_stale(&self, _: &Turn, ranges: &[Range<u64>]) -> io::Result<()> {
        for range in ranges {
            for (stale, run) in self.map.runs(range.clone(), is_stale) {
                if stale {
                    self.punch(run.clone())?;
                    self.map.change(run, Flags::NONE, Flags::STORED);
                }
            }
        }
        Ok(())
    }

    fn punch(&self, range: Range<u64>) -> io::Result<()> {
        self.file_changed.store(true, Ordering::Release);
        let mode = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        let length = (range.end - range.start) * BLOCK_BYTES;
        rustix::io::retry_on_intr(|| fallocate(&self.file, mode, range.start * BLOCK_BYTES, length))?;
        Ok(())
    }
}

fn is_stale(flags: Flags) -> bool {
    flags.has(Flags::STORED.with(Flags::ZERO))
}

/// The allocated byte ranges of a sparse file, ascending.
pub fn extents(file: &File) -> io::Result<Vec<Range<u64>>> {
    let mut found = Vec::new();
    let mut position = 0;
    loop {
        let start = match seek(file, SeekFrom::Data(position)) {
            Ok(start) => start,
            Err(Errno::NXIO) => return Ok(found),
            Err(error) => return Err(error.into()),
        };
        position = seek(file, SeekFrom::Hole(start))?;
        found.push(start..position);
    }
}

/// Writes as much as possible: how many bytes, and why not all.
pub fn write_prefix(file: &File, data: &[u8], offset: u64) -> (u64, io::Result<()>) {
    let mut written = 0;
    while written < data.len() {
        match file.write_at(&data[written..], offset + written as u64) {
            Ok(0) => return (written as u64, Err(io::ErrorKind::WriteZero.into())),
            Ok(length) => written += length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (written as u64, Err(error)),
        }
    }
    (written as u64, Ok(()))
}
