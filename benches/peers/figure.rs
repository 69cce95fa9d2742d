//! What is measured: samples of one thing with a unit, rows that compare them, curves.
//!
//! Every single sample is kept in `target/bench/<scenario>.json`. A ratio is taken round by round, of what
//! ran in the same minute; the page shows the median of the ratios.

use serde::{Deserialize, Serialize};

/// Samples of one thing.
#[derive(Clone, Serialize, Deserialize)]
pub struct Figure {
    /// `ms`, `/s`, `MB`, `fsyncs`, `×`, or nothing.
    pub unit: String,
    pub samples: Vec<f64>,
}

impl Figure {
    pub fn new(unit: &str, samples: Vec<f64>) -> Figure {
        assert!(!samples.is_empty(), "nothing was measured");
        Figure {
            unit: unit.to_owned(),
            samples,
        }
    }

    pub fn one(unit: &str, sample: f64) -> Figure {
        Figure::new(unit, vec![sample])
    }

    /// Durations, in milliseconds.
    pub fn of_times(times: &[std::time::Duration]) -> Figure {
        Figure::new("ms", times.iter().map(|time| ms(*time)).collect())
    }

    /// The quantile of the samples: 0.5 is the median, 0 the least, 1 the most.
    pub fn quantile(&self, share: f64) -> f64 {
        let mut sorted = self.samples.clone();
        sorted.sort_by(f64::total_cmp);
        let at = share * (sorted.len() - 1) as f64;
        let (low, high) = (sorted[at.floor() as usize], sorted[at.ceil() as usize]);
        low + (high - low) * at.fract()
    }

    pub fn median(&self) -> f64 {
        self.quantile(0.5)
    }

    /// This figure divided by the other, round by round.
    pub fn by(&self, other: &Figure) -> Figure {
        let paired = self.samples.iter().zip(&other.samples);
        Figure::new("×", paired.map(|(ours, theirs)| ours / theirs).collect())
    }

    /// Each sample plus the other figure's sample of the same round.
    pub fn plus(&self, other: &Figure) -> Figure {
        let paired = self.samples.iter().zip(&other.samples);
        Figure::new(&self.unit, paired.map(|(one, two)| one + two).collect())
    }
}

pub fn ms(time: std::time::Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// One line of a table.
#[derive(Serialize, Deserialize)]
pub struct Row {
    pub what: String,
    pub ours: Figure,
    /// The floors and the peers, by name.
    pub beside: Vec<(String, Figure)>,
    /// The ratio, with the words for what it is a ratio of.
    pub ratio: Option<(String, Figure)>,
    pub goal: String,
    /// `None` if there is no goal.
    pub reached: Option<bool>,
}

impl Row {
    pub fn new(what: &str, ours: Figure) -> Row {
        Row {
            what: what.to_owned(),
            ours,
            beside: Vec::new(),
            ratio: None,
            goal: String::new(),
            reached: None,
        }
    }

    pub fn beside(mut self, name: &str, figure: Figure) -> Row {
        self.beside.push((name.to_owned(), figure));
        self
    }

    pub fn ratio(mut self, of: &str, figure: Figure) -> Row {
        self.ratio = Some((of.to_owned(), figure));
        self
    }

    pub fn goal(mut self, goal: &str, reached: bool) -> Row {
        self.goal = goal.to_owned();
        self.reached = Some(reached);
        self
    }
}

/// Points of a plot.
#[derive(Serialize, Deserialize)]
pub struct Curve {
    pub name: String,
    pub points: Vec<(f64, f64)>,
}

/// What a scenario found.
#[derive(Default, Serialize, Deserialize)]
pub struct Findings {
    pub rows: Vec<Row>,
    pub curves: Vec<Curve>,
    /// What a reader must know to understand the rows.
    pub notes: Vec<String>,
}

impl Findings {
    pub fn curve(&mut self, name: &str, points: Vec<(f64, f64)>) {
        self.curves.push(Curve {
            name: name.to_owned(),
            points,
        });
    }

    pub fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }
}
