//! Pages to install before the VM asks for them: those that a record names, or the likeliest ones without a record.
//!
//! Two threads install them: the one that serves faults, between these, and another one. Whatever the fault thread reads
//! of discards must hold for the next page that the other one installs, so the two take turns (`Gate`). Pages that have
//! to be read from the disk are waited for by the other one alone.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use crate::mmap::{Soon, prepare};
use crate::page_set::{PageSet, new_words};
use crate::patience::Patience;
use crate::source::Source;
use crate::workset::{Kind, Needed};

/// So many pages are installed ahead at most: 64 MiB.
const PAGES_MAX: usize = 1 << 14;
/// So many are installed at once: a fault waits for no more than these.
const BATCH_PAGES: u64 = 16;
/// One of so many groups of pages is left to its faults, another one each turn: what nobody asks for is forgotten that way.
/// Of pages that are only guessed to be needed most are not.
const TURNS_OF_GUESSED: u64 = 8;
const TURNS: u64 = 64;
const GROUP_PAGES: u64 = 16;

/// What is known about the pages that the VM is going to need.
pub struct Ahead {
    batches: Vec<Range<u64>>,
    next: AtomicUsize,
    /// What the record names.
    named: Box<[AtomicU64]>,
    /// What is installed ahead, and what of it was read or written before.
    planned: Box<[AtomicU64]>,
    read: Box<[AtomicU64]>,
    written: Box<[AtomicU64]>,
    /// What is to be unprotected once it is there.
    open: Box<[AtomicU64]>,
    /// No install waits for the disk.
    prepared: AtomicBool,
    /// There is another thread.
    helped: AtomicBool,
    /// The fault thread is at pages that it took.
    in_batch: AtomicBool,
    pub gate: Gate,
}

impl Ahead {
    pub fn none(pages: u64) -> Self {
        Self::new(pages, new_words(pages), std::iter::empty())
    }

    /// What a record names, but for the pages whose turn it is. Those that were written come in all the same, and are
    /// unprotected, as they will be written again, unless it is their turn to show that.
    pub fn recorded(pages: u64, record: &[Needed], turn: Option<u64>) -> Self {
        let named = new_words(pages);
        // What is too much to come in ahead comes as if nothing were known of it.
        let mut left = PAGES_MAX as u64;
        for Needed { pages, .. } in record {
            let end = pages.end.min(pages.start + left);
            PageSet::new(&named).insert(pages.start..end);
            left -= end - pages.start;
        }
        let is_left = |page: u64, turns| turn.is_some_and(|turn| page / GROUP_PAGES % turns == turn % turns);
        let planned = record.iter().flat_map(|Needed { pages, kind }| {
            let is_wanted = move |page: &u64| match kind {
                Kind::Read => !is_left(*page, TURNS),
                Kind::Guessed => !is_left(*page, TURNS_OF_GUESSED),
                Kind::Written => true,
            };
            pages.clone().filter(is_wanted).map(|page| (page, *kind))
        });
        let ahead = Self::new(pages, named, planned);
        for Needed { pages, .. } in record.iter().filter(|needed| needed.kind == Kind::Written) {
            for page in pages.clone().filter(|page| !is_left(*page, TURNS)) {
                PageSet::new(&ahead.open).insert(page..page + 1);
            }
        }
        ahead
    }

    /// What is likely, without a record of this very image.
    pub fn likely(pages: u64, runs: impl Iterator<Item = Range<u64>>) -> Self {
        Self::new(pages, new_words(pages), runs.flatten().map(|page| (page, Kind::Guessed)))
    }

