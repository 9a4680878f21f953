//! Endpoints that fail are left alone, and asked again by and by.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use http::{Response, StatusCode};
use operator::guard::config::{Configuration, Endpoint};
use shield::OutlierSettings;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use super::support::{
    Served, endpoint, get, metric, mirror, serve, simple, status, text, until, within,
};

/// An endpoint that fails as long as it is told to.
#[derive(Clone)]
struct Patient {
    at: SocketAddr,
    is_sick: Arc<AtomicBool>,
    asked: Arc<AtomicUsize>,
}

async fn patient() -> Patient {
    let is_sick = Arc::new(AtomicBool::new(true));
    let asked = Arc::new(AtomicUsize::new(0));
    let seen = (Arc::clone(&is_sick), Arc::clone(&asked));
    let at = endpoint(move |_| {
        seen.1.fetch_add(1, Ordering::Relaxed);
        let status = if seen.0.load(Ordering::Relaxed) {
            StatusCode::SERVICE_UNAVAILABLE
        } else {
            StatusCode::OK
        };
        async move { Response::builder().status(status).body(text("")).unwrap() }
    })
    .await;
    Patient { at, is_sick, asked }
}

pub(super) fn ejecting(
    endpoints: &[SocketAddr],
    failures: u32,
    eject_for: Duration,
) -> Configuration {
    let mut configuration = simple(endpoints);
    let service = configuration.services.get_mut("ns/app:80").unwrap();
    service.outliers = OutlierSettings {
        consecutive_failures: failures,
        eject_for,
        eject_for_max: eject_for,
        ..OutlierSettings::default()
    };
    configuration
}

fn ejected(served: &Served) -> Vec<SocketAddr> {
    let standing = served.guard.standing();
    standing.services[0].ejected.clone()
}

async fn eject(served: &Served, patient: &Patient) {
    let asking = async {
        while ejected(served).is_empty() {
            get(served.at, "/").await;
        }
    };
    within("it is ejected", asking).await;
    assert_eq!(ejected(served), vec![patient.at]);
}

#[tokio::test]
async fn an_endpoint_that_fails_is_left_alone_and_comes_back_when_it_is_well() {
    let patient = patient().await;
    let endpoints = [patient.at, mirror().await];
    let served = serve(&ejecting(&endpoints, 3, Duration::from_secs(4))).await;
    eject(&served, &patient).await;
    assert_eq!(patient.asked.load(Ordering::Relaxed), 3);
    let counted = metric(
        &served,
        "jiuzhou_endpoints_ejected",
        &[("route", "ns/route")],
    );
    assert!((counted - 1.0).abs() < 0.5, "{counted}");
    patient.is_sick.store(false, Ordering::Relaxed);
    let well = async {
        while patient.asked.load(Ordering::Relaxed) < 10 {
            assert_eq!(status(&get(served.at, "/").await), 200);
        }
    };
    within("it is asked again", well).await;
    assert!(ejected(&served).is_empty());
}

#[tokio::test]
async fn an_ejection_outlasts_a_change_of_the_configuration() {
    let patient = patient().await;
    let mut endpoints = vec![patient.at, mirror().await];
    let hour = Duration::from_hours(1);
    let served = serve(&ejecting(&endpoints, 3, hour)).await;
    eject(&served, &patient).await;
    endpoints.insert(0, mirror().await);
    let mut changed = ejecting(&endpoints, 3, hour);
    changed.revision = "changed".into();
    changed.ports[0].port = served.at.port();
    served.guard.apply(&changed).await.unwrap();
    for _ in 0..30 {
        assert_eq!(status(&get(served.at, "/").await), 200);
    }
    assert_eq!(patient.asked.load(Ordering::Relaxed), 3);
    assert_eq!(ejected(&served), vec![patient.at]);
}

#[tokio::test]
async fn the_last_endpoint_is_asked_however_it_fails() {
    let patient = patient().await;
    let served = serve(&ejecting(&[patient.at], 1, Duration::from_hours(1))).await;
    for _ in 0..20 {
        assert_eq!(status(&get(served.at, "/").await), 503);
    }
    assert_eq!(patient.asked.load(Ordering::Relaxed), 20);
    assert!(ejected(&served).is_empty());
}

#[tokio::test]
async fn an_upload_that_its_client_breaks_off_says_nothing_about_the_endpoint() {
    let endpoints = [mirror().await, mirror().await];
    let served = serve(&ejecting(&endpoints, 1, Duration::from_hours(1))).await;
    for _ in 0..8 {
        let mut stream = TcpStream::connect(served.at).await.unwrap();
        let part = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nhalf";
        stream.write_all(part).await.unwrap();
        drop(stream);
    }
    let ended = || metric(&served, "jiuzhou_requests_total", &[]) > 7.5;
    until("all of them ended", ended).await;
    assert!(ejected(&served).is_empty());
    let standing = served.guard.standing();
    assert_eq!(standing.services[0].endpoints, 2);
}

#[tokio::test]
async fn settings_that_make_no_sense_are_refused_and_the_last_good_ones_stay() {
    let endpoints = [mirror().await];
    let mut configuration = ejecting(&endpoints, 1, Duration::from_secs(1));
    let served = serve(&configuration).await;
    let service = configuration.services.get_mut("ns/app:80").unwrap();
    service.outliers.consecutive_failures = 0;
    service.endpoints.push(Endpoint {
        address: [127, 0, 0, 1].into(),
        port: 9,
    });
    let error = served.guard.apply(&configuration).await.unwrap_err();
    let error = format!("{:#}", anyhow::Error::new(error));
    assert!(
        error.contains("ns/app:80") && error.contains("consecutiveFailures"),
        "{error}"
    );
    assert_eq!(served.guard.standing().services[0].endpoints, 1);
}
