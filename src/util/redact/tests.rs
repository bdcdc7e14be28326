use proptest::prelude::*;

use super::*;

#[test]
fn user_info_in_urls_is_hidden_and_scheme_user_and_host_are_not() {
    for (text, shown) in [
        ("mqtt://me:se@cr/et@host:1883", "mqtt://me:***@host:1883"),
        ("mqtts://host:8883/a", "mqtts://host:8883/a"),
        ("https://c2VjcmV0@host/x", "https://***@host/x"),
        (
            "rtspsrc:location=rtsp://u:p@10.0.0.5:8554/cam:latency=0",
            "rtspsrc:location=rtsp://u:***@10.0.0.5:8554/cam:latency=0",
        ),
        (
            "a rtsp://u:p@h/x ! b http://v:q@i",
            "a rtsp://u:***@h/x ! b http://v:***@i",
        ),
        (
            "a:location=rtsp://u:p@h/x:!:b:location=rtmp://v:q@i/y",
            "a:location=rtsp://u:***@h/x:!:b:location=rtmp://v:***@i/y",
        ),
        (
            "a:location=rtsp://h/x:!:b:location=rtmp://v:q@i/y",
            "a:location=rtsp://h/x:!:b:location=rtmp://v:***@i/y",
        ),
        ("a:location=rtsp://u:p:!:q@h/x:!:b", "a:location=rtsp://u:***@h/x:!:b"),
        (
            "rtsp://admin:Hun ter2@10.0.0.5/cam ! x",
            "rtsp://admin:***@10.0.0.5/cam ! x",
        ),
        (
            "location=\"rtsp://u:a b@c d@h/x\" y=1",
            "location=\"rtsp://u:***@h/x\" y=1",
        ),
        (
            "location=u:Hunter#2@10.0.0.5:554/cam",
            "location=u:***@10.0.0.5:554/cam",
        ),
        (
            "camera-name=/base/soc/i2c0mux/i2c@1/imx219@10",
            "camera-name=/base/soc/i2c0mux/i2c@1/imx219@10",
        ),
        ("rtsp://h:554/a:b@c", "rtsp://h:***@c"),
        ("location=rtsp//admin:Hunter2@camera", "location=rtsp//admin:***@camera"),
        ("location=u:a//b@10.0.0.5", "location=u:***@10.0.0.5"),
    ] {
        assert_eq!(credentials(text), shown);
    }
    for password in [
        "Hunter2#x",
        "a/b",
        "a:b",
        "a?b=c",
        "a!b",
        "a@b",
        "latency=0",
        "\"q'",
        "a\\b",
        "::",
        "://",
        "%41&",
    ] {
        let text = format!("rtspsrc:location=rtsp://admin:{password}@10.0.0.5:554/cam:latency=0:!:decodebin");
        let shown = "rtspsrc:location=rtsp://admin:***@10.0.0.5:554/cam:latency=0:!:decodebin";
        assert_eq!(credentials(&text), shown, "{password}");
    }
}

#[test]
fn an_unusable_value_may_be_a_url_without_its_scheme() {
    assert_eq!(refused("mqtt://me:se@cret@host:1883"), "mqtt://me:***@host:1883");
    assert_eq!(refused("me:se@cret@host:1883"), "***@host:1883");
}

#[test]
fn queries_of_urls_are_hidden() {
    for (text, shown) in [
        (
            "https://b.s3.amazonaws.com/k?X-Amz-Signature=abc&X-Amz-Security-Token=d failed",
            "https://b.s3.amazonaws.com/k?*** failed",
        ),
        ("wss://h/mqtt?token=Hunter2", "wss://h/mqtt?***"),
        (
            "souphttpsrc location=\"http://h/x?sig=a%3D\" ! y",
            "souphttpsrc location=\"http://h/x?***\" ! y",
        ),
        (
            "location=http://h/x?a=b:c:latency=200:!:y",
            "location=http://h/x?***:latency=200:!:y",
        ),
        ("/mqtt?token=abc", "/mqtt?***"),
        ("http://h:80/x?a@b ! y", "http://h:*** ! y"),
        ("is it there? yes", "is it there? yes"),
    ] {
        assert_eq!(credentials(text), shown);
    }
}

