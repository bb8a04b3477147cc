//! TLS between the nodes: with what, and who is trusted.
//!
//! The only file that knows rustls' configuration. TLS 1.3 only; both ends show a certificate, and
//! a peer is trusted if the SHA-256 of its public key is one of those configured and it signs the
//! handshake with that key. Names, dates and authorities are ignored, so a clock that jumps cuts
//! no link. Sessions are never resumed: each connection proves both keys anew.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ClientConfig, Resumption};
use rustls::crypto::hash::HashAlgorithm;
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, ParsedCertificate, ServerConfig};
use rustls::sign::SingleCertAndKey;
use rustls::{
    AlertDescription, CertificateError, DigitallySignedStruct, DistinguishedName, Error,
    OtherError, PeerMisbehaved, SignatureScheme,
};

use super::identity::{Fingerprint, Identity};

/// Both halves of one node's TLS configuration, made from one identity and the keys it trusts.
#[derive(Clone, Debug)]
pub struct TlsConfigs {
    /// For connections that this node opens.
    pub client: Arc<ClientConfig>,
    /// For connections that this node accepts.
    pub server: Arc<ServerConfig>,
    pins: Arc<Pins>,
    mine: Fingerprint,
}

impl TlsConfigs {
    /// Shows `identity` and trusts exactly the keys of `pins`, each of which belongs to one name.
    /// The application protocol `alpn` must be the one agreed on.
    ///
    /// # Errors
    /// If the crypto provider lacks TLS 1.3, which is a mistake of the build.
    pub fn new(
        identity: Identity,
        pins: BTreeMap<Fingerprint, String>,
        alpn: &[u8],
    ) -> Result<Self, Error> {
        let provider = provider();
        let mine = identity.fingerprint();
        let pins = Arc::new(Pins { algorithms: provider.signature_verification_algorithms, pins });
        let key = Arc::new(SingleCertAndKey::from(identity.into_key()));
        let versions = [&rustls::version::TLS13];

        let mut client = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&versions)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::clone(&pins) as Arc<dyn ServerCertVerifier>)
            .with_client_cert_resolver(Arc::clone(&key) as _);
        client.alpn_protocols = vec![alpn.to_vec()];
        client.resumption = Resumption::disabled();
        client.enable_sni = false;

        let mut server = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&versions)?
            .with_client_cert_verifier(Arc::clone(&pins) as Arc<dyn ClientCertVerifier>)
            .with_cert_resolver(key);
        server.alpn_protocols = vec![alpn.to_vec()];
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;

        Ok(Self { client: Arc::new(client), server: Arc::new(server), pins, mine })
    }

    /// The configured name whose key the other end of a finished handshake has proved, if also
    /// the application protocol was agreed on.
    pub fn peer_of(&self, session: &rustls::Connection) -> Option<&str> {
        // Every server of ours offers one protocol; a client that offers none is not ours.
        if session.alpn_protocol() != self.server.alpn_protocols.first().map(Vec::as_slice) {
            return None;
        }
        let certificate = session.peer_certificates()?.first()?;
        self.pins.name_of(certificate).ok()
    }

    /// The fingerprint of this node.
    pub fn mine(&self) -> Fingerprint {
        self.mine
    }

    /// Who is trusted, in words.
    pub(super) fn expected(&self) -> String {
        let pins = self.pins.pins.iter();
        pins.map(|(pin, node)| format!("{node}, {pin}")).collect::<Vec<_>>().join(" or ")
    }

    /// Key material that only the two ends of this connection know.
    ///
    /// # Errors
    /// If the handshake is not finished.
    pub fn exporter_of(session: &rustls::Connection) -> Result<[u8; 32], Error> {
        session.export_keying_material([0; 32], EXPORTER_LABEL, None)
    }
}

/// What a node and a witness must agree on inside TLS.
const WITNESS_ALPN: &[u8] = b"hotpair-witness/1";

/// For a witness: shows `identity` and takes any key that the other end proves. It knows no node
/// before that enrolls; whose key may do what is up to its records.
///
/// # Errors
/// If the crypto provider lacks TLS 1.3, which is a mistake of the build.
pub(super) fn witness_server(identity: Identity) -> Result<Arc<ServerConfig>, Error> {
    let provider = provider();
    let any = Arc::new(AnyKey { algorithms: provider.signature_verification_algorithms });
    let mut server = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(any)
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(identity.into_key())));
    server.alpn_protocols = vec![WITNESS_ALPN.to_vec()];
    server.session_storage = Arc::new(NoServerSessionStorage {});
    server.send_tls13_tickets = 0;
    Ok(Arc::new(server))
}

/// For a node that asks a witness: shows `identity` and trusts the key `pin` only.
///
/// # Errors
/// As [`witness_server`].
pub(super) fn witness_client(
    identity: Identity,
    pin: Fingerprint,
) -> Result<Arc<ClientConfig>, Error> {
    let pins = BTreeMap::from([(pin, "witness".to_owned())]);
    Ok(TlsConfigs::new(identity, pins, WITNESS_ALPN)?.client)
}

