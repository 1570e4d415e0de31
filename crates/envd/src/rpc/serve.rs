//! From a verb to its answer.

use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::HeaderMap;
use hyper::{Method, Request, Response, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::call::{self, Stream};
use super::error::{Code, RpcError};
use crate::body::{self, Body};
use crate::http_error::HttpError;

/// The last part of the path of a call; the error answers what is none.
pub fn procedure(request: &Request<Incoming>) -> Result<String, HttpError> {
    if request.method() != Method::POST {
        return Err(HttpError::new(StatusCode::METHOD_NOT_ALLOWED, "calls are POST"));
    }
    if !call::is_call(request.headers()) {
        return Err(HttpError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "calls are JSON"));
    }
    Ok(request.uri().path().rsplit('/').next().unwrap_or_default().to_string())
}

/// Sends a stream's frames, or the error as its only one.
pub fn stream(answer: Result<Body, RpcError>) -> Response<Body> {
    Stream::response(answer.unwrap_or_else(|error| body::bytes(Stream::end(Some(&error)))))
}

/// Reads the message, runs the verb within the caller's time limit.
pub async fn unary<M, R, F>(request: &mut Request<Incoming>, verb: impl FnOnce(M) -> F) -> Response<Body>
where
    M: DeserializeOwned,
    R: Serialize,
    F: Future<Output = Result<R, RpcError>>,
{
    let headers = request.headers().clone();
    let run = async { verb(call::read_unary(request).await?).await };
    match within(&headers, run).await {
        Ok(message) => body::json(StatusCode::OK, &message),
        Err(error) => error.into_response(),
    }
}

/// `Connect-Timeout-Ms` as a limit on `run`.
pub async fn within<R>(
    headers: &HeaderMap,
    run: impl Future<Output = Result<R, RpcError>>,
) -> Result<R, RpcError> {
    match call::timeout(headers)? {
        None => run.await,
        Some(limit) => tokio::time::timeout(limit, run)
            .await
            .unwrap_or_else(|_| Err(Code::DeadlineExceeded.error("the call took longer than its limit"))),
    }
}

const KEEPALIVE_DEFAULT: Duration = Duration::from_secs(90);

/// After how long a silence of a stream its client wants a sign of life.
pub fn keepalive_every(headers: &HeaderMap) -> Duration {
    let seconds = headers.get("keepalive-ping-interval").and_then(|value| value.to_str().ok()?.parse().ok());
    seconds.filter(|seconds| (1..=86_400).contains(seconds)).map_or(KEEPALIVE_DEFAULT, Duration::from_secs)
}
