//! One connection: a WebSocket to one node, its frames as types. No memory beyond the connection.

use crate::wire::{ClientFrame, ServerFrame};
use futures_util::{FutureExt, SinkExt, StreamExt};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream,
    tungstenite::{Message, protocol::WebSocketConfig},
};

/// Largest message that an edge may send, bytes: a snapshot with its newest events.
const MESSAGE_MAX: usize = 4 << 20;

/// What a connection can bring.
pub(super) enum Arrival {
    /// A message.
    Frame(Box<ServerFrame>),
    /// Something without meaning for us (a WebSocket ping, an unreadable frame).
    Nothing,
    /// The end, with the edge's close code if it gave one.
    End(Option<u16>),
}

/// A live connection.
pub(super) struct Link(WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Link {
    /// Connects to the `/ws` of a base URL.
    pub(super) async fn open(base: &str, within: Duration) -> Option<Link> {
        let url = format!("{}/ws", base.trim_end_matches('/').replacen("http", "ws", 1));
        let config = WebSocketConfig::default()
            .read_buffer_size(4 << 10)
            .write_buffer_size(4 << 10)
            .max_message_size(Some(MESSAGE_MAX))
            .max_frame_size(Some(MESSAGE_MAX));
        let connecting = tokio_tungstenite::connect_async_with_config(url, Some(config), true);
        match tokio::time::timeout(within, connecting).await {
            Ok(Ok((socket, _))) => Some(Link(socket)),
            Ok(Err(error)) => {
                tracing::debug!(base, %error, "no connection");
                None
            }
            Err(_) => None,
        }
    }

    /// Sends a frame; false: the connection is dead.
    pub(super) async fn send(&mut self, frame: &ClientFrame<'_>) -> bool {
        self.feed(frame).await && self.flush().await
    }

    /// Puts a frame behind those that leave with the next `flush`; false: the connection is dead.
    pub(super) async fn feed(&mut self, frame: &ClientFrame<'_>) -> bool {
        let Ok(text) = serde_json::to_string(frame) else {
            return true;
        };
        self.0.feed(Message::text(text)).await.is_ok()
    }

    /// Sends what was fed, in one write if it is small; false: the connection is dead.
    pub(super) async fn flush(&mut self) -> bool {
        self.0.flush().await.is_ok()
    }

    /// What has come already, if anything has.
    pub(super) fn ready(&mut self) -> Option<Arrival> {
        self.next().now_or_never()
    }

    /// The next thing that comes. Cancel-safe.
    pub(super) async fn next(&mut self) -> Arrival {
        match self.0.next().await {
            Some(Ok(Message::Text(text))) => match ServerFrame::parse(&text) {
                Ok(frame) => Arrival::Frame(Box::new(frame)),
                Err(error) => {
                    tracing::warn!(%error, "a frame was not understood");
                    Arrival::Nothing
                }
            },
            Some(Ok(Message::Close(close))) => Arrival::End(close.map(|c| c.code.into())),
            Some(Ok(_)) => Arrival::Nothing,
            Some(Err(_)) | None => Arrival::End(None),
        }
    }
}
