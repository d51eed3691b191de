//! `multifd plan`.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::common::{memory, multifd, recordings, text};

/// One row of the table in docs/planning.md: the codec's name in the program, the channels, and
/// published, simulated and deviation of each of the columns time, Mbit/s and CPU.
struct Row {
    codec: String,
    channels: u64,
    cells: [[f64; 3]; 3],
}

/// The published figures (ms, Mbit/s, CPU %) with 2, 4 and 8 channels.
const PUBLISHED: [(&str, [[f64; 3]; 3]); 4] = [
    ("none", [[7493.0, 66782.0, 205.0], [5901.0, 84832.0, 283.0], [5789.0, 86488.0, 266.0]]),
    (
        "qpl-hardware",
        [[7330.0, 34537.0, 216.0], [5219.0, 48899.0, 405.0], [5250.0, 49073.0, 768.0]],
    ),
    (
        "qpl-software",
        [[73535.0, 3887.0, 202.0], [37299.0, 7668.0, 403.0], [18964.0, 15093.0, 795.0]],
    ),
    ("zstd", [[78291.0, 2201.0, 212.0], [39544.0, 4366.0, 457.0], [20180.0, 8581.0, 894.0]]),
];

fn documented_rows() -> Vec<Row> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/planning.md");
    let text = fs::read_to_string(path).unwrap();
    let rows = text.lines().filter_map(|line| {
        let cells: Vec<_> = line.strip_prefix("| `")?.split('|').map(str::trim).collect();
        let (codec, numbers) = (cells[0].trim_end_matches('`'), &cells[1..]);
        let number = |at: usize| numbers[at].replace(['+', '%', ' '], "").parse::<f64>().ok();
        number(9)?;
        let cells = [1, 4, 7].map(|first| [0, 1, 2].map(|step| number(first + step).unwrap()));
        Some(Row { codec: codec.to_owned(), channels: number(0).unwrap() as u64, cells })
    });
    rows.collect()
}

/// What the program computes for a plan: ms, Mbit/s, CPU %.
fn simulated(plan: &Value) -> [f64; 3] {
    let milliseconds = plan["seconds"].as_f64().unwrap() * 1e3;
    let megabits = plan["wire_megabits_per_second"].as_f64().unwrap();
    let cpu = plan["source"]["cpu_percent"].as_f64().unwrap();
    [milliseconds, megabits, cpu].map(f64::round)
}

#[test]
fn the_documented_deviations_from_the_published_test_are_what_the_model_computes() {
    let report = multifd(&["plan", "--preset", "xeon-4th-gen-64g", "--json"]).succeeded().json();
    let plans = report["plans"].as_array().unwrap();
    let rows = documented_rows();
    assert_eq!((plans.len(), rows.len()), (12, 12), "4 codecs with 2, 4 and 8 channels");
    for (codec, published) in PUBLISHED {
        for (channels, published) in [2, 4, 8].into_iter().zip(published) {
            let plan = plans.iter().find(|p| p["codec"] == codec && p["channels"] == channels);
            let row = rows.iter().find(|row| row.codec == codec && row.channels == channels);
            let expected = [0, 1, 2].map(|at| {
                let simulated = simulated(plan.unwrap())[at];
                let deviation = (simulated / published[at] - 1.0) * 100.0;
                [published[at], simulated, deviation.round() + 0.0]
            });
            assert_eq!(row.unwrap().cells, expected, "{codec}, {channels} channels");
        }
    }
}

#[test]
fn one_device_for_four_channels_takes_as_long_as_published_and_longer_without_software() {
    let args = ["plan", "--preset", "xeon-4th-gen-64g", "--compression", "qpl-hardware"];
    let args = [&args[..], &["--channels", "4", "--devices", "1", "--json"]].concat();
    let plan =
        |more: &[&str]| multifd(&[&args[..], more].concat()).succeeded().json()["plans"][0].clone();
    let (retried, waited) = (plan(&[]), plan(&["--queue-depth", "4096"]));
    for (plan, published) in [(&retried, 14.649), (&waited, 18.381)] {
        let deviation = plan["seconds"].as_f64().unwrap() / published - 1.0;
        assert!(deviation.abs() < 0.03, "{deviation}");
        assert_eq!(plan["bottleneck"], "the engines of the source");
    }
    assert!(retried["source"]["software_pages"].as_u64().unwrap() > 0);
    assert_eq!(waited["source"]["software_pages"], 0);
}

