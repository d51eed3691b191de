//! Charts are drawn, and their axes and marks read back from the picture.

use super::*;

/// What is drawn on an area of the usual size.
fn drawn(draw: impl FnOnce(&Area<'_>) -> Drawn) -> String {
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, (SIZE.0, SIZE.1 / 2)).into_drawing_area();
        draw(&area).unwrap();
        area.present().unwrap();
    }
    svg
}

/// The elements of that name: for each the text of its attributes, and its content.
fn elements<'a>(svg: &'a str, name: &str) -> Vec<(&'a str, &'a str)> {
    let mut found = Vec::new();
    for part in svg.split(&format!("<{name} ")).skip(1) {
        let (attributes, rest) = part.split_once('>').unwrap();
        found.push((attributes, rest.split('<').next().unwrap().trim()));
    }
    found
}

fn attribute<'a>(attributes: &'a str, name: &str) -> &'a str {
    let start = format!("{name}=\"");
    let at = attributes.find(&start).unwrap_or_else(|| panic!("{name}: {attributes}"));
    attributes[at + start.len()..].split('"').next().unwrap()
}

fn number(attributes: &str, name: &str) -> i32 {
    attribute(attributes, name).parse().unwrap()
}

/// The numbers at the lower axis, from the left, each with its place in pixels.
fn lower_axis(svg: &str) -> Vec<(f64, i32)> {
    let texts = elements(svg, "text");
    let lowest = |wanted: &dyn Fn(&str) -> bool| {
        let all = texts.iter().filter(|(_, text)| wanted(text));
        all.map(|(attributes, _)| number(attributes, "y")).max().unwrap()
    };
    let line = lowest(&|text| text.parse::<f64>().is_ok());
    let on_it = texts
        .iter()
        .filter(|(attributes, text)| number(attributes, "y") == line && !text.is_empty());
    let mut axis: Vec<_> =
        on_it.map(|(attributes, text)| (text.parse().unwrap(), number(attributes, "x"))).collect();
    axis.sort_by_key(|&(_, x)| x);
    axis
}

/// Left and right of the filled rectangles of that colour, but for the legend's.
fn bars(svg: &str, color: RGBColor) -> Vec<(i32, i32)> {
    let fill = format!("#{:02X}{:02X}{:02X}", color.0, color.1, color.2);
    let rectangles = elements(svg, "rect").into_iter();
    let rectangles = rectangles.filter(|(attributes, _)| attribute(attributes, "fill") == fill);
    let mut bars: Vec<_> = rectangles
        .map(|(attributes, _)| (number(attributes, "x"), number(attributes, "width")))
        .map(|(x, width)| (x, x + width))
        .collect();
    // It is drawn last.
    bars.pop();
    bars
}

#[test]
fn rounds_stand_above_their_numbers_which_are_whole_and_come_once() {
    for count in [1, 2, 3, 6, 11, 40, 250] {
        let rounds: Vec<_> = (0..count).map(|round| vec![1000 + round, 7]).collect();
        let kinds = [("normal", COLORS[0]), ("zero", COLORS[4])];
        let svg = drawn(|area| draw_bars(&kinds, &rounds, area));
        let axis = lower_axis(&svg);
        assert!(axis.iter().all(|(round, _)| round.fract() == 0.0), "{count}: {axis:?}");
        assert!(axis.windows(2).all(|pair| pair[0].0 < pair[1].0), "{count}: {axis:?}");
        if count <= 11 {
            let all: Vec<_> = (0..count).map(|round| round as f64).collect();
            assert_eq!(axis.iter().map(|(round, _)| *round).collect::<Vec<_>>(), all);
        }
        let bars = bars(&svg, COLORS[0]);
        assert_eq!(bars.len(), count as usize);
        for (round, x) in axis {
            let (left, right) = bars[round as usize];
            assert!(left <= x && x <= right, "round {round} of {count} at {x}: {left} to {right}");
            assert!(((left + right) / 2 - x).abs() <= 1, "round {round} of {count}");
        }
    }
}

#[test]
fn many_rounds_share_bars_which_are_named_by_their_first() {
    let rounds: Vec<_> = (0..600).map(|_| vec![5]).collect();
    let svg = drawn(|area| draw_bars(&[("normal", COLORS[0])], &rounds, area));
    let (axis, bars) = (lower_axis(&svg), bars(&svg, COLORS[0]));
    assert_eq!(bars.len(), 200);
    for (round, x) in axis {
        assert_eq!(round % 3.0, 0.0, "a bar has 3 rounds");
        let (left, right) = bars[round as usize / 3];
        assert!(left <= x && x <= right, "round {round} at {x}: {left} to {right}");
    }
    assert!(svg.contains("3 in each"));
}

#[test]
fn the_axis_of_times_and_places_grows_and_repeats_nothing() {
    for end in [0.000_3, 0.55, 7.0, 61.0, 5000.0] {
        let points = (0..50).map(|at| (end * f64::from(at) / 49.0, at as u64)).collect();
        let svg = drawn(|area| draw_lines(&[points], "seconds", area));
        let axis = lower_axis(&svg);
        assert!(axis.len() > 2, "{axis:?}");
        assert!(axis.windows(2).all(|pair| pair[0].0 < pair[1].0), "{end}: {axis:?}");
        assert!(axis.iter().all(|(value, _)| *value <= end), "{end}: {axis:?}");
    }
}

#[test]
fn each_channel_has_its_own_line_of_a_colour_of_the_palette() {
    let line = |channel: u64| vec![(0.0, channel), (1.0, 2 * channel + 1)];
    let channels: Vec<_> = (0..16).map(line).collect();
    let svg = drawn(|area| draw_lines(&channels, "seconds", area));
    let colors: Vec<_> = COLORS.map(|RGBColor(r, g, b)| format!("#{r:02X}{g:02X}{b:02X}")).into();
    let lines = elements(&svg, "polyline").into_iter().map(|(attributes, _)| attributes);
    let drawn: Vec<_> = lines
        .map(|attributes| (attribute(attributes, "stroke"), number(attributes, "stroke-width")))
        .filter(|(_, width)| *width == 2)
        .collect();
    for color in &colors {
        assert!(drawn.iter().any(|(stroke, _)| stroke == color), "{color}");
    }
    assert!(drawn.iter().all(|(stroke, _)| colors.iter().any(|color| color == stroke)));
    for channel in 0..16 {
        let name = format!("channel {channel}");
        assert!(elements(&svg, "text").iter().any(|(_, text)| *text == name), "{name}");
    }
}
