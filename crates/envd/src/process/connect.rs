//! `Connect`: follows a process that was started before.

use std::sync::Arc;

use hyper::Request;
use hyper::body::Incoming;
use serde::Deserialize;
use tokio::time::Instant;

use super::Answer;
use super::events::Events;
use super::selector::Selector;
use crate::agent::Agent;
use crate::rpc::{self, or_default};

#[derive(Deserialize)]
struct Message {
    #[serde(default, deserialize_with = "or_default")]
    process: Selector,
}

/// The time limit, unlike that of `Start`, ends the stream only.
pub async fn connect(agent: Arc<Agent>, request: &mut Request<Incoming>) -> Answer {
    let deadline = rpc::timeout(request.headers())?.map(|limit| Instant::now() + limit);
    let headers = request.headers().clone();
    let message: Message = rpc::read_stream(request).await?;
    let process = message.process.running_or_ended(&agent)?;
    Ok(Events::new(process, &headers, deadline).into_body())
}
