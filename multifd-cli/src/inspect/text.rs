//! An inspection as a person reads it.

use std::fmt::Write as _;

use multifd::core::{Compression, PageSize};
use multifd::inspect::{Counts, DeviceState, Findings, MainReport, Report, RoundReport};
use multifd::stream::SyncForm;

use crate::escape::one_line;
use crate::size::Bytes;
use crate::table::Table;

/// Rounds that are listed at the start and at the end of the migration; those between are not.
const FIRST: usize = 30;
const LAST: usize = 10;

/// What the migration is made of.
pub(crate) fn summary(report: &Report) -> String {
    let mut text = heading(report);
    text += &main_channel(&report.main);
    for table in [channels(report), rounds(report), blocks(report)] {
        _ = write!(text, "\n{table}");
    }
    text.push('\n');
    text
}

/// What is wrong with it, or that nothing is.
pub(crate) fn findings(findings: &Findings) -> String {
    let mut text = String::new();
    for finding in findings.iter() {
        text += &(one_line(&finding.to_string()) + "\n");
    }
    for (code, count) in findings.left_out() {
        _ = writeln!(text, "… and {count} more of the kind {code}");
    }
    _ = writeln!(text, "{}", verdict(findings.errors(), findings.notes()));
    text
}

fn verdict(errors: u64, notes: u64) -> String {
    let count = |count, one: &str| match count {
        1 => format!("1 {one}"),
        count => format!("{count} {one}s"),
    };
    match (errors, notes) {
        (0, 0) => "nothing is wrong".to_owned(),
        (0, notes) => format!("nothing is wrong; {}", count(notes, "note")),
        (errors, notes) => format!("{}, {}", count(errors, "error"), count(notes, "note")),
    }
}

fn heading(report: &Report) -> String {
    let machine = report.configuration.machine.as_deref().unwrap_or("an unknown machine");
    let codec = report.compression.map_or_else(|| "no pages".to_owned(), |codec| codec.to_string());
    let channels = match report.channels.len() {
        1 => "1 channel".to_owned(),
        count => format!("{count} channels"),
    };
    let page_size = report.page_size;
    let mut text = one_line(&format!("{machine}: {codec}, {channels}, pages of {page_size}"));
    if let Some(uuid) = report.uuid {
        _ = write!(text, ", VM {uuid}");
    }
    text + "\n"
}

fn main_channel(main: &MainReport) -> String {
    let sync = match main.sync {
        Some(SyncForm::Flush) => " by MULTIFD_FLUSH",
        Some(SyncForm::EachSection) => " by the end of each section",
        None => "",
    };
    let mut text = format!(
        "main channel: {} bytes, {} syncs{sync}, {} sections of RAM",
        main.bytes, main.syncs, main.sections
    );
    if main.zero_pages + main.normal_pages > 0 {
        let MainReport { zero_pages, normal_pages, .. } = main;
        _ = write!(text, ", {zero_pages} zero pages and {normal_pages} others");
    }
    if main.return_path {
        text += ", return path";
    }
    if main.early_state_bytes > 0 {
        _ = write!(text, ", {} bytes of early state", main.early_state_bytes);
    }
    if main.postcopy {
        text += ", switched to postcopy";
    }
    text.push('\n');
    if let Some(state) = &main.device_state {
        text += &device_state(state);
    }
    text
}

fn device_state(state: &DeviceState) -> String {
    let described = match state.description_bytes {
        Some(bytes) => format!("{} devices, VMDESCRIPTION of {bytes} bytes", state.sections.len()),
        None => "no VMDESCRIPTION".to_owned(),
    };
    format!("device state: from byte {}, {} bytes: {described}\n", state.offset, state.bytes)
}

fn channels(report: &Report) -> Table {
    let mut table = Table::new(&[
        "channel",
        "id",
        "packets",
        "syncs",
        "normal",
        "raw",
        "zero",
        "payload",
        "wire bytes",
        "ratio",
    ]);
    for (number, channel) in report.channels.iter().enumerate() {
        let id = channel.id.map_or_else(|| "-".to_owned(), |id| id.to_string());
        let (packets, syncs) = (channel.counts.packets.to_string(), channel.syncs.to_string());
        let start = [number.to_string(), id, packets, syncs];
        table.row(start.into_iter().chain(counted(report, &channel.counts)));
    }
    let total = report.total();
    let syncs: u64 = report.channels.iter().map(|channel| channel.syncs).sum();
    let start = ["all".to_owned(), String::new(), total.packets.to_string(), syncs.to_string()];
    table.row(start.into_iter().chain(counted(report, &total)));
    table
}

