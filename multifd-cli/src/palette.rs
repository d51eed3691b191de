//! The colours of all charts: dark enough for white paper, and told apart by the colour-blind.

use plotters::style::RGBColor;

/// The colours, in the order of their use.
pub(crate) const COLORS: [RGBColor; 6] = [
    RGBColor(0, 92, 160),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(120, 40, 90),
    RGBColor(70, 155, 220),
    RGBColor(0, 0, 0),
];

#[cfg(test)]
mod tests {
    use super::*;

    type Vector = [f64; 3];

    /// How people with normal sight, without red and without green cones see linear light
    /// (Viénot, Brettel and Mollon, 1999).
    const SIGHTS: [[Vector; 3]; 3] = [
        [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]],
        [[0.112_38, 0.887_62, 0.0], [0.112_38, 0.887_62, 0.0], [0.004_01, -0.004_01, 1.0]],
        [[0.292_75, 0.707_25, 0.0], [0.292_75, 0.707_25, 0.0], [-0.022_34, 0.022_34, 1.0]],
    ];
    const TO_XYZ: [Vector; 3] =
        [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]];

    fn linear(color: RGBColor) -> Vector {
        [color.0, color.1, color.2].map(|byte| {
            let value = f64::from(byte) / 255.0;
            if value <= 0.040_45 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
        })
    }

    fn transform(matrix: [Vector; 3], vector: Vector) -> Vector {
        matrix.map(|row| row.iter().zip(vector).map(|(factor, part)| factor * part).sum())
    }

    /// In CIE L*a*b*, whose distances are about what is seen.
    fn seen(sight: [Vector; 3], color: RGBColor) -> Vector {
        let xyz = transform(TO_XYZ, transform(sight, linear(color)));
        let [x, y, z] = [xyz[0] / 0.9505, xyz[1], xyz[2] / 1.089]
            .map(|part| if part > 0.008_856 { part.cbrt() } else { 7.787 * part + 16.0 / 116.0 });
        [116.0 * y - 16.0, 500.0 * (x - y), 200.0 * (y - z)]
    }

    #[test]
    fn every_colour_is_seen_on_white() {
        for color in COLORS {
            let [_, luminance, _] = transform(TO_XYZ, linear(color));
            // What WCAG asks for of graphics.
            assert!(1.05 / (luminance + 0.05) >= 3.0, "{color:?}");
        }
    }

    #[test]
    fn no_two_colours_look_alike_to_anybody() {
        for sight in SIGHTS {
            for (at, &one) in COLORS.iter().enumerate() {
                for &other in &COLORS[..at] {
                    let (one_seen, other_seen) = (seen(sight, one), seen(sight, other));
                    let squares = one_seen.iter().zip(other_seen).map(|(a, b)| (a - b).powi(2));
                    // A difference of 2 can be seen at all.
                    assert!(squares.sum::<f64>().sqrt() >= 20.0, "{one:?} and {other:?}");
                }
            }
        }
    }
}
