//! The result in a page of the docs.

use std::fs;
use std::path::Path;

use crate::chart;
use crate::error::Error;
use crate::report::Report;

const BEGIN: &str = "<!-- measured: begin -->\n";
const END: &str = "<!-- measured: end -->\n";

/// Puts the result into the page, between its two marks, and a chart beside it, under the same name
/// with the ending `.svg`.
pub(crate) fn update(page: &Path, report: &Report) -> Result<(), Error> {
    let shown = page.display();
    let text = fs::read_to_string(page).map_err(Error::io(format!("read {shown}")))?;
    let svg = page.with_extension("svg");
    let name = svg.file_name().unwrap_or_default().to_string_lossy();
    let result = format!("{report}\n![Wall time and CPU time by codec]({name})\n");
    let updated = replace(&text, &result)
        .ok_or_else(|| Error::Other(format!("{shown} does not have the lines {BEGIN}and {END}")))?;
    let chart = chart::draw(report)?;
    fs::write(page, updated).map_err(Error::io(format!("write {shown}")))?;
    fs::write(&svg, chart).map_err(Error::io(format!("write {}", svg.display())))
}

/// The page with `result` between the marks; `None` where they are missing.
fn replace(page: &str, result: &str) -> Option<String> {
    let (before, rest) = page.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some([before, BEGIN, "\n", result, "\n", END, after].concat())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that panics fails")]

    use super::*;
    use crate::codec::Codec;
    use crate::report::tests::report;
    use crate::route::Route;
    use crate::setting::Setting;

    #[test]
    fn only_what_is_between_the_marks_is_replaced() {
        let page = format!("before\n{BEGIN}old\n{END}after\n");
        let updated = replace(&page, "new\n").unwrap();
        assert_eq!(updated, format!("before\n{BEGIN}\nnew\n\n{END}after\n"));
        assert_eq!(replace(&updated, "new\n").unwrap(), updated);
        assert_eq!(replace("no marks", "new"), None);
    }

    #[test]
    fn a_page_gets_a_chart_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let page = folder.path().join("page.md");
        fs::write(&page, format!("{BEGIN}{END}")).unwrap();
        update(&page, &report(&[(Setting::Plain, Codec::Zstd, Route::QemuToQemu, &[1.0])]))
            .unwrap();
        let text = fs::read_to_string(&page).unwrap();
        assert!(text.contains("| zstd | QEMU to QEMU |") && text.contains("](page.svg)"), "{text}");
        let chart = fs::read_to_string(page.with_extension("svg")).unwrap();
        assert!(chart.contains("zstd") && chart.contains("Z80"), "{chart}");
    }
}
