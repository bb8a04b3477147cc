//! TLS to etcd, as a value for `arbiter`.
//!
//! The members have certificates of an authority that the configuration names, for the names by
//! which they are reached. No other authority is trusted, and no key of a node is shown to them: if
//! etcd asks who we are, a certificate of its own world says so.

use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use super::tls;

/// What the files of the configuration hold, as PEM.
#[derive(Clone, Copy)]
pub struct EtcdKeys<'a> {
    /// Who may vouch for a member.
    pub ca: &'a [u8],
    /// Our certificate with those that vouch for it, and its private key.
    pub identity: Option<(&'a [u8], &'a [u8])>,
}

/// Which of the files is of no use, and why.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum NoEtcdKeys {
    /// It holds no certificate of an authority.
    #[error("{reason}")]
    Ca {
        /// What is wrong with it.
        reason: String,
    },
    /// It holds no certificate.
    #[error("{reason}")]
    Certificate {
        /// What is wrong with it.
        reason: String,
    },
    /// It holds no private key, or that of another certificate.
    #[error("{reason}")]
    Key {
        /// What is wrong with it.
        reason: String,
    },
}

/// For a node that asks etcd.
///
/// # Errors
/// [`NoEtcdKeys`] names the file that cannot be used.
pub fn etcd_client(keys: EtcdKeys<'_>) -> Result<Arc<ClientConfig>, NoEtcdKeys> {
    let no_ca = |reason: String| NoEtcdKeys::Ca { reason };
    let mut roots = RootCertStore::empty();
    for certificate in certificates(keys.ca).map_err(no_ca)? {
        roots.add(certificate).map_err(|error| no_ca(error.to_string()))?;
    }
    let builder = ClientConfig::builder_with_provider(tls::provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| no_ca(error.to_string()))?
        .with_root_certificates(roots);
    let config = match keys.identity {
        None => builder.with_no_client_auth(),
        Some((chain, key)) => {
            let chain = certificates(chain).map_err(|reason| NoEtcdKeys::Certificate { reason })?;
            let no_key = |reason: String| NoEtcdKeys::Key { reason };
            let key = PrivateKeyDer::from_pem_slice(key);
            let key = key.map_err(|error| no_key(error.to_string()))?;
            builder.with_client_auth_cert(chain, key).map_err(|error| no_key(error.to_string()))?
        }
    };
    Ok(Arc::new(config))
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match all {
        Ok(all) if all.is_empty() => Err("there is no certificate in it".to_owned()),
        Ok(all) => Ok(all),
        Err(error) => Err(error.to_string()),
    }
}