/// The key that a node proved to a witness, if also the application protocol was agreed on.
pub(super) fn key_of_node(session: &rustls::ServerConnection) -> Option<[u8; 32]> {
    if session.alpn_protocol() != Some(WITNESS_ALPN) {
        return None;
    }
    fingerprint(session.peer_certificates()?.first()?).ok().map(|it| it.0)
}

/// Whether the other end, which proved the key of the witness, agreed on its protocol.
pub(super) fn is_witness(session: &rustls::ClientConnection) -> bool {
    session.alpn_protocol() == Some(WITNESS_ALPN)
}

/// Names what the exported key material is for, as RFC 8446, section 7.5 wants it.
const EXPORTER_LABEL: &[u8] = b"EXPORTER-hotpair-session-1";

/// The name given to TLS where it wants one; nobody looks at it.
pub(super) fn any_name() -> ServerName<'static> {
    ServerName::try_from("hotpair").expect("a host name")
}

/// The cryptography that this build was made with. Never the process-wide default: with two
/// providers compiled in there is none.
pub(super) fn provider() -> Arc<CryptoProvider> {
    #[cfg(feature = "tls-aws-lc")]
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    #[cfg(not(feature = "tls-aws-lc"))]
    let provider = rustls::crypto::ring::default_provider();
    Arc::new(provider)
}

/// SHA-256 of the public key that `certificate` shows.
pub(super) fn fingerprint(certificate: &CertificateDer<'_>) -> Result<Fingerprint, Error> {
    let parsed = ParsedCertificate::try_from(certificate)?;
    let digest = sha256(&parsed.subject_public_key_info());
    Ok(Fingerprint(digest))
}

/// SHA-256 by way of a cipher suite that has to bring it.
fn sha256(bytes: &[u8]) -> [u8; 32] {
    let suites = provider().cipher_suites.clone();
    let hash = suites
        .iter()
        .filter_map(rustls::SupportedCipherSuite::tls13)
        .map(|suite| suite.common.hash_provider)
        .find(|hash| hash.algorithm() == HashAlgorithm::SHA256)
        .expect("TLS 1.3 requires TLS_AES_128_GCM_SHA256");
    hash.hash(bytes).as_ref().try_into().expect("SHA-256 has 32 bytes")
}

/// The keys that are trusted, and whose they are.
#[derive(Debug)]
struct Pins {
    pins: BTreeMap<Fingerprint, String>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Pins {
    fn name_of(&self, certificate: &CertificateDer<'_>) -> Result<&str, Error> {
        let shown = fingerprint(certificate)?;
        self.pins.get(&shown).map(String::as_str).ok_or_else(|| {
            let unknown = OtherError(Arc::new(UnknownKey { shown }));
            Error::InvalidCertificate(CertificateError::Other(unknown))
        })
    }

    fn check_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }
}

/// The other end showed a key that is not configured.
#[derive(Debug, thiserror::Error)]
#[error("the key {shown} is not configured")]
struct UnknownKey {
    shown: Fingerprint,
}

/// What a handshake failed for, where somebody can do something about it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum HandshakeFailure {
    /// The key that the other end showed is not configured.
    UnknownKey(Fingerprint),
    /// The other end does not accept ours.
    OurKey,
    /// What came is not TLS.
    NotTls,
    /// The connection was closed in the middle.
    HungUp,
}

impl HandshakeFailure {
    /// Why a handshake was given up, if it was for one of these.
    pub(super) fn of(error: &io::Error) -> Option<Self> {
        match error.get_ref().and_then(|inner| inner.downcast_ref()) {
            Some(Error::InvalidCertificate(CertificateError::Other(OtherError(inner)))) => {
                inner.downcast_ref().map(|unknown: &UnknownKey| Self::UnknownKey(unknown.shown))
            }
            Some(Error::InvalidMessage(_)) => Some(Self::NotTls),
            Some(error) => refuses_our_key(error).then_some(Self::OurKey),
            None => matches!(
                error.kind(),
                ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe
            )
            .then_some(Self::HungUp),
        }
    }
}

/// Whether the other end says that our certificate, which only carries our key, is not accepted.
pub(super) fn refuses_our_key(error: &Error) -> bool {
    matches!(
        error,
        Error::AlertReceived(
            AlertDescription::AccessDenied
                | AlertDescription::BadCertificate
                | AlertDescription::CertificateRequired
                | AlertDescription::CertificateUnknown
                | AlertDescription::UnknownCA
        )
    )
}

impl ServerCertVerifier for Pins {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.name_of(end_entity).map(|_| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.check_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl ClientCertVerifier for Pins {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.name_of(end_entity).map(|_| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.check_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Takes any key, if the other end signs the handshake with it.
#[derive(Debug)]
struct AnyKey {
    algorithms: WebPkiSupportedAlgorithms,
}

impl ClientCertVerifier for AnyKey {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        // One whose key cannot be named could not be told from another.
        fingerprint(end_entity).map(|_| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
