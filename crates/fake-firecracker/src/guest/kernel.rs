//! What the guest's processor and devices do, and its registers: a page with a mark, the ticks since the boot, the
//! last process id, and the state of the random generator.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::disk::RootDrive;
use super::facts::Facts;
use super::{FACTS, FREE, GENERATION, PAGE_TABLES, QUEUES, REGISTERS, TEXT};
use crate::devices::observe::Serial;
use crate::faults::FaultPlan;
use crate::guest_memory::{GuestMemory, PAGE_BYTES};

const MARK: u64 = u64::from_le_bytes(*b"ThawFake");
const TICKS: u64 = REGISTERS + 8;
const PID: u64 = REGISTERS + 16;
const RANDOM: u64 = REGISTERS + 24;
pub const RANDOM_WORDS: usize = 4;
const PID_FIRST: u64 = 300;
/// So that the call that brought it about is answered.
const RESET_AFTER: Duration = Duration::from_millis(50);

pub struct Kernel {
    memory: Arc<GuestMemory>,
    pub root: RootDrive,
    serial: Serial,
    pub faults: FaultPlan,
    clock_lag_ms: i64,
}

/// Loads the kernel into fresh memory: what a boot finds there.
pub fn install(memory: &GuestMemory) {
    for page in PAGE_TABLES.into_iter().chain(TEXT.step_by(PAGE_BYTES as usize)) {
        memory.write(page, &pattern(page, 0));
    }
    memory.write(REGISTERS, &MARK.to_le_bytes());
    memory.write(PID, &PID_FIRST.to_le_bytes());
    // A machine without entropy of its own: every boot is the same until somebody brings some.
    for word in 0..RANDOM_WORDS as u64 {
        memory.write(RANDOM + word * 8, &scramble(word + 1).to_le_bytes());
    }
    Facts::default().store(memory).expect("no facts take little room");
}

/// The bytes of a page that belong to its place and a seed.
fn pattern(page: u64, seed: u64) -> Vec<u8> {
    let mut word = scramble(page ^ scramble(seed));
    let words = std::iter::repeat_with(|| {
        word = scramble(word);
        word.to_le_bytes()
    });
    words.take(PAGE_BYTES as usize / 8).flatten().collect()
}

/// Splitmix64.
fn scramble(word: u64) -> u64 {
    let word = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ word >> 31
}

impl Kernel {
    pub fn new(
        memory: Arc<GuestMemory>,
        root: RootDrive,
        serial: Serial,
        faults: FaultPlan,
        clock_lag_ms: i64,
    ) -> Kernel {
        Kernel { memory, root, serial, faults, clock_lag_ms }
    }

    /// The first steps after a boot or a pause, in the order in which a processor touches pages. A guest whose kernel
    /// is not what it was gets no further.
    pub fn go_on(&mut self) {
        for page in PAGE_TABLES.into_iter().chain(TEXT.step_by(PAGE_BYTES as usize)) {
            let mut bytes = [0; PAGE_BYTES as usize];
            self.memory.read(page, &mut bytes);
            if bytes[..] != pattern(page, 0) {
                self.panic(&format!("bad page at {page:#x}"));
            }
        }
        if self.word(REGISTERS) != MARK {
            self.panic("bad registers");
        }
        if self.word(TICKS) == 0 {
            self.serial.print("Linux version 6.1.0-fake\nthaw-init: the guest agent starts\n");
        }
    }

    /// Ends the process as a guest that resets does.
    pub fn reset(&mut self) -> ! {
        self.serial.print("reboot: Restarting system\n");
        std::thread::sleep(RESET_AFTER);
        std::process::exit(0)
    }

    pub fn panic(&mut self, why: &str) -> ! {
        self.serial.print(&format!("Kernel panic - not syncing: {why}\n"));
        self.reset()
    }

    fn word(&self, at: u64) -> u64 {
        let mut bytes = [0; 8];
        self.memory.read(at, &mut bytes);
        u64::from_le_bytes(bytes)
    }

    /// One more, and how many there were since the boot. Devices move their queues meanwhile.
    pub fn tick(&mut self) -> u64 {
        let ticks = self.word(TICKS) + 1;
        self.memory.write(TICKS, &ticks.to_le_bytes());
        if ticks == 1 {
            self.memory.write(QUEUES.start, &[1]);
        }
        ticks
    }

    pub fn ticks(&self) -> u64 {
        self.word(TICKS)
    }

    pub fn next_pid(&mut self) -> u64 {
        let pid = self.word(PID) + 1;
        self.memory.write(PID, &pid.to_le_bytes());
        pid
    }

    pub fn facts(&mut self) -> Facts {
        Facts::load(&self.memory).unwrap_or_else(|| self.panic("bad facts"))
    }

    /// False: there is no room for them.
    pub fn set_facts(&mut self, facts: &Facts) -> bool {
        facts.store(&self.memory).is_some()
    }

    /// Milliseconds since 1970, as the guest believes.
    pub fn clock_ms(&mut self) -> i64 {
        self.raw_clock_ms() + self.facts().clock_offset_ms
    }

    /// The clock as the machine has it, before anybody set it.
    pub fn raw_clock_ms(&self) -> i64 {
        let host_ms =
            SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64);
        host_ms - self.clock_lag_ms
    }

    pub fn random(&mut self) -> [u64; RANDOM_WORDS] {
        self.stir(&[0; RANDOM_WORDS]);
        std::array::from_fn(|word| scramble(self.word(RANDOM + word as u64 * 8) ^ MARK))
    }

    /// Mixes words into the random state.
    pub fn stir(&mut self, words: &[u64]) {
        let mut before = words.len() as u64;
        for (index, word) in words.iter().enumerate() {
            let at = RANDOM + (index % RANDOM_WORDS) as u64 * 8;
            before = scramble(self.word(at) ^ word ^ before);
            self.memory.write(at, &before.to_le_bytes());
        }
    }

    pub fn generation(&self) -> u128 {
        let mut id = [0; 16];
        self.memory.read(GENERATION, &mut id);
        u128::from_be_bytes(id)
    }

    /// The offsets of pages that commands may use; `None` for others.
    fn free(&self, page: u64, pages: u64) -> Option<impl Iterator<Item = u64> + use<>> {
        let start = page.checked_mul(PAGE_BYTES)?;
        let end = pages.checked_mul(PAGE_BYTES)?.checked_add(start)?;
        (start >= FREE && end <= self.memory.size_bytes).then(|| (start..end).step_by(PAGE_BYTES as usize))
    }

    pub fn fill(&mut self, page: u64, pages: u64, seed: u64) -> Option<()> {
        self.free(page, pages)?.for_each(|page| self.memory.write(page, &pattern(page, seed)));
        Some(())
    }

    pub fn zero(&mut self, page: u64, pages: u64) -> Option<()> {
        self.free(page, pages)?.for_each(|page| self.memory.write(page, &[0; PAGE_BYTES as usize]));
        Some(())
    }

    /// A checksum of the pages, each touched on the way.
    pub fn sum(&self, page: u64, pages: u64) -> Option<u64> {
        let mut bytes = [0; PAGE_BYTES as usize];
        Some(self.free(page, pages)?.fold(0, |sum, page| {
            self.memory.read(page, &mut bytes);
            bytes.as_chunks::<8>().0.iter().fold(sum, |sum, word| scramble(sum ^ u64::from_le_bytes(*word)))
        }))
    }
}

const _: () = assert!(FACTS.end <= QUEUES.start && QUEUES.end <= FREE);
