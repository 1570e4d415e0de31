//! `WatchDir`: events as they happen, until the client leaves or its time is up.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use hyper::Request;
use hyper::body::Incoming;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};

use super::tree::Tree;
use super::{LOST, Watch, failed, open};
use crate::body::{self, Body};
use crate::filesystem::aside;
use crate::filesystem::place::Place;
use crate::readable::{Readable, readable};
use crate::rpc::{self, Code, RpcError, Stream};

/// News that are read at once; a client that takes none leaves the rest to the kernel's queue, which is bounded.
const NEWS: usize = 256;

type Client = mpsc::Sender<io::Result<Bytes>>;

pub async fn stream(place: &Place, request: &mut Request<Incoming>) -> Result<Body, RpcError> {
    let headers = request.headers().clone();
    let deadline = rpc::timeout(&headers)?.map(|limit| Instant::now() + limit);
    let watch: Watch = rpc::read_stream(request).await?;
    let place = place.clone();
    let tree = aside(move || open(&place, &watch)).await?;
    let queue = readable(tree.queue()).map_err(failed)?;
    let (client, receiver) = mpsc::channel(1);
    let keepalive_every = rpc::keepalive_every(&headers);
    tokio::spawn(async move {
        let late = async {
            match deadline {
                Some(deadline) => sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        let error = tokio::select! {
            error = follow(tree, queue, keepalive_every, &client) => error,
            () = late => Some(Code::DeadlineExceeded.error("the directory was watched up to the call's limit")),
            () = client.closed() => None,
        };
        if let Some(error) = error {
            let _ = client.send(Ok(Stream::end(Some(&error)))).await;
        }
    });
    Ok(body::channel(receiver))
}

/// Why it ended; None when the client left.
async fn follow(tree: Tree, queue: Readable, keepalive_every: Duration, client: &Client) -> Option<RpcError> {
    let mut tree = tree;
    client.send(Ok(rpc::message(&json!({ "start": {} })))).await.ok()?;
    loop {
        let ready = tokio::select! {
            ready = queue.readable() => ready,
            () = sleep(keepalive_every) => {
                client.send(Ok(rpc::message(&json!({ "keepalive": {} })))).await.ok()?;
                continue;
            }
        };
        let Ok(mut ready) = ready else { return Some(Code::Internal.error("the watcher failed")) };
        let drain = move || {
            let is_empty = tree.drain(NEWS);
            (tree, is_empty)
        };
        let Ok((drained, is_empty)) = tokio::task::spawn_blocking(drain).await else {
            return Some(Code::Internal.error("the watcher failed"));
        };
        tree = drained;
        match is_empty {
            Ok(true) => ready.clear_ready(),
            Ok(false) => ready.retain_ready(),
            Err(error) => return Some(failed(error)),
        }
        let (events, is_whole) = tree.take();
        for event in events {
            client.send(Ok(rpc::message(&json!({ "filesystem": event })))).await.ok()?;
        }
        if !is_whole {
            return Some(Code::DataLoss.error(LOST));
        }
    }
}
