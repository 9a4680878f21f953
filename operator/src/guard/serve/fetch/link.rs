//! The connection to guard control: one, kept, over TLS of which both sides prove who they are.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use http::{Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;

use crate::guard::config::Configuration;
use crate::guard::exchange::{
    Answer, CONFIGURATION_BYTES_MAX, CONFIGURATIONS, EXCHANGE, MESSAGE_BYTES_MAX, Problem, Report,
    written,
};
use crate::guard::mutual_tls::{self, Files, Renewed, TlsError};

/// The port of control where none is given.
const PORT: u16 = 9443;
/// A TCP and TLS handshake takes three round trips inside a cluster; more than this is no connection.
const CONNECT_MAX: Duration = Duration::from_secs(2);
/// Control answers from memory.
const ANSWER_MAX: Duration = Duration::from_secs(2);
/// Some 30 MB at 2 MB/s and as much again; meanwhile the shares that are held stand.
const CONFIGURATION_MAX: Duration = Duration::from_secs(25);
/// Bytes on the way at one time, so that a configuration comes in few round trips.
const WINDOW: u32 = 4 << 20;

/// Where control is: `https://host:port`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    host: String,
    port: u16,
}

/// What is no place of control, and what is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "must be https://HOST or https://HOST:PORT, as in https://guard-control.jiuzhou-guard:9443"
)]
pub struct PlaceError;

