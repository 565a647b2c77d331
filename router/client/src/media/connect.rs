//! A peer connection for a program: built, offered, answered, watched.

use super::reports::{self, Listener, Said};
use super::{MediaClientError, Signal};
use async_trait::async_trait;
use rtc::interceptor::{NackGeneratorBuilder, NackResponderBuilder, Registry, Slot};
use rtc::rtp_transceiver::rtp_sender::{RTCPFeedback, RTCRtpCodec, RTCRtpCodecParameters, RtpCodecKind};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};
use webrtc::media_stream::track_remote::TrackRemote;
use webrtc::peer_connection::{
    MediaEngine, PeerConnection, PeerConnectionBuilder, PeerConnectionEventHandler, RTCIceGatheringState,
    RTCPeerConnectionState, RTCSessionDescription, SettingEngineBuilder, StatsSelector, configure_rtcp_reports,
    configure_twcc_receiver_only,
};

/// Between two looks for missing packets.
const NACK_EVERY: Duration = Duration::from_millis(20);
/// A lost connection may come back for this long before another is made.
pub(super) const PATIENCE: Duration = Duration::from_secs(3);
/// Between two looks at what came.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// With no media on the way, a check is sent this often: a node that lives answers it well within anyone's patience.
const CHECK_EVERY: Duration = Duration::from_millis(300);
/// A connection must open within this.
const OPEN_WITHIN: Duration = Duration::from_secs(10);

pub(super) fn failed(error: rtc::shared::error::Error) -> MediaClientError {
    MediaClientError::WebRtc(error.to_string())
}

pub(super) fn vp8() -> RTCRtpCodecParameters {
    let feedback = |parameter: &str| RTCPFeedback {
        typ: "nack".into(),
        parameter: parameter.into(),
    };
    RTCRtpCodecParameters {
        rtp_codec: RTCRtpCodec {
            mime_type: "video/VP8".into(),
            clock_rate: 90_000,
            channels: 0,
            sdp_fmtp_line: String::new(),
            rtcp_feedback: vec![feedback(""), feedback("pli")],
        },
        payload_type: 96,
    }
}

pub(super) fn opus() -> RTCRtpCodecParameters {
    RTCRtpCodecParameters {
        rtp_codec: RTCRtpCodec {
            mime_type: "audio/opus".into(),
            clock_rate: 48_000,
            channels: 2,
            sdp_fmtp_line: "minptime=10;useinbandfec=1".into(),
            rtcp_feedback: Vec::new(),
        },
        payload_type: 111,
    }
}

struct Handler {
    gathered: watch::Sender<bool>,
    state: watch::Sender<RTCPeerConnectionState>,
    tracks: mpsc::Sender<Arc<dyn TrackRemote>>,
}

#[async_trait]
impl PeerConnectionEventHandler for Handler {
    async fn on_ice_gathering_state_change(&self, state: RTCIceGatheringState) {
        if state == RTCIceGatheringState::Complete {
            self.gathered.send_replace(true);
        }
    }

    async fn on_connection_state_change(&self, state: RTCPeerConnectionState) {
        self.state.send_replace(state);
    }

    async fn on_track(&self, track: Arc<dyn TrackRemote>) {
        // More tracks than a stream can have: not ours.
        let _ = self.tracks.try_send(track);
    }
}

/// A connection that is not yet, or no longer, open.
pub(super) struct Connection {
    pub(super) peer: Arc<dyn PeerConnection>,
    pub(super) tracks: mpsc::Receiver<Arc<dyn TrackRemote>>,
    /// What the other side's reports say.
    pub(super) said: Said,
    gathered: watch::Receiver<bool>,
    state: watch::Receiver<RTCPeerConnectionState>,
    session: Option<String>,
}

