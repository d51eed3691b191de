//! `/metrics`: a service's numbers in Prometheus' text format.
//!
//! Only running migrations have metrics of their own, by their number: there are at most as many
//! series as may run at once have channels.

use super::exposition::{Exposition, Family, Kind};
use super::migration::{How, Migration, Moved};
use super::process::Process;
use super::view::{Sum, Totals, View};
use crate::cpu::cpu_time;

/// The metrics of a service and of its process.
pub(super) fn text(view: &View, process: &Process) -> String {
    let mut text = Exposition::default();
    service(&mut text, view);
    moved(&mut text, &view.totals);
    migrations(&mut text, &view.running);
    channels(&mut text, &view.running);
    own(&mut text, process);
    text.finish()
}

fn service(text: &mut Exposition, view: &View) {
    let version = env!("CARGO_PKG_VERSION");
    let mut info =
        text.family("multifd_build_info", Kind::Gauge, "The program's version; always 1.");
    info.add(&[("version", version), ("service", view.service)], 1);
    let running = "Migrations that run now.";
    text.family("multifd_migrations_running", Kind::Gauge, running)
        .add(&[], view.running.len() as u64);
    if let Some(limit) = view.limit {
        let help = "The most migrations that run at once.";
        text.family("multifd_migrations_limit", Kind::Gauge, help).add(&[], limit as u64);
    }
    let help = "Whether the service takes no new migrations because it is to stop.";
    text.family("multifd_stopping", Kind::Gauge, help).add(&[], u64::from(view.stopping));
    let help = "Migrations that have ended, by their result.";
    let mut ended = text.family("multifd_migrations_total", Kind::Counter, help);
    for (result, count) in How::RESULTS.into_iter().zip(view.results) {
        ended.add(&[("result", result)], count);
    }
    let help = "Connections that were refused, by why.";
    let mut refused = text.family("multifd_refused_connections_total", Kind::Counter, help);
    for (reason, count) in &view.refused {
        refused.add(&[("reason", reason)], *count);
    }
    let help = "Lines of the audit file or of --json-lines that could not be written.";
    let mut lost = text.family("multifd_audit_errors_total", Kind::Counter, help);
    for (to, count) in view.lost {
        lost.add(&[("to", to)], count);
    }
}

/// What all migrations have moved.
fn moved(text: &mut Exposition, totals: &Totals) {
    let mut of = |name, help, count: fn(&Sum) -> u64| {
        let mut family = text.family(name, Kind::Counter, help);
        for (side, sum) in totals.sides() {
            family.add(&[("side", side)], count(sum));
        }
    };
    let help = "Bytes on all channels and the main channels.";
    of("multifd_wire_bytes_total", help, |sum| sum.wire_bytes);
    let help = "Bytes that normal pages were compressed to.";
    of("multifd_payload_bytes_total", help, |sum| sum.payload_bytes);
    let help = "Pages of guest memory, by whether they have data.";
    let mut pages = text.family("multifd_pages_total", Kind::Counter, help);
    for (side, sum) in totals.sides() {
        pages.add(&[("side", side), ("kind", "normal")], sum.normal_pages);
        pages.add(&[("side", side), ("kind", "zero")], sum.zero_pages);
    }
    let help = "What the codecs have counted, such as the pages that went each way.";
    let mut counts = text.family("multifd_codec_count_total", Kind::Counter, help);
    for (side, sum) in totals.sides() {
        for (counter, count) in sum.counts.iter() {
            counts.add(&[("side", side), ("counter", counter)], count);
        }
    }
    let help = "CPU time of all migrations.";
    let seconds = totals.cpu.as_secs_f64();
    text.family("multifd_cpu_seconds_total", Kind::Counter, help).add(&[], seconds);
}

/// The running migrations, each by its number.
fn migrations(text: &mut Exposition, running: &[Migration]) {
    let mut of = |name, help, value: fn(&Migration) -> Option<f64>| {
        let mut family = text.family(name, Kind::Gauge, help);
        for migration in running {
            let id = migration.who.id.to_string();
            if let Some(value) = value(migration) {
                family.add(&[("id", &id), ("uuid", &migration.who.uuid)], value);
            }
        }
    };
    of("multifd_migration_seconds", "How long it has run.", |migration| Some(migration.seconds));
    let help = "CPU time of the migration.";
    of("multifd_migration_cpu_seconds", help, |migration| Some(migration.cpu_seconds));
    let help = "The round that is under way, where the source's syncs tell.";
    of("multifd_migration_round", help, |migration| migration.round.map(|round| round as f64));
    let help = "Pages that were left to move at the end of the last round of which that is known.";
    of("multifd_migration_round_left_pages", help, left);
    let help = "Bytes of normal pages for each byte of payload.";
    let mut ratios = text.family("multifd_migration_ratio", Kind::Gauge, help);
    each_side(running, &mut ratios, |family, labels, moved| {
        if let Some(ratio) = moved.summary.ratio {
            family.add(&labels, ratio);
        }
    });
}

/// The channels of the running migrations.
fn channels(text: &mut Exposition, running: &[Migration]) {
    let help = "Bytes on the channel.";
    let mut bytes = text.family("multifd_migration_wire_bytes", Kind::Gauge, help);
    each_side(running, &mut bytes, |family, [id, uuid, side], moved| {
        for channel in &moved.channels {
            family.add(&[id, uuid, side, ("channel", &channel.channel)], channel.wire_bytes);
        }
    });
    let help = "Pages on the channel, by whether they have data.";
    let mut pages = text.family("multifd_migration_pages", Kind::Gauge, help);
    each_side(running, &mut pages, |family, [id, uuid, side], moved| {
        for channel in &moved.channels {
            let name = ("channel", &*channel.channel);
            family.add(&[id, uuid, side, name, ("kind", "normal")], channel.normal_pages);
            family.add(&[id, uuid, side, name, ("kind", "zero")], channel.zero_pages);
        }
    });
}

/// A migration's and side's labels: id, uuid and side.
type Labels<'a> = [(&'a str, &'a str); 3];

fn each_side(
    running: &[Migration],
    family: &mut Family<'_>,
    mut add: impl FnMut(&mut Family<'_>, Labels<'_>, &Moved),
) {
    for migration in running {
        let id = migration.who.id.to_string();
        for (side, moved) in migration.sides() {
            add(family, [("id", &id), ("uuid", &migration.who.uuid), ("side", side)], moved);
        }
    }
}

fn left(migration: &Migration) -> Option<f64> {
    let left = migration.rounds.iter().rev().find_map(|round| round.left_pages);
    left.map(|pages| pages as f64)
}

/// The process, by the names that other programs' exporters have for this.
fn own(text: &mut Exposition, process: &Process) {
    let help = "CPU time of the process, in user and system mode.";
    let cpu = cpu_time().as_secs_f64();
    text.family("process_cpu_seconds_total", Kind::Counter, help).add(&[], cpu);
    let help = "When the process started, in seconds since 1970.";
    if let Some(start) = process.start {
        text.family("process_start_time_seconds", Kind::Gauge, help).add(&[], start);
    }
    for (name, help, value) in [
        ("process_resident_memory_bytes", "Memory that the process has.", process.resident_bytes),
        ("process_virtual_memory_bytes", "Address space of the process.", process.virtual_bytes),
        ("process_threads", "Threads of the process.", process.threads),
        ("process_open_fds", "Files that the process has open.", process.open_files),
        ("process_max_fds", "Files that it may have open.", process.most_files),
    ] {
        if let Some(value) = value {
            text.family(name, Kind::Gauge, help).add(&[], value);
        }
    }
}

#[cfg(test)]
mod tests;
