//! Which certificates of clients are accepted (`tls.clients.client_auth`).

use std::fmt;
use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::CryptoProvider;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, SignatureScheme};
use rustls_pki_types::{CertificateDer, UnixTime};

use super::pem::{self, TlsError};
use super::shown::Shown;
use super::verify::VersionOne;
use crate::config::identity::Pattern;
use crate::config::{AuthMode, ClientAuth, CrlExpired};
use crate::label::label_set;

label_set! {
    /// Why a client's certificate was not accepted.
    pub enum CertificateRefused {
        /// There is none, and one is required.
        Absent = "absent",
        Expired = "expired",
        NotYetValid = "not_yet_valid",
        UnknownIssuer = "unknown_issuer",
        Revoked = "revoked",
        /// No list of its issuer says whether it is revoked, or that list is too old.
        RevocationUnknown = "revocation_unknown",
        RevocationExpired = "revocation_expired",
        /// It is no client's.
        Purpose = "purpose",
        /// X.509 version 1.
        Version = "version",
        /// In no pattern of client_auth.allow.
        NotAllowed = "not_allowed",
        /// In none of tls.nodes.identities.
        NoIdentity = "no_identity",
        Other = "other",
    }
}

impl CertificateRefused {
    /// Why a handshake failed, if it was for the client's certificate.
    pub fn of(error: &std::io::Error) -> Option<Self> {
        let error = error.get_ref()?.downcast_ref::<Error>()?;
        let certificate = match error {
            Error::NoCertificatesPresented => return Some(Self::Absent),
            Error::InvalidCertRevocationList(_) => return Some(Self::RevocationUnknown),
            Error::InvalidCertificate(certificate) => certificate,
            _ => return None,
        };
        Some(match certificate {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => Self::Expired,
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => Self::NotYetValid,
            // A CA of the same name with another key is another one.
            CertificateError::UnknownIssuer | CertificateError::BadSignature => Self::UnknownIssuer,
            CertificateError::Revoked => Self::Revoked,
            CertificateError::UnknownRevocationStatus => Self::RevocationUnknown,
            CertificateError::ExpiredRevocationList | CertificateError::ExpiredRevocationListContext { .. } => {
                Self::RevocationExpired
            }
            CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => Self::Purpose,
            CertificateError::ApplicationVerificationFailure => Self::NotAllowed,
            CertificateError::Other(OtherError(other)) if other.is::<VersionOne>() => Self::Version,
            _ => Self::Other,
        })
    }
}

/// What verifies clients; None where they are not asked.
///
/// # Errors
/// Names the file and what is wrong with it, or the key that is missing.
pub(super) fn verifier(
    auth: &ClientAuth,
    provider: Arc<CryptoProvider>,
) -> Result<Option<Arc<dyn ClientCertVerifier>>, TlsError> {
    if auth.mode == AuthMode::Off {
        return Ok(None);
    }
    let ca = auth.ca.as_deref().ok_or(TlsError::ClientCaMissing)?;
    let mut builder = WebPkiClientVerifier::builder_with_provider(Arc::new(pem::read_roots(ca)?), provider);
    if let Some(crl) = &auth.crl {
        builder = builder.with_crls(pem::read_revocations(crl)?);
    }
    if auth.crl_expired == CrlExpired::Refuse {
        builder = builder.enforce_revocation_expiration();
    }
    if auth.mode == AuthMode::Optional {
        builder = builder.allow_unauthenticated();
    }
    let path = auth.crl.as_deref().unwrap_or(ca);
    let chain = builder
        .build()
        .map_err(|error| TlsError::BadRevocationList { path: path.to_owned(), what: error.to_string() })?;
    Ok(Some(Arc::new(Listed { chain, allow: auth.allow.clone() })))
}

/// Chain, dates, purpose and revocation are rustls's to judge; then the names.
struct Listed {
    chain: Arc<dyn ClientCertVerifier>,
    allow: Option<Vec<Pattern>>,
}

impl fmt::Debug for Listed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listed").field("allow", &self.allow).finish_non_exhaustive()
    }
}

impl ClientCertVerifier for Listed {
    fn offer_client_auth(&self) -> bool {
        self.chain.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.chain.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chain.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let shown = Shown::of(end_entity).ok_or(CertificateError::BadEncoding)?;
        if shown.is_version_1 {
            return Err(VersionOne::error(&shown, ""));
        }
        let verified = self.chain.verify_client_cert(end_entity, intermediates, now)?;
        match &self.allow {
            Some(allow) if !allow.iter().any(|pattern| shown.is_meant_by(pattern)) => {
                Err(CertificateError::ApplicationVerificationFailure.into())
            }
            _ => Ok(verified),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

#[cfg(test)]
pub(super) mod tests;
