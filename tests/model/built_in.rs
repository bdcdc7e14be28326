//! The built-in models.

use super::*;

/// A built-in model on a thread, and a client of it.
fn builtin_model(name: &'static str, shm: ShmBehavior) -> (Bench, Model, JoinHandle<()>) {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("model.sock");
    let server = thread::spawn({
        let socket = socket.clone();
        move || builtin::run(name, &socket).unwrap()
    });
    until("the built-in model listens", || socket.exists());
    let mut bench = Bench::with_source(dir, ModelSource::File(socket));
    bench.settings.shm = shm;
    if name.starts_with("hang") {
        bench.settings.timeouts.classify = Duration::from_millis(300);
    }
    let model = bench.start().unwrap();
    (bench, model, server)
}

#[test]
fn the_built_in_ball_detector_works_with_and_without_shared_memory() {
    for shm in [ShmBehavior::Always, ShmBehavior::Never] {
        let (_bench, mut model, server) = builtin_model("ball", shm);
        assert_eq!(model.uses_shared_memory(), shm == ShmBehavior::Always);
        for (index, pixel) in model.features().iter_mut().enumerate() {
            let (x, y) = ((index % 320) as f32 + 0.5 - 100.0, (index / 320) as f32 + 0.5 - 50.0);
            *pixel = if x.hypot(y) < 20.0 { 16_777_215.0 } else { 0.0 };
        }
        let found = model.classify(102_400).unwrap().bounding_boxes.unwrap();
        assert_eq!(
            (found[0].x + found[0].width / 2, found[0].y + found[0].height / 2),
            (100, 50)
        );
        model
            .set_threshold(&Threshold {
                id: 1,
                key: "min_score".into(),
                value: 1.1,
            })
            .unwrap();
        assert_eq!(model.classify(102_400).unwrap().bounding_boxes, Some(vec![]));
        model.features().fill(0.0);
        assert_eq!(model.classify(102_400).unwrap().bounding_boxes, Some(vec![]));
        assert!(matches!(model.classify(7), Err(ModelError::Refused { .. })));
        model.stop();
        server.join().unwrap();
    }
}

#[test]
fn the_other_built_in_models_behave_as_named() {
    let (_bench, mut model, _server) = builtin_model("classify", ShmBehavior::Auto);
    model.features()[320 * 320 - 1] = 16_777_215.0;
    let classes = model.classify(102_400).unwrap().classification.unwrap();
    assert_eq!(classes[3], ("bottom-right".into(), 1.0));

    let (_bench, mut model, _server) = builtin_model("audio", ShmBehavior::Auto);
    let mut tones = Vec::new();
    for _ in 0..4 {
        model.features()[..4_000].fill(9_000.0);
        tones.push(model.classify(4_000).unwrap().classification.unwrap()[0].1);
    }
    assert_eq!(tones[..3], [0.0; 3]);
    assert!(tones[3] > 0.9);

    let (_bench, mut model, _server) = builtin_model("nop=96x48,grey", ShmBehavior::Auto);
    assert!(matches!(
        model.info().input,
        ModelInput::Image {
            width: 96,
            height: 48,
            grey: true,
            ..
        }
    ));
    assert_eq!(model.classify(96 * 48).unwrap().bounding_boxes.unwrap().len(), 1);

    let (_bench, mut model, _server) = builtin_model("slow=50", ShmBehavior::Auto);
    let begin = Instant::now();
    model.classify(102_400).unwrap();
    assert!(begin.elapsed() >= Duration::from_millis(50));

    let (_bench, mut model, _server) = builtin_model("garbage", ShmBehavior::Auto);
    assert!(matches!(model.classify(102_400), Err(ModelError::Malformed { .. })));

    let (_bench, mut model, _server) = builtin_model("hang=1", ShmBehavior::Auto);
    model.classify(102_400).unwrap();
    assert!(matches!(model.classify(102_400), Err(ModelError::TimedOut { .. })));
}

#[test]
fn a_built_in_model_is_this_program_started_with_hidden_arguments() {
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("program");
    fs::write(&program, "#!/bin/sh\necho \"$@\"\nexit 9\n").unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o700)).unwrap();
    let mut bench = Bench::with_source(dir, ModelSource::Builtin("slow=500".into()));
    assert_eq!(bench.settings.builtin_program, Path::new("/proc/self/exe"));
    bench.settings.builtin_program = program;
    let error = bench.start().unwrap_err();
    let [line] = error.output() else { panic!("{error}") };
    assert!(
        line.starts_with("builtin-model slow=500 /") && line.ends_with("/model.sock"),
        "{line}"
    );
}

#[test]
fn a_built_in_model_has_no_named_shared_memory_after_its_first_answer() {
    let (_bench, mut model, server) = builtin_model("nop=7x9", ShmBehavior::Always);
    let mapped = || -> Vec<PathBuf> {
        let shm = fs::read_dir("/dev/shm").unwrap().filter_map(|entry| entry.ok());
        shm.filter(|entry| entry.metadata().is_ok_and(|meta| meta.len() == 7 * 9 * 4))
            .map(|e| e.path())
            .collect()
    };
    assert_eq!(mapped().len(), 1);
    model.classify(63).unwrap();
    assert_eq!(mapped(), Vec::<PathBuf>::new());
    model.classify(63).unwrap();
    model.stop();
    server.join().unwrap();
}
