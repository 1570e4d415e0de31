//! Port 49983: who may ask, and which part of the agent answers.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::header::{HeaderMap, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use tokio::net::TcpListener;

use crate::agent::Agent;
use crate::body::{self, Body};
use crate::gate::Rehearsal;
use crate::http_error::HttpError;
use crate::listen::{self, Handle};
use crate::{files, filesystem, metrics, process, rpc, task, token};

pub async fn serve(listener: TcpListener, agent: Arc<Agent>) {
    loop {
        let (stream, _) = listen::accept(&listener).await;
        let mut life = agent.gate.life();
        let agent = agent.clone();
        let handle: Handle = Box::new(move |request| Box::pin(answer(agent.clone(), request)));
        task::spawn(async move {
            tokio::select! {
                () = listen::connection(stream, handle) => {}
                _ = life.changed() => {}
            }
        });
    }
}

/// What is read of a body that nobody wanted: a client that is cut off while it sends may never see the answer.
const DISCARD_BYTES: usize = 64 << 20;
const DISCARD_TIME: Duration = Duration::from_secs(3);

async fn answer(agent: Arc<Agent>, mut request: Request<Incoming>) -> Response<Body> {
    let mut response = route(agent, &mut request).await;
    let _ = tokio::time::timeout(DISCARD_TIME, discard(request.body_mut())).await;
    let headers = response.headers_mut();
    for (name, value) in [
        ("access-control-allow-origin", "*"),
        ("access-control-expose-headers", "*"),
        ("cache-control", "no-store"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

async fn route(agent: Arc<Agent>, request: &mut Request<Incoming>) -> Response<Body> {
    let path = request.uri().path();
    let method = request.method();
    if method == Method::OPTIONS {
        return preflight(request.headers());
    }
    if path == "/health" && (method == Method::GET || method == Method::HEAD) {
        return body::empty(StatusCode::NO_CONTENT);
    }
    if !agent.gate.is_open() {
        let given = request.headers().get("x-access-token").map(|value| value.as_bytes());
        if path == "/process.Process/Start" && agent.gate.is_rehearsed_with(given) {
            request.extensions_mut().insert(Rehearsal);
            return process::answer(agent, request).await;
        }
        return unavailable(request);
    }
    // Files may be asked for by a signed URL instead.
    if path == "/files" {
        return files::answer(agent, request).await.unwrap_or_else(HttpError::into_response);
    }
    if let Err(error) = check_token(&agent, request.headers()) {
        return error.into_response();
    }
    match (method, path) {
        (&Method::GET, "/metrics") => metrics::answer(&agent),
        (&Method::GET, "/envs") => body::json(StatusCode::OK, &agent.identity().env),
        (&Method::POST, "/files/compose") => {
            files::compose(&agent, request).await.unwrap_or_else(HttpError::into_response)
        }
        (_, path) if path.starts_with("/process.Process/") => process::answer(agent, request).await,
        (_, path) if path.starts_with("/filesystem.Filesystem/") => filesystem::answer(agent, request).await,
        (&Method::POST, _) if rpc::is_call(request.headers()) => {
            rpc::refuse(request, rpc::Code::Unimplemented.error("no such procedure"))
        }
        _ => HttpError::new(StatusCode::NOT_FOUND, "no such path").into_response(),
    }
}

async fn discard(body: &mut Incoming) {
    let mut left = DISCARD_BYTES;
    while left > 0
        && let Some(Ok(frame)) = body.frame().await
    {
        left = left.saturating_sub(frame.data_ref().map_or(0, |data| data.len()));
    }
}

/// Plain HTTP 401 for calls of every kind: clients of the protocol expect it so.
pub fn check_token(agent: &Agent, headers: &HeaderMap) -> Result<(), HttpError> {
    let Some(wanted) = &agent.identity().token else { return Ok(()) };
    match headers.get("x-access-token") {
        Some(given) if token::equal(given.as_bytes(), wanted.as_bytes()) => Ok(()),
        _ => Err(HttpError::new(StatusCode::UNAUTHORIZED, "invalid or missing access token")),
    }
}

fn unavailable(request: &Request<Incoming>) -> Response<Body> {
    let message = "the sandbox is not ready";
    if rpc::is_call(request.headers()) {
        return rpc::Code::Unavailable.error(message).into_response();
    }
    HttpError::new(StatusCode::SERVICE_UNAVAILABLE, message).into_response()
}

fn preflight(asked: &HeaderMap) -> Response<Body> {
    let mut response = body::empty(StatusCode::NO_CONTENT);
    let headers = response.headers_mut();
    let any = HeaderValue::from_static("*");
    let wanted = asked.get("access-control-request-headers").cloned().unwrap_or(any);
    headers.insert("access-control-allow-headers", wanted);
    headers.insert("access-control-allow-methods", HeaderValue::from_static("GET, HEAD, POST, OPTIONS"));
    headers.insert("access-control-max-age", HeaderValue::from_static("7200"));
    response
}
