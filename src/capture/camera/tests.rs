//! The selection from the caps of real devices (`gst-device-monitor-1.0 Video/Source`, shortened).

use super::*;

const C920: &str = "video/x-raw, format=YUY2, width=2304, height=1536, framerate=2/1; \
    video/x-raw, format=YUY2, width=1920, height=1080, framerate=5/1; \
    video/x-raw, format=YUY2, width=1280, height=720, framerate={ (fraction)10/1, (fraction)5/1 }; \
    video/x-raw, format=YUY2, width=800, height=600, framerate={ (fraction)24/1, (fraction)5/1 }; \
    video/x-raw, format=YUY2, width=640, height=480, framerate={ (fraction)30/1, (fraction)5/1 }; \
    video/x-raw, format=YUY2, width=640, height=360, framerate=30/1; \
    video/x-raw, format=YUY2, width=160, height=90, framerate=30/1; \
    image/jpeg, width=1920, height=1080, framerate=30/1; image/jpeg, width=1280, height=720, framerate=30/1; \
    image/jpeg, width=1024, height=576, framerate=30/1; image/jpeg, width=640, height=480, framerate=30/1; \
    video/x-h264, stream-format=byte-stream, alignment=au, width=1920, height=1080";

/// A cheap camera that delivers only JPEG above 640 x 480.
const NO_NAME: &str = "image/jpeg, width=1280, height=720, framerate=30/1; image/jpeg, width=640, height=480, framerate=30/1; \
    video/x-raw, format=YUY2, width=640, height=480, framerate=30/1; video/x-raw, format=YUY2, width=320, height=240, framerate=30/1";

const BAYER: &str = "video/x-bayer, format=rggb, width=3264, height=2464, framerate=21/1; \
    video/x-bayer, format=rggb, width=1280, height=720, framerate=60/1";

/// The sensor imx219 with libcamera 0.2 on a Raspberry Pi 5.
const LIBCAMERA: &str = "video/x-raw, format={ (string)NV21, (string)NV12, (string)YUY2, (string)RGB }, width=[ 32, 3280, 2 ], height=[ 32, 2464, 2 ]; \
    video/x-raw, format=NV12, width=640, height=480; video/x-raw, format=NV12, width=1640, height=1232";

/// The capture driver of a Raspberry Pi with `start_x` (camera firmware).
const MMAL: &str = "video/x-raw, format={ (string)YUY2, (string)I420, (string)RGB }, width=[ 32, 3280, 2 ], height=[ 32, 2464, 2 ], framerate=[ 1/1, 90/1 ]; \
    image/jpeg, width=[ 32, 3280, 2 ], height=[ 32, 2464, 2 ]";

/// A frame grabber on a newer GStreamer, which offers DMA buffers first.
const GRABBER: &str = "video/x-raw(memory:DMABuf), format=DMA_DRM, drm-format=NV12, width=1920, height=1080; \
    video/x-raw, format=NV12, width=1920, height=1080; video/x-raw, format=BGR, width=1920, height=1080";

fn device(name: &str, path: &str, source: &str, caps: &str) -> Device {
    crate::capture::init().unwrap();
    Device {
        name: name.to_owned(),
        path: (!path.is_empty()).then(|| path.to_owned()),
        source: source.to_owned(),
        caps: caps.parse().unwrap(),
        is_monitor: false,
    }
}

fn v4l2(name: &str, node: u32, caps: &str) -> Device {
    device(
        name,
        &format!("/dev/video{node}"),
        &format!("v4l2src device=/dev/video{node}"),
        caps,
    )
}

fn desktop() -> Cameras {
    let devices = vec![v4l2("HD Pro Webcam C920", 0, C920), v4l2("USB Camera", 2, NO_NAME)];
    Cameras::from_devices(devices, &|name| name == "v4l2src")
}