/// Why control did not answer.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The host has no address.
    #[error("cannot look up {host}")]
    Lookup {
        /// The host.
        host: String,
        /// What the system says.
        source: io::Error,
    },
    /// No connection, or the other side did not prove who it is.
    #[error("cannot connect to control at {address}")]
    Connect {
        /// Where.
        address: SocketAddr,
        /// What the system or TLS says.
        source: io::Error,
    },
    /// The host has no address at all.
    #[error("{0} has no address")]
    NoAddress(String),
    /// The connection broke.
    #[error("the connection to control broke")]
    Broken(#[source] hyper::Error),
    /// It took too long.
    #[error("control did not answer in {0:?}")]
    Silent(Duration),
    /// It was refused.
    #[error("control answers {status}: {detail}")]
    Refused {
        /// How.
        status: StatusCode,
        /// Why.
        detail: String,
    },
    /// The answer is too long or broke off.
    #[error("the answer of control broke off or is too long")]
    Body(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The answer is none.
    #[error("the answer of control cannot be read")]
    Content(#[from] serde_json::Error),
    /// The request is none.
    #[error("no request can be made for control")]
    Request(#[from] http::Error),
}

/// The connection, made when it is needed.
pub(super) struct Link {
    place: Place,
    tls: Renewed<ClientConfig>,
    open: Option<Open>,
    /// Whether the last report was sent with all that it has.
    was_whole: bool,
    /// Which of the addresses to try first: the one that answered last, or the next.
    first: usize,
}

struct Open {
    sender: SendRequest<Full<Bytes>>,
    _driver: AbortOnDropHandle<()>,
}

impl FromStr for Place {
    type Err = PlaceError;

    fn from_str(text: &str) -> Result<Self, PlaceError> {
        let uri: Uri = text.parse().map_err(|_| PlaceError)?;
        let plain = uri.path() == "/" && uri.query().is_none();
        let host = uri.host().filter(|host| !host.is_empty());
        let name = host.map(|host| host.trim_matches(['[', ']']).to_owned());
        match (uri.scheme_str(), name) {
            (Some("https"), Some(host)) if plain && ServerName::try_from(host.clone()).is_ok() => {
                Ok(Self {
                    host,
                    port: uri.port_u16().unwrap_or(PORT),
                })
            }
            _ => Err(PlaceError),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "https://[{}]:{}", self.host, self.port)
        } else {
            write!(f, "https://{}:{}", self.host, self.port)
        }
    }
}

impl Link {
    pub(super) fn new(place: Place, files: Files) -> Result<Self, TlsError> {
        Ok(Self {
            place,
            tls: Renewed::new(files, mutual_tls::client)?,
            open: None,
            was_whole: true,
            first: 0,
        })
    }

    /// Reports, to the replica that leads.
    pub(super) async fn exchange(&mut self, report: Report) -> Result<Answer, LinkError> {
        let document = self.document(report)?;
        let asked = self.ask(Method::POST, EXCHANGE, document, ANSWER_MAX).await;
        match asked {
            Ok(answer) => Ok(serde_json::from_slice(&answer)?),
            Err(error) => {
                // Another replica may lead: the next report goes to the next address.
                self.open = None;
                self.first = self.first.wrapping_add(1);
                Err(error)
            }
        }
    }

    /// A report as it is sent.
    fn document(&mut self, report: Report) -> Result<Bytes, LinkError> {
        let (document, is_whole) = written(report)?;
        if self.was_whole && !is_whole {
            tracing::warn!(
                "what this guard counts is too long to be told; of the namespaces that have most, the longest \
                 waiting rooms and policies are left out, and it goes on with its part of these"
            );
        }
        self.was_whole = is_whole;
        Ok(document.into())
    }

    /// Fetches a configuration.
    pub(super) async fn configuration(
        &mut self,
        revision: &str,
    ) -> Result<Configuration, LinkError> {
        let path = format!("{CONFIGURATIONS}{revision}");
        let asked = self.ask(Method::GET, &path, Bytes::new(), CONFIGURATION_MAX);
        let answer = asked.await?;
        Ok(serde_json::from_slice(&answer)?)
    }

    async fn ask(
        &mut self,
        method: Method,
        path: &str,
        body: Bytes,
        patience: Duration,
    ) -> Result<Bytes, LinkError> {
        let bytes_max = if method == Method::GET {
            CONFIGURATION_BYTES_MAX
        } else {
            MESSAGE_BYTES_MAX
        };
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.place))
            .body(Full::new(body))?;
        let asking = async {
            let sender = self.sender().await?;
            let answer = sender.send_request(request).await;
            read(answer.map_err(LinkError::Broken)?, bytes_max).await
        };
        let asked = timeout(patience, asking).await;
        let asked = asked.unwrap_or(Err(LinkError::Silent(patience)));
        if !matches!(&asked, Ok(_) | Err(LinkError::Refused { .. })) {
            self.open = None;
        }
        asked
    }

    /// The open connection, or a new one.
    async fn sender(&mut self) -> Result<&mut SendRequest<Full<Bytes>>, LinkError> {
        let is_open = self
            .open
            .as_ref()
            .is_some_and(|open| !open.sender.is_closed());
        let open = match self.open.take().filter(|_| is_open) {
            Some(open) => open,
            None => self.connect().await?,
        };
        Ok(&mut self.open.insert(open).sender)
    }

    async fn connect(&self) -> Result<Open, LinkError> {
        let Place { host, port } = &self.place;
        let found = lookup_host((host.as_str(), *port)).await;
        let lookup = |source| LinkError::Lookup {
            host: host.clone(),
            source,
        };
        let mut addresses: Vec<SocketAddr> = found.map_err(lookup)?.collect();
        addresses.sort_unstable();
        let none = || LinkError::NoAddress(host.clone());
        let at = self.first.checked_rem(addresses.len()).ok_or_else(none)?;
        let address = *addresses.get(at).ok_or_else(none)?;
        let failed = |source| LinkError::Connect { address, source };
        let connecting = async {
            let name = ServerName::try_from(host.clone()).map_err(io::Error::other)?;
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            TlsConnector::from(self.tls.get())
                .connect(name, stream)
                .await
        };
        let connected = timeout(CONNECT_MAX, connecting).await;
        let late = |_| failed(io::Error::from(io::ErrorKind::TimedOut));
        let stream = connected.map_err(late)?.map_err(failed)?;
        let (sender, connection) = Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(LinkError::Broken)?;
        let driver = tokio::spawn(async move {
            // What breaks it is told to who asks next.
            let _ended = connection.await;
        });
        Ok(Open {
            sender,
            _driver: AbortOnDropHandle::new(driver),
        })
    }
}

async fn read(answer: http::Response<Incoming>, bytes_max: usize) -> Result<Bytes, LinkError> {
    let status = answer.status();
    let body = Limited::new(answer.into_body(), bytes_max).collect().await;
    let body = body.map_err(LinkError::Body)?.to_bytes();
    if status == StatusCode::OK {
        return Ok(body);
    }
    let problem = serde_json::from_slice(&body).map(|problem: Problem| problem.detail);
    Err(LinkError::Refused {
        status,
        detail: problem.unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_host_over_tls_and_nothing_more() {
        let place: Place = "https://guard-control.jiuzhou-guard".parse().unwrap();
        assert_eq!(
            place.to_string(),
            "https://guard-control.jiuzhou-guard:9443"
        );
        let place: Place = "https://[::1]:8443".parse().unwrap();
        assert_eq!(place.to_string(), "https://[::1]:8443");
        for bad in ["http://a", "a:1", "https://", "https://a/b", "https://a?b"] {
            assert!(bad.parse::<Place>().is_err(), "{bad}");
        }
    }
}
