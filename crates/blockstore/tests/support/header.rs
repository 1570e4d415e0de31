//! A second, per-block implementation of disk headers and of what a rotate's runs mean for them.

use std::io::Write;

use super::{BLOCK, Directory};

pub type BuildId = [u8; 16];

/// For each block of a disk: the build and the byte position in its file, or nothing for zero fill.
#[derive(Clone, Default)]
pub struct Blocks(pub Vec<Option<(BuildId, u64)>>);

/// One record of a runs file, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunRecord {
    pub offset: u64,
    pub length: u64,
    pub kind: u64,
}

impl RunRecord {
    pub fn blocks(&self) -> std::ops::Range<u64> {
        self.offset / BLOCK as u64..(self.offset + self.length) / BLOCK as u64
    }
}

impl Blocks {
    /// The header's bytes: 64 of metadata, then 40 for each maximal run.
    pub fn serialize(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for value in [1, BLOCK as u64, (self.0.len() * BLOCK) as u64, 0] {
            bytes.extend(value.to_le_bytes());
        }
        bytes.extend([9; 32]);
        let mut at = 0;
        while at < self.0.len() {
            let continues = |index: usize| match (self.0[at], self.0[index]) {
                (None, None) => true,
                (Some((build, start)), Some((other, position))) => {
                    build == other && position == start + ((index - at) * BLOCK) as u64
                }
                _ => false,
            };
            let end = (at..self.0.len()).find(|index| !continues(*index)).unwrap_or(self.0.len());
            let (build, storage) = self.0[at].unwrap_or_default();
            bytes.extend(((at * BLOCK) as u64).to_le_bytes());
            bytes.extend((((end - at) * BLOCK) as u64).to_le_bytes());
            bytes.extend(build);
            bytes.extend(storage.to_le_bytes());
            at = end;
        }
        bytes
    }

    pub fn write(&self, directory: &Directory, name: &str) -> std::fs::File {
        let mut file = directory.create(name);
        file.write_all(&self.serialize()).unwrap();
        file
    }

    /// The next generation: `build`'s file has its blocks at their own offsets.
    pub fn apply(&self, runs: &[RunRecord], build: BuildId, blocks: usize) -> Self {
        let mut next = self.0.clone();
        next.resize(blocks, None);
        for run in runs {
            for block in run.blocks() {
                next[block as usize] = (run.kind == 1).then_some((build, block * BLOCK as u64));
            }
        }
        Self(next)
    }
}

pub fn parse_runs(bytes: &[u8]) -> Vec<RunRecord> {
    assert!(bytes.len().is_multiple_of(24));
    let value = |record: &[u8], at: usize| u64::from_le_bytes(record[at..at + 8].try_into().unwrap());
    let record =
        |bytes: &[u8]| RunRecord { offset: value(bytes, 0), length: value(bytes, 8), kind: value(bytes, 16) };
    bytes.chunks(24).map(record).collect()
}

pub fn name(build: &BuildId) -> String {
    let hex: String = build.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}
