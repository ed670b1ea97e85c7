//! A TCP proxy that fails on command, between a client and a real server.
//!
//! Each connection is two threads, one for each direction, that move bytes as
//! they come and look at the shared switches between reads. A read waits at most
//! 20 ms, so a switch takes effect within that time even on a silent connection;
//! a byte that was read is either passed on whole and in order or the connection
//! is cut, never dropped from the middle, because a real network does not do
//! that to TCP either.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::error::{Result, TestbedError};

const LOOK: Duration = Duration::from_millis(20);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const UNLIMITED: i64 = i64::MAX;

/// A running proxy; it and all its connections end when it is dropped.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    upstream: SocketAddr,
    paused: AtomicBool,
    refusing: AtomicBool,
    ended: AtomicBool,
    latency_micros: AtomicU64,
    /// Bytes from the server to clients that may still pass before all is cut.
    budget: AtomicI64,
    to_client: AtomicU64,
    to_server: AtomicU64,
    accepted: AtomicU64,
    open: Mutex<Vec<(TcpStream, TcpStream)>>,
}

impl Proxy {
    /// Listens on a free port of 127.0.0.1 and passes everything on to `upstream`,
    /// for example `127.0.0.1:5432`.
    ///
    /// # Errors
    /// When `upstream` is no address or no port can be had.
    pub fn start(upstream: &str) -> Result<Proxy> {
        let upstream: SocketAddr = upstream.parse().map_err(|_| {
            TestbedError::State(format!(
                "the proxy's upstream {upstream:?} is not IP:PORT, such as 127.0.0.1:5432"
            ))
        })?;
        let what = "opening the proxy's port";
        let listener =
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(TestbedError::io(what))?;
        let port = listener
            .local_addr()
            .map_err(TestbedError::io(what))?
            .port();
        let shared = Arc::new(Shared {
            upstream,
            paused: AtomicBool::new(false),
            refusing: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            latency_micros: AtomicU64::new(0),
            budget: AtomicI64::new(UNLIMITED),
            to_client: AtomicU64::new(0),
            to_server: AtomicU64::new(0),
            accepted: AtomicU64::new(0),
            open: Mutex::new(Vec::new()),
        });
        let for_thread = Arc::clone(&shared);
        let acceptor = thread::Builder::new()
            .name("testbed-proxy".to_owned())
            .spawn(move || accept(&listener, &for_thread))
            .map_err(TestbedError::io("starting the proxy's thread"))?;
        Ok(Proxy {
            port,
            shared,
            acceptor: Some(acceptor),
        })
    }

    /// The port on 127.0.0.1 that clients connect to.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `127.0.0.1:PORT`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Stops forwarding and keeps the connections: a network that has gone silent.
    pub fn pause(&self) {
        self.shared.paused.store(true, Ordering::SeqCst);
    }

    /// Forwards again, starting with what came in the meantime.
    pub fn resume(&self) {
        self.shared.paused.store(false, Ordering::SeqCst);
    }

    /// Closes all connections there are; new ones are served.
    pub fn cut(&self) {
        self.shared.cut();
    }

    /// While on, new connections are closed at once. Those there are stay: use
    /// [`Proxy::cut`] for them.
    pub fn refuse(&self, on: bool) {
        self.shared.refusing.store(on, Ordering::SeqCst);
    }

    /// Cuts all connections after `n` more bytes from the server have passed to
    /// clients, exactly there, which may be in the middle of a message. Once: what
    /// comes after the cut is not limited.
    pub fn cut_after_bytes(&self, n: u64) {
        let n = i64::try_from(n).unwrap_or(UNLIMITED - 1);
        self.shared.budget.store(n, Ordering::SeqCst);
    }

    /// Holds back each piece read by this time, in both directions.
    pub fn latency(&self, latency: Duration) {
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        self.shared.latency_micros.store(micros, Ordering::SeqCst);
    }

    /// Bytes passed so far from the server to clients.
    pub fn bytes_to_client(&self) -> u64 {
        self.shared.to_client.load(Ordering::SeqCst)
    }

    /// Bytes passed so far from clients to the server.
    pub fn bytes_to_server(&self) -> u64 {
        self.shared.to_server.load(Ordering::SeqCst)
    }

