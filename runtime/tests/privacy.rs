//! The accountants against numbers of dp-accounting 0.6.0, Opacus and numeric integration (`tests/golden/privacy`).

use proptest::prelude::*;
use std::collections::BTreeMap;
use trainc_runtime::privacy::{
    Accountant, Ledger, Mechanism, PrivacyError, epsilon, noise_multiplier, pld, rdp, steps,
};

type Row = BTreeMap<String, String>;

fn rows(name: &str) -> Vec<Row> {
    let path = format!("{}/../tests/golden/privacy/{name}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(path).expect("the golden file can be read");
    let mut lines = text.lines().filter(|line| !line.starts_with('#'));
    let names: Vec<&str> = lines.next().expect("a heading").split(',').collect();
    lines
        .map(|line| names.iter().map(|name| name.to_string()).zip(line.split(',').map(str::to_string)).collect())
        .collect()
}

fn number(row: &Row, name: &str) -> f64 {
    row[name].parse().unwrap_or(f64::NAN)
}

fn mechanism(row: &Row) -> Mechanism {
    let steps = number(row, "steps") as u64;
    Mechanism { sampling_rate: number(row, "q"), noise_multiplier: number(row, "sigma"), steps }
}

fn of_kind(kind: &str) -> Vec<Row> {
    rows("dp_oracles.csv").into_iter().filter(|row| row["kind"] == kind).collect()
}

#[test]
fn loss_distributions_agree_with_a_finer_library_and_are_never_below_the_optimistic_bound() {
    let rows = of_kind("epsilon");
    assert!(rows.len() >= 16);
    for row in rows {
        let (delta, mechanism) = (number(&row, "delta"), mechanism(&row));
        let found = epsilon(&[mechanism], delta, Accountant::Pld).expect("a mechanism");
        let (pessimistic, optimistic) = (number(&row, "eps_pld_fine_pess"), number(&row, "eps_pld_fine_opt"));
        if mechanism.sampling_rate == 1.0 {
            // Exact, hence below the discretised bound.
            assert!(
                found <= number(&row, "eps_pld_pess") + 1e-9 && found >= number(&row, "eps_pld_opt") - 1e-9,
                "{row:?}"
            );
            continue;
        }
        assert!((found - pessimistic).abs() <= 1e-5, "{mechanism:?}: {found}, not {pessimistic}");
        assert!(found >= optimistic, "{mechanism:?}: {found} below {optimistic}");
    }
}

#[test]
fn renyi_bounds_agree_with_the_signed_series() {
    for row in of_kind("epsilon") {
        let expected = number(&row, "eps_rdp_opacus_exact");
        let (found, order) = rdp::epsilon(&[mechanism(&row)], number(&row, "delta"));
        // Larger orders than the library's can only help.
        let same = (found - expected).abs() <= 1e-6 * expected;
        assert!(same || (order > 63.0 && found < expected), "{row:?}: {found} at {order}");
    }
}

#[test]
fn divergences_agree_with_numeric_integration_order_by_order() {
    let rows = rows("dp_rdp_orders.csv");
    assert!(rows.len() > 20);
    for row in rows {
        let mechanism =
            Mechanism { sampling_rate: number(&row, "q"), noise_multiplier: number(&row, "sigma"), steps: 1 };
        let found = rdp::divergence(&mechanism, number(&row, "alpha"));
        let (signed, integral) = (number(&row, "rdp_opacus"), number(&row, "rdp_numeric_integral"));
        let expected = if signed.is_nan() { integral } else { signed };
        assert!((found - expected).abs() <= 1e-6 * expected + 1e-12, "{row:?}: {found}");
    }
}

#[test]
fn the_noise_found_keeps_to_the_budget_and_is_hardly_more_than_needed() {
    for row in of_kind("sigma") {
        let (q, count) = (number(&row, "q"), number(&row, "steps") as u64);
        let (delta, budget) = (number(&row, "delta"), number(&row, "eps_target"));
        for (accountant, column) in [(Accountant::Pld, "sigma_pld"), (Accountant::Rdp, "sigma_rdp")] {
            let found = noise_multiplier(budget, delta, q, count, accountant).expect("within reach");
            let made = Mechanism { sampling_rate: q, noise_multiplier: found, steps: count };
            let spent = epsilon(&[made], delta, accountant).expect("a mechanism");
            assert!(spent <= budget, "{row:?}: {accountant:?} {found} spends {spent}");
            let known = number(&row, column);
            assert!(found <= known * 1.0005 && found >= known * 0.99, "{row:?}: {accountant:?} {found}, not {known}");
        }
    }
}

#[test]
fn the_steps_found_are_the_most_that_keep_to_the_budget() {
    let found = steps(2.0, 1e-5, 0.01, 1.0, Accountant::Pld).expect("within reach");
    let spent = |steps| {
        let made = Mechanism { sampling_rate: 0.01, noise_multiplier: 1.0, steps };
        pld::Curve::new(&[made], 1e-5, pld::COARSE).epsilon(1e-5)
    };
    assert!(spent(found) <= 2.0 && spent(found + 1) > 2.0, "{found}");
    assert_eq!(steps(2.0, 1e-5, 0.01, 0.0, Accountant::Pld), Ok(0), "without noise not even one");
}

#[test]
fn steps_of_several_kinds_add_up() {
    let made = |steps| Mechanism { sampling_rate: 0.02, noise_multiplier: 1.5, steps };
    let other = Mechanism { sampling_rate: 0.1, noise_multiplier: 4.0, steps: 100 };
    for accountant in [Accountant::Pld, Accountant::Rdp] {
        let whole = epsilon(&[made(300)], 1e-5, accountant).expect("a mechanism");
        let parts = epsilon(&[made(100), made(200)], 1e-5, accountant).expect("mechanisms");
        assert!((whole - parts).abs() < 1e-9, "{accountant:?}: {whole} and {parts}");
        let mixed = epsilon(&[made(300), other], 1e-5, accountant).expect("mechanisms");
        let swapped = epsilon(&[other, made(300)], 1e-5, accountant).expect("mechanisms");
        assert!(mixed > whole && (mixed - swapped).abs() < 1e-9, "{accountant:?}: {mixed} and {swapped}");
    }
}

#[test]
fn numbers_that_describe_no_mechanism_are_refused_and_borders_have_their_values() {
    let of = |q, sigma, steps, delta| {
        epsilon(&[Mechanism { sampling_rate: q, noise_multiplier: sigma, steps }], delta, Accountant::Pld)
    };
    assert_eq!(of(0.1, 1.0, 10, 0.0), Err(PrivacyError::Delta(0.0)));
    assert_eq!(of(0.1, 1.0, 10, 1.0), Err(PrivacyError::Delta(1.0)));
    assert_eq!(of(1.5, 1.0, 10, 1e-5), Err(PrivacyError::SamplingRate(1.5)));
    assert_eq!(of(0.1, -1.0, 10, 1e-5), Err(PrivacyError::NoiseMultiplier(-1.0)));
    assert_eq!(of(0.1, 0.0, 10, 1e-5), Ok(f64::INFINITY));
    assert_eq!(of(0.1, 1.0, 0, 1e-5), Ok(0.0));
    assert!(noise_multiplier(-1.0, 1e-5, 0.1, 10, Accountant::Pld).is_err());
    assert!((of(1.0, 20.0, 100, 1e-5).expect("exact") - 1.993_091_404_415_120_4).abs() < 1e-9);
    assert!((of(1.0, 5.0, 1, 1e-5).expect("exact") - 0.725_521_750_857_796_7).abs() < 1e-9);
}

#[test]
fn a_ledger_never_says_too_little_and_ends_exactly() {
    let whole = Mechanism { sampling_rate: 0.02, noise_multiplier: 1.2, steps: 1000 };
    for accountant in [Accountant::Pld, Accountant::Rdp] {
        let mut ledger = Ledger::new(whole, 1e-5, accountant).expect("a mechanism");
        let mut before = 0.0;
        for steps in [0, 1, 7, 100, 101, 555, 999, 1000] {
            let said = ledger.spent(steps);
            let exact = epsilon(&[Mechanism { steps, ..whole }], 1e-5, accountant).expect("a mechanism");
            assert!(said >= exact - 1e-6 && said >= before, "{accountant:?} after {steps}: {said}, not {exact}");
            before = said;
        }
        let exact = epsilon(&[whole], 1e-5, accountant).expect("a mechanism");
        assert!((before - exact).abs() < 1e-3 * exact, "{accountant:?}: {before}, not {exact}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn more_noise_is_more_private_and_all_else_less(
        q in 0.002..0.3_f64, sigma in 0.6..6.0_f64, count in 1..400_u64, delta in 1e-7..1e-3_f64,
    ) {
        let of = |q, sigma, steps, delta, accountant| {
            epsilon(&[Mechanism { sampling_rate: q, noise_multiplier: sigma, steps }], delta, accountant).expect("valid")
        };
        for accountant in [Accountant::Pld, Accountant::Rdp] {
            let spent = of(q, sigma, count, delta, accountant);
            prop_assert!(of(q, sigma * 1.2, count, delta, accountant) <= spent + 1e-7);
            prop_assert!(of(q * 1.2, sigma, count, delta, accountant) >= spent - 1e-7);
            prop_assert!(of(q, sigma, count * 2, delta, accountant) >= spent - 1e-7);
            prop_assert!(of(q, sigma, count, delta * 3.0, accountant) <= spent + 1e-7);
        }
        let (close, loose) = (of(q, sigma, count, delta, Accountant::Pld), of(q, sigma, count, delta, Accountant::Rdp));
        prop_assert!(close <= loose + 1e-4, "{} above {}", close, loose);
    }
}
