//! Tokens that are good, and the ways in which others are not.

use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _,
};
use serde_json::json;

use super::*;

const NOW: u64 = 1_800_000_000;
const CITIZEN: &str = "330102199001011234";

/// Made by another library, whose private keys nobody has any more: an RSA key of 2048 bits and one of P-384.
const FOREIGN: &str = include_str!("testdata/of-another-library.json");

/// An issuer with one key.
struct Issuer(EcdsaKeyPair);

impl Issuer {
    fn new() -> Self {
        let (random, kind) = (SystemRandom::new(), &ECDSA_P256_SHA256_FIXED_SIGNING);
        let pair = EcdsaKeyPair::generate_pkcs8(kind, &random).unwrap();
        Self(EcdsaKeyPair::from_pkcs8(kind, pair.as_ref(), &random).unwrap())
    }

    fn jwk(&self, kid: Option<&str>) -> Value {
        let (x, y) = self.0.public_key().as_ref()[1..].split_at(32);
        let (x, y) = (BASE64.encode(x), BASE64.encode(y));
        let mut jwk = json!({"kty": "EC", "crv": "P-256", "x": x, "y": y});
        if let Some(kid) = kid {
            jwk["kid"] = json!(kid);
        }
        jwk
    }

    fn signed(&self, header: &Value, claims: &Value) -> String {
        let message = message(header, claims);
        let signature = self
            .0
            .sign(&SystemRandom::new(), message.as_bytes())
            .unwrap();
        format!("{message}.{}", BASE64.encode(signature))
    }

    fn token(&self, claims: &Value) -> String {
        self.signed(&json!({"alg": "ES256", "kid": "a"}), claims)
    }
}

fn message(header: &Value, claims: &Value) -> String {
    let [header, claims] = [header, claims].map(|part| BASE64.encode(part.to_string()));
    format!("{header}.{claims}")
}

fn claims() -> Value {
    json!({"iss": "https://sso.example", "aud": "code", "exp": NOW + 600, "sub": CITIZEN})
}

fn with(field: &str, value: impl Into<Value>) -> Value {
    let mut claims = claims();
    claims[field] = value.into();
    claims
}

fn without(field: &str) -> Value {
    let mut claims = claims();
    claims.as_object_mut().unwrap().remove(field);
    claims
}

fn set(keys: &[Value]) -> String {
    json!({ "keys": keys }).to_string()
}

fn tokens(jwks: String) -> Tokens {
    Tokens {
        issuer: "https://sso.example".into(),
        audiences: vec!["code".into(), "records".into()],
        jwks,
    }
}

fn desk(seed: u8) -> Arc<Desk> {
    let metrics = TokenMetrics::register(&prometheus::Registry::new()).unwrap();
    Desk::new([seed; 16], metrics)
}

fn verifier_at(desk: &Arc<Desk>, jwks: String) -> Verifier {
    Verifier::new(&tokens(jwks), &BTreeSet::from(["sub"]), desk).unwrap()
}

fn verifier(jwks: String) -> Verifier {
    verifier_at(&desk(7), jwks)
}

/// The key for `sub`.
async fn key(verifier: &Verifier, token: &str) -> Option<String> {
    let claims = verifier.claims_at(token, NOW).await?;
    let key = verifier.key(&claims, "sub")?;
    Some(String::from_utf8(key.into_owned()).unwrap())
}

#[tokio::test]
async fn a_good_token_gives_a_key_that_names_nobody() {
    let issuer = Issuer::new();
    let verifier = verifier(set(&[issuer.jwk(Some("a"))]));
    let one = key(&verifier, &issuer.token(&claims())).await.unwrap();
    let again = key(&verifier, &issuer.token(&with("exp", NOW + 60))).await;
    let other = key(&verifier, &issuer.token(&with("sub", "someone else"))).await;
    assert_eq!(
        Some(one.clone()),
        again,
        "another token of the same citizen"
    );
    assert_ne!(Some(one.clone()), other);
    assert_eq!(one.len(), PSEUDONYM);
    assert!(!one.contains(CITIZEN) && !format!("{verifier:?}").contains(CITIZEN));
    // Another guard, or this one after a start, has other names for the same citizens.
    let elsewhere = verifier_at(&desk(8), verifier.wanted.jwks.clone());
    assert_ne!(key(&elsewhere, &issuer.token(&claims())).await, Some(one));
}

