//! The two listening sockets and the loops that accept on them.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};

use crate::args::Args;
use crate::body::Body;

pub fn guest(args: &Args) -> io::Result<TcpListener> {
    bind(args.listen, args.port, None)
}

/// Bound to the interface, for packets from outside. Connections from within the VM to the same address still get
/// here (their route names that interface): the peer's address tells them apart, which only root could forge.
pub fn control(args: &Args) -> io::Result<TcpListener> {
    bind(args.control_listen, args.control_port, args.control_interface.as_deref())
}

fn bind(ip: IpAddr, port: u16, interface: Option<&str>) -> io::Result<TcpListener> {
    let address = SocketAddr::new(ip, port);
    let explain =
        |error: io::Error| io::Error::new(error.kind(), format!("cannot listen on {address}: {error}"));
    let listen = || {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        if let Some(interface) = interface {
            socket.bind_device(Some(interface.as_bytes()))?;
            socket.set_freebind_v4(true)?;
        }
        socket.bind(&address.into())?;
        socket.listen(1024)?;
        TcpListener::from_std(socket.into())
    };
    listen().map_err(explain)
}

/// The next connection; never fails, since running out of descriptors passes.
pub async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                let _ = stream.set_nodelay(true);
                return (stream, peer);
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

/// What answers requests. Of one type for both ports, and so is what hyper makes of it (see `task`).
pub type Handle = Box<dyn Fn(Request<Incoming>) -> Answering + Send + Sync>;
type Answering = Pin<Box<dyn Future<Output = Response<Body>> + Send>>;

/// How long a client that still sends is listened to after its last answer.
const LINGER_TIME: Duration = Duration::from_secs(5);

/// Serves one HTTP/1.1 connection to its end. A client that closes its side ends it too, and with it the answers
/// under way.
pub async fn connection(mut stream: TcpStream, handle: Handle) {
    let service = service_fn(|request| {
        let answer = handle(request);
        async { Ok::<_, Infallible>(answer.await) }
    });
    let served = http1::Builder::new()
        .header_read_timeout(None)
        .max_buf_size(64 * 1024)
        .serve_connection(TokioIo::new(&mut stream), service)
        .await;
    // A peer that broke off is no event of ours.
    drop(served);
    // A close with bytes unread is a reset, which takes the answer with it.
    let _ = tokio::time::timeout(LINGER_TIME, tokio::io::copy(&mut stream, &mut tokio::io::sink())).await;
}
