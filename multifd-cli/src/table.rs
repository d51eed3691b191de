//! Tables on a terminal.

use std::fmt;

use comfy_table::{Cell, CellAlignment, ColumnConstraint, ContentArrangement, Width, presets};

/// Spaces between two columns.
const GAP: u16 = 2;

/// Rows of cells under a header. The first column is aligned to the left, and those that the
/// header marks with `<`; the others to the right. On a terminal, titles and texts are wrapped to its
/// width; numbers never are.
#[derive(Debug)]
pub(crate) struct Table {
    header: Vec<&'static str>,
    rows: Vec<Vec<String>>,
    remarks: Vec<(String, String)>,
}

impl Table {
    /// A table with these columns.
    pub(crate) fn new(header: &[&'static str]) -> Self {
        Self { header: header.to_vec(), rows: Vec::new(), remarks: Vec::new() }
    }

    /// Appends a row with a cell for each column.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// Adds a line below the rows that says `text` of `name`.
    pub(crate) fn remark(&mut self, name: &str, text: &str) {
        self.remarks.push((name.to_owned(), text.to_owned()));
    }

    /// The lines, at most `width` characters each if the numbers leave room for that.
    fn lines(&self, width: Option<u16>) -> Vec<String> {
        let titles: Vec<_> =
            self.header.iter().map(|title| title.trim_start_matches('<')).collect();
        let least = titles.iter().enumerate().map(|(at, title)| self.least(at, title)).collect();
        let mut lines = shape(Some(&titles), &self.rows, width, |at| self.is_text(at), least);
        let remarks: Vec<_> =
            self.remarks.iter().map(|(name, text)| vec![name.clone(), text.clone()]).collect();
        if let Some(name) = self.remarks.iter().map(|(name, _)| name.chars().count()).max() {
            lines.extend(shape(None, &remarks, width, |_| true, vec![name, 20]));
        }
        lines
    }

    fn is_text(&self, column: usize) -> bool {
        column == 0 || self.header[column].starts_with('<')
    }

    /// The least width of a column: a number, and a word of the title, are not broken.
    fn least(&self, column: usize, title: &str) -> usize {
        let words = |text: &str| text.split(' ').map(|word| word.chars().count()).max();
        let cells = self.rows.iter().filter_map(|row| row.get(column));
        let widest = if column > 0 && self.is_text(column) {
            cells.filter_map(|cell| words(cell)).max().map(|widest| widest.min(24))
        } else {
            cells.map(|cell| cell.chars().count()).max()
        };
        widest.unwrap_or(0).max(words(title).unwrap_or(0))
    }
}

/// The lines of a table whose columns have at least the widths `least`.
fn shape(
    header: Option<&[&str]>,
    rows: &[Vec<String>],
    width: Option<u16>,
    is_text: impl Fn(usize) -> bool,
    least: Vec<usize>,
) -> Vec<String> {
    let mut table = comfy_table::Table::new();
    table.load_preset(presets::NOTHING);
    if let Some(header) = header {
        table.set_header(header);
    }
    table.add_rows(rows.iter().map(|row| row.iter().map(Cell::new)));
    if let Some(width) = width {
        // The gap behind the last column is cut off.
        table.set_width(width.saturating_add(GAP));
        table.set_content_arrangement(ContentArrangement::Dynamic);
    }
    for (at, (column, least)) in table.column_iter_mut().zip(least).enumerate() {
        let side = if is_text(at) { CellAlignment::Left } else { CellAlignment::Right };
        column.set_cell_alignment(side);
        column.set_padding((0, GAP));
        let least = u16::try_from(least).unwrap_or(u16::MAX).saturating_add(GAP);
        column.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(least)));
    }
    table.lines().map(|line| line.trim_end().to_owned()).collect()
}

/// The width of the terminal that stdout is, in characters.
pub(crate) fn terminal_width() -> Option<u16> {
    terminal_size::terminal_size_of(std::io::stdout()).map(|(width, _)| width.0)
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lines(terminal_width()).iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn codecs() -> Table {
        let mut table = Table::new(&["codec", "wire bytes", "<by"]);
        table.row(["none", "-", "us"].map(str::to_owned));
        table.row(
            ["zstd", "1234567", "libzstd 1.5 of the system, found at run time"].map(str::to_owned),
        );
        table.remark("qpl", "not available: no libqpl");
        table
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let lines = [
            "codec  wire bytes  by",
            "none            -  us",
            "zstd      1234567  libzstd 1.5 of the system, found at run time",
            "qpl  not available: no libqpl",
        ];
        assert_eq!(codecs().lines(None), lines);
    }

    #[test]
    fn on_a_narrow_terminal_texts_and_titles_are_wrapped_and_numbers_are_not() {
        for width in [28, 40, 50] {
            let lines = codecs().lines(Some(width));
            let widest = lines.iter().map(|line| line.chars().count()).max();
            assert!(widest <= Some(width.into()), "{width}: {lines:#?}");
            assert!(lines.iter().any(|line| line.contains("1234567")), "{lines:#?}");
            let words = lines.join(" ");
            assert!(["libzstd", "system,", "found"].iter().all(|word| words.contains(word)));
        }
    }

    #[test]
    fn wide_characters_take_their_width() {
        let mut table = Table::new(&["block", "pages"]);
        table.row(["主存", "1"].map(str::to_owned));
        table.row(["pc.ram", "22"].map(str::to_owned));
        assert_eq!(table.lines(None), ["block   pages", "主存        1", "pc.ram     22"]);
    }
}
