//! The certificate of a soak: of an authority of its own, in a folder as the kubelet keeps it, renewed by one rename.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::{ClientConfig, RootCertStore};

/// The name in the certificate.
pub const NAME: &str = "soak.test";

/// See the head of the file.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: PathBuf,
    issued: u32,
}

impl Authority {
    /// With a first certificate in `folder`.
    pub fn found(folder: &Path) -> anyhow::Result<Self> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "authority of a soak");
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        if folder.exists() {
            fs::remove_dir_all(folder).with_context(|| format!("clear {}", folder.display()))?;
        }
        fs::create_dir_all(folder)?;
        let mut authority = Self { issuer, folder: folder.to_owned(), issued: 0 };
        authority.renew()?;
        for file in ["tls.crt", "tls.key"] {
            symlink(format!("..data/{file}"), folder.join(file))?;
        }
        Ok(authority)
    }

    /// Puts a new certificate in the place of the last one: a link changes from one folder to the next.
    pub fn renew(&mut self) -> anyhow::Result<()> {
        let key = KeyPair::generate()?;
        let certificate = CertificateParams::new([NAME.to_owned()])?.signed_by(&key, &self.issuer)?;
        let earlier = format!("..{}", self.issued);
        self.issued += 1;
        let name = format!("..{}", self.issued);
        let folder = self.folder.join(&name);
        fs::create_dir(&folder)?;
        fs::write(folder.join("tls.crt"), certificate.pem())?;
        fs::write(folder.join("tls.key"), key.serialize_pem())?;
        let draft = self.folder.join("..tmp");
        symlink(&name, &draft)?;
        fs::rename(&draft, self.folder.join("..data"))?;
        let earlier = self.folder.join(earlier);
        if earlier.exists() {
            fs::remove_dir_all(earlier)?;
        }
        Ok(())
    }

    /// What a client trusts and speaks. It remembers sessions.
    pub fn client(&self, protocol: &str) -> anyhow::Result<Arc<ClientConfig>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone())?;
        let builder = ClientConfig::builder_with_provider(default_provider().into());
        let builder = builder.with_safe_default_protocol_versions()?.with_root_certificates(roots);
        let mut config = builder.with_no_client_auth();
        config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        Ok(Arc::new(config))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_renewed_certificate_is_in_the_same_place_and_another_one() {
        let folder = std::env::temp_dir().join(format!("loadtests-authority-{}", std::process::id()));
        let mut authority = Authority::found(&folder).unwrap();
        let read = || [fs::read(folder.join("tls.crt")).unwrap(), fs::read(folder.join("tls.key")).unwrap()];
        let first = read();
        authority.renew().unwrap();
        let second = read();
        assert!(first[0] != second[0] && first[1] != second[1]);
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 4);
        fs::remove_dir_all(&folder).unwrap();
    }
}
