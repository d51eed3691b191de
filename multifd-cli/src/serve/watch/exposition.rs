//! Prometheus' text format, version 0.0.4.
//!
//! Written here, in a few lines: the crate prometheus-client writes `OpenMetrics`, which fewer collectors read.

use std::fmt::Write;

/// The format's media type.
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Metrics as text.
#[derive(Debug, Default)]
pub(super) struct Exposition(String);

/// The samples of one metric.
#[derive(Debug)]
pub(super) struct Family<'a> {
    name: &'static str,
    text: &'a mut String,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    /// It never falls; by convention its name ends in `_total`.
    Counter,
    Gauge,
}

impl Exposition {
    /// Begins a metric. Each name must be begun once, with a help text in one line.
    pub(super) fn family(&mut self, name: &'static str, kind: Kind, help: &str) -> Family<'_> {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        };
        // To a String, it does not fail.
        _ = write!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
        Family { name, text: &mut self.0 }
    }

    pub(super) fn finish(self) -> String {
        self.0
    }
}

impl Family<'_> {
    /// Adds a sample, whose labels must not be another's.
    pub(super) fn add(&mut self, labels: &[(&str, &str)], value: impl Value) -> &mut Self {
        *self.text += self.name;
        for (index, (name, value)) in labels.iter().enumerate() {
            let before = if index == 0 { '{' } else { ',' };
            _ = write!(self.text, "{before}{name}=\"{}\"", escaped(value));
        }
        let end = if labels.is_empty() { "" } else { "}" };
        _ = writeln!(self.text, "{end} {}", value.text());
        self
    }
}

/// What a sample's value may be.
pub(super) trait Value: Copy {
    /// As the format has it.
    fn text(&self) -> String;
}

impl Value for u64 {
    fn text(&self) -> String {
        self.to_string()
    }
}

impl Value for f64 {
    fn text(&self) -> String {
        match self.is_finite() {
            true => self.to_string(),
            false if self.is_nan() => "NaN".to_owned(),
            false => if *self > 0.0 { "+Inf" } else { "-Inf" }.to_owned(),
        }
    }
}

fn escaped(label: &str) -> String {
    label.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_lines_behind_what_the_metric_is() {
        let mut text = Exposition::default();
        text.family("moved_total", Kind::Counter, "What has moved.")
            .add(&[("side", "from"), ("kind", "zero")], 7)
            .add(&[], 0.25);
        text.family("ratio", Kind::Gauge, "A ratio.").add(&[], f64::INFINITY);
        assert_eq!(
            text.finish(),
            "# HELP moved_total What has moved.\n# TYPE moved_total counter\n\
             moved_total{side=\"from\",kind=\"zero\"} 7\nmoved_total 0.25\n\
             # HELP ratio A ratio.\n# TYPE ratio gauge\nratio +Inf\n"
        );
    }

    #[test]
    fn a_label_cannot_end_its_quotes_or_its_line() {
        let mut text = Exposition::default();
        text.family("a", Kind::Gauge, "A.").add(&[("b", "c\"} 1\n\\")], 2);
        assert!(text.finish().ends_with("\na{b=\"c\\\"} 1\\n\\\\\"} 2\n"));
    }
}
