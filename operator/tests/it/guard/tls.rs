//! Names, certificates, and connections made to another name.

use std::net::SocketAddr;
use std::sync::Arc;

use operator::guard::config::{Certificate, Configuration, Hostname};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::support::{metric, mirror, say, serve, simple, status, within};

fn certificate(name: &str) -> Certificate {
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    Certificate {
        chain: made.cert.pem(),
        key: made.signing_key.serialize_pem(),
    }
}

/// One that ended long ago.
fn expired(name: &str) -> Certificate {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new([name.to_owned()]).unwrap();
    params.not_before = rcgen::date_time_ymd(2019, 1, 1);
    params.not_after = rcgen::date_time_ymd(2020, 1, 1);
    Certificate {
        chain: params.self_signed(&key).unwrap().pem(),
        key: key.serialize_pem(),
    }
}

async fn with_tls(names: &[&str]) -> Configuration {
    let mut configuration = simple(&[mirror().await]);
    let port = &mut configuration.ports[0];
    port.tls = true;
    let plain = port.listeners.remove(0);
    for name in names {
        let mut listener = plain.clone();
        listener.name = format!("ns/gateway/{name}");
        listener.hostname = Hostname::from((*name).to_owned());
        listener.certificates = vec![format!("ns/{name}")];
        port.listeners.push(listener);
        configuration
            .certificates
            .insert(format!("ns/{name}"), certificate(name));
    }
    configuration
}

/// Asks for `host` on a connection made to `name`, trusting only that certificate.
async fn ask(
    at: SocketAddr,
    trusted: &Certificate,
    name: &str,
    host: &str,
) -> std::io::Result<String> {
    use rustls::pki_types::pem::PemObject as _;
    let mut roots = RootCertStore::empty();
    let der = rustls::pki_types::CertificateDer::from_pem_slice(trusted.chain.as_bytes()).unwrap();
    roots.add(der).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap();
    let config = config.with_root_certificates(roots).with_no_client_auth();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let stream = TcpStream::connect(at).await?;
    let mut stream = TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await?;
    let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    // Some end without a word of TLS, which is no matter here.
    let _ = within("an answer", stream.read_to_end(&mut answer)).await;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

#[tokio::test]
async fn each_name_has_its_certificate_and_its_requests() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let configuration = with_tls(&["a.example", "b.example"]).await;
    let served = serve(&configuration).await;
    let [a, b] = ["ns/a.example", "ns/b.example"].map(|name| &configuration.certificates[name]);
    let answer = ask(served.at, a, "a.example", "a.example").await.unwrap();
    assert!(
        status(&answer) == 200 && answer.contains("x-forwarded-proto: https"),
        "{answer}"
    );
    assert_eq!(
        status(&ask(served.at, b, "b.example", "b.example").await.unwrap()),
        200
    );
    assert!(ask(served.at, a, "b.example", "b.example").await.is_err());
    let misdirected = ask(served.at, a, "a.example", "b.example").await.unwrap();
    assert_eq!(status(&misdirected), 421);
}

#[tokio::test]
async fn a_renewed_certificate_is_shown_to_the_next_connection_and_a_broken_one_never() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut configuration = with_tls(&["a.example"]).await;
    let served = serve(&configuration).await;
    let renewed = certificate("a.example");
    configuration
        .certificates
        .insert("ns/a.example".into(), renewed.clone());
    served.guard.apply(&configuration).await.unwrap();
    assert_eq!(
        status(
            &ask(served.at, &renewed, "a.example", "a.example")
                .await
                .unwrap()
        ),
        200
    );
    let broken = Certificate {
        chain: "none".into(),
        key: "secret-words".into(),
    };
    configuration
        .certificates
        .insert("ns/a.example".into(), broken);
    let error = served.guard.apply(&configuration).await.unwrap_err();
    let error = format!("{:#}", anyhow::Error::new(error));
    assert!(
        error.contains("ns/a.example") && !error.contains("secret-words"),
        "{error}"
    );
    assert_eq!(
        status(
            &ask(served.at, &renewed, "a.example", "a.example")
                .await
                .unwrap()
        ),
        200
    );
}

#[tokio::test]
async fn an_expired_certificate_is_told_hurts_no_other_name_and_is_renewed_at_once() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut configuration = with_tls(&["a.example", "b.example"]).await;
    let old = expired("a.example");
    let name = "ns/a.example";
    configuration.certificates.insert(name.into(), old.clone());
    let served = serve(&configuration).await;
    let ends = || {
        let labels = [("certificate", name)];
        metric(
            &served,
            "jiuzhou_certificate_expiry_timestamp_seconds",
            &labels,
        )
    };
    // The first of January 2020.
    assert!((ends() - 1_577_836_800.0).abs() < 1.0, "{}", ends());
    let refused = ask(served.at, &old, "a.example", "a.example").await;
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains("expired"), "{refused}");
    let other = &configuration.certificates["ns/b.example"];
    let answer = ask(served.at, other, "b.example", "b.example").await;
    assert_eq!(status(&answer.unwrap()), 200);

    let renewed = certificate("a.example");
    configuration
        .certificates
        .insert(name.into(), renewed.clone());
    served.guard.apply(&configuration).await.unwrap();
    let answer = ask(served.at, &renewed, "a.example", "a.example").await;
    assert_eq!(status(&answer.unwrap()), 200);
    assert!(ends() > 1_800_000_000.0, "{}", ends());
}

#[tokio::test]
async fn a_port_that_changes_to_tls_stays_open_and_speaks_it_to_the_next_connection() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let secure = with_tls(&["a.example"]).await;
    let mut plain = secure.clone();
    plain.ports[0].tls = false;
    let served = serve(&plain).await;
    let request = "GET / HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n";
    assert_eq!(status(&say(served.at, request).await), 200);
    served.guard.apply(&secure).await.unwrap();
    let trusted = &secure.certificates["ns/a.example"];
    let answer = ask(served.at, trusted, "a.example", "a.example").await;
    assert_eq!(status(&answer.unwrap()), 200);
    assert!(!say(served.at, request).await.starts_with("HTTP/1.1 200"));
}
