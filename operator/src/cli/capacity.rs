//! `jiuzhou capacity`: what there is, what is granted, what is used. The numbers are those of the
//! statuses, so that they equal what kubectl shows; people read them in one unit a resource.

use std::io::Write as _;
use std::process::ExitCode;

use crds::{Quota, Region};
use kube::{Client, ResourceExt as _};
use plan::amount::{format_cores, format_cores_left, parse_quantity};
use serde_json::{Value, json};

use super::output::{Format, Painted};
use super::table::Table;
use super::world::list;
use crate::args::By;

/// Prints what there is, by Region or by tenant.
pub(super) async fn capacity(client: &Client, by: By, format: Format) -> anyhow::Result<ExitCode> {
    let rows = match by {
        By::Region => regions(list::<Region>(client).await?),
        By::Tenant => tenants(list::<Quota>(client).await?),
    };
    let mut out = std::io::stdout().lock();
    match format {
        Format::Json => {
            let kind = match by {
                By::Region => "CapacityByRegion",
                By::Tenant => "CapacityByTenant",
            };
            let items: Vec<Value> = rows.iter().map(Row::to_json).collect();
            let value = json!({"apiVersion": "cli.jiuzhou.io/v1", "kind": kind, "items": items});
            writeln!(out, "{value:#}")?;
        }
        Format::Table if rows.is_empty() => {
            let nothing = match by {
                By::Region => "Nothing is known yet: no cluster has reported.",
                By::Tenant => "There is no Quota, so no tenant is limited.",
            };
            writeln!(out, "{nothing}")?;
        }
        Format::Table => write!(out, "{}", table(&rows))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// One line: the names first, then the amounts.
struct Row(Vec<(&'static str, Option<String>)>);

impl Row {
    fn resource(&self) -> &str {
        let mut cells = self.0.iter();
        let found = cells.find(|(name, _)| *name == "resource");
        found
            .and_then(|(_, value)| value.as_deref())
            .unwrap_or_default()
    }

    fn to_json(&self) -> Value {
        let cells = self.0.iter();
        cells
            .map(|(name, value)| ((*name).to_owned(), json!(value)))
            .collect()
    }
}

fn regions(regions: Vec<Region>) -> Vec<Row> {
    let mut rows = Vec::new();
    for region in regions {
        let name = region.name_any();
        for total in region.status.unwrap_or_default().resources {
            rows.push(Row(vec![
                ("region", Some(name.clone())),
                ("resource", Some(total.name)),
                ("allocatable", Some(total.allocatable.0)),
                ("granted", total.granted.map(|granted| granted.0)),
                ("requested", Some(total.requested.0)),
                ("headroom", Some(total.headroom.0)),
            ]));
        }
    }
    rows
}

fn tenants(quotas: Vec<Quota>) -> Vec<Row> {
    let mut rows = Vec::new();
    for quota in quotas {
        let home = quota.namespace().unwrap_or_default();
        let tenant = plan::world::owned_namespace(&(home.into(), quota.spec.tenant_name.clone()));
        for told in quota.status.unwrap_or_default().resources {
            rows.push(Row(vec![
                ("tenant", Some(tenant.to_string())),
                ("region", Some(quota.spec.region_name.to_string())),
                ("resource", Some(told.name)),
                ("nominal", Some(told.nominal.0)),
                ("used", Some(told.used.0)),
                ("borrowed", Some(told.borrowed.0)),
                ("carved", Some(told.carved.0)),
            ]));
        }
    }
    rows.sort_by(|a, b| a.0.cmp(&b.0));
    rows
}

fn table(rows: &[Row]) -> Table {
    let names = rows.first().map(|row| row.0.iter().map(|(name, _)| *name));
    let header: Vec<String> = names.into_iter().flatten().map(str::to_uppercase).collect();
    let header: Vec<&str> = header.iter().map(String::as_str).collect();
    let mut table = Table::new(&header);
    for row in rows {
        let resource = row.resource();
        let cell = |(name, value): &(&str, Option<String>)| {
            let text = value.as_deref().unwrap_or("-");
            Painted::from(match *name {
                "region" | "tenant" | "resource" => text.to_owned(),
                "headroom" if resource == "cpu" => left(text),
                _ => for_people(resource, text),
            })
        };
        table.row(row.0.iter().map(cell));
    }
    table
}

/// Cores that are left.
fn left(text: &str) -> String {
    let amount = parse_quantity("cpu", text);
    amount.map_or_else(|| text.to_owned(), format_cores_left)
}

/// An amount in the unit that all of its resource have, cores or Gi; anything else as it is.
fn for_people(resource: &str, text: &str) -> String {
    let Some(amount) = parse_quantity(resource, text) else {
        return text.to_owned();
    };
    match resource {
        "cpu" => format_cores(amount),
        "memory" | "storage" | "ephemeral-storage" => {
            // Hundredths, rounded: what is shown is read, not added up.
            let hundredths = (i128::from(amount) * 100 + (1 << 29)) >> 30;
            let (whole, rest) = (hundredths / 100, hundredths % 100);
            let text = format!("{whole}.{rest:02}");
            format!("{}Gi", text.trim_end_matches('0').trim_end_matches('.'))
        }
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quota(home: &str, tenant: &str, used: &str) -> Quota {
        serde_json::from_value(json!({
            "apiVersion": "jiuzhou.io/v1alpha1", "kind": "Quota",
            "metadata": {"name": format!("{tenant}.hangzhou"), "namespace": home},
            "spec": {
                "tenantName": tenant, "regionName": "hangzhou",
                "resources": [{"name": "cpu", "nominal": "40"}],
            },
            "status": {"resources": [{
                "name": "cpu", "nominal": "40", "used": used, "borrowed": "0", "carved": "15",
            }]},
        }))
        .unwrap()
    }

    #[test]
    fn people_read_one_unit_a_resource_and_names_as_they_are() {
        let region = Row(vec![
            ("region", Some("330100".to_owned())),
            ("resource", Some("memory".to_owned())),
            ("allocatable", Some("512Mi".to_owned())),
        ]);
        let text = table(&[region]).to_string();
        assert!(text.ends_with("330100  memory    0.5Gi\n"), "{text}");
        let amounts = ["1610612736", "512Mi", "40Gi", "0", "1Ki"];
        let memory = amounts.map(|text| for_people("memory", text));
        assert_eq!(memory, ["1.5Gi", "0.5Gi", "40Gi", "0Gi", "0Gi"]);
        assert_eq!(for_people("cpu", "1500m"), "1.5");
        assert_eq!(left("118800m"), "118", "of 120 it is not 119");
        assert_eq!(["1250m", "99990m", "0"].map(left), ["1.2", "99.9", "0"]);
        assert_eq!(for_people("pods", "110"), "110");
        assert_eq!(for_people("cpu", "hangzhou"), "hangzhou");
    }

    #[test]
    fn tenants_stand_by_the_namespace_they_own_and_programs_read_what_the_status_has() {
        let rows = tenants(vec![
            quota("tax", "audit", "1500m"),
            quota("jiuzhou-system", "tax", "12"),
        ]);
        let lines: Vec<String> = table(&rows)
            .to_string()
            .lines()
            .map(str::to_owned)
            .collect();
        assert_eq!(
            lines,
            [
                "TENANT     REGION    RESOURCE  NOMINAL  USED  BORROWED  CARVED",
                "tax        hangzhou  cpu       40       12    0         15",
                "tax-audit  hangzhou  cpu       40       1.5   0         15",
            ]
        );
        assert_eq!(rows[1].to_json()["used"], "1500m");
    }
}