#[test]
fn values_with_secret_names_are_hidden() {
    for (text, shown) in [
        (
            "rtspsrc user-id=me user-pw=hush ! kvssink secret-key=\"a b\" stream-name=s",
            "rtspsrc user-id=me user-pw=*** ! kvssink secret-key=*** stream-name=s",
        ),
        (
            "kvssink:access-key=AK:storage-size=5",
            "kvssink:access-key=***:storage-size=5",
        ),
        (
            "kvssink access-key=\"x y\" secret-key='q' z",
            "kvssink access-key=*** secret-key=*** z",
        ),
        ("a user-pw = \"a b C\" b", "a user-pw = *** b"),
        ("a user-pw=secret b", "a user-pw=*** b"),
        ("a user-pw=se:cret:!:b", "a user-pw=***:!:b"),
        ("a user-pw:secret:!:b", "a user-pw:***:!:b"),
        ("a user-pw secret ! b", "a user-pw *** ! b"),
        (
            "s extra-headers=\"a,Authorization=(string)C\" x=1",
            "s extra-headers=*** x=1",
        ),
        (
            "s extra-headers=\"a,Authorization=(string)\\\"Bearer C\\\"\" x=1",
            "s extra-headers=*** x=1",
        ),
        (
            "s extra-headers=a,X-My=(string)\"Bearer C\" x=1",
            "s extra-headers=*** x=1",
        ),
        ("s extra-headers=a, X-My=(string)C x=1", "s extra-headers=*** x=1"),
        ("Authorization: Bearer abc def", "Authorization: *** def"),
        ("Authorization=(string)Basic abc", "Authorization=***"),
        ("s cookies=\"a=b;c=d\" x=1", "s cookies=*** x=1"),
        ("s cookies={ \"a=b\", \"c=d\" } x=1", "s cookies=*** x=1"),
        (
            "rtmpsink location=\"rtmp://h/app/x live=1 pubUser=u pubPasswd=p\" y",
            "rtmpsink location=\"rtmp://h/app/*** live=1 pubUser=u pubPasswd=***\" y",
        ),
        (
            "{\"ei_api_key\": \"hush\", \"a\": 1}",
            "{\"ei_api_key\": ***, \"a\": 1}",
        ),
        ("--api-key hush --silent", "--api-key *** --silent"),
        ("--api-key=hush --silent", "--api-key=*** --silent"),
        ("user-pw=\"never closed ! b", "user-pw=***"),
        ("x264enc pass=qual key-int-max=30", "x264enc pass=qual key-int-max=30"),
        ("srtsrc passphrase=a\\ b x=1", "srtsrc passphrase=*** x=1"),
        (
            "arn:aws:secretsmanager:eu-west-1:1:secret:EI_API_KEY-AbCdEf",
            "arn:aws:secretsmanager:eu-west-1:1:secret:EI_API_KEY-AbCdEf",
        ),
        (
            "the secret EI_API_KEY has no key \"a\": add the key",
            "the secret EI_API_KEY has no key \"a\": add the key",
        ),
    ] {
        assert_eq!(credentials(text), shown);
        assert_eq!(credentials(shown), shown, "a second time");
    }
}

#[test]
fn stream_keys_cut_and_encoded_uris_and_tokens_of_services_are_hidden() {
    for (text, shown) in [
        (
            "rtmpsink location=rtmp://a.rtmp.youtube.com/live2/Hunter2-x",
            "rtmpsink location=rtmp://a.rtmp.youtube.com/live2/***",
        ),
        (
            "rtmp2sink:location=rtmps://h:443/rtmp/Hunter2:!:x",
            "rtmp2sink:location=rtmps://h:443/rtmp/***:!:x",
        ),
        ("no element in rtsp://admin:Hunter2", "no element in rtsp://admin:***"),
        ("location=rtsp:admin:Hunter2@h", "location=rtsp:***@h"),
        ("location=//admin:Hunter2@camera/x", "location=//admin:***@camera/x"),
        ("location=admin:Hunter2@camera ! y", "location=admin:***@camera ! y"),
        ("rtsp%3A%2F%2Fu%3AHunter2%40h", "rtsp%3A%2F%2F***%40h"),
        ("Cookie: a=Hunter2; b=Hunter2\nHost: h", "Cookie: ***\nHost: h"),
        ("the key AKIAHUNTER2HUNTER2XX is refused", "the key *** is refused"),
        ("the password 'Hunter2' was refused", "the password *** was refused"),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJIIn0.Hunter2 x", "*** x"),
        ("ghp_Hunter2Hunter2Hunter2 x", "*** x"),
        ("wpa_psk=Hunter2", "wpa_psk=***"),
    ] {
        assert_eq!(credentials(text), shown);
        assert_eq!(credentials(shown), shown, "a second time");
    }
}

