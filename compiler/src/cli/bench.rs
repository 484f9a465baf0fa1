//! `trainc bench`.

use super::{arguments::Bench, failure::Failure, output, run};
use serde_json::json;
use std::time::Instant;
use trainc_runtime::{Session, report};

/// Steps before timing begins: pages are touched, caches and threads warm.
const WARM_UP: usize = 2;

/// Times the steps of a program on its own data.
pub fn bench(arguments: &Bench) -> Result<(), Failure> {
    if arguments.steps == 0 {
        return Err(Failure::misuse("--steps 0: there is nothing to time"));
    }
    let mut options = run::options(&arguments.execution)?;
    let artifact = run::artifact(&arguments.program, options.device)?;
    options.steps = Some(u32::try_from(arguments.steps + WARM_UP).map_err(Failure::misuse)?);
    options.base = Some(arguments.program.base());
    let mut session = Session::new(artifact, &options).map_err(run::of_runtime)?;
    let (milliseconds, loss) = time_steps(&mut session, arguments.steps)?;
    let middle = milliseconds[milliseconds.len() / 2];
    let (least, most) = (milliseconds[0], milliseconds[milliseconds.len() - 1]);
    let train = &session.manifest().train;
    let per_second = |amount: u64| amount as f64 / middle * 1e3;
    println!(
        "{}: step {middle:.1} ms (min {least:.1}, max {most:.1}), {} {}/s, {:.1} GFLOP/s, arena {}, process {}, loss {loss:.5}",
        session.manifest().name,
        output::count(per_second(train.items_per_step)),
        train.item,
        per_second(train.flops_per_step) / 1e9,
        output::bytes(session.manifest().arena_bytes),
        report::peak_memory().map_or("unknown".into(), output::bytes),
    );
    if arguments.json {
        output::json(&json!({
            "step_ms": { "min": least, "median": middle, "max": most },
            "items_per_second": per_second(train.items_per_step),
            "gflops_per_second": per_second(train.flops_per_step) / 1e9,
            "peak_bytes": { "planned": session.manifest().arena_bytes, "measured": report::peak_memory() },
            "loss": loss,
        }));
    }
    Ok(())
}

/// Sorted times of the steps after warming up, and the last loss.
fn time_steps(session: &mut Session, steps: usize) -> Result<(Vec<f64>, f64), Failure> {
    let mut milliseconds = Vec::with_capacity(steps);
    for step in 0..WARM_UP + steps {
        let begin = Instant::now();
        session.step().map_err(run::of_runtime)?;
        if step >= WARM_UP {
            milliseconds.push(begin.elapsed().as_secs_f64() * 1e3);
        }
    }
    milliseconds.sort_by(f64::total_cmp);
    Ok((milliseconds, session.numbers().loss()))
}