    fn new(pages: u64, named: Box<[AtomicU64]>, wanted: impl Iterator<Item = (u64, Kind)>) -> Self {
        let [planned, read, written, open] = std::array::from_fn(|_| new_words(pages));
        let set = PageSet::new(&planned);
        let mut batches: Vec<Range<u64>> = Vec::new();
        for (page, kind) in wanted.filter(|(page, _)| !set.contains(*page)).take(PAGES_MAX) {
            set.insert(page..page + 1);
            match kind {
                Kind::Read => PageSet::new(&read).insert(page..page + 1),
                Kind::Written => PageSet::new(&written).insert(page..page + 1),
                Kind::Guessed => {}
            }
            match batches.last_mut() {
                Some(last) if last.end == page && last.end - last.start < BATCH_PAGES => last.end += 1,
                _ => batches.push(page..page + 1),
            }
        }
        Self {
            batches,
            read,
            written,
            open,
            next: AtomicUsize::new(0),
            named,
            planned,
            prepared: AtomicBool::new(false),
            helped: AtomicBool::new(false),
            in_batch: AtomicBool::new(false),
            gate: Gate::default(),
        }
    }

    /// Has the bytes ready that will be installed.
    pub fn prepare(&self, source: &Source) {
        for soon in [Soon::Fetched, Soon::Mapped] {
            for batch in &self.batches {
                source.stored(batch.clone()).for_each(|bytes| prepare(bytes, soon));
            }
        }
        self.prepared.store(true, Ordering::Release);
    }

    /// Pages that nobody else installs ahead.
    pub fn take(&self) -> Option<Range<u64>> {
        // Never so often that it could wrap.
        let next = self.next.load(Ordering::Relaxed);
        if next >= self.batches.len() {
            return None;
        }
        self.batches.get(self.next.fetch_add(1, Ordering::Relaxed)).cloned()
    }

    pub fn is_left(&self) -> bool {
        self.next.load(Ordering::Relaxed) < self.batches.len()
    }

    /// Whether there is something to install without delay.
    pub fn is_ready(&self) -> bool {
        self.is_left() && self.prepared.load(Ordering::Acquire)
    }

    /// Nothing is taken any more.
    pub fn stop(&self) {
        self.next.store(self.batches.len(), Ordering::Relaxed);
    }

    /// Pages for the fault thread to install, which says so when they are there.
    pub fn begin_batch(&self) -> Option<Range<u64>> {
        self.in_batch.store(true, Ordering::SeqCst);
        let batch = self.take();
        if batch.is_none() {
            self.end_batch();
        }
        batch
    }

    pub fn end_batch(&self) {
        self.in_batch.store(false, Ordering::SeqCst);
    }

    /// Whether a page is there already, or soon will be.
    pub fn is_coming(&self, page: u64) -> bool {
        (self.is_left() || self.is_helped()) && PageSet::new(&self.planned).contains(page)
    }

    /// Whether all pages are there that nobody else will install.
    pub fn is_done(&self) -> bool {
        !self.is_left() && !self.in_batch.load(Ordering::SeqCst)
    }

    /// To be called before another thread installs anything.
    pub fn begin_help(&self) {
        self.helped.store(true, Ordering::SeqCst);
    }

    /// It installs nothing any more.
    pub fn end_help(&self) {
        self.helped.store(false, Ordering::SeqCst);
    }

    /// If not, the gate is not needed.
    pub fn is_helped(&self) -> bool {
        self.helped.load(Ordering::SeqCst)
    }

    /// Pages that are installed ahead, by what is known of them.
    pub fn kinds(&self, mut pages: Range<u64>) -> impl Iterator<Item = Needed> {
        std::iter::from_fn(move || {
            let start = pages.next()?;
            let kind = self.kind(start);
            while pages.start < pages.end && self.kind(pages.start) == kind {
                pages.start += 1;
            }
            Some(Needed { pages: start..pages.start, kind })
        })
    }

    /// Pages that are there now and will be written.
    pub fn open(&self) -> impl Iterator<Item = Range<u64>> {
        PageSet::new(&self.open).runs()
    }

    fn kind(&self, page: u64) -> Kind {
        if PageSet::new(&self.written).contains(page) {
            Kind::Written
        } else if PageSet::new(&self.read).contains(page) {
            Kind::Read
        } else {
            Kind::Guessed
        }
    }

