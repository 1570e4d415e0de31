//! Where the VMM has the guest's memory.

use std::ops::Range;

use serde::Deserialize;

use crate::memory::Span;
use crate::page_set::PAGE_BYTES;

const REGIONS_MAX: usize = 256;
/// Above any user address.
const ADDRESS_END: u64 = 1 << 56;

/// One region, all in bytes: `base` in the VMM's address space is `offset` in guest memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Region {
    pub base: u64,
    pub size: u64,
    pub offset: u64,
}

/// All regions, ascending by offset; together they cover the guest's memory.
#[derive(Debug, Clone)]
pub struct Regions(Vec<Region>);

/// A region as Firecracker writes it; `page_size_kib` is the older name of `page_size` and holds bytes as well.
#[derive(Deserialize)]
struct Written {
    base_host_virt_addr: u64,
    size: u64,
    offset: u64,
    page_size: Option<u64>,
    page_size_kib: Option<u64>,
}

impl Regions {
    /// Reads a handshake. The error says what is wrong with it.
    pub fn parse(json: &[u8], memory_bytes: u64) -> Result<Self, String> {
        let written: Vec<Written> = serde_json::from_slice(json)
            .map_err(|error| format!("the handshake is no list of regions: {error}"))?;
        if written.len() > REGIONS_MAX {
            return Err(format!("{} regions: 1 to {REGIONS_MAX} expected", written.len()));
        }
        let mut regions = Vec::with_capacity(written.len());
        for region in &written {
            let page_size = region.page_size.or(region.page_size_kib);
            if page_size != Some(PAGE_BYTES) {
                return Err(format!("page size {page_size:?}: only {PAGE_BYTES} bytes are supported"));
            }
            let Written { base_host_virt_addr: base, size, offset, .. } = *region;
            regions.push(Region { base, size, offset });
        }
        Self::of(regions, memory_bytes)
    }

    /// The error says what is wrong with them.
    pub fn of(mut regions: Vec<Region>, memory_bytes: u64) -> Result<Self, String> {
        if regions.is_empty() {
            return Err(format!("0 regions: 1 to {REGIONS_MAX} expected"));
        }
        for region in &regions {
            check(region, memory_bytes)?;
        }
        regions.sort_by_key(|region| region.base);
        if regions.windows(2).any(|pair| pair[0].base + pair[0].size > pair[1].base) {
            return Err("regions overlap in the VMM's address space".into());
        }
        regions.sort_by_key(|region| region.offset);
        let mut end = 0;
        for region in &regions {
            if region.offset < end {
                return Err("regions overlap in guest memory".into());
            }
            if region.offset > end {
                return Err(format!("no region holds guest memory from {end} to {}", region.offset));
            }
            end += region.size;
        }
        if end != memory_bytes {
            return Err(format!("the regions end at {end}, the memory at {memory_bytes}"));
        }
        Ok(Self(regions))
    }

    pub fn iter(&self) -> impl Iterator<Item = &Region> {
        self.0.iter()
    }

    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The region that holds an address.
    pub fn at(&self, address: u64) -> Option<&Region> {
        self.0.iter().find(|region| region.addresses().contains(&address))
    }

    /// The region that holds a byte of guest memory.
    pub fn holding(&self, offset: u64) -> Option<&Region> {
        self.0[..self.0.partition_point(|region| region.offset <= offset)]
            .last()
            .filter(|region| offset - region.offset < region.size)
    }

    /// The parts of a range of addresses that are guest memory, as page numbers.
    pub fn pages(&self, addresses: Range<u64>) -> impl Iterator<Item = Range<u64>> {
        self.0.iter().filter_map(move |region| {
            let start = addresses.start.max(region.base);
            let end = addresses.end.min(region.base + region.size);
            (start < end).then(|| {
                let first = (start - region.base + region.offset) / PAGE_BYTES;
                first..first + (end - start).div_ceil(PAGE_BYTES)
            })
        })
    }

    /// Where a range of pages lies in the VMM, ascending by page.
    pub fn spans(&self, pages: Range<u64>) -> impl Iterator<Item = Span> {
        let (start, end) = (pages.start * PAGE_BYTES, pages.end * PAGE_BYTES);
        let first = self.0.partition_point(|region| region.offset + region.size <= start);
        self.0[first..].iter().take_while(move |region| region.offset < end).map(move |region| {
            let from = start.max(region.offset);
            let to = end.min(region.offset + region.size);
            Span { address: from - region.offset + region.base, length: to - from }
        })
    }

