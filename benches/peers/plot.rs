//! The plots, as SVG: the rate against the number of tasks, and the distribution of the latencies.
//!
//! Drawn from the curves that the scenarios kept. Both have logarithmic axes, because the compared values
//! differ by a factor of a hundred.

use std::path::Path;

use plotters::coord::Shift;
use plotters::prelude::*;

use crate::figure::Curve;

const TEXT: (&str, i32) = ("sans-serif", 16);
const FRAME: RGBColor = RGBColor(200, 200, 200);

type Drawn = Result<(), Box<dyn std::error::Error>>;

const COLOURS: [RGBColor; 10] = [
    RGBColor(120, 120, 120),
    RGBColor(200, 30, 30),
    RGBColor(30, 90, 200),
    RGBColor(20, 140, 60),
    RGBColor(220, 130, 0),
    RGBColor(130, 50, 170),
    RGBColor(0, 150, 160),
    RGBColor(160, 110, 60),
    RGBColor(230, 80, 160),
    RGBColor(150, 160, 30),
];

/// Tasks a second against their number.
pub fn rates(path: &Path, curves: &[Curve]) -> Drawn {
    let (x, y) = (
        reach(curves, |point| point.0),
        reach(curves, |point| point.1),
    );
    let area = SVGBackend::new(path, (860, 480)).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = builder(&area)
        .caption("Tasks of `true` a second, 5 at a time", ("sans-serif", 22))
        .build_cartesian_2d(
            (x.0..x.1 * 40.0).log_scale(),
            (y.0 * 0.7..y.1 * 1.4).log_scale(),
        )?;
    chart
        .configure_mesh()
        .light_line_style(WHITE)
        .label_style(TEXT)
        .x_desc("number of tasks")
        .y_desc("a second")
        .x_label_formatter(&|x| plain(*x))
        .y_label_formatter(&|y| plain(*y))
        .draw()?;
    for (curve, colour) in curves.iter().zip(COLOURS) {
        let line = LineSeries::new(curve.points.iter().copied(), colour.stroke_width(2));
        chart
            .draw_series(line.point_size(3))?
            .label(&curve.name)
            .legend(move |(x, y)| key(x, y, colour));
    }
    name_curves(&mut chart)?;
    Ok(area.present()?)
}

/// The share of tasks that had started after this number of milliseconds.
pub fn latencies(path: &Path, curves: &[Curve]) -> Drawn {
    // If inotify reported a task after its recipe had started, the span is negative, which a logarithmic axis
    // cannot show.
    let soon = |point: &(f64, f64)| point.0.max(0.1);
    let x = reach(curves, soon);
    let area = SVGBackend::new(path, (860, 480)).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = builder(&area)
        .caption(
            "Tasks whose first instruction had run by then, idle spool",
            ("sans-serif", 22),
        )
        .build_cartesian_2d((x.0 * 0.9..x.1 * 12.0).log_scale(), 0.0..1.0)?;
    chart
        .configure_mesh()
        .light_line_style(WHITE)
        .label_style(TEXT)
        .x_desc("milliseconds")
        .y_desc("share of all")
        .x_label_formatter(&|x| plain(*x))
        .y_label_formatter(&|y| format!("{:.0}%", y * 100.0))
        .draw()?;
    for (curve, colour) in curves.iter().zip(COLOURS) {
        let points = curve.points.iter().map(|point| (soon(point), point.1));
        let line = LineSeries::new(points, colour.stroke_width(2));
        chart
            .draw_series(line)?
            .label(&curve.name)
            .legend(move |(x, y)| key(x, y, colour));
    }
    name_curves(&mut chart)?;
    Ok(area.present()?)
}

fn builder<'a, 'b>(
    area: &'a DrawingArea<SVGBackend<'b>, Shift>,
) -> ChartBuilder<'a, 'b, SVGBackend<'b>> {
    let mut builder = ChartBuilder::on(area);
    builder
        .margin(12)
        .x_label_area_size(42)
        .y_label_area_size(58);
    builder
}

/// The legend, on the right.
fn name_curves<'a, 'b: 'a, C: CoordTranslate>(
    chart: &mut ChartContext<'a, SVGBackend<'b>, C>,
) -> Drawn {
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::MiddleRight)
        .background_style(WHITE)
        .label_font(TEXT)
        .border_style(FRAME)
        .draw()?;
    Ok(())
}

fn key(x: i32, y: i32, colour: RGBColor) -> PathElement<(i32, i32)> {
    PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2))
}

fn reach(curves: &[Curve], of: impl Fn(&(f64, f64)) -> f64) -> (f64, f64) {
    let values = curves.iter().flat_map(|curve| &curve.points).map(of);
    values.fold((f64::MAX, f64::MIN), |(low, high), value| {
        (low.min(value), high.max(value))
    })
}

fn plain(value: f64) -> String {
    if value >= 1.0 {
        crate::report::number(value.round())
    } else {
        format!("{value}")
    }
}
