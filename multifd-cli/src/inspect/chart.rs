//! An inspection as a picture.

use std::io;
use std::path::Path;

use multifd::inspect::{Report, RoundReport, Trace, TracePoint};
use plotters::coord::Shift;
use plotters::element::DashedPathElement;
use plotters::prelude::*;

use super::text::knows_raw;
use crate::failure::Failure;
use crate::palette::COLORS;

/// In pixels.
const SIZE: (u32, u32) = (1000, 800);

/// Bars at most; more rounds share them.
const BARS: usize = 250;

const FONT: (&str, u32) = ("sans-serif", 15);
const TITLE: (&str, u32) = ("sans-serif", 18);

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<(), DrawingAreaErrorKind<io::Error>>;

/// Writes packets by channel and pages by round to `path`.
pub(crate) fn write(report: &Report, path: &Path) -> Result<(), Failure> {
    let mut svg = String::new();
    draw(report, &mut svg).map_err(|error| Failure::new(format!("cannot draw: {error}")))?;
    let cannot = |error| Failure::io(format!("cannot write {}", path.display()), &error);
    std::fs::write(path, svg).map_err(cannot)
}

fn draw(report: &Report, svg: &mut String) -> Drawn {
    let area = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let (upper, lower) = area.split_vertically(SIZE.1 / 2);
    packets_by_channel(report, &upper)?;
    pages_by_round(report, &lower)?;
    area.present()
}

fn packets_by_channel(report: &Report, area: &Area<'_>) -> Drawn {
    let traces = || report.channels.iter().map(|channel| &channel.trace);
    let timed = traces().flat_map(Trace::points).all(|point| point.time.is_some());
    let x = |point: &TracePoint| match point.time.filter(|_| timed) {
        Some(time) => time.as_secs_f64(),
        None => point.offset as f64 / f64::from(1 << 20),
    };
    let described = if timed {
        "seconds since the start"
    } else {
        "position in the channel, MiB (a recording has no times)"
    };
    let line = |trace: &Trace| trace.points().map(|point| (x(&point), point.packets)).collect();
    draw_lines(&traces().map(line).collect::<Vec<_>>(), described, area)
}

/// A line for each channel, of its points from left to right.
fn draw_lines(channels: &[Vec<(f64, u64)>], described: &str, area: &Area<'_>) -> Drawn {
    let ends = channels.iter().filter_map(|points| points.last());
    let (right, top) =
        ends.fold((0.0, 1), |(right, top): (f64, u64), end| (right.max(end.0), top.max(end.1)));
    let mut chart = ChartBuilder::on(area)
        .caption("Packets by channel", TITLE)
        .margin(10)
        .x_label_area_size(40)
        .y_label_area_size(70)
        .build_cartesian_2d(0.0..right.max(f64::MIN_POSITIVE), 0..with_room(top))?;
    let mut mesh = chart.configure_mesh();
    mesh.label_style(FONT).light_line_style(TRANSPARENT);
    mesh.x_desc(described).y_desc("packets so far").draw()?;
    for (number, points) in channels.iter().enumerate() {
        let line = COLORS[number % COLORS.len()].stroke_width(2);
        // When the colours are used up, they come again in dashes, the shorter the later.
        let turn = number / COLORS.len();
        let dash = (16 / (turn + 1)).max(2) as i32;
        let series = if turn == 0 {
            chart.draw_series(LineSeries::new(points.clone(), line))?
        } else {
            chart.draw_series(DashedLineSeries::new(points.clone(), dash, 4, line))?
        };
        let sample = move |(x, y)| DashedPathElement::new([(x, y), (x + 16, y)], dash, 4, line);
        series.label(format!("channel {number}")).legend(sample);
    }
    // The names of more would hide the lines.
    if channels.len() <= 16 {
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperLeft)
            .background_style(WHITE.mix(0.8))
            .label_font(FONT)
            .draw()?;
    }
    Ok(())
}

