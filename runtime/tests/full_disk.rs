//! A disk without room. Alone in its process, because the limit that stands in for the disk holds for all of it.

mod support;

use support::regression;
use trainc_runtime::*;

#[test]
fn a_checkpoint_that_does_not_fit_leaves_the_last_good_one_intact() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("checkpoint");
    let mut session = Session::new(regression(), &Options::default()).unwrap();
    session.save(&path).unwrap();
    let before = session.tensor("w").unwrap();
    session.set_tensor("w", &Values::from(vec![9.0; 4])).unwrap();
    // Files may now grow to 100 bytes, and the system says so by an error instead of a signal.
    let limit = libc::rlimit { rlim_cur: 100, rlim_max: libc::RLIM_INFINITY };
    unsafe {
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
        libc::setrlimit(libc::RLIMIT_FSIZE, &limit);
    }
    let error = session.save(&path).unwrap_err();
    let unlimited = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
    unsafe { libc::setrlimit(libc::RLIMIT_FSIZE, &unlimited) };
    assert_eq!(error.exit_code(), 3);
    assert!(error.to_string().contains("cannot save") && error.to_string().contains("untouched"), "{error}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing half-written stays behind");
    session.load(&path).unwrap();
    assert_eq!(session.tensor("w").unwrap(), before);
}
