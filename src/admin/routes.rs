//! One request in, one response out.

use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Body, Bytes};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode, Uri};

use super::{Parts, cordon, topology};
use crate::metrics;
use crate::topology::{Path, Topology};

/// A log filter is short.
const BODY: usize = 4 * 1024;

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";

const PATHS: &str = "\
no such path; there are:
/metrics    numbers, for Prometheus
/livez      200 while the process answers
/readyz     200 when ready; else 503 and what is pending
/topology   nodes, their ports and states, as JSON; ?path=NAME as clients of that path see them
/log-level  the log filter; PUT changes it
/nodes/NAME/cordon    PUT: no new connections to this node
/nodes/NAME/uncordon  PUT: or again
";

/// Answers `request` of `peer`. HEAD is GET; hyper leaves the body away.
pub async fn answer<B>(request: Request<B>, peer: SocketAddr, parts: &Parts) -> Response<Full<Bytes>>
where
    B: Body<Error: Into<Box<dyn Error + Send + Sync>>>,
{
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    match request.uri().path() {
        "/log-level" if request.method() == Method::PUT => set_log_level(request.into_body(), peer, parts).await,
        "/log-level" if reads => text(StatusCode::OK, parts.log_level.get() + "\n"),
        "/log-level" => wrong_method("GET, HEAD, PUT"),
        "/metrics" | "/livez" | "/readyz" | "/topology" if !reads => wrong_method("GET, HEAD"),
        "/metrics" => match parts.metrics.render() {
            Ok(numbers) => response(StatusCode::OK, metrics::CONTENT_TYPE, numbers),
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
        },
        "/livez" => match (parts.complaint)() {
            None => text(StatusCode::OK, "ok\n"),
            Some(complaint) => text(StatusCode::SERVICE_UNAVAILABLE, complaint + "\n"),
        },
        "/readyz" => readyz(parts),
        "/topology" => {
            let snapshot = parts.topology.borrow().clone();
            let path = match asked_path(request.uri(), &snapshot) {
                Ok(path) => path,
                Err(said) => return text(StatusCode::NOT_FOUND, said),
            };
            let mut hidden = snapshot.hidden.clone();
            hidden.extend(parts.sightings.beside(&snapshot, Instant::now()));
            let kept = parts.kept.recent(&snapshot, Instant::now());
            let snapshot = Topology::clone(&snapshot).with_hidden(hidden);
            let shown = topology::Shown::new(&snapshot, path.as_deref(), &kept, &parts.cordons, &parts.connections);
            match serde_json::to_vec(&shown) {
                Ok(shown) => response(StatusCode::OK, JSON, shown),
                Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
            }
        }
        path => match cordon::Wish::of(path) {
            Some(_) if request.method() != Method::PUT => wrong_method("PUT"),
            Some(wish) => only_from_here(peer, "nodes can be cordoned").unwrap_or_else(|| {
                let (status, said) = wish.carry_out(parts);
                text(status, said)
            }),
            None => text(StatusCode::NOT_FOUND, PATHS),
        },
    }
}

/// The path of `?path=NAME`, the last where none is named; what to say where there is none of that name.
fn asked_path(uri: &Uri, topology: &Topology) -> Result<Option<Arc<Path>>, String> {
    let mut pairs = uri.query().unwrap_or_default().split('&');
    let Some(name) = pairs.find_map(|pair| pair.strip_prefix("path=")) else {
        return Ok(topology.paths.last().cloned());
    };
    topology.paths.named(name).cloned().map(Some).ok_or_else(|| {
        let names: Vec<_> = topology.paths.iter().map(|path| &*path.name).collect();
        format!("no such path; there are: {}\n", names.join(", "))
    })
}

/// The answer to a peer elsewhere that wants something changed.
fn only_from_here(peer: SocketAddr, what: &str) -> Option<Response<Full<Bytes>>> {
    if peer.ip().to_canonical().is_loopback() {
        return None;
    }
    let why = format!("{what} from the gateway's own machine (or pod) only, not from {peer}\n");
    Some(text(StatusCode::FORBIDDEN, why))
}

fn readyz(parts: &Parts) -> Response<Full<Bytes>> {
    let names = parts.readiness.pending_names();
    let degraded = parts.readiness.degradations();
    let by_nodes = degraded.iter().map(|(said, nodes)| format!("degraded, by {nodes} nodes: {said}\n"));
    let itself = parts.readiness.amiss();
    let degraded: String = itself.iter().map(|said| format!("degraded: {said}\n")).chain(by_nodes).collect();
    if names.is_empty() {
        return text(StatusCode::OK, format!("ready\n{degraded}"));
    }
    let lines: String = names.iter().flat_map(|name| [name, "\n"]).collect();
    text(StatusCode::SERVICE_UNAVAILABLE, lines + &degraded)
}

/// The body is the filter. It stays until the process ends.
async fn set_log_level<B>(body: B, peer: SocketAddr, parts: &Parts) -> Response<Full<Bytes>>
where
    B: Body<Error: Into<Box<dyn Error + Send + Sync>>>,
{
    if let Some(refused) = only_from_here(peer, "the log level can be changed") {
        return refused;
    }
    let Ok(body) = Limited::new(body, BODY).collect().await else {
        return text(StatusCode::PAYLOAD_TOO_LARGE, format!("a log filter has at most {BODY} bytes\n"));
    };
    let body = body.to_bytes();
    let Ok(filter) = std::str::from_utf8(&body) else {
        return text(StatusCode::BAD_REQUEST, "a log filter is UTF-8\n");
    };
    match parts.log_level.set(filter.trim()) {
        Ok(()) => {
            tracing::info!(level = filter.trim(), "log level changed");
            text(StatusCode::OK, parts.log_level.get() + "\n")
        }
        Err(error) => text(StatusCode::BAD_REQUEST, format!("{error}\n")),
    }
}

fn wrong_method(allowed: &'static str) -> Response<Full<Bytes>> {
    let mut response = text(StatusCode::METHOD_NOT_ALLOWED, format!("this path answers {allowed}\n"));
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    response
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    response(status, TEXT, body)
}

fn response(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
