//! What a certificate says of itself.

use std::net::IpAddr;
use std::path::Path;

use rustls_pki_types::SubjectPublicKeyInfoDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::x509::{AttributeTypeAndValue, X509Version};

use super::pem::{TlsError, read_certificates};
use crate::config::identity::{Kind, Pattern};

/// Characters of a name that are kept and logged: strangers make certificates, too, of up to 64 KiB.
const LONGEST_NAME: usize = 256;

/// What a certificate says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// X.509 version 1, without extensions: `openssl x509 -req` without an extension file makes it.
    pub is_version_1: bool,
    /// From when to when it is valid, as Unix time in seconds.
    pub begins: i64,
    pub ends: i64,
    /// Whom it is for: its alternative names, then what its subject says.
    pub names: Vec<(Kind, String)>,
}

impl Shown {
    /// The first certificate of the file.
    ///
    /// # Errors
    /// Names the file and what is wrong with it.
    pub fn read(path: &Path) -> Result<Self, TlsError> {
        let chain = read_certificates(path)?;
        let malformed = || TlsError::Malformed { path: path.to_owned(), what: "its certificate cannot be parsed" };
        chain.first().and_then(|first| Self::of(first)).ok_or_else(malformed)
    }

    /// Of a certificate in DER; None where that is none.
    pub fn of(der: &[u8]) -> Option<Self> {
        let certificate = parse(der)?;
        let validity = certificate.validity();
        let alternative = certificate.subject_alternative_name().ok().flatten();
        let alternative = alternative.iter().flat_map(|extension| &extension.value.general_names).filter_map(name);
        let subject = certificate.subject();
        let of_subject = attributes(Kind::CommonName, subject.iter_common_name())
            .chain(attributes(Kind::OrganizationalUnit, subject.iter_organizational_unit()))
            .chain(attributes(Kind::Organization, subject.iter_organization()));
        Some(Self {
            is_version_1: certificate.version() == X509Version::V1,
            begins: validity.not_before.timestamp(),
            ends: validity.not_after.timestamp(),
            names: alternative.chain(of_subject).collect(),
        })
    }

    /// Whether it is for whom the pattern means.
    pub fn is_meant_by(&self, pattern: &Pattern) -> bool {
        self.names.iter().any(|(kind, name)| pattern.matches(*kind, name))
    }

    /// The addresses that it is for.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.names.iter().filter(|(kind, _)| *kind == Kind::Ip).filter_map(|(_, name)| name.parse().ok())
    }

    /// Whether it is for this DNS name; one that begins with `*.` is for all names of one label more (RFC 6125 §6.4.3).
    pub fn is_for(&self, name: &str) -> bool {
        let name = name.strip_suffix('.').unwrap_or(name);
        let parent = name.split_once('.').map(|(_, parent)| parent);
        let is_it = |shown: &str| match shown.strip_prefix("*.") {
            Some(of) => parent.is_some_and(|parent| parent.eq_ignore_ascii_case(of)),
            None => shown.eq_ignore_ascii_case(name),
        };
        self.names.iter().any(|(kind, shown)| *kind == Kind::Dns && is_it(shown))
    }

    /// All names, as OpenSSL writes them.
    pub fn all_names(&self) -> String {
        let names = self.names.iter().map(|(kind, name)| format!("{}:{name}", kind.word()));
        names.collect::<Vec<_>>().join(", ")
    }

    /// Whom it is for, in a word: the beginning of its first name.
    pub fn name(&self) -> String {
        let cut = |name: &str| name.chars().take(LONGEST_NAME).collect::<String>();
        self.names.first().map_or_else(String::new, |(kind, name)| format!("{}:{}", kind.word(), cut(name)))
    }
}

/// The public key of a certificate in DER, also of one that rustls cannot parse.
pub fn public_key(der: &[u8]) -> Option<SubjectPublicKeyInfoDer<'static>> {
    Some(SubjectPublicKeyInfoDer::from(parse(der)?.public_key().raw.to_vec()))
}

fn parse(der: &[u8]) -> Option<X509Certificate<'_>> {
    x509_parser::parse_x509_certificate(der)
        .ok()
        .filter(|(rest, _)| rest.is_empty())
        .map(|(_, certificate)| certificate)
}

fn name(name: &GeneralName<'_>) -> Option<(Kind, String)> {
    match name {
        GeneralName::URI(uri) => Some((Kind::Uri, (*uri).to_owned())),
        GeneralName::DNSName(name) => Some((Kind::Dns, (*name).to_owned())),
        GeneralName::RFC822Name(name) => Some((Kind::Email, (*name).to_owned())),
        GeneralName::IPAddress(bytes) => Some((Kind::Ip, address(bytes)?.to_string())),
        _ => None,
    }
}

fn attributes<'a>(
    kind: Kind,
    values: impl Iterator<Item = &'a AttributeTypeAndValue<'a>>,
) -> impl Iterator<Item = (Kind, String)> {
    values.filter_map(move |value| Some((kind, value.as_str().ok()?.to_owned())))
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}
