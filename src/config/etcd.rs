//! The keys of `arbiter = "etcd"`.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::path::PathBuf;
use std::time::Duration;

use toml::Spanned;

use super::check::{Check, of, span_of};
use super::file::PromotionSection;
use super::mistake::{Caution, Mistake};
use super::values::{AbsolutePath, Text, Written};

/// Where etcd is, and who we are there.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct EtcdAt {
    /// Its members, in the order in which they are asked.
    pub endpoints: Vec<EtcdEndpoint>,
    /// File with the certificates of who may vouch for a member; present if one is `https://`.
    pub ca: Option<PathBuf>,
    /// Files with our own certificate and its private key.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// A user, and the file with its password.
    pub login: Option<(String, PathBuf)>,
}

/// One member of etcd.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct EtcdEndpoint {
    /// `https://`.
    pub is_encrypted: bool,
    /// An address, or a name.
    pub host: String,
    /// The port for clients.
    pub port: u16,
}

impl EtcdEndpoint {
    /// Host and port, as they stand in a URL.
    pub fn authority(&self) -> String {
        let Self { host, port, .. } = self;
        if host.parse::<Ipv6Addr>().is_ok() {
            format!("[{host}]:{port}")
        } else {
            format!("{host}:{port}")
        }
    }

    /// Whether what is said to it stays on this host.
    fn is_local(&self) -> bool {
        self.host == "localhost" || self.host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
    }
}

impl fmt::Display for EtcdEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_encrypted { "https" } else { "http" };
        write!(f, "{scheme}://{}", self.authority())
    }
}

impl Text for EtcdEndpoint {
    const EXPECTED: &'static str =
        "\"http://ADDRESS:PORT\" or \"https://NAME:PORT\", such as \"http://192.0.2.3:2379\"";

    fn read(text: &str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        let is_encrypted = match scheme {
            "http" => false,
            "https" => true,
            _ => return None,
        };
        let (host, port) = rest.rsplit_once(':')?;
        let is_number = port.bytes().all(|digit| digit.is_ascii_digit());
        let port = port.parse().ok().filter(|port| is_number && *port != 0)?;
        let host = if let Some(inner) = host.strip_prefix('[') {
            inner.strip_suffix(']')?.parse::<Ipv6Addr>().ok()?.to_string()
        } else {
            let is_text = |byte: u8| byte.is_ascii_alphanumeric() || b".-".contains(&byte);
            let is_name = !host.is_empty() && host.len() <= HOST_LEN_MAX;
            (is_name && host.bytes().all(is_text)).then(|| host.to_owned())?
        };
        let is_nowhere = host.parse().is_ok_and(|ip: IpAddr| ip.is_unspecified());
        (!is_nowhere).then_some(Self { is_encrypted, host, port })
    }
}

/// Name of a user of etcd.
#[derive(Clone, Debug)]
pub(super) struct EtcdUser(pub(super) String);

impl Text for EtcdUser {
    const EXPECTED: &'static str = "the name of a user of etcd, of at most 255 bytes";

    fn read(text: &str) -> Option<Self> {
        let is_text = !text.chars().any(char::is_control);
        (!text.is_empty() && text.len() <= 255 && is_text).then(|| Self(text.to_owned()))
    }
}

/// Longest name of a host, in bytes. Source: RFC 1035, section 2.3.4.
const HOST_LEN_MAX: usize = 253;
/// Most members; etcd's documentation advises against more than seven.
const ENDPOINTS_MAX: usize = 9;
/// Shortest lease. etcd makes shorter ones longer: to one and a half times its own election
/// timeout, which is a second.
const LEASE_MIN: Duration = Duration::from_secs(2);
const LEASE_MAX: Duration = Duration::from_mins(10);

