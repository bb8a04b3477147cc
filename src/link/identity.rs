//! Who this node is to its peer: a private key and a certificate, made once.
//!
//! What is trusted is the SHA-256 of the public key, printed as curl prints pins, so that common
//! tools can check it. The certificate only carries the key: its names and dates mean nothing.
//! Both are one file, so that a crash leaves either all of it or none.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::{fmt, str};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use super::security::IdentityError;
use super::tls;

/// SHA-256 of a public key as it stands in a certificate (`SubjectPublicKeyInfo`, DER).
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Fingerprint(pub(super) [u8; 32]);

impl Fingerprint {
    /// The hash itself.
    pub fn bytes(self) -> [u8; 32] {
        self.0
    }
}

impl str::FromStr for Fingerprint {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, IdentityError> {
        text.strip_prefix(PREFIX)
            .and_then(|digits| STANDARD.decode(digits).ok())
            .and_then(|bytes| <[u8; 32]>::try_from(bytes).ok())
            .map(Self)
            .ok_or_else(|| IdentityError::BadFingerprint { text: text.to_owned() })
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", STANDARD.encode(self.0))
    }
}

/// What curl writes before a pin.
const PREFIX: &str = "sha256//";

/// A key and the certificate that shows it.
pub struct Identity {
    key: CertifiedKey,
    fingerprint: Fingerprint,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("fingerprint", &self.fingerprint).finish_non_exhaustive()
    }
}

impl Identity {
    /// The identity kept in `state_dir`, made first if there is none.
    ///
    /// # Errors
    /// If the file cannot be read, written or trusted; the error names it and the way out.
    pub fn load_or_make(state_dir: &Path) -> Result<Self, IdentityError> {
        match Self::load(state_dir) {
            Err(IdentityError::None { .. }) => {
                make(state_dir)?;
                Self::load(state_dir)
            }
            found => found,
        }
    }

    /// The identity kept in `state_dir`.
    ///
    /// # Errors
    /// [`IdentityError::None`] if there is none; else as [`Identity::load_or_make`].
    pub fn load(state_dir: &Path) -> Result<Self, IdentityError> {
        let path = state_dir.join(FILE_NAME);
        let pem = read_private(&path)?;
        let damaged = |reason: String| IdentityError::Damaged { path: path.clone(), reason };
        let certificate =
            CertificateDer::from_pem_slice(&pem).map_err(|error| damaged(error.to_string()))?;
        let private =
            PrivateKeyDer::from_pem_slice(&pem).map_err(|error| damaged(error.to_string()))?;
        let fingerprint =
            tls::fingerprint(&certificate).map_err(|error| damaged(error.to_string()))?;
        let key = CertifiedKey::from_der(vec![certificate], private, &tls::provider())
            .map_err(|error| damaged(error.to_string()))?;
        Ok(Self { key, fingerprint })
    }

    /// What the peer's configuration must name.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    pub(super) fn into_key(self) -> CertifiedKey {
        self.key
    }
}

/// Key and certificate in PEM, in the node's `state_dir`.
const FILE_NAME: &str = "identity.pem";

/// Longest such file that is read, in bytes; ours have about 800.
const FILE_LEN_MAX: u64 = 64 << 10;

/// Reads a file that nobody but its owner may read, and whose owner we are.
fn read_private(path: &Path) -> Result<Vec<u8>, IdentityError> {
    let failed = |action| move |source| IdentityError::io(path, action, source);
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(IdentityError::None { path: path.to_owned() });
        }
        opened => opened.map_err(failed("open"))?,
    };
    let found = file.metadata().map_err(failed("examine"))?;
    if !found.is_file() {
        return Err(IdentityError::Damaged {
            path: path.to_owned(),
            reason: "it is not a regular file".to_owned(),
        });
    }
    let mode = found.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(IdentityError::Exposed { path: path.to_owned(), mode });
    }
    let me = rustix::process::geteuid().as_raw();
    if found.uid() != me {
        return Err(IdentityError::Foreign { path: path.to_owned(), owner: found.uid(), me });
    }
    let mut bytes = Vec::new();
    file.take(FILE_LEN_MAX).read_to_end(&mut bytes).map_err(failed("read"))?;
    Ok(bytes)
}

/// Makes a key and puts it in place in one step. Whoever comes second keeps what the first made.
fn make(state_dir: &Path) -> Result<(), IdentityError> {
    let pem = draw().map_err(|error| IdentityError::Draw { reason: error.to_string() })?;
    let failed = |action| move |source| IdentityError::io(state_dir, action, source);
    let mut folder = DirBuilder::new();
    folder.recursive(true).mode(0o700).create(state_dir).map_err(failed("create the folder"))?;

    let path = state_dir.join(FILE_NAME);
    let mut salt = [0; 8];
    rustix::rand::getrandom(&mut salt, rustix::rand::GetRandomFlags::empty())
        .map_err(|error| failed("draw a name in")(error.into()))?;
    let temporary = state_dir.join(format!("{FILE_NAME}.{:016x}", u64::from_le_bytes(salt)));
    let placed = write_synced(&temporary, &pem).and_then(|()| place(&temporary, &path));
    if placed.is_err() {
        // Whether this works or not, the first error is the one to report.
        let _ = std::fs::remove_file(&temporary);
    }
    match placed {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        outcome => outcome.map_err(|source| IdentityError::io(&path, "write", source))?,
    }
    File::open(state_dir).and_then(|folder| folder.sync_all()).map_err(failed("sync"))
}

