//! Where a page comes from: a header and the builds it names.

use std::collections::BTreeMap;
use std::io::Read;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use thaw_control::ControlError;
use thaw_snapshot::{BuildId, Header, format_build_id, parse_build_id};

use crate::mmap::FileMap;
use crate::page_set::PAGE_BYTES;

/// Headers larger than this are refused: 32 million entries.
const HEADER_BYTES_MAX: u64 = 64 + 40 * (1 << 25);

/// At most so many entries of a page each are looked through for one page.
const STRETCH_BYTES: u64 = 16 * PAGE_BYTES;

/// An immutable image of the guest's memory. Without a header it is all zero.
pub struct Source {
    header: Option<Header>,
    builds: Vec<Build>,
    /// For each entry of the header, the index of its build.
    build_of: Vec<u32>,
    /// For each stretch of memory, the entry that its first byte is in: a lookup costs the same however many there are.
    first_of: Vec<u32>,
    memory_bytes: u64,
}

struct Build {
    map: FileMap,
    bytes_served: Arc<AtomicU64>,
}

/// Counters of bytes served, by build; they outlive the sources that feed them.
pub type BytesByBuild = BTreeMap<BuildId, Arc<AtomicU64>>;

/// A maximal run of pages that lie together in one build, or are zero.
pub struct Piece<'a> {
    /// Bytes of guest memory.
    pub range: Range<u64>,
    /// `None` if zero.
    stored: Option<Stored<'a>>,
}

#[derive(Clone, Copy)]
struct Stored<'a> {
    bytes: &'a [u8],
    served: &'a AtomicU64,
}

impl Source {
    /// All zero: what a VM boots with.
    pub fn empty(memory_bytes: u64) -> Self {
        Self { header: None, builds: Vec::new(), build_of: Vec::new(), first_of: Vec::new(), memory_bytes }
    }

    /// Checks that the header fits the memory and that every build is given and as long as the header needs.
    pub fn open(
        header: OwnedFd,
        builds: BTreeMap<String, OwnedFd>,
        memory_bytes: u64,
        counters: &mut BytesByBuild,
    ) -> Result<Self, ControlError> {
        let header = read_header(header)?;
        if header.block_size != PAGE_BYTES || header.size != memory_bytes {
            return Err(ControlError::invalid(format!(
                "the header describes {} bytes in blocks of {}, the memory has {memory_bytes} in pages of {PAGE_BYTES}",
                header.size, header.block_size
            )));
        }
        let mut maps = BTreeMap::new();
        for (text, fd) in builds {
            let id = parse_build_id(&text)
                .ok_or_else(|| ControlError::invalid(format!("{text:?} is no build id")))?;
            maps.insert(id, FileMap::new(&fd)?);
        }
        let ids = header.builds();
        let build_of = check_entries(&header, &ids, &maps)?;
        let builds = ids
            .iter()
            .filter_map(|id| Some((id, maps.remove(id)?)))
            .map(|(id, map)| Build { map, bytes_served: Arc::clone(counters.entry(*id).or_default()) })
            .collect();
        let first_of = first_of(&header);
        Ok(Self { header: Some(header), builds, build_of, first_of, memory_bytes })
    }

    /// The piece that holds a byte of guest memory.
    pub fn piece(&self, offset: u64) -> Piece<'_> {
        let Some(header) = &self.header else {
            return Piece { range: 0..self.memory_bytes, stored: None };
        };
        let stretch = (offset / STRETCH_BYTES) as usize;
        let first = self.first_of[stretch] as usize;
        let last = self.first_of.get(stretch + 1).map_or(header.entries.len() - 1, |index| *index as usize);
        let index = first + header.entries[first + 1..=last].partition_point(|entry| entry.offset <= offset);
        let entry = &header.entries[index];
        let stored = (!entry.is_zero()).then(|| {
            let build = &self.builds[self.build_of[index] as usize];
            let start = entry.storage_offset as usize;
            Stored {
                bytes: &build.map.bytes()[start..start + entry.length as usize],
                served: &build.bytes_served,
            }
        });
        Piece { range: entry.offset..entry.end(), stored }
    }

    /// The bytes that builds hold of a range of pages.
    pub fn stored(&self, pages: Range<u64>) -> impl Iterator<Item = &[u8]> {
        let (mut at, end) = (pages.start * PAGE_BYTES, pages.end * PAGE_BYTES);
        std::iter::from_fn(move || {
            (at < end).then(|| {
                let piece = self.piece(at);
                let part = at..piece.range.end.min(end);
                at = part.end;
                piece.bytes(part)
            })
        })
        .flatten()
    }

    /// The pages that the image's own build stores: what changed last. The first `limit` of them.
    pub fn own(&self, limit: u64) -> impl Iterator<Item = Range<u64>> {
        let entries = self
            .header
            .iter()
            .flat_map(|header| header.entries.iter().filter(move |entry| entry.build == header.build));
        let mut left = limit;
        entries.map_while(move |entry| {
            let pages = (entry.length / PAGE_BYTES).min(left);
            left -= pages;
            let start = entry.offset / PAGE_BYTES;
            (pages > 0).then_some(start..start + pages)
        })
    }
}

impl<'a> Piece<'a> {
    pub fn is_zero(&self) -> bool {
        self.stored.is_none()
    }

    /// The bytes of a range of guest memory within the piece; `None` if they are zero.
    pub fn bytes(&self, range: Range<u64>) -> Option<&'a [u8]> {
        let stored = self.stored?;
        Some(
            &stored.bytes[(range.start - self.range.start) as usize..(range.end - self.range.start) as usize],
        )
    }

    /// What counts the bytes served from this piece; `None` if they are zero.
    pub fn served(&self) -> Option<&'a AtomicU64> {
        Some(self.stored?.served)
    }
}

fn read_header(fd: OwnedFd) -> Result<Header, ControlError> {
    let mut bytes = Vec::new();
    std::fs::File::from(fd).take(HEADER_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > HEADER_BYTES_MAX {
        return Err(ControlError::invalid("the header is too large"));
    }
    thaw_snapshot::parse(&bytes).map_err(|error| ControlError::invalid(format!("memory header: {error}")))
}

fn first_of(header: &Header) -> Vec<u32> {
    let mut index = 0;
    let first = |stretch: u64| {
        while header.entries[index].end() <= stretch * STRETCH_BYTES {
            index += 1;
        }
        index as u32
    };
    (0..header.size.div_ceil(STRETCH_BYTES)).map(first).collect()
}

fn check_entries(
    header: &Header,
    ids: &[BuildId],
    maps: &BTreeMap<BuildId, FileMap>,
) -> Result<Vec<u32>, ControlError> {
    let index_of = |entry: &thaw_snapshot::Entry| -> Result<u32, ControlError> {
        if entry.is_zero() {
            return Ok(u32::MAX);
        }
        let name = || format_build_id(&entry.build);
        let map = maps.get(&entry.build).ok_or_else(|| {
            ControlError::invalid(format!("the header needs build {}, which is not given", name()))
        })?;
        let end = entry.storage_offset + entry.length;
        let held = map.bytes().len() as u64;
        if end > held {
            return Err(ControlError::invalid(format!(
                "the header needs {end} bytes of build {}, which has {held}",
                name()
            )));
        }
        ids.binary_search(&entry.build)
            .map(|index| index as u32)
            .map_err(|_| ControlError::new("internal", "a build is missing from its own header"))
    };
    header.entries.iter().map(index_of).collect()
}
