//! Who asks: verified tokens and the addresses that trusted proxies saw, between real clients and endpoints.

use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64;
use operator::guard::config::{Configuration, Rule, Tokens};
use operator::guard::serve::Settings;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use serde_json::{Value, json};
use shield::policy::{KeyPart, Mode, OnMissing};

use super::support::{metric, mirror, routes, say, serve, serve_with, settings, status, to};

struct Issuer(EcdsaKeyPair);

impl Issuer {
    fn new() -> Self {
        let (random, kind) = (SystemRandom::new(), &ECDSA_P256_SHA256_FIXED_SIGNING);
        let pair = EcdsaKeyPair::generate_pkcs8(kind, &random).unwrap();
        Self(EcdsaKeyPair::from_pkcs8(kind, pair.as_ref(), &random).unwrap())
    }

    fn tokens(&self) -> Tokens {
        let (x, y) = self.0.public_key().as_ref()[1..].split_at(32);
        let (x, y) = (BASE64.encode(x), BASE64.encode(y));
        let jwk = json!({"kty": "EC", "crv": "P-256", "alg": "ES256", "kid": "a", "x": x, "y": y});
        Tokens {
            issuer: "https://sso.example".into(),
            audiences: vec!["code".into()],
            jwks: json!({"keys": [jwk]}).to_string(),
        }
    }

    fn token(&self, citizen: &str) -> String {
        self.signed("ES256", citizen, 600)
    }

    /// A token that ends so many seconds from now.
    fn signed(&self, algorithm: &str, citizen: &str, seconds: i64) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let until = i64::try_from(now.as_secs()).unwrap() + seconds;
        let header = json!({"alg": algorithm, "kid": "a"});
        let claims =
            json!({"iss": "https://sso.example", "aud": "code", "sub": citizen, "exp": until});
        let [header, claims] = [header, claims].map(|part| BASE64.encode(part.to_string()));
        let message = format!("{header}.{claims}");
        let signature = self
            .0
            .sign(&SystemRandom::new(), message.as_bytes())
            .unwrap();
        format!("{message}.{}", BASE64.encode(signature))
    }
}

/// Two requests an hour for each key.
fn limited(endpoint: SocketAddr, key: &Value, on_missing: &str) -> Configuration {
    let rule = Rule {
        policy: Some("ns/policy".into()),
        ..to("ns/app:80")
    };
    let mut configuration = routes(vec![("/", rule)], &[("ns/app:80", &[endpoint])]);
    let quota = json!({"rate": {"requests": 2, "perSeconds": 3600}, "burst": 2});
    let policy = json!({"name": "ns/policy", "rateLimits": [{"name": "per-citizen", "scope": "Instance",
        "key": [key], "onMissing": on_missing, "quota": quota}]});
    let policy = serde_json::from_value(policy).unwrap();
    configuration.policies.insert("ns/policy".into(), policy);
    configuration
}

async fn by_token(issuer: &Issuer) -> Configuration {
    let mut configuration = limited(mirror().await, &json!({"jwtClaim": "sub"}), "Refuse");
    configuration
        .tokens
        .insert("ns/policy".into(), issuer.tokens());
    configuration
}

async fn with_header(at: SocketAddr, header: &str) -> String {
    say(
        at,
        format!("GET / HTTP/1.1\r\nHost: a\r\n{header}\r\nConnection: close\r\n\r\n"),
    )
    .await
}

async fn with_token(at: SocketAddr, token: &str) -> u16 {
    status(&with_header(at, &format!("Authorization: Bearer {token}")).await)
}

#[tokio::test]
async fn a_citizen_is_limited_whatever_token_it_shows_and_others_are_not() {
    let issuer = Issuer::new();
    let served = serve(&by_token(&issuer).await).await;
    let tokens = [600, 700, 800].map(|seconds| issuer.signed("ES256", "one", seconds));
    for (token, expected) in tokens.iter().zip([200, 200, 429]) {
        assert_eq!(with_token(served.at, token).await, expected);
    }
    assert_eq!(with_token(served.at, &issuer.token("other")).await, 200);
}

