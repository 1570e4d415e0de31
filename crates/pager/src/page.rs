//! Looks at the bytes of pages. Written as folds over words, which the compiler turns into vector code:
//! the C library's comparison goes byte by byte.

const WORDS_PER_STEP: usize = 16;

/// Whether every byte is zero. `bytes` is a multiple of 128 long.
pub fn is_zero(bytes: &[u8]) -> bool {
    let (words, _) = bytes.as_chunks::<8>();
    words
        .chunks_exact(WORDS_PER_STEP)
        .all(|step| step.iter().fold(0, |any, word| any | u64::from_ne_bytes(*word)) == 0)
}

/// Whether both hold the same bytes; they are of one length, a multiple of 128.
pub fn is_same(left: &[u8], right: &[u8]) -> bool {
    let (left, _) = left.as_chunks::<8>();
    let (right, _) = right.as_chunks::<8>();
    left.chunks_exact(WORDS_PER_STEP).zip(right.chunks_exact(WORDS_PER_STEP)).all(|(left, right)| {
        let differ = |(a, b): (&[u8; 8], &[u8; 8])| u64::from_ne_bytes(*a) ^ u64::from_ne_bytes(*b);
        left.iter().zip(right).map(differ).fold(0, |any, word| any | word) == 0
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_byte_anywhere_is_seen() {
        let zero = vec![0u8; 4096];
        assert!(is_zero(&zero) && is_same(&zero, &zero));
        for at in [0, 1, 127, 128, 2048, 4095] {
            let mut page = zero.clone();
            page[at] = 1;
            assert!(!is_zero(&page) && !is_same(&page, &zero) && !is_same(&zero, &page), "byte {at}");
        }
    }
}
