//! Amounts of resources, exact and comparable.

use std::collections::BTreeMap;

use crds::{Quantity, ResourceQuantity};

/// Amounts by resource name: `cpu` in thousandths of a core, everything else in its base unit.
///
/// The three that every pod and node has sit in front, since placement asks for them a million
/// times a turn.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Resources {
    front: [Option<i64>; 3],
    rest: BTreeMap<Box<str>, i64>,
}

const FRONT: [&str; 3] = ["cpu", "memory", "pods"];

/// Parses a quantity of that resource, rounding up as Kubernetes does, or `None` when it is not one
/// or is out of range.
pub fn parse_quantity(resource: &str, text: &str) -> Option<i64> {
    let digits = text
        .bytes()
        .take_while(|b| b.is_ascii_digit() || *b == b'.')
        .count();
    let unit = if resource == "cpu" { 1000 } else { 1 };
    // Nearly all of them, and asked for by the hundred thousand.
    if digits == text.len() && digits <= 15 && !text.contains('.') {
        return text.parse::<i64>().ok()?.checked_mul(unit.into());
    }
    let (number, suffix) = text.split_at(digits);
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    if whole.len() + part.len() > 18 || part.contains('.') {
        return None;
    }
    let (times, by) = multiplier(suffix)?;
    let mantissa: i128 = format!("{whole}{part}").parse().ok()?;
    let divisor = 10_i128
        .pow(u32::try_from(part.len()).ok()?)
        .checked_mul(by)?;
    let scaled = mantissa.checked_mul(times)?.checked_mul(i128::from(unit))?;
    i64::try_from((scaled + divisor - 1) / divisor).ok()
}

/// What a suffix multiplies by, as a fraction.
fn multiplier(suffix: &str) -> Option<(i128, i128)> {
    let exponent = suffix
        .strip_prefix(['e', 'E'])
        .filter(|digits| !digits.is_empty());
    if let Some(exponent) = exponent.filter(|digits| *digits != "i") {
        let power: i32 = exponent.parse().ok()?;
        let ten = 10_i128
            .checked_pow(power.unsigned_abs())
            .filter(|_| power.abs() <= 18)?;
        return Some(if power < 0 { (1, ten) } else { (ten, 1) });
    }
    let at = |list: &str| u32::try_from(list.find(suffix.chars().next()?)? + 1).ok();
    match suffix.len() {
        0 => Some((1, 1)),
        1 if suffix == "k" => Some((1000, 1)),
        1 => match at("mun") {
            Some(below) => Some((1, 1000_i128.pow(below))),
            None => Some((1000_i128.pow(at("kMGTPE")?), 1)),
        },
        2 if suffix.ends_with('i') => Some((1024_i128.pow(at("KMGTPE")?), 1)),
        _ => None,
    }
}

/// Writes an amount of that resource the way people do: `1500m`, `12`, `80Gi`.
pub fn format_amount(resource: &str, amount: i64) -> String {
    if resource == "cpu" {
        return if amount % 1000 == 0 {
            format!("{}", amount / 1000)
        } else {
            format!("{amount}m")
        };
    }
    if resource.contains("memory") || resource.contains("storage") {
        for (unit, size) in [
            ("Ti", 1_i64 << 40),
            ("Gi", 1 << 30),
            ("Mi", 1 << 20),
            ("Ki", 1 << 10),
        ] {
            if amount >= size && amount % size == 0 {
                return format!("{}{unit}", amount / size);
            }
        }
    }
    amount.to_string()
}

/// Writes millicores as cores to be read in a table: `3.5`, `24`, `117`. Exact amounts stand in the
/// status beside it.
pub fn format_cores(millicores: i64) -> String {
    let tenths = (millicores + 50) / 100;
    if tenths % 10 == 0 || tenths >= 1_000 {
        format!("{}", (tenths + 5) / 10)
    } else {
        format!("{}.{}", tenths / 10, tenths % 10)
    }
}

/// The same of what is left: cut off and not rounded, so that it never reads as more than there is.
pub fn format_cores_left(millicores: i64) -> String {
    // From a hundred cores on whole ones are shown, tenths below.
    let step = if millicores < 100_000 { 100 } else { 1_000 };
    format_cores(millicores - millicores.rem_euclid(step))
}

impl Resources {
    /// The amounts in a list of quantities; what cannot be parsed is left out.
    pub fn of(list: &[ResourceQuantity]) -> Self {
        let mut sum = Self::default();
        for item in list {
            if let Some(amount) = parse_quantity(&item.name, &item.quantity.0) {
                sum.set(&item.name, amount);
            }
        }
        sum
    }

    /// The amounts as a list of quantities, by name.
    pub fn to_list(&self) -> Vec<ResourceQuantity> {
        let item = |(name, amount): (&str, i64)| ResourceQuantity {
            name: name.to_owned(),
            quantity: Quantity(format_amount(name, amount)),
        };
        let mut list: Vec<_> = self.iter().map(item).collect();
        list.sort_by(|a, b| a.name.cmp(&b.name));
        list
    }

    /// The amount of one resource; 0 when it is not named.
    pub fn get(&self, name: &str) -> i64 {
        self.find(name).unwrap_or(0)
    }