#[tokio::test]
async fn a_token_that_proves_nothing_is_as_good_as_none() {
    let (issuer, forger) = (Issuer::new(), Issuer::new());
    let served = serve(&by_token(&issuer).await).await;
    let good = issuer.token("one");
    let claims = good.split('.').nth(1).unwrap();
    let unsigned = format!("{}.{claims}.", BASE64.encode(r#"{"alg":"none"}"#));
    let bad = [
        forger.token("one"),
        issuer.signed("ES256", "one", -120),
        issuer.signed("HS256", "one", 600),
        unsigned,
        "x".to_owned(),
    ];
    for token in &bad {
        let answer = with_header(served.at, &format!("Authorization: Bearer {token}")).await;
        assert_eq!(status(&answer), 429, "{token}");
        assert!(answer.contains(r#""title":"KeyMissing""#), "{answer}");
    }
    assert!(
        with_header(served.at, "X-A: b")
            .await
            .contains("KeyMissing")
    );
    assert_eq!(with_token(served.at, &good).await, 200);
}

#[tokio::test]
async fn keys_of_the_issuer_change_with_the_configuration_and_a_citizen_stays_the_same() {
    let (old, new) = (Issuer::new(), Issuer::new());
    let mut configuration = by_token(&old).await;
    let served = serve(&configuration).await;
    assert_eq!(with_token(served.at, &old.token("one")).await, 200);
    configuration
        .tokens
        .insert("ns/policy".into(), new.tokens());
    configuration.revision = "2".into();
    served.guard.apply(&configuration).await.unwrap();
    assert_eq!(
        with_token(served.at, &old.token("two")).await,
        429,
        "its key is gone"
    );
    // What it used by the old token counts.
    assert_eq!(with_token(served.at, &new.token("one")).await, 200);
    assert_eq!(with_token(served.at, &new.token("one")).await, 429);
}

#[tokio::test]
async fn a_configuration_whose_keys_verify_nothing_is_refused_and_the_last_good_one_stays() {
    let issuer = Issuer::new();
    let mut configuration = by_token(&issuer).await;
    let served = serve(&configuration).await;
    let mut bad = issuer.tokens();
    bad.jwks = json!({"keys": [{"kty": "oct", "k": "c2VjcmV0"}]}).to_string();
    configuration.tokens.insert("ns/policy".into(), bad);
    let refused = served.guard.apply(&configuration).await.unwrap_err();
    let refused = format!("{:#}", anyhow::Error::new(refused));
    assert!(
        refused.contains("ns/policy") && refused.contains("shared secret"),
        "{refused}"
    );
    assert!(!refused.contains("c2VjcmV0"), "{refused}");
    configuration.tokens.clear();
    let refused = served.guard.apply(&configuration).await.unwrap_err();
    let refused = format!("{:#}", anyhow::Error::new(refused));
    assert!(refused.contains("nobody says whose"), "{refused}");
    assert_eq!(with_token(served.at, &issuer.token("one")).await, 200);
}

#[tokio::test]
async fn a_flood_of_forged_tokens_takes_nothing_from_citizens() {
    let (issuer, forger) = (Issuer::new(), Issuer::new());
    let served = serve(&by_token(&issuer).await).await;
    let at = served.at;
    assert_eq!(with_token(at, &issuer.token("one")).await, 200);
    let flooding: Vec<String> = (0..300).map(|n| forger.token(&n.to_string())).collect();
    let flood = tokio::spawn(async move {
        for chunk in flooding.chunks(50) {
            let asked = chunk.iter().map(|token| with_token(at, token));
            for answered in futures::future::join_all(asked).await {
                assert_eq!(answered, 429);
            }
        }
    });
    for number in 0..20 {
        assert_eq!(
            with_token(at, &issuer.token(&format!("new-{number}"))).await,
            200
        );
    }
    flood.await.unwrap();
    assert_eq!(with_token(at, &issuer.token("one")).await, 200);
    let refused = metric(&served, "jiuzhou_tokens_refused_total", &[]);
    assert!((refused - 300.0).abs() < 0.5, "{refused}");
}

async fn behind(hops: u8) -> super::support::Served {
    let configuration = limited(mirror().await, &json!("clientAddress"), "Refuse");
    let settings = Settings {
        trusted_hops: hops,
        ..settings()
    };
    serve_with(&settings, &configuration).await
}

async fn forwarded_for(at: SocketAddr, addresses: &str) -> String {
    with_header(at, &format!("X-Forwarded-For: {addresses}")).await
}

#[tokio::test]
async fn without_trusted_proxies_nobody_is_who_it_says() {
    let served = behind(0).await;
    for (address, expected) in [("192.0.2.1", 200), ("192.0.2.2", 200), ("192.0.2.3", 429)] {
        let answer = forwarded_for(served.at, address).await;
        assert_eq!(status(&answer), expected, "{address}");
        assert!(!answer.contains(address), "{answer}");
    }
}

#[tokio::test]
async fn clients_are_told_apart_by_what_the_trusted_proxy_saw_and_not_by_what_they_say() {
    let served = behind(1).await;
    // A spoofer changes what it writes; the proxy appends whom it saw.
    for (number, expected) in [(1, 200), (2, 200), (3, 429), (4, 429)] {
        let answer = forwarded_for(served.at, &format!("6.6.6.{number}, 192.0.2.66")).await;
        assert_eq!(status(&answer), expected);
        assert!(!answer.contains("6.6.6."), "{answer}");
    }
    let answer = forwarded_for(served.at, "192.0.2.1").await;
    assert_eq!(status(&answer), 200);
    assert!(
        answer.contains("x-forwarded-for: 192.0.2.1, 127.0.0.1"),
        "{answer}"
    );
    // One network of a household is one client.
    for (address, expected) in [
        ("2001:db8::1", 200),
        ("2001:db8::2", 200),
        ("2001:db8::3", 429),
    ] {
        assert_eq!(status(&forwarded_for(served.at, address).await), expected);
    }
}

#[tokio::test]
async fn a_way_that_leaves_a_trusted_proxy_out_is_not_believed() {
    let served = behind(2).await;
    for (address, expected) in [("192.0.2.1", 200), ("192.0.2.2", 200), ("192.0.2.3", 429)] {
        assert_eq!(status(&forwarded_for(served.at, address).await), expected);
    }
}

#[tokio::test]
async fn the_scheme_is_the_one_that_the_trusted_proxy_saw() {
    let served = behind(1).await;
    let told = "X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: https";
    let answer = with_header(served.at, told).await;
    assert!(answer.contains("x-forwarded-proto: https"), "{answer}");
    assert!(answer.contains("x-forwarded-port: 443"), "{answer}");
    let alone = with_header(served.at, "X-Forwarded-Proto: https").await;
    assert!(alone.contains("x-forwarded-proto: http\n"), "{alone}");
}

#[tokio::test]
async fn a_key_that_is_said_in_two_ways_hides_nothing() {
    let ask = async |at: SocketAddr, query: &str, headers: &str| {
        let request =
            format!("GET /?{query} HTTP/1.1\r\nHost: a\r\n{headers}Connection: close\r\n\r\n");
        status(&say(at, request).await)
    };
    let mut by_query = limited(mirror().await, &json!({"query": "venue"}), "Share");
    let limits = by_query.policies.get_mut("ns/policy").unwrap();
    let limits = &mut limits.rate_limits;
    // Neither of those before it: one counts by something else, the other refuses nobody.
    let mut elsewhere = limits[0].clone();
    elsewhere.name = "elsewhere".into();
    elsewhere.key = vec![KeyPart::Header("x-elsewhere".parse().unwrap())];
    elsewhere.on_missing = OnMissing::Skip;
    let mut shadow = limits[0].clone();
    shadow.name = "shadow".into();
    shadow.mode = Mode::Shadow;
    limits.splice(0..0, [elsewhere, shadow]);
    let served = serve(&by_query).await;
    assert_eq!(ask(served.at, "venue=x&venue=hall", "").await, 400);
    assert_eq!(ask(served.at, "venue=x&%76enue=hall", "").await, 400);
    let twice = "GET /?venue=x&venue=hall HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let told = say(served.at, twice).await;
    assert!(told.contains(r#""title":"KeyAmbiguous""#), "{told}");
    assert!(told.contains(r#""rule":"per-citizen""#), "{told}");
    let labels = [("rule", "per-citizen"), ("reason", "KeyAmbiguous")];
    assert!(metric(&served, "jiuzhou_requests_refused_total", &labels) > 2.5);
    for status in [200, 200, 429] {
        assert_eq!(
            ask(served.at, "venue=hall&venue=hall&day=1&day=2", "").await,
            status
        );
    }
    let by_header = limited(mirror().await, &json!({"header": "x-venue"}), "Share");
    let served = serve(&by_header).await;
    let twice = "x-venue: x\r\nx-venue: hall\r\n";
    // Cookies of HTTP/2 come in several lines.
    let cookies = "cookie: a=1\r\ncookie: b=2\r\n";
    assert_eq!(ask(served.at, "", cookies).await, 200);
    assert_eq!(ask(served.at, "", twice).await, 400);

    let mut shadow = by_header;
    let policy = shadow.policies.get_mut("ns/policy").unwrap();
    policy.rate_limits[0].mode = Mode::Shadow;
    served.guard.apply(&shadow).await.unwrap();
    assert_eq!(ask(served.at, "", twice).await, 200);
}
