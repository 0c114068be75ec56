//! A chart of a quantity over the updates of a run, as inline SVG. Colours are classes of the page's style sheet, so that they
//! follow its light and its dark variant.

use crate::history::Series;

use super::axis::{Axis, grouped, labels, number};
use super::page::escape;

/// Width and height, and the plot inside: left, top, right, bottom.
const SIZE: [f64; 2] = [640.0, 260.0];
const PLOT: [f64; 4] = [56.0, 14.0, 608.0, 230.0];
/// Up to as many points are drawn one by one.
const POINTS: usize = 400;
/// The part of the buckets to either side over which a curve is smoothed.
const SMOOTHING: f64 = 0.02;

/// A chart that is being put together.
pub(super) struct Chart<'a> {
    pub(super) title: &'static str,
    /// The first and the last update.
    pub(super) steps: [u64; 2],
    pub(super) curves: Vec<Curve<'a>>,
    /// Single values, such as evaluations, and their name in the legend.
    pub(super) points: Option<(&'static str, Vec<(u64, f64)>)>,
    /// A horizontal line and what it is.
    pub(super) rule: Option<(f64, String)>,
    /// Updates with an alarm, and what it says.
    pub(super) marks: Vec<(u64, String)>,
}

/// A quantity of each update.
pub(super) struct Curve<'a> {
    pub(super) series: &'a Series,
    /// Drawn as it is, or faintly with its moving average.
    pub(super) smooth: bool,
}

impl Chart<'_> {
    /// The chart with its caption; nothing if there is no value to be shown.
    pub(super) fn figure(&self) -> String {
        let Some(y) = Axis::of_values(self.values()) else { return String::new() };
        let frame = Frame { x: Axis::of_steps(self.steps[0], self.steps[1]), y };
        let curves: Vec<String> = self.curves.iter().map(|curve| frame.curve(curve)).collect();
        let points = self.points.as_ref().map_or(String::new(), |(_, points)| frame.points(points));
        let rule = self.rule.as_ref().map_or(String::new(), |(value, name)| frame.rule(*value, name));
        let marks: Vec<String> = self.marks.iter().map(|(step, text)| frame.mark(*step, text)).collect();
        let ([width, height], title) = (SIZE, self.title);
        format!(
            "<figure><figcaption><b>{title}</b>{}</figcaption>\n\
             <svg viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"{title}\">\n{}{}{rule}{points}{}</svg></figure>\n",
            self.legend(),
            frame.grid(),
            curves.concat(),
            marks.concat()
        )
    }

    fn values(&self) -> impl Iterator<Item = f64> {
        let buckets = self.curves.iter().flat_map(|curve| curve.series.buckets());
        let points = self.points.iter().flat_map(|(_, points)| points.iter().map(|(_, value)| *value));
        buckets.flat_map(|bucket| bucket.range).chain(points).chain(self.rule.iter().map(|(value, _)| *value))
    }

    fn legend(&self) -> String {
        let item = |class: &str, text: &str| format!(" <span class=\"{class}\">{text}</span>");
        let smooth = self.curves.iter().any(|curve| curve.smooth);
        let curve = if smooth {
            [item("raw", "each update"), item("mean", "moving average")].concat()
        } else {
            String::new()
        };
        let points = self.points.as_ref().filter(|(_, points)| !points.is_empty());
        let points = points.map_or(String::new(), |(name, _)| item("point", name));
        let marks = if self.marks.is_empty() { String::new() } else { item("mark", "alarm") };
        [curve, points, marks].concat()
    }
}

/// Where things are in a chart.
struct Frame {
    x: Axis,
    y: Axis,
}

impl Frame {
    fn at(&self, step: f64, value: f64) -> (f64, f64) {
        let [left, top, right, bottom] = PLOT;
        (left + self.x.place(step) * (right - left), bottom - self.y.place(value) * (bottom - top))
    }

