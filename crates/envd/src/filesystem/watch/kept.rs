//! `CreateWatcher`, `GetWatcherEvents` and `RemoveWatcher`: events that are kept until they are asked for.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::event::Event;
use super::tree::Tree;
use super::{LOST, Watch, failed, open};
use crate::agent::Agent;
use crate::filesystem::aside;
use crate::filesystem::place::Place;
use crate::readable::readable;
use crate::rpc::{Code, RpcError, or_default};

const WATCHERS_MAX: usize = 256;
/// News that are read at once.
const NEWS: usize = 1024;
/// More than the kernel keeps for one watcher.
const NEWS_ALL: usize = 1 << 20;

#[derive(Default)]
pub struct Watchers(Mutex<HashMap<String, Kept>>);

struct Kept {
    tree: Arc<Mutex<Tree>>,
    /// Reads on all the time: the kernel's queue is short, and new directories have to be followed at once.
    reading: JoinHandle<()>,
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.reading.abort();
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Created {
    watcher_id: String,
}

#[derive(Deserialize)]
pub struct Id {
    #[serde(default, rename = "watcherId", alias = "watcher_id", deserialize_with = "or_default")]
    watcher_id: String,
}

impl Id {
    fn unknown(&self) -> RpcError {
        Code::NotFound.error(format!("watcher with id {} not found", self.watcher_id))
    }
}

pub async fn create(agent: &Agent, place: &Place, watch: Watch) -> Result<Created, RpcError> {
    let place = place.clone();
    let tree = aside(move || open(&place, &watch)).await?;
    let queue = readable(tree.queue()).map_err(failed)?;
    let tree = Arc::new(Mutex::new(tree));
    let shared = tree.clone();
    let reading = tokio::spawn(async move {
        while let Ok(mut ready) = queue.readable().await {
            let tree = shared.clone();
            match tokio::task::spawn_blocking(move || tree.lock().unwrap().drain(NEWS)).await {
                Ok(Ok(true)) => ready.clear_ready(),
                Ok(Ok(false)) => ready.retain_ready(),
                Ok(Err(_)) | Err(_) => return,
            }
        }
    });
    let kept = Kept { tree, reading };
    let mut watchers = agent.watchers.0.lock().unwrap();
    if watchers.len() >= WATCHERS_MAX {
        return Err(Code::ResourceExhausted.error(format!("there are {WATCHERS_MAX} watchers already")));
    }
    let watcher_id = new_id()?;
    watchers.insert(watcher_id.clone(), kept);
    Ok(Created { watcher_id })
}

fn new_id() -> Result<String, RpcError> {
    let mut random = [0u8; 10];
    rustix::rand::getrandom(&mut random[..], rustix::rand::GetRandomFlags::empty())
        .map_err(|error| Code::Internal.error(format!("no random numbers: {error}")))?;
    Ok(random.iter().fold("w".into(), |id: String, byte| id + &format!("{byte:02x}")))
}

#[derive(Serialize)]
pub struct Events {
    events: Vec<Event>,
}

/// Everything that happened before the call and was not told yet.
pub async fn events(agent: &Agent, message: Id) -> Result<Events, RpcError> {
    let tree = agent.watchers.0.lock().unwrap().get(&message.watcher_id).map(|kept| kept.tree.clone());
    let tree = tree.ok_or_else(|| message.unknown())?;
    aside(move || {
        let mut tree = tree.lock().unwrap();
        tree.drain(NEWS_ALL).map_err(failed)?;
        match tree.take() {
            (events, true) => Ok(Events { events }),
            (_, false) => Err(Code::DataLoss.error(LOST)),
        }
    })
    .await
}

pub fn remove(agent: &Agent, message: Id) -> Result<Value, RpcError> {
    let removed = agent.watchers.0.lock().unwrap().remove(&message.watcher_id);
    removed.map(|_| json!({})).ok_or_else(|| message.unknown())
}
