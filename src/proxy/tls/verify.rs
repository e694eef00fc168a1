//! Whether a node is who it should be, as far as [`crate::config::Verify`] wants to know.
//!
//! A certificate that stands in the CA file byte for byte is trusted as it is: possession of its key and its dates are looked at; chain,
//! usage and name are not. So people list one certificate for all nodes, or each node's own, which Java and OpenSSL take as well, and of
//! which webpki takes neither: it refuses a CA's certificate in a server's place, and cannot parse X.509 version 1 at all.

use std::fmt;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
    verify_tls13_signature_with_raw_key,
};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, DigitallySignedStruct, Error, OtherError, PeerMisbehaved, RootCertStore, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use webpki::RawPublicKeyEntity;

use super::pem::{self, TlsError};
use super::shown::{Shown, public_key};
use crate::config::{NodeTls, Verify};

/// A certificate of X.509 version 1 where only its listing could make it trusted.
#[derive(thiserror::Error)]
#[error(
    "the certificate of {name:?} is of X.509 version 1, which cannot say what it is for: sign it anew with an extension file \
     (openssl x509 -req -extfile){otherwise}"
)]
pub struct VersionOne {
    name: String,
    otherwise: &'static str,
}

/// As rustls shows it in a line.
impl fmt::Debug for VersionOne {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl VersionOne {
    /// `otherwise`: what else helps.
    pub(super) fn error(shown: &Shown, otherwise: &'static str) -> Error {
        CertificateError::Other(OtherError(Arc::new(Self { name: shown.name(), otherwise }))).into()
    }
}

/// Verifies nodes.
#[derive(Debug)]
pub struct Nodes {
    /// None with `verify: off`: encrypted, to whoever answers. Signatures are not looked at either: without a certificate to trust they
    /// prove nothing.
    trust: Option<Trust>,
    algorithms: WebPkiSupportedAlgorithms,
}

/// Who is trusted.
#[derive(Debug)]
struct Trust {
    /// What the CA file holds.
    listed: Vec<CertificateDer<'static>>,
    issued: Issued,
}

/// How those are looked at that a CA has issued.
#[derive(Debug)]
enum Issued {
    /// Chain and name.
    Full(Arc<WebPkiServerVerifier>),
    /// `verify: ca`: signed by one of the CAs and valid today, whatever name it carries. For clusters whose certificates name the
    /// cluster and not the node.
    Chain(RootCertStore),
}

impl Trust {
    /// The key of a certificate that is listed.
    fn listed_key(&self, certificate: &CertificateDer<'_>) -> Option<SubjectPublicKeyInfoDer<'static>> {
        self.lists(certificate).then(|| public_key(certificate)).flatten()
    }

    fn lists(&self, certificate: &CertificateDer<'_>) -> bool {
        self.listed.iter().any(|listed| listed == certificate)
    }
}

impl Nodes {
    /// # Errors
    /// Names the CA file and what is wrong with it, or says that it is missing.
    pub(super) fn new(tls: &NodeTls, provider: &Arc<CryptoProvider>) -> Result<Self, TlsError> {
        let algorithms = provider.signature_verification_algorithms;
        let ca = match (&tls.ca, tls.verify) {
            (_, Verify::Off) => return Ok(Self { trust: None, algorithms }),
            (Some(ca), _) => ca,
            (None, _) => return Err(TlsError::CaMissing),
        };
        let listed = pem::read_certificates(ca)?;
        let roots = pem::roots(ca, &listed)?;
        let issued = if tls.verify == Verify::Full {
            let builder = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
            Issued::Full(builder.build().map_err(|error| Error::General(error.to_string()))?)
        } else {
            Issued::Chain(roots)
        };
        Ok(Self { trust: Some(Trust { listed, issued }), algorithms })
    }
}

impl ServerCertVerifier for Nodes {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(trust) = &self.trust else { return Ok(ServerCertVerified::assertion()) };
        let shown = Shown::of(end_entity).ok_or(CertificateError::BadEncoding)?;
        if trust.lists(end_entity) {
            let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
            return match now {
                _ if now < shown.begins => Err(CertificateError::NotValidYet.into()),
                _ if now > shown.ends => Err(CertificateError::Expired.into()),
                _ => Ok(ServerCertVerified::assertion()),
            };
        }
        if shown.is_version_1 {
            return Err(VersionOne::error(&shown, ", or list it, as it is, in tls.nodes.ca"));
        }
        match &trust.issued {
            Issued::Full(full) => full.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now),
            Issued::Chain(roots) => {
                let end_entity = ParsedCertificate::try_from(end_entity)?;
                verify_server_cert_signed_by_trust_anchor(&end_entity, roots, intermediates, now, self.algorithms.all)?;
                Ok(ServerCertVerified::assertion())
            }
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let Some(trust) = &self.trust else { return Ok(HandshakeSignatureValid::assertion()) };
        match trust.listed_key(cert) {
            Some(key) => verify_tls12_signature_with_raw_key(message, &key, dss, &self.algorithms),
            None => verify_tls12_signature(message, cert, dss, &self.algorithms),
        }
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let Some(trust) = &self.trust else { return Ok(HandshakeSignatureValid::assertion()) };
        match trust.listed_key(cert) {
            Some(key) => verify_tls13_signature_with_raw_key(message, &key, dss, &self.algorithms),
            None => verify_tls13_signature(message, cert, dss, &self.algorithms),
        }
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// As rustls does it for TLS 1.3. In TLS 1.2 a scheme names no curve, and any of its algorithms may be the one (RFC 5246 §7.4.1.4.1).
fn verify_tls12_signature_with_raw_key(
    message: &[u8],
    key: &SubjectPublicKeyInfoDer<'_>,
    dss: &DigitallySignedStruct,
    algorithms: &WebPkiSupportedAlgorithms,
) -> Result<HandshakeSignatureValid, Error> {
    let of_scheme =
        algorithms.mapping.iter().find(|(scheme, _)| *scheme == dss.scheme).map(|(_, algorithms)| *algorithms);
    let of_scheme = of_scheme.ok_or(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme)?;
    let key = RawPublicKeyEntity::try_from(key).map_err(|_| CertificateError::BadEncoding)?;
    let is_signed = |algorithm| key.verify_signature(algorithm, message, dss.signature()).is_ok();
    if of_scheme.iter().any(|algorithm| is_signed(*algorithm)) {
        Ok(HandshakeSignatureValid::assertion())
    } else {
        Err(CertificateError::BadSignature.into())
    }
}

#[cfg(test)]
pub(super) mod tests;
