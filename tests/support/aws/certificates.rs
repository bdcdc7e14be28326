//! A certificate authority with a certificate for `localhost` and one for a client.

use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

/// Files in a directory of the test: `ca.pem`, `server.pem`, `server.key`, `client.pem`, `client.key`.
pub struct Certificates {
    directory: PathBuf,
}

impl Certificates {
    /// Creates them in `directory`, which is created too.
    pub fn make(directory: &Path) -> Self {
        std::fs::create_dir_all(directory).expect("a directory");
        let named = |names: Vec<String>, name: &str| {
            let mut params = CertificateParams::new(names).expect("parameters");
            params.distinguished_name.push(DnType::CommonName, name);
            params
        };
        let mut params = named(Vec::new(), &format!("CA of {}", directory.display()));
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("a CA");
        let write = |name: &str, text: String| std::fs::write(directory.join(name), text).expect("written");
        write("ca.pem", ca.pem());
        for (name, params) in [
            ("server", named(vec!["localhost".into()], "localhost")),
            ("client", named(Vec::new(), "client")),
        ] {
            let key = KeyPair::generate().expect("a key");
            let certificate = params.signed_by(&key, &ca).expect("signed");
            write(&format!("{name}.pem"), certificate.pem());
            write(&format!("{name}.key"), key.serialize_pem());
        }
        Self {
            directory: directory.to_owned(),
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// The path as text.
    pub fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }
}
