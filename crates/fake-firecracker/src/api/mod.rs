//! The API socket: HTTP/1.1 on several connections, one call at a time on all of them together.

mod body;
mod route;

use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::json;

use crate::devices::observe::Serial;
use crate::faults::hang;
use crate::http::{self, BadRequest, Request};
use crate::refusal::Refusal;
use crate::vmm::Vmm;

/// How often a balloon that waits for its driver looks for it.
const BALLOON_EVERY: Timespec = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
const EXIT_LOAD_FAILED: u8 = 1;
const HEADERS: [(&str, &str); 3] =
    [("Server", "Firecracker API"), ("Connection", "keep-alive"), ("Content-Type", "application/json")];

struct Connection {
    stream: UnixStream,
    inbound: Vec<u8>,
    /// Of a body that was refused already.
    unwanted_bytes: usize,
}

/// Serves until a call ends the process; gives the exit code.
pub fn serve(listener: &UnixListener, mut vmm: Vmm, body_bytes_max: usize) -> u8 {
    let mut connections: Vec<Connection> = Vec::new();
    loop {
        let ready = wait(listener, &vmm, &connections);
        let mut index = 0;
        connections.retain_mut(|connection| {
            index += 1;
            !ready.contains(&index) || connection.read()
        });
        for connection in &mut connections {
            if let Some(code) = connection.answer(&mut vmm, body_bytes_max) {
                return code;
            }
        }
        if ready.contains(&0)
            && let Ok((stream, _)) = listener.accept()
        {
            connections.push(Connection { stream, inbound: Vec::new(), unwanted_bytes: 0 });
        }
        // Nobody listens in the guest.
        while vmm.vsock().is_some_and(|listener| listener.accept().is_ok()) {}
        vmm.settle_balloon();
    }
}

/// The places of what is ready in: the listener, the connections, the host's end of vsock.
fn wait(listener: &UnixListener, vmm: &Vmm, connections: &[Connection]) -> Vec<usize> {
    let streams = connections.iter().map(|connection| connection.stream.as_fd());
    let fds = [listener.as_fd()].into_iter().chain(streams).chain(vmm.vsock().map(AsFd::as_fd));
    let mut polled: Vec<PollFd<'_>> = fds.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
    let timeout = vmm.balloon_moves().then_some(&BALLOON_EVERY);
    if poll(&mut polled, timeout).is_err() {
        return Vec::new();
    }
    polled.iter().enumerate().filter(|(_, fd)| !fd.revents().is_empty()).map(|(index, _)| index).collect()
}

impl Connection {
    /// False: the peer is gone.
    fn read(&mut self) -> bool {
        let mut chunk = [0; 16 * 1024];
        match self.stream.read(&mut chunk) {
            Ok(0) => false,
            Ok(count) => {
                let unwanted = count.min(self.unwanted_bytes);
                self.unwanted_bytes -= unwanted;
                self.inbound.extend_from_slice(&chunk[unwanted..count]);
                true
            }
            Err(error) => error.kind() == ErrorKind::Interrupted,
        }
    }

    /// Answers every request that is there as a whole. `Some` is the code to exit with.
    fn answer(&mut self, vmm: &mut Vmm, body_bytes_max: usize) -> Option<u8> {
        loop {
            match Request::take(&mut self.inbound, body_bytes_max) {
                Ok(None) => return None,
                Ok(Some(request)) if is_known(&request.method) => {
                    let (answer, exit) = call(vmm, &request);
                    self.write(&answer);
                    if exit.is_some() {
                        return exit;
                    }
                }
                Ok(Some(_)) => self.write(&unreadable("Invalid HTTP Method: Unsupported HTTP method.")),
                Err(bad) => {
                    self.inbound.clear();
                    let why = match bad {
                        BadRequest::Malformed => "Invalid request.".to_string(),
                        BadRequest::TooLarge { size_bytes, rest_bytes } => {
                            self.unwanted_bytes = rest_bytes;
                            format!(
                                "Request payload with size {size_bytes} is larger than the limit of {body_bytes_max} \
                                 allowed by server."
                            )
                        }
                    };
                    self.write(&unreadable(&why));
                }
            }
        }
    }

    fn write(&mut self, bytes: &[u8]) {
        // A peer that left has no use for its answer.
        let _ = self.stream.write_all(bytes);
    }
}

fn is_known(method: &str) -> bool {
    matches!(method, "GET" | "PUT" | "PATCH" | "DELETE")
}

/// The answer, and the code to exit with after it.
fn call(vmm: &mut Vmm, request: &Request) -> (Vec<u8>, Option<u8>) {
    misbehave(vmm, request);
    match route::route(vmm, request) {
        Ok(None) => (http::answer(204, &HEADERS[..2], b""), None),
        Ok(Some(value)) => (http::answer(200, &HEADERS, value.to_string().as_bytes()), None),
        Err(Refusal { text, fatal }) => {
            if fatal {
                Serial::Stdout.print("Error: RunWithApi(BuildMicroVmError(Restore))\n");
            }
            let body = json!({ "fault_message": text }).to_string();
            (http::answer(400, &HEADERS, body.as_bytes()), fatal.then_some(EXIT_LOAD_FAILED))
        }
    }
}

fn misbehave(vmm: &Vmm, request: &Request) {
    let name = format!("{} {}", request.method, request.path);
    let (hangs, slow_ms) = {
        let faults = vmm.faults.now();
        (faults.hang_on.as_ref() == Some(&name), faults.slow_ms.get(&name).copied())
    };
    if hangs {
        hang();
    }
    if let Some(ms) = slow_ms {
        std::thread::sleep(Duration::from_millis(ms));
    }
}

/// No JSON: the line feed stands in the string as it is.
fn unreadable(why: &str) -> Vec<u8> {
    let body = format!("{{ \"error\": \"{why}\nAll previous unanswered requests will be dropped.\" }}");
    http::answer(400, &HEADERS, body.as_bytes())
}
