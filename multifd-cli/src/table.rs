//! Tables on a terminal.

use std::fmt;

/// Rows of cells under a header. The first column is aligned to the left, and those that the
/// header marks with `<`; the others to the right.
#[derive(Debug)]
pub(crate) struct Table {
    header: Vec<&'static str>,
    rows: Vec<Row>,
}

#[derive(Debug)]
enum Row {
    Cells(Vec<String>),
    /// The first cell, and a text in place of the others.
    Remark(String, String),
}

impl Table {
    /// A table with these columns.
    pub(crate) fn new(header: &[&'static str]) -> Self {
        Self { header: header.to_vec(), rows: Vec::new() }
    }

    /// Appends a row with a cell for each column.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(Row::Cells(cells.into_iter().collect()));
    }

    /// Appends a row that says `text` of `name`.
    pub(crate) fn remark(&mut self, name: &str, text: &str) {
        self.rows.push(Row::Remark(name.to_owned(), text.to_owned()));
    }

    fn widths(&self) -> Vec<usize> {
        let mut widths: Vec<_> = self.header.iter().map(|cell| title(cell).len()).collect();
        for row in &self.rows {
            match row {
                Row::Cells(cells) => {
                    for (width, cell) in widths.iter_mut().zip(cells) {
                        *width = (*width).max(cell.chars().count());
                    }
                }
                Row::Remark(name, _) => widths[0] = widths[0].max(name.chars().count()),
            }
        }
        widths
    }
}

fn title(header: &'static str) -> &'static str {
    header.trim_start_matches('<')
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let widths = self.widths();
        let write = |f: &mut fmt::Formatter<'_>, cells: &[&str]| {
            let mut line = String::new();
            for (at, (cell, &width)) in cells.iter().zip(&widths).enumerate() {
                let gap = if at == 0 { "" } else { "  " };
                line += &if at == 0 || self.header[at].starts_with('<') {
                    format!("{gap}{cell:<width$}")
                } else {
                    format!("{gap}{cell:>width$}")
                };
            }
            writeln!(f, "{}", line.trim_end())
        };
        let header: Vec<_> = self.header.iter().map(|cell| title(cell)).collect();
        write(f, &header)?;
        for row in &self.rows {
            match row {
                Row::Cells(cells) => {
                    write(f, &cells.iter().map(String::as_str).collect::<Vec<_>>())?;
                }
                Row::Remark(name, text) => writeln!(f, "{name:<0$}  {text}", widths[0])?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(&["codec", "level", "<by"]);
        table.row(["none", "-", "us"].map(str::to_owned));
        table.row(["zstd", "1", "libzstd 1.5"].map(str::to_owned));
        table.remark("qpl", "not available: no libqpl");
        let lines = [
            "codec  level  by",
            "none       -  us",
            "zstd       1  libzstd 1.5",
            "qpl    not available: no libqpl",
        ];
        assert_eq!(table.to_string().lines().collect::<Vec<_>>(), lines);
    }
}
