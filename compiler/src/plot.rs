//! Line plots as SVG.

use svg::{
    Document,
    node::element::{Group, Line, Polyline, Rectangle, Text},
};

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 440.0;
/// The frame of the axes: left, top, right, bottom.
const FRAME: (f64, f64, f64, f64) = (72.0, 52.0, 696.0, 380.0);
/// Distinguishable without colour vision (Okabe and Ito), and by their dashes in grey.
const STYLES: [(&str, &str); 4] = [("#0072b2", "none"), ("#d55e00", "7 4"), ("#009e73", "2 3"), ("#cc79a7", "9 3 2 3")];
const INK: &str = "#333333";
const GRID: &str = "#e2e2e2";

/// A line of a plot.
pub struct Curve {
    /// Its name in the legend.
    pub name: String,
    /// Its corners, by ascending `x`.
    pub points: Vec<(f64, f64)>,
}

/// Curves over common axes that begin at 0.
pub struct Plot {
    /// Above the axes.
    pub title: String,
    /// Below the horizontal axis.
    pub x: String,
    /// Beside the vertical axis.
    pub y: String,
    /// The lines, at most four of them told apart.
    pub curves: Vec<Curve>,
}

/// An axis from 0 to a round number.
struct Axis {
    tick: f64,
    ticks: u32,
}

impl Axis {
    /// An axis that reaches `largest`, with about `wanted` ticks at multiples of 1, 2 or 5 times a power of ten.
    fn reaching(largest: f64, wanted: f64) -> Self {
        let rough = largest.max(f64::MIN_POSITIVE) / wanted;
        let power = 10f64.powf(rough.log10().floor());
        let tick = [1.0, 2.0, 5.0, 10.0].map(|digit| digit * power).into_iter().find(|&tick| tick >= rough);
        let tick = tick.unwrap_or(10.0 * power);
        Axis { tick, ticks: (largest / tick).ceil().max(1.0) as u32 }
    }

    /// Where a value lies, from 0 to 1.
    fn share(&self, value: f64) -> f64 {
        value / (self.tick * f64::from(self.ticks))
    }

    /// Positions from 0 to 1 with their labels.
    fn labels(&self) -> impl Iterator<Item = (f64, String)> {
        let decimals = (-self.tick.log10().floor()).max(0.0) as usize;
        (0..=self.ticks).map(move |number| {
            let value = f64::from(number) * self.tick;
            let label = if decimals > 6 && number > 0 { format!("{value:.0e}") } else { format!("{value:.decimals$}") };
            (f64::from(number) / f64::from(self.ticks), label)
        })
    }
}

impl Plot {
    /// The plot as an SVG document.
    pub fn to_svg(&self) -> String {
        let largest =
            |of: fn(&(f64, f64)) -> f64| self.curves.iter().flat_map(|curve| &curve.points).map(of).fold(0.0, f64::max);
        let (x, y) = (Axis::reaching(largest(|point| point.0), 6.0), Axis::reaching(largest(|point| point.1), 6.0));
        let mut document = Document::new()
            .set("viewBox", (0, 0, WIDTH as i64, HEIGHT as i64))
            .set("font-family", "Helvetica, Arial, sans-serif")
            .set("font-size", 13)
            .add(Rectangle::new().set("width", "100%").set("height", "100%").set("fill", "white"))
            .add(text(&self.title, (FRAME.0, 30.0), "start").set("font-size", 15).set("font-weight", "bold"))
            .add(vertical(&y))
            .add(horizontal(&x))
            .add(text(&self.x, ((FRAME.0 + FRAME.2) / 2.0, HEIGHT - 16.0), "middle"))
            .add(text(&self.y, (22.0, (FRAME.1 + FRAME.3) / 2.0), "middle").set("font-size", 16));
        for (curve, style) in self.curves.iter().zip(STYLES.iter().cycle()) {
            document = document.add(line(curve, *style, &x, &y));
        }
        document.add(self.legend()).to_string() + "\n"
    }

    fn legend(&self) -> Group {
        let mut group = Group::new();
        for (number, (curve, (colour, dashes))) in self.curves.iter().zip(STYLES.iter().cycle()).enumerate() {
            let (x, y) = (FRAME.0 + 18.0, FRAME.1 + 22.0 + 20.0 * number as f64);
            let sample = stroke(((x, y), (x + 34.0, y)), colour).set("stroke-width", 2.2);
            group =
                group.add(sample.set("stroke-dasharray", *dashes)).add(text(&curve.name, (x + 44.0, y + 4.5), "start"));
        }
        group
    }
}

/// Tick labels, and a grid line per tick.
fn vertical(axis: &Axis) -> Group {
    let mut group = Group::new();
    for (share, label) in axis.labels() {
        let y = FRAME.3 - share * (FRAME.3 - FRAME.1);
        let colour = if share == 0.0 { INK } else { GRID };
        group =
            group.add(stroke(((FRAME.0, y), (FRAME.2, y)), colour)).add(text(&label, (FRAME.0 - 10.0, y + 4.5), "end"));
    }
    group.add(stroke(((FRAME.0, FRAME.1), (FRAME.0, FRAME.3)), INK))
}

fn horizontal(axis: &Axis) -> Group {
    let mut group = Group::new();
    for (share, label) in axis.labels() {
        let x = FRAME.0 + share * (FRAME.2 - FRAME.0);
        let tick = stroke(((x, FRAME.3), (x, FRAME.3 + 5.0)), INK);
        group = group.add(tick).add(text(&label, (x, FRAME.3 + 21.0), "middle"));
    }
    group
}

fn line(curve: &Curve, (colour, dashes): (&str, &str), x: &Axis, y: &Axis) -> Polyline {
    let corner = |&(at, value): &(f64, f64)| {
        let left = FRAME.0 + x.share(at) * (FRAME.2 - FRAME.0);
        format!("{left:.2},{:.2}", FRAME.3 - y.share(value) * (FRAME.3 - FRAME.1))
    };
    Polyline::new()
        .set("points", curve.points.iter().map(corner).collect::<Vec<_>>().join(" "))
        .set("fill", "none")
        .set("stroke", colour)
        .set("stroke-width", 2.2)
        .set("stroke-linejoin", "round")
        .set("stroke-dasharray", dashes)
}

fn stroke((from, to): ((f64, f64), (f64, f64)), colour: &str) -> Line {
    Line::new().set("x1", from.0).set("y1", from.1).set("x2", to.0).set("y2", to.1).set("stroke", colour)
}

fn text(content: &str, (x, y): (f64, f64), anchor: &str) -> Text {
    Text::new(content).set("x", x).set("y", y).set("text-anchor", anchor).set("fill", INK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_end_at_round_numbers() {
        let labels = |largest| Axis::reaching(largest, 6.0).labels().map(|(_, label)| label).collect::<Vec<_>>();
        assert_eq!(labels(2.6), ["0.0", "0.5", "1.0", "1.5", "2.0", "2.5", "3.0"]);
        assert_eq!(labels(1000.0), ["0", "200", "400", "600", "800", "1000"]);
    }

    #[test]
    fn names_are_escaped_and_every_corner_is_drawn() {
        let curve = Curve { name: "a < b".into(), points: vec![(0.0, 0.0), (10.0, 1.0)] };
        let svg = Plot { title: "t".into(), x: "x".into(), y: "y".into(), curves: vec![curve] }.to_svg();
        assert!(svg.contains("a &lt; b") && svg.contains("72.00,380.00 696.00,52.00"), "{svg}");
    }
}
