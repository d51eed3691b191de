//! The distribution that runs, for commands that work on it.

use std::path::Path;

/// What `/etc/os-release` says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::doctor) struct Distribution {
    id: String,
    /// The distributions that it is made from.
    like: Vec<String>,
    /// The number before the first dot. Without one, it is ahead of all numbers, as Debian's testing.
    major: Option<u32>,
}

/// What can be installed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::doctor) enum Package {
    Libqpl,
    AccelConfig,
    Kernel,
}

impl Distribution {
    /// Without the file, nothing is known.
    pub(super) fn read(etc: &Path) -> Self {
        Self::parse(&std::fs::read_to_string(etc.join("os-release")).unwrap_or_default())
    }

    fn parse(text: &str) -> Self {
        let value = |name: &str| {
            let mut lines = text.lines().filter_map(|line| line.split_once('='));
            let (_, value) = lines.find(|(key, _)| *key == name)?;
            Some(value.trim_matches(['"', '\'']).to_owned())
        };
        let version = value("VERSION_ID");
        Self {
            id: value("ID").unwrap_or_default(),
            like: value("ID_LIKE")
                .iter()
                .flat_map(|like| like.split(' '))
                .map(str::to_owned)
                .collect(),
            major: version.and_then(|version| version.split('.').next()?.parse().ok()),
        }
    }

    /// The command that installs the package here, or where else it is to be had.
    pub(in crate::doctor) fn install(&self, package: Package) -> &'static str {
        let is = |id: &str| self.id == id;
        let since = |first| self.major.is_none_or(|major| major >= first);
        let is_red_hat =
            is("fedora") || self.like.iter().any(|like| like == "fedora" || like == "rhel");
        match package {
            Package::Libqpl if is("debian") && since(14) || is("ubuntu") && since(26) => {
                "sudo apt install libqpl1"
            }
            Package::Libqpl => "https://intel.github.io/qpl/ says how to build and install libqpl",
            Package::AccelConfig if is("debian") && since(11) || is("ubuntu") && since(22) => {
                "sudo apt install libaccel-config1 accel-config"
            }
            Package::AccelConfig if is_red_hat => "sudo dnf install accel-config",
            Package::AccelConfig => "https://github.com/intel/idxd-config has libaccel-config",
            Package::Kernel if is("debian") => "sudo apt install linux-image-amd64",
            Package::Kernel => "uname -r    # install a newer kernel of your distribution",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_only_for_a_distribution_that_has_the_package() {
        use Package::{AccelConfig, Kernel, Libqpl};
        let [bookworm, forky, sid] = [
            "ID=debian\nVERSION_ID=\"12\"",
            "VERSION_ID=\"14\"\nID=debian",
            "PRETTY_NAME=\"Debian GNU/Linux forky/sid\"\nID=debian",
        ];
        let noble = "ID=ubuntu\nID_LIKE=debian\nVERSION_ID=\"24.04\"";
        let rocky = "ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\nVERSION_ID=\"9.4\"";
        let arch = "ID=arch";
        for (text, package, start) in [
            (bookworm, Libqpl, "https:"),
            (forky, Libqpl, "sudo apt install libqpl1"),
            (sid, Libqpl, "sudo apt"),
            (noble, Libqpl, "https:"),
            (rocky, Libqpl, "https:"),
            ("", Libqpl, "https:"),
            (bookworm, AccelConfig, "sudo apt"),
            (noble, AccelConfig, "sudo apt"),
            (rocky, AccelConfig, "sudo dnf install accel-config"),
            (arch, AccelConfig, "https:"),
            (bookworm, Kernel, "sudo apt install linux-image-amd64"),
            (noble, Kernel, "uname -r"),
            (arch, Kernel, "uname -r"),
        ] {
            let said = Distribution::parse(text).install(package);
            assert!(said.starts_with(start), "{text}: {said}");
        }
    }
}
