//! `model fetch` and `model info`: every failure of the secret, proxies, and the key that nobody sees.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::{assert_none_of, fetch, place, said, write_script};
use crate::support::aws::proxy::ConnectProxy;
use crate::support::aws::token_exchange::TokenExchange;
use crate::support::daemon::{LIMIT, Site, scripted_model};
use crate::support::http::{HttpServer, Reply};
use crate::support::ports::free_port;
use crate::support::scripts::{boxed, script};
use crate::support::studio::{self as stand_in, API_KEY, TARGET, aws_error, good_secret};

const ARGUMENTS: [&str; 2] = ["--set", "eiparams=--force-target runner-linux-x86_64"];

fn model() -> Vec<u8> {
    std::fs::read(scripted_model()).unwrap()
}

#[test]
fn fetch_prints_the_steps_and_the_path_and_info_shows_the_model() {
    let site = Site::new();
    write_script(site.path(), 3, &script(&[boxed(0.5)]));
    let studio = stand_in::studio(&stand_in::state(model()));
    let secrets = stand_in::secrets(&good_secret());
    let output = fetch(&site, &secrets.url(), &studio.url(), |c| {
        c.args(ARGUMENTS);
    });
    let text = said(&output);
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(
        text.contains(
            r#"Selected the Edge Impulse project owner="tests" project="Tutorial" project_id=42 impulse_id=1"#
        ),
        "{text}"
    );
    let path = place(site.path(), 3).display().to_string();
    assert_eq!(String::from_utf8_lossy(&output.stdout).lines().last(), Some(&*path));

    let mut info = site.bare_command();
    info.args(["model", "info", "--set", &format!("work_dir={}", site.path().display())]);
    stand_in::surround(&mut info, &secrets.url(), &studio.url());
    let output = info.output().unwrap();
    let text = said(&output);
    assert_eq!(output.status.code(), Some(0), "{text}");
    for part in [
        &*path,
        "Scripted",
        "v7",
        "pictures of 32 x 24, RGB, resize mode squash",
        "thing",
    ] {
        assert!(text.contains(part), "{text} lacks {part}");
    }
}

