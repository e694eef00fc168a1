//! What a server would speak that the gateway cannot: a ClientHello made by hand, of which only the first answer is read.

use std::io;

use rustls::CipherSuite;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Suites of TLS 1.2 that JVMs speak and rustls does not: without forward secrecy, or with CBC.
pub const OLDER: &[u16] = &[
    0x002f, 0x0035, 0x003c, 0x003d, 0x009c, 0x009d, 0xc013, 0xc014, 0xc027, 0xc028, 0xc009, 0xc00a, 0xc023, 0xc024,
    0x0033, 0x0039, 0x0067, 0x006b, 0x009e, 0x009f,
];
pub const TLS_1_2: u16 = 0x0303;

const RECORD: usize = 5;
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
/// From the record's head to the session's length (RFC 5246 §7.4.1.3): type and length, version, random.
const BEFORE_SESSION: usize = RECORD + 4 + 2 + 32;
/// Bytes with a whole ServerHello before the extensions.
const ENOUGH: usize = BEFORE_SESSION + 1 + 32 + 2;

/// What a server says first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It goes on with this suite.
    Takes(String),
    /// It speaks TLS, and not this.
    Refuses,
    /// It speaks something else, or nothing.
    IsNoTls,
}

/// A ClientHello (RFC 5246 §7.4.1.2) in one record: no session, no compression, and what a server needs to choose: P-256, P-384 and
/// X25519; ECDSA and RSA with SHA-256, SHA-384 and SHA-1.
pub fn hello(version: u16, suites: &[u16]) -> Vec<u8> {
    let suites: Vec<u8> = suites.iter().flat_map(|suite| suite.to_be_bytes()).collect();
    let extensions = b"\0\x0d\0\x0e\0\x0c\x04\x03\x04\x01\x05\x03\x05\x01\x02\x01\x02\x03\0\x0a\0\x08\0\x06\0\x17\0\x18\0\x1d\0\x0b\0\x02\x01\0";
    let mut body = [&version.to_be_bytes()[..], &[7; 32], &[0]].concat();
    body.extend([&length(&suites)[..], &suites, &[1, 0]].concat());
    body.extend([&length(extensions)[..], extensions].concat());
    let message = [&[1, 0][..], &length(&body), &body].concat();
    [&[HANDSHAKE, 3, 1][..], &length(&message), &message].concat()
}

fn length(bytes: &[u8]) -> [u8; 2] {
    u16::try_from(bytes.len()).unwrap_or(u16::MAX).to_be_bytes()
}

/// Offers these suites of TLS 1.2; the caller owns the deadline.
///
/// # Errors
/// The socket's own.
pub async fn offer(mut stream: TcpStream, suites: &[u16]) -> io::Result<Answer> {
    stream.write_all(&hello(TLS_1_2, suites)).await?;
    let mut read = [0; ENOUGH];
    let mut filled = 0;
    loop {
        let so_far = read.get(..filled).unwrap_or_default();
        if let Some(answer) = answer(so_far) {
            return Ok(answer);
        }
        match stream.read(read.get_mut(filled..).unwrap_or_default()).await? {
            0 => return Ok(Answer::IsNoTls),
            more => filled += more,
        }
    }
}

/// None while there is too little.
fn answer(bytes: &[u8]) -> Option<Answer> {
    match bytes {
        [ALERT, 3, ..] => Some(Answer::Refuses),
        [HANDSHAKE, 3, ..] => {
            let session = usize::from(*bytes.get(BEFORE_SESSION)?);
            let suite = bytes.get(BEFORE_SESSION + 1 + session..)?.first_chunk::<2>();
            match suite {
                Some(suite) => {
                    let suite = u16::from_be_bytes(*suite);
                    let name = CipherSuite::from(suite).as_str().map_or(format!("{suite:#06x}"), str::to_owned);
                    Some(Answer::Takes(name))
                }
                None if bytes.len() == ENOUGH => Some(Answer::IsNoTls),
                None => None,
            }
        }
        [] | [ALERT | HANDSHAKE] => None,
        _ => Some(Answer::IsNoTls),
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::net::TcpListener;

    use super::*;

    async fn offered(says: &'static [u8]) -> Answer {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let server = async {
            let (mut server, _) = listener.accept().await.unwrap();
            // In pieces, and then the end.
            for byte in says {
                server.write_all(&[*byte]).await.unwrap();
                server.flush().await.unwrap();
            }
            server.shutdown().await.unwrap();
            let _ = server.read_to_end(&mut Vec::new()).await;
        };
        tokio::join!(offer(stream, OLDER), server).0.unwrap()
    }

    #[tokio::test]
    async fn what_a_server_says_first_tells_whether_it_would_go_on() {
        const HELLO: &[u8] =
            b"\x16\x03\x03\x00\x2a\x02\x00\x00\x26\x03\x03rrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrr\x00\x00\x2f\x00";
        assert_eq!(offered(HELLO).await, Answer::Takes("TLS_RSA_WITH_AES_128_CBC_SHA".to_owned()));
        assert_eq!(offered(b"\x15\x03\x03\x00\x02\x02\x28").await, Answer::Refuses);
        assert_eq!(offered(&HELLO[..40]).await, Answer::IsNoTls);
        assert_eq!(offered(b"\x84\x00\x00\x00\x00").await, Answer::IsNoTls);
        assert_eq!(offered(b"").await, Answer::IsNoTls);
    }
}
