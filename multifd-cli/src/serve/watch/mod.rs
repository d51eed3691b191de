//! Watching a service: many migrations in one program, at once and one after another.
//!
//! A [`Board`](board::Board) knows them; events, `/metrics`, `/status` and `/health` are of what it knows. Nothing here
//! can end a migration or hold one up: counters are read, and what cannot be written is counted.

mod address;
mod audit;
pub(super) mod board;
pub(super) mod clock;
pub(super) mod events;
mod exposition;
pub(super) mod http;
mod live;
pub(super) mod migration;
pub(super) mod options;
mod process;
mod prometheus;
mod request;
mod rounds;
mod status;
mod view;

use std::sync::Arc;

use board::{Board, Health};
use http::{Page, Pages};
use process::Process;

const TEXT: &str = "text/plain; charset=utf-8";

/// The pages of a board.
fn pages(board: Board) -> Pages {
    Arc::new(move |path| match path {
        "/metrics" => {
            let text = prometheus::text(&board.view(), &Process::now());
            Some(Page::ok(exposition::CONTENT_TYPE, text))
        }
        "/status" => Some(Page::ok("application/json", status::json(&board.view()))),
        "/health" => Some(health(&board)),
        "/" => Some(Page::ok(TEXT, "/metrics\n/status\n/health\n".to_owned())),
        _ => None,
    })
}

/// Whether new migrations are taken. One that has to wait for others to end is no reason to start the
/// service anew.
fn health(board: &Board) -> Page {
    let Health { running, is_full, stopping } = board.health();
    let (status, body) = match (stopping, is_full) {
        (true, _) => ("503 Service Unavailable", format!("stopping: {running} migrations run\n")),
        (false, true) => {
            ("200 OK", format!("ok: {running} migrations run, as many as may at once\n"))
        }
        (false, false) => ("200 OK", "ok\n".to_owned()),
    };
    Page { status, content_type: TEXT, body }
}

#[cfg(test)]
mod tests;