#[test]
fn a_plan_of_a_ram_file_measures_its_codecs_on_it() {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), memory(3 * 1024)).unwrap();
    let args = ["plan", "--ram", text(file.path()), "--size", "1G", "--channels", "4,1", "--json"];
    let compression = ["--compression", "none,zlib,zstd,qpl-portable,qpl-hardware"];
    let report = multifd(&[&args[..], &compression].concat()).succeeded().json();
    assert_eq!(report["ram_bytes"], 1 << 30);
    assert!((report["zero_share"].as_f64().unwrap() - 1.0 / 3.0).abs() < 0.01);
    for codec in report["codecs"].as_array().unwrap() {
        let ratio = codec["ratio"].as_f64().unwrap();
        assert_eq!(ratio > 1.0, codec["codec"] != "none", "{codec}");
    }
    let plans = report["plans"].as_array().unwrap();
    assert_eq!(plans.len(), 10);
    for plan in plans {
        let pages = plan["normal_pages"].as_u64().unwrap() + plan["zero_pages"].as_u64().unwrap();
        assert_eq!(pages, (1 << 30) / 4096);
    }
}

#[test]
fn an_image_and_a_recording_are_planned_for_alike() {
    let folder = tempfile::tempdir().unwrap();
    let (recording, image) = (&recordings()[0], folder.path().join("vm"));
    multifd(&["decode", text(recording), "--to", text(&image)]).succeeded();
    let plan = |option: &str, path: &Path| {
        let report = multifd(&["plan", option, text(path), "--compression", "none", "--json"]);
        let report = report.succeeded().json();
        (report["ram_bytes"].clone(), report["zero_share"].clone(), report["plans"].clone())
    };
    assert_eq!(plan("--from", &image), plan("--recording", recording));
}

#[test]
fn a_plan_says_what_holds_it_up_and_what_helps() {
    let args = ["plan", "--size", "256M", "--compression", "none", "--channels", "8"];
    let slow = multifd(&[&args[..], &["--link-bandwidth", "1Gbit/s"]].concat()).succeeded();
    assert!(slow.stdout.contains("8 channels: the link; what helps: a codec"), "{slow:?}");
    let busy = multifd(&[&args[..6], &["1", "--send-speed", "500MB/s"]].concat()).succeeded();
    assert!(busy.stdout.contains("the CPU of the source's channels"), "{busy:?}");
    assert!(busy.stdout.contains("none, 1 channel: the CPU"), "{busy:?}");
    let live = ["--dirty-rate", "100GB/s", "--downtime-limit", "1ms"];
    let live = multifd(&[&args[..], &live].concat()).succeeded();
    assert!(live.stdout.contains("(never): the guest writes as fast"), "{live:?}");
}

#[test]
fn memory_that_cannot_be_planned_for_is_refused() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let plan = || multifd(&["plan", "--ram", text(file.path())]);
    plan().failed_saying(&["0 bytes", "only whole pages"]);
    fs::write(file.path(), [1; 4097]).unwrap();
    plan().failed_saying(&["4097 bytes", "only whole pages"]);
    multifd(&["plan", "--ram", "/nonexistent"]).failed_saying(&["check the path"]);
    multifd(&["plan", "--size", "5000"]).failed_saying(&["--size", "only whole pages"]);
    multifd(&["plan", "--recording", "/nonexistent"]).failed_saying(&["check the path"]);
}

#[test]
fn a_bad_option_is_refused_with_an_example() {
    for (args, words) in [
        (&["--link-bandwidth", "100"][..], "100Gbit/s"),
        (&["--link-bandwidth", "0Gbit/s"], "1MB/s"),
        (&["--feed-cost", "1s"], "1ms"),
        (&["--link-efficiency", "0"], "more than 0"),
        (&["--devices", "0"], "1..=255"),
        (&["--queue-depth", "0"], "1..=65535"),
        (&["--channels", "2,0"], "1..=255"),
        (&["--compression", "lzma"], "qpl-hardware"),
        (&["--zero-share", "52"], "0.52"),
        (&["--ratio", "zstd"], "zstd=2.5"),
        (&["--ratio", "zlib=3"], "--compression"),
        (&["--ratio", "none=2"], "leaves pages as they are"),
        (&["--compress-speed", "zstd=fast"], "GB/s"),
        (&["--downtime-limit", "1s"], "--dirty-rate"),
        (&["--sample", "0"], "1..="),
        (&["--preset", "xeon-4th-gen-64g", "--compression", "zlib"], "only of none"),
        (&["--preset", "xeon-4th-gen-64g", "--ram", "x"], "cannot be used with"),
        (&["--size", "100T", "--compression", "none"], "16 TiB"),
    ] {
        let ended = multifd(&[&["plan"], args].concat());
        assert_eq!(ended.status, Some(2), "{ended:?}");
        assert!(ended.stderr.contains(words), "{words} is not in: {}", ended.stderr);
    }
}