fn chosen(cameras: &Cameras, wanted: Option<&str>, model: (u32, u32)) -> String {
    cameras
        .select(wanted, MinimumSize::for_model(model), None)
        .unwrap()
        .launch_line()
}

#[test]
fn the_nearest_size_at_or_above_the_model_is_taken_raw_before_jpeg() {
    for (model, caps) in [
        ((96, 96), "video/x-raw,format=YUY2,width=640,height=480"),
        ((320, 320), "video/x-raw,format=YUY2,width=640,height=480"),
        ((640, 640), "video/x-raw,format=YUY2,width=1280,height=720"),
        ((800, 600), "video/x-raw,format=YUY2,width=800,height=600"),
        ((1000, 500), "image/jpeg,width=1024,height=576"),
        ((1920, 1080), "video/x-raw,format=YUY2,width=1920,height=1080"),
        ((2000, 1000), "video/x-raw,format=YUY2,width=2304,height=1536"),
    ] {
        let line = chosen(&desktop(), None, model);
        assert_eq!(line, format!("v4l2src device=/dev/video0 ! {caps}"), "{model:?}");
    }
    let line = chosen(&desktop(), Some("USB Camera"), (500, 500));
    assert_eq!(line, "v4l2src device=/dev/video2 ! image/jpeg,width=1280,height=720");
}

#[test]
fn a_model_larger_than_every_mode_gets_the_largest_and_a_warning() {
    let minimum = MinimumSize::for_model((3000, 3000));
    let selected = desktop().select(None, minimum, None).unwrap();
    assert_eq!((selected.mode.width, selected.mode.height), (2304, 1536));
    assert!(
        selected.warnings[0].contains("smaller than the wanted 3000 x 3000"),
        "{selected:?}"
    );
}

#[test]
fn a_forced_resolution_may_be_smaller_than_usual() {
    let minimum = MinimumSize { width: 160, height: 90 };
    let selected = desktop().select(None, minimum, None).unwrap();
    assert_eq!(
        selected.launch_line(),
        "v4l2src device=/dev/video0 ! video/x-raw,format=YUY2,width=160,height=90"
    );
}

#[test]
fn a_colour_format_limits_the_selection_where_the_camera_has_it() {
    let minimum = MinimumSize::for_model((96, 96));
    for (format, expected, warnings) in [
        ("MJPG", "image/jpeg,width=640,height=480", 0),
        ("yuyv", "video/x-raw,format=YUY2,width=640,height=480", 0),
        ("RGB", "video/x-raw,format=YUY2,width=640,height=480", 1),
    ] {
        let selected = desktop().select(None, minimum, Some(format)).unwrap();
        assert_eq!(
            (selected.mode.caps().as_str(), selected.warnings.len()),
            (expected, warnings),
            "{format}"
        );
    }
}

#[test]
fn a_camera_that_is_not_there_is_an_error_that_lists_the_others() {
    let text = desktop()
        .select(Some("Brio"), MinimumSize::for_model((96, 96)), None)
        .unwrap_err()
        .to_string();
    assert!(
        text.starts_with("there is no camera \"Brio\"; found: HD Pro Webcam C920 (/dev/video0); USB Camera (/dev/video2); plug one in"),
        "{text}"
    );
    let none = Cameras::from_devices(Vec::new(), &|_| true);
    let text = none
        .select(None, MinimumSize::for_model((96, 96)), None)
        .unwrap_err()
        .to_string();
    assert!(
        text.starts_with("there is no camera; none was found; plug one in"),
        "{text}"
    );
}

