//! The encoders as points: how fast, how far.

use std::io;

use plotters::element::{Circle, EmptyElement, Text};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::engines::Encoder;
use crate::measure::Measured;

/// In pixels.
const SIZE: (u32, u32) = (1000, 560);

const FONT: (&str, u32) = ("sans-serif", 14);

const OURS: RGBColor = RGBColor(0, 114, 178);
const OTHERS: RGBColor = RGBColor(110, 110, 110);

/// Pixels from a point's middle to its name.
const GAP: i32 = 9;

type Drawn = Result<(), DrawingAreaErrorKind<io::Error>>;

pub(crate) fn draw(encoders: &[Encoder], measured: &[Measured]) -> Result<String, String> {
    let mut points: Vec<_> = encoders
        .iter()
        .zip(measured)
        .map(|(encoder, measured)| Point {
            name: &encoder.name,
            color: if encoder.ours { OURS } else { OTHERS },
            at: (measured.encode.median, measured.chunks.ratio()),
        })
        .collect();
    // The last are drawn over the others.
    points.sort_by_key(|point| point.color == OURS);
    let mut svg = String::new();
    draw_to(&points, &mut svg).map_err(|error| error.to_string())?;
    Ok(svg)
}

struct Point<'a> {
    name: &'a str,
    color: RGBColor,
    /// MB/s and ratio.
    at: (f64, f64),
}

fn draw_to(points: &[Point<'_>], svg: &mut String) -> Drawn {
    let area = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let fastest = points.iter().map(|point| point.at.0).fold(1.0, f64::max);
    let strongest = points.iter().map(|point| point.at.1).fold(1.0, f64::max);
    // The ratio is 1 where nothing is saved.
    let mut chart = ChartBuilder::on(&area)
        .margin(14)
        .x_label_area_size(45)
        .y_label_area_size(55)
        .build_cartesian_2d(0.0..fastest * 1.1, 1.0..1.0 + (strongest - 1.0) * 1.1)?;
    let mut mesh = chart.configure_mesh();
    mesh.label_style(FONT).axis_desc_style(FONT).light_line_style(TRANSPARENT);
    mesh.x_desc("Compression, MB/s on one CPU").y_desc("Ratio");
    mesh.x_label_formatter(&|speed| format!("{speed:.0}"));
    mesh.y_label_formatter(&|ratio| format!("{ratio:.1}")).draw()?;
    let pixels: Vec<_> = points.iter().map(|point| chart.backend_coord(&point.at)).collect();
    let mut taken: Vec<_> = pixels.iter().map(|&at| Area::around(at)).collect();
    let elements: Vec<_> = points
        .iter()
        .zip(pixels)
        .map(|(point, pixel)| {
            let side = Side::free(point.name, pixel, &taken);
            taken.push(side.area(point.name, pixel));
            let style = TextStyle::from(FONT.into_font()).color(&point.color).pos(side.anchor());
            EmptyElement::at(point.at)
                + Circle::new((0, 0), 5, point.color.filled())
                + Text::new(point.name.to_owned(), side.offset(), style)
        })
        .collect();
    chart.draw_series(elements)?;
    area.present()
}

/// Where a point's name is.
#[derive(Clone, Copy)]
enum Side {
    Right,
    Left,
    Above,
    Below,
}

impl Side {
    /// The first side where the name covers nothing that is `taken`; the right one where none is free.
    fn free(name: &str, at: (i32, i32), taken: &[Area]) -> Self {
        let mut sides = [Self::Right, Self::Left, Self::Above, Self::Below].into_iter();
        let free = sides.find(|side| {
            let area = side.area(name, at);
            area.is_inside() && !taken.iter().any(|other| area.overlaps(other))
        });
        free.unwrap_or(Self::Right)
    }

    fn offset(self) -> (i32, i32) {
        match self {
            Self::Right => (GAP, 0),
            Self::Left => (-GAP, 0),
            Self::Above => (0, -GAP),
            Self::Below => (0, GAP),
        }
    }

    fn anchor(self) -> Pos {
        match self {
            Self::Right => Pos::new(HPos::Left, VPos::Center),
            Self::Left => Pos::new(HPos::Right, VPos::Center),
            Self::Above => Pos::new(HPos::Center, VPos::Bottom),
            Self::Below => Pos::new(HPos::Center, VPos::Top),
        }
    }

    /// What the name covers, about: no font is measured.
    fn area(self, name: &str, (x, y): (i32, i32)) -> Area {
        let (width, height) = (7 * name.len() as i32, FONT.1 as i32);
        let (dx, dy) = self.offset();
        let (left, top) = match self {
            Self::Right => (x + dx, y - height / 2),
            Self::Left => (x + dx - width, y - height / 2),
            Self::Above => (x - width / 2, y + dy - height),
            Self::Below => (x - width / 2, y + dy),
        };
        Area { left, top, right: left + width, bottom: top + height }
    }
}

/// In pixels.
struct Area {
    left: i32,
    top: i32,
    right: i32,
    bottom: i32,
}

impl Area {
    /// That of a point.
    fn around((x, y): (i32, i32)) -> Self {
        Self { left: x - 5, top: y - 5, right: x + 5, bottom: y + 5 }
    }

    fn overlaps(&self, other: &Self) -> bool {
        let across = self.left < other.right && other.left < self.right;
        across && self.top < other.bottom && other.top < self.bottom
    }

    /// Right of the axis, and in the picture.
    fn is_inside(&self) -> bool {
        self.left > 70 && self.right < SIZE.0 as i32 && self.top > 0
    }
}
