//! Which Quotas an App draws on.

use crds::ClusterName;
use plan::amount::format_amount;
use plan::province::Draw;
use plan::report::AppReport;
use serde_json::{Value, json};

use super::super::output::Painted;
use super::super::table::Table;
use super::Show;

const HEADER: [&str; 8] = [
    "QUOTA", "RESOURCE", "EACH", "CHARGED", "USED", "BORROWED", "LEFT", "WHERE",
];
/// Where the tenant has Quotas, but none for a cluster's Region or one above it.
const NONE: &str = "none counts";

pub(super) fn as_json(draws: &[Draw]) -> Value {
    draws.iter().map(one).collect()
}

fn one(draw: &Draw) -> Value {
    let Some(source) = &draw.source else {
        return json!({"quota": null, "clusters": draw.clusters});
    };
    let text = |amount| format_amount(&draw.resource, amount);
    json!({
        "quota": source.to_string(), "resource": draw.resource, "perReplica": text(draw.each),
        "charged": text(draw.charged), "used": text(draw.used), "nominal": text(draw.nominal),
        "borrowed": text(draw.borrowed), "left": text(draw.left),
        "limitedBy": draw.limit.as_ref().map(ToString::to_string),
        "clusters": draw.clusters,
    })
}

pub(super) fn as_text(draws: Option<&[Draw]>, app: &AppReport, show: Show) -> String {
    let Some(draws) = draws else {
        return format!("No Quota limits namespace {}.\n", app.namespace);
    };
    if draws.is_empty() {
        return "No cluster takes the App, so it draws on no Quota.\n".to_owned();
    }
    let mut table = Table::new(&HEADER).within(show.columns);
    for draw in draws {
        table.row(row(draw, show));
    }
    table.to_string()
}

fn row(draw: &Draw, show: Show) -> Vec<Painted> {
    let clusters: Vec<&str> = draw.clusters.iter().map(ClusterName::as_str).collect();
    let clusters = clusters.join(", ");
    let Some(source) = &draw.source else {
        let dashes = std::iter::repeat_n(Painted::from("-".to_owned()), HEADER.len() - 2);
        let row = std::iter::once(show.paint.bad(NONE)).chain(dashes);
        return row.chain([clusters.into()]).collect();
    };
    let text = |amount| format_amount(&draw.resource, amount);
    // Whoever leaves no more is named, if it is not the Quota of the row.
    let limit = draw.limit.as_ref().filter(|limit| *limit != source);
    let limit = limit.map(|limit| format!("; {limit} leaves no more"));
    vec![
        source.to_string().into(),
        draw.resource.clone().into(),
        text(draw.each).into(),
        text(draw.charged).into(),
        format!("{}/{}", text(draw.used), text(draw.nominal)).into(),
        text(draw.borrowed).into(),
        text(draw.left).into(),
        format!("{clusters}{}", limit.unwrap_or_default()).into(),
    ]
}

#[cfg(test)]
mod tests {
    use plan::province::Source;

    use super::super::super::output::Paint;
    use super::*;

    fn draws() -> Vec<Draw> {
        let quota = |region: &str| Source::Quota(("tax-audit".into(), region.into()));
        let full = Draw {
            clusters: vec!["hangzhou-a".into(), "hangzhou-b".into()],
            source: Some(quota("hangzhou")),
            resource: "cpu".to_owned(),
            each: 500,
            charged: 2_000,
            nominal: 8_000,
            used: 9_500,
            borrowed: 1_500,
            left: 250,
            limit: Some(Source::Budget("zhejiang".into())),
        };
        let none = Draw {
            clusters: vec!["ningbo-a".into()],
            source: None,
            resource: String::new(),
            ..full.clone()
        };
        let own = Draw {
            resource: "memory".to_owned(),
            limit: full.source.clone(),
            left: 1 << 30,
            ..full.clone()
        };
        vec![full, own, none]
    }

    #[test]
    fn each_quota_has_a_row_and_what_leaves_no_more_is_named_if_it_is_another() {
        let show = Show {
            paint: Paint::never(),
            columns: None,
        };
        let draws = draws();
        let mut table = Table::new(&HEADER);
        draws.iter().for_each(|draw| table.row(row(draw, show)));
        let text = table.to_string();
        let cells = |line: &str| {
            let cells = line
                .split("  ")
                .map(str::trim)
                .filter(|cell| !cell.is_empty());
            cells.map(str::to_owned).collect::<Vec<_>>()
        };
        let rows: Vec<Vec<String>> = text.lines().skip(1).map(cells).collect();
        let own = "Quota audit.hangzhou";
        assert_eq!(rows[0][..4], [own, "cpu", "500m", "2"]);
        assert_eq!(rows[0][4..7], ["9500m/8", "1500m", "250m"]);
        let clusters = "hangzhou-a, hangzhou-b";
        let note = format!("{clusters}; the budget of Region zhejiang leaves no more");
        assert_eq!(rows[0][7], note);
        assert_eq!(
            rows[1][6..],
            ["1Gi", clusters],
            "its own limit needs no name"
        );
        assert_eq!(rows[2].first().unwrap(), NONE);
        assert_eq!(rows[2].last().unwrap(), "ningbo-a");
    }

    #[test]
    fn programs_get_the_same_amounts() {
        let value = as_json(&draws());
        assert_eq!(value[0]["left"], "250m");
        assert_eq!(value[0]["limitedBy"], "the budget of Region zhejiang");
        assert_eq!(value[2], json!({"quota": null, "clusters": ["ningbo-a"]}));
    }
}
