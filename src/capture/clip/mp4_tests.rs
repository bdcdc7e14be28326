use std::sync::Arc;

use super::super::frame::FrameMemory;
use super::super::testing::{Footage, H264_FILE, PlayedFile, jpeg, jpeg_clip, ms, written};
use super::*;

#[test]
fn a_clip_of_jpeg_pictures_can_be_played_and_has_its_length() {
    let (codec, file) = written(&jpeg_clip(uuid::Uuid::new_v4(), 30), &Haste::default());
    assert_eq!(Ok(codec), clip_codec());
    let expected = match codec {
        ClipCodec::H264 => "video/x-h264",
        ClipCodec::MotionJpeg => "image/jpeg",
    };
    assert_eq!(file.codec(), expected);
    assert_eq!(file.frames.len(), 30);
    assert!(file.duration.abs_diff(ms(3_000)) <= ms(100), "{:?}", file.duration);
}

#[test]
fn a_clip_in_haste_is_not_encoded_again() {
    let haste = Haste::default();
    haste.begin();
    let (codec, file) = written(&jpeg_clip(uuid::Uuid::new_v4(), 30), &haste);
    assert_eq!((codec, file.codec()), (ClipCodec::MotionJpeg, "image/jpeg"));
    assert_eq!(file.frames.len(), 30);
    assert!(file.duration.abs_diff(ms(3_000)) <= ms(10), "{:?}", file.duration);
}

/// The frames of the file, with a pause of two seconds after half of them.
fn h264_clip(pause: Duration) -> FinishedClip {
    let (source, footage, memory) = (
        PlayedFile::open(H264_FILE.as_ref()),
        Footage::new(),
        FrameMemory::default(),
    );
    let first = source.frames[0].dts_or_pts().unwrap();
    let frames = source.frames.iter().enumerate().map(|(index, buffer)| {
        let (pts, dts) = (buffer.pts().unwrap(), buffer.dts_or_pts().unwrap());
        let at = footage.begin + Duration::from(dts - first) + if index < 20 { ms(0) } else { pause };
        let show_after = (pts - dts).into();
        let is_key = !buffer.flags().contains(gst::BufferFlags::DELTA_UNIT);
        Arc::new(ClipFrame::new(
            buffer.copy(),
            source.caps.clone(),
            (at, show_after),
            is_key,
            &memory,
        ))
    });
    footage.clip(uuid::Uuid::new_v4(), frames.collect())
}

#[test]
fn h264_of_the_camera_is_stored_as_it_is() {
    let (codec, file) = written(&h264_clip(ms(0)), &Haste::default());
    assert_eq!((codec, file.codec()), (ClipCodec::H264, "video/x-h264"));
    let source = PlayedFile::open(H264_FILE.as_ref());
    assert_eq!(file.frames.len(), 40);
    assert!(file.duration.abs_diff(ms(4_000)) <= ms(10), "{:?}", file.duration);
    let differences = |frames: &[gst::Buffer]| -> Vec<_> {
        let first = frames[0].pts().unwrap();
        frames
            .iter()
            .map(|frame| frame.pts().unwrap().mseconds() as i64 - first.mseconds() as i64)
            .collect()
    };
    let (stored, wanted) = (differences(&file.frames), differences(&source.frames));
    assert!(
        stored.iter().zip(&wanted).all(|(a, b)| (a - b).abs() <= 1),
        "{stored:?} {wanted:?}"
    );
    for (stored, source) in file.frames.iter().zip(&source.frames) {
        assert!(
            *stored.map_readable().unwrap() == *source.map_readable().unwrap(),
            "the bytes are the same"
        );
    }
}

#[test]
fn a_pause_of_the_source_is_a_pause_in_the_clip() {
    let (_, file) = written(&h264_clip(ms(2_000)), &Haste::default());
    assert!(file.duration.abs_diff(ms(6_000)) <= ms(10), "{:?}", file.duration);
    assert!((file.fps() - 40.0 / 6.0).abs() < 0.1);
}

#[test]
fn a_full_disk_and_a_clip_without_frames_are_errors() {
    let full = File::options().write(true).open("/dev/full").unwrap();
    let error = write_mp4(&jpeg_clip(uuid::Uuid::new_v4(), 30), &full, &Haste::default()).unwrap_err();
    assert!(
        matches!(error, VideoError::Pipeline(_) | VideoError::File(_)),
        "{error:?}"
    );
    let file = tempfile::tempfile().unwrap();
    let error = write_mp4(&jpeg_clip(uuid::Uuid::new_v4(), 0), &file, &Haste::default()).unwrap_err();
    assert!(matches!(error, VideoError::NoFrames), "{error:?}");
}

#[test]
fn damaged_frames_are_an_error_and_not_an_endless_wait() {
    let footage = Footage::new();
    let frames = (0..5).map(|n| footage.frame_of("video/x-h264,stream-format=avc,alignment=au", n * 100, true, 10));
    let clip = footage.clip(uuid::Uuid::new_v4(), frames.collect());
    // Without `codec_data` there is no description of the stream, so `mp4mux` refuses it.
    assert!(write_mp4(&clip, &tempfile::tempfile().unwrap(), &Haste::default()).is_err());
}

/// A clip of JPEG pictures of 32 x 24, with these among them.
fn jpeg_clip_with(others: &[(usize, Vec<u8>)]) -> FinishedClip {
    let footage = Footage::new();
    let whole = jpeg_clip(uuid::Uuid::new_v4(), 20);
    let frames = whole.frames.iter().enumerate().map(|(n, frame)| {
        let other = others.iter().find(|(at, _)| *at == n).map(|(_, bytes)| bytes.clone());
        let bytes = other.unwrap_or_else(|| frame.buffer.map_readable().unwrap().to_vec());
        footage.frame_with("image/jpeg", n as u64 * 100, true, bytes)
    });
    footage.clip(uuid::Uuid::new_v4(), frames.collect())
}

#[test]
fn damaged_pictures_of_a_camera_do_not_cost_the_clip() {
    for at in [0, 7, 19] {
        let cut: Vec<u8> = jpeg(64, 48, 9).into_iter().take(40).collect();
        let clip = jpeg_clip_with(&[(at, cut)]);
        let (codec, file) = written(&clip, &Haste::default());
        assert!(
            file.frames.len() >= 18,
            "{at}: {} frames as {codec:?}",
            file.frames.len()
        );
    }
}

#[test]
fn a_camera_that_changes_its_size_does_not_cost_the_clip() {
    let others: Vec<_> = (10..20).map(|at| (at, jpeg(64, 48, 200))).collect();
    let (_, file) = written(&jpeg_clip_with(&others), &Haste::default());
    assert_eq!(file.frames.len(), 20);
}
