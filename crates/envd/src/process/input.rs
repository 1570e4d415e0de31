//! `SendInput` and `CloseStdin`.

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use super::selector::Selector;
use crate::agent::Agent;
use crate::rpc::{Bytes64, Code, RpcError, or_default};

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

/// Answers when the process's pipe has taken all of it.
pub async fn send_input(agent: &Agent, message: SendInput) -> Result<Value, RpcError> {
    let process = message.process.running(agent)?;
    let bytes = match message.input {
        Input { pty: Some(_), .. } => return Err(Code::Internal.error("the process has no terminal")),
        Input { stdin: Some(bytes), .. } => bytes.0,
        Input { .. } => return Err(Code::InvalidArgument.error("input is empty")),
    };
    let mut stdin = process.stdin.lock().await;
    let Some(pipe) = stdin.as_mut() else { return Err(Code::Internal.error("stdin is closed")) };
    if pipe.write_all(&bytes).await.is_err() {
        stdin.take();
        return Err(Code::Internal.error("stdin is closed"));
    }
    Ok(json!({}))
}

/// Waits for input that is being written. Closing twice is fine, and so is a process that ended meanwhile.
pub async fn close_stdin(agent: &Agent, message: CloseStdin) -> Result<Value, RpcError> {
    let process = message.process.running_or_ended(agent)?;
    process.stdin.lock().await.take();
    Ok(json!({}))
}
