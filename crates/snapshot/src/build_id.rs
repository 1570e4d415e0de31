//! The 16 bytes of a build's UUID and their text.

/// A build's UUID, bytes in the order in which its text spells them.
pub type BuildId = [u8; 16];

/// The nil UUID stands for blocks that are all zero and stored nowhere.
pub const ZERO_FILL: BuildId = [0; 16];

const HYPHENS: [usize; 4] = [8, 13, 18, 23];

/// Lower-case text with hyphens, as builds are named in folders and messages.
pub fn format_build_id(id: &BuildId) -> String {
    let mut text = String::with_capacity(36);
    for byte in id {
        if HYPHENS.contains(&text.len()) {
            text.push('-');
        }
        for digit in [byte >> 4, byte & 15] {
            text.push(char::from(b"0123456789abcdef"[usize::from(digit)]));
        }
    }
    text
}

/// Reads the 36-character text of a UUID; `None` for anything else.
pub fn parse_build_id(text: &str) -> Option<BuildId> {
    if text.len() != 36 {
        return None;
    }
    let mut id = ZERO_FILL;
    let mut digits = 0;
    for (at, byte) in text.bytes().enumerate() {
        if HYPHENS.contains(&at) {
            if byte != b'-' {
                return None;
            }
            continue;
        }
        let digit = char::from(byte).to_digit(16)? as u8;
        id[digits / 2] = id[digits / 2] << 4 | digit;
        digits += 1;
    }
    Some(id)
}