/// A new key with a certificate that shows it, in PEM.
fn draw() -> Result<String, rcgen::Error> {
    let key = rcgen::KeyPair::generate()?;
    let mut parameters = rcgen::CertificateParams::default();
    parameters.distinguished_name = rcgen::DistinguishedName::new();
    parameters.distinguished_name.push(rcgen::DnType::CommonName, "hotpair");
    let certificate = parameters.self_signed(&key)?;
    Ok(key.serialize_pem() + &certificate.pem())
}

fn write_synced(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// Gives `from` the name `to` unless that is taken.
fn place(from: &Path, to: &Path) -> io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // Some file systems cannot; a hard link does not replace either.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {
            std::fs::hard_link(from, to)?;
            std::fs::remove_file(from)
        }
        outcome => Ok(outcome?),
    }
}

/// Where the identity of a node with this `state_dir` is kept.
pub fn path(state_dir: &Path) -> PathBuf {
    state_dir.join(FILE_NAME)
}

#[cfg(test)]
mod tests {
    use std::fs::{Permissions, set_permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn an_identity_is_made_once_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        let state_dir = folder.path().join("new/state");
        let first = Identity::load_or_make(&state_dir).unwrap().fingerprint();
        let second = Identity::load_or_make(&state_dir).unwrap().fingerprint();
        assert_eq!(first, second);
        let names: Vec<_> =
            state_dir.read_dir().unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, [FILE_NAME]);
        assert_eq!(path(&state_dir).metadata().unwrap().mode() & 0o777, 0o600);
    }

    #[test]
    fn of_many_who_make_it_at_once_all_get_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let made: Vec<_> = std::thread::scope(|scope| {
            let makers: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| Identity::load_or_make(folder.path()).unwrap()))
                .collect();
            makers.into_iter().map(|maker| maker.join().unwrap().fingerprint()).collect()
        });
        assert!(made.iter().all(|fingerprint| *fingerprint == made[0]), "{made:?}");
        assert_eq!(folder.path().read_dir().unwrap().count(), 1);
    }

    #[test]
    fn a_fingerprint_reads_as_it_prints() {
        let folder = tempfile::tempdir().unwrap();
        let fingerprint = Identity::load_or_make(folder.path()).unwrap().fingerprint();
        let text = fingerprint.to_string();
        assert!(text.starts_with("sha256//") && text.len() == 8 + 44, "{text}");
        assert_eq!(text.parse::<Fingerprint>().unwrap(), fingerprint);
        for bad in ["", "sha256//", "sha256//AAAA", &text[1..], &text[..51], &format!("{text} ")] {
            assert!(bad.parse::<Fingerprint>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_key_that_others_can_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        Identity::load_or_make(folder.path()).unwrap();
        for mode in [0o640, 0o604, 0o620, 0o601, 0o644] {
            set_permissions(path(folder.path()), Permissions::from_mode(mode)).unwrap();
            let error = Identity::load_or_make(folder.path()).unwrap_err();
            assert!(
                matches!(error, IdentityError::Exposed { mode: m, .. } if m == mode),
                "{error}"
            );
            assert!(error.to_string().contains("chmod 600"), "{error}");
        }
        set_permissions(path(folder.path()), Permissions::from_mode(0o400)).unwrap();
        assert!(Identity::load_or_make(folder.path()).is_ok());
    }

    #[test]
    fn a_damaged_file_is_an_error_and_is_never_replaced() {
        let folder = tempfile::tempdir().unwrap();
        Identity::load_or_make(folder.path()).unwrap();
        let whole = std::fs::read(path(folder.path())).unwrap();
        let other = tempfile::tempdir().unwrap();
        Identity::load_or_make(other.path()).unwrap();
        let foreign = std::fs::read_to_string(path(other.path())).unwrap();
        let certificate_at = foreign.find("-----BEGIN CERTIFICATE").unwrap();
        let key_len = str::from_utf8(&whole).unwrap().find("-----BEGIN CERTIFICATE").unwrap();
        let swapped = [&whole[..key_len], &foreign.as_bytes()[certificate_at..]].concat();
        for bytes in [&b""[..], b"junk", &whole[..whole.len() / 2], &whole[key_len..], &swapped] {
            std::fs::write(path(folder.path()), bytes).unwrap();
            let error = Identity::load_or_make(folder.path()).unwrap_err();
            assert!(matches!(error, IdentityError::Damaged { .. }), "{error}");
            assert_eq!(std::fs::read(path(folder.path())).unwrap(), bytes);
        }
    }
}
