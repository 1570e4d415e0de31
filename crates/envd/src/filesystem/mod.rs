//! `filesystem.Filesystem`: a guest's files as a tree (spec/proto-guest/filesystem.proto). One file per verb. Runs as
//! root, like `/files`; what it makes belongs to the user.

mod copy;
pub mod entry;
mod failure;
mod list;
mod make;
mod place;
mod relocate;
mod remove;
mod stat;
mod tree;
mod watch;

pub use watch::Watchers;

use std::sync::Arc;

use hyper::body::Incoming;
use hyper::{Request, Response};

use crate::agent::Agent;
use crate::body::Body;
use crate::caller;
use crate::rpc::{self, Code, RpcError, stream, unary};
use place::Place;

pub async fn answer(agent: Arc<Agent>, request: &mut Request<Incoming>) -> Response<Body> {
    let procedure = match rpc::procedure(request) {
        Ok(procedure) => procedure,
        Err(refusal) => return refusal.into_response(),
    };
    let place = match caller::user(&agent, request) {
        Ok(user) => Place { user, default_workdir: agent.identity().default_workdir.clone() },
        Err(error) => return rpc::refuse(request, error),
    };
    match (procedure.as_str(), rpc::is_stream(request.headers())) {
        ("Stat", false) => unary(request, |m| aside(move || stat::stat(&place, m))).await,
        ("ListDir", false) => list::list(&place, request).await,
        ("MakeDir", false) => unary(request, |m| aside(move || make::make(&place, m))).await,
        ("Move", false) => unary(request, |m| aside(move || relocate::relocate(&place, m))).await,
        ("Remove", false) => unary(request, |m| aside(move || remove::remove(&place, m))).await,
        ("WatchDir", true) => stream(watch::stream(&place, request).await),
        ("CreateWatcher", false) => unary(request, |m| watch::create(&agent, &place, m)).await,
        ("GetWatcherEvents", false) => unary(request, |m| watch::events(&agent, m)).await,
        ("RemoveWatcher", false) => unary(request, |m| async { watch::remove(&agent, m) }).await,
        _ => rpc::refuse(request, Code::Unimplemented.error("no such procedure")),
    }
}

/// Work on a disk, on a thread of its own: the agent's never waits for one.
async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, RpcError> + Send + 'static,
) -> Result<T, RpcError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(Code::Internal.error(error.to_string())))
}