#[test]
fn the_csi_camera_of_a_jetson_is_opened_by_nvarguscamerasrc() {
    let devices = || {
        vec![
            v4l2("vi-output, imx219 9-0010", 0, BAYER),
            v4l2("vi-output, imx219 10-0010", 1, BAYER),
            v4l2("HD Pro Webcam C920", 2, C920),
        ]
    };
    let jetson = Cameras::from_devices(devices(), &|_| true);
    assert_eq!(
        chosen(&jetson, None, (320, 320)),
        "nvarguscamerasrc sensor-id=0 ! video/x-raw(memory:NVMM),width=1280,height=720"
    );
    assert_eq!(
        chosen(&jetson, Some("/dev/video1"), (1200, 800)),
        "nvarguscamerasrc sensor-id=1 ! video/x-raw(memory:NVMM),width=1920,height=1080"
    );
    assert_eq!(jetson.descriptions()[1], "CSI camera imx219 10-0010 (/dev/video1)");
    let without = Cameras::from_devices(devices(), &|name| name != "nvarguscamerasrc");
    assert!(chosen(&without, None, (96, 96)).starts_with("v4l2src device=/dev/video2 "));
    assert!(
        without.descriptions()[1].contains("nvidia-l4t-gstreamer"),
        "{:?}",
        without.descriptions()
    );
}

#[test]
fn the_camera_of_a_raspberry_pi_is_opened_by_libcamerasrc() {
    let name = "/base/axi/pcie@120000/rp1/i2c@88000/imx219@10";
    let source = format!("libcamerasrc camera-name={name}");
    let parts = || {
        vec![
            v4l2("rp1-cfe", 0, BAYER),
            v4l2(
                "pispbe",
                20,
                "video/x-raw, format=NV12, width=[ 32, 4096, 2 ], height=[ 32, 4096, 2 ]",
            ),
            v4l2("HD Pro Webcam C920", 8, C920),
        ]
    };
    let mut devices = parts();
    devices.push(device(name, "", &source, LIBCAMERA));
    devices.push(device(
        "usb@1",
        "",
        "libcamerasrc camera-name=/base/usb@1/uvc",
        LIBCAMERA,
    ));
    let cameras = Cameras::from_devices(devices, &|_| true);
    assert_eq!(
        chosen(&cameras, None, (320, 320)),
        format!("{source} ! video/x-raw,format=NV12,width=640,height=480")
    );
    assert_eq!(
        chosen(&cameras, None, (801, 600)),
        format!("{source} ! video/x-raw,format=NV12,width=802,height=600")
    );
    assert_eq!(cameras.descriptions().len(), 2, "{:?}", cameras.descriptions());
    let old = Cameras::from_devices(parts(), &|_| true);
    assert_eq!(
        chosen(&old, None, (96, 96)),
        "libcamerasrc ! video/x-raw,format=NV12,width=640,height=480"
    );
    let without = Cameras::from_devices(parts(), &|name| name == "v4l2src");
    assert!(
        without.descriptions()[1].contains("gstreamer1.0-libcamera"),
        "{:?}",
        without.descriptions()
    );
}

#[test]
fn a_camera_with_free_sizes_delivers_exactly_the_minimum_size() {
    let firmware = Cameras::from_devices(vec![v4l2("mmal service 16.1", 0, MMAL)], &|_| true);
    assert_eq!(
        chosen(&firmware, None, (700, 700)),
        "v4l2src device=/dev/video0 ! video/x-raw,format=I420,width=700,height=700"
    );
}

#[test]
fn a_mode_that_cannot_be_read_is_never_selected() {
    let grabber = Cameras::from_devices(vec![v4l2("UltraStudio", 0, GRABBER)], &|_| true);
    assert_eq!(
        chosen(&grabber, None, (96, 96)),
        "v4l2src device=/dev/video0 ! video/x-raw,format=NV12,width=1920,height=1080"
    );
    let h264 = Cameras::from_devices(
        vec![v4l2("Encoder", 0, "video/x-h264, width=1920, height=1080")],
        &|_| true,
    );
    let text = h264
        .select(None, MinimumSize::for_model((96, 96)), None)
        .unwrap_err()
        .to_string();
    assert!(
        text.contains("Encoder (/dev/video0), which delivers neither raw pictures nor JPEG"),
        "{text}"
    );
}