impl Check {
    /// Where etcd is; the span is that of `arbiter`.
    pub(super) fn etcd(
        &mut self,
        section: &PromotionSection,
        written: std::ops::Range<usize>,
    ) -> Option<EtcdAt> {
        if !cfg!(feature = "etcd") {
            self.wrong(written, Mistake::NoEtcd);
            return None;
        }
        self.etcd_lease(section);
        let at = "[promotion]";
        let Some(list) = &section.etcd else {
            return self.missing(written, at, "etcd", "etcd = [\"http://192.0.2.3:2379\"]");
        };
        let endpoints = self.endpoints(list);
        let ca = path_of(section.etcd_ca.as_ref());
        let is_encrypted = endpoints.iter().any(|endpoint| endpoint.is_encrypted);
        if is_encrypted && !cfg!(feature = "_tls") {
            self.wrong(list.span(), Mistake::NoTlsForEtcd);
        } else if is_encrypted && ca.is_none() {
            let example = "etcd_ca = \"/etc/hotpair/etcd-ca.pem\"";
            self.missing::<()>(list.span(), at, "etcd_ca", example);
        }
        for (key, file) in [("etcd_ca", &section.etcd_ca), ("etcd_cert", &section.etcd_cert)] {
            if let Some(file) = file.as_ref().filter(|_| !is_encrypted) {
                self.warn(file.span(), Caution::HttpsOnly { key });
            }
        }
        let identity = self.both(
            ("etcd_cert", section.etcd_cert.as_ref(), "etcd_cert = \"/etc/hotpair/etcd.pem\""),
            ("etcd_key", section.etcd_key.as_ref(), "etcd_key = \"/etc/hotpair/etcd.key\""),
            |path: &AbsolutePath| path.0.clone(),
        );
        let login = self.both(
            ("etcd_user", section.etcd_user.as_ref(), "etcd_user = \"hotpair\""),
            (
                "etcd_password_file",
                section.etcd_password_file.as_ref(),
                "etcd_password_file = \"/etc/hotpair/etcd-password\"",
            ),
            |user: &EtcdUser| user.0.clone(),
        );
        (!endpoints.is_empty()).then_some(EtcdAt { endpoints, ca, identity, login })
    }

    /// Keys of etcd that have no effect, since the arbiter is another one.
    pub(super) fn no_etcd(&mut self, section: &PromotionSection) {
        let spans = [
            ("etcd", section.etcd.as_ref().map(Spanned::span)),
            ("etcd_ca", section.etcd_ca.as_ref().map(Spanned::span)),
            ("etcd_cert", section.etcd_cert.as_ref().map(Spanned::span)),
            ("etcd_key", section.etcd_key.as_ref().map(Spanned::span)),
            ("etcd_user", section.etcd_user.as_ref().map(Spanned::span)),
            ("etcd_password_file", section.etcd_password_file.as_ref().map(Spanned::span)),
        ];
        self.other_arbiter("etcd", spans);
    }

