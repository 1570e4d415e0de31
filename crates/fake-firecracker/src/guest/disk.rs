//! Files on the root drive: one to a block of the drive's last MiB, as a mark, two lengths, the path and the content.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex};

use rustix::fs::{OFlags, fcntl_getfl};

const MARK: [u8; 4] = *b"ThFi";
const HEAD_BYTES: usize = 8;
const BLOCK_BYTES: usize = 4096;
const STORE_BYTES: usize = 1 << 20;

/// The drive, if there is one; the VMM may put another file behind it.
#[derive(Clone, Default)]
pub struct RootDrive {
    file: Arc<Mutex<Option<File>>>,
}

impl RootDrive {
    pub fn replace(&self, file: File) {
        *self.file.lock().unwrap() = Some(file);
    }

    pub fn read(&self, path: &str) -> io::Result<Option<String>> {
        let Some(store) = self.store()? else { return Ok(None) };
        Ok(store
            .blocks()?
            .into_iter()
            .find_map(|(_, entry)| entry.filter(|entry| entry.0 == path))
            .map(|entry| entry.1))
    }

    /// Writes the files and syncs the drive. False: there is no drive to write to.
    pub fn write<'a>(&self, files: impl Iterator<Item = (&'a String, &'a String)>) -> io::Result<bool> {
        let Some(store) = self.store()? else { return Ok(false) };
        if fcntl_getfl(&store.file)? & OFlags::ACCMODE == OFlags::RDONLY {
            return Ok(false);
        }
        let mut blocks = store.blocks()?;
        for (path, content) in files {
            let old =
                blocks.iter().position(|(_, entry)| entry.as_ref().is_some_and(|entry| entry.0 == *path));
            let free = || blocks.iter().position(|(_, entry)| entry.is_none());
            let index = old.or_else(free).ok_or(io::ErrorKind::StorageFull)?;
            store.file.write_all_at(&encode(path, content)?, blocks[index].0)?;
            blocks[index].1 = Some((path.clone(), content.clone()));
        }
        store.file.sync_data()?;
        Ok(true)
    }

    fn store(&self) -> io::Result<Option<Store>> {
        let held = self.file.lock().unwrap();
        let Some(file) = held.as_ref() else { return Ok(None) };
        let mut file = file.try_clone()?;
        let blocks = file.seek(SeekFrom::End(0))? / BLOCK_BYTES as u64;
        let start = (blocks * BLOCK_BYTES as u64).checked_sub(STORE_BYTES as u64);
        Ok(start.map(|start| Store { file, start }))
    }
}

struct Store {
    file: File,
    start: u64,
}

/// Path and content.
type Entry = (String, String);

impl Store {
    /// Where each block is, and what it holds.
    fn blocks(&self) -> io::Result<Vec<(u64, Option<Entry>)>> {
        let mut bytes = vec![0; STORE_BYTES];
        self.file.read_exact_at(&mut bytes, self.start)?;
        let blocks = bytes.as_chunks::<BLOCK_BYTES>().0.iter().enumerate();
        Ok(blocks.map(|(index, block)| (self.start + (index * BLOCK_BYTES) as u64, decode(block))).collect())
    }
}

fn encode(path: &str, content: &str) -> io::Result<[u8; BLOCK_BYTES]> {
    let mut block = [0; BLOCK_BYTES];
    let end = HEAD_BYTES + path.len() + content.len();
    if end > BLOCK_BYTES {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    block[..4].copy_from_slice(&MARK);
    block[4..6].copy_from_slice(&(path.len() as u16).to_le_bytes());
    block[6..8].copy_from_slice(&(content.len() as u16).to_le_bytes());
    block[HEAD_BYTES..end].copy_from_slice(&[path.as_bytes(), content.as_bytes()].concat());
    Ok(block)
}

fn decode(block: &[u8; BLOCK_BYTES]) -> Option<Entry> {
    let length = |at: usize| usize::from(u16::from_le_bytes([block[at], block[at + 1]]));
    let rest = block.strip_prefix(&MARK).map(|_| &block[HEAD_BYTES..])?;
    let (path, rest) = rest.split_at_checked(length(4))?;
    let content = rest.get(..length(6))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Some((text(path), text(content)))
}
