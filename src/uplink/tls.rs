//! Whom the broker's certificate must be signed by.

use std::path::Path;
use std::sync::Arc;

use rumqttc::TlsConfiguration;
use rumqttc::tokio_rustls::rustls::crypto::aws_lc_rs;
use rumqttc::tokio_rustls::rustls::pki_types::CertificateDer;
use rumqttc::tokio_rustls::rustls::pki_types::pem::PemObject;
use rumqttc::tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::reason::Reason;

/// TLS that trusts the certificates in `ca` and nobody else, or without one the machine's own roots (`SSL_CERT_FILE` and
/// `SSL_CERT_DIR` are honoured). Reads files: blocking.
pub(super) fn configuration(ca: Option<&Path>) -> Result<TlsConfiguration, Reason> {
    let roots = match ca {
        Some(file) => roots_from(file)?,
        None => machine_roots()?,
    };
    // The provider is named because rustls panics on the choice as soon as some other crate brings a second one.
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| Reason::Tls(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(config.into())
}

fn roots_from(file: &Path) -> Result<RootCertStore, Reason> {
    let unusable = |problem: String| Reason::CaFile {
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

fn machine_roots() -> Result<RootCertStore, Reason> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let problems: Vec<_> = found.errors.iter().map(ToString::to_string).collect();
        return Err(Reason::NoRoots(problems.join("; ")));
    }
    Ok(roots)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ca_file_that_is_missing_or_holds_no_certificate_is_named() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("ca.pem");
        for content in [None, Some("no certificate")] {
            if let Some(content) = content {
                std::fs::write(&file, content).expect("written");
            }
            let reason = configuration(Some(&file)).expect_err("refused").to_string();
            assert!(reason.contains("ca.pem"), "{reason}");
        }
    }
}