/// Normal, raw and zero pages, payload, wire bytes, ratio.
fn counted(report: &Report, counts: &Counts) -> [String; 6] {
    [
        counts.normal_pages.to_string(),
        raw(report, counts),
        counts.zero_pages.to_string(),
        counts.payload_bytes.to_string(),
        counts.wire_bytes.to_string(),
        ratio(counts, report.page_size),
    ]
}

/// Whether a codec's payload says which of its pages are raw.
pub(super) fn knows_raw(compression: Option<Compression>) -> bool {
    matches!(compression, Some(Compression::None | Compression::Qpl | Compression::Uadk))
}

fn raw(report: &Report, counts: &Counts) -> String {
    if knows_raw(report.compression) { counts.raw_pages.to_string() } else { "-".to_owned() }
}

fn ratio(counts: &Counts, page_size: PageSize) -> String {
    counts.ratio(page_size).map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}"))
}

fn rounds(report: &Report) -> Table {
    let mut table = Table::new(&[
        "round",
        "packets",
        "normal",
        "raw",
        "zero",
        "payload",
        "wire bytes",
        "ratio",
        "main channel",
        "by channel",
    ]);
    let with_pages: Vec<_> =
        report.rounds.iter().enumerate().filter(|(_, round)| !round.is_empty()).collect();
    let left_out = with_pages.len().saturating_sub(FIRST + LAST);
    for (at, (number, round)) in with_pages.iter().enumerate() {
        if left_out > 0 && at == FIRST {
            table.remark("…", &format!("{left_out} rounds that --json has"));
        }
        if left_out == 0 || at < FIRST || at >= FIRST + left_out {
            table.row(round_row(report, *number, round));
        }
    }
    let without = report.rounds.len() - with_pages.len();
    table.remark("others", &format!("{without} without pages, the setup among them"));
    table
}

fn round_row(report: &Report, number: usize, round: &RoundReport) -> Vec<String> {
    let start = [number.to_string(), round.counts.packets.to_string()];
    let main = (round.main_zero_pages + round.main_normal_pages).to_string();
    let end = [main, balance(&round.channel_bytes, report.channels.len())];
    start.into_iter().chain(counted(report, &round.counts)).chain(end).collect()
}

/// The shares of the channel with the least and of that with the most bytes.
fn balance(bytes: &[u64], channels: usize) -> String {
    let total: u64 = bytes.iter().sum();
    let share = |bytes: u64| bytes as f64 * 100.0 / (total.max(1)) as f64;
    let most = bytes.iter().copied().max().unwrap_or_default();
    let all = bytes.len() == channels;
    let least = bytes.iter().copied().min().filter(|_| all).unwrap_or_default();
    format!("{:.0} to {:.0} %", share(least), share(most))
}

fn blocks(report: &Report) -> Table {
    let mut table = Table::new(&[
        "block",
        "size",
        "pages",
        "sent",
        "again",
        "most",
        "normal",
        "zero",
        "payload",
        "ratio",
        "main channel",
    ]);
    for block in &report.blocks {
        table.row([
            one_line(block.name.as_str()),
            Bytes(block.bytes).to_string(),
            block.pages.to_string(),
            block.sent.to_string(),
            block.sent_again.to_string(),
            format!("{}x", block.most_times),
            block.counts.normal_pages.to_string(),
            block.counts.zero_pages.to_string(),
            block.counts.payload_bytes.to_string(),
            ratio(&block.counts, report.page_size),
            block.main_pages.to_string(),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verdict_counts() {
        assert_eq!(verdict(0, 0), "nothing is wrong");
        assert_eq!(verdict(0, 1), "nothing is wrong; 1 note");
        assert_eq!(verdict(1, 2), "1 error, 2 notes");
    }

    #[test]
    fn a_channel_without_bytes_has_no_share() {
        assert_eq!(balance(&[30, 70], 2), "30 to 70 %");
        assert_eq!(balance(&[100], 2), "0 to 100 %");
        assert_eq!(balance(&[], 2), "0 to 0 %");
    }
}