#[test]
fn info_without_any_model_says_what_to_do() {
    let site = Site::new();
    let output = site.bare_command().args(["model", "info"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(said(&output).contains("ei-greengrass model fetch"));
}

/// What `model fetch` says with a Secrets Manager that always answers so, and its exit code.
fn with_secrets(reply: Reply, arguments: &[&str]) -> (String, Option<i32>) {
    let site = Site::new();
    let studio = stand_in::studio(&stand_in::state(model()));
    let secrets = HttpServer::start(move |request| {
        assert_eq!(request.headers["x-amz-target"], "secretsmanager.GetSecretValue");
        let body: Value = serde_json::from_slice(&request.body).unwrap();
        assert_eq!(body, json!({"SecretId": "EI_API_KEY"}));
        reply.clone()
    });
    let output = fetch(&site, &secrets.url(), &studio.url(), |c| {
        c.args(arguments);
    });
    (said(&output), output.status.code())
}

#[test]
fn each_failure_of_the_secret_has_its_own_message() {
    let denied = "User: arn:aws:sts::123456789012:assumed-role/TokenRole/x is not authorized to perform: \
                  secretsmanager:GetSecretValue on resource: EI_API_KEY because no identity-based policy allows it";
    let cases = [
        (
            aws_error("AccessDeniedException", denied),
            "the secret EI_API_KEY cannot be read: Secrets Manager denies access (400 AccessDeniedException: User: arn:aws:sts::123456789012:assumed-role/TokenRole/x ... allow secretsmanager:GetSecretValue on",
            2,
        ),
        (
            aws_error(
                "ResourceNotFoundException",
                "Secrets Manager can't find the specified secret.",
            ),
            "there is no secret EI_API_KEY in region eu-west-1",
            2,
        ),
        (
            stand_in::secret(&json!("my key")),
            "the secret EI_API_KEY is not JSON",
            2,
        ),
        (
            stand_in::secret(&json!({"wrong": API_KEY})),
            "has no key \"ei_api_key\", it has \"wrong\"",
            2,
        ),
        (
            aws_error("ThrottlingException", "Rate exceeded"),
            "the secret EI_API_KEY cannot be read: Secrets Manager has a fault or asks to slow down (400 ThrottlingException",
            1,
        ),
        (
            aws_error(
                "InvalidSignatureException",
                "Signature expired: 20200101T000000Z is now earlier than",
            ),
            "set this machine's clock, or use NTP",
            2,
        ),
        (
            aws_error(
                "UnrecognizedClientException",
                "The security token included in the request is invalid.",
            ),
            "Secrets Manager does not accept the AWS credentials",
            2,
        ),
        (
            Reply::bytes("text/html", "<html>log in</html>"),
            "the secret EI_API_KEY cannot be read: the answer of Secrets Manager cannot be read (HTTP 200)",
            1,
        ),
    ];
    for (reply, expected, code) in cases {
        let (text, exit) = with_secrets(reply, &ARGUMENTS);
        // `...` stands for any text.
        for part in expected.split(" ... ") {
            assert!(text.contains(part), "lacks {part}:\n{}", errors(&text));
        }
        assert_eq!(exit, Some(code), "{expected}");
    }
}

#[test]
fn a_key_that_hides_the_token_exchange_service_is_named() {
    let site = Site::new();
    let studio = stand_in::studio(&stand_in::state(model()));
    let exchange = TokenExchange::start(LIMIT);
    for code in [
        "UnrecognizedClientException",
        "InvalidSignatureException",
        "AccessDeniedException",
    ] {
        let secrets = HttpServer::start(move |_| aws_error(code, "no"));
        let run = |in_greengrass: bool| {
            let output = fetch(&site, &secrets.url(), &studio.url(), |c| {
                if in_greengrass {
                    c.envs(exchange.environment());
                }
            });
            said(&output)
        };
        let reason = "come from AWS_ACCESS_KEY_ID in the environment, which hides the token exchange service";
        let text = run(true);
        assert!(text.contains(reason), "{code}: {text}");
        let text = run(false);
        assert!(!text.contains(reason), "{code}: {text}");
    }
}

#[test]
fn a_secret_that_is_only_the_api_key_is_accepted() {
    let site = Site::new();
    let studio = stand_in::studio(&stand_in::state(model()));
    let secrets = stand_in::secrets(&json!(API_KEY));
    let output = fetch(&site, &secrets.url(), &studio.url(), |c| {
        c.args(ARGUMENTS);
    });
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
}

#[test]
fn the_secret_of_an_arn_is_read_in_the_region_of_the_arn() {
    let site = Site::new();
    let studio = stand_in::studio(&stand_in::state(model()));
    let arn = "arn:aws:secretsmanager:us-west-2:123456789012:secret:EI_API_KEY-abcdef";
    let scope = Arc::new(Mutex::new(String::new()));
    let seen = Arc::clone(&scope);
    let secrets = HttpServer::start(move |request| {
        let credential = request.headers["authorization"].split('/');
        *seen.lock().unwrap() = credential.skip(2).take(2).collect::<Vec<_>>().join("/");
        aws_error("ResourceNotFoundException", "")
    });
    let output = fetch(&site, &secrets.url(), &studio.url(), |c| {
        c.args(["--set", &format!("ei_sm_secret_id={arn}")]);
    });
    assert_eq!(*scope.lock().unwrap(), "us-west-2/secretsmanager");
    let text = said(&output);
    assert!(
        text.contains(&format!("there is no secret {arn} in region us-west-2")),
        "{text}"
    );
}

/// The lines that a person reads.
fn errors(text: &str) -> String {
    let lines: Vec<_> = text.lines().filter(|line| line.contains("ERROR")).collect();
    lines.join("\n")
}

#[test]
fn no_network_and_no_credentials_have_their_own_messages() {
    let site = Site::new();
    let nowhere = format!("http://127.0.0.1:{}", free_port());
    let output = fetch(&site, &nowhere, &nowhere, |_| {});
    let text = said(&output);
    assert!(
        text.contains("the secret EI_API_KEY cannot be read: Secrets Manager cannot be reached"),
        "{}",
        errors(&text)
    );
    assert!(text.contains("Connection refused"), "{}", errors(&text));
    assert_eq!(output.status.code(), Some(1));

    let output = fetch(&site, &nowhere, &nowhere, |c| {
        c.env_remove("AWS_ACCESS_KEY_ID").env_remove("AWS_SECRET_ACCESS_KEY");
    });
    let text = said(&output);
    assert!(text.contains("no AWS credentials were found"), "{}", errors(&text));
    assert_eq!(output.status.code(), Some(2));

    let output = fetch(&site, &nowhere, &nowhere, |c| {
        c.env_remove("AWS_REGION");
    });
    let text = said(&output);
    assert!(text.contains("no AWS region is known"), "{}", errors(&text));
}

#[test]
fn the_option_api_key_is_used_when_the_secret_is_refused_and_not_before() {
    let option = format!("eiparams=--force-target {TARGET} --api-key {API_KEY}");
    let arguments = ["--set", &*option];
    let denied = aws_error("AccessDeniedException", "no");
    let (text, exit) = with_secrets(denied, &arguments);
    assert_eq!(exit, Some(0), "{text}");
    assert!(text.contains("Using the API key of eiparams (--api-key)"), "{text}");
    // The secret is readable: it wins, though Studio does not know its key.
    let (text, exit) = with_secrets(stand_in::secret(&json!({"ei_api_key": "ei_other"})), &arguments);
    assert_eq!(exit, Some(2), "{text}");
    assert!(text.contains("refuses the API key (HTTP 401"), "{text}");
}

#[test]
fn a_proxy_of_the_environment_is_used_for_studio() {
    let site = Site::new();
    let secrets = stand_in::secrets(&good_secret());
    let proxy = stand_in::studio(&stand_in::state(model()));
    let output = fetch(&site, &secrets.url(), "http://studio.invalid", |c| {
        c.args(ARGUMENTS)
            .env("http_proxy", proxy.url())
            .env("NO_PROXY", "127.0.0.1");
    });
    let text = said(&output);
    assert_eq!(output.status.code(), Some(0), "{text}");
    proxy.requests.with(|all| {
        assert!(
            all.iter()
                .all(|request| request.proxied_for.as_deref() == Some("studio.invalid"))
        );
    });
}

/// Secrets Manager is at 0.0.0.0, which leads to this machine and is none of its loopback addresses.
#[test]
fn a_proxy_of_the_environment_is_used_for_secrets_manager_and_not_for_credentials() {
    let (site, proxy) = (Site::new(), ConnectProxy::start(None));
    let exchange = TokenExchange::start(LIMIT);
    let secrets = stand_in::secrets_for(exchange.keys(), || stand_in::secret(&good_secret()));
    let studio = stand_in::studio(&stand_in::state(model()));
    let elsewhere = format!("http://0.0.0.0:{}", secrets.port);
    let run = |no_proxy: &str| {
        let output = fetch(&site, &elsewhere, &studio.url(), |c| {
            stand_in::exchanged(c, &exchange);
            c.args(ARGUMENTS)
                .env("HTTP_PROXY", format!("http://127.0.0.1:{}", proxy.port))
                .env("NO_PROXY", no_proxy);
        });
        let text = said(&output);
        assert_eq!(output.status.code(), Some(0), "{text}");
        assert_none_of(&exchange.keys().secrets(), &text);
    };
    run("127.0.0.1");
    assert_eq!(proxy.targets(), [format!("POST {elsewhere}/")]);
    run("127.0.0.1,0.0.0.0");
    assert_eq!(proxy.targets().len(), 1, "NO_PROXY leads past it");
}

#[test]
fn a_proxy_that_refuses_secrets_manager_is_told() {
    let (site, proxy) = (Site::new(), ConnectProxy::start(Some(407)));
    let output = fetch(&site, "", "http://127.0.0.1:9", |c| {
        c.env_remove("AWS_ENDPOINT_URL_SECRETS_MANAGER")
            .env("HTTPS_PROXY", format!("http://127.0.0.1:{}", proxy.port));
    });
    let text = said(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    for part in [
        "the secret EI_API_KEY cannot be read: Secrets Manager cannot be reached",
        "proxy auth",
        "HTTPS_PROXY",
    ] {
        assert!(text.contains(part), "lacks {part}:\n{}", errors(&text));
    }
    assert_eq!(proxy.targets()[0], "CONNECT secretsmanager.eu-west-1.amazonaws.com:443");
}
