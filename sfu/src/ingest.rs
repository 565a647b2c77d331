//! The seller's side: WHIP in, by the `webrtc` crate's peer connection.
//!
//! ```text
//!   offer --> peer connection --> answer
//!                  |-- track task per track: packet --> stage.push; the first packet makes the stream live
//!                  '-- supervisor: lost for `publisher_grace`, ended, taken over --> the stream goes down
//! ```
//!
//! One publisher costs a peer connection with its own socket and tasks: there are few. The stream is announced by its first
//! packet, not by its handshake, so 'up' means that there is something to see. A second publisher of an auction takes
//! over at *its* first packet; until then viewers keep the first one's pictures.

use crate::capture::{ACT_URI, Uplink};
use crate::media::Inner;
use crate::metrics::{self, Way};
use crate::reports::{self, Reports};
use crate::sdp::{Format, Kind, Offer, Section};
use crate::stage::{Live, Publishing, Source, Stage, Track};
use crate::{Answer, MediaError, StreamEvent};
use arc_swap::ArcSwap;
use async_trait::async_trait;
use forward::Codec;
use forward::sequence::Unwrap;
use parking_lot::Mutex;
use rtc::interceptor::{NackGeneratorBuilder, Registry, Slot};
use rtc::rtcp::payload_feedbacks::picture_loss_indication::PictureLossIndication;
use rtc::rtp_transceiver::rtp_sender::{
    RTCPFeedback, RTCRtpCodec, RTCRtpCodecParameters, RTCRtpHeaderExtensionCapability, RtpCodecKind,
};
use rtc::rtp_transceiver::{RTCRtpTransceiverDirection, RTCRtpTransceiverInit};
use rtc::shared::marshal::Marshal;
use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use webrtc::media_stream::track_remote::{TrackRemote, TrackRemoteEvent};
use webrtc::peer_connection::{
    MediaEngine, PeerConnection, PeerConnectionBuilder, PeerConnectionEventHandler, RTCIceCandidateInit,
    RTCIceGatheringState, RTCPeerConnectionState, RTCSessionDescription, SettingEngineBuilder, configure_rtcp_reports,
    configure_simulcast_extension_headers, configure_twcc_receiver_only,
};

/// Between two looks for missing packets; the crate's default of 100 ms is a visible freeze.
const NACK_EVERY: Duration = Duration::from_millis(20);
/// Asks for one packet before it is given up.
const NACKS_MAX: u16 = 10;
/// Between two looks at the round trip to a publisher.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Tracks that a publisher may send.
const TRACKS_MAX: u8 = 4;

/// A publisher's session, as `Media` holds it.
pub(crate) struct Publisher {
    pub(crate) connection: Arc<dyn PeerConnection>,
    pub(crate) stop: CancellationToken,
}

impl Publisher {
    /// Gives the connection candidates that the peer found later.
    pub(crate) async fn trickle(&self, candidates: Vec<(Option<String>, String)>) -> Result<(), MediaError> {
        for (mid, candidate) in candidates {
            let init = RTCIceCandidateInit {
                candidate,
                sdp_mid: mid,
                ..RTCIceCandidateInit::default()
            };
            self.connection
                .add_ice_candidate(init)
                .await
                .map_err(|_| MediaError::BadSdp("a candidate"))?;
        }
        Ok(())
    }
}

/// Asks the seller for keyframes; the gate is the track's.
struct PublisherSource {
    asks: mpsc::Sender<u8>,
}

impl Source for PublisherSource {
    fn keyframe(&self, track: u8) {
        // Full: an ask is on its way already.
        let _ = self.asks.try_send(track);
    }
}

/// What the tracks of one publication share.
struct Publication {
    media: Weak<Inner>,
    stage: Arc<Stage>,
    session: String,
    stream: String,
    number: u64,
    epoch: u32,
    formats: Vec<Format>,
    uplink: Arc<Uplink>,
    live: Mutex<Option<Arc<Live>>>,
    asks: mpsc::Sender<u8>,
    /// Whom to ask for a keyframe of a track.
    remotes: Mutex<HashMap<u8, (Arc<dyn TrackRemote>, u32)>>,
    stop: CancellationToken,
}

struct Handler {
    publication: Arc<Publication>,
    gathered: watch::Sender<bool>,
    state: watch::Sender<RTCPeerConnectionState>,
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
        let publication = self.publication.clone();
        tokio::spawn(async move {
            let stop = publication.stop.clone();
            tokio::select! {
                () = stop.cancelled() => {}
                () = publication.take_in(track) => {}
            }
        });
    }
}

