//! The artifact's file format: exact round trips, and a typed error for everything else.

mod support;

use proptest::prelude::*;
use trainc_runtime::artifact::*;

#[test]
fn artifacts_survive_a_round_trip_through_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.trainx");
    for artifact in [support::regression(), support::language_model(), support::private_sums()] {
        artifact.write(&path).unwrap();
        assert_eq!(Artifact::read(&path).unwrap(), artifact);
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside the file");
}

#[test]
fn every_flipped_bit_is_an_error() {
    let bytes = support::divergent().to_bytes();
    for bit in 0..bytes.len() * 8 {
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert!(Artifact::from_bytes(&damaged).is_err(), "bit {bit}");
    }
}

#[test]
fn every_truncation_and_any_extension_is_an_error() {
    let mut bytes = support::divergent().to_bytes();
    for length in 0..bytes.len() {
        let error = Artifact::from_bytes(&bytes[..length]).unwrap_err();
        assert!(matches!(error, ArtifactError::Foreign | ArtifactError::Length { .. }), "{length}: {error}");
    }
    bytes.push(0);
    assert!(matches!(Artifact::from_bytes(&bytes), Err(ArtifactError::Length { .. })));
}

#[test]
fn absurd_lengths_allocate_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.trainx");
    let mut bytes = support::divergent().to_bytes();
    bytes[16..32].copy_from_slice(&[0xff; 16]);
    std::fs::write(&path, &bytes).unwrap();
    assert!(matches!(Artifact::read(&path), Err(ArtifactError::Length { expected: u64::MAX, .. })));
}

#[test]
fn another_version_is_refused_with_advice() {
    let mut bytes = support::divergent().to_bytes();
    bytes[8] = 9;
    let error = Artifact::from_bytes(&bytes).unwrap_err();
    assert!(error.to_string().contains("compile the program again"), "{error}");
}

#[test]
fn missing_files_are_named() {
    let error = Artifact::read("no/such.trainx").unwrap_err();
    assert!(error.to_string().starts_with("no/such.trainx:"), "{error}");
}

/// Re-encodes a changed artifact, digest and all, and returns the complaint.
fn complaint(change: impl FnOnce(&mut Artifact)) -> String {
    let mut artifact = support::regression();
    change(&mut artifact);
    Artifact::from_bytes(&artifact.to_bytes()).unwrap_err().to_string()
}

#[test]
fn contradictions_are_found_and_placed() {
    let m = |change: fn(&mut Manifest)| complaint(|artifact| change(&mut artifact.manifest));
    let cases = [
        (m(|m| m.tensors[0].offset = 1 << 40), "tensor `w`: it does not fit into the arena"),
        (m(|m| m.tensors[0].offset = u64::MAX - 1), "tensor `w`: it does not fit into the arena"),
        (m(|m| m.tensors[0].shape = vec![1 << 40, 1 << 40]), "tensor `w`: it does not fit into the arena"),
        (m(|m| m.tensors[0].offset = 68), "its offset 68 is not a multiple of 64"),
        (m(|m| m.tensors[0].shape = vec![20]), "tensor `b`: it overlaps tensor `w`"),
        (m(|m| m.tensors[0].offset = 0), "overlaps"),
        (m(|m| m.tensors[1].name = "w".into()), "tensor `w`: its name is empty or used twice"),
        (m(|m| m.control_offset = m.arena_bytes), "control block"),
        (m(|m| m.entries[1].name = "step".into()), "entry `step`: its name"),
        (m(|m| m.entries[0].inputs[0].offset = 64), "input `x` of `step`: it overlaps tensor `w`"),
        (m(|m| m.entries[0].inputs[0].shape = vec![]), "input `x` of `step`: it has no batch axis"),
        (m(|m| m.entries[0].outputs[0].offset = m.arena_bytes - 2), "output `loss` of `step`"),
        (m(|m| m.entries[0].launches[0].kernel = 99), "launch 0 of `step`: there is no kernel 99"),
        (m(|m| m.entries[0].launches[0].args.truncate(5)), "passes 5 buffers to `forward`, which takes 6"),
        (m(|m| m.entries[0].launches[1].args[2] = m.arena_bytes - 64), "buffer 2 of `update` is misplaced"),
        (m(|m| m.variants[0].kernels[0].stages[0].symbol = "nothing".into()), "the code does not define `nothing`"),
        (m(|m| m.variants[0].kernels[0].stages.clear()), "it has no stages"),
        (m(|m| m.variants[0].kernels[0].scratch_bytes = u64::MAX), "of scratch"),
        (m(|m| m.variants.clear()), "other instruction sets"),
        (m(|m| m.format = 1), "it says format 1"),
        (complaint(|a| a.code[0].1[0].truncate(100)), "variant X86V3: object 0 is damaged"),
        (complaint(|a| a.code[0].0 = Isa::X86V4), "other instruction sets"),
    ];
    for (complaint, expected) in cases {
        assert!(complaint.contains(expected), "{complaint:?} should say {expected:?}");
    }
}

