//! IVF, the simplest container there is: a header, then frames with their length and time.

use super::MediaClientError;
use bytes::Bytes;

/// A clip in memory.
#[derive(Clone, Debug)]
pub struct Clip {
    /// Frames, in order.
    pub frames: Vec<Bytes>,
    /// Frames per second, as a ratio.
    pub rate: (u32, u32),
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes
        .get(at..at + 4)
        .and_then(|b| b.try_into().ok())
        .map(u32::from_le_bytes)
}

impl Clip {
    /// Reads a VP8 IVF file.
    pub fn parse(file: &Bytes) -> Result<Clip, MediaClientError> {
        let bad = MediaClientError::BadClip;
        if file.get(..4) != Some(b"DKIF") || file.get(8..12) != Some(b"VP80") {
            return Err(bad("it is no VP8 IVF file"));
        }
        let rate = (u32_at(file, 16).unwrap_or(0), u32_at(file, 20).unwrap_or(0));
        if rate.0 == 0 || rate.1 == 0 || rate.0 / rate.1 > 240 {
            return Err(bad("its frame rate"));
        }
        let mut frames = Vec::new();
        let mut at = 32;
        while at < file.len() {
            let length = u32_at(file, at).ok_or(bad("a frame's header is cut"))? as usize;
            let end = at.saturating_add(12).saturating_add(length);
            if end > file.len() || length == 0 {
                return Err(bad("a frame is cut"));
            }
            frames.push(file.slice(at + 12..end));
            at = end;
        }
        if frames.is_empty() {
            return Err(bad("no frame"));
        }
        Ok(Clip { frames, rate })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::media::CLIP;

    #[test]
    fn our_clip_is_what_it_says() {
        let clip = Clip::parse(&Bytes::from_static(CLIP)).unwrap();
        assert_eq!((clip.frames.len(), clip.rate), (160, (20, 1)));
        // The frame tag's lowest bit is 0 for a keyframe: one each second.
        let keyframes: Vec<usize> = (0..160).filter(|n| clip.frames[*n][0] & 1 == 0).collect();
        assert_eq!(keyframes, (0..8).map(|n| n * 20).collect::<Vec<_>>());
        assert!(CLIP.len() <= 1 << 20);
    }

    #[test]
    fn cut_files_are_refused() {
        for end in [0, 3, 31, 40, 100, CLIP.len() - 1] {
            assert!(Clip::parse(&Bytes::from_static(&CLIP[..end])).is_err(), "cut to {end}");
        }
    }
}
