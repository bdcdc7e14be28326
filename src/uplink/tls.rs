//! The TLS configuration: root certificates, client certificate, ALPN.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rumqttc::TlsConfiguration;
use rumqttc::tokio_rustls::rustls::crypto::aws_lc_rs;
use rumqttc::tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use rumqttc::tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rumqttc::tokio_rustls::rustls::{self, ClientConfig, RootCertStore};

use super::connect_params::ClientCertificate;
use super::connection_error::ConnectionError;

/// TLS settings.
#[derive(Debug, Clone, Default)]
pub(super) struct TlsSettings {
    /// File with the only trusted CA certificates (PEM); `None`: the root certificates of the machine, or those that
    /// `SSL_CERT_FILE` and `SSL_CERT_DIR` name.
    pub ca: Option<PathBuf>,
    /// The client certificate.
    pub certificate: Option<ClientCertificate>,
    /// ALPN protocol.
    pub alpn: Option<&'static [u8]>,
}

/// Whether the files of `iot_cert`, `iot_key` and `iot_ca` can be used. Opens no connection.
///
/// # Errors
/// [`ConnectionError::CertificateFile`] or [`ConnectionError::CaFile`]
pub fn check_files(certificate: ClientCertificate, ca: Option<PathBuf>) -> Result<(), ConnectionError> {
    let settings = TlsSettings {
        ca,
        certificate: Some(certificate),
        alpn: None,
    };
    configuration(&settings).map(|_| ())
}

/// Reads the files and builds the configuration. Blocks.
pub(super) fn configuration(settings: &TlsSettings) -> Result<TlsConfiguration, ConnectionError> {
    let roots = match &settings.ca {
        Some(file) => roots_from(file)?,
        None => machine_roots()?,
    };
    // rustls panics without an explicit provider if the dependency tree contains two.
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| ConnectionError::Tls(error.to_string()))?
        .with_root_certificates(roots);
    let mut config = match &settings.certificate {
        Some(files) => {
            let (chain, key) = (chain(&files.cert)?, key(&files.key)?);
            builder
                .with_client_auth_cert(chain, key)
                .map_err(|error| mismatch(files, &error))?
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols.extend(settings.alpn.map(<[u8]>::to_vec));
    Ok(config.into())
}

fn chain(file: &Path) -> Result<Vec<CertificateDer<'static>>, ConnectionError> {
    let unusable = |problem: String| ConnectionError::CertificateFile {
        key: "iot_cert",
        file: file.to_owned(),
        problem,
    };
    let chain = CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| unusable(pem_problem(&error)))?;
    if chain.is_empty() {
        return Err(unusable("it holds no certificate (PEM)".into()));
    }
    Ok(chain)
}

fn key(file: &Path) -> Result<PrivateKeyDer<'static>, ConnectionError> {
    PrivateKeyDer::from_pem_file(file).map_err(|error| ConnectionError::CertificateFile {
        key: "iot_key",
        file: file.to_owned(),
        problem: match error {
            pem::Error::NoItemsFound => "it holds no private key (PEM, without a passphrase)".into(),
            error => pem_problem(&error),
        },
    })
}

fn pem_problem(error: &pem::Error) -> String {
    match error {
        pem::Error::Io(io) if io.kind() == std::io::ErrorKind::PermissionDenied => {
            format!("{io}: let the service user (ggc_user, on Greengrass Lite ggcore) read it")
        }
        pem::Error::Io(io) => io.to_string(),
        error => error.to_string(),
    }
}

fn mismatch(files: &ClientCertificate, error: &rustls::Error) -> ConnectionError {
    let problem = match error {
        rustls::Error::InconsistentKeys(_) => {
            format!("it is not the key of the certificate in {}", files.cert.display())
        }
        error => format!("together with the certificate in {}: {error}", files.cert.display()),
    };
    ConnectionError::CertificateFile {
        key: "iot_key",
        file: files.key.clone(),
        problem,
    }
}

fn roots_from(file: &Path) -> Result<RootCertStore, ConnectionError> {
    let unusable = |problem: String| ConnectionError::CaFile {
        file: file.to_owned(),
        problem,
    };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(file).map_err(|error| unusable(error.to_string()))? {
        let certificate = certificate.map_err(|error| unusable(error.to_string()))?;
        roots.add(certificate).map_err(|error| unusable(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(unusable("it holds no certificate (PEM)".into()));
    }
    Ok(roots)
}

fn machine_roots() -> Result<RootCertStore, ConnectionError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let problems: Vec<_> = found.errors.iter().map(ToString::to_string).collect();
        return Err(ConnectionError::NoRoots(problems.join("; ")));
    }
    Ok(roots)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_names_a_ca_file_that_is_missing_or_holds_no_certificate() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("ca.pem");
        for content in [None, Some("no certificate")] {
            if let Some(content) = content {
                std::fs::write(&file, content).expect("written");
            }
            let reason = configuration(&TlsSettings {
                ca: Some(file.clone()),
                ..TlsSettings::default()
            })
            .expect_err("refused")
            .to_string();
            assert!(reason.contains("ca.pem"), "{reason}");
        }
    }

    #[test]
    fn the_error_names_the_setting_and_the_file_of_an_unusable_certificate_or_key() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = |name: &str| directory.path().join(name);
        let pair = || {
            let key = rcgen::KeyPair::generate().expect("a key");
            let certificate = rcgen::CertificateParams::new(Vec::new())
                .and_then(|params| params.self_signed(&key))
                .expect("a certificate");
            (certificate.pem(), key.serialize_pem())
        };
        let ((cert, key), (_, other_key)) = (pair(), pair());
        for (name, content) in [
            ("ca.pem", &cert),
            ("cert.pem", &cert),
            ("key.pem", &key),
            ("other.pem", &other_key),
        ] {
            std::fs::write(path(name), content).expect("written");
        }
        let configure = |cert: &str, key: &str| {
            configuration(&TlsSettings {
                ca: Some(path("ca.pem")),
                certificate: Some(ClientCertificate {
                    cert: path(cert),
                    key: path(key),
                }),
                alpn: None,
            })
        };
        assert!(configure("cert.pem", "key.pem").is_ok());
        for (cert, key, words) in [
            ("missing.pem", "key.pem", ["iot_cert", "missing.pem"]),
            ("key.pem", "key.pem", ["iot_cert", "holds no certificate"]),
            ("cert.pem", "missing.pem", ["iot_key", "missing.pem"]),
            ("cert.pem", "cert.pem", ["iot_key", "holds no private key"]),
            ("cert.pem", "other.pem", ["iot_key", "not the key of the certificate"]),
        ] {
            let reason = configure(cert, key).expect_err("refused").to_string();
            assert!(words.iter().all(|word| reason.contains(word)), "{cert} {key}: {reason}");
        }
    }
}