/// The regression whose evaluation yields what each row adds to a total, and concludes from that.
fn evaluated(change: impl FnOnce(&mut [Entry; 2])) -> Result<Artifact, String> {
    let mut artifact = support::regression();
    let mut evaluate = artifact.manifest.entries.pop().unwrap();
    let control = artifact.manifest.control_offset;
    let rows = evaluate.inputs[1].clone();
    let total = |of, shape: &[u64]| TotalBinding { of, shape: shape.into(), offset: rows.offset };
    let totals = vec![total(TotalOf::Records, &[]), total(TotalOf::Output(total_name(0)), &[3])];
    let conclude = Entry {
        name: "conclude".into(),
        inputs: vec![],
        mask: None,
        totals,
        outputs: evaluate.outputs.clone(),
        launches: vec![],
    };
    let each = OutputBinding { name: total_name(0), dtype: DType::F32, shape: vec![8, 3], offset: control };
    evaluate.outputs = vec![each];
    let mut entries = [evaluate, conclude];
    change(&mut entries);
    artifact.manifest.entries.extend(entries.into_iter().filter(|entry| !entry.name.is_empty()));
    Artifact::from_bytes(&artifact.to_bytes()).map_err(|error| error.to_string())
}

#[test]
fn contradictions_of_evaluation_are_found_and_placed() {
    assert!(evaluated(|_| {}).is_ok());
    let complaint = |change: &dyn Fn(&mut [Entry; 2])| evaluated(|entries| change(entries)).unwrap_err();
    let cases = [
        (complaint(&|[_, c]| c.totals[1].shape = vec![4]), "it has 4 numbers instead of 3"),
        (complaint(&|[_, c]| c.totals[0].shape = vec![2]), "it has 2 numbers instead of 1"),
        (complaint(&|[_, c]| c.totals[1].offset = 64), "it overlaps tensor `w`"),
        (complaint(&|[_, c]| c.totals[1].offset = 1 << 40), "it does not fit into the arena"),
        (complaint(&|[_, c]| c.totals[0].shape = vec![1 << 40, 1 << 40]), "numbers instead of 1"),
        (complaint(&|[_, c]| c.totals[1].of = TotalOf::Output(total_name(1))), "entry `evaluate` has no such output"),
        (complaint(&|[e, _]| e.outputs[0].shape = vec![7, 3]), "it is not an f32 total of each of 8 rows"),
        (complaint(&|[e, _]| e.outputs[0].dtype = DType::I32), "it is not an f32 total of each of 8 rows"),
        (complaint(&|[e, c]| c.inputs = e.inputs.clone()), "entry `conclude`: it reads records"),
        (complaint(&|[e, _]| e.name.clear()), "entry `conclude`: there is no entry `evaluate`"),
        (complaint(&|[e, c]| e.totals = c.totals.clone()), "it asks for totals, but concludes nothing"),
        (complaint(&|[e, c]| c.outputs = e.outputs.clone()), "is a total, but it does not evaluate"),
    ];
    for (complaint, expected) in cases {
        assert!(complaint.contains(expected), "{complaint:?} should say {expected:?}");
    }
}