    /// Whether a page may come with its neighbour `page`, which is missing. Around a page that the record names, it
    /// names all that is needed; and what it names and is left out must show by itself whether it still is.
    pub fn comes_with(&self, page: u64, neighbour: u64) -> bool {
        let planned = || PageSet::new(&self.planned).contains(neighbour);
        let named = |page| PageSet::new(&self.named).contains(page);
        if named(page) { planned() } else { !named(neighbour) || planned() }
    }
}

/// Lets one thread read events while the other one installs nothing.
#[derive(Default)]
pub struct Gate {
    reading: AtomicBool,
    installing: AtomicBool,
}

impl Gate {
    /// Runs `read`, once the other thread has installed what it is at.
    pub fn read<T>(&self, read: impl FnOnce() -> T) -> T {
        self.reading.store(true, Ordering::SeqCst);
        let mut patience = Patience::default();
        while self.installing.load(Ordering::SeqCst) {
            patience.wait();
        }
        let result = read();
        self.reading.store(false, Ordering::SeqCst);
        result
    }

    /// Runs `install` when nobody reads.
    pub fn install<T>(&self, install: impl FnOnce() -> T) -> T {
        let mut patience = Patience::default();
        loop {
            self.installing.store(true, Ordering::SeqCst);
            if !self.reading.load(Ordering::SeqCst) {
                break;
            }
            self.installing.store(false, Ordering::SeqCst);
            patience.wait();
        }
        let result = install();
        self.installing.store(false, Ordering::SeqCst);
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const READ: Kind = Kind::Read;

    fn record(runs: &[(Range<u64>, Kind)]) -> Vec<Needed> {
        runs.iter().map(|(pages, kind)| Needed { pages: pages.clone(), kind: *kind }).collect()
    }

    fn taken(ahead: &Ahead) -> Vec<u64> {
        std::iter::from_fn(|| ahead.take()).flatten().collect()
    }

    #[test]
    fn a_part_is_left_out_in_turn_unless_it_was_written() {
        for (kind, turns) in [(READ, TURNS), (Kind::Guessed, TURNS_OF_GUESSED)] {
            let pages = turns * GROUP_PAGES;
            let record = record(&[(0..pages, kind), (pages..2 * pages, Kind::Written)]);
            let mut missing = Vec::new();
            for turn in 0..turns {
                let set = taken(&Ahead::recorded(2 * pages, &record, Some(turn)));
                assert_eq!(set.len() as u64, 2 * pages - GROUP_PAGES);
                assert!(set.is_sorted());
                missing.extend((0..2 * pages).filter(|page| !set.contains(page)));
            }
            missing.sort_unstable();
            assert_eq!(missing, (0..pages).collect::<Vec<_>>());
        }
        let twice = record(&[(5..7, READ), (1..3, Kind::Written), (6..8, READ)]);
        assert_eq!(taken(&Ahead::recorded(512, &twice, None)), [5, 6, 1, 2, 7]);
    }

    #[test]
    fn neighbours_come_as_the_record_says() {
        let ahead = Ahead::recorded(512, &record(&[(1..4, READ), (16..20, READ)]), Some(1));
        // Named and installed ahead: with others of that kind only.
        assert!(ahead.comes_with(1, 2) && !ahead.comes_with(1, 5));
        // Named and left out: alone.
        assert!(!ahead.comes_with(16, 17) && !ahead.comes_with(16, 25));
        // Not named: with all but those.
        assert!(ahead.comes_with(25, 26) && !ahead.comes_with(25, 17));
        assert!(Ahead::none(512).comes_with(1, 2));
        let max = PAGES_MAX as u64;
        let much = Ahead::recorded(4 * max, &record(&[(0..2 * max, READ)]), None);
        assert!(much.comes_with(2 * max - 2, 2 * max - 1), "as without a record");
    }

    #[test]
    fn it_is_bounded_and_ends() {
        let much = Ahead::likely(1 << 20, std::iter::once(0..1 << 20));
        assert_eq!(much.batches.iter().map(|batch| batch.end - batch.start).sum::<u64>(), PAGES_MAX as u64);
        assert!(much.is_left());
        much.stop();
        assert!(!much.is_left() && much.take().is_none());
    }
}
