//! `EntryInfo`: one file, directory or link as clients see it.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde::Serialize;

use crate::files::metadata::{self, Metadata};
use crate::kernel::Timestamp;
use crate::user::Names;

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    name: String,
    /// Of a link: the type of its target.
    r#type: &'static str,
    path: String,
    /// int64, which JSON writes as text.
    size: String,
    /// The permission bits; of a link those of its target.
    mode: u32,
    permissions: String,
    owner: String,
    group: String,
    modified_time: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    symlink_target: Option<String>,
    #[serde(skip_serializing_if = "Metadata::is_empty")]
    metadata: Metadata,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    is_symlink: bool,
}

impl Entry {
    /// What is at `path`; a link is described, not followed.
    pub fn read(path: &Path, names: &Names) -> io::Result<Entry> {
        let found = fs::symlink_metadata(path)?;
        let is_symlink = found.is_symlink();
        // None: the link is broken.
        let target = if is_symlink { fs::metadata(path).ok() } else { Some(found.clone()) };
        let symlink_target = is_symlink.then(|| {
            let target = fs::canonicalize(path);
            target.as_deref().unwrap_or(path).to_string_lossy().into_owned()
        });
        let modified = Timestamp::of(found.mtime(), found.mtime_nsec() as u32);
        Ok(Entry {
            name: path.file_name().map_or_else(|| "/".into(), |name| name.to_string_lossy().into_owned()),
            r#type: target.as_ref().map_or(UNSPECIFIED, kind),
            path: path.to_string_lossy().into_owned(),
            size: found.size().to_string(),
            mode: target.as_ref().unwrap_or(&found).mode() & 0o777,
            permissions: permissions(&found),
            owner: names.user(found.uid()),
            group: names.group(found.gid()),
            modified_time: modified.to_rfc3339(),
            symlink_target,
            metadata: metadata::read(path),
            is_symlink,
        })
    }

    /// Not so a link to one.
    pub fn is_directory(&self) -> bool {
        self.r#type == DIRECTORY && !self.is_symlink
    }
}

const DIRECTORY: &str = "FILE_TYPE_DIRECTORY";
const UNSPECIFIED: &str = "FILE_TYPE_UNSPECIFIED";

fn kind(found: &fs::Metadata) -> &'static str {
    match (found.is_file(), found.is_dir()) {
        (true, _) => "FILE_TYPE_FILE",
        (_, true) => DIRECTORY,
        _ => UNSPECIFIED,
    }
}

/// Ten characters, as in `drwxr-xr-x`; a link starts with `L`.
fn permissions(found: &fs::Metadata) -> String {
    let first = match (found.is_dir(), found.is_symlink()) {
        (true, _) => 'd',
        (_, true) => 'L',
        _ => '-',
    };
    let bits = "rwxrwxrwx".chars().enumerate();
    let letters = bits.map(|(at, letter)| if found.mode() & (0o400 >> at) != 0 { letter } else { '-' });
    std::iter::once(first).chain(letters).collect()
}
