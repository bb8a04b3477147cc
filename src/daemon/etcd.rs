//! From the configuration and its files to the way to etcd.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use super::error::DaemonError;
use super::random;
use crate::arbiter::{EtcdSecurity, EtcdSettings, Login};
use crate::config::{EtcdAt, NodeConfig};
use crate::units::Side;

/// Longest certificate, key or password file that is read, in bytes.
const FILE_LEN_MAX: u64 = 64 << 10;

/// What the driver must know.
///
/// # Errors
/// If a file that the configuration names cannot be used.
pub(super) fn settings(
    node: &NodeConfig,
    etcd: &EtcdAt,
    limit: Duration,
) -> Result<EtcdSettings, DaemonError> {
    let names = |side: Side| if side == node.side { &node.node.name } else { &node.peer.name };
    Ok(EtcdSettings {
        endpoints: etcd.endpoints.clone(),
        security: security(etcd)?,
        login: login(etcd)?,
        cluster: node.cluster.clone(),
        nodes: [names(Side::First).clone(), names(Side::Second).clone()],
        resources: node.resources.iter().map(|resource| resource.name.clone()).collect(),
        lease: node.promotion.lease,
        limit,
        fresh_id: random::id()?,
    })
}

fn login(etcd: &EtcdAt) -> Result<Option<Login>, DaemonError> {
    let Some((user, path)) = &etcd.login else { return Ok(None) };
    let key = "etcd_password_file";
    let bytes = read(key, path, Secrecy::Secret)?;
    let password = str::from_utf8(&bytes).ok().and_then(|text| text.lines().next());
    let Some(password) = password.filter(|password| !password.is_empty()) else {
        let what = "its first line is no password".to_owned();
        let mend = "write the password as UTF-8 text in the first line".to_owned();
        return Err(DaemonError::EtcdFile { key, path: path.clone(), what, mend });
    };
    Ok(Some(Login { user: user.clone(), password: password.to_owned() }))
}

#[cfg(not(feature = "_tls"))]
#[expect(clippy::unnecessary_wraps, reason = "with TLS there are files to be read")]
fn security(_: &EtcdAt) -> Result<EtcdSecurity, DaemonError> {
    Ok(EtcdSecurity::Plain)
}

#[cfg(feature = "_tls")]
fn security(etcd: &EtcdAt) -> Result<EtcdSecurity, DaemonError> {
    use crate::link::{EtcdKeys, NoEtcdKeys, etcd_client};
    let is_encrypted = etcd.endpoints.iter().any(|endpoint| endpoint.is_encrypted);
    let Some(ca_path) = etcd.ca.as_ref().filter(|_| is_encrypted) else {
        return Ok(EtcdSecurity::Plain);
    };
    let ca = read("etcd_ca", ca_path, Secrecy::Public)?;
    let identity = match &etcd.identity {
        None => None,
        Some((certificate, key)) => Some((
            read("etcd_cert", certificate, Secrecy::Public)?,
            read("etcd_key", key, Secrecy::Secret)?,
        )),
    };
    let pems = identity.as_ref().map(|(chain, key)| (chain.as_slice(), key.as_slice()));
    let config = etcd_client(EtcdKeys { ca: &ca, identity: pems }).map_err(|error| {
        let what = error.to_string();
        let (certificate, private) = match &etcd.identity {
            Some((certificate, private)) => (certificate, private),
            None => (ca_path, ca_path),
        };
        let (key, path, holds) = match error {
            NoEtcdKeys::Ca { .. } => ("etcd_ca", ca_path, "the certificate of an authority"),
            NoEtcdKeys::Certificate { .. } => ("etcd_cert", certificate, "our certificate"),
            NoEtcdKeys::Key { .. } => ("etcd_key", private, "the private key of `etcd_cert`"),
        };
        let mend = format!("give a PEM file with {holds}");
        DaemonError::EtcdFile { key, path: path.clone(), what, mend }
    })?;
    Ok(EtcdSecurity::Tls { config })
}

/// Who may read a file.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Secrecy {
    #[cfg(feature = "_tls")]
    Public,
    /// Only its owner.
    Secret,
}

fn read(key: &'static str, path: &Path, secrecy: Secrecy) -> Result<Vec<u8>, DaemonError> {
    let failed = |what: String, mend: String| {
        let path = path.to_owned();
        DaemonError::EtcdFile { key, path, what, mend }
    };
    let mend = || format!("correct `{key}`, or let this user read the file");
    let unreadable = |error: std::io::Error| failed(error.to_string(), mend());
    // To open a pipe would wait for whoever writes to it.
    if !std::fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err(failed("it is not a regular file".to_owned(), mend()));
    }
    let file = File::open(path).map_err(unreadable)?;
    let found = file.metadata().map_err(unreadable)?;
    let mode = found.mode() & 0o777;
    if secrecy == Secrecy::Secret && mode & 0o077 != 0 {
        let what = format!("others can read or write it (mode {mode:03o})");
        return Err(failed(what, format!("chmod 600 {}", path.display())));
    }
    let mut bytes = Vec::new();
    file.take(FILE_LEN_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > FILE_LEN_MAX {
        return Err(failed(format!("it has more than {FILE_LEN_MAX} bytes"), mend()));
    }
    Ok(bytes)
}
