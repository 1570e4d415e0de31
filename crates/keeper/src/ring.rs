//! The last bytes of an endless output.

use std::collections::VecDeque;

pub struct Ring {
    bytes: VecDeque<u8>,
    capacity: usize,
    dropped_bytes: u64,
}

impl Ring {
    pub fn new(capacity: usize) -> Self {
        Self { bytes: VecDeque::new(), capacity, dropped_bytes: 0 }
    }

    pub fn push(&mut self, bytes: &[u8]) {
        let kept = &bytes[bytes.len().saturating_sub(self.capacity)..];
        let excess = (self.bytes.len() + kept.len()).saturating_sub(self.capacity);
        self.bytes.drain(..excess);
        self.bytes.extend(kept);
        self.dropped_bytes += (bytes.len() - kept.len() + excess) as u64;
    }

    /// What is kept, oldest first; bytes that are no UTF-8 are replaced.
    pub fn text(&self) -> String {
        let bytes: Vec<u8> = self.bytes.iter().copied().collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    pub fn dropped_bytes(&self) -> u64 {
        self.dropped_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::Ring;

    #[test]
    fn keeps_the_last_bytes() {
        let mut ring = Ring::new(4);
        ring.push(b"ab");
        ring.push(b"cde");
        assert_eq!((ring.text().as_str(), ring.dropped_bytes()), ("bcde", 1));
        ring.push(b"0123456789");
        assert_eq!((ring.text().as_str(), ring.dropped_bytes()), ("6789", 11));
    }
}
