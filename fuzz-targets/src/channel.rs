//! One channel from its first byte on, with every codec: no panic, and the same however the bytes are
//! split.

use std::sync::Arc;

use multifd::core::channel::{
    ChannelCounters, Opened, Opening, Received, RecvMachine, RecvNext, Target,
};
use multifd::core::{MultiFdMethods, PageSize};
use pollster::block_on;

use crate::{codec, ram};

/// What the channel says, or why it is refused, of bytes that come `step` at a time.
fn run(methods: &dyn MultiFdMethods, bytes: &[u8], step: usize) -> (Vec<Received>, String) {
    let mut rest = bytes;
    let mut take = |room: &mut [u8]| {
        let count = room.len().min(step).min(rest.len());
        room[..count].copy_from_slice(&rest[..count]);
        rest = &rest[count..];
        count
    };
    let mut opening = Opening::new();
    let opened = loop {
        let count = take(opening.want());
        match opening.filled(count) {
            Ok(None) => {}
            Ok(Some(opened)) => break opened,
            Err(error) => return (Vec::new(), error.to_string()),
        }
    };
    let Opened::Channel(initial) = opened else { return (Vec::new(), format!("{opened:?}")) };
    let machine = RecvMachine::new(
        methods,
        initial.channel,
        PageSize::Kib4,
        ChannelCounters::default().into(),
    );
    let mut machine = block_on(machine).expect("the codec can be set up");
    let (ram, mut said) = (ram(), Vec::new());
    loop {
        let done = match machine.next().expect("it has not failed yet") {
            RecvNext::Read(room) => {
                let count = take(room);
                machine.filled(count)
            }
            RecvNext::ReadGuest(room) => {
                let mut buffer = vec![0; room.bytes().min(step)];
                let count = take(&mut buffer);
                room.copy_from(&buffer[..count]);
                machine.filled(count)
            }
            RecvNext::Admit(_) => machine.place(Target::Ram(Arc::clone(&ram))),
            RecvNext::Decode => block_on(machine.decode()),
            RecvNext::Received(Received::End) => return (said, String::new()),
            RecvNext::Received(received) => {
                said.push(received);
                Ok(())
            }
        };
        if let Err(error) = done {
            return (said, error.to_string());
        }
    }
}

/// Runs the target on one input.
pub fn channel(input: &[u8]) {
    let Some((&choice, bytes)) = input.split_first() else { return };
    let codec = &**codec(choice & 0xf);
    let whole = run(codec, bytes, usize::MAX);
    let step = [1, 7, 64, 1000][usize::from(choice >> 4) % 4];
    assert_eq!(whole, run(codec, bytes, step), "in steps of {step}");
}
