//! `SendInput`, `StreamInput` and `CloseStdin`.

use hyper::Request;
use hyper::body::Incoming;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use super::Answer;
use super::selector::Selector;
use super::table::Process;
use crate::agent::Agent;
use crate::body;
use crate::rpc::{self, Bytes64, Code, Envelopes, RpcError, or_default};

#[derive(Deserialize)]
pub struct SendInput {
    #[serde(default, deserialize_with = "or_default")]
    process: Selector,
    #[serde(default, deserialize_with = "or_default")]
    input: Input,
}

#[derive(Default, Deserialize)]
struct Input {
    stdin: Option<Bytes64>,
    pty: Option<Bytes64>,
}

#[derive(Deserialize)]
pub struct CloseStdin {
    #[serde(default, deserialize_with = "or_default")]
    process: Selector,
}

/// One message of `StreamInput`; one without any of them keeps the stream alive.
#[derive(Deserialize)]
struct StreamInput {
    start: Option<StreamStart>,
    data: Option<StreamData>,
}

#[derive(Deserialize)]
struct StreamStart {
    #[serde(default, deserialize_with = "or_default")]
    process: Selector,
}

#[derive(Deserialize)]
struct StreamData {
    #[serde(default, deserialize_with = "or_default")]
    input: Input,
}

/// Answers when the process's pipe or terminal has taken all of it.
pub async fn send_input(agent: &Agent, message: SendInput) -> Result<Value, RpcError> {
    let process = message.process.running(agent)?;
    feed(&process, message.input).await?;
    Ok(json!({}))
}

/// Feeds message after message, each read when the last one was taken; answers at the end of the request.
pub async fn stream_input(agent: &Agent, request: &mut Request<Incoming>) -> Answer {
    let headers = request.headers().clone();
    rpc::within(&headers, async {
        let mut messages = Envelopes::new(request.body_mut());
        let first: Option<StreamInput> = messages.next().await?;
        let Some(StreamInput { start: Some(start), .. }) = first else {
            return Err(Code::InvalidArgument.error("the first message is not the start"));
        };
        let process = start.process.running(agent)?;
        while let Some(StreamInput { start, data }) = messages.next().await? {
            if start.is_some() {
                return Err(Code::InvalidArgument.error("the stream starts twice"));
            }
            if let Some(data) = data {
                feed(&process, data.input).await?;
            }
        }
        Ok(())
    })
    .await?;
    Ok(body::bytes([rpc::message(&json!({})), rpc::Stream::end(None)].concat()))
}

async fn feed(process: &Process, input: Input) -> Result<(), RpcError> {
    let refuse = |text: &str| Err(Code::Internal.error(text));
    let bytes = match (input, process.has_terminal) {
        (Input { pty: Some(bytes), .. }, true) => bytes.0,
        (Input { pty: Some(_), .. }, false) => return refuse("the process has no terminal"),
        (Input { stdin: Some(bytes), .. }, false) => bytes.0,
        (Input { stdin: Some(_), .. }, true) => return refuse("the process has a terminal for its input"),
        (Input { .. }, _) => return Err(Code::InvalidArgument.error("input is empty")),
    };
    let mut input = process.input.lock().await;
    let Some(pipe) = input.as_mut() else { return refuse("stdin is closed") };
    if pipe.write_all(&bytes).await.is_err() {
        input.take();
        return refuse("stdin is closed");
    }
    Ok(())
}

/// Waits for input that is being written. Closing twice is fine, and so is a process that ended meanwhile.
pub async fn close_stdin(agent: &Agent, message: CloseStdin) -> Result<Value, RpcError> {
    let process = message.process.running_or_ended(agent)?;
    if process.has_terminal {
        return Err(Code::Unknown.error("a terminal has no end of input; send it the character 4"));
    }
    process.input.lock().await.take();
    Ok(json!({}))
}