#[test]
fn text_without_secrets_stays_as_it_is() {
    for text in [
        "libcamerasrc:camera-name=/base/axi/pcie@1000120000/rp1/i2c@88000/imx708@1a:!:video/x-raw,width=640",
        "alsasrc:device=plughw:CARD=Device,DEV=0:!:audioconvert",
        "rtspsrc:location=rtsp://cam:latency=0:!:decodebin",
        "rtmpsrc location=rtmp://10.0.0.5/live ! decodebin",
        "textoverlay text=\"time: 10:00 @ site\" ! videoconvert",
        "compositor sink_0::xpos=0 sink_1::xpos=640",
        "mqtt://127.0.0.1:1883 mqtts://h:8883 mqtt://[::1]:1883 tcp://host:port",
        "v4l2src device=/dev/v4l/by-path/platform-fd500000.pcie-pci-0000:01:00.0-usb-0:1.3:1.0-video-index0",
        "User: arn:aws:sts::123456789012:assumed-role/GreengrassV2TokenExchangeRole/\
         0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef is not authorized to perform: \
         secretsmanager:GetSecretValue on resource: EI_API_KEY because no identity-based policy allows it",
        "arn:aws:secretsmanager:eu-west-1:123456789012:secret:cam@site-AbCdEf",
        "kvssink iot-certificate=\"iot-certificate,endpoint=x,cert-path=/a/cert.pem,key-path=/a/priv.key,role-aliases=r\"",
    ] {
        assert_eq!(credentials(text), text);
    }
}

#[test]
fn a_reference_to_a_secret_stays_and_what_stands_beside_it_does_not() {
    for text in [
        "rtspsrc:location=rtsp://admin:{{secret:cam:password}}@10.0.0.5:554/cam:latency=0:!:decodebin",
        "rtspsrc location=\"rtsp://{{secret:cam:user}}:{{secret:cam:pw}}@h/x\" ! decodebin",
        "rtspsrc location=rtsp://h/x user-id={{secret:cam:user}} user-pw=\"{{secret:cam:my key}}\" ! decodebin",
        "rtspsrc:user-pw={{secret:arn:aws:secretsmanager:eu-west-1:123456789012:secret:cam/1-AbCdEf:pw}}:!:decodebin",
        "souphttpsrc user-pw = {{secret:cam@site:pw}} ! decodebin",
    ] {
        assert_eq!(credentials(text), text);
        assert_eq!(SecretWords::of(text), SecretWords::default(), "{text}");
    }
    for (text, shown) in [
        (
            "a user-pw=Hunter2{{secret:cam:pw}} b",
            "a user-pw=***{{secret:cam:pw}} b",
        ),
        ("a user-pw={{secret:Hunter2 b", "a user-pw=***"),
        (
            "a b={{secret:cam: user-pw=Hunter2 c}} d",
            "a b={{secret:cam: user-pw=*** c}} d",
        ),
        (
            "http://h/x?token={{secret:cam:token}} ! b",
            "http://h/x?***{{secret:cam:token}} ! b",
        ),
    ] {
        assert_eq!(credentials(text), shown);
        assert_eq!(credentials(shown), shown, "a second time");
    }
}

#[test]
fn a_key_in_place_of_the_name_of_a_secret_is_hidden() {
    let text = "a user-pw={{secret:ei_0123456789}} b";
    assert_eq!(credentials(text), "a user-pw={{secret:***}} b");
}

#[test]
fn a_secret_is_found_again_as_a_whole_and_by_its_words() {
    let mut secrets = SecretWords::default();
    secrets.add("a b@c!d");
    secrets.add("Hunter2#x");
    secrets.add_replacement("standin0", "{{secret:Hunter2:pw}}");
    assert_eq!(
        secrets.mask("cannot open a b@c!d with Hunter2 and standin0"),
        "cannot open *** with *** and {{secret:Hunter2:pw}}"
    );
    assert!(secrets.occur_in("Hunter2") && secrets.occur_in("-a b@c!d-") && !secrets.occur_in("a b"));
}

#[test]
fn keys_are_recognised_by_what_they_look_like() {
    let pem = "-----BEGIN PRIVATE KEY-----\nMIIEvQ\n-----END PRIVATE KEY-----";
    let token = "IQoJb3JpZ2luX2VjEAsaCWV1LXdlc3QtMSJHMEUCIQDq7x0T3N9cP2mZ8vVfK4bW".to_owned();
    for (text, shown) in [
        ("a ei_0123456789 b", "a *** b"),
        ("name=ei_0123456789abcdef,x", "name=***,x"),
        (
            "ei_sm_secret_name ei_api_key ei_greengrass",
            "ei_sm_secret_name ei_api_key ei_greengrass",
        ),
        (pem, "***"),
        (&format!("x {pem} y"), "x *** y"),
        ("x -----BEGIN EC PRIVATE KEY----- MIIE", "x ***"),
        (&format!("a {token} b"), "a *** b"),
    ] {
        assert_eq!(credentials(text), shown);
    }
}

