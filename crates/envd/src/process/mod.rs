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
mod start;
mod table;

pub use table::{Process, Processes};

use std::sync::Arc;

use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode};
use serde::de::DeserializeOwned;

use crate::agent::Agent;
use crate::body::Body;
use crate::http_error::HttpError;
use crate::rpc::{self, Code, RpcError};
use crate::user::User;

/// What a stream's handler gives back: the body that carries the events.
type Answer = Result<Body, RpcError>;

pub async fn answer(agent: Arc<Agent>, request: &mut Request<Incoming>) -> Response<Body> {
    if request.method() != Method::POST {
        return HttpError::new(StatusCode::METHOD_NOT_ALLOWED, "calls are POST").into_response();
    }
    if !rpc::is_call(request.headers()) {
        return HttpError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "calls are JSON").into_response();
    }
    let procedure = request.uri().path().rsplit('/').next().unwrap_or_default().to_string();
    match (procedure.as_str(), rpc::is_stream(request.headers())) {
        ("Start", true) => stream(start::start(agent, request).await),
        ("Connect", true) => stream(connect::connect(agent, request).await),
        ("List", false) => unary(request, |_: list::Request| async { Ok(list::list(&agent)) }).await,
        ("SendInput", false) => unary(request, |m| input::send_input(&agent, m)).await,
        ("CloseStdin", false) => unary(request, |m| input::close_stdin(&agent, m)).await,
        ("SendSignal", false) => unary(request, |m| async { signal::send_signal(&agent, m) }).await,
        ("Update" | "StreamInput", _) => rpc::refuse(request, Code::Unimplemented.error("no terminals yet")),
        _ => rpc::refuse(request, Code::Unimplemented.error("no such procedure")),
    }
}

fn stream(answer: Answer) -> Response<Body> {
    match answer {
        Ok(body) => rpc::Stream::response(body),
        Err(error) => rpc::Stream::response(crate::body::bytes(rpc::Stream::end(Some(&error)))),
    }
}

/// Reads the message, runs the verb within the caller's time limit.
async fn unary<M, R, F>(request: &mut Request<Incoming>, verb: impl FnOnce(M) -> F) -> Response<Body>
where
    M: DeserializeOwned,
    R: serde::Serialize,
    F: Future<Output = Result<R, RpcError>>,
{
    let limit = match rpc::timeout(request.headers()) {
        Ok(limit) => limit,
        Err(error) => return error.into_response(),
    };
    let run = async { verb(rpc::read_unary(request).await?).await };
    let result = match limit {
        None => run.await,
        Some(limit) => tokio::time::timeout(limit, run)
            .await
            .unwrap_or_else(|_| Err(Code::DeadlineExceeded.error("the call took longer than its limit"))),
    };
    rpc::unary(result)
}

/// The user that the Basic header names (it selects, it proves nothing), or the default one.
fn user(agent: &Agent, request: &Request<Incoming>) -> Result<User, RpcError> {
    let name = match request.headers().get("authorization") {
        None => String::new(),
        Some(value) => basic_user(value.as_bytes())
            .ok_or_else(|| Code::Unauthenticated.error("the authorization header is not Basic"))?,
    };
    agent.user(&name).map_err(|name| Code::Unauthenticated.error(format!("invalid username: '{name}'")))
}

fn basic_user(header: &[u8]) -> Option<String> {
    use base64::Engine;
    let (scheme, credentials) = std::str::from_utf8(header).ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = base64::prelude::BASE64_STANDARD.decode(credentials.trim()).ok()?;
    Some(String::from_utf8(decoded).ok()?.split(':').next()?.to_string())
}