#[test]
fn contradictions_of_private_training_are_found_and_placed() {
    let complaint = |change: &dyn Fn(&mut Manifest)| {
        let mut artifact = support::private_sums();
        change(&mut artifact.manifest);
        Artifact::from_bytes(&artifact.to_bytes()).unwrap_err().to_string()
    };
    let numbers = |change: &dyn Fn(&mut PrivateSpec)| complaint(&|m| change(m.private.as_mut().unwrap()));
    let mask = |change: &dyn Fn(&mut MaskBinding)| complaint(&|m| change(m.entries[0].mask.as_mut().unwrap()));
    let cases = [
        (numbers(&|p| p.sampling = Sampling::Poisson { rate: 0.0 }), "sampling rate is not in (0, 1]"),
        (numbers(&|p| p.sampling = Sampling::Poisson { rate: 1.5 }), "sampling rate is not in (0, 1]"),
        (numbers(&|p| (p.sampling, p.expected_batch) = (Sampling::Shuffled, 41)), "sampling rate is not in (0, 1]"),
        (numbers(&|p| p.records = 0), "counts no records"),
        (numbers(&|p| p.noise_multiplier = -1.0), "noise is no finite number"),
        (numbers(&|p| p.clip = 0.0), "clipping norm is not positive"),
        (numbers(&|p| p.delta = 1.0), "delta is not in (0, 1)"),
        (numbers(&|p| p.epsilon = Some(0.0)), "epsilon is not positive"),
        (mask(&|m| m.offset = 64), "mask of entry `step`: it overlaps tensor `w`"),
        (mask(&|m| m.offset = 1 << 40), "mask of entry `step`: it does not fit into the arena"),
        (mask(&|m| m.offset += 4), "is not a multiple of 64"),
        (mask(&|m| m.rows = u64::MAX), "mask of entry `step`: it does not fit into the arena"),
        (mask(&|m| m.rows = 7), "its mask has 7 rows, input `x` has 8"),
        (mask(&|m| m.rows = 0), "its mask has no rows"),
        (complaint(&|m| m.entries[1].mask = None), "entry `accumulate`: it is private, but has no mask"),
        (complaint(&|m| drop(m.entries.pop())), "private training: there is no entry `accumulate`"),
        (complaint(&|m| drop(m.entries.remove(0))), "private training: there is no entry `step`"),
        (
            complaint(&|m| drop(m.entries[0].outputs.remove(1))),
            "entry `step`: it is private, but has no output `bad_rows`",
        ),
        (complaint(&|m| m.entries[0].outputs[1].shape = vec![7]), "is not one f32 for each of 8 rows"),
        (complaint(&|m| m.entries[0].outputs[1].dtype = DType::I32), "is not one f32 for each of 8 rows"),
        (complaint(&|m| m.private = None), "entry `step`: it is for private training, but nothing is private"),
    ];
    for (complaint, expected) in cases {
        assert!(complaint.contains(expected), "{complaint:?} should say {expected:?}");
    }
}

#[test]
fn launches_that_the_code_was_not_made_for_are_refused() {
    let kernel = |change: fn(&mut KernelSpec)| complaint(|a| change(&mut a.manifest.variants[0].kernels[0]));
    let changed = [
        kernel(|k| k.buffer_bytes[2] /= 2),
        kernel(|k| k.buffer_bytes[2] += 4),
        kernel(|k| k.stages[0].tiles += 1),
        kernel(|k| k.stages[1].tiles = 0),
        kernel(|k| k.scratch_bytes += 64),
        kernel(|k| k.stages.swap(0, 1)),
        kernel(|k| drop(k.stages.pop())),
    ];
    for complaint in changed {
        assert!(complaint.contains("kernel `forward` for X86V3"), "{complaint}");
        assert!(complaint.contains("are not those that its code was made for"), "{complaint}");
    }
    let missing = complaint(|a| {
        a.seals[0].pop();
    });
    assert!(missing.contains("its code has seals of 6 kernels, it has 7"), "{missing}");
}