    fn grid(&self) -> String {
        let [left, _, right, bottom] = PLOT;
        let ticks = self.y.ticks();
        let horizontal = ticks.iter().zip(labels(&ticks)).map(|(value, label)| {
            let (_, y) = self.at(0.0, *value);
            format!(
                "<path class=\"grid\" d=\"M{left} {y:.1}H{right}\"/><text x=\"{:.1}\" y=\"{:.1}\" class=\"left\">{label}</text>\n",
                left - 6.0,
                y + 4.0
            )
        });
        let vertical = self.x.step_ticks().into_iter().map(|step| {
            let (x, _) = self.at(step, 0.0);
            format!(
                "<path class=\"grid\" d=\"M{x:.1} {bottom}v5\"/><text x=\"{x:.1}\" y=\"{:.1}\" class=\"below\">{}</text>\n",
                bottom + 19.0,
                grouped(step as i64)
            )
        });
        let axis = format!("<path class=\"axis\" d=\"M{left} {bottom}H{right}\"/>\n");
        horizontal.chain(vertical).chain([axis]).collect::<Vec<String>>().concat()
    }

    fn curve(&self, curve: &Curve<'_>) -> String {
        let buckets = curve.series.buckets();
        let half = if curve.smooth { ((buckets.len() as f64 * SMOOTHING) as usize).max(1) } else { 0 };
        let means = curve.series.smoothed(half);
        let line = buckets.iter().zip(means).map(|(b, mean)| mean.map(|mean| self.at(b.middle(), mean)));
        let mean = path(line);
        let class = if curve.smooth { "raw" } else { "line" };
        let is_area = buckets.iter().any(|b| b.range[0] < b.range[1]);
        let (range, area) = (self.range(curve.series, is_area), if is_area { " area" } else { "" });
        format!("<path class=\"{class}{area}\" d=\"{range}\"/>\n<path class=\"mean\" d=\"{mean}\"/>\n")
    }

    /// The area between the smallest and the largest values, or a line where they are the same; a piece between each two gaps.
    fn range(&self, series: &Series, is_area: bool) -> String {
        let pieces = series.buckets().split(|bucket| bucket.mean().is_none());
        let pieces = pieces.filter(|piece| !piece.is_empty()).map(|piece| {
            let side = |i: usize| piece.iter().map(move |b| Some(self.at(b.middle(), b.range[i])));
            if is_area { format!("{}Z", path(side(1).chain(side(0).rev()))) } else { path(side(0)) }
        });
        pieces.collect::<Vec<String>>().concat()
    }

    fn points(&self, points: &[(u64, f64)]) -> String {
        let finite: Vec<_> = points.iter().filter(|(_, value)| value.is_finite()).collect();
        let thin = finite.len().div_ceil(SIZE[0] as usize).max(1);
        let places: Vec<_> =
            finite.iter().step_by(thin).map(|(step, value)| self.at(*step as f64, *value)).collect();
        let line = format!("<path class=\"points\" d=\"{}\"/>\n", path(places.iter().copied().map(Some)));
        if finite.len() > POINTS {
            return line;
        }
        let circles = finite.iter().zip(places).map(|((step, value), (x, y))| {
            format!(
                "<circle class=\"point\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\"><title>update {step}: {}</title></circle>\n",
                number(*value)
            )
        });
        [line, circles.collect::<Vec<String>>().concat()].concat()
    }

    fn rule(&self, value: f64, name: &str) -> String {
        let ([left, _, right, _], (_, y)) = (PLOT, self.at(0.0, value));
        format!(
            "<path class=\"rule\" d=\"M{left} {y:.1}H{right}\"/><text x=\"{right}\" y=\"{:.1}\" class=\"left\">{}</text>\n",
            y - 5.0,
            escape(name)
        )
    }

    fn mark(&self, step: u64, text: &str) -> String {
        let ((x, _), [_, top, _, bottom]) = (self.at(step as f64, 0.0), PLOT);
        format!(
            "<g class=\"mark\"><title>update {step}: {}</title><path d=\"M{:.1} {:.1}h8l-4 7z\"/><path d=\"M{x:.1} {top}V{bottom}\"/></g>\n",
            escape(text),
            x - 4.0,
            top - 7.0
        )
    }
}

