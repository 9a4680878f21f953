use super::*;

fn head(name: &str, version: &str, source: Option<&str>) -> Head {
    let annotations = source.map(|source| BTreeMap::from([(SOURCE.to_owned(), source.to_owned())]));
    let metadata = ObjectMeta {
        name: Some(name.to_owned()),
        uid: Some("u".to_owned()),
        resource_version: Some(version.to_owned()),
        annotations,
        ..ObjectMeta::default()
    };
    Head {
        metadata,
        kind: "Opaque".to_owned(),
    }
}

fn listed(heads: Option<Vec<Head>>) -> Listed {
    let heads = heads.map(|all| all.into_iter().map(|head| (head.name(), head)).collect());
    Listed {
        heads,
        _watch: JoinSet::new(),
    }
}

fn steps(sources: Option<Vec<Head>>, copies: Option<Vec<Head>>, names: &[&str]) -> Vec<String> {
    let (sender, _heard) = mpsc::channel(1);
    let config = kube::Config::new("http://127.0.0.1:1".parse().unwrap());
    let client = Client::try_from(config).unwrap();
    let mut secrets = Secrets::new(client, sender);
    secrets.sources.insert("health".into(), listed(sources));
    secrets.copies.insert("hangzhou-a".into(), listed(copies));
    let copy = |name: &&str| {
        (
            ("hangzhou-a".into(), format!("s-{name}")),
            ("health".into(), (*name).to_owned()),
        )
    };
    secrets
        .decide(&names.iter().map(copy).collect())
        .iter()
        .map(Step::place)
        .collect()
}

#[tokio::test]
async fn a_copy_is_written_when_it_is_missing_or_older_than_its_source() {
    let source = || Some(vec![head("db", "2", None)]);
    let copy = ["copy of Secret health/db for hangzhou-a"];
    assert_eq!(steps(source(), Some(vec![]), &["db"]), copy);
    assert_eq!(
        steps(
            source(),
            Some(vec![head("s-db", "9", Some("u/1"))]),
            &["db"]
        ),
        copy
    );
    assert!(
        steps(
            source(),
            Some(vec![head("s-db", "9", Some("u/2"))]),
            &["db"]
        )
        .is_empty()
    );
}

#[tokio::test]
async fn a_copy_goes_when_no_entry_names_it_and_not_when_its_source_is_gone() {
    let copy = || Some(vec![head("s-db", "9", Some("u/1"))]);
    assert_eq!(
        steps(Some(vec![]), copy(), &[]),
        ["removal of copy s-db of hangzhou-a"]
    );
    assert!(steps(Some(vec![]), copy(), &["db"]).is_empty());
}

#[tokio::test]
async fn nothing_is_decided_before_both_sides_were_listed() {
    assert!(steps(None, Some(vec![]), &["db"]).is_empty());
    assert!(steps(Some(vec![head("db", "2", None)]), None, &["db"]).is_empty());
}

#[tokio::test]
async fn a_token_of_the_hub_itself_is_never_copied() {
    let mut token = head("db", "2", None);
    TOKEN.clone_into(&mut token.kind);
    assert!(steps(Some(vec![token]), Some(vec![]), &["db"]).is_empty());
}
