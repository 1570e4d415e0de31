//! A file while it is uploaded.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use hyper::StatusCode;
use tokio::task::{JoinHandle, spawn_blocking};

use super::metadata::{self, Metadata};
use super::open;
use super::turn::{Target, Turn, Turns};
use crate::http_error::HttpError;
use crate::user::User;

/// Dropped before its end it leaves what was written so far; a write under way ends first, and with it the turn.
pub struct Writer {
    held: Arc<Held>,
    /// The last chunk, while the next one is received.
    writing: Option<JoinHandle<io::Result<()>>>,
}

struct Held {
    file: File,
    _turns: [Turn; 2],
}

impl Writer {
    /// Waits for its turn, then empties the file or makes it, with the directories above it.
    pub async fn open(turns: &Turns, path: &Path, user: &User, metadata: &Metadata) -> io::Result<Writer> {
        let by_path = turns.take(Target::Path(path.into())).await;
        let (opening, owner) = (path.to_path_buf(), user.clone());
        // The turn goes along: an upload that is given up now has opened the file all the same.
        let (file, is_new, by_path) = blocking(move || {
            let (file, is_new) = open::for_writing(&opening, &owner)?;
            Ok((file, is_new, by_path))
        })
        .await?;
        let found = file.metadata()?;
        let by_file = turns.take(Target::File { device: found.dev(), inode: found.ino() }).await;
        let held = Arc::new(Held { file, _turns: [by_path, by_file] });
        let (emptied, user, metadata) = (held.clone(), user.clone(), metadata.clone());
        blocking(move || {
            // A new file is left alone: emptying it would be one more event for those who watch.
            if !is_new {
                emptied.file.set_len(0)?;
            }
            rustix::fs::fchown(&emptied.file, Some(user.uid), Some(user.gid))?;
            metadata::replace(&emptied.file, &metadata)
        })
        .await?;
        Ok(Writer { held, writing: None })
    }

    /// Hands the chunk over once the last one is written. An error is that of the last one.
    pub async fn write(&mut self, chunk: Bytes) -> io::Result<()> {
        self.settle().await?;
        let held = self.held.clone();
        self.writing = Some(spawn_blocking(move || (&held.file).write_all(&chunk)));
        Ok(())
    }

    /// Lets `work` write, on a thread of its own that holds the turn.
    pub async fn with<T: Send + 'static>(
        self,
        work: impl FnOnce(&File) -> Result<T, HttpError> + Send + 'static,
    ) -> Result<T, HttpError> {
        let held = self.held;
        let done = spawn_blocking(move || work(&held.file)).await;
        done.unwrap_or_else(|error| Err(HttpError::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())))
    }

    /// Everything is written.
    pub async fn finish(mut self) -> io::Result<()> {
        self.settle().await
    }

    async fn settle(&mut self) -> io::Result<()> {
        match self.writing.take() {
            Some(writing) => writing.await.unwrap_or_else(|error| Err(error.into())),
            None => Ok(()),
        }
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    spawn_blocking(work).await.unwrap_or_else(|error| Err(error.into()))
}
