//! `trainc bench`.

use super::{arguments::Bench, failure::Failure, output, profile, run};
use serde_json::json;
use std::time::Instant;
use trainc_runtime::{Session, device::Ceilings, report};

/// Steps before timing begins: pages are touched, caches and threads warm.
const WARM_UP: usize = 2;

/// Times the steps of a program on its own data, and then one more step kernel by kernel.
pub fn bench(arguments: &Bench) -> Result<(), Failure> {
    if arguments.steps == 0 {
        return Err(Failure::misuse("--steps 0: there is nothing to time"));
    }
    let begin = Instant::now();
    let mut options = run::options(&arguments.execution)?;
    let (artifact, facts) = run::artifact_with_facts(&arguments.program, options.device)?;
    options.steps = Some(u32::try_from(arguments.steps + WARM_UP + 1).map_err(Failure::misuse)?);
    options.base = Some(arguments.program.base());
    let mut session = Session::new(artifact, &options).map_err(run::of_runtime)?;
    session.step().map_err(run::of_runtime)?;
    let first_step = begin.elapsed().as_secs_f64();
    let mut losses = vec![session.numbers().loss()];
    let milliseconds = time_steps(&mut session, arguments.steps, &mut losses)?;
    let loss = session.numbers().loss();
    session.device_mut().record(true);
    session.step().map_err(run::of_runtime)?;
    let profile = profile::by_kernel(&session, &facts);
    let peak_bytes = report::peak_memory();
    let ceilings = Ceilings::measure(session.device().threads()).map_err(Failure::run)?;

    let middle = milliseconds[milliseconds.len() / 2];
    let (least, most) = (milliseconds[0], milliseconds[milliseconds.len() - 1]);
    let manifest = session.manifest();
    let per_second = |amount: u64| amount as f64 / middle * 1e3;
    let flops = per_second(manifest.train.flops_per_step);
    let of_bf16 = ceilings.bf16_flops.map_or(String::new(), |peak| format!(", {:.1}% of bf16", 100.0 * flops / peak));
    output::text(profile::render(&profile));
    output::line(format_args!(
        "ceilings of {} threads: f32 {:.1} GFLOP/s, bf16 {}, triad {:.1} GB/s; first step after {first_step:.2} s",
        session.device().threads(),
        ceilings.f32_flops / 1e9,
        ceilings.bf16_flops.map_or("none".into(), |peak| format!("{:.1} GFLOP/s", peak / 1e9)),
        ceilings.triad_bytes / 1e9,
    ));
    output::line(format_args!(
        "{}: step {middle:.2} ms (min {least:.2}, max {most:.2}), {} {}/s, {:.1} GFLOP/s ({:.1}% of f32{of_bf16}), \
         arena {}, process {}, loss {loss:.5}",
        manifest.name,
        output::count(per_second(manifest.train.items_per_step)),
        manifest.train.item,
        flops / 1e9,
        100.0 * flops / ceilings.f32_flops,
        output::bytes(manifest.arena_bytes),
        peak_bytes.map_or("unknown".into(), output::bytes),
    ));
    if let Some(path) = &arguments.trace {
        trainc_runtime::atomic::write_file(path, profile::trace(&session).to_string().as_bytes())
            .map_err(|error| Failure::run(format!("cannot write {}: {error}", path.display())))?;
    }
    if arguments.json {
        output::json(&json!({
            "step_ms": { "min": least, "median": middle, "max": most },
            "first_step_s": first_step,
            "items_per_second": per_second(manifest.train.items_per_step),
            "gflops_per_second": flops / 1e9,
            "ceilings": {
                "f32_gflops_per_second": ceilings.f32_flops / 1e9,
                "bf16_gflops_per_second": ceilings.bf16_flops.map(|peak| peak / 1e9),
                "triad_gb_per_second": ceilings.triad_bytes / 1e9,
            },
            "peak_bytes": { "planned": manifest.arena_bytes, "measured": peak_bytes },
            "loss": loss,
            "losses": losses,
            "profile": profile::facts(&profile),
        }));
    }
    Ok(())
}

/// Sorted times of the steps after warming up (one warm-up step has been made), and the loss of every step.
fn time_steps(session: &mut Session, steps: usize, losses: &mut Vec<f64>) -> Result<Vec<f64>, Failure> {
    let mut milliseconds = Vec::with_capacity(steps);
    for step in 1..WARM_UP + steps {
        let begin = Instant::now();
        session.step().map_err(run::of_runtime)?;
        if step >= WARM_UP {
            milliseconds.push(begin.elapsed().as_secs_f64() * 1e3);
        }
        losses.push(session.numbers().loss());
    }
    milliseconds.sort_by(f64::total_cmp);
    Ok(milliseconds)
}
