//! Lookups and ranges against a model that keeps one answer per block, and hostile bytes against nothing but time.

use thaw_snapshot::{BuildId, Header, ZERO_FILL, parse};

const BLOCK: u64 = 4096;

/// A small generator (splitmix64), so that a failure names the seed that repeats it.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// What the model knows of a block: its build and the block's place there; `None` is zero fill.
type Block = Option<(BuildId, u64)>;

fn random_blocks(random: &mut Random) -> Vec<Block> {
    let count = 1 + random.below(120) as usize;
    let mut blocks = Vec::with_capacity(count);
    while blocks.len() < count {
        let build = [1 + random.below(3) as u8; 16];
        let start = random.below(1 << 20);
        let zero = random.below(3) == 0;
        for step in 0..1 + random.below(9) {
            blocks.push(if zero { None } else { Some((build, start + step)) });
        }
    }
    blocks.truncate(count);
    blocks
}

fn follows(before: Block, block: Block) -> bool {
    match (before, block) {
        (None, None) => true,
        (Some((a, at)), Some((b, next))) => a == b && at + 1 == next,
        _ => false,
    }
}

fn serialise(blocks: &[Block]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for word in [1, BLOCK, blocks.len() as u64 * BLOCK, 7] {
        bytes.extend(word.to_le_bytes());
    }
    bytes.extend([9; 32]);
    let mut start = 0;
    for end in 1..=blocks.len() {
        if end < blocks.len() && follows(blocks[end - 1], blocks[end]) {
            continue;
        }
        let (build, storage) = blocks[start].unwrap_or((ZERO_FILL, 0));
        bytes.extend((start as u64 * BLOCK).to_le_bytes());
        bytes.extend(((end - start) as u64 * BLOCK).to_le_bytes());
        bytes.extend(build);
        bytes.extend((storage * BLOCK).to_le_bytes());
        start = end;
    }
    bytes
}

fn check_lookup(header: &Header, blocks: &[Block], offset: u64) {
    let run = header.lookup(offset).expect("in range");
    let at = (offset / BLOCK) as usize;
    assert_eq!(run.is_zero, blocks[at].is_none());
    if let Some((build, place)) = blocks[at] {
        assert_eq!((run.build, run.storage_offset), (build, place * BLOCK + offset % BLOCK));
    }
    let mut end = at + 1;
    while end < blocks.len() && follows(blocks[end - 1], blocks[end]) {
        end += 1;
    }
    assert_eq!(run.remaining, end as u64 * BLOCK - offset);
}

#[test]
fn lookups_agree_with_the_model() {
    for seed in 0..500 {
        let random = &mut Random(seed);
        let blocks = random_blocks(random);
        let header = parse(&serialise(&blocks)).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        for _ in 0..40 {
            check_lookup(&header, &blocks, random.below(header.size));
        }
        assert!(header.lookup(header.size).is_err());
        assert!(header.lookup(u64::MAX).is_err());
    }
}

#[test]
fn runs_cut_a_range_as_the_model_does() {
    for seed in 1000..1300 {
        let random = &mut Random(seed);
        let blocks = random_blocks(random);
        let header = parse(&serialise(&blocks)).expect("valid");
        let start = random.below(header.size);
        let length = random.below(header.size - start + 1);
        let mut at = start;
        for (offset, run) in header.runs(start, length).expect("in range") {
            assert_eq!(offset, at, "seed {seed}");
            let whole = header.lookup(offset).expect("in range");
            assert_eq!((run.build, run.storage_offset), (whole.build, whole.storage_offset));
            assert_eq!(run.remaining, whole.remaining.min(start + length - offset));
            at += run.remaining;
        }
        assert_eq!(at, start + length, "seed {seed}");
        assert!(header.runs(start, header.size - start + 1).is_err());
    }
}

#[test]
fn builds_are_listed_once() {
    let blocks = [Some(([2; 16], 0)), None, Some(([1; 16], 5)), Some(([2; 16], 9))];
    assert_eq!(parse(&serialise(&blocks)).expect("valid").builds(), vec![[1; 16], [2; 16]]);
}

#[test]
fn changed_bytes_never_panic() {
    for seed in 2000..4000 {
        let random = &mut Random(seed);
        let mut bytes = serialise(&random_blocks(random));
        for _ in 0..1 + random.below(4) {
            let at = random.below(bytes.len() as u64) as usize;
            bytes[at] = random.next() as u8;
        }
        bytes.truncate(bytes.len() - random.below(3) as usize * 20);
        if let Ok(header) = parse(&bytes) {
            let offset = random.below(header.size);
            assert!(header.lookup(offset).expect("in range").remaining <= header.size - offset);
        }
    }
}

#[test]
fn only_the_normal_form_is_accepted() {
    let metadata = &serialise(&[None, None])[..64];
    let entry = |offset: u64, build: u8, storage: u64| {
        let mut bytes = Vec::from((offset * BLOCK).to_le_bytes());
        bytes.extend(BLOCK.to_le_bytes());
        bytes.extend([build; 16]);
        bytes.extend((storage * BLOCK).to_le_bytes());
        bytes
    };
    let accepted = |entries: &[Vec<u8>]| parse(&[metadata, &entries.concat()].concat()).is_ok();
    assert!(accepted(&[entry(0, 1, 0), entry(1, 1, 2)]));
    assert!(!accepted(&[entry(0, 1, 0), entry(1, 1, 1)]), "two entries of one run");
    assert!(!accepted(&[entry(0, 0, 0), entry(1, 0, 0)]), "two entries of zero fill");
    assert!(!accepted(&[entry(0, 1, 0), entry(1, 0, 1)]), "zero fill with a storage offset");
}
