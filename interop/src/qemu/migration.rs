//! A migration, as QEMU sees it.

use serde_json::{Value, json};

use super::Qemu;
use crate::error::Error;
use crate::wait::wait_until;

/// What both sides are told before a migration, and what a source alone is.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `multifd-compression`.
    pub compression: &'static str,
    /// The capability `multifd`.
    pub multifd: bool,
    /// `multifd-channels`.
    pub channels: u8,
    /// The capability `return-path`.
    pub return_path: bool,
    /// Further capabilities.
    pub capabilities: &'static [&'static str],
    /// `zero-page-detection`, at a source that has it.
    pub zero_pages: Option<&'static str>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            compression: "none",
            multifd: true,
            channels: 2,
            return_path: true,
            capabilities: &[],
            zero_pages: None,
        }
    }
}

/// How far a migration is.
#[derive(Clone, Debug)]
pub struct Migration {
    /// `active`, `completed`, `failed`, `cancelled`…
    pub status: String,
    /// Why it failed, where QEMU says so.
    pub error: String,
    /// How often the guest's dirty pages have been asked for.
    pub rounds: u64,
}

/// `max-bandwidth` in bytes a second, as good as no limit.
pub const UNLIMITED: u64 = 1 << 40;

impl Qemu {
    /// Sets up a source or a destination that waits (`-incoming defer`).
    ///
    /// # Errors
    /// This QEMU does not have what is asked for, in its words.
    pub fn set_up(&mut self, settings: &Settings) -> Result<(), Error> {
        let more = settings.capabilities.iter().map(|&name| (name, true));
        let capabilities = [("multifd", settings.multifd), ("return-path", settings.return_path)];
        let capabilities = capabilities.into_iter().chain(more);
        let capabilities: Vec<_> = capabilities
            .map(|(name, state)| json!({ "capability": name, "state": state }))
            .collect();
        let capabilities = json!({ "capabilities": capabilities });
        self.execute("migrate-set-capabilities", &capabilities)?;
        let mut parameters = json!({
            "multifd-channels": settings.channels,
            "multifd-compression": settings.compression,
            "max-bandwidth": UNLIMITED,
        });
        if let Some(who) = settings.zero_pages {
            parameters["zero-page-detection"] = who.into();
        }
        self.set_parameters(&parameters)
    }

    /// Sets migration parameters by QEMU's names.
    ///
    /// # Errors
    /// QEMU refuses one.
    pub fn set_parameters(&mut self, parameters: &Value) -> Result<(), Error> {
        self.execute("migrate-set-parameters", parameters).map(drop)
    }

    /// Begins to migrate to `uri`.
    ///
    /// # Errors
    /// QEMU refuses.
    pub fn migrate(&mut self, uri: &str) -> Result<(), Error> {
        self.execute("migrate", &json!({ "uri": uri })).map(drop)
    }

    /// Has a destination that waits listen on a socket of its folder. Returns the address.
    ///
    /// # Errors
    /// QEMU refuses.
    pub fn listen(&mut self) -> Result<String, Error> {
        let uri = format!("unix:{}", self.file("migration").display());
        self.execute("migrate-incoming", &json!({ "uri": uri }))?;
        Ok(uri)
    }

    /// Has a QEMU that waits for one listen on some port of the IP address `address`, and says where.
    ///
    /// # Errors
    /// QEMU has ended, or has no such address.
    pub fn listen_on_a_port(&mut self, address: &str) -> Result<String, Error> {
        self.execute("migrate-incoming", &json!({ "uri": format!("tcp:{address}:0") }))?;
        let info = self.execute("query-migrate", &json!({}))?;
        let port = info["socket-address"][0]["port"].as_str();
        let port = port.ok_or_else(|| {
            Error::Protocol(format!("QEMU does not say where it listens: {info}"))
        })?;
        Ok(format!("tcp:{address}:{port}"))
    }

    /// How far the migration is.
    ///
    /// # Errors
    /// QEMU has ended.
    pub fn migration(&mut self) -> Result<Migration, Error> {
        let info = self.execute("query-migrate", &json!({}))?;
        let text = |key: &str| info[key].as_str().unwrap_or_default().to_owned();
        let rounds = info["ram"]["dirty-sync-count"].as_u64().unwrap_or_default();
        Ok(Migration { status: text("status"), error: text("error-desc"), rounds })
    }

    /// Waits for a source to have gone over its dirty pages so often, or to be done.
    ///
    /// # Errors
    /// It takes too long, or QEMU has ended.
    pub fn wait_for_rounds(&mut self, rounds: u64) -> Result<(), Error> {
        wait_until("the migration goes on", || {
            let migration = self.migration()?;
            Ok((migration.is_over() || migration.rounds >= rounds).then_some(()))
        })
    }

    /// Waits for a source to be active, or to be done.
    ///
    /// # Errors
    /// It takes too long, or QEMU has ended.
    pub fn wait_for_active(&mut self) -> Result<(), Error> {
        wait_until("the migration is active", || {
            let migration = self.migration()?;
            Ok((migration.is_over() || migration.status == "active").then_some(()))
        })
    }

    /// Waits for the end of the migration, good or bad.
    ///
    /// # Errors
    /// It takes too long, or QEMU has ended.
    pub fn wait_for_migration(&mut self) -> Result<Migration, Error> {
        wait_until("the migration ends", || {
            let migration = self.migration()?;
            Ok(migration.is_over().then_some(migration))
        })
    }

    /// Waits for the migration to succeed.
    ///
    /// # Errors
    /// It does not.
    pub fn complete_migration(&mut self) -> Result<Migration, Error> {
        let migration = self.wait_for_migration()?;
        if migration.status == "completed" {
            return Ok(migration);
        }
        let (status, error, stderr) = (&migration.status, &migration.error, self.stderr());
        Err(Error::Failed(format!("QEMU's migration {status}: {error}; QEMU said: {stderr}")))
    }
}

impl Migration {
    fn is_over(&self) -> bool {
        matches!(self.status.as_str(), "completed" | "failed" | "cancelled")
    }
}
