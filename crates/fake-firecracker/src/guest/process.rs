//! `process.Process/Start`: runs a command and streams what it does, as Connect with JSON.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};

use super::facts::Identity;
use super::kernel::Kernel;
use super::program::{Program, Progress, Source};
use crate::http::Request;

#[derive(Deserialize)]
struct StartBody {
    #[serde(default)]
    process: Config,
    pty: Option<Value>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Config {
    cmd: String,
    args: Vec<String>,
    envs: BTreeMap<String, String>,
}

/// A refusal in Connect's words: code and message.
pub struct Refused(pub &'static str, pub String);

/// A command that runs for a caller.
pub struct Execution {
    program: Program,
    deadline: Option<Instant>,
    keepalive_every: Duration,
    keepalive_at: Instant,
    wake_at: Option<Instant>,
}

const END_OF_STREAM: u8 = 2;
const ENVELOPE_BYTES: usize = 5;
const CHUNK_BYTES: usize = 32 * 1024;
const KEEPALIVE_DEFAULT: Duration = Duration::from_secs(90);
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const USERS: [(&str, &str); 2] = [("root", "/root"), ("user", "/home/user")];

impl Execution {
    /// The command that a request asks for, and the first frames of its stream.
    pub fn start(
        kernel: &mut Kernel,
        identity: &Identity,
        request: &Request,
    ) -> Result<(Execution, Vec<u8>), Refused> {
        let (user, home) = user(identity, request)?;
        let limit_ms: u64 = number(request, "connect-timeout-ms").unwrap_or(0);
        let message = request.body.get(ENVELOPE_BYTES..).unwrap_or_default();
        let body: StartBody = serde_json::from_slice(message)
            .map_err(|error| Refused("invalid_argument", format!("bad message: {error}")))?;
        if body.pty.is_some() {
            return Err(Refused("unimplemented", "this guest has no terminals".into()));
        }
        let Config { cmd, args, envs } = body.process;
        if cmd.is_empty() {
            return Err(Refused("invalid_argument", "process.cmd is empty".into()));
        }
        let mut env: BTreeMap<String, String> =
            [("PATH", PATH), ("HOME", home), ("USER", user), ("LOGNAME", user)]
                .map(|(k, v)| (k.into(), v.into()))
                .into();
        env.extend(identity.env.clone());
        env.extend(envs);
        let missing = || Refused("invalid_argument", format!("command '{cmd}' not found"));
        let program = Program::new(&cmd, &args, env).ok_or_else(missing)?;
        let now = Instant::now();
        let keepalive_every =
            number(request, "keepalive-ping-interval").map_or(KEEPALIVE_DEFAULT, Duration::from_secs);
        let execution = Execution {
            program,
            deadline: (limit_ms > 0).then(|| now + Duration::from_millis(limit_ms)),
            keepalive_every,
            keepalive_at: now + keepalive_every,
            wake_at: None,
        };
        Ok((execution, message_frame(&json!({ "event": { "start": { "pid": kernel.next_pid() } } }))))
    }

    /// When there may be something to do, if nobody asks before.
    pub fn wake_at(&self) -> Instant {
        let times = [self.wake_at, self.deadline].into_iter().flatten();
        times.fold(self.keepalive_at, Instant::min)
    }

    /// Goes on, and pushes the frames of what happened; false at the end of the stream.
    pub fn turn(&mut self, kernel: &mut Kernel, frames: &mut Vec<Vec<u8>>) -> bool {
        let now = Instant::now();
        if self.deadline.is_some_and(|deadline| deadline <= now) {
            let late = Refused("deadline_exceeded", "the process ran longer than its limit".into());
            frames.push(end_frame(Some(&late)));
            return false;
        }
        let before = frames.len();
        let progress = self.program.advance(kernel, now, |source, text| {
            frames.extend(text.as_bytes().chunks(CHUNK_BYTES).map(|chunk| data_frame(source, chunk)));
        });
        if frames.len() > before {
            self.keepalive_at = now + self.keepalive_every;
        }
        match progress {
            Progress::Ended(code) => {
                frames.push(exit_frame(code));
                frames.push(end_frame(None));
                false
            }
            Progress::Sleeping(until) => {
                self.wake_at = Some(until);
                if self.keepalive_at <= now {
                    self.keepalive_at = now + self.keepalive_every;
                    frames.push(message_frame(&json!({ "event": { "keepalive": {} } })));
                }
                true
            }
        }
    }
}

fn number(request: &Request, header: &str) -> Option<u64> {
    request.header(header)?.parse().ok()
}

/// Name and home of the user that the Basic header names, or of the default one.
fn user(identity: &Identity, request: &Request) -> Result<(&'static str, &'static str), Refused> {
    let unauthenticated = |why: &str| Refused("unauthenticated", why.into());
    let name = match request.header("authorization") {
        None => identity.default_user.clone(),
        Some(value) => {
            basic_user(value).ok_or_else(|| unauthenticated("the authorization header is not Basic"))?
        }
    };
    let name = if name.is_empty() { "root".into() } else { name };
    let found = USERS.into_iter().find(|(known, _)| *known == name);
    found.ok_or_else(|| unauthenticated(&format!("invalid username: '{name}'")))
}

fn basic_user(header: &str) -> Option<String> {
    let (scheme, credentials) = header.split_once(' ')?;
    let decoded =
        BASE64_STANDARD.decode(credentials.trim()).ok().filter(|_| scheme.eq_ignore_ascii_case("basic"))?;
    Some(String::from_utf8(decoded).ok()?.split(':').next()?.to_string())
}

fn data_frame(source: Source, chunk: &[u8]) -> Vec<u8> {
    let name = if source == Source::Stdout { "stdout" } else { "stderr" };
    message_frame(&json!({ "event": { "data": { name: BASE64_STANDARD.encode(chunk) } } }))
}

fn exit_frame(code: i32) -> Vec<u8> {
    let text = format!("exit status {code}");
    let mut end = json!({ "exitCode": code, "exited": true, "status": text });
    if code != 0 {
        end["error"] = text.into();
    }
    message_frame(&json!({ "event": { "end": end } }))
}

fn message_frame(message: &Value) -> Vec<u8> {
    envelope(0, &message.to_string())
}

/// The last frame of a stream.
pub fn end_frame(error: Option<&Refused>) -> Vec<u8> {
    let message = match error {
        None => json!({}),
        Some(Refused(code, message)) => json!({ "error": { "code": code, "message": message } }),
    };
    envelope(END_OF_STREAM, &message.to_string())
}

fn envelope(flags: u8, message: &str) -> Vec<u8> {
    let mut frame = vec![flags];
    frame.extend_from_slice(&(message.len() as u32).to_be_bytes());
    frame.extend_from_slice(message.as_bytes());
    frame
}
