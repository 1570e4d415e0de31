//! `process.Process`: programs run for the host (spec/proto-guest/process.proto). One file per verb.

mod connect;
mod event;
mod events;
mod input;
mod launch;
mod list;
mod output;
mod selector;
mod signal;
mod spawn;
mod start;
mod table;
mod terminal;
mod update;

pub use table::{Process, Processes};

use std::sync::Arc;

use hyper::body::Incoming;
use hyper::{Request, Response};

use crate::agent::Agent;
use crate::body::Body;
use crate::rpc::{self, Code, RpcError, stream, unary};

/// What a stream's handler gives back: the body that carries the events.
type Answer = Result<Body, RpcError>;

pub async fn answer(agent: Arc<Agent>, request: &mut Request<Incoming>) -> Response<Body> {
    let procedure = match rpc::procedure(request) {
        Ok(procedure) => procedure,
        Err(refusal) => return refusal.into_response(),
    };
    match (procedure.as_str(), rpc::is_stream(request.headers())) {
        ("Start", true) => stream(start::start(agent, request).await),
        ("Connect", true) => stream(connect::connect(agent, request).await),
        ("StreamInput", true) => stream(input::stream_input(&agent, request).await),
        ("List", false) => unary(request, |_: list::Request| async { Ok(list::list(&agent)) }).await,
        ("SendInput", false) => unary(request, |m| input::send_input(&agent, m)).await,
        ("CloseStdin", false) => unary(request, |m| input::close_stdin(&agent, m)).await,
        ("SendSignal", false) => unary(request, |m| async { signal::send_signal(&agent, m) }).await,
        ("Update", false) => unary(request, |m| async { update::update(&agent, m) }).await,
        _ => rpc::refuse(request, Code::Unimplemented.error("no such procedure")),
    }
}
