//! The synthetic seller: publishes a clip in a loop by WHIP until it is told to stop.

use super::connect::{Connection, backoff, failed, opus, vp8};
use super::ivf::Clip;
use super::{CLIP, MediaClientError, OnPicture, Signal};
use crate::media::vp8::packetise;
use bytes::Bytes;
use rtc::media_stream::MediaStreamTrack;
use rtc::rtp;
use rtc::rtp_transceiver::PayloadType;
use rtc::rtp_transceiver::rtp_sender::{RTCRtpCodec, RTCRtpCodingParameters, RTCRtpEncodingParameters, RtpCodecKind};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use webrtc::media_stream::track_local::TrackLocal;
use webrtc::media_stream::track_local::static_rtp::TrackLocalStaticRTP;
use webrtc::rtp_transceiver::RtpSender;

/// 20 ms of stereo silence in Opus.
const SILENCE: [u8; 3] = [0xf8, 0xff, 0xfe];
const SILENCE_EVERY: Duration = Duration::from_millis(20);
const SILENCE_TICKS: u32 = 960;
/// A node that takes a stream in reports on it several times a second; one that is silent this long is gone: the page's
/// patience.
const DEAD: Duration = Duration::from_millis(2_500);

/// What a synthetic seller sends.
#[derive(Clone, Debug)]
pub struct PublisherOptions {
    /// The clip, a VP8 IVF file; ours by default.
    pub clip: Bytes,
    /// A silent Opus track beside it.
    pub audio: bool,
    /// Address that the connection binds to.
    pub bind: IpAddr,
    /// Told of each picture as it is sent; of one whose sending failed, again when it is sent anew.
    pub on_picture: Option<OnPicture>,
}

impl Default for PublisherOptions {
    fn default() -> PublisherOptions {
        PublisherOptions {
            clip: Bytes::from_static(CLIP),
            audio: true,
            bind: IpAddr::V4(Ipv4Addr::LOCALHOST),
            on_picture: None,
        }
    }
}

/// A running synthetic seller.
pub struct Publisher {
    stop: CancellationToken,
    quiet: Arc<AtomicBool>,
    sent: watch::Receiver<u64>,
    task: tokio::task::JoinHandle<()>,
}

impl Publisher {
    /// Starts to publish, and keeps at it over lost connections.
    pub fn start(options: PublisherOptions, signal: Arc<dyn Signal>) -> Result<Publisher, MediaClientError> {
        let clip = Clip::parse(&options.clip)?;
        let stop = CancellationToken::new();
        let (counter, sent) = watch::channel(0);
        let quiet = Arc::new(AtomicBool::new(false));
        let run = Run {
            options,
            clip,
            signal,
            counter,
            quiet: quiet.clone(),
            stop: stop.clone(),
        };
        Ok(Publisher {
            stop,
            quiet,
            sent,
            task: tokio::spawn(run.keep_at_it()),
        })
    }

    /// Pictures sent so far, as they are sent.
    pub fn sent(&self) -> watch::Receiver<u64> {
        self.sent.clone()
    }

    /// Ends the publication at the node, and waits until that is done.
    pub async fn stop(self) {
        self.stop.cancel();
        let _ = self.task.await;
    }

    /// Leaves without ending the session at the node: its connection closes, and no DELETE is sent.
    pub async fn leave(self) {
        self.quiet.store(true, Ordering::Relaxed);
        self.stop().await;
    }
}

struct Run {
    options: PublisherOptions,
    clip: Clip,
    signal: Arc<dyn Signal>,
    counter: watch::Sender<u64>,
    quiet: Arc<AtomicBool>,
    stop: CancellationToken,
}

/// One outgoing track.
struct Out {
    track: Arc<TrackLocalStaticRTP>,
    sender: Arc<dyn RtpSender>,
    ssrc: u32,
    payload_type: PayloadType,
    sequence: u16,
    timestamp: u32,
}

impl Out {
    async fn add(connection: &Connection, kind: RtpCodecKind, codec: RTCRtpCodec) -> Result<Out, MediaClientError> {
        let ssrc = rand::random();
        let name = if kind == RtpCodecKind::Video { "video" } else { "audio" };
        let encoding = RTCRtpEncodingParameters {
            rtp_coding_parameters: RTCRtpCodingParameters {
                ssrc: Some(ssrc),
                ..RTCRtpCodingParameters::default()
            },
            codec,
            ..RTCRtpEncodingParameters::default()
        };
        let track = MediaStreamTrack::new("seller".into(), name.into(), name.into(), kind, vec![encoding]);
        let track = Arc::new(TrackLocalStaticRTP::new(track));
        let sender = connection.peer.add_track(track.clone()).await.map_err(failed)?;
        Ok(Out {
            track,
            sender,
            ssrc,
            payload_type: 0,
            sequence: rand::random(),
            timestamp: rand::random(),
        })
    }

