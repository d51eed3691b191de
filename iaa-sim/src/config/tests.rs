use super::*;

fn variable(key: &str, value: &str) -> Result<Config, ConfigError> {
    Config::from_variables([(format!("{PREFIX}{key}").into(), value.into())])
}

#[test]
fn other_variables_are_ignored() {
    let others = [("PATH", "/bin"), ("IAA_SIMILAR", "y")];
    let others = others.map(|(name, value)| (name.into(), value.into()));
    assert_eq!(Config::from_variables(others), Ok(Config::default()));
}

#[test]
fn variables_and_toml_have_the_same_keys_and_values() {
    let pairs = [
        ("DEVICES", "2", "devices = 2"),
        ("NUMA_NODES", "0,none", "numa_nodes = [0, \"none\"]"),
        ("QUEUE_DEPTHS", "4, 16", "queue_depths = [4, 16]"),
        ("BLOCK_ON_FAULT", "1", "block_on_fault = true"),
        ("COMPRESS_LATENCY", "1.5us", "compress_latency = \"1.5us\""),
        ("PAGE_FAULT", "0.25", "page_fault = 0.25"),
        ("ERROR_STATUS", "0x0a:17,16", "error_status = [\"0x0a:17\", 0x10]"),
        ("ERROR_ON", "compress", "error_on = [\"compress\"]"),
        ("FACE", "mapped", "face = \"mapped\""),
    ];
    for (key, value, toml) in pairs {
        let config = variable(key, value);
        assert!(config.is_ok() && config != Ok(Config::default()), "{key}={value}: {config:?}");
        assert_eq!(Config::from_toml(toml), config, "{toml}");
    }
}

#[test]
fn a_variable_wins_over_the_file_wherever_it_stands() {
    let file = std::env::temp_dir().join(format!("iaa-sim-{}.toml", std::process::id()));
    fs::write(&file, "devices = 3\nengines = 2\n").unwrap();
    let variables = [(FILE.into(), file.clone().into()), ("IAA_SIM_DEVICES".into(), "4".into())];
    let config = Config::from_variables(variables).unwrap();
    fs::remove_file(file).unwrap();
    assert_eq!((config.devices, config.engines), (4, 2));
}

#[test]
fn a_bad_value_is_refused_with_name_value_and_reason() {
    let bad = [
        ("FACE", "read"),
        ("DEVICES", "65"),
        ("NUMA_NODES", "1024"),
        ("NUMA_NODES", ""),
        ("ENGINES", "0"),
        ("QUEUES", "0"),
        ("QUEUE_DEPTHS", "0"),
        ("QUEUE_DEPTHS", "4,0"),
        ("QUEUE_DEPTHS", "257"),
        ("QUEUE_PRIORITIES", "16"),
        ("BLOCK_ON_FAULT", "yes"),
        ("COMPRESS_LATENCY", "5m"),
        ("DECOMPRESS_LATENCY", "-5"),
        ("COMPRESS_THROUGHPUT", "10"),
        ("DECOMPRESS_THROUGHPUT", "NaN"),
        ("JITTER", "0.6"),
        ("SEED", "x"),
        ("QUEUE_FULL", "1.01"),
        ("PAGE_FAULT", "nan"),
        ("PAGE_FAULT_ON", "stack"),
        ("ERROR_ON", "inflate"),
        ("ERROR_STATUS", "0x01"),
        ("ERROR_STATUS", "0x0a:300"),
        ("SLOW_FACTOR", "0.5"),
        ("RESET_AT", "soon"),
        ("COUNTERS_AT_EXIT", "2"),
        ("LATENZY", "5"),
        ("devices", "1"),
        ("", "5"),
    ];
    for (key, value) in bad {
        let refused = variable(key, value).unwrap_err().to_string();
        let begin = format!("{PREFIX}{key}={value}: ");
        assert!(refused.starts_with(&begin) && refused.len() > begin.len(), "{refused}");
    }
}

#[test]
fn all_that_is_wrong_is_named_in_one_line() {
    let bad = [("IAA_SIM_SEED", "x"), ("IAA_SIM_SLOW", "2\n"), ("IAA_SIM_CONFIG", "/no/such")];
    let refused = Config::from_variables(bad.map(|(name, value)| (name.into(), value.into())));
    let refused = refused.unwrap_err().to_string();
    for (name, _) in bad {
        assert!(refused.contains(name), "{refused}");
    }
    assert_eq!(refused.lines().count(), 1, "{refused}");
}

#[test]
fn bad_toml_is_refused_with_its_place() {
    for (text, say) in [
        ("devices = 1\nengines = ", "line 2"),
        ("speed = 1", "speed = 1: unknown key"),
        ("queues = 0", "queues = 0: not a whole number from 1 to 64"),
        ("[device]\nqueues = 1", "device = : neither"),
        ("DEVICES = 1", "unknown key"),
    ] {
        let refused = Config::from_toml(text).unwrap_err().to_string();
        assert!(refused.contains(say), "{refused}");
    }
}

#[test]
fn the_last_of_a_list_is_that_of_all_further_ones() {
    let config = Config::from_toml("numa_nodes = [0, 1]\nqueue_depths = [3, 5]").unwrap();
    assert_eq!([0, 1, 2].map(|device| config.numa_node(device)), [Some(0), Some(1), Some(1)]);
    assert_eq!([0, 1, 9].map(|queue| config.queue_depth(queue)), [3, 5, 5]);
}

#[test]
fn the_readme_has_every_key_with_its_default() {
    let readme = include_str!("../../README.md");
    let rows: Vec<_> = readme.lines().filter(|line| line.starts_with("| `IAA_SIM_")).collect();
    assert_eq!(rows.len(), 34);
    for row in rows {
        let mut cells = row.split('|').map(|cell| cell.trim().trim_matches('`')).skip(1);
        let (name, default) = (cells.next().unwrap(), cells.next().unwrap());
        let key = name.strip_prefix(PREFIX).unwrap();
        if name == FILE {
            assert_eq!(default, "none");
        } else {
            assert_eq!(variable(key, default), Ok(Config::default()), "{row}");
        }
    }
}