/// A kind of pages: its name, its colour, and how many a round has.
type Kind = (&'static str, RGBColor, fn(&RoundReport) -> u64);

fn kinds(report: &Report) -> Vec<Kind> {
    let normal: &[Kind] = if knows_raw(report.compression) {
        &[
            ("compressed", COLORS[0], |round| round.counts.normal_pages - round.counts.raw_pages),
            ("raw", COLORS[1], |round| round.counts.raw_pages),
        ]
    } else {
        &[("normal", COLORS[0], |round| round.counts.normal_pages)]
    };
    let zero: [Kind; 2] = [
        ("zero", COLORS[4], |round| round.counts.zero_pages),
        ("on the main channel", COLORS[3], |round| round.main_zero_pages + round.main_normal_pages),
    ];
    let is_there = |kind: &Kind| report.rounds.iter().any(|round| kind.2(round) > 0);
    normal.iter().copied().chain(zero).filter(is_there).collect()
}

fn pages_by_round(report: &Report, area: &Area<'_>) -> Drawn {
    let kinds = kinds(report);
    let pages = |round| kinds.iter().map(|kind| kind.2(round)).collect();
    let rounds: Vec<Vec<u64>> = report.rounds.iter().map(pages).collect();
    let kinds: Vec<_> = kinds.iter().map(|&(name, color, _)| (name, color)).collect();
    draw_bars(&kinds, &rounds, area)
}

/// A bar for each round, of its pages by kind; of several rounds, where there are many.
fn draw_bars(kinds: &[(&str, RGBColor)], rounds: &[Vec<u64>], area: &Area<'_>) -> Drawn {
    let width = rounds.len().div_ceil(BARS).max(1);
    let sum = |bar: &[Vec<u64>], kind: usize| bar.iter().map(|round| round[kind]).sum::<u64>();
    let bars = rounds.chunks(width);
    let bars: Vec<Vec<u64>> =
        bars.map(|bar| (0..kinds.len()).map(|kind| sum(bar, kind)).collect()).collect();
    let top = bars.iter().map(|bar| bar.iter().sum()).max().unwrap_or(0).max(1);
    // A range of whole numbers has its end in it. One of a single number has no length.
    let last = bars.len().saturating_sub(1).max(1) as u32;
    let mut chart = ChartBuilder::on(area)
        .caption("Pages by round", TITLE)
        .margin(10)
        .x_label_area_size(40)
        .y_label_area_size(70)
        .build_cartesian_2d((0..last).into_segmented(), 0..with_room(top))?;
    let described = match width {
        1 => "round (0 is the setup)".to_owned(),
        width => format!("the first round of a bar (0 is the setup), {width} in each"),
    };
    let mut mesh = chart.configure_mesh();
    mesh.label_style(FONT).light_line_style(TRANSPARENT).disable_x_mesh();
    let first = |bar: &SegmentValue<u32>| match bar {
        SegmentValue::CenterOf(bar) if (*bar as usize) < bars.len() => {
            (*bar as usize * width).to_string()
        }
        _ => String::new(),
    };
    mesh.x_label_formatter(&first);
    mesh.x_desc(described).y_desc("pages").draw()?;
    for (nth, (name, color)) in kinds.iter().enumerate() {
        let rectangles =
            bars.iter().enumerate().filter(|(_, bar)| bar[nth] > 0).map(|(at, bar)| {
                let below: u64 = bar[..nth].iter().sum();
                let [left, right] = [at, at + 1].map(|at| SegmentValue::Exact(at as u32));
                let corners = [(left, below), (right, below + bar[nth])];
                let mut bar = Rectangle::new(corners, color.filled());
                bar.set_margin(0, 0, 1, 1);
                bar
            });
        chart
            .draw_series(rectangles)?
            .label(*name)
            .legend(|(x, y)| Rectangle::new([(x, y - 5), (x + 14, y + 5)], color.filled()));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .background_style(WHITE.mix(0.8))
        .label_font(FONT)
        .draw()
}

/// An axis that goes a little further than to `top`.
fn with_room(top: u64) -> u64 {
    top + top / 20 + 1
}

#[cfg(test)]
mod tests;
