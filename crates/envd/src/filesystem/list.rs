//! `ListDir`: the tree below a directory, to a depth. The answer is made as the client takes it, so that a large tree
//! needs no memory for its whole.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use bytes::{BufMut, Bytes, BytesMut};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Request, Response};
use serde::Deserialize;
use tokio::sync::mpsc;

use super::aside;
use super::entry::Entry;
use super::failure::lookup_failure;
use super::place::Place;
use crate::body::{self, Body};
use crate::rpc::{self, Code, Number, RpcError, or_default};
use crate::user::Names;

#[derive(Deserialize)]
struct ListDir {
    #[serde(default, deserialize_with = "or_default")]
    path: String,
    depth: Option<Number>,
}

const CHUNK_BYTES: usize = 64 * 1024;

pub async fn list(place: &Place, request: &mut Request<Incoming>) -> Response<Body> {
    let headers = request.headers().clone();
    match rpc::within(&headers, begin(place, request)).await {
        Ok((first, None)) => json(body::bytes(first)),
        Ok((first, Some(rest))) => {
            let (sender, receiver) = mpsc::channel(1);
            tokio::spawn(send(first, rest, sender));
            json(body::channel(receiver))
        }
        Err(error) => error.into_response(),
    }
}

fn json(body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// The start of the answer, and the walk if there is more.
async fn begin(place: &Place, request: &mut Request<Incoming>) -> Result<(Bytes, Option<Walk>), RpcError> {
    let message: ListDir = rpc::read_unary(request).await?;
    let root = place.resolve(&message.path)?;
    let depth = message.depth.map_or(1, |depth| depth.0.max(1));
    aside(move || {
        let found = fs::metadata(&root).map_err(|error| lookup_failure(&root, &error))?;
        if !found.is_dir() {
            let text = format!("path '{}' is not a directory", root.display());
            return Err(Code::InvalidArgument.error(text));
        }
        let names = names_in(&root).map_err(|error| lookup_failure(&root, &error))?;
        let level = Level { directory: root, names };
        Ok(Walk { levels: vec![level], depth, names: Names::read(), started: false }.chunk())
    })
    .await
}

async fn send(first: Bytes, walk: Walk, client: mpsc::Sender<io::Result<Bytes>>) {
    let mut next = Some((first, Some(walk)));
    while let Some((chunk, walk)) = next {
        if client.send(Ok(chunk)).await.is_err() {
            return;
        }
        let Some(walk) = walk else { return };
        next = tokio::task::spawn_blocking(move || walk.chunk()).await.ok();
    }
    // The walk was lost: the client must not take what it got for the whole.
    let _ = client.send(Err(io::ErrorKind::UnexpectedEof.into())).await;
}

/// Depth first, names in the order of their bytes, a directory before what is in it. Links are not followed.
struct Walk {
    levels: Vec<Level>,
    depth: u32,
    names: Names,
    started: bool,
}

struct Level {
    directory: PathBuf,
    /// Those not told yet, the last one first.
    names: Vec<OsString>,
}

impl Walk {
    /// The next part of the answer's text.
    fn chunk(mut self) -> (Bytes, Option<Walk>) {
        let mut text = BytesMut::with_capacity(CHUNK_BYTES + 4096);
        if !self.started {
            text.put_slice(br#"{"entries":["#);
        }
        while text.len() < CHUNK_BYTES {
            let Some(entry) = self.next_entry() else {
                text.put_slice(b"]}");
                return (text.freeze(), None);
            };
            if self.started {
                text.put_u8(b',');
            }
            self.started = true;
            serde_json::to_writer((&mut text).writer(), &entry).expect("entries serialise");
        }
        (text.freeze(), Some(self))
    }

    /// What vanishes meanwhile is not told, and neither is what is in a directory that cannot be read.
    fn next_entry(&mut self) -> Option<Entry> {
        loop {
            let level = self.levels.last_mut()?;
            let Some(name) = level.names.pop() else {
                self.levels.pop();
                continue;
            };
            let path = level.directory.join(name);
            let Ok(entry) = Entry::read(&path, &self.names) else { continue };
            if entry.is_directory()
                && self.levels.len() < self.depth as usize
                && let Ok(names) = names_in(&path)
            {
                self.levels.push(Level { directory: path, names });
            }
            return Some(entry);
        }
    }
}

fn names_in(directory: &Path) -> io::Result<Vec<OsString>> {
    let names = fs::read_dir(directory)?.filter_map(|entry| Some(entry.ok()?.file_name()));
    let mut names: Vec<OsString> = names.collect();
    names.sort_unstable_by(|a, b| b.cmp(a));
    Ok(names)
}