#[tokio::test]
async fn tokens_of_another_library_are_good_by_every_algorithm() {
    let foreign: Value = serde_json::from_str(FOREIGN).unwrap();
    let verifier = verifier(foreign["jwks"].to_string());
    for (algorithm, token) in foreign["tokens"].as_object().unwrap() {
        let token = token.as_str().unwrap();
        assert!(key(&verifier, token).await.is_some(), "{algorithm}");
        let (message, signature) = token.rsplit_once('.').unwrap();
        let mut bytes = BASE64.decode(signature).unwrap();
        bytes[9] ^= 1;
        let broken = format!("{message}.{}", BASE64.encode(bytes));
        assert_eq!(key(&verifier, &broken).await, None, "{algorithm}");
    }
}

#[tokio::test]
async fn ed25519_is_known_by_both_of_its_names() {
    let pair = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
    let pair = Ed25519KeyPair::from_pkcs8(pair.as_ref()).unwrap();
    let x = BASE64.encode(pair.public_key());
    let verifier = verifier(set(&[json!({"kty": "OKP", "crv": "Ed25519", "x": x})]));
    for name in ["EdDSA", "Ed25519"] {
        let message = message(&json!({ "alg": name }), &claims());
        let signature = BASE64.encode(pair.sign(message.as_bytes()));
        let token = format!("{message}.{signature}");
        assert!(key(&verifier, &token).await.is_some(), "{name}");
    }
}

#[tokio::test]
async fn a_token_that_is_not_signed_by_the_issuer_gives_no_key() {
    let (issuer, forger) = (Issuer::new(), Issuer::new());
    let jwk = issuer.jwk(Some("a"));
    let verifier = verifier(set(std::slice::from_ref(&jwk)));
    let good = issuer.token(&claims());
    let (message_of_good, signature) = good.rsplit_once('.').unwrap();
    let point = issuer.0.public_key().as_ref();
    let hmac_with = |secret: &[u8]| {
        let message = message(&json!({"alg": "HS256", "kid": "a"}), &claims());
        let secret = hmac::Key::new(hmac::HMAC_SHA256, secret);
        let signature = hmac::sign(&secret, message.as_bytes());
        format!("{message}.{}", BASE64.encode(signature))
    };
    let another = message(&json!({"alg": "ES256", "kid": "a"}), &with("sub", "x"));
    let bad = [
        ("another key", forger.token(&claims())),
        ("other claims", format!("{another}.{signature}")),
        ("no signature", format!("{message_of_good}.")),
        (
            "none",
            format!("{}.", message(&json!({"alg": "none"}), &claims())),
        ),
        (
            "None",
            format!(
                "{}.{signature}",
                message(&json!({"alg": "None"}), &claims())
            ),
        ),
        ("the key as a secret", hmac_with(point)),
        (
            "the key's text as a secret",
            hmac_with(jwk.to_string().as_bytes()),
        ),
        (
            "the set's text as a secret",
            hmac_with(verifier.wanted.jwks.as_bytes()),
        ),
        (
            "another algorithm",
            issuer.signed(&json!({"alg": "ES384", "kid": "a"}), &claims()),
        ),
        (
            "of RSA",
            issuer.signed(&json!({"alg": "RS256", "kid": "a"}), &claims()),
        ),
        (
            "a key that is not there",
            issuer.signed(&json!({"alg": "ES256", "kid": "b"}), &claims()),
        ),
        (
            "critical",
            issuer.signed(
                &json!({"alg": "ES256", "kid": "a", "crit": ["exp"]}),
                &claims(),
            ),
        ),
        (
            "its own key",
            forger.signed(&json!({"alg": "ES256", "jwk": forger.jwk(None)}), &claims()),
        ),
        ("padded", format!("{good}=")),
        ("longer", format!("{good}.x")),
        ("nothing", String::new()),
        ("two dots", "..".to_owned()),
    ];
    for (what, token) in bad {
        assert_eq!(key(&verifier, &token).await, None, "{what}");
    }
    assert!(key(&verifier, &good).await.is_some());
}