/// A device's block is part of what its code was made for.
#[test]
fn blocks_that_the_code_was_not_made_for_are_refused() {
    let complaint = complaint(|artifact| {
        for_devices(artifact);
        artifact.manifest.variants[0].kernels[1].stages[0].block = Some(BlockSpec { threads: 64, shared_bytes: 0 });
    });
    assert!(complaint.contains("kernel `update` for Sm80: its buffers"), "{complaint}");
}

/// The regression with its code replaced by PTX of the same entries: enough for what is verified before a device is opened.
fn for_devices(artifact: &mut Artifact) {
    let variant = &mut artifact.manifest.variants[0];
    variant.isa = Isa::Sm80;
    let mut ptx = String::from(".version 8.0\n.target sm_80\n");
    for stage in variant.kernels.iter_mut().flat_map(|kernel| &mut kernel.stages) {
        stage.block = Some(BlockSpec { threads: 128, shared_bytes: 0 });
        ptx += &format!(".visible .entry {}(\n)\n{{\n\tret;\n}}\n", stage.symbol);
    }
    artifact.seals = vec![seal(&variant.kernels)];
    artifact.code = vec![(Isa::Sm80, vec![ptx.into_bytes()])];
}

#[test]
fn device_code_is_verified_like_the_processors() {
    let mut sound = support::regression();
    for_devices(&mut sound);
    Artifact::from_bytes(&sound.to_bytes()).expect("nothing contradicts itself");
    let change = |change: fn(&mut Artifact)| {
        complaint(|artifact| {
            for_devices(artifact);
            change(artifact);
        })
    };
    let cases = [
        (change(|a| a.manifest.variants[0].kernels[0].stages[0].block = None), "has no possible shape"),
        (change(|a| a.manifest.variants[0].kernels[0].stages[0].tiles = 1 << 40), "has no possible shape"),
        (
            change(|a| {
                let block = BlockSpec { threads: 2048, shared_bytes: 0 };
                a.manifest.variants[0].kernels[0].stages[0].block = Some(block);
            }),
            "the launch of `regression_forward` has no possible shape",
        ),
        (change(|a| a.code[0].1[0].truncate(40)), "the code does not define"),
        (change(|a| a.manifest.entries[0].launches[0].args[0] += 4), "is misplaced"),
        (
            change(|a| {
                let mut other = support::regression();
                a.manifest.variants.append(&mut other.manifest.variants);
                a.code.append(&mut other.code);
                a.seals.append(&mut other.seals);
            }),
            "code for processors stands beside code for devices",
        ),
    ];
    for (complaint, expected) in cases {
        assert!(complaint.contains(expected), "{complaint:?} should say {expected:?}");
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(Artifact::from_bytes(&bytes).is_err());
    }

    #[test]
    fn arbitrary_payloads_with_a_right_digest_never_panic(manifest in ".{0,60}", code in prop::collection::vec(any::<u8>(), 0..60)) {
        let mut bytes = support::divergent().to_bytes()[..HEADER_BYTES].to_vec();
        bytes[16..24].copy_from_slice(&(manifest.len() as u64).to_le_bytes());
        bytes[24..32].copy_from_slice(&(code.len() as u64).to_le_bytes());
        bytes.extend(manifest.bytes());
        bytes.extend(&code);
        let mut hasher = blake3::Hasher::new();
        hasher.update(&bytes[..32]).update(&bytes[64..]);
        bytes[32..64].copy_from_slice(hasher.finalize().as_bytes());
        let refused = matches!(Artifact::from_bytes(&bytes), Err(ArtifactError::Malformed { .. }));
        prop_assert!(refused);
    }
}
