//! Tables for people: columns as wide as their cells, two spaces between them.

use std::fmt::Write as _;

use super::output::Painted;

/// However little the other columns leave, the last one gets this much: words have to fit.
const LAST_MIN: usize = 32;

/// A table with a header.
pub(super) struct Table {
    rows: Vec<Vec<Painted>>,
    columns: Option<usize>,
}

impl Table {
    pub(super) fn new(header: &[&str]) -> Self {
        let cell = |cell: &&str| Painted::from((*cell).to_owned());
        Self {
            rows: vec![header.iter().map(cell).collect()],
            columns: None,
        }
    }

    /// Breaks the last column between words, so that lines take that many columns; `None` for
    /// programs that read one row a line.
    pub(super) fn within(mut self, columns: Option<usize>) -> Self {
        self.columns = columns;
        self
    }

    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = Painted>) {
        self.rows.push(cells.into_iter().collect());
    }
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| wide(&cell.text)).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let (_, others) = widths.split_last().unwrap_or((&0, &[]));
        let indent: usize = others.iter().map(|width| width + 2).sum();
        let room = self
            .columns
            .map(|all| all.saturating_sub(indent).max(LAST_MIN));
        for row in &self.rows {
            let mut line = String::new();
            for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
                if let (Some(room), true) = (room, column == others.len()) {
                    let gap = format!("\n{:indent$}", "");
                    let lines = broken(&cell.text, room).into_iter();
                    let lines: Vec<String> = lines.map(|l| cell.like(l).to_string()).collect();
                    line.push_str(&lines.join(&gap));
                    continue;
                }
                // Painted only now: padding counts what is seen.
                let pad = width - wide(&cell.text) + 2;
                write!(line, "{cell}{:pad$}", "")?;
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// A text as lines of at most `room` columns; a longer word stands alone.
pub(super) fn broken(text: &str, room: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if wide(line) + 1 + wide(word) <= room => {
                line.push(' ');
                line.push_str(word);
            }
            Some(_) | None => lines.push(word.to_owned()),
        }
    }
    lines
}

/// A text broken between words under its first one, every line painted and standing in by `indent`.
pub(super) fn hung(
    text: &str,
    indent: usize,
    columns: Option<usize>,
    paint: impl Fn(String) -> Painted,
) -> String {
    let lines = match columns {
        Some(columns) => broken(text, columns.saturating_sub(indent)),
        None => vec![text.to_owned()],
    };
    let lines = lines.into_iter().map(|line| paint(line).to_string());
    let lines: Vec<String> = lines.collect();
    let gap = " ".repeat(indent);
    format!("{gap}{}\n", lines.join(&format!("\n{gap}")))
}

/// A name without its middle where it takes more than `most` columns; programs, for which nothing is broken,
/// read it whole.
pub(super) fn cut(name: &str, most: usize, columns: Option<usize>) -> String {
    if columns.is_none() || wide(name) <= most {
        return name.to_owned();
    }
    let room = most.saturating_sub(1);
    let mut end: Vec<char> = taken(name.chars().rev(), room / 2);
    end.reverse();
    let begin = taken(name.chars(), room - room / 2);
    begin.into_iter().chain(['…']).chain(end).collect()
}

/// As many characters as fit.
fn taken(chars: impl Iterator<Item = char>, room: usize) -> Vec<char> {
    let mut used = 0;
    let fits = |c: &char| {
        used += wide(c.encode_utf8(&mut [0; 4]));
        used <= room
    };
    chars.take_while(fits).collect()
}

/// Columns a text takes on a terminal: Chinese characters take two.
fn wide(text: &str) -> usize {
    text.chars().map(|c| if matches!(c, '\u{1100}'..='\u{115f}' | '\u{2e80}'..='\u{a4cf}' | '\u{ac00}'..='\u{d7a3}' | '\u{f900}'..='\u{faff}' | '\u{fe30}'..='\u{fe6f}' | '\u{ff00}'..='\u{ff60}') { 2 } else { 1 }).sum()
}

#[cfg(test)]
mod tests {
    use super::super::output::Paint;
    use super::*;

    fn cells<const N: usize>(cells: [&str; N]) -> [Painted; N] {
        cells.map(|cell| Painted::from(cell.to_owned()))
    }

    #[test]
    fn columns_line_up_also_with_chinese_names() {
        let mut table = Table::new(&["REGION", "NAME", "CPU"]);
        table.row(cells(["hangzhou", "杭州市", "1/8"]));
        table.row(cells(["quzhou", "x", "0/8"]));
        assert_eq!(
            table.to_string(),
            "REGION    NAME    CPU\nhangzhou  杭州市  1/8\nquzhou    x       0/8\n"
        );
    }

    #[test]
    fn a_colour_takes_no_room() {
        let table = |paint: Paint| {
            let mut table = Table::new(&["PLACED", "WHY"]);
            table.row([paint.good("yes"), "fits".to_owned().into()]);
            table.row([paint.unsure("no"), "full".to_owned().into()]);
            table.to_string()
        };
        assert_eq!(
            table(Paint::never()),
            "PLACED  WHY\nyes     fits\nno      full\n"
        );
        assert_eq!(
            table(Paint::always()),
            "PLACED  WHY\n\u{1b}[32myes\u{1b}[0m     fits\n\u{1b}[33mno\u{1b}[0m      full\n"
        );
    }

    #[test]
    fn a_name_that_is_too_long_loses_its_middle() {
        assert_eq!(cut("per-citizen", 11, Some(100)), "per-citizen");
        assert_eq!(cut("per-citizens", 11, Some(100)), "per-c…izens");
        assert_eq!(cut("每位市民每秒请求", 9, Some(100)), "每位…请求");
        assert_eq!(cut("per-citizens", 11, None), "per-citizens");
    }

    #[test]
    fn the_last_column_is_broken_between_words_under_its_head() {
        let mut table = Table::new(&["C", "WHY"]).within(Some(20));
        table.row(cells([
            "a",
            "it is out of contact: nothing moves by itself",
        ]));
        assert_eq!(
            table.to_string(),
            "C  WHY\na  it is out of contact: nothing\n   moves by itself\n"
        );
    }
}
