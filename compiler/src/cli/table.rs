//! Tables of text: columns as wide as their widest cell, numbers to the right.

/// Widest column that is filled up with blanks. Longer cells stand out of their own row only: a name may have any length,
/// and formatted widths end at 65535.
const WIDEST: usize = 200;

/// A table under construction.
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these column heads.
    pub fn new(heads: &[&str]) -> Self {
        Self { rows: vec![heads.iter().map(ToString::to_string).collect()] }
    }

    /// Adds a row of as many cells as there are heads.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// The table as lines, each ending in a newline.
    pub fn render(&self) -> String {
        let columns = self.rows[0].len();
        let widths: Vec<usize> = (0..columns).map(|column| self.width(column)).collect();
        let right: Vec<bool> = (0..columns).map(|column| self.is_numeric(column)).collect();
        self.rows.iter().map(|row| line(row, &widths, &right)).collect()
    }

    fn width(&self, column: usize) -> usize {
        self.rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0).min(WIDEST)
    }

    /// Whether all cells below the head start with a digit, a sign or nothing.
    fn is_numeric(&self, column: usize) -> bool {
        let starts_numeric = |cell: &String| cell.chars().next().is_none_or(|c| c.is_ascii_digit() || c == '-');
        self.rows.len() > 1 && self.rows[1..].iter().all(|row| starts_numeric(&row[column]))
    }
}

fn line(row: &[String], widths: &[usize], right: &[bool]) -> String {
    let cells = row
        .iter()
        .zip(widths)
        .zip(right)
        .map(|((cell, &width), &right)| if right { format!("{cell:>width$}") } else { format!("{cell:<width$}") });
    let joined = cells.collect::<Vec<_>>().join("  ");
    format!("{}\n", joined.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_go_left_and_numbers_right() {
        let mut table = Table::new(&["group", "size"]);
        table.row(["norms".into(), "12".into()]);
        table.row(["x".into(), "3".into()]);
        assert_eq!(table.render(), "group  size\nnorms    12\nx         3\n");
    }

    #[test]
    fn a_name_of_any_length_is_shown_in_its_row() {
        let name = "n".repeat(100_000);
        let mut table = Table::new(&["tensor", "bytes"]);
        table.row([name.clone(), "12".into()]);
        table.row(["x".into(), "3".into()]);
        let rendered = table.render();
        let rows: Vec<&str> = rendered.lines().collect();
        assert_eq!(rows[1], format!("{name}     12"));
        assert_eq!(rows[2], format!("{:<WIDEST$}      3", "x"));
    }
}