impl Connection {
    pub(super) async fn build(bind: IpAddr) -> Result<Connection, MediaClientError> {
        let mut engine = MediaEngine::default();
        engine.register_codec(vp8(), RtpCodecKind::Video).map_err(failed)?;
        engine.register_codec(opus(), RtpCodecKind::Audio).map_err(failed)?;
        let said = Said::default();
        let nack = NackGeneratorBuilder::new()
            .with_size(1024)
            .with_interval(NACK_EVERY)
            .with_max_nacks_per_packet(10);
        let registry = Registry::new()
            .with(Slot::NackGenerator, nack.build())
            .with(Slot::NackResponder, NackResponderBuilder::new().build())
            .with(reports::SLOT, Listener::new(said.clone()));
        let registry = configure_rtcp_reports(registry);
        let registry = configure_twcc_receiver_only(registry, &mut engine).map_err(failed)?;
        let settings = SettingEngineBuilder::new()
            .with_multicast_dns_mode(rtc::ice::mdns::MulticastDnsMode::Disabled)
            .with_include_loopback_candidate(true)
            .with_ice_timeouts(Some(Duration::from_secs(2)), Some(PATIENCE), Some(CHECK_EVERY))
            .build();
        let (gathered, when_gathered) = watch::channel(false);
        let (state, states) = watch::channel(RTCPeerConnectionState::New);
        let (tracks, tracks_in) = mpsc::channel(8);
        let peer = PeerConnectionBuilder::new()
            .with_media_engine(engine)
            .with_interceptor_registry(registry)
            .with_setting_engine(settings)
            .with_handler(Arc::new(Handler {
                gathered,
                state,
                tracks,
            }))
            .with_udp_addrs(vec![std::net::SocketAddr::new(bind, 0)])
            .build()
            .await
            .map_err(failed)?;
        Ok(Connection {
            peer: Arc::new(peer),
            tracks: tracks_in,
            said,
            gathered: when_gathered,
            state: states,
            session: None,
        })
    }

    /// Offers, takes the answer, and waits until the connection is open.
    pub(super) async fn open(&mut self, signal: &dyn Signal) -> Result<(), MediaClientError> {
        let offer = self.peer.create_offer(None).await.map_err(failed)?;
        self.peer.set_local_description(offer).await.map_err(failed)?;
        let late = |_| MediaClientError::WebRtc("it took too long".into());
        let gathering = tokio::time::timeout(PATIENCE, self.gathered.wait_for(|done| *done));
        gathering.await.map_err(late)?.ok();
        let local = self
            .peer
            .local_description()
            .await
            .ok_or(MediaClientError::WebRtc("no offer".into()))?;
        let (answer, session) = signal.offer(local.sdp).await?;
        self.session = Some(session);
        let answer = RTCSessionDescription::answer(answer).map_err(failed)?;
        self.peer.set_remote_description(answer).await.map_err(failed)?;
        let open = self.state.wait_for(|state| {
            matches!(
                *state,
                RTCPeerConnectionState::Connected | RTCPeerConnectionState::Failed | RTCPeerConnectionState::Closed
            )
        });
        let state = *tokio::time::timeout(OPEN_WITHIN, open)
            .await
            .map_err(late)?
            .map_err(|_| MediaClientError::WebRtc("gone".into()))?;
        if state == RTCPeerConnectionState::Connected {
            Ok(())
        } else {
            Err(MediaClientError::WebRtc(state.to_string()))
        }
    }

    /// Returns when the connection is lost for good.
    pub(super) fn lost(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut state = self.state.clone();
        async move {
            loop {
                let now = *state.borrow_and_update();
                let change = state.changed();
                match now {
                    RTCPeerConnectionState::Failed | RTCPeerConnectionState::Closed => return,
                    RTCPeerConnectionState::Disconnected => match tokio::time::timeout(PATIENCE, change).await {
                        Ok(Ok(())) => {}
                        _ => return,
                    },
                    _ => {
                        if change.await.is_err() {
                            return;
                        }
                    }
                }
            }
        }
    }

    /// Returns when nothing came for `patience`: no media, no report, no answer to a check.
    pub(super) fn silent(&self, patience: Duration) -> impl Future<Output = ()> + Send + use<> {
        let peer = self.peer.clone();
        async move {
            let (mut bytes, mut heard) = (0, Instant::now());
            let mut look = tokio::time::interval(LOOK_EVERY);
            loop {
                look.tick().await;
                let report = peer.get_stats(Instant::now(), StatsSelector::None).await;
                let now = report.transport().map_or(0, |transport| transport.bytes_received);
                if now != bytes {
                    (bytes, heard) = (now, Instant::now());
                } else if heard.elapsed() > patience {
                    return;
                }
            }
        }
    }

    /// Ends the connection, and the session at the node if there is a way to tell it. Only who leaves for good waits until
    /// the node knows: one that is gone must not hold up the next connection.
    pub(super) async fn close(self, signal: Option<Arc<dyn Signal>>, for_good: bool) {
        let told = async move {
            if let (Some(session), Some(signal)) = (&self.session, signal) {
                signal.end(session).await;
            }
        };
        if for_good {
            told.await;
        } else {
            tokio::spawn(told);
        }
        let _ = self.peer.close().await;
    }
}

/// The wait before the `tries`-th try, with jitter: 0.1 s doubling to 2 s.
pub(super) fn backoff(tries: u32) -> Duration {
    let base = Duration::from_millis(100) * 2u32.pow(tries.min(5));
    base.min(Duration::from_secs(2))
        .mul_f64(0.5 + rand::random::<f64>() / 2.0)
}
