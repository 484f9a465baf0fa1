//! `trainc privacy`: the accountant by itself, before there is a program.

use super::{
    arguments::{self, Privacy},
    failure::Failure,
    output,
    table::Table,
};
use serde_json::json;
use std::path::Path;
use trainc::plot::{Curve, Plot};
use trainc_runtime::privacy::{self, Accountant, Mechanism};

/// Points of a plotted curve.
const POINTS: u64 = 48;

/// Computes whichever of epsilon, noise multiplier and steps is missing, and prints the guarantee.
pub fn privacy(arguments: &Privacy) -> Result<(), Failure> {
    let guarantee = solve(arguments)?;
    output::text(guarantee.report());
    if let Some(warning) = guarantee.warning() {
        output::note(format_args!("warning: {warning}"));
    }
    if let Some(path) = &arguments.plot {
        guarantee.plot(path)?;
    }
    if arguments.json {
        output::json(&guarantee.facts());
    }
    Ok(())
}

struct Guarantee {
    /// In their order; at least one.
    phases: Vec<Mechanism>,
    delta: f64,
    accountant: Accountant,
    samples: Option<u64>,
    pld: f64,
    rdp: f64,
}

fn solve(arguments: &Privacy) -> Result<Guarantee, Failure> {
    let delta = delta(arguments)?;
    let accountant = match arguments.accountant {
        arguments::Accountant::Pld => Accountant::Pld,
        arguments::Accountant::Rdp => Accountant::Rdp,
    };
    let mut phases = arguments.phases.clone();
    if phases.is_empty() || describes_a_phase(arguments) {
        phases.push(last_phase(arguments, delta, accountant)?);
    }
    let epsilon = |accountant| privacy::epsilon(&phases, delta, accountant).map_err(Failure::misuse);
    let (pld, rdp) = (epsilon(Accountant::Pld)?, epsilon(Accountant::Rdp)?);
    Ok(Guarantee { phases, delta, accountant, samples: arguments.samples, pld, rdp })
}

/// Whether flags besides `--phase` are about steps.
fn describes_a_phase(arguments: &Privacy) -> bool {
    let Privacy { sampling_rate, batch, epsilon, noise, steps, epochs, .. } = arguments;
    let numbers = [sampling_rate, epsilon, noise, epochs].iter().any(|number| number.is_some());
    numbers || batch.is_some() || steps.is_some()
}

fn delta(arguments: &Privacy) -> Result<f64, Failure> {
    match (arguments.delta, arguments.samples) {
        (Some(delta), _) => Ok(delta),
        (None, Some(samples)) => Ok((samples as f64).powf(-1.1).min(1e-5)),
        (None, None) => Err(Failure::misuse("give --delta, or --samples to choose it by")),
    }
}

/// The phase that the flags besides `--phase` describe, its missing value computed.
fn last_phase(arguments: &Privacy, delta: f64, accountant: Accountant) -> Result<Mechanism, Failure> {
    let sampling_rate = match (arguments.sampling_rate, arguments.batch, arguments.samples) {
        (Some(rate), ..) => rate,
        (None, Some(batch), Some(samples)) => batch as f64 / samples as f64,
        _ => return Err(Failure::misuse("give --sampling-rate, or --batch and --samples")),
    };
    let steps = match (arguments.steps, arguments.epochs) {
        (Some(steps), _) => Some(steps),
        (None, Some(epochs)) if epochs >= 0.0 => Some((epochs / sampling_rate).ceil() as u64),
        (None, Some(epochs)) => return Err(Failure::misuse(format!("--epochs {epochs}: a number of at least 0"))),
        (None, None) => None,
    };
    let (earlier, of) =
        (&arguments.phases, |noise_multiplier, steps| Mechanism { sampling_rate, noise_multiplier, steps });
    match (arguments.epsilon, arguments.noise, steps) {
        (None, Some(noise), Some(steps)) => Ok(of(noise, steps)),
        (Some(epsilon), None, Some(steps)) => {
            privacy::noise_multiplier_after(earlier, epsilon, delta, sampling_rate, steps, accountant)
                .map(|noise| of(noise, steps))
        }
        (Some(epsilon), Some(noise), None) => {
            privacy::steps_after(earlier, epsilon, delta, &of(noise, 1), accountant).map(|steps| of(noise, steps))
        }
        _ => {
            return Err(Failure::misuse(
                "give two of --epsilon, --noise and --steps (or --epochs): the third is computed",
            ));
        }
    }
    .map_err(Failure::misuse)
}