#[tokio::test]
async fn a_token_for_others_or_of_another_time_gives_no_key() {
    let issuer = Issuer::new();
    let verifier = verifier(set(&[issuer.jwk(Some("a"))]));
    let bad = [
        ("another issuer", with("iss", "https://sso.example/")),
        ("no issuer", without("iss")),
        ("two issuers", with("iss", json!(["https://sso.example"]))),
        ("another audience", with("aud", "codes")),
        ("other audiences", with("aud", json!(["x", 7]))),
        ("no audience", without("aud")),
        ("ended", with("exp", NOW - 60)),
        ("never ends", without("exp")),
        ("ends as text", with("exp", "1900000000")),
        ("ended before time began", with("exp", -1)),
        ("not yet", with("nbf", NOW + 61)),
        ("some time", with("nbf", "now")),
    ];
    for (what, claims) in bad {
        assert_eq!(key(&verifier, &issuer.token(&claims)).await, None, "{what}");
    }
    let good = [
        ("ended, by a clock that is ahead", with("exp", NOW - 59)),
        ("not yet, by a clock that is behind", with("nbf", NOW + 60)),
        ("a fraction", with("exp", 1_800_000_600.5)),
        ("one of the audiences", with("aud", json!(["x", "records"]))),
    ];
    for (what, claims) in good {
        assert!(
            key(&verifier, &issuer.token(&claims)).await.is_some(),
            "{what}"
        );
    }
}

#[tokio::test]
async fn claims_that_are_no_text_and_no_number_are_no_key() {
    let issuer = Issuer::new();
    let verifier = verifier(set(&[issuer.jwk(Some("a"))]));
    for value in [json!(true), json!(null), json!([]), json!({}), json!("")] {
        let token = issuer.token(&with("sub", value.clone()));
        assert_eq!(key(&verifier, &token).await, None, "{value}");
    }
    assert_eq!(key(&verifier, &issuer.token(&without("sub"))).await, None);
    let number = key(&verifier, &issuer.token(&with("sub", 7))).await;
    assert!(number.is_some());
    assert_eq!(
        number,
        key(&verifier, &issuer.token(&with("sub", "7"))).await
    );
}

#[tokio::test]
async fn names_of_keys_may_be_left_out_by_either_side() {
    let (old, new) = (Issuer::new(), Issuer::new());
    let named = verifier(set(&[old.jwk(Some("old")), new.jwk(Some("new"))]));
    for issuer in [&old, &new] {
        let token = issuer.signed(&json!({"alg": "ES256"}), &claims());
        assert!(key(&named, &token).await.is_some());
    }
    let wrong = new.signed(&json!({"alg": "ES256", "kid": "old"}), &claims());
    assert_eq!(key(&named, &wrong).await, None);
    let unnamed = verifier(set(&[old.jwk(None)]));
    assert!(key(&unnamed, &old.token(&claims())).await.is_some());
}

#[tokio::test]
async fn the_key_that_a_token_names_is_tried_before_those_without_a_name() {
    let others = [Issuer::new(), Issuer::new(), Issuer::new()];
    let issuer = Issuer::new();
    let mut keys: Vec<Value> = others.iter().map(|other| other.jwk(None)).collect();
    keys.push(issuer.jwk(Some("a")));
    let verifier = verifier(set(&keys));
    assert!(key(&verifier, &issuer.token(&claims())).await.is_some());
    // One without a name may be meant as well.
    assert!(key(&verifier, &others[0].token(&claims())).await.is_some());
}

#[tokio::test]
async fn numbers_that_are_read_as_the_same_are_no_key() {
    let issuer = Issuer::new();
    let verifier = verifier(set(&[issuer.jwk(Some("a"))]));
    let header = BASE64.encode(json!({"alg": "ES256", "kid": "a"}).to_string());
    for (sub, is_key) in [
        ("18446744073709551615", true),
        ("-7", true),
        ("18446744073709551616", false),
        ("330102199001011234001", false),
        ("1.5", false),
    ] {
        let claims = claims().to_string();
        let claims = claims.replace(&format!("\"{CITIZEN}\""), sub);
        let message = format!("{header}.{}", BASE64.encode(claims));
        let signature = issuer.0.sign(&SystemRandom::new(), message.as_bytes());
        let token = format!("{message}.{}", BASE64.encode(signature.unwrap()));
        assert_eq!(key(&verifier, &token).await.is_some(), is_key, "{sub}");
    }
}

