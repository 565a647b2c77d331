//! A viewer that counts: packets, whole pictures, holes. What it sees is a watch channel, so that whoever waits for
//! pictures waits for them and not for a while.

use super::connect::{Connection, backoff, failed};
use super::reports::{Late, Said};
use super::vp8::Frames;
use super::{MediaClientError, OnPicture, Signal};
use rtc::rtp_transceiver::rtp_sender::RtpCodecKind;
use rtc::rtp_transceiver::{RTCRtpTransceiverDirection, RTCRtpTransceiverInit};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use webrtc::media_stream::track_remote::{TrackRemote, TrackRemoteEvent};

/// A node over which nothing came for this long is gone: the page's patience.
const DEAD: Duration = Duration::from_secs(1);

/// How a viewer connects.
#[derive(Clone, Debug)]
pub struct ViewerOptions {
    /// Address that the connection binds to.
    pub bind: IpAddr,
    /// Told of each picture as it becomes whole.
    pub on_picture: Option<OnPicture>,
}

impl Default for ViewerOptions {
    fn default() -> ViewerOptions {
        ViewerOptions {
            bind: IpAddr::V4(Ipv4Addr::LOCALHOST),
            on_picture: None,
        }
    }
}

/// What a viewer has seen since it started, over all its connections.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// The connection is open.
    pub connected: bool,
    /// Connections so far.
    pub connections: u64,
    /// Video packets.
    pub packets: u64,
    /// Audio packets.
    pub audio_packets: u64,
    /// Whole pictures.
    pub frames: u64,
    /// Keyframes among them.
    pub keyframes: u64,
    /// Video packets missing: not here, not yet made good by a retransmission.
    pub missing: u64,
    /// The newest whole picture's number, as its publisher counts (15 bits).
    pub picture: Option<u16>,
    /// From the offer to the open connection, and to the first whole picture; of the newest connection.
    pub opened_after: Option<Duration>,
    /// See `opened_after`.
    pub first_frame_after: Option<Duration>,
    /// How late video comes by its node's reports: the least late of the newest 50 packets, in µs from a zero of the
    /// connection's. Only its difference to the sound's means something.
    pub video_late_us: Option<i64>,
    /// The same of sound.
    pub audio_late_us: Option<i64>,
}

/// A running viewer.
pub struct Viewer {
    stop: CancellationToken,
    seen: watch::Receiver<Seen>,
    task: tokio::task::JoinHandle<()>,
}

impl Viewer {
    /// Starts to watch, and keeps at it over lost connections.
    pub fn start(options: ViewerOptions, signal: Arc<dyn Signal>) -> Viewer {
        let stop = CancellationToken::new();
        let (out, seen) = watch::channel(Seen::default());
        let run = Run {
            options,
            signal,
            seen: Arc::new(out),
            stop: stop.clone(),
        };
        Viewer {
            stop,
            seen,
            task: tokio::spawn(run.keep_at_it()),
        }
    }

    /// What it has seen, as it sees it.
    pub fn seen(&self) -> watch::Receiver<Seen> {
        self.seen.clone()
    }

    /// Ends the session, and waits until that is done.
    pub async fn stop(self) {
        self.stop.cancel();
        let _ = self.task.await;
    }
}

struct Run {
    options: ViewerOptions,
    signal: Arc<dyn Signal>,
    seen: Arc<watch::Sender<Seen>>,
    stop: CancellationToken,
}

impl Run {
    async fn keep_at_it(self) {
        let mut tries = 0;
        while !self.stop.is_cancelled() {
            let before = self.seen.borrow().connections;
            if let Err(error) = self.once().await {
                tracing::debug!(%error, "a viewer's connection ended");
            }
            self.seen.send_modify(|seen| seen.connected = false);
            tries = if self.seen.borrow().connections > before {
                0
            } else {
                tries + 1
            };
            tokio::select! {
                () = self.stop.cancelled() => {}
                () = tokio::time::sleep(backoff(tries)) => {}
            }
        }
    }

    async fn once(&self) -> Result<(), MediaClientError> {
        let mut connection = Connection::build(self.options.bind).await?;
        let result = self.watch(&mut connection).await;
        connection.close(Some(self.signal.clone()), result.is_ok()).await;
        result
    }

    async fn watch(&self, connection: &mut Connection) -> Result<(), MediaClientError> {
        for kind in [RtpCodecKind::Video, RtpCodecKind::Audio] {
            let direction = RTCRtpTransceiverDirection::Recvonly;
            let init = RTCRtpTransceiverInit {
                direction,
                ..RTCRtpTransceiverInit::default()
            };
            connection
                .peer
                .add_transceiver_from_kind(kind, Some(init))
                .await
                .map_err(failed)?;
        }
        let began = Instant::now();
        tokio::select! {
            () = self.stop.cancelled() => return Ok(()),
            opened = connection.open(self.signal.as_ref()) => opened?,
        }
        self.seen.send_modify(|seen| {
            seen.connected = true;
            seen.connections += 1;
            seen.opened_after = Some(began.elapsed());
            seen.first_frame_after = None;
        });
        let mut counting = tokio::task::JoinSet::new();
        let (lost, silent) = (connection.lost(), connection.silent(DEAD));
        tokio::pin!(lost, silent);
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return Ok(()),
                () = &mut lost => return Err(MediaClientError::WebRtc("the connection was lost".into())),
                () = &mut silent => {
                    self.signal.left();
                    return Err(MediaClientError::WebRtc("the node fell silent".into()));
                }
                Some(track) = connection.tracks.recv() => {
                    let tell = self.options.on_picture.clone();
                    counting.spawn(count(track, self.seen.clone(), tell, (began, connection.said.clone())));
                }
            }
        }
    }
}

async fn count(
    track: Arc<dyn TrackRemote>,
    seen: Arc<watch::Sender<Seen>>,
    tell: Option<OnPicture>,
    (began, said): (Instant, Said),
) {
    let video = track.kind().await == RtpCodecKind::Video;
    let mut late = Late::new(said, if video { 90_000 } else { 48_000 });
    let mut frames = Frames::default();
    // What earlier connections missed stays missed.
    let before = seen.borrow().missing;
    while let Some(event) = track.poll().await {
        let TrackRemoteEvent::OnRtpPacket(packet) = event else {
            continue;
        };
        let header = &packet.header;
        let late_us = late.packet(header.ssrc, header.timestamp, began.elapsed().as_micros() as i64);
        if !video {
            seen.send_modify(|seen| {
                seen.audio_packets += 1;
                seen.audio_late_us = late_us;
            });
            continue;
        }
        let whole = frames.packet(header.sequence_number, header.timestamp, header.marker, &packet.payload);
        if let (Some(tell), Some(whole)) = (&tell, whole) {
            tell.tell(whole.picture, whole.keyframe);
        }
        seen.send_modify(|seen| {
            seen.packets += 1;
            seen.video_late_us = late_us;
            seen.missing = before + frames.missing();
            if let Some(whole) = whole {
                seen.frames += 1;
                seen.keyframes += u64::from(whole.keyframe);
                seen.picture = whole.picture.or(seen.picture);
                seen.first_frame_after = seen.first_frame_after.or(Some(began.elapsed()));
            }
        });
    }
}