    pub(super) fn other_arbiter<const N: usize>(
        &mut self,
        arbiter: &'static str,
        spans: [(&'static str, Option<std::ops::Range<usize>>); N],
    ) {
        for (key, span) in spans {
            if let Some(span) = span {
                self.warn(span, Caution::OtherArbiter { key, arbiter });
            }
        }
    }

    fn endpoints(
        &mut self,
        list: &Spanned<Vec<Spanned<Written<EtcdEndpoint>>>>,
    ) -> Vec<EtcdEndpoint> {
        let all = list.get_ref();
        if all.is_empty() || all.len() > ENDPOINTS_MAX {
            let (found, max) = (all.len(), ENDPOINTS_MAX);
            self.wrong(list.span(), Mistake::EndpointCount { found, max });
            return Vec::new();
        }
        let mut endpoints = Vec::new();
        for written in all {
            let endpoint = of(written);
            if endpoints.contains(endpoint) {
                let endpoint = endpoint.to_string();
                self.wrong(written.span(), Mistake::SameEndpoint { endpoint });
            } else if !endpoint.is_encrypted && !endpoint.is_local() {
                let endpoint = endpoint.to_string();
                self.warn(written.span(), Caution::EtcdInTheClear { endpoint });
            }
            endpoints.push(endpoint.clone());
        }
        endpoints
    }

    fn etcd_lease(&mut self, section: &PromotionSection) {
        let Some(lease) = span_of(section.lease.as_ref()) else { return };
        if lease.subsec_nanos() != 0 || !(LEASE_MIN..=LEASE_MAX).contains(&lease) {
            let span = section.lease.as_ref().map_or(0..0, Spanned::span);
            let instead = lease.as_secs() + u64::from(lease.subsec_nanos() != 0);
            let instead = Duration::from_secs(instead).clamp(LEASE_MIN, LEASE_MAX);
            self.wrong(span, Mistake::EtcdLease { lease, instead });
        }
    }

    /// Two keys of which neither has a meaning alone; the second is a file.
    fn both<T, U>(
        &mut self,
        first: (&'static str, Option<&Spanned<Written<T>>>, &str),
        second: (&'static str, Option<&Spanned<Written<AbsolutePath>>>, &str),
        read: impl Fn(&T) -> U,
    ) -> Option<(U, PathBuf)> {
        match (first.1, second.1) {
            (Some(is), Some(file)) => Some((read(of(is)), of(file).0.clone())),
            (Some(is), None) => self.missing(is.span(), "[promotion]", second.0, second.2),
            (None, Some(file)) => self.missing(file.span(), "[promotion]", first.0, first.2),
            (None, None) => None,
        }
    }
}

fn path_of(written: Option<&Spanned<Written<AbsolutePath>>>) -> Option<PathBuf> {
    written.map(|written| of(written).0.clone())
}

#[cfg(test)]
mod tests {
    use super::super::tests::{complaints, good};
    #[cfg(feature = "etcd")]
    use super::super::{Arbiter, Warning, parse};
    use super::*;

    #[test]
    fn a_member_has_a_scheme_a_host_and_a_port() {
        for good in [
            "http://192.0.2.3:2379",
            "https://etcd-1.example:2379",
            "http://[2001:db8::1]:2379",
            "http://localhost:1",
        ] {
            assert_eq!(EtcdEndpoint::read(good).unwrap().to_string(), good);
        }
        for bad in [
            "192.0.2.3:2379",
            "http://192.0.2.3",
            "http://192.0.2.3:0",
            "http://192.0.2.3:+1",
            "http://192.0.2.3:70000",
            "http://192.0.2.3:2379/",
            "http://u:p@192.0.2.3:2379",
            "http://:2379",
            "http://0.0.0.0:2379",
            "http://[::]:2379",
            "http://2001:db8::1:2379",
            "http://a b:2379",
            "ftp://192.0.2.3:2379",
            "",
        ] {
            assert!(EtcdEndpoint::read(bad).is_none(), "{bad}");
        }
    }

    /// What is wrong with a `[promotion]` with etcd, and what is worth a warning.
    #[cfg(feature = "etcd")]
    fn with_etcd(lines: &str) -> (Vec<String>, Vec<String>) {
        let text = good() + "[promotion]\narbiter = \"etcd\"\n" + lines;
        match parse(&text) {
            Ok(parsed) => {
                let cautions = parsed.warnings.iter().map(Warning::what);
                (Vec::new(), cautions.map(|it| format!("{it}: {}", it.mend())).collect())
            }
            Err(_) => (complaints(&text), Vec::new()),
        }
    }

    #[test]
    #[cfg(feature = "etcd")]
    fn a_pair_with_etcd_names_its_members() {
        let etcd = "[promotion]\nauto = \"arbiter\"\narbiter = \"etcd\"\n\
                    etcd = [\"http://127.0.0.1:2379\", \"http://[::1]:2379\"]\n\
                    etcd_user = \"hotpair\"\netcd_password_file = \"/p\"\n";
        let parsed = parse(&(good() + etcd)).unwrap();
        let alpha = parsed.config.for_node("alpha").unwrap();
        let Arbiter::Etcd(at) = &alpha.promotion.arbiter else { panic!("another arbiter") };
        assert_eq!(at.endpoints[1].to_string(), "http://[::1]:2379");
        assert_eq!((at.endpoints[1].host.as_str(), at.endpoints[1].port), ("::1", 2379));
        assert_eq!(at.login, Some(("hotpair".to_owned(), "/p".into())));
        assert_eq!(alpha.node.heartbeat, [alpha.node.replication], "as with a witness");
        let hash = |text: &str| {
            parse(text).unwrap().config.for_node("beta").unwrap().resources[0].settings_hash
        };
        assert_ne!(hash(&(good() + etcd)), hash(&good()));
    }

    #[test]
    #[cfg(feature = "etcd")]
    fn a_mistake_about_etcd_names_the_way_out() {
        let local = "etcd = [\"http://127.0.0.1:2379\"]\n";
        let ways = "etcd counts whole seconds, and makes shorter leases longer: set `lease` to";
        for (lines, wrong) in [
            (
                String::new(),
                "15: [promotion] has no `etcd`: add a line such as: \
                 etcd = [\"http://192.0.2.3:2379\"]"
                    .to_owned(),
            ),
            (
                "etcd = []".to_owned(),
                "16: `etcd` names 1 to 9 members, found 0: name the address for clients of each \
                 member: etcd = [\"http://192.0.2.3:2379\"]"
                    .to_owned(),
            ),
            (
                "etcd = [\"192.0.2.3:2379\"]".to_owned(),
                format!("16: bad value \"192.0.2.3:2379\": expected {}", EtcdEndpoint::EXPECTED),
            ),
            (
                "etcd = [\"http://127.0.0.1:1\", \"http://127.0.0.1:1\"]".to_owned(),
                "16: the member http://127.0.0.1:1 of etcd stands twice: name each member once"
                    .to_owned(),
            ),
            (
                format!("{local}lease = \"3500ms\""),
                format!(
                    "17: `lease` (3s 500ms) must be 2s to 10m in whole seconds with etcd: {ways} 4s"
                ),
            ),
            (
                format!("{local}lease = \"11m\""),
                format!(
                    "17: `lease` (11m) must be 2s to 10m in whole seconds with etcd: {ways} 10m"
                ),
            ),
            (
                format!("{local}etcd_user = \"u\""),
                "17: [promotion] has no `etcd_password_file`: add a line such as: \
                 etcd_password_file = \"/etc/hotpair/etcd-password\""
                    .to_owned(),
            ),
            (
                format!("{local}etcd_key = \"/k\""),
                "17: [promotion] has no `etcd_cert`: add a line such as: \
                 etcd_cert = \"/etc/hotpair/etcd.pem\""
                    .to_owned(),
            ),
        ] {
            assert_eq!(with_etcd(&lines).0, [wrong], "{lines}");
        }
        let encrypted = with_etcd("etcd = [\"https://a.example:2379\"]").0;
        let missing = if cfg!(feature = "_tls") { "no `etcd_ca`" } else { "has no TLS" };
        assert!(encrypted[0].contains(missing), "{encrypted:?}");
    }

    #[test]
    #[cfg(feature = "etcd")]
    fn what_has_no_effect_and_what_is_a_risk_is_said() {
        let (_, cautions) = with_etcd(
            "etcd = [\"http://192.0.2.3:2379\"]\netcd_ca = \"/ca\"\nwitness = \"192.0.2.3:1\"\n",
        );
        for caution in [
            "what is said to http://192.0.2.3:2379 is neither encrypted nor authenticated: whoever \
             reaches that network can decide who serves: write https:// and `etcd_ca`",
            "`etcd_ca` has no effect: no member of etcd is `https://`: write https://, or remove it",
            "`witness` has no effect without arbiter = \"witness\": set arbiter = \"witness\", or \
             remove it",
        ] {
            assert!(cautions.iter().any(|it| it == caution), "{caution}: {cautions:#?}");
        }
        let other = good() + "[promotion]\netcd = [\"http://127.0.0.1:2379\"]\n";
        let cautions = parse(&other).unwrap().warnings;
        let caution = Caution::OtherArbiter { key: "etcd", arbiter: "etcd" };
        assert!(cautions.iter().any(|it| *it.what() == caution));
    }

    #[test]
    #[cfg(not(feature = "etcd"))]
    fn a_build_without_etcd_says_so() {
        let etcd = "[promotion]\narbiter = \"etcd\"\netcd = [\"http://127.0.0.1:1\"]\n";
        let said = "15: arbiter = \"etcd\", and this build of hotpair has no etcd: build it with \
                    the feature \"etcd\", or use a witness";
        assert_eq!(complaints(&(good() + etcd)), [said]);
    }
}
