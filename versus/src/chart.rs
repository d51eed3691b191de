//! The result as a picture.

use std::io;

use plotters::coord::Shift;
use plotters::prelude::*;

use crate::error::Error;
use crate::measure::{Measured, Run};
use crate::palette::COLORS;
use crate::report::Report;
use crate::route::Route;
use crate::setting::Setting;

/// In pixels.
const SIZE: (u32, u32) = (1000, 450);

const FONT: (&str, u32) = ("sans-serif", 14);
const TITLE: (&str, u32) = ("sans-serif", 17);

/// What is drawn; what it costs to store is in the table alone.
const ROUTES: [(Route, RGBColor); 4] = [
    (Route::QemuToQemu, COLORS[5]),
    (Route::QemuToMultifd, COLORS[2]),
    (Route::MultifdToQemu, COLORS[4]),
    (Route::MultifdToMultifd, COLORS[0]),
];

/// Of a bar, where a group has 1.
const WIDTH: f64 = 0.8 / ROUTES.len() as f64;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<(), DrawingAreaErrorKind<io::Error>>;

/// Wall time and CPU time by codec and route over the loopback device, as SVG.
pub(crate) fn draw(report: &Report) -> Result<String, Error> {
    let mut svg = String::new();
    draw_to(report, &mut svg).map_err(|error| Error::Other(format!("cannot draw: {error}")))?;
    Ok(svg)
}

fn draw_to(report: &Report, svg: &mut String) -> Drawn {
    let area = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let area = area.titled(&format!("{}; guest of {}", report.machine, report.guest.size), FONT)?;
    let (left, right) = area.split_horizontally(SIZE.0 / 2);
    bars(report, &left, "Wall time, s", |run| run.seconds)?;
    bars(report, &right, "CPU time of both processes, s", Run::cpu_seconds)?;
    area.present()
}

/// Bars in groups: the codec with the index n has its group around n.
fn bars(report: &Report, area: &Area<'_>, title: &str, of: fn(&Run) -> f64) -> Drawn {
    let codecs = report.codecs();
    let drawn = |measured: &&Measured| {
        measured.setting == Setting::Plain
            && ROUTES.iter().any(|&(route, _)| route == measured.route)
    };
    let medians = report.measured.iter().filter(drawn).map(|measured| measured.median(of));
    let top = medians.fold(f64::MIN_POSITIVE, f64::max);
    let mut chart = ChartBuilder::on(area)
        .caption(title, TITLE)
        .margin(10)
        .x_label_area_size(30)
        .y_label_area_size(45)
        // Above the bars, room for the legend.
        .build_cartesian_2d(-0.5..codecs.len() as f64 - 0.5, 0.0..top * 1.4)?;
    let name = |at: &f64| match codecs.get(at.round() as usize) {
        Some(codec) if (at - at.round()).abs() < 1e-9 => codec.to_string(),
        _ => String::new(),
    };
    let mut mesh = chart.configure_mesh();
    mesh.label_style(FONT).light_line_style(TRANSPARENT).disable_x_mesh();
    mesh.x_label_formatter(&name).draw()?;
    for (nth, &(route, color)) in ROUTES.iter().enumerate() {
        let found =
            codecs.iter().map(|&codec| report.find(Setting::Plain, codec, route)).enumerate();
        let bars = found.filter_map(|(group, measured)| {
            let left = group as f64 + WIDTH * (nth as f64 - ROUTES.len() as f64 / 2.0);
            let corners = [(left, 0.0), (left + 0.9 * WIDTH, measured?.median(of))];
            Some(Rectangle::new(corners, color.filled()))
        });
        chart
            .draw_series(bars)?
            .label(route.to_string())
            .legend(move |(x, y)| Rectangle::new([(x, y - 5), (x + 14, y + 5)], color.filled()));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .background_style(WHITE.mix(0.8))
        .label_font(FONT)
        .draw()
}
