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
    /// How far the values of each point spread to both sides, drawn as a bar; empty for none.
    pub spread: Vec<f64>,
}

impl Curve {
    /// A line without bars.
    pub fn new(name: impl Into<String>, points: Vec<(f64, f64)>) -> Self {
        Self { name: name.into(), points, spread: Vec::new() }
    }

    /// The points with their spreads.
    fn spreading(&self) -> impl Iterator<Item = ((f64, f64), f64)> {
        self.points.iter().copied().zip(self.spread.iter().copied().chain(std::iter::repeat(0.0)))
    }
}

/// Curves over common axes; the horizontal one begins at 0.
pub struct Plot {
    /// Above the axes.
    pub title: String,
    /// Below the horizontal axis.
    pub x: String,
    /// Beside the vertical axis.
    pub y: String,
    /// Near where the vertical axis begins, below all values.
    pub floor: f64,
    /// The lines, at most four of them told apart.
    pub curves: Vec<Curve>,
}

/// An axis between round numbers.
struct Axis {
    /// Where it begins, in ticks.
    first: f64,
    tick: f64,
    ticks: u32,
}

impl Axis {
    /// An axis from `floor` or below to `largest` or above, with about `wanted` ticks at multiples of 1, 2 or 5 times a power
    /// of ten.
    fn reaching(floor: f64, largest: f64, wanted: f64) -> Self {
        let rough = (largest - floor).max(f64::MIN_POSITIVE) / wanted;
        let power = 10f64.powf(rough.log10().floor());
        let tick = [1.0, 2.0, 5.0, 10.0].map(|digit| digit * power).into_iter().find(|&tick| tick >= rough);
        let tick = tick.unwrap_or(10.0 * power);
        let first = (floor / tick).floor();
        Axis { first, tick, ticks: (largest / tick - first).ceil().max(1.0) as u32 }
    }

    /// Where a value lies, from 0 to 1.
    fn share(&self, value: f64) -> f64 {
        (value / self.tick - self.first) / f64::from(self.ticks)
    }

    /// Positions from 0 to 1 with their labels.
    fn labels(&self) -> impl Iterator<Item = (f64, String)> {
        let decimals = (-self.tick.log10().floor()).max(0.0) as usize;
        (0..=self.ticks).map(move |number| {
            let value = (self.first + f64::from(number)) * self.tick;
            let label =
                if decimals > 6 && value != 0.0 { format!("{value:.0e}") } else { format!("{value:.decimals$}") };
            (f64::from(number) / f64::from(self.ticks), label)
        })
    }
}

impl Plot {
    /// The plot as an SVG document.
    pub fn to_svg(&self) -> String {
        let points = || self.curves.iter().flat_map(Curve::spreading);
        let x = Axis::reaching(0.0, points().map(|((x, _), _)| x).fold(0.0, f64::max), 6.0);
        let y = Axis::reaching(self.floor, points().map(|((_, y), spread)| y + spread).fold(self.floor, f64::max), 6.0);
        let mut document = Document::new()
            .set("viewBox", (0, 0, WIDTH as i64, HEIGHT as i64))
            .set("font-family", "Helvetica, Arial, sans-serif")
            .set("font-size", 13)
            .add(Rectangle::new().set("width", "100%").set("height", "100%").set("fill", "white"))
            .add(text(&self.title, (FRAME.0, 30.0), "start").set("font-size", 15).set("font-weight", "bold"))
            .add(vertical(&y))
            .add(horizontal(&x))
            .add(text(&self.x, ((FRAME.0 + FRAME.2) / 2.0, HEIGHT - 16.0), "middle"))
            .add(self.beside());
        for (curve, style) in self.curves.iter().zip(STYLES.iter().cycle()) {
            document = document.add(line(curve, *style, &x, &y)).add(bars(curve, style.0, &x, &y));
        }
        document.add(self.legend()).to_string() + "\n"
    }

    /// What the vertical axis shows: a letter stands, a word runs along the axis.
    fn beside(&self) -> Text {
        let (x, y) = (22.0, (FRAME.1 + FRAME.3) / 2.0);
        let label = text(&self.y, (x, y), "middle").set("font-size", if self.is_word() { 13 } else { 16 });
        if self.is_word() { label.set("transform", format!("rotate(-90 {x} {y})")) } else { label }
    }

