//! Pixels to features: one number a pixel, row by row, `(r << 16) | (g << 8) | b`; grey is the same byte three times.
//!
//! Both forms are plain loops over chunks of known size, which the compiler turns into vector code. All values up to
//! `0xFF_FF_FF` are exact in an `f32` (24 bits of mantissa).

use super::convert::Picture;

/// Writes one `f32` a pixel. When `out` and the picture differ in length, the shorter one decides.
pub fn pack_features(picture: &Picture, out: &mut [f32]) {
    if picture.grey {
        for (feature, &value) in out.iter_mut().zip(&picture.data) {
            *feature = grey(value) as f32;
        }
    } else {
        for (feature, pixel) in out.iter_mut().zip(picture.data.chunks_exact(3)) {
            *feature = rgb(pixel) as f32;
        }
    }
}

/// The same numbers as integers, for a request in JSON.
pub fn pack_integers(picture: &Picture, out: &mut Vec<u32>) {
    out.clear();
    if picture.grey {
        out.extend(picture.data.iter().map(|&value| grey(value) as u32));
    } else {
        out.extend(picture.data.chunks_exact(3).map(|pixel| rgb(pixel) as u32));
    }
}

// i32, because vector units convert signed integers to f32 in one instruction and unsigned ones in several.
#[inline]
fn rgb(pixel: &[u8]) -> i32 {
    i32::from(pixel[0]) << 16 | i32::from(pixel[1]) << 8 | i32::from(pixel[2])
}

#[inline]
fn grey(value: u8) -> i32 {
    i32::from(value) * 0x01_01_01
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(grey: bool, data: Vec<u8>) -> Picture {
        let width = if grey { data.len() } else { data.len() / 3 } as u32;
        Picture {
            width,
            height: 1,
            grey,
            data,
        }
    }

    #[test]
    fn a_colour_pixel_is_red_green_blue_from_the_top_byte_down() {
        let picture = picture(false, vec![0x12, 0x34, 0x56, 0xff, 0xff, 0xff, 0, 0, 1]);
        let mut features = [0.0; 3];
        pack_features(&picture, &mut features);
        assert_eq!(features, [0x12_34_56 as f32, 16_777_215.0, 1.0]);
        let mut integers = vec![7; 9];
        pack_integers(&picture, &mut integers);
        assert_eq!(integers, [0x12_34_56, 0xff_ff_ff, 1]);
    }

    #[test]
    fn a_grey_pixel_is_its_byte_three_times() {
        let picture = picture(true, vec![0, 1, 0x80, 0xff]);
        let mut features = [0.0; 4];
        pack_features(&picture, &mut features);
        assert_eq!(features, [0.0, 0x01_01_01 as f32, 0x80_80_80 as f32, 0xff_ff_ff as f32]);
        let mut integers = Vec::new();
        pack_integers(&picture, &mut integers);
        assert_eq!(integers, [0, 0x01_01_01, 0x80_80_80, 0xff_ff_ff]);
    }

    #[test]
    fn every_value_is_exact() {
        for value in (0..=0xff_ff_ffu32).step_by(257) {
            let bytes = value.to_be_bytes();
            let picture = picture(false, bytes[1..].to_vec());
            let mut feature = [0.0];
            pack_features(&picture, &mut feature);
            assert_eq!(feature[0] as u32, value);
        }
    }
}