/// Lines from place to place, interrupted where there is none. A place without neighbours is a dot, by the style's round ends.
fn path(places: impl Iterator<Item = Option<(f64, f64)>>) -> String {
    let mut is_drawing = false;
    let mut parts = Vec::new();
    for place in places {
        if let Some((x, y)) = place {
            parts.push(format!("{}{x:.1} {y:.1}", if is_drawing { "L" } else { "M" }));
            if !is_drawing {
                parts.push("h0".into());
            }
        }
        is_drawing = place.is_some();
    }
    parts.concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(values: impl IntoIterator<Item = f64>) -> Series {
        let mut series = Series::default();
        values.into_iter().zip(1..).for_each(|(value, step)| series.push(step, value));
        series
    }

    fn chart(series: &Series, last: u64) -> Chart<'_> {
        let curves = vec![Curve { series, smooth: true }];
        Chart { title: "Loss", steps: [1, last], curves, points: None, rule: None, marks: Vec::new() }
    }

    /// The places that the path of a class goes through.
    fn places(figure: &str, class: &str) -> Vec<(f64, f64)> {
        let (_, rest) = figure.split_once(&format!("<path class=\"{class}\" d=\"")).unwrap();
        let (d, _) = rest.split_once('"').unwrap();
        let numbers = |part: &str| {
            let (x, y) = part.trim_end_matches("h0").trim_end_matches('Z').split_once(' ').unwrap();
            (x.parse().unwrap(), y.parse().unwrap())
        };
        d.split(['M', 'L']).filter(|part| !part.is_empty()).map(numbers).collect()
    }

    #[test]
    fn a_curve_goes_through_every_update_from_edge_to_edge() {
        let falling = series((0..41).map(|i| 4.0 - f64::from(i) / 20.0));
        let figure = chart(&falling, 41).figure();
        let raw = places(&figure, "raw");
        assert_eq!((raw.len(), raw[0].0, raw[40].0), (41, PLOT[0], PLOT[2]));
        // The first update is the highest, and downwards on the page is upwards in numbers.
        assert!(raw.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 < pair[1].1));
        let middle = f64::midpoint(PLOT[1], PLOT[3]);
        assert!((raw[20].1 - middle).abs() < 1.0, "{raw:?}");
        // A moving average of a straight line is the line, its ends aside.
        let mean = places(&figure, "mean");
        assert_eq!(mean[1..40], raw[1..40]);
    }

    #[test]
    fn many_updates_are_an_area_between_their_extremes() {
        let noisy = series((0..5000).map(|i| f64::from(i % 7)));
        let figure = chart(&noisy, 5000).figure();
        let area = places(&figure, "raw area");
        let buckets = noisy.buckets().len();
        assert_eq!(area.len(), 2 * buckets);
        // Along the largest values, and back along the smallest.
        assert!(area[0].1 < 30.0 && area[buckets].1 > 210.0, "{:?} {:?}", area[0], area[buckets]);
        let mean = places(&figure, "mean");
        assert_eq!(mean.len(), buckets);
        assert!(mean.iter().all(|(_, y)| (y - f64::midpoint(PLOT[1], PLOT[3])).abs() < 12.0));
    }

    #[test]
    fn gaps_interrupt_a_curve() {
        let gap = series([1.0, 2.0, f64::NAN, 2.0, 1.0]);
        let figure = chart(&gap, 5).figure();
        let (_, rest) = figure.split_once("<path class=\"raw\" d=\"").unwrap();
        assert_eq!(rest.split('"').next().unwrap().matches('M').count(), 2);
    }

    #[test]
    fn without_values_there_is_no_chart() {
        assert_eq!(chart(&series([f64::NAN, f64::INFINITY]), 2).figure(), "");
    }

    #[test]
    fn many_points_are_a_line() {
        let flat = series([1.0; 5]);
        let with = |n: u64| {
            let points = (1..=n).map(|step| (step, 1.0 + step as f64)).collect();
            let figure = Chart { points: Some(("validation", points)), ..chart(&flat, n) }.figure();
            (figure.matches("<circle").count(), places(&figure, "points").len())
        };
        assert_eq!(with(7), (7, 7));
        assert_eq!(with(POINTS as u64), (POINTS, POINTS));
        assert_eq!(with(6400), (0, 640));
    }

    #[test]
    fn texts_are_escaped() {
        let flat = series([1.0, 2.0]);
        let marks = vec![(1, "<script>".to_string())];
        let figure = Chart { marks, rule: Some((1.5, "a&b".into())), ..chart(&flat, 2) }.figure();
        assert!(figure.contains("update 1: &lt;script&gt;") && figure.contains(">a&amp;b<"), "{figure}");
    }
}
