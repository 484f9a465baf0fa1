//! Schedules at their edges: whatever durations a program gives, and however long the run is, rates are rates.

use trainc::{
    graph::{Bindings, Graph, Output, interpret},
    source::SourceMap,
    syntax::{
        self,
        tree::{Definition, DefinitionKind, ExprKind, Item, Unit},
    },
};
use trainc_tests::program;

/// The schedules of the standard library, found in its source.
fn library() -> Vec<Definition> {
    let mut sources = SourceMap::default();
    let file = sources.add("schedules.train", program::read("compiler/std/schedules.train"));
    let parsed = syntax::parse(file, &sources.file(file).text);
    let schedules = parsed.file.items.into_iter().filter_map(|item| match item {
        Item::Definition(definition) if definition.kind == DefinitionKind::Schedule => Some(definition),
        _ => None,
    });
    schedules.collect()
}

/// Parameters whose default is a length of training.
fn durations(schedule: &Definition) -> Vec<&str> {
    let is_time = |unit: Unit| !matches!(unit, Unit::None | Unit::Times | Unit::Bytes);
    let with_time = schedule.parameters.iter().filter(|parameter| {
        let default = parameter.default.as_ref().map(|default| &default.kind);
        matches!(default, Some(ExprKind::Number(number)) if is_time(number.unit))
    });
    with_time.map(|parameter| parameter.name.text.as_str()).collect()
}

/// A program that trains with a schedule.
fn text(schedule: &str, steps: &str) -> String {
    format!(
        "use std\nmodel Line() {{\n    input x: [batch, 2]\n    output y = linear(x, 1)\n}}\n\
         train {{\n    model Line\n    loss mean(y^2)\n    optimizer sgd\n    schedule {schedule}\n    {steps}  batch 4\n}}\n"
    )
}

/// The graph of the rate alone.
fn rate_of(schedule: &str, steps: u32) -> Graph {
    let steps = format!("steps {steps}");
    let program = program::check("schedule", &text(schedule, &steps), &[]).unwrap_or_else(|found| panic!("{found}"));
    let report = Output::Report("rate".into());
    let node = program.step.output(&report).expect("every step reports its rate");
    program.step.yielding(vec![(report, node)])
}

/// The rates of a run of so many steps.
fn rates(rate: &Graph, steps: u32) -> Vec<f64> {
    let at = |step: u32| {
        let bindings = Bindings { step, steps, ..Bindings::default() };
        let mut run = interpret(rate, &bindings).expect("a rate needs only the clock");
        run.output(&Output::Report("rate".into())).expect("reported").data[0]
    };
    (0..steps).map(at).collect()
}

fn is_sound(rates: &[f64]) -> bool {
    rates.iter().all(|rate| *rate > 0.0 && *rate <= 1.0 + 1e-12)
}

#[test]
fn schedules_at_their_edges_stay_between_nothing_and_their_peak() {
    let library = library();
    assert!(library.len() >= 6, "the library has schedules");
    for schedule in &library {
        let durations = durations(schedule);
        for (program_steps, lengths) in [(1, &[0, 3][..]), (12, &[0, 11, 12, 40])] {
            for combination in 0..lengths.len().pow(durations.len() as u32) {
                let length = |i: usize| lengths[combination / lengths.len().pow(i as u32) % lengths.len()];
                let given = durations.iter().enumerate().map(|(i, name)| format!(", {name} = {} steps", length(i)));
                let use_of = format!("{}(peak = 1{})", schedule.name.text, given.collect::<String>());
                let rate = rate_of(&use_of, program_steps);
                for steps in [1, 5, 12, 30] {
                    let found = rates(&rate, steps);
                    assert!(is_sound(&found), "{use_of}, {steps} of {program_steps} steps: {found:?}");
                }
            }
        }
    }
}

#[test]
fn a_warmup_of_all_training_rises_to_its_end() {
    for schedule in library().iter().filter(|schedule| durations(schedule) == ["warmup"]) {
        let name = &schedule.name.text;
        let found = rates(&rate_of(&format!("{name}(1, warmup = 50 steps)"), 10), 10);
        assert!(found.is_sorted_by(|a, b| a < b) && found[9] == 1.0, "{name}: {found:?}");
    }
}

#[test]
fn a_run_of_fewer_steps_shortens_durations_in_steps() {
    let rate = rate_of("linear_decay(1, warmup = 20 steps)", 100);
    let line = |t: u32, steps: u32, warmup: f64| {
        let (t, steps) = (f64::from(t), f64::from(steps));
        f64::min(1.0, t / warmup) * f64::min(1.0, (steps + 1.0 - t) / (steps + 1.0 - warmup))
    };
    for (steps, warmup) in [(10, 2.0), (50, 10.0), (100, 20.0), (300, 20.0)] {
        let expected: Vec<f64> = (1..=steps).map(|t| line(t, steps, warmup)).collect();
        let found = rates(&rate, steps);
        assert!(found.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-12), "{steps}: {found:?}");
    }
}

#[test]
fn a_bare_number_for_a_duration_counts_steps() {
    assert_eq!(rates(&rate_of("wsd(1, warmup = 5)", 10), 10), rates(&rate_of("wsd(1, warmup = 5 steps)", 10), 10));
    let decay = rates(&rate_of("inverse_sqrt(0.5, warmup = 0 steps)", 9), 9);
    assert!((decay[0] - 0.5).abs() < 1e-12 && (decay[8] - 0.5 / 3.0).abs() < 1e-12, "{decay:?}");
}

#[test]
fn numbers_that_no_schedule_can_have_are_refused() {
    let refused = |schedule: &str, steps: &str, id: &str| {
        let found = program::check("schedule", &text(schedule, steps), &[]).expect_err(schedule);
        assert!(found.contains(&format!("error[{id}]")), "{schedule}: {found}");
    };
    refused("cosine(1, warmup = 500%)", "steps 9", "E0720");
    refused("cosine(1, warmup = -3 steps)", "steps 9", "E0720");
    refused("cosine(1, floor = 10%)", "steps 9", "E0721");
    refused("cosine(1, floor = -1)", "steps 9", "E0722");
    refused("constant(-0.1)", "steps 9", "E0722");
    refused("-0.1", "steps 9", "E0722");
    refused("constant(1)", "steps 0.5", "E0704");
}
