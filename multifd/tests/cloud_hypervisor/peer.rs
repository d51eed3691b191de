//! A Cloud Hypervisor, as its description has it: `docs/snapshot_restore.md` and the comments of its protocol.

use std::fs::File;
use std::io::{IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

/// A VM of two slots in one zone: the second begins within its file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Machine {
    config: Vec<u8>,
    state: Vec<u8>,
    slots: Vec<Vec<u8>>,
    pub(crate) was_running: bool,
}

const SIZES: [(usize, u64); 2] = [(1 << 20, 0), (64 << 10, 1 << 20)];

impl Machine {
    pub(crate) fn new() -> Self {
        let mapping = |slot: usize| {
            let (size, offset) = SIZES[slot];
            format!(
                r#"{{"slot":{slot},"gpa":{},"size":{size},"zone_id":"mem0","virtio_mem":false,"file_offset":{offset}}}"#,
                slot << 32
            )
        };
        let config = format!(
            r#"{{"vm_config":{{"cpus":{{"boot_vcpus":1}}}},"common_cpuid":[],"memory_manager_data":{{"guest_ram_mappings":[{},{}],"start_of_device_area":1}}}}"#,
            mapping(0),
            mapping(1)
        );
        let fill = |(size, seed): (usize, u64)| {
            let page = |page: usize| {
                let byte = move |at: usize| {
                    if page % 3 == 0 { 0 } else { (page * 31 + at % 97) as u8 ^ seed as u8 }
                };
                (0..4096).map(byte)
            };
            (0..size / 4096).flat_map(page).collect::<Vec<u8>>()
        };
        Self {
            config: config.into_bytes(),
            state: br#"{"id":"vm","snapshots":{"cpu-manager":{}},"snapshot_data":null}"#.to_vec(),
            slots: SIZES.map(fill).to_vec(),
            was_running: true,
        }
    }

    /// The file with a slot's memory.
    pub(crate) fn memory(&self, slot: usize) -> File {
        let file = File::from(memfd_create("ch-ram", MemfdFlags::CLOEXEC).unwrap());
        let (size, offset) = SIZES[slot];
        file.set_len(offset + size as u64).unwrap();
        file.write_all_at(&self.slots[slot], offset).unwrap();
        file
    }
}

/// A descriptor that is no file, but a socket.
pub(crate) fn socket() -> File {
    let (reader, _) = UnixStream::pair().unwrap();
    File::from(OwnedFd::from(reader))
}

/// What becomes of a VM that is handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sent {
    GivenUp,
    Refused,
}

/// One end of its connection.
pub(crate) struct Seat(pub(crate) UnixStream);

impl Seat {
    /// Start, two of `MemoryFd`, Config, State, Complete.
    pub(crate) const MESSAGES: usize = 6;

    /// All bytes that it says.
    pub(crate) fn transcript(machine: &Machine) -> Vec<u8> {
        let request = |command: u16, bytes: usize| {
            let mut request = command.to_le_bytes().to_vec();
            request.resize(8, 0);
            request.extend((bytes as u64).to_le_bytes());
            request
        };
        let (config, state) = (&machine.config, &machine.state);
        [
            request(1, 0),
            request(7, 4),
            0_u32.to_le_bytes().to_vec(),
            request(7, 4),
            1_u32.to_le_bytes().to_vec(),
            [&request(2, config.len())[..], config].concat(),
            [&request(3, state.len())[..], state].concat(),
            request(if machine.was_running { 5 } else { 8 }, 0),
        ]
        .concat()
    }

    /// Hands `machine` over.
    pub(crate) fn send(self, machine: &Machine) -> Sent {
        self.send_messages(machine, Self::MESSAGES);
        self.hear()
    }

    /// Hands `machine` over, and abandons that, or only goes, when it waits.
    pub(crate) fn abandon(self, machine: &Machine, says_so: bool) {
        self.send_messages(machine, Self::MESSAGES);
        if says_so {
            self.request(6, 0, 0);
            _ = self.answers();
        }
    }

    fn hear(&self) -> Sent {
        if self.answer() == Some(1) { Sent::GivenUp } else { Sent::Refused }
    }

    /// Hands `machine` over, and cuts its memory off before it says the last message.
    pub(crate) fn send_shrinking(self, machine: &Machine) -> Sent {
        self.request(1, 0, 0);
        assert_eq!(self.answer(), Some(1));
        let memory = machine.memory(0);
        self.memory_ok(0, memory.try_clone().unwrap())
            .memory_ok(1, machine.memory(1))
            .config(machine);
        assert_eq!(self.answer(), Some(1));
        self.request(3, 0, machine.state.len() as u64);
        (&self.0).write_all(&machine.state).unwrap();
        assert_eq!(self.answer(), Some(1));
        memory.set_len(8192).unwrap();
        self.request(5, 0, 0);
        self.hear()
    }

    /// Says so many messages, each of which is answered but the last, and goes.
    pub(crate) fn send_some(self, machine: &Machine, messages: usize) {
        self.send_messages(machine, messages);
    }

    fn send_messages(&self, machine: &Machine, count: usize) {
        let says: [&dyn Fn(); Self::MESSAGES] = [
            &|| self.request(1, 0, 0),
            &|| self.memory(0, &[machine.memory(0)]),
            &|| self.memory(1, &[machine.memory(1)]),
            &|| self.config(machine),
            &|| {
                self.request(3, 0, machine.state.len() as u64);
                (&self.0).write_all(&machine.state).unwrap();
            },
            &|| self.request(if machine.was_running { 5 } else { 8 }, 0, 0),
        ];
        for (index, say) in says.into_iter().take(count).enumerate() {
            say();
            if index + 1 < Self::MESSAGES {
                assert_eq!(self.answer(), Some(1), "message {index}");
            }
        }
    }