    /// Connections accepted so far, refused ones not counted.
    pub fn connections(&self) -> u64 {
        self.shared.accepted.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        // Wakes the acceptor, which otherwise waits for a client.
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
        self.shared.cut();
    }
}

impl Shared {
    fn cut(&self) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        for (client, server) in open.drain(..) {
            let _ = client.shutdown(Shutdown::Both);
            let _ = server.shutdown(Shutdown::Both);
        }
    }

    fn ended(&self) -> bool {
        self.ended.load(Ordering::SeqCst)
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for client in listener.incoming() {
        if shared.ended() {
            return;
        }
        let Ok(client) = client else { continue };
        if shared.refusing.load(Ordering::SeqCst) {
            continue;
        }
        let shared = Arc::clone(shared);
        // A server that cannot be reached closes the client, as it would itself.
        let _ = thread::Builder::new()
            .name("testbed-proxy".to_owned())
            .spawn(move || serve(client, &shared));
    }
}

fn serve(client: TcpStream, shared: &Arc<Shared>) -> io::Result<()> {
    let server = TcpStream::connect_timeout(&shared.upstream, CONNECT_TIMEOUT)?;
    for stream in [&client, &server] {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(LOOK))?;
    }
    {
        let mut open = shared.open.lock().unwrap_or_else(PoisonError::into_inner);
        // A closed socket has no peer any more.
        open.retain(|(client, _)| client.peer_addr().is_ok());
        open.push((client.try_clone()?, server.try_clone()?));
    }
    shared.accepted.fetch_add(1, Ordering::SeqCst);
    let up = {
        let (from, to) = (client.try_clone()?, server.try_clone()?);
        let shared = Arc::clone(shared);
        thread::spawn(move || pump(from, to, &shared, Direction::ToServer))
    };
    pump(server, client, shared, Direction::ToClient);
    let _ = up.join();
    Ok(())
}

#[derive(Clone, Copy, PartialEq)]
enum Direction {
    ToServer,
    ToClient,
}

/// Moves bytes until either side ends. The end of one direction is passed on
/// alone: the other may still have something to say.
fn pump(mut from: TcpStream, mut to: TcpStream, shared: &Shared, direction: Direction) {
    let mut buffer = vec![0_u8; 64 << 10];
    loop {
        if shared.ended() {
            break;
        }
        if shared.paused.load(Ordering::SeqCst) {
            thread::sleep(LOOK);
            continue;
        }
        let n = match from.read(&mut buffer) {
            Ok(0) => {
                let _ = to.shutdown(Shutdown::Write);
                return;
            }
            Ok(n) => n,
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
                ) =>
            {
                continue;
            }
            Err(_) => break,
        };
        let latency = shared.latency_micros.load(Ordering::SeqCst);
        if latency > 0 {
            thread::sleep(Duration::from_micros(latency));
        }
        while shared.paused.load(Ordering::SeqCst) && !shared.ended() {
            thread::sleep(LOOK);
        }
        let allowed = match direction {
            Direction::ToServer => n,
            Direction::ToClient => take_budget(&shared.budget, n),
        };
        let counter = match direction {
            Direction::ToServer => &shared.to_server,
            Direction::ToClient => &shared.to_client,
        };
        // Counted first: who has a byte finds it counted.
        counter.fetch_add(allowed as u64, Ordering::SeqCst);
        if to.write_all(&buffer[..allowed]).is_err() {
            break;
        }
        if allowed < n {
            shared.budget.store(UNLIMITED, Ordering::SeqCst);
            shared.cut();
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}

/// How many of `n` bytes may pass. `n` is less than all only for the one piece
/// that uses up the budget.
fn take_budget(budget: &AtomicI64, n: usize) -> usize {
    let wanted = i64::try_from(n).unwrap_or(UNLIMITED);
    let before = budget.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
        (left != UNLIMITED).then(|| left.saturating_sub(wanted).max(0))
    });
    match before {
        Ok(left) => usize::try_from(left.min(wanted)).unwrap_or(n),
        Err(_unlimited) => n,
    }
}