    /// Whether a resource is named.
    pub fn names(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    fn find(&self, name: &str) -> Option<i64> {
        match FRONT.iter().position(|front| *front == name) {
            Some(at) => self.front[at],
            None => self.rest.get(name).copied(),
        }
    }

    /// Sets the amount of one resource.
    pub fn set(&mut self, name: &str, amount: i64) {
        match FRONT.iter().position(|front| *front == name) {
            Some(at) => self.front[at] = Some(amount),
            None => drop(self.rest.insert(name.into(), amount)),
        }
    }

    /// The resources that are named, with their amounts.
    pub fn iter(&self) -> impl Iterator<Item = (&str, i64)> {
        let front = FRONT
            .iter()
            .zip(self.front)
            .filter_map(|(name, amount)| Some((*name, amount?)));
        front.chain(
            self.rest
                .iter()
                .map(|(name, amount)| (name.as_ref(), *amount)),
        )
    }

    /// Adds `times` times `other`.
    pub fn add(&mut self, other: &Self, times: i64) {
        for (sum, amount) in self.front.iter_mut().zip(other.front) {
            if let Some(amount) = amount {
                *sum = Some(
                    sum.unwrap_or(0)
                        .saturating_add(amount.saturating_mul(times)),
                );
            }
        }
        for (name, amount) in &other.rest {
            let sum = self.rest.entry(name.clone()).or_default();
            *sum = sum.saturating_add(amount.saturating_mul(times));
        }
    }

    /// `self - other` for every resource that `self` names.
    #[must_use]
    pub fn minus(&self, other: &Self) -> Self {
        let mut left = self.clone();
        for (left, amount) in left.front.iter_mut().zip(other.front) {
            *left = left.map(|l| l.saturating_sub(amount.unwrap_or(0)));
        }
        for (name, left) in &mut left.rest {
            *left = left.saturating_sub(other.get(name));
        }
        left
    }

    /// The larger amount of each resource.
    #[must_use]
    pub fn at_least(&self, other: &Self) -> Self {
        let mut most = self.clone();
        for (most, amount) in most.front.iter_mut().zip(other.front) {
            *most = (*most).max(amount);
        }
        for (name, amount) in &other.rest {
            let here = most.rest.entry(name.clone()).or_default();
            *here = (*here).max(*amount);
        }
        most
    }

    /// How many times `request` fits into `self`, at most `most`. A resource that `self` does not
    /// name does not count against it: no cluster reports, say, requests per second.
    pub fn fits(&self, request: &Self, most: i32) -> i32 {
        let mut least = i64::from(most);
        for (free, need) in self.front.iter().zip(request.front) {
            if let (Some(free), Some(need @ 1..)) = (free, need) {
                least = least.min(free / need);
            }
        }
        for (name, need) in &request.rest {
            if let (Some(free), 1..) = (self.rest.get(name), *need) {
                least = least.min(free / need);
            }
        }
        i32::try_from(least.max(0)).unwrap_or(most)
    }

    /// What is left of `total`, in thousandths, for the scarcer of cores and memory; 1000 when
    /// neither is known.
    pub fn headroom(&self, total: &Self) -> i64 {
        let share = |at: usize| match (self.front[at], total.front[at]) {
            (Some(free), Some(total @ 1..)) => Some(free.max(0).saturating_mul(1000) / total),
            _ => None,
        };
        [share(0), share(1)]
            .into_iter()
            .flatten()
            .min()
            .unwrap_or(1000)
            .min(1000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resources(list: &[(&str, &str)]) -> Resources {
        let item = |(n, q): &(&str, &str)| ResourceQuantity {
            name: (*n).to_owned(),
            quantity: Quantity((*q).to_owned()),
        };
        Resources::of(&list.iter().map(item).collect::<Vec<_>>())
    }

    #[test]
    fn quantities_are_read_in_thousandths_of_a_core_and_in_bytes() {
        assert_eq!(parse_quantity("cpu", "500m"), Some(500));
        assert_eq!(parse_quantity("cpu", "1.5"), Some(1500));
        assert_eq!(parse_quantity("memory", "80Gi"), Some(80 << 30));
        assert_eq!(parse_quantity("memory", "1M"), Some(1_000_000));
        assert_eq!(parse_quantity("cpu", "much"), None);
        assert_eq!(parse_quantity("cpu", "-1"), None);
        assert_eq!(parse_quantity("memory", "1.5Gi"), Some(3 << 29));
        assert_eq!(parse_quantity("memory", "1500m"), Some(2));
        assert_eq!(parse_quantity("memory", "1e3"), Some(1000));
        assert_eq!(
            parse_quantity("memory", "2E"),
            Some(2_000_000_000_000_000_000)
        );
        assert_eq!(parse_quantity("memory", "1Ei"), Some(1 << 60));
        assert_eq!(parse_quantity("memory", "99Ei"), None);
        assert_eq!(parse_quantity("cpu", "100u"), Some(1));
        for not_one in ["", ".", "1.2.3", "Gi", "1K", "1ki", "1é", "1e", "+1"] {
            assert_eq!(parse_quantity("memory", not_one), None, "{not_one}");
        }
    }

    #[test]
    fn amounts_are_written_as_people_write_them() {
        assert_eq!(format_amount("cpu", 1500), "1500m");
        assert_eq!(format_amount("cpu", 12_000), "12");
        assert_eq!(format_amount("memory", 80 << 30), "80Gi");
        assert_eq!(format_amount("pods", 110), "110");
    }

    #[test]
    fn the_scarcest_resource_decides_how_often_a_request_fits() {
        let free = resources(&[("cpu", "4"), ("memory", "3Gi")]);
        assert_eq!(
            free.fits(&resources(&[("cpu", "1"), ("memory", "1Gi")]), 100),
            3
        );
        assert_eq!(free.fits(&resources(&[("gpu", "1")]), 100), 100);
        assert_eq!(
            free.minus(&resources(&[("cpu", "9")]))
                .fits(&resources(&[("cpu", "1")]), 9),
            0
        );
    }
}