    pub(crate) fn request(&self, command: u16, version: u16, bytes: u64) {
        let mut request = [0; 16];
        request[..2].copy_from_slice(&command.to_le_bytes());
        request[2..4].copy_from_slice(&version.to_le_bytes());
        request[8..].copy_from_slice(&bytes.to_le_bytes());
        (&self.0).write_all(&request).unwrap();
    }

    pub(crate) fn start(&self) -> &Self {
        self.request(1, 0, 0);
        assert_eq!(self.answer(), Some(1));
        self
    }

    /// The first `count` slots.
    pub(crate) fn slots(&self, machine: &Machine, count: usize) -> &Self {
        (0..count).for_each(|slot| _ = self.memory_ok(slot as u32, machine.memory(slot)));
        self
    }

    pub(crate) fn memory_ok(&self, slot: u32, memory: File) -> &Self {
        self.memory(slot, &[memory]);
        assert_eq!(self.answer(), Some(1));
        self
    }

    pub(crate) fn memory(&self, slot: u32, files: &[File]) {
        self.request(7, 0, 4);
        let descriptors: Vec<_> = files.iter().map(AsFd::as_fd).collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !files.is_empty() {
            assert!(control.push(SendAncillaryMessage::ScmRights(&descriptors)));
        }
        let slot = slot.to_le_bytes();
        sendmsg(&self.0, &[IoSlice::new(&slot)], &mut control, SendFlags::empty()).unwrap();
    }

    pub(crate) fn config(&self, machine: &Machine) {
        self.raw_config(&machine.config);
    }

    pub(crate) fn raw_config(&self, config: &[u8]) {
        self.request(2, 0, config.len() as u64);
        (&self.0).write_all(config).unwrap();
    }

    /// The status of the next answer; none at the end.
    fn answer(&self) -> Option<u16> {
        let mut answer = [0; 16];
        (&self.0).read_exact(&mut answer).ok()?;
        assert_eq!(answer[2..], [0; 14], "nothing but a status");
        Some(u16::from_le_bytes([answer[0], answer[1]]))
    }

    /// The answers that come yet, to the end.
    pub(crate) fn answers(&self) -> Vec<u16> {
        std::iter::from_fn(|| self.answer()).collect()
    }

    /// Takes a VM.
    pub(crate) fn receive(self) -> Machine {
        self.receive_after(|| {})
    }

    /// Takes a VM, and waits as `wait` does before it says so.
    pub(crate) fn receive_after(self, wait: impl FnOnce()) -> Machine {
        let taken = self.receive_messages(Self::MESSAGES);
        wait();
        self.respond(1);
        taken.unwrap()
    }

    /// Takes so many messages, answering to each, and then refuses the next or goes before it answers.
    pub(crate) fn receive_some(self, messages: usize, refuses: bool) {
        self.receive_messages(messages);
        if messages > 0 {
            self.respond(1);
        }
        self.receive_one(messages, &mut Machine { slots: Vec::new(), ..Machine::new() });
        if refuses {
            self.respond(2);
        }
    }

    /// All but the last are answered.
    fn receive_messages(&self, count: usize) -> Option<Machine> {
        let empty = Vec::new();
        let mut taken =
            Machine { config: empty.clone(), state: empty, slots: Vec::new(), was_running: false };
        for index in 0..count {
            if index > 0 {
                self.respond(1);
            }
            self.receive_one(index, &mut taken);
        }
        (count == Self::MESSAGES).then_some(taken)
    }

    fn receive_one(&self, index: usize, taken: &mut Machine) {
        let mut request = [0; 16];
        (&self.0).read_exact(&mut request).unwrap();
        let command = u16::from_le_bytes([request[0], request[1]]);
        assert_eq!(request[2..8], [0; 6]);
        let bytes = u64::from_le_bytes(request[8..].try_into().unwrap()) as usize;
        let payload = || {
            let mut payload = vec![0; bytes];
            (&self.0).read_exact(&mut payload).unwrap();
            payload
        };
        match (index, command) {
            (0, 1) => assert_eq!(bytes, 0),
            (1 | 2, 7) => {
                assert_eq!(bytes, 4);
                let (slot, file) = self.receive_memory();
                assert_eq!(slot, index as u32 - 1);
                let (size, offset) = SIZES[slot as usize];
                let mut memory = vec![0; size];
                file.read_exact_at(&mut memory, offset).unwrap();
                // It becomes the guest's memory, which the guest writes.
                file.write_all_at(&memory[..8], offset).unwrap();
                taken.slots.push(memory);
            }
            (3, 2) => taken.config = payload(),
            (4, 3) => taken.state = payload(),
            (5, 5 | 8) => taken.was_running = command == 5,
            other => panic!("{other:?}"),
        }
    }

    fn receive_memory(&self) -> (u32, File) {
        let mut slot = [0; 4];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut room = [IoSliceMut::new(&mut slot)];
        let flags = RecvFlags::CMSG_CLOEXEC;
        assert_eq!(recvmsg(&self.0, &mut room, &mut control, flags).unwrap().bytes, 4);
        let mut files = control.drain().flat_map(|message| match message {
            RecvAncillaryMessage::ScmRights(files) => files.collect::<Vec<_>>(),
            _ => Vec::new(),
        });
        let file = File::from(files.next().unwrap());
        assert!(files.next().is_none());
        (u32::from_le_bytes(slot), file)
    }

    fn respond(&self, status: u16) {
        let mut response = [0; 16];
        response[..2].copy_from_slice(&status.to_le_bytes());
        (&self.0).write_all(&response).unwrap();
    }
}