    /// The regions after the VMM moved `length` bytes from one address to another.
    pub fn moved(&self, from: u64, to: u64, length: u64) -> Self {
        let mut regions = Vec::with_capacity(self.0.len() + 2);
        for region in &self.0 {
            let end = region.base + region.size;
            let (cut, rest) = (from.clamp(region.base, end), (from + length).clamp(region.base, end));
            let part = |start: u64, end: u64, base: u64| Region {
                base,
                size: end - start,
                offset: start - region.base + region.offset,
            };
            let moved = part(cut, rest, to.wrapping_add(cut).wrapping_sub(from));
            let parts = [part(region.base, cut, region.base), moved, part(rest, end, rest)];
            regions.extend(parts.into_iter().filter(|part| part.size > 0));
        }
        Self(regions)
    }
}

impl Region {
    pub fn addresses(&self) -> Range<u64> {
        self.base..self.base + self.size
    }
}

fn check(region: &Region, memory_bytes: u64) -> Result<(), String> {
    let fields = [region.base, region.size, region.offset];
    if region.size == 0 || fields.iter().any(|field| !field.is_multiple_of(PAGE_BYTES)) {
        return Err("a region is empty or not aligned to pages".into());
    }
    if region.base >= ADDRESS_END || region.size > ADDRESS_END - region.base {
        return Err("a region is beyond the address space".into());
    }
    if region.offset > memory_bytes || region.size > memory_bytes - region.offset {
        return Err(format!("a region reaches beyond the memory's {memory_bytes} bytes"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: u64 = PAGE_BYTES;

    fn two() -> Regions {
        let json = br#"[{"base_host_virt_addr":1048576,"size":16384,"offset":8192,"page_size":4096},
            {"base_host_virt_addr":8388608,"size":8192,"offset":0,"page_size_kib":4096,"other":1}]"#;
        Regions::parse(json, 6 * PAGE).unwrap()
    }

    #[test]
    fn addresses_and_pages_translate_both_ways() {
        let regions = two();
        assert_eq!(regions.at(8388608 + 5).unwrap().offset, 0);
        assert!(regions.at(8388608 + 8192).is_none());
        assert_eq!(regions.holding(8191).unwrap().base, 8388608);
        assert_eq!(regions.holding(8192).unwrap().base, 1048576);
        assert!(regions.holding(6 * PAGE).is_none());
        assert_eq!(regions.pages(0..1 << 40).collect::<Vec<_>>(), [0..2, 2..6]);
        assert_eq!(regions.pages(1048576 + PAGE..1048576 + 3 * PAGE).collect::<Vec<_>>(), vec![3..5]);
        let spans: Vec<_> = regions.spans(1..4).map(|span| (span.address, span.length)).collect();
        assert_eq!(spans, [(8388608 + PAGE, PAGE), (1048576, 2 * PAGE)]);
    }

    #[test]
    fn a_moved_part_splits_its_region() {
        let moved = two().moved(1048576 + PAGE, 1 << 30, 2 * PAGE);
        assert_eq!(moved.count(), 4);
        let spans: Vec<_> = moved.spans(2..6).map(|span| (span.address, span.length)).collect();
        assert_eq!(spans, [(1048576, PAGE), (1 << 30, 2 * PAGE), (1048576 + 3 * PAGE, PAGE)]);
    }

    #[test]
    fn wrong_regions_are_refused() {
        let region = |base: u64, size: u64, offset: u64| {
            format!(r#"{{"base_host_virt_addr":{base},"size":{size},"offset":{offset},"page_size":4096}}"#)
        };
        for (json, word) in [
            ("[]".to_owned(), "0 regions"),
            ("{}".to_owned(), "no list"),
            (format!("[{}]", region(PAGE, 4 * PAGE, 0).replace("4096}", "8192}")), "page size"),
            (format!("[{}]", region(PAGE, 4 * PAGE, 0).replace(r#","page_size":4096"#, "")), "page size"),
            (format!("[{}]", region(PAGE + 1, 4 * PAGE, 0)), "aligned"),
            (format!("[{}]", region(PAGE, 0, 0)), "empty"),
            (format!("[{}]", region(PAGE, 5 * PAGE, 0)), "beyond the memory"),
            (format!("[{}]", region(PAGE, 4 * PAGE, PAGE)), "beyond the memory"),
            (format!("[{}]", region(u64::MAX - 4095, 4 * PAGE, 0)), "address space"),
            (format!("[{}]", region(PAGE, 3 * PAGE, 0)), "end at"),
            (
                format!("[{},{}]", region(PAGE, 2 * PAGE, 0), region(2 * PAGE, 2 * PAGE, 2 * PAGE)),
                "overlap in the VMM",
            ),
            (
                format!("[{},{}]", region(PAGE, 3 * PAGE, 0), region(9 * PAGE, 2 * PAGE, 2 * PAGE)),
                "overlap in guest",
            ),
        ] {
            let error = Regions::parse(json.as_bytes(), 4 * PAGE).unwrap_err();
            assert!(error.contains(word), "{json}: {error}");
        }
    }
}
