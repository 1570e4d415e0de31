//! Port 49982: what the host does to the VM as a whole. Only the host's address is answered.

mod init;
mod prepare;
mod rehearse;
mod thaw;

use std::net::SocketAddr;
use std::sync::Arc;

use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode};
use serde::de::DeserializeOwned;
use tokio::net::TcpListener;

use crate::agent::Agent;
use crate::body::Body;
use crate::http_error::HttpError;
use crate::kernel::Timestamp;
use crate::listen::{self, Handle};
use crate::task;

const BODY_BYTES_MAX: usize = 4 << 20;

pub async fn serve(listener: TcpListener, agent: Arc<Agent>) {
    loop {
        let (stream, peer) = listen::accept(&listener).await;
        if peer.ip() != agent.args.control_peer {
            continue;
        }
        let agent = agent.clone();
        let handle: Handle = Box::new(move |request| Box::pin(answer(agent.clone(), request, peer)));
        task::spawn(listen::connection(stream, handle));
    }
}

async fn answer(agent: Arc<Agent>, request: Request<Incoming>, peer: SocketAddr) -> Response<Body> {
    // A transition runs to its end, also when the host gave up waiting: half a transition is worse than a late one.
    let running = task::spawn(async move {
        let path = request.uri().path().to_string();
        match (request.method(), path.as_str()) {
            (&Method::POST, "/init") => init::init(&agent, read(request).await?).await,
            (&Method::POST, "/prepare") => prepare::prepare(&agent, read(request).await?).await,
            (&Method::POST, "/rehearse") => rehearse::rehearse(&agent, read(request).await?).await,
            (&Method::POST, "/thaw") => thaw::thaw(&agent, read(request).await?).await,
            _ => Err(HttpError::new(StatusCode::NOT_FOUND, "no such path")),
        }
    });
    match running.await {
        Ok(answer) => answer.unwrap_or_else(HttpError::into_response),
        Err(error) => {
            eprintln!("thaw-envd: control request of {peer}: {error}");
            failed("the request").into_response()
        }
    }
}

async fn read<T: DeserializeOwned>(request: Request<Incoming>) -> Result<T, HttpError> {
    let body = Limited::new(request.into_body(), BODY_BYTES_MAX).collect().await;
    let bytes = body.map_err(|_| HttpError::bad_request("the body cannot be read"))?.to_bytes();
    serde_json::from_slice(&bytes).map_err(|error| HttpError::bad_request(format!("bad body: {error}")))
}

fn failed(what: &str) -> HttpError {
    HttpError::new(StatusCode::INTERNAL_SERVER_ERROR, format!("{what} failed"))
}

/// Turns a failed step into an answer; the console gets the cause.
fn explain(what: &'static str) -> impl FnOnce(std::io::Error) -> HttpError {
    move |error| {
        eprintln!("thaw-envd: {what}: {error}");
        failed(what)
    }
}

fn timestamp(text: &str, unix_us: Option<u64>) -> Result<Timestamp, HttpError> {
    let told = unix_us.map(Timestamp::of_micros).or_else(|| Timestamp::parse(text));
    told.ok_or_else(|| HttpError::bad_request("timestamp is not RFC 3339"))
}