impl Guarantee {
    fn report(&self) -> String {
        let mut table = Table::new(&["", ""]);
        let mut fact = |name: &str, value: String| table.row([name.to_string(), value]);
        for (number, phase) in (1..).zip(&self.phases) {
            let Mechanism { sampling_rate, noise_multiplier, steps } = phase;
            if self.phases.len() > 1 {
                fact(&format!("phase {number}"), String::new());
            }
            fact("sampling rate q", sampling_rate.to_string());
            fact("steps T", steps.to_string());
            fact("noise multiplier sigma", noise_multiplier.to_string());
        }
        fact("delta", format!("{:e}", self.delta));
        fact("adjacency", "one record added or removed".into());
        fact("sampler", "Poisson: each record by itself with probability q".into());
        // Upwards: a guarantee is not improved by rounding.
        let upwards = |epsilon: f64| format!("{:.6}", (epsilon * 1e6).ceil() / 1e6);
        fact("epsilon (PLD)", upwards(self.pld));
        fact("epsilon (RDP)", upwards(self.rdp));
        table.render().trim_start().to_string()
    }

    fn warning(&self) -> Option<String> {
        let samples = self.samples.filter(|&samples| self.delta * samples as f64 > 1.0)?;
        Some(format!(
            "delta {:e} is larger than 1 / {samples}: publishing a random record outright would be within the guarantee",
            self.delta
        ))
    }

    /// The values of the last phase stand by themselves too: it is the one that is solved for.
    fn facts(&self) -> serde_json::Value {
        let last = self.phases[self.phases.len() - 1];
        json!({
            "sampling_rate": last.sampling_rate,
            "steps": last.steps,
            "noise_multiplier": last.noise_multiplier,
            "phases": self.phases,
            "delta": self.delta,
            "adjacency": "add-or-remove-one",
            "sampler": "poisson",
            "accountant": self.accountant,
            "epsilon": { "pld": self.pld, "rdp": self.rdp },
        })
    }

    fn plot(&self, path: &Path) -> Result<(), Failure> {
        if self.steps() == 0 || !self.pld.is_finite() || !self.rdp.is_finite() {
            return Err(Failure::misuse("--plot: without steps or without noise there is no curve to draw"));
        }
        let mut curves = vec![Curve::new("RDP", self.curve(Accountant::Rdp)?)];
        if self.accountant == Accountant::Pld {
            curves.insert(0, Curve::new("PLD", self.curve(Accountant::Pld)?));
        }
        let (x, y) = ("steps".into(), "\u{3b5}".into());
        let text = Plot { title: self.title(), x, y, floor: 0.0, curves }.to_svg();
        trainc_runtime::atomic::write_file(path, text.as_bytes())
            .map_err(|error| Failure::run(format!("cannot write {}: {error}", path.display())))
    }

    fn title(&self) -> String {
        let how = match self.phases[..] {
            [only] => format!("q = {:.4}, \u{3c3} = {:.4}", only.sampling_rate, only.noise_multiplier),
            _ => format!("{} phases", self.phases.len()),
        };
        format!("Privacy spent: {how}, \u{3b4} = {:.2e}", self.delta)
    }

    /// Epsilon after evenly spread numbers of steps.
    fn curve(&self, accountant: Accountant) -> Result<Vec<(f64, f64)>, Failure> {
        let total = self.steps();
        let points = POINTS.min(total);
        (0..=points)
            .map(|point| (u128::from(total) * u128::from(point) / u128::from(points)) as u64)
            .map(|steps| {
                let spent = privacy::epsilon(&self.first(steps), self.delta, accountant);
                Ok((steps as f64, spent.map_err(Failure::misuse)?))
            })
            .collect()
    }

    /// The steps of all phases.
    fn steps(&self) -> u64 {
        self.phases.iter().fold(0, |sum, phase| sum.saturating_add(phase.steps))
    }

    /// The first so many steps.
    fn first(&self, mut steps: u64) -> Vec<Mechanism> {
        let begun = |phase: &Mechanism| {
            let taken = steps.min(phase.steps);
            steps -= taken;
            Mechanism { steps: taken, ..*phase }
        };
        self.phases.iter().map(begun).collect()
    }
}
