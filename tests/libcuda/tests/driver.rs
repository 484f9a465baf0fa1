//! A program that uses `cudarc` runs over this driver: each test starts itself again as a child process that finds the shared
//! object through `LD_LIBRARY_PATH`, and reads the child's report.

use cudarc::driver::{CudaContext, CudaSlice, CudaStream, DevicePtr, DriverError, result, sys};
use std::ffi::{CString, c_void};
use std::sync::Arc;
use trainc_libcuda::child::{is_child, of_kind, report_of};

const SCALE: &str = r"
.version 8.0
.target sm_80
.address_size 64
.visible .entry scale(.param .u64 .ptr .global .align 4 data, .param .f32 factor, .param .u32 count)
{
    .reg .pred %p<2>; .reg .b32 %r<6>; .reg .f32 %f<4>; .reg .b64 %rd<5>;
    ld.param.u64 %rd1, [data];
    ld.param.f32 %f1, [factor];
    ld.param.u32 %r1, [count];
    mov.u32 %r2, %ctaid.x;
    mov.u32 %r3, %ntid.x;
    mov.u32 %r4, %tid.x;
    mad.lo.u32 %r5, %r2, %r3, %r4;
    setp.ge.u32 %p1, %r5, %r1;
    @%p1 bra $done;
    mul.wide.u32 %rd2, %r5, 4;
    add.u64 %rd3, %rd1, %rd2;
    ld.global.f32 %f2, [%rd3];
    mul.rn.f32 %f3, %f2, %f1;
    st.global.f32 [%rd3], %f3;
$done:
    ret;
}
";

/// A context without cudarc's own events, which would be recorded into captures.
fn context() -> Arc<CudaContext> {
    let context = CudaContext::new(0).unwrap();
    // SAFETY: these tests use each slice in one stream only.
    unsafe { context.disable_event_tracking() };
    context
}

fn load(source: &str) -> Result<sys::CUmodule, DriverError> {
    let image = CString::new(source).unwrap();
    // SAFETY: nul-terminated text. Modules stay loaded until the child ends.
    unsafe { result::module::load_data(image.as_ptr().cast()) }
}

/// Queues `data[i] *= factor` for `count` elements in blocks of 64.
fn launch_scale(stream: &CudaStream, data: u64, factor: f32, count: u32) {
    let (mut data, mut factor, mut number) = (data, factor, count);
    let mut arguments: [*mut c_void; 3] = [(&raw mut data).cast(), (&raw mut factor).cast(), (&raw mut number).cast()];
    // SAFETY: the arguments are the kernel's; whether it stays in bounds is what the emulator checks.
    unsafe {
        let kernel = result::module::get_function(load(SCALE).unwrap(), c"scale".to_owned()).unwrap();
        let grid = (count.div_ceil(64), 1, 1);
        result::launch_kernel(kernel, grid, (64, 1, 1), 0, stream.cu_stream(), &mut arguments).unwrap();
    }
}

/// The address of a slice whose use is left to the caller.
fn address(data: &CudaSlice<f32>, stream: &CudaStream) -> u64 {
    data.device_ptr(stream).0
}

fn code(error: DriverError) -> sys::CUresult {
    error.0
}

#[test]
fn a_kernel_runs_through_cudarc() {
    if is_child() {
        let context = context();
        assert_eq!(context.name().unwrap(), "trainc PTX emulator");
        let stream = context.new_stream().unwrap();
        let values: Vec<f32> = (0..100).map(|i| i as f32).collect();
        let data = stream.clone_htod(&values).unwrap();
        launch_scale(&stream, address(&data, &stream), 0.5, 100);
        let scaled = stream.clone_dtoh(&data).unwrap();
        assert!(scaled.iter().zip(&values).all(|(scaled, value)| *scaled == 0.5 * value));
        return;
    }
    let report = report_of("a_kernel_runs_through_cudarc", &[]);
    let launches = of_kind(&report, "launch");
    assert_eq!(launches.len(), 1);
    assert_eq!(launches[0]["kernel"], "scale");
    // 100 floats are 400 bytes, 12.5 sectors: one more than the whole ones, both ways.
    assert_eq!(launches[0]["global_loads"]["transactions"], 13);
    assert_eq!(launches[0]["global_stores"]["bytes"], 400);
    assert!(of_kind(&report, "violation").is_empty());
    assert!(of_kind(&report, "leak").iter().all(|leak| leak["what"] == "modules"), "this test unloads none");
}