#[test]
fn words_of_a_secret_are_found_again_in_the_text_of_another_program() {
    let secrets = SecretWords::of("rtspsrc:location=rtsp://admin:Hunter2#x@10.0.0.5:554/cam:user-pw=Two:!:decodebin");
    assert_eq!(
        secrets.mask("Error resolving \"Hunter2\": no element Two in rtspsrc"),
        "Error resolving \"***\": no element *** in rtspsrc"
    );
    assert!(secrets.occur_in("x Hunter2#") && !secrets.occur_in("admin decodebin 554"));
    let query = SecretWords::of("srtsrc uri=srt://h:7001?mode=caller&token=0123456789");
    assert_eq!(query.mask("mode caller 0123456789"), "mode caller ***");
}

#[test]
fn masking_in_place_keeps_lines_and_columns() {
    let text = "{\n \"preview_token\": \"hush\" \"x\",\n \"iot_endpoint\": \"mqtt://me:pw@h\"\n}";
    let shown = in_place(text);
    assert_eq!(shown.chars().count(), text.chars().count());
    assert!(!shown.contains("hush") && !shown.contains("pw"), "{shown}");
    assert!(shown.contains("\"x\"") && shown.contains("@h\""), "{shown}");
}

#[test]
fn masking_in_place_finds_the_value_in_yaml_and_in_options() {
    for text in [
        "preview_token: hush",
        "preview_token:\n  hush",
        "preview_token: |\n  a\n  hush",
        "\"eiparams\": \"--silent --api-key hush",
        "eiparams: --api-key=hush",
        "eiparams: --api-key 'hush'",
        "gst_args: souphttpsrc extra-headers=\"a,X-My=hush\"",
        "\"ei_sm_secret_id\": {\"a\":\"hush\"",
        "iot_endpoint: wss://h/mqtt?x=hush",
    ] {
        assert!(!in_place(text).contains("hush"), "{text} -> {}", in_place(text));
    }
}

#[test]
fn long_text_full_of_secrets_is_masked_in_linear_time() {
    let start = std::time::Instant::now();
    for text in [
        "token",
        "token:",
        "user-pw=x ",
        "password = ",
        "a://b@ ",
        "://",
        "a://b:!:",
        "a://",
        "@",
        "=",
        "? ",
        "?a=",
        "?",
        "key=\"'",
        "key=}",
        "key=a}}",
        "key=\"a\\",
        "\"a://b ",
        "ei_",
        "-----BEGIN",
        "pass=",
        "key: ",
        "key=x, ",
        "key=(",
        "--token ",
        "Authorization: Bearer ",
    ] {
        let text = text.repeat((1 << 18) / text.len());
        let begun = std::time::Instant::now();
        credentials(&text);
        SecretWords::of(&text);
        in_place(&text);
        assert!(begun.elapsed() < std::time::Duration::from_secs(5), "{}", &text[..20]);
    }
    assert!(
        start.elapsed() < std::time::Duration::from_secs(60),
        "{:?}",
        start.elapsed()
    );
}

proptest! {
    #[test]
    fn any_text_can_be_masked(text in "(?s).{0,80}", start in "(token|://|user-pw=|api-key:|\\?a=|a://b:|cookies=\\{)?") {
        let text = format!("{start}{text}");
        credentials(&text);
        SecretWords::of(&text).mask(&text);
        prop_assert_eq!(in_place(&text).chars().count(), text.chars().count());
    }

    #[test]
    fn any_password_of_a_uri_is_hidden(before in "[!-~]{0,8}", after in "[!-~]{0,8}", encoded in any::<bool>()) {
        let uri = format!("location=rtsp://admin:{before}Hunter2{after}@10.0.0.5:554/cam");
        let line = if encoded {
            format!("rtspsrc:{uri}:latency=0:!:decodebin:!:jpegenc")
        } else {
            format!("rtspsrc {uri} latency=0 ! decodebin ! jpegenc")
        };
        let shown = credentials(&line);
        prop_assert!(!shown.contains("Hunter2"), "{} -> {}", line, shown);
        prop_assert!(shown.contains("10.0.0.5:554/cam"), "{}", shown);
    }

    #[test]
    fn any_query_of_a_url_is_hidden(before in "[!-9;-~]{0,8}", after in "[!-~]{0,8}") {
        let line = format!("souphttpsrc location=http://h/x?{before}Hunter2{after} ! decodebin");
        let shown = credentials(&line);
        prop_assert!(!shown.contains("Hunter2"), "{} -> {}", line, shown);
    }
}
