//! TLS as the options say: the CA, the version where it is to be one, the client's certificate where it has one.
use rustls::pki_types::{pem::PemObject, CertificateDer, PrivateKeyDer};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use std::sync::Arc;

pub fn config(options: &Value) -> Option<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(options["ca"].as_str()?).expect("a PEM file")).expect("a CA");
    let versions = match options["tls"].as_str() {
        Some("1.2") => vec![&TLS12],
        Some("1.3") => vec![&TLS13],
        _ => vec![&TLS13, &TLS12],
    };
    let builder = ClientConfig::builder_with_protocol_versions(&versions).with_root_certificates(roots);
    let config = match (options["certificate"].as_str(), options["key"].as_str()) {
        (Some(certificate), Some(key)) => {
            let certificate = CertificateDer::from_pem_file(certificate).expect("a PEM file");
            builder.with_client_auth_cert(vec![certificate], PrivateKeyDer::from_pem_file(key).expect("a key")).expect("a pair")
        }
        _ => builder.with_no_client_auth(),
    };
    Some(Arc::new(config))
}