    /// The payload type is known once the answer is there.
    async fn negotiated(&mut self) -> Result<(), MediaClientError> {
        let parameters = self.sender.get_parameters().await.map_err(failed)?;
        let codec = parameters.rtp_parameters.codecs.first();
        self.payload_type = codec
            .ok_or(MediaClientError::WebRtc("no codec in common".into()))?
            .payload_type;
        Ok(())
    }

    async fn send(&mut self, payload: Bytes, marker: bool) -> Result<(), MediaClientError> {
        let header = rtp::Header {
            version: 2,
            marker,
            payload_type: self.payload_type,
            sequence_number: self.sequence,
            timestamp: self.timestamp,
            ssrc: self.ssrc,
            ..rtp::Header::default()
        };
        self.sequence = self.sequence.wrapping_add(1);
        self.track
            .write_rtp(rtp::Packet { header, payload })
            .await
            .map_err(failed)
    }
}

impl Run {
    async fn keep_at_it(self) {
        let mut tries = 0;
        while !self.stop.is_cancelled() {
            let before = *self.counter.borrow();
            if let Err(error) = self.once().await {
                tracing::debug!(%error, "a publication ended");
            }
            tries = if *self.counter.borrow() > before { 0 } else { tries + 1 };
            tokio::select! {
                () = self.stop.cancelled() => {}
                () = tokio::time::sleep(backoff(tries)) => {}
            }
        }
    }

    async fn once(&self) -> Result<(), MediaClientError> {
        let mut connection = Connection::build(self.options.bind).await?;
        let result = self.publish(&mut connection).await;
        let signal = (!self.quiet.load(Ordering::Relaxed)).then(|| self.signal.clone());
        connection.close(signal, result.is_ok()).await;
        result
    }

    async fn publish(&self, connection: &mut Connection) -> Result<(), MediaClientError> {
        let mut video = Out::add(connection, RtpCodecKind::Video, vp8().rtp_codec).await?;
        let mut audio = match self.options.audio {
            true => Some(Out::add(connection, RtpCodecKind::Audio, opus().rtp_codec).await?),
            false => None,
        };
        tokio::select! {
            () = self.stop.cancelled() => return Ok(()),
            opened = connection.open(self.signal.as_ref()) => opened?,
        }
        video.negotiated().await?;
        if let Some(audio) = &mut audio {
            audio.negotiated().await?;
        }
        let (lost, silent) = (connection.lost(), connection.silent(DEAD));
        let sound = async {
            match &mut audio {
                Some(audio) => self.silence(audio).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.stop.cancelled() => Ok(()),
            () = lost => Err(MediaClientError::WebRtc("the connection was lost".into())),
            () = silent => {
                self.signal.left();
                Err(MediaClientError::WebRtc("the node fell silent".into()))
            }
            ended = self.pictures(&mut video) => ended,
            ended = sound => ended,
        }
    }

    async fn pictures(&self, video: &mut Out) -> Result<(), MediaClientError> {
        let (rate, scale) = self.clip.rate;
        let mut pace = tokio::time::interval(Duration::from_secs_f64(f64::from(scale) / f64::from(rate)));
        let ticks = 90_000 * scale / rate;
        loop {
            for frame in &self.clip.frames {
                pace.tick().await;
                let picture = *self.counter.borrow() as u16;
                let payloads = packetise(frame, picture);
                if let Some(tell) = &self.options.on_picture {
                    tell.tell(Some(picture & 0x7fff), frame.first().is_some_and(|tag| tag & 1 == 0));
                }
                let last = payloads.len() - 1;
                for (index, payload) in payloads.into_iter().enumerate() {
                    video.send(payload, index == last).await?;
                }
                video.timestamp = video.timestamp.wrapping_add(ticks);
                self.counter.send_modify(|sent| *sent += 1);
            }
        }
    }

    async fn silence(&self, audio: &mut Out) -> Result<(), MediaClientError> {
        let mut pace = tokio::time::interval(SILENCE_EVERY);
        loop {
            pace.tick().await;
            audio.send(Bytes::from_static(&SILENCE), false).await?;
            audio.timestamp = audio.timestamp.wrapping_add(SILENCE_TICKS);
        }
    }
}
