//! What a VM touches after a restore: pages in short runs all over its memory, in no order, some of them first by a write.

use crate::random::Random;

pub const MEMORY_PAGES: u64 = 131_072;
const PAGES: usize = 4000;
/// Runs are this long at most.
const RUN_MAX: u64 = 12;
const WRITTEN_PERCENT: u64 = 30;

/// One touch: a page and whether it is written to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Touch {
    pub page: u64,
    pub write: bool,
}

/// The working set that a seed stands for, in the order in which it is touched.
pub fn working_set(seed: u64) -> Vec<Touch> {
    let mut random = Random(seed);
    let mut taken = vec![false; MEMORY_PAGES as usize];
    let mut touches = Vec::with_capacity(PAGES);
    while touches.len() < PAGES {
        let start = random.below(MEMORY_PAGES - RUN_MAX);
        let room = (PAGES - touches.len()) as u64;
        for page in start..start + (1 + random.below(RUN_MAX)).min(room) {
            if !std::mem::replace(&mut taken[page as usize], true) {
                touches.push(Touch { page, write: random.below(100) < WRITTEN_PERCENT });
            }
        }
    }
    touches
}

/// One page in each of so many windows of 16, and all the others of those windows.
pub fn lonely(windows: u64) -> (Vec<Touch>, Vec<Touch>) {
    let step = MEMORY_PAGES / windows;
    let read = |page| Touch { page, write: false };
    let mut random = Random(windows);
    let mut starts: Vec<u64> = (0..windows).map(|window| window * step).collect();
    for at in (1..starts.len()).rev() {
        starts.swap(at, random.below(at as u64 + 1) as usize);
    }
    let alone = starts.iter().map(|start| read(start + 7)).collect();
    let rest = starts.iter().flat_map(|start| (*start..start + 16).filter(move |page| *page != start + 7));
    (alone, rest.map(read).collect())
}
