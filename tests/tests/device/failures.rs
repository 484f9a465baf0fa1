//! What a session says when its device fails it.

use super::{STEPS, batch, compiled, example, on_gpu};
use std::sync::atomic::AtomicBool;
use trainc_kernels::{Target, host_isa};
use trainc_libcuda::child::{is_child, report_of};
use trainc_runtime::{Options, RunDirectory, Session, artifact::Isa, device::Place, load_newest, train};

/// What a device does to a session that it fails.
fn failure(test: &str, settings: &[(&str, &str)], expected: &str) {
    if !is_child() {
        // A real driver takes no settings.
        if !on_gpu() {
            report_of(test, settings);
        }
        return;
    }
    let text = example("linear_regression", &[]);
    let artifact = compiled("line", &text, Target::Cuda, Isa::Sm80);
    let options = Options { device: Place::Cuda(0), ..Options::default() };
    let error = Session::new(artifact, &options)
        .and_then(|mut session| {
            for step in 0..STEPS {
                let batch = batch(&session, step);
                session.step_with(&batch)?;
            }
            Ok(())
        })
        .expect_err("the device fails");
    assert!(error.to_string().contains(expected), "{error}");
    assert_eq!(error.exit_code(), 3);
}

#[test]
fn an_old_driver_is_named_with_the_one_that_is_needed() {
    let settings = [(trainc_libcuda::config::DRIVER_VERSION, "11080")];
    failure("failures::an_old_driver_is_named_with_the_one_that_is_needed", &settings, "needs NVIDIA driver 525");
}

#[test]
fn an_old_device_is_named_with_its_capability() {
    let settings = [(trainc_libcuda::config::CAPABILITY, "75")];
    failure("failures::an_old_device_is_named_with_its_capability", &settings, "has compute capability 7.5");
}

#[test]
fn too_little_memory_is_an_error_with_sizes() {
    let settings = [(trainc_libcuda::config::MEMORY, "512")];
    failure("failures::too_little_memory_is_an_error_with_sizes", &settings, "make the batch or the model smaller");
}

#[test]
fn a_missing_device_is_an_error() {
    failure(
        "failures::a_missing_device_is_an_error",
        &[(trainc_libcuda::config::DEVICES, "0")],
        "there is no CUDA device 0",
    );
}

/// The processor goes on from what a run on a device left when the device was lost.
#[test]
fn the_last_checkpoint_survives_a_lost_device() {
    let test = "failures::the_last_checkpoint_survives_a_lost_device";
    if !is_child() {
        if !on_gpu() {
            report_of(test, &[(trainc_libcuda::config::LOSE_AFTER, "30")]);
        }
        return;
    }
    let text = example("linear_regression", &[("steps 200  batch 16", "steps 40  batch 16\n    checkpoint every 3")]);
    let folder = tempfile::tempdir().unwrap();
    let options =
        Options { base: Some(trainc_tests::root().join("dsl-examples")), device: Place::Cuda(0), ..Options::default() };
    let artifact = compiled("line", &text, Target::Cuda, Isa::Sm80);
    let directory = RunDirectory::create(folder.path(), &artifact, &options).unwrap();
    let mut session = Session::new(artifact, &options).unwrap();
    let error = train(&mut session, Some(&directory), &mut (), &AtomicBool::new(false)).unwrap_err();
    assert!(error.to_string().contains("the device failed while"), "{error}");
    let (step, _) = directory.newest_checkpoint().expect("a checkpoint was written before");
    assert!(step >= 3 && step % 3 == 0, "after step {step}");
    let on_cpu = Options { device: Place::Cpu, ..options };
    let mut session = Session::new(compiled("line", &text, Target::Cpu, host_isa()), &on_cpu).unwrap();
    assert_eq!(load_newest(folder.path(), &mut session).unwrap(), step);
    session.step().unwrap();
}

#[test]
fn a_lost_device_ends_the_run() {
    failure(
        "failures::a_lost_device_ends_the_run",
        &[(trainc_libcuda::config::LOSE_AFTER, "6")],
        "the device failed while",
    );
}