impl Publication {
    async fn take_in(self: Arc<Publication>, remote: Arc<dyn TrackRemote>) {
        let mut taken: Option<(u32, Arc<Live>, Arc<Track>)> = None;
        let mut unwrap = Unwrap::default();
        while let Some(event) = remote.poll().await {
            let TrackRemoteEvent::OnRtpPacket(packet) = event else {
                continue;
            };
            let ssrc = packet.header.ssrc;
            if taken.is_none() {
                taken = self.first(&remote, ssrc, packet.header.payload_type).await;
            }
            let Some((held, live, track)) = &taken else { continue };
            if *held != ssrc {
                // Another simulcast layer: the first that came is the one that is carried.
                metrics::dropped("layer");
                continue;
            }
            let sequence = unwrap.extend(packet.header.sequence_number);
            let Ok(raw) = packet.marshal() else { continue };
            self.uplink.packet(track, &raw);
            metrics::packets_in(Way::Publisher, 1);
            self.stage.push(live, track, sequence, raw.freeze());
        }
    }

    /// The first packet of a track: the track joins the stream, and the first of all makes it live.
    async fn first(
        &self,
        remote: &Arc<dyn TrackRemote>,
        ssrc: u32,
        payload: u8,
    ) -> Option<(u32, Arc<Live>, Arc<Track>)> {
        let media = self.media.upgrade()?;
        let format = self.formats.iter().find(|f| f.payload_type == payload)?;
        let (live, track, first) = {
            let mut held = self.live.lock();
            let first = held.is_none();
            let live = held.get_or_insert_with(|| Arc::new(self.make_live())).clone();
            let number = live.tracks.load().len() as u8;
            if number >= TRACKS_MAX {
                return None;
            }
            let gap = media.options.keyframe_gap.as_millis() as u64;
            let ring = media.options.ring_packets;
            let track = Arc::new(Track::new(number, format.codec, format.fmtp.clone(), ring, gap));
            live.add(track.clone());
            (live, track, first)
        };
        self.remotes.lock().insert(track.number, (remote.clone(), ssrc));
        let current = Publishing {
            session: self.session.clone(),
            stop: self.stop.clone(),
            confirmed: false,
        };
        if first {
            let before = self.stage.publisher.lock().replace(current);
            self.stage.news.send_modify(|news| news.local = true);
            self.publish(&media, &live);
            if let Some(before) = before {
                tracing::info!(auction = %self.stage.auction, "a second publisher takes over");
                before.stop.cancel();
            }
            media
                .tell(StreamEvent::Up {
                    auction: self.stage.auction.clone(),
                    stream: self.stream.clone(),
                })
                .await;
        } else if self.is_current() {
            self.publish(&media, &live);
        }
        if format.codec.is_video() {
            self.stage.ask_keyframe(&live, &track);
        }
        Some((ssrc, live, track))
    }

    fn make_live(&self) -> Live {
        Live {
            id: self.stream.clone(),
            number: self.number,
            epoch: self.epoch,
            origin: true,
            tracks: ArcSwap::default(),
            source: Box::new(PublisherSource {
                asks: self.asks.clone(),
            }),
        }
    }

    fn publish(&self, media: &Inner, live: &Arc<Live>) {
        media.carrier.register(&self.stage, live);
        self.stage.set_live(Some(live.clone()));
    }

    fn is_current(&self) -> bool {
        self.stage
            .publisher
            .lock()
            .as_ref()
            .is_some_and(|p| p.session == self.session)
    }

    /// The publisher is gone.
    async fn end(&self) {
        self.stop.cancel();
        let current = {
            let mut publisher = self.stage.publisher.lock();
            let current = publisher.as_ref().is_some_and(|p| p.session == self.session);
            if current {
                *publisher = None;
            }
            current
        };
        self.stage.pins.fetch_sub(1, Ordering::AcqRel);
        metrics::publishers(-1.0);
        let Some(media) = self.media.upgrade() else { return };
        media.publishers.lock().remove(&self.session);
        if current {
            self.stage.clear_live(&self.stream);
            self.stage.news.send_modify(|news| news.local = false);
            media
                .tell(StreamEvent::Down {
                    auction: self.stage.auction.clone(),
                    stream: self.stream.clone(),
                })
                .await;
        }
    }
}

