//! The disk as its users see it: a number of bytes to read, write, clear and flush.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use rustix::io::Errno;

use crate::block_map::BLOCK_BYTES;
use crate::layers::Layers;

/// The right to change content. Only the store's mutex has one.
pub struct Turn(());

pub struct Store {
    pub size_bytes: u64,
    pub counts: Counts,
    /// Parts of the newer top may be in the uncommitted layer already.
    pub aborting: AtomicBool,
    turn: Mutex<Turn>,
    layers: RwLock<Arc<Layers>>,
}

/// What has been asked for since the start.
#[derive(Default)]
pub struct Counts {
    pub reads: AtomicU64,
    pub read_bytes: AtomicU64,
    pub writes: AtomicU64,
    pub written_bytes: AtomicU64,
    pub clears: AtomicU64,
    pub flushes: AtomicU64,
    pub errors: AtomicU64,
}

impl Store {
    pub fn new(size_bytes: u64, layers: Layers) -> Self {
        Self {
            size_bytes,
            counts: Counts::default(),
            aborting: AtomicBool::new(false),
            turn: Mutex::new(Turn(())),
            layers: RwLock::new(Arc::new(layers)),
        }
    }

    /// The layers as they are now. Changing content on them needs the turn, taken before.
    pub fn layers(&self) -> Arc<Layers> {
        self.layers.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn take_turn(&self) -> MutexGuard<'_, Turn> {
        lock(&self.turn)
    }

    pub fn replace_layers(&self, _: &Turn, layers: Layers) {
        *self.layers.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(layers);
    }

    /// Fills `out` from `offset` on and returns how many of its bytes lie on the disk.
    pub fn read(&self, out: &mut [u8], offset: u64) -> io::Result<usize> {
        let length = (out.len() as u64).min(self.size_bytes.saturating_sub(offset)) as usize;
        self.layers().read(&mut out[..length], offset)?;
        count(&self.counts.reads, &self.counts.read_bytes, length as u64);
        Ok(length)
    }

    pub fn write(&self, data: &[u8], offset: u64) -> io::Result<()> {
        let end = self.end(offset, data.len() as u64)?;
        if data.is_empty() {
            return Ok(());
        }
        let turn = self.take_turn();
        let layers = self.layers();
        let (first, stop) = (offset / BLOCK_BYTES, end.div_ceil(BLOCK_BYTES));
        if offset.is_multiple_of(BLOCK_BYTES) && end.is_multiple_of(BLOCK_BYTES) {
            layers.write(&turn, first, data)?;
        } else {
            let start = first * BLOCK_BYTES;
            let mut whole = vec![0; ((stop - first) * BLOCK_BYTES) as usize];
            let last = whole.len() - BLOCK_BYTES as usize;
            layers.read(&mut whole[..BLOCK_BYTES as usize], start)?;
            if last > 0 {
                layers.read(&mut whole[last..], start + last as u64)?;
            }
            whole[(offset - start) as usize..(end - start) as usize].copy_from_slice(data);
            layers.write(&turn, first, &whole)?;
        }
        count(&self.counts.writes, &self.counts.written_bytes, data.len() as u64);
        Ok(())
    }

    /// Makes a range zero, at any alignment.
    pub fn clear(&self, offset: u64, length: u64) -> io::Result<()> {
        let end = self.end(offset, length)?;
        let inner = offset.next_multiple_of(BLOCK_BYTES)..end / BLOCK_BYTES * BLOCK_BYTES;
        if inner.start > inner.end {
            return self.write(&vec![0; length as usize], offset);
        }
        self.write(&vec![0; (inner.start - offset) as usize], offset)?;
        {
            let turn = self.take_turn();
            self.layers().clear(&turn, inner.start / BLOCK_BYTES..inner.end / BLOCK_BYTES)?;
        }
        self.write(&vec![0; (end - inner.end) as usize], inner.end)?;
        self.counts.clears.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Everything acknowledged before the call is on disk after it.
    pub fn flush(&self) -> io::Result<()> {
        // Only the layers are held while it takes long: who waits for the stack to be unused must not wait for this.
        let Layers { top, uncommitted, .. } = Layers::clone(&self.layers());
        if let Some(layer) = uncommitted {
            layer.sync(&self.turn)?;
        }
        top.sync(&self.turn)?;
        self.counts.flushes.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn end(&self, offset: u64, length: u64) -> io::Result<u64> {
        let end = offset.checked_add(length).filter(|end| *end <= self.size_bytes);
        end.ok_or_else(|| Errno::FBIG.into())
    }
}

/// Locks also after a panic elsewhere: every guarded value is valid between any two statements that change it.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn count(calls: &AtomicU64, bytes: &AtomicU64, length: u64) {
    calls.fetch_add(1, Ordering::Relaxed);
    bytes.fetch_add(length, Ordering::Relaxed);
}
