//! Small servers for the load generator.

use std::{convert::Infallible, net::SocketAddr, path::Path, sync::Arc, thread, time::Duration};

use e2e::{certs::Certificates, load::target::Protocol};
use http::{Request, Response, Version};
use http_body_util::Full;
use hyper::{
    body::{Bytes, Incoming},
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    time::sleep,
};
use tokio_rustls::TlsAcceptor;

pub(super) type Answer = Response<Full<Bytes>>;

pub(super) fn status(code: u16) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from_static(b"hello")));
    *answer.status_mut() = code.try_into().unwrap();
    answer
}

/// Serves each connection by what `serve` does with it.
pub(super) async fn listen<F>(serve: impl Fn(TcpStream) -> F + Send + 'static) -> SocketAddr
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            tokio::spawn(serve(socket));
        }
    });
    address
}

/// A server of HTTP/1.1.
pub(super) async fn server<F>(
    answer: impl Fn(Request<Incoming>) -> F + Clone + Send + 'static,
) -> SocketAddr
where
    F: Future<Output = Answer> + Send + 'static,
{
    listen(move |socket| {
        let answer = answer.clone();
        let service = service_fn(move |request| {
            let answer = answer(request);
            async move { Ok::<_, Infallible>(answer.await) }
        });
        async move {
            let serving = http1::Builder::new().serve_connection(TokioIo::new(socket), service);
            // A client that goes away is no failure of these tests.
            let _ = serving.await;
        }
    })
    .await
}

/// Answers by HTTP/2 alone, with the version it was asked by.
pub(super) async fn serve_http2(socket: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
    let service = service_fn(async |request: Request<Incoming>| {
        sleep(Duration::from_millis(20)).await;
        let asked = request.uri().host() == Some("app.example");
        let ok = asked && request.version() == Version::HTTP_2;
        Ok::<_, Infallible>(status(if ok { 200 } else { 400 }))
    });
    let serving = http2::Builder::new(TokioExecutor::new());
    let _ = serving
        .serve_connection(TokioIo::new(socket), service)
        .await;
}

/// Serves over TLS, as the province's own certificate says, and returns the CA.
pub(super) async fn tls(dir: &str, alpn: Protocol) -> (SocketAddr, Vec<u8>) {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(dir);
    let certificates = Certificates::create(&dir).unwrap();
    let chain = CertificateDer::pem_file_iter(&certificates.serving).unwrap();
    let chain = chain.collect::<Result<_, _>>().unwrap();
    let key = PrivateKeyDer::from_pem_file(&certificates.serving_key).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    config.alpn_protocols = vec![alpn.alpn().to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let address = listen(move |socket| {
        let acceptor = acceptor.clone();
        async move {
            let Ok(socket) = acceptor.accept(socket).await else {
                return;
            };
            match alpn {
                Protocol::Http2 => serve_http2(socket).await,
                Protocol::Http1 => {
                    let service = service_fn(async |_| Ok::<_, Infallible>(status(200)));
                    let socket = TokioIo::new(socket);
                    let _ = http1::Builder::new()
                        .serve_connection(socket, service)
                        .await;
                }
            }
        }
    })
    .await;
    (address, certificates.ca_pem.into_bytes())
}

/// A server in a thread of its own.
pub(super) fn apart() -> SocketAddr {
    let (sender, receiver) = std::sync::mpsc::channel();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            sender.send(server(async |_| status(200)).await).unwrap();
            std::future::pending::<()>().await;
        });
    });
    receiver.recv().unwrap()
}
