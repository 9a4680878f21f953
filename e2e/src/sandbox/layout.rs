//! Which clusters a sandbox has, and in which Region each lies.

use serde::Serialize;

/// How the hub reaches a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// It is the hub's own cluster.
    Local,
    /// Its agent calls the hub.
    Pull,
    /// The hub calls it.
    Push,
}

/// One cluster of the province.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Name of the MemberCluster.
    pub name: String,
    /// Name of its Region.
    pub region: String,
    /// How the hub reaches it.
    pub mode: Mode,
}

impl Member {
    fn new(region: &str, short: &str, mode: Mode) -> Self {
        Self {
            name: format!("{short}-a"),
            region: region.to_owned(),
            mode,
        }
    }
}

/// Cities beyond the default ones, in the order of their codes.
const FURTHER_CITIES: [&str; 8] = [
    "wenzhou", "jiaxing", "huzhou", "shaoxing", "jinhua", "zhoushan", "taizhou", "lishui",
];

/// The province's own cluster, three cities and a county.
pub fn default_members() -> Vec<Member> {
    vec![
        Member::new("zhejiang", "zhejiang", Mode::Local),
        Member::new("hangzhou", "hangzhou", Mode::Pull),
        Member::new("ningbo", "ningbo", Mode::Pull),
        Member::new("quzhou", "quzhou", Mode::Push),
        Member::new("hangzhou-yuhang", "yuhang", Mode::Pull),
    ]
}

/// The first `count` clusters: the default ones, the other cities, then further clusters of the
/// cities in turn (`hangzhou-b`, ...).
pub(super) fn members(count: usize) -> Vec<Member> {
    let mut members = default_members();
    members.extend(FURTHER_CITIES.map(|city| Member::new(city, city, Mode::Pull)));
    let cities = ["hangzhou", "ningbo", "quzhou"]
        .into_iter()
        .chain(FURTHER_CITIES);
    let second_and_later = ('b'..='z').flat_map(|letter| {
        let cities = cities.clone();
        cities.map(move |city| Member {
            name: format!("{city}-{letter}"),
            region: city.to_owned(),
            mode: Mode::Pull,
        })
    });
    members.extend(second_and_later.take(count.saturating_sub(members.len())));
    members.truncate(count);
    members
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn begins_with_the_named_clusters_and_repeats_none() {
        let mut names: Vec<String> = members(64).into_iter().map(|member| member.name).collect();
        let first = [
            "zhejiang-a",
            "hangzhou-a",
            "ningbo-a",
            "quzhou-a",
            "yuhang-a",
            "wenzhou-a",
        ];
        assert_eq!(names[..6], first);
        names.sort();
        names.dedup();
        assert_eq!(names.len(), 64);
    }
}
