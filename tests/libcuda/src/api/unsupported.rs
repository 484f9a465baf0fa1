//! What `cudarc` can reach and this driver does not do. The symbols exist, as `cudarc` panics on missing ones; each call is
//! refused with a line in the report.

use crate::driver::call;
use crate::status::Status;

macro_rules! refuse {
    ($($name:ident)*) => {$(
        /// Refused.
        #[unsafe(no_mangle)]
        pub extern "C" fn $name() -> u32 {
            let name = stringify!($name);
            call(name, |driver| driver.refuse(name, Status::NotSupported, "the PTX emulator does not do this"))
        }
    )*};
}

refuse! {
    cuCtxCreate_v3 cuCtxCreate_v4 cuCtxDestroy_v2 cuCtxGetCacheConfig cuCtxSetCacheConfig cuCtxGetLimit cuCtxSetLimit
    cuDestroyExternalMemory cuExternalMemoryGetMappedBuffer cuImportExternalMemory
    cuDeviceGetDefaultMemPool cuDeviceGetMemPool cuDeviceSetMemPool
    cuLaunchCooperativeKernel cuLaunchKernelEx
    cuMemAdvise cuMemAdvise_v2 cuMemAllocManaged cuMemPrefetchAsync cuMemPrefetchAsync_v2 cuStreamAttachMemAsync
    cuMemAllocFromPoolAsync cuMemPoolCreate cuMemPoolDestroy cuMemPoolGetAttribute cuMemPoolSetAttribute cuMemPoolTrimTo
    cuMemcpyPeerAsync cuMemHostRegister_v2 cuMemHostUnregister cuPointerGetAttribute
    cuOccupancyAvailableDynamicSMemPerBlock cuOccupancyMaxActiveClusters cuOccupancyMaxPotentialBlockSize
    cuOccupancyMaxPotentialBlockSizeWithFlags cuOccupancyMaxPotentialClusterSize
    cuProfilerStart cuProfilerStop cuStreamBeginCapture cuGraphGetNodes cuGetProcAddress cuGetProcAddress_v2
}