    fn is_word(&self) -> bool {
        self.y.chars().count() > 1
    }

    /// In the corner that curves leave free: on the right if they fall.
    fn legend(&self) -> Group {
        let ends = |curve: &Curve| Some(curve.points.last()?.1 - curve.points.first()?.1);
        let falling = self.curves.iter().filter_map(ends).sum::<f64>() < 0.0;
        let left = if falling { FRAME.2 - 230.0 } else { FRAME.0 + 18.0 };
        let mut group = Group::new();
        for (number, (curve, (colour, dashes))) in self.curves.iter().zip(STYLES.iter().cycle()).enumerate() {
            let y = FRAME.1 + 22.0 + 20.0 * number as f64;
            let sample = stroke(((left, y), (left + 34.0, y)), colour).set("stroke-width", 2.2);
            let name = text(&curve.name, (left + 44.0, y + 4.5), "start");
            group = group.add(sample.set("stroke-dasharray", *dashes)).add(name);
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

/// Where a point lies on the page.
fn place((at, value): (f64, f64), x: &Axis, y: &Axis) -> (f64, f64) {
    (FRAME.0 + x.share(at) * (FRAME.2 - FRAME.0), FRAME.3 - y.share(value) * (FRAME.3 - FRAME.1))
}

fn line(curve: &Curve, (colour, dashes): (&str, &str), x: &Axis, y: &Axis) -> Polyline {
    let corner = |&point: &(f64, f64)| {
        let (left, top) = place(point, x, y);
        format!("{left:.2},{top:.2}")
    };
    Polyline::new()
        .set("points", curve.points.iter().map(corner).collect::<Vec<_>>().join(" "))
        .set("fill", "none")
        .set("stroke", colour)
        .set("stroke-width", 2.2)
        .set("stroke-linejoin", "round")
        .set("stroke-dasharray", dashes)
}

/// A bar to both sides of each point that spreads.
fn bars(curve: &Curve, colour: &str, x: &Axis, y: &Axis) -> Group {
    let mut group = Group::new();
    for ((at, value), spread) in curve.spreading().filter(|&(_, spread)| spread > 0.0) {
        let ends = (place((at, value - spread), x, y), place((at, value + spread), x, y));
        group = group.add(stroke(ends, colour).set("stroke-width", 1.4).set("stroke-opacity", 0.7));
    }
    group
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
    fn axes_begin_and_end_at_round_numbers() {
        let labels =
            |floor, largest| Axis::reaching(floor, largest, 6.0).labels().map(|(_, label)| label).collect::<Vec<_>>();
        assert_eq!(labels(0.0, 2.6), ["0.0", "0.5", "1.0", "1.5", "2.0", "2.5", "3.0"]);
        assert_eq!(labels(0.0, 1000.0), ["0", "200", "400", "600", "800", "1000"]);
        assert_eq!(labels(89.0, 97.0), ["88", "90", "92", "94", "96", "98"]);
        assert_eq!(Axis::reaching(89.0, 97.0, 6.0).share(90.0), 0.2);
    }

    fn plot(curve: Curve) -> String {
        Plot { title: "t".into(), x: "x".into(), y: "y".into(), floor: 0.0, curves: vec![curve] }.to_svg()
    }

    #[test]
    fn names_are_escaped_and_every_corner_is_drawn() {
        let svg = plot(Curve::new("a < b", vec![(0.0, 0.0), (10.0, 1.0)]));
        assert!(svg.contains("a &lt; b") && svg.contains("72.00,380.00 696.00,52.00"), "{svg}");
    }

    #[test]
    fn spreads_are_bars_within_the_frame() {
        let curve = Curve { spread: vec![0.0, 0.5], ..Curve::new("a", vec![(0.0, 0.0), (10.0, 0.5)]) };
        let svg = plot(curve);
        let bar = svg.split("<line").find(|line| line.contains("stroke-opacity")).expect("a bar");
        assert!(bar.contains("x1=\"696\"") && bar.contains("y1=\"380\"") && bar.contains("y2=\"52\""), "{bar}");
    }
}
