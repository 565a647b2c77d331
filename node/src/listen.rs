//! The doors of this node: where others' connections wait until they are taken in.
//!
//! When a node dies, all who were connected to it come to the others at once: tens of thousands of sockets within a few
//! ms. What finds no place in the kernel's queue of a listener is dropped without a word, and comes again after a second at
//! the earliest. The standard library's listeners have room for 128; that alone made bidders wait for a second after a
//! failover. So the queue is as long as the kernel allows (`net.core.somaxconn`), unless it is told to be shorter.
//!
//! Deliberately absent: how many are let in (`limits.*`), and TLS.

use anyhow::{Context as _, Result};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::net::SocketAddr;
use tokio::net::{TcpListener, TcpSocket};

/// Listens at an address that the key `key` names, with room for `backlog` connections that nobody has taken in yet.
pub(crate) fn listen(key: &str, address: SocketAddr, backlog: u32) -> Result<TcpListener> {
    let open = || {
        let socket = if address.is_ipv4() {
            TcpSocket::new_v4()?
        } else {
            TcpSocket::new_v6()?
        };
        // A node that starts again finds its port free although old connections still linger.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(backlog)
    };
    open().with_context(|| format!("{key} {address}"))
}

/// As many open files as the system lets this process have, in place of the few that shells give: each socket is one.
pub(crate) fn allow_files() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return;
    }
    let most = Rlimit {
        current: maximum,
        maximum,
    };
    match setrlimit(Resource::Nofile, most) {
        Ok(()) => tracing::debug!(?current, ?maximum, "more files may be open"),
        Err(error) => tracing::warn!(%error, ?current, "no more files may be open"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::time::Duration;
    use tokio::{net::TcpStream, time::timeout};

    /// Nobody takes anyone in: who finds no room never gets a connection.
    #[tokio::test]
    async fn a_crowd_that_comes_at_once_finds_room() {
        let listener = listen("test", "127.0.0.1:0".parse().unwrap(), 1_024).unwrap();
        let address = listener.local_addr().unwrap();
        let mut crowd = Vec::new();
        for n in 0..300 {
            let came = timeout(Duration::from_secs(20), TcpStream::connect(address)).await;
            crowd.push(came.unwrap_or_else(|_| panic!("number {n} found no room")).unwrap());
        }
    }

    #[tokio::test]
    async fn a_door_that_is_taken_is_told_by_its_key() {
        let first = listen("http.listen", "127.0.0.1:0".parse().unwrap(), 8).unwrap();
        let taken = first.local_addr().unwrap();
        let error = listen("http.listen", taken, 8).unwrap_err().to_string();
        assert!(
            error.contains("http.listen") && error.contains(&taken.to_string()),
            "{error}"
        );
    }
}