/// Watches over a publisher until it is gone.
async fn supervise(
    publication: Arc<Publication>,
    connection: Arc<dyn PeerConnection>,
    mut state: watch::Receiver<RTCPeerConnectionState>,
    mut asks: mpsc::Receiver<u8>,
    (grace, handshake): (Duration, Duration),
) {
    let mut deadline = Some(tokio::time::Instant::now() + handshake);
    let mut look = tokio::time::interval(LOOK_EVERY);
    loop {
        let expired = async {
            match deadline {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = publication.stop.cancelled() => break,
            () = expired => break,
            _ = look.tick() => {
                if let Some(took) = reports::round_trip(&connection).await {
                    publication.uplink.round_trip(took);
                }
            }
            changed = state.changed() => {
                if changed.is_err() {
                    break;
                }
                match *state.borrow_and_update() {
                    RTCPeerConnectionState::Connected => deadline = None,
                    RTCPeerConnectionState::Failed | RTCPeerConnectionState::Closed => break,
                    RTCPeerConnectionState::Disconnected => {
                        deadline = Some(tokio::time::Instant::now() + grace);
                    }
                    _ => {}
                }
            }
            Some(track) = asks.recv() => {
                let remote = publication.remotes.lock().get(&track).cloned();
                if let Some((remote, media_ssrc)) = remote {
                    metrics::keyframe_ask(Way::Publisher);
                    let ask = PictureLossIndication { sender_ssrc: 0, media_ssrc };
                    let _ = remote.write_rtcp(vec![Box::new(ask)]).await;
                }
            }
        }
    }
    publication.end().await;
    let _ = connection.close().await;
}

fn codec(codec: Codec, payload_type: u8, fmtp: &str) -> RTCRtpCodecParameters {
    let kind = if codec.is_video() { "video" } else { "audio" };
    let feedback = |typ: &str, parameter: &str| RTCPFeedback {
        typ: typ.into(),
        parameter: parameter.into(),
    };
    let rtcp_feedback = if codec.is_video() {
        vec![feedback("nack", ""), feedback("nack", "pli"), feedback("ccm", "fir")]
    } else {
        Vec::new()
    };
    RTCRtpCodecParameters {
        rtp_codec: RTCRtpCodec {
            mime_type: format!("{kind}/{}", codec.name()),
            clock_rate: codec.clock_rate(),
            channels: if codec.is_video() { 0 } else { 2 },
            sdp_fmtp_line: fmtp.into(),
            rtcp_feedback,
        },
        payload_type,
    }
}

fn engine() -> Result<MediaEngine, rtc::shared::error::Error> {
    let mut engine = MediaEngine::default();
    let h264 =
        |mode, profile| format!("level-asymmetry-allowed=1;packetization-mode={mode};profile-level-id={profile}");
    engine.register_codec(codec(Codec::Vp8, 96, ""), RtpCodecKind::Video)?;
    for (payload_type, mode, profile) in [
        (102, 1, "42e01f"),
        (103, 1, "42001f"),
        (104, 0, "42e01f"),
        (105, 1, "640032"),
        (106, 1, "4d001f"),
    ] {
        engine.register_codec(
            codec(Codec::H264, payload_type, &h264(mode, profile)),
            RtpCodecKind::Video,
        )?;
    }
    engine.register_codec(codec(Codec::Vp9, 98, "profile-id=0"), RtpCodecKind::Video)?;
    engine.register_codec(
        codec(Codec::Opus, 111, "minptime=10;useinbandfec=1"),
        RtpCodecKind::Audio,
    )?;
    Ok(engine)
}

fn unavailable(error: rtc::shared::error::Error) -> MediaError {
    MediaError::Unavailable(error.to_string())
}

async fn build(
    media: &Inner,
    handler: Arc<Handler>,
    uplink: &Arc<Uplink>,
) -> Result<Arc<dyn PeerConnection>, MediaError> {
    let options = &media.options;
    let mut engine = engine().map_err(unavailable)?;
    configure_simulcast_extension_headers(&mut engine).map_err(unavailable)?;
    for kind in [RtpCodecKind::Video, RtpCodecKind::Audio] {
        let capability = RTCRtpHeaderExtensionCapability { uri: ACT_URI.into() };
        engine
            .register_header_extension(capability, kind, None)
            .map_err(unavailable)?;
    }
    let nack = NackGeneratorBuilder::new()
        .with_size(1024)
        .with_interval(NACK_EVERY)
        .with_max_nacks_per_packet(NACKS_MAX)
        .build();
    let registry = Registry::new()
        .with(Slot::NackGenerator, nack)
        .with(reports::SLOT, Reports::new(uplink.clone()));
    let registry = configure_rtcp_reports(registry);
    let registry = configure_twcc_receiver_only(registry, &mut engine).map_err(unavailable)?;
    let settings = SettingEngineBuilder::new()
        // It is on by default, opens a multicast socket per connection, and fails where there is no multicast route.
        .with_multicast_dns_mode(rtc::ice::mdns::MulticastDnsMode::Disabled)
        .with_include_loopback_candidate(true)
        .with_ice_timeouts(
            Some(Duration::from_secs(2)),
            Some(options.publisher_grace * 2),
            Some(Duration::from_secs(1)),
        )
        .build();
    let connection = PeerConnectionBuilder::new()
        .with_media_engine(engine)
        .with_interceptor_registry(registry)
        .with_setting_engine(settings)
        .with_handler(handler)
        .with_udp_addrs(vec![format!("{}:0", host(options.ip))])
        .build()
        .await
        .map_err(unavailable)?;
    Ok(Arc::new(connection))
}

fn host(ip: std::net::IpAddr) -> String {
    match ip {
        std::net::IpAddr::V4(ip) => ip.to_string(),
        std::net::IpAddr::V6(ip) => format!("[{ip}]"),
    }
}

async fn negotiate(
    connection: &Arc<dyn PeerConnection>,
    offer: &str,
    kinds: &[RtpCodecKind],
    gathered: &mut watch::Receiver<bool>,
) -> Result<String, MediaError> {
    for kind in kinds {
        let init = RTCRtpTransceiverInit {
            direction: RTCRtpTransceiverDirection::Recvonly,
            ..RTCRtpTransceiverInit::default()
        };
        connection
            .add_transceiver_from_kind(*kind, Some(init))
            .await
            .map_err(unavailable)?;
    }
    let offer =
        RTCSessionDescription::offer(offer.to_string()).map_err(|_| MediaError::BadSdp("the offer can't be read"))?;
    connection.set_remote_description(offer).await.map_err(|error| {
        tracing::debug!(%error, "a publisher's offer is refused");
        MediaError::BadSdp("the offer can't be answered")
    })?;
    let answer = connection.create_answer(None).await.map_err(unavailable)?;
    connection.set_local_description(answer).await.map_err(unavailable)?;
    let patience = tokio::time::timeout(Duration::from_secs(3), gathered.wait_for(|done| *done));
    patience
        .await
        .map_err(|_| MediaError::Unavailable("no candidates".into()))?
        .ok();
    let local = connection.local_description().await;
    Ok(local.ok_or_else(|| MediaError::Unavailable("no answer".into()))?.sdp)
}

/// What the offer would send us, section by section.
fn kinds(offer: &Offer) -> Result<Vec<RtpCodecKind>, MediaError> {
    if !offer
        .sections
        .iter()
        .any(|section| section.sends && !section.formats.is_empty())
    {
        return Err(MediaError::NoCodec("the offer sends nothing that is carried"));
    }
    let kind = |section: &Section| match section.kind {
        Kind::Video => Some(RtpCodecKind::Video),
        Kind::Audio => Some(RtpCodecKind::Audio),
        Kind::Other => None,
    };
    Ok(offer
        .sections
        .iter()
        .filter_map(kind)
        .take(usize::from(TRACKS_MAX))
        .collect())
}

/// Takes a seller's offer for a stage, which the caller has pinned.
pub(crate) async fn publish(
    media: &Arc<Inner>,
    stage: Arc<Stage>,
    session: String,
    stream: String,
    offer: &str,
) -> Result<Answer, MediaError> {
    let parsed = Offer::parse(offer, media.options.sdp_max)?;
    let kinds = kinds(&parsed)?;
    let (asks, asked) = mpsc::channel(8);
    let publication = Arc::new(Publication {
        media: Arc::downgrade(media),
        stage,
        session: session.clone(),
        stream,
        number: rand::random(),
        epoch: media.epoch.fetch_add(1, Ordering::Relaxed),
        formats: parsed
            .sections
            .iter()
            .flat_map(|section| section.formats.clone())
            .collect(),
        uplink: Uplink::new(media.clock, offer),
        live: Mutex::new(None),
        asks,
        remotes: Mutex::default(),
        stop: media.stop.child_token(),
    });
    let (gathered, mut when_gathered) = watch::channel(false);
    let (state, states) = watch::channel(RTCPeerConnectionState::New);
    let handler = Arc::new(Handler {
        publication: publication.clone(),
        gathered,
        state,
    });
    let connection = build(media, handler, &publication.uplink).await?;
    let sdp = match negotiate(&connection, offer, &kinds, &mut when_gathered).await {
        Ok(sdp) => sdp,
        Err(error) => {
            let _ = connection.close().await;
            return Err(error);
        }
    };
    let publisher = Publisher {
        connection: connection.clone(),
        stop: publication.stop.clone(),
    };
    media.publishers.lock().insert(session.clone(), Arc::new(publisher));
    metrics::publishers(1.0);
    // From here on the pin is the publication's; its end takes it away.
    publication.stage.pins.fetch_add(1, Ordering::AcqRel);
    let times = (media.options.publisher_grace, media.options.handshake_max);
    media
        .tasks
        .spawn(supervise(publication, connection, states, asked, times));
    Ok(Answer { session, sdp })
}