#[tokio::test]
async fn a_key_that_is_taken_away_ends_its_tokens_at_once_and_no_others() {
    let (old, new) = (Issuer::new(), Issuer::new());
    let desk = desk(7);
    let both = verifier_at(&desk, set(&[old.jwk(Some("a")), new.jwk(Some("b"))]));
    let of_old = old.token(&claims());
    let of_new = new.signed(&json!({"alg": "ES256", "kid": "b"}), &claims());
    assert!(key(&both, &of_old).await.is_some());
    let known = both.claims_at(&of_new, NOW).await.unwrap();
    let rotated = verifier_at(&desk, set(&[new.jwk(Some("b"))]));
    assert_eq!(key(&rotated, &of_old).await, None);
    let still = rotated.claims_at(&of_new, NOW).await.unwrap();
    assert!(Arc::ptr_eq(&known, &still), "it is not verified again");
}

#[tokio::test]
async fn what_is_known_ends_with_the_token_and_is_known_only_to_who_asks_the_same() {
    let issuer = Issuer::new();
    let desk = desk(7);
    let jwks = set(&[issuer.jwk(Some("a"))]);
    let one = verifier_at(&desk, jwks.clone());
    let token = issuer.token(&claims());
    let known = one.claims_at(&token, NOW).await.unwrap();
    assert!(one.claims_at(&token, NOW + 659).await.is_some());
    assert!(one.claims_at(&token, NOW + 660).await.is_none());
    let same = verifier_at(&desk, jwks.clone());
    assert!(Arc::ptr_eq(
        &known,
        &same.claims_at(&token, NOW).await.unwrap()
    ));
    let mut strict = tokens(jwks);
    strict.audiences = vec!["records".into()];
    let strict = Verifier::new(&strict, &BTreeSet::from(["sub"]), &desk).unwrap();
    assert!(strict.claims_at(&token, NOW).await.is_none());
}

#[tokio::test]
async fn a_flood_of_bad_tokens_leaves_those_who_are_known_alone() {
    let (issuer, forger) = (Issuer::new(), Issuer::new());
    let verifier = verifier(set(&[issuer.jwk(Some("a"))]));
    let good = issuer.token(&claims());
    let known = verifier.claims_at(&good, NOW).await.unwrap();
    for number in 0..200 {
        let bad = forger.token(&with("sub", number));
        assert!(verifier.claims_at(&bad, NOW).await.is_none());
    }
    // All turns are taken, and as many wait as may: who is known does not.
    let turns = u32::try_from(verifier.desk.turns.available_permits()).unwrap();
    let taken = verifier.desk.turns.try_acquire_many(turns).unwrap();
    let waiting = u32::try_from(WAITING_MAX).unwrap();
    let waiters = verifier.waiting.try_acquire_many(waiting).unwrap();
    let still = verifier.claims_at(&good, NOW).await.unwrap();
    assert!(Arc::ptr_eq(&known, &still));
    let new = issuer.token(&with("sub", "new"));
    assert!(verifier.claims_at(&new, NOW).await.is_none(), "no place");
    drop(waiters);
    assert!(verifier.claims_at(&new, NOW).await.is_none(), "no turn");
    drop(taken);
    assert!(verifier.claims_at(&new, NOW).await.is_some());
}

#[tokio::test]
async fn a_flood_of_tokens_for_one_policy_takes_no_place_and_no_turn_from_another() {
    let issuer = Issuer::new();
    let desk = desk(7);
    let jwks = set(&[issuer.jwk(Some("a"))]);
    let flooded = verifier_at(&desk, jwks.clone());
    let other = verifier_at(&desk, jwks);
    let mut taken = Vec::new();
    while desk.turns.available_permits() > 0 {
        taken.push(flooded.turn().await.unwrap());
    }
    let mut flood: Vec<_> = (0..10).map(|_| Box::pin(flooded.turn())).collect();
    for waits in &mut flood {
        assert!(!is_ready(waits.as_mut()).await);
    }
    let places = u32::try_from(flooded.waiting.available_permits()).unwrap();
    let _places = flooded.waiting.try_acquire_many(places).unwrap();
    let mut comes = Box::pin(other.turn());
    assert!(!is_ready(comes.as_mut()).await);
    // It came last, and has the first turn that is free.
    taken.pop();
    assert!(is_ready(comes.as_mut()).await);
}