#[test]
fn a_captured_step_is_replayed() {
    if is_child() {
        let context = context();
        let stream = context.new_stream().unwrap();
        let data = stream.clone_htod(&[1f32; 64]).unwrap();
        stream.begin_capture(sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_GLOBAL).unwrap();
        for _ in 0..2 {
            launch_scale(&stream, address(&data, &stream), 2.0, 64);
        }
        let graph = stream.end_capture(sys::CUgraphInstantiate_flags(0)).unwrap().unwrap();
        // Captured launches have not run.
        assert_eq!(stream.clone_dtoh(&data).unwrap(), [1f32; 64]);
        graph.launch().unwrap();
        graph.launch().unwrap();
        assert_eq!(stream.clone_dtoh(&data).unwrap(), [16f32; 64]);
        return;
    }
    let report = report_of("a_captured_step_is_replayed", &[]);
    let graphs = of_kind(&report, "graph");
    assert_eq!(graphs.len(), 2);
    assert_eq!(graphs[0]["launches"], 2);
    assert_eq!(of_kind(&report, "launch").len(), 4);
}

#[test]
fn waiting_during_a_capture_breaks_it() {
    if is_child() {
        let context = context();
        let stream = context.new_stream().unwrap();
        let event = context.new_event(None).unwrap();
        let other = context.new_stream().unwrap();
        event.record(&other).unwrap();
        let begin = || stream.begin_capture(sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL).unwrap();
        let end = || stream.end_capture(sys::CUgraphInstantiate_flags(0)).map(drop).unwrap_err();
        begin();
        let refused = stream.synchronize().unwrap_err();
        assert_eq!(code(refused), sys::CUresult::CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
        assert_eq!(code(end()), sys::CUresult::CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
        begin();
        let refused = stream.wait(&event).unwrap_err();
        assert_eq!(code(refused), sys::CUresult::CUDA_ERROR_STREAM_CAPTURE_ISOLATION);
        assert_eq!(code(end()), sys::CUresult::CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
        begin();
        // SAFETY: nothing is allocated.
        let refused = unsafe { result::malloc_sync(16) }.unwrap_err();
        assert_eq!(code(refused), sys::CUresult::CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
        assert_eq!(code(end()), sys::CUresult::CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
        return;
    }
    let report = report_of("waiting_during_a_capture_breaks_it", &[]);
    let calls: Vec<_> = of_kind(&report, "host").iter().map(|line| line["call"].as_str().unwrap()).collect();
    assert_eq!(calls, ["cuStreamSynchronize", "cuStreamWaitEvent", "cuMemAlloc"]);
}

#[test]
fn another_stream_must_be_joined_before_a_capture_ends() {
    if is_child() {
        let context = context();
        let (stream, side) = (context.new_stream().unwrap(), context.new_stream().unwrap());
        let data = stream.clone_htod(&[1f32; 64]).unwrap();
        let (fork, join) = (context.new_event(None).unwrap(), context.new_event(None).unwrap());
        let capture = |joins: bool| {
            stream.begin_capture(sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL).unwrap();
            fork.record(&stream).unwrap();
            side.wait(&fork).unwrap();
            launch_scale(&side, address(&data, &side), 2.0, 64);
            if joins {
                join.record(&side).unwrap();
                stream.wait(&join).unwrap();
            }
            stream.end_capture(sys::CUgraphInstantiate_flags(0))
        };
        let error = capture(false).map(drop).unwrap_err();
        assert_eq!(code(error), sys::CUresult::CUDA_ERROR_STREAM_CAPTURE_UNJOINED);
        let graph = capture(true).unwrap().unwrap();
        graph.launch().unwrap();
        assert_eq!(stream.clone_dtoh(&data).unwrap(), [2f32; 64]);
        return;
    }
    report_of("another_stream_must_be_joined_before_a_capture_ends", &[]);
}

#[test]
fn a_violation_breaks_the_context_and_is_reported() {
    if is_child() {
        let context = context();
        let stream = context.new_stream().unwrap();
        let data = stream.clone_htod(&[1f32; 64]).unwrap();
        launch_scale(&stream, address(&data, &stream), 2.0, 65);
        let error = stream.synchronize().unwrap_err();
        assert_eq!(code(error), sys::CUresult::CUDA_ERROR_ILLEGAL_ADDRESS);
        assert_eq!(code(context.synchronize().unwrap_err()), sys::CUresult::CUDA_ERROR_ILLEGAL_ADDRESS);
        // Dropping the objects of a broken context must not abort the process.
        return;
    }
    let report = report_of("a_violation_breaks_the_context_and_is_reported", &[]);
    let violations = of_kind(&report, "violation");
    assert_eq!(violations[0]["what"], "out of bounds");
    assert_eq!(violations[0]["thread"], serde_json::json!([0, 0, 0]));
    assert_eq!(violations[0]["block"], serde_json::json!([1, 0, 0]));
    let text = violations[0]["text"].as_str().unwrap();
    assert!(text.contains("`ld.global.f32 %f2, [%rd3];`") && text.contains("offset 256 of allocation 0"), "{text}");
}

#[test]
fn work_waits_for_somebody_to_wait() {
    if is_child() {
        let context = context();
        let stream = context.new_stream().unwrap();
        // SAFETY: the memory is owned, written before it is read, and freed at the end.
        unsafe {
            let pinned = result::malloc_host(256, 0).unwrap().cast::<f32>();
            (0..64).for_each(|i| pinned.add(i).write(1.0));
            let device = result::malloc_sync(256).unwrap();
            let source = std::slice::from_raw_parts(pinned, 64);
            result::memcpy_htod_async(device, source, stream.cu_stream()).unwrap();
            // The buffer is reused too early: the copy sees the new value.
            pinned.write(7.0);
            let mut values = [0f32; 64];
            result::memcpy_dtoh_async(&mut values, device, stream.cu_stream()).unwrap();
            stream.synchronize().unwrap();
            assert_eq!(values[..2], [7.0, 1.0]);
            result::free_sync(device).unwrap();
            result::free_host(pinned.cast()).unwrap();
        }
        return;
    }
    report_of("work_waits_for_somebody_to_wait", &[]);
}

/// A stream waits for what the event marked when it was told to wait, not for where the event is recorded later.
#[test]
fn an_event_that_is_recorded_again_elsewhere_keeps_who_waits_for_it_in_order() {
    let test = "an_event_that_is_recorded_again_elsewhere_keeps_who_waits_for_it_in_order";
    if !is_child() {
        report_of(test, &[]);
        return;
    }
    let context = context();
    let [writer, reader, other] = [(); 3].map(|()| context.new_stream().unwrap());
    let data = writer.clone_htod(&[1f32; 64]).unwrap();
    writer.synchronize().unwrap();
    let event = context.new_event(None).unwrap();
    launch_scale(&writer, address(&data, &writer), 2.0, 64);
    event.record(&writer).unwrap();
    reader.wait(&event).unwrap();
    event.record(&other).unwrap();
    event.synchronize().unwrap();
    assert_eq!(reader.clone_dtoh(&data).unwrap(), [2f32; 64]);
    // The last record counts for the host, whatever is pending in streams of earlier ones.
    launch_scale(&writer, address(&data, &writer), 2.0, 64);
    event.record(&other).unwrap();
    event.record(&writer).unwrap();
    event.synchronize().unwrap();
    assert_eq!(other.clone_dtoh(&data).unwrap(), [4f32; 64]);
}

#[test]
fn memory_runs_out() {
    if is_child() {
        let context = context();
        let stream = context.new_stream().unwrap();
        assert_eq!(result::mem_get_info().unwrap(), (1 << 20, 1 << 20));
        let error = stream.alloc_zeros::<u8>((1 << 20) + 1).unwrap_err();
        assert_eq!(code(error), sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY);
        drop(stream.alloc_zeros::<u8>(1 << 20).unwrap());
        return;
    }
    report_of("memory_runs_out", &[(trainc_libcuda::config::MEMORY, "1048576")]);
}

#[test]
fn an_old_driver_refuses_new_ptx() {
    if is_child() {
        let _context = context();
        let error = load(&SCALE.replace("8.0", "8.5")).unwrap_err();
        assert_eq!(code(error), sys::CUresult::CUDA_ERROR_UNSUPPORTED_PTX_VERSION);
        let error = load(&SCALE.replace("sm_80", "sm_90")).unwrap_err();
        assert_eq!(code(error), sys::CUresult::CUDA_ERROR_NO_BINARY_FOR_GPU);
        let error = load(&SCALE.replace("mul.rn.f32", "mul.rn.f31")).unwrap_err();
        assert_eq!(code(error), sys::CUresult::CUDA_ERROR_INVALID_PTX);
        assert!(load(SCALE).is_ok());
        return;
    }
    let report = report_of("an_old_driver_refuses_new_ptx", &[(trainc_libcuda::config::DRIVER_VERSION, "12020")]);
    let texts: Vec<_> = of_kind(&report, "host").iter().map(|line| line["text"].as_str().unwrap()).collect();
    assert_eq!(texts[0], "PTX 8.5; this driver reads 8.2 at most");
    assert!(texts[2].contains("line 20"), "{texts:?}");
}

#[test]
fn a_device_can_be_lost_and_missing() {
    if is_child() {
        let Ok(context) = CudaContext::new(0) else {
            assert_eq!(std::env::var(trainc_libcuda::config::DEVICES).as_deref(), Ok("0"));
            return;
        };
        let stream = context.new_stream().unwrap();
        let data = stream.clone_htod(&[1f32; 64]).unwrap();
        launch_scale(&stream, address(&data, &stream), 2.0, 64);
        stream.synchronize().unwrap();
        launch_scale(&stream, address(&data, &stream), 2.0, 64);
        assert_eq!(code(stream.synchronize().unwrap_err()), sys::CUresult::CUDA_ERROR_UNKNOWN);
        return;
    }
    report_of("a_device_can_be_lost_and_missing", &[(trainc_libcuda::config::LOSE_AFTER, "1")]);
    report_of("a_device_can_be_lost_and_missing", &[(trainc_libcuda::config::DEVICES, "0")]);
}

#[test]
fn leaks_are_reported() {
    if is_child() {
        leak();
        return;
    }
    let report = report_of("leaks_are_reported", &[]);
    let leaks = of_kind(&report, "leak");
    assert_eq!((leaks[0]["what"].as_str(), leaks[0]["bytes"].as_u64()), (Some("allocations"), Some(256)));
}

fn leak() {
    result::init().unwrap();
    let device = result::device::get(0).unwrap();
    // SAFETY: the context is current until it is released; the allocation is leaked on purpose.
    unsafe {
        let context = result::primary_ctx::retain(device).unwrap();
        result::ctx::set_current(context).unwrap();
        result::malloc_sync(256).unwrap();
        result::primary_ctx::release(device).unwrap();
    }
}
