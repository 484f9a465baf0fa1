//! Graphs.

use std::ffi::c_ulonglong;

use super::context::require;
use super::put;
use crate::driver::call;
use crate::stream::Work;

/// Makes a graph executable.
#[unsafe(no_mangle)]
pub extern "C" fn cuGraphInstantiateWithFlags(executable: *mut usize, graph: usize, _flags: c_ulonglong) -> u32 {
    call("cuGraphInstantiate", |driver| {
        require()?;
        let graph = driver.graphs.get(graph)?.clone();
        put(executable, driver.executables.insert(graph))
    })
}

/// Launches a graph in a stream.
#[unsafe(no_mangle)]
pub extern "C" fn cuGraphLaunch(executable: usize, stream: usize) -> u32 {
    call("cuGraphLaunch", |driver| {
        require()?;
        let graph = driver.executables.get(executable)?.clone();
        let launches = graph.nodes.iter().filter(|node| matches!(node, Work::Launch { .. })).count();
        driver.report.graph(graph.nodes.len(), launches);
        driver.submit("cuGraphLaunch", stream, Work::Graph(graph))
    })
}

/// There is nothing to upload.
#[unsafe(no_mangle)]
pub extern "C" fn cuGraphUpload(executable: usize, _stream: usize) -> u32 {
    call("cuGraphUpload", |driver| driver.executables.get(executable).map(drop))
}

/// Destroys a graph; executables made from it stay.
#[unsafe(no_mangle)]
pub extern "C" fn cuGraphDestroy(graph: usize) -> u32 {
    call("cuGraphDestroy", |driver| driver.graphs.remove(graph).map(drop))
}

/// Destroys an executable; launches of it that wait are not affected.
#[unsafe(no_mangle)]
pub extern "C" fn cuGraphExecDestroy(executable: usize) -> u32 {
    call("cuGraphExecDestroy", |driver| driver.executables.remove(executable).map(drop))
}
