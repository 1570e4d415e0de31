//! What a snapshot says beside the memory: a magic number, the format's version, the devices, and a checksum over all
//! of it.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use crc::{CRC_64_GO_ISO, Crc};
use serde::{Deserialize, Serialize};

use crate::devices::Config;

pub const FORMAT_VERSION: &str = "v11.0.0";
const MAGIC: u64 = 0x0710_1984_8664_0000;
const CRC: Crc<u64> = Crc::<u64>::new(&CRC_64_GO_ISO);
/// The real one's is some 15 KB.
const STATE_BYTES_MIN: usize = 8 * 1024;
const FILE_BYTES_MAX: u64 = 10 << 20;

#[derive(Deserialize, Serialize)]
pub struct State {
    pub config: Config,
    pub balloon_actual_mib: u32,
    /// The guest's drivers had found their devices.
    pub drivers_up: bool,
    /// How far the guest's clock was behind the host's when the snapshot was taken, and when that was; milliseconds.
    pub clock_lag_ms: i64,
    pub taken_at_ms: i64,
}

/// Errors are `(verb, error)`.
pub fn write(path: &Path, state: &State) -> Result<(), (&'static str, io::Error)> {
    let mut file = File::create(path).map_err(|error| ("open", error))?;
    let json = serde_json::to_string(state).expect("the state serialises");
    let version = FORMAT_VERSION.as_bytes();
    let mut bytes = MAGIC.to_le_bytes().to_vec();
    bytes.push(version.len() as u8);
    bytes.extend_from_slice(version);
    bytes.extend_from_slice(format!("{json:STATE_BYTES_MIN$}").as_bytes());
    bytes.extend_from_slice(&CRC.checksum(&bytes).to_le_bytes());
    file.write_all(&bytes).map_err(|error| ("write", error))?;
    file.sync_all().map_err(|error| ("sync_all", error))
}

/// Errors are a message.
pub fn read(path: &Path) -> Result<State, String> {
    let (_, state) = parse(path)?;
    serde_json::from_slice(&state).map_err(|_| load_failed(BITCODE))
}

/// The format's version. Errors are a message.
pub fn describe(path: &Path) -> Result<String, String> {
    parse(path).map(|(version, _)| version)
}

const BITCODE: &str = "An error occurred during bitcode serialization: bitcode error";

fn load_failed(why: &str) -> String {
    format!("Failed to load snapshot state from file: {why}")
}

fn parse(path: &Path) -> Result<(String, Vec<u8>), String> {
    let file = File::open(path).map_err(|error| format!("Failed to open snapshot file: {error}"))?;
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX)
        .read_to_end(&mut bytes)
        .map_err(|error| load_failed(&format!("IO Error: {error}")))?;
    let bad = || load_failed(BITCODE);
    let (content, checksum) = bytes.split_last_chunk().ok_or_else(bad)?;
    let (magic, rest) = content.split_first_chunk().ok_or_else(bad)?;
    let magic = u64::from_le_bytes(*magic);
    if magic != MAGIC {
        return Err(load_failed(&format!("Magic value does not match arch: {magic}")));
    }
    let (length, rest) = rest.split_first().ok_or_else(bad)?;
    let (version, state) = rest.split_at_checked(usize::from(*length)).ok_or_else(bad)?;
    let version = String::from_utf8(version.to_vec()).map_err(|_| bad())?;
    if version != FORMAT_VERSION {
        return Err(load_failed(&format!("Invalid data version: {version}")));
    }
    if CRC.checksum(content) != u64::from_le_bytes(*checksum) {
        return Err(load_failed("CRC64 validation failed"));
    }
    Ok((version, state.to_vec()))
}
