//! The client's socket, lent to an answer under way that writes its own pieces.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use tokio::net::TcpStream;

/// Owner: the client's connection, on one thread: an answer asks, the socket grants when everything is out.
#[derive(Debug, Default)]
pub(crate) struct Loan {
    is_asked: AtomicBool,
    granted: Mutex<Option<Arc<TcpStream>>>,
}

impl Loan {
    /// An answer handed on a piece, and wants the socket when that is out. To be asked again for each piece.
    pub(crate) fn ask(&self) {
        self.is_asked.store(true, Ordering::Relaxed);
    }

    /// Whether it was, since it was granted.
    pub(crate) fn is_asked(&self) -> bool {
        self.is_asked.load(Ordering::Relaxed)
    }

    /// Everything is out.
    pub(crate) fn grant(&self, socket: Arc<TcpStream>) {
        self.is_asked.store(false, Ordering::Relaxed);
        let earlier = self.granted.lock().replace(socket);
        drop(earlier);
    }

    /// The socket, if it was granted and nothing was handed on since.
    pub(crate) fn take(&self) -> Option<Arc<TcpStream>> {
        self.granted.lock().take().filter(|_| !self.is_asked())
    }

    /// It is no longer wanted.
    pub(crate) fn cancel(&self) {
        self.is_asked.store(false, Ordering::Relaxed);
        drop(self.take());
    }
}
