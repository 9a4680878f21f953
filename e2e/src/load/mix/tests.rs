use super::*;

const DRAWS: u32 = 200_000;

/// The share of each of the first keys.
fn shares(keys: Keys) -> Vec<f64> {
    let mix = Mix::of(&[Kind::get("app")], keys).unwrap();
    let mut choices = Mix::choices(42);
    let mut counts = vec![0_u32; 1_000];
    for _ in 0..DRAWS {
        counts[mix.choose(&mut choices).key as usize] += 1;
    }
    let share = |count: u32| f64::from(count) / f64::from(DRAWS);
    counts.into_iter().map(share).collect()
}

fn near(found: f64, expected: f64) {
    // Four standard errors of a share, and a little for the tiny ones.
    let error = 4.0 * (expected * (1.0 - expected) / f64::from(DRAWS)).sqrt() + 1e-4;
    assert!((found - expected).abs() < error, "{found}, not {expected}");
}

#[test]
fn uniform_keys_come_alike() {
    let shares = shares(Keys::Uniform { of: 1_000 });
    shares.into_iter().for_each(|share| near(share, 0.001));
}

#[test]
fn zipf_keys_fall_with_their_rank() {
    let shares = shares(Keys::Zipf {
        of: 1_000,
        exponent: 1.0,
    });
    let harmonic: f64 = (1..=1_000).map(|rank| 1.0 / f64::from(rank)).sum();
    for rank in [1_u32, 2, 3, 10, 100, 1_000] {
        near(
            shares[rank as usize - 1],
            1.0 / (f64::from(rank) * harmonic),
        );
    }
}

#[test]
fn one_key_has_the_percentage_it_was_given_and_the_others_share_the_rest() {
    let shares = shares(Keys::Hot {
        percent: 40.0,
        of: 1_000,
    });
    near(shares[0], 0.4);
    shares[1..]
        .iter()
        .for_each(|share| near(*share, 0.6 / 999.0));
}

#[test]
fn kinds_come_by_weight_and_kinds_of_one_label_are_reported_as_one() {
    let kind = |label: &str, weight| Kind {
        label: label.into(),
        weight,
        ..Kind::get("app")
    };
    let kinds = [kind("read", 6.0), kind("write", 3.0), kind("read", 1.0)];
    let mix = Mix::of(&kinds, Keys::Uniform { of: 1 }).unwrap();
    assert_eq!(mix.labels(), ["read", "write"]);
    let mut choices = Mix::choices(1);
    let writes = (0..DRAWS)
        .filter(|_| mix.label(mix.choose(&mut choices)) == 1)
        .count();
    near(
        f64::from(u32::try_from(writes).unwrap()) / f64::from(DRAWS),
        0.3,
    );
}

#[test]
fn the_same_seed_chooses_the_same() {
    let mix = Mix::of(&[Kind::get("app")], Keys::Uniform { of: 1_000 }).unwrap();
    let choose = |seed| {
        let mut choices = Mix::choices(seed);
        (0..100)
            .map(|_| mix.choose(&mut choices).key)
            .collect::<Vec<_>>()
    };
    assert_eq!(choose(1), choose(1));
    assert_ne!(choose(1), choose(2));
}

#[test]
fn the_key_is_put_into_path_headers_and_body() {
    let mut kind = Kind::get("app");
    kind.path = "/venue/{key}?again={key}".into();
    kind.body = "venue {key}".into();
    kind.headers = [
        ("x-user".to_owned(), "u{key}".to_owned()),
        ("x-fixed".to_owned(), "same".to_owned()),
    ]
    .into();
    let mix = Mix::one(kind).unwrap();
    let choice = Choice { kind: 0, key: 17 };
    assert_eq!(mix.path(choice), "/venue/17?again=17");
    assert_eq!(mix.body(choice), "venue 17");
    assert_eq!(mix.headers(choice)["x-user"], "u17");
    assert_eq!(mix.headers(choice)["x-fixed"], "same");
}

#[test]
fn a_kind_that_cannot_be_sent_is_refused_by_its_label() {
    let refused = |change: fn(&mut Kind)| {
        let mut kind = Kind::get("app");
        change(&mut kind);
        format!("{:#}", Mix::one(kind).unwrap_err())
    };
    assert!(refused(|kind| kind.path = "no-slash".into()).contains("slash"));
    assert!(refused(|kind| kind.host = "a b".into()).contains("no address"));
    assert!(refused(|kind| kind.weight = -1.0).contains("weight of -1"));
    assert!(refused(|kind| kind.method = "G T".into()).contains("the kind of request \"app\""));
    assert!(refused(|kind| kind.weight = 0.0).contains("no kind of request has a weight"));
}
