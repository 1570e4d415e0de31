//! `FilesystemEvent`.

use serde::Serialize;

use crate::filesystem::entry::Entry;

#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub enum Kind {
    #[serde(rename = "EVENT_TYPE_CREATE")]
    Create,
    #[serde(rename = "EVENT_TYPE_WRITE")]
    Write,
    #[serde(rename = "EVENT_TYPE_REMOVE")]
    Remove,
    #[serde(rename = "EVENT_TYPE_RENAME")]
    Rename,
    #[serde(rename = "EVENT_TYPE_CHMOD")]
    Chmod,
}

#[derive(Clone, Debug, Serialize)]
pub struct Event {
    /// Relative to the watched directory, which itself is `.`.
    pub name: String,
    #[serde(rename = "type")]
    pub kind: Kind,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entry: Option<Entry>,
}

impl Event {
    /// About what it takes to keep.
    pub fn bytes(&self) -> usize {
        let entry_bytes = if self.entry.is_some() { 512 + 2 * self.name.len() } else { 0 };
        size_of::<Event>() + self.name.len() + entry_bytes
    }
}
