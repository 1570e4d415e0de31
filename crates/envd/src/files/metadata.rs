//! What an upload says about its file: `X-Metadata-*` headers, kept as extended attributes of the file.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

use hyper::header::HeaderMap;
use rustix::fs::{XattrFlags, flistxattr, fremovexattr, fsetxattr, lgetxattr, llistxattr};
use rustix::io::Errno;

const HEADER: &str = "x-metadata-";
const ATTRIBUTE: &str = "user.e2b.";
/// An attribute's name has at most 255 bytes.
const KEY_BYTES_MAX: usize = 255 - ATTRIBUTE.len();
/// Of all names and values: what ext4 keeps for one file.
const TOTAL_BYTES_MAX: usize = 4096;

pub type Metadata = BTreeMap<String, String>;

/// The error is for the client.
pub fn from_headers(headers: &HeaderMap) -> Result<Metadata, String> {
    let mut metadata = Metadata::new();
    let mut total_bytes = 0;
    for (name, value) in headers {
        let Some(key) = name.as_str().strip_prefix(HEADER) else { continue };
        let printable = value.as_bytes().iter().all(|byte| matches!(byte, b' '..=b'~'));
        let value = value.to_str().ok().filter(|_| printable);
        let value = value.ok_or_else(|| format!("the metadata {key} is not printable ASCII"))?;
        if key.is_empty() || key.len() > KEY_BYTES_MAX {
            return Err(format!("a metadata key has 1 to {KEY_BYTES_MAX} bytes"));
        }
        total_bytes += ATTRIBUTE.len() + key.len() + value.len();
        metadata.insert(key.into(), value.into());
    }
    match total_bytes <= TOTAL_BYTES_MAX {
        true => Ok(metadata),
        false => Err(format!("the metadata has more than {TOTAL_BYTES_MAX} bytes")),
    }
}

/// What uploads said about a file; a link is not followed.
pub fn read(path: &Path) -> Metadata {
    let mut names = vec![0u8; 1024];
    let mut length = llistxattr(path, &mut names[..]);
    if length == Err(Errno::RANGE) {
        names.resize(64 * 1024, 0);
        length = llistxattr(path, &mut names[..]);
    }
    let names = names[..length.unwrap_or(0)].split(|byte| *byte == 0);
    let ours = names.filter_map(|name| std::str::from_utf8(name).ok()?.strip_prefix(ATTRIBUTE));
    ours.filter_map(|key| {
        let mut value = vec![0u8; TOTAL_BYTES_MAX];
        let length = lgetxattr(path, format!("{ATTRIBUTE}{key}"), &mut value[..]).ok()?;
        value.truncate(length);
        Some((key.into(), String::from_utf8(value).ok()?))
    })
    .collect()
}

/// Replaces all that the file had. A file system without attributes keeps none, and that is fine.
pub fn replace(file: &File, metadata: &Metadata) -> std::io::Result<()> {
    let mut names = vec![0u8; 64 * 1024];
    let length = flistxattr(file, &mut names[..]).unwrap_or(0);
    for name in names[..length].split(|byte| *byte == 0) {
        if name.starts_with(ATTRIBUTE.as_bytes()) {
            fremovexattr(file, name)?;
        }
    }
    for (key, value) in metadata {
        match fsetxattr(file, format!("{ATTRIBUTE}{key}"), value.as_bytes(), XattrFlags::empty()) {
            Ok(()) => {}
            Err(Errno::NOTSUP) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
