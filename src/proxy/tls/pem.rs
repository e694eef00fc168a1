//! Certificates, keys and CAs from PEM files, and what can be wrong with them. The text of a key never gets into an error.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{CertificateError, RootCertStore};
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use x509_parser::x509::X509Version;

use super::shown;

/// Why TLS cannot be set up. Every file is named.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum TlsError {
    #[error("{}: cannot be read: {kind}", path.display())]
    Unreadable { path: PathBuf, kind: io::ErrorKind },
    #[error("{}: is no PEM file: {what}", path.display())]
    Malformed { path: PathBuf, what: &'static str },
    #[error("{}: no certificate in it (BEGIN CERTIFICATE)", path.display())]
    NoCertificate { path: PathBuf },
    #[error("{}: certificate {position} of the file: {what}", path.display())]
    BadCertificate { path: PathBuf, position: usize, what: rustls::Error },
    #[error("{}: no certificate revocation list in it (BEGIN X509 CRL)", path.display())]
    NoRevocationList { path: PathBuf },
    #[error(
        "{}: the certificate revocation list is of version 1: make it anew with extensions (openssl ca -gencrl with crl_extensions and \
         crlnumber)",
        path.display()
    )]
    OldRevocationList { path: PathBuf },
    #[error("{}: {what}", path.display())]
    BadRevocationList { path: PathBuf, what: String },
    #[error("{}: no private key in it (BEGIN PRIVATE KEY, RSA PRIVATE KEY or EC PRIVATE KEY)", path.display())]
    NoKey { path: PathBuf },
    #[error("{}: the private key is encrypted; write it without a password (openssl pkey)", path.display())]
    EncryptedKey { path: PathBuf },
    #[error("{}: private key: {what}", path.display())]
    BadKey { path: PathBuf, what: rustls::Error },
    #[error("{}: the key does not match the certificate {}", key.display(), certificate.display())]
    KeyMismatch { certificate: PathBuf, key: PathBuf },
    #[error("without a CA file no certificate of a client can be verified")]
    ClientCaMissing,
    #[error("without a CA file nodes can only be verified with `verify: off`")]
    CaMissing,
    #[error("a certificate needs its key and a key its certificate")]
    HalfPair,
    #[error("{name:?} is neither a DNS name nor an IP address")]
    Name { name: String },
    #[error(transparent)]
    Rustls(#[from] rustls::Error),
}

/// Reads a certificate with its chain and the key that belongs to it.
pub fn read_certified_key(
    provider: &CryptoProvider,
    certificate: &Path,
    key: &Path,
) -> Result<Arc<SingleCertAndKey>, TlsError> {
    let chain = read_certificates(certificate)?;
    let signer = provider
        .key_provider
        .load_private_key(read_key(key)?)
        .map_err(|what| TlsError::BadKey { path: key.to_owned(), what })?;
    // By what the certificate says, for rustls cannot parse one of X.509 version 1, which clients may take all the same.
    let of_certificate = chain.first().and_then(|first| shown::public_key(first));
    let of_certificate = of_certificate.ok_or_else(|| TlsError::BadCertificate {
        path: certificate.to_owned(),
        position: 1,
        what: CertificateError::BadEncoding.into(),
    })?;
    if signer.public_key().is_some_and(|of_key| of_key != of_certificate) {
        return Err(TlsError::KeyMismatch { certificate: certificate.to_owned(), key: key.to_owned() });
    }
    Ok(Arc::new(SingleCertAndKey::from(CertifiedKey::new(chain, signer))))
}

/// Reads every certificate of the file as a CA.
pub fn read_roots(path: &Path) -> Result<RootCertStore, TlsError> {
    roots(path, &read_certificates(path)?)
}

/// The file's certificates as CAs.
pub fn roots(path: &Path, certificates: &[CertificateDer<'static>]) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for (certificate, position) in certificates.iter().zip(1..) {
        roots.add(certificate.clone()).map_err(|what| TlsError::BadCertificate {
            path: path.to_owned(),
            position,
            what,
        })?;
    }
    Ok(roots)
}

/// Every certificate of the file, in DER; one at least.
pub fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let text = read(path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match found {
        Ok(certificates) if certificates.is_empty() => Err(TlsError::NoCertificate { path: path.to_owned() }),
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(malformed(path, &error)),
    }
}

/// Every certificate revocation list of the file; one at least.
pub fn read_revocations(path: &Path) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
    let found: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(&read(path)?).collect();
    match found {
        Ok(lists) if lists.is_empty() => Err(TlsError::NoRevocationList { path: path.to_owned() }),
        Ok(lists) if lists.iter().any(is_version_1) => Err(TlsError::OldRevocationList { path: path.to_owned() }),
        Ok(lists) => Ok(lists),
        Err(error) => Err(malformed(path, &error)),
    }
}

/// `openssl ca -gencrl` makes such where its configuration names no `crl_extensions`; webpki cannot read it.
fn is_version_1(list: &CertificateRevocationListDer<'static>) -> bool {
    x509_parser::parse_x509_crl(list)
        .is_ok_and(|(_, list)| list.version().is_none_or(|version| version == X509Version::V1))
}

/// When the first list of the file is too old, as Unix time in seconds; None where none says.
pub fn revocations_end(path: &Path) -> Option<i64> {
    let end = |list: &CertificateRevocationListDer<'_>| {
        let (_, list) = x509_parser::parse_x509_crl(list).ok()?;
        Some(list.next_update()?.timestamp())
    };
    read_revocations(path).ok()?.iter().filter_map(end).min()
}

/// The first private key of the file: PKCS#8, PKCS#1 or SEC1.
fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let text = read(path)?;
    // PKCS#8 says it in the first line, OpenSSL's older form in a header.
    let has = |mark: &[u8]| text.windows(mark.len()).any(|window| window == mark);
    if has(b"BEGIN ENCRYPTED PRIVATE KEY") || has(b"Proc-Type: 4,ENCRYPTED") {
        return Err(TlsError::EncryptedKey { path: path.to_owned() });
    }
    PrivateKeyDer::from_pem_slice(&text).map_err(|error| match error {
        pem::Error::NoItemsFound => TlsError::NoKey { path: path.to_owned() },
        error => malformed(path, &error),
    })
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|error| TlsError::Unreadable { path: path.to_owned(), kind: error.kind() })
}

/// In words of our own: the library's quote lines of the file, which may be a key's.
fn malformed(path: &Path, error: &pem::Error) -> TlsError {
    let what = match error {
        pem::Error::MissingSectionEnd { .. } => "an END line is missing",
        pem::Error::IllegalSectionStart { .. } => "a BEGIN line is malformed",
        pem::Error::Base64Decode(_) => "what stands between BEGIN and END is not base64",
        _ => "it cannot be parsed",
    };
    TlsError::Malformed { path: path.to_owned(), what }
}