/// Whether it has something after one look; not where it has nothing at all.
async fn is_ready<T>(mut future: std::pin::Pin<&mut impl Future<Output = Option<T>>>) -> bool {
    let look = std::future::poll_fn(|context| {
        let polled = future.as_mut().poll(context);
        std::task::Poll::Ready(matches!(polled, std::task::Poll::Ready(Some(_))))
    });
    look.await
}

#[test]
fn keys_that_cannot_be_used_say_why() {
    let issuer = Issuer::new();
    let with = |field: &str, value: Value| {
        let mut jwk = issuer.jwk(Some("a"));
        jwk[field] = value;
        jwk
    };
    let small = BASE64.encode([255; 128]);
    let bad = [
        ("{}".to_owned(), "line 1, column 2"),
        ("MIIEvQIBADANBg".to_owned(), "line 1, column 1"),
        (set(&[]), "the list is empty"),
        (
            set(&[json!({"kty": "oct", "k": "c2VjcmV0"})]),
            "shared secret",
        ),
        (
            set(&[json!({"kty": "RSA", "n": small, "e": "AQAB"})]),
            "n has 1024 bits",
        ),
        (set(&[json!({"kty": "RSA", "e": "AQAB"})]), "n is missing"),
        (set(&[with("crv", json!("P-521"))]), "crv \"P-521\""),
        (set(&[with("x", json!("AAAA"))]), "x has 3 bytes"),
        (set(&[with("alg", json!("RS256"))]), "alg \"RS256\""),
        (set(&[with("alg", json!("none"))]), "alg \"none\""),
        (set(&[with("use", json!("enc"))]), "not for signatures"),
        (
            set(&[with("key_ops", json!(["sign"]))]),
            "not for signatures",
        ),
        (
            set(&[with("d", json!("AAAA")), issuer.jwk(None)]),
            "private key",
        ),
        (set(&vec![issuer.jwk(None); 33]), "at most 32"),
        (set(&[json!(7)]), "key 1 is malformed"),
    ];
    for (text, why) in bad {
        let error = KeySet::read(&text).unwrap_err().to_string();
        assert!(error.contains(why), "{error} for {text}");
        assert!(
            !error.contains("c2VjcmV0") && !error.contains("MIIE"),
            "{error}"
        );
    }
    // Others beside one that can be used are passed over.
    let both = set(&[json!({"kty": "oct", "k": "AAAA"}), issuer.jwk(None)]);
    assert!(KeySet::read(&both).is_ok());
}

#[test]
fn a_token_is_taken_of_one_header_alone() {
    let headers = |values: &[&str]| -> HeaderMap {
        let pair = |value: &&str| (http::header::AUTHORIZATION, value.parse().unwrap());
        values.iter().map(pair).collect()
    };
    assert_eq!(bearer(&headers(&["Bearer a.b.c"])), Some("a.b.c"));
    assert_eq!(bearer(&headers(&["bearer  a.b.c"])), Some("a.b.c"));
    for bad in [
        &[][..],
        &["Basic YTpi"],
        &["Bearer"],
        &["Bearer a", "Bearer b"],
    ] {
        assert_eq!(bearer(&headers(bad)), None, "{bad:?}");
    }
    let long = format!("Bearer {}", "a".repeat(9000));
    assert_eq!(bearer(&headers(&[long.as_str()])), None);
}

proptest::proptest! {
    #[test]
    fn whatever_else_is_sent_is_no_token(parts in proptest::collection::vec(".{0,40}", 1..4), encoded: bool) {
        let part = |part: &String| if encoded { BASE64.encode(part) } else { part.clone() };
        let text = parts.iter().map(part).collect::<Vec<_>>().join(".");
        proptest::prop_assert!(Token::read(&text, &tokens(String::new()), NOW).is_none());
        proptest::prop_assert!(KeySet::read(&text).is_err());
    }
}
