//! A node made of namespaces. Everything in it goes when its thread ends.

use std::{
    fs::{self, File},
    io, iter,
    net::{IpAddr, SocketAddr, UdpSocket},
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use palisade_dataplane::{
    caps::{has_tcx, raise_memlock},
    link::{
        attach::Strategy,
        discover::Scan,
        program::{LoadedProgram, Programs},
    },
    pins::Pins,
};

/// Runs a test inside a new node, or says that it cannot.
pub(crate) fn on_node(test: impl FnOnce() + Send + 'static) {
    // SAFETY: the call has no preconditions.
    if unsafe { libc::geteuid() } != 0 {
        println!("SKIP: needs root");
        return;
    }
    raise_memlock();
    let result = thread::spawn(move || {
        enter_new_node();
        test();
    })
    .join();
    if let Err(panic) = result {
        std::panic::resume_unwind(panic);
    }
}

/// As [`on_node`], where the kernel has TCX.
pub(crate) fn on_node_with_tcx(test: impl FnOnce() + Send + 'static) {
    on_node(|| {
        if has_tcx().unwrap() {
            test();
        } else {
            println!("SKIP: the kernel has no TCX");
        }
    });
}

/// The ways of attaching that the kernel has, the best last.
pub(crate) fn strategies() -> Vec<Strategy> {
    let tcx = has_tcx().unwrap().then_some(Strategy::Tcx);
    if tcx.is_none() {
        println!("SKIP: the kernel has no TCX");
    }
    iter::once(Strategy::Clsact).chain(tcx).collect()
}

/// The names of the exits, but for the devices that tunnel drivers put into every namespace.
pub(crate) fn exits(scan: &Scan) -> Vec<&str> {
    let of_drivers = [
        "erspan0", "gre0", "gretap0", "ip6_vti0", "ip6gre0", "ip6tnl0", "ip_vti0", "sit0", "tunl0",
    ];
    let names = scan.exits.iter().map(|exit| exit.name.as_str());
    names.filter(|name| !of_drivers.contains(name)).collect()
}

/// Where the node's bpf filesystem is.
pub(crate) const BPFFS: &str = "/sys/fs/bpf";
/// Where the node's namespace files are.
pub(crate) const NETNS: &str = "/run/netns";

fn enter_new_node() {
    // SAFETY: the flags concern this thread alone, which has just begun.
    let unshared = unsafe { libc::unshare(libc::CLONE_NEWNET | libc::CLONE_NEWNS) };
    assert_eq!(unshared, 0, "unshare: {}", io::Error::last_os_error());
    run("mount --make-rprivate /");
    run(&format!("mount -t bpf bpf {BPFFS}"));
    fs::create_dir_all(NETNS).unwrap();
    run(&format!("mount -t tmpfs tmpfs {NETNS}"));
    run("ip link set lo up");
}

/// Runs a command in the node.
pub(crate) fn run(command: &str) {
    let mut words = command.split_whitespace();
    let output = Command::new(words.next().unwrap())
        .args(words)
        .output()
        .unwrap_or_else(|error| panic!("{command}: {error}"));
    assert!(
        output.status.success(),
        "{command}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// What a command in the node prints.
pub(crate) fn output(command: &str) -> String {
    let mut words = command.split_whitespace();
    let output = Command::new(words.next().unwrap())
        .args(words)
        .output()
        .unwrap_or_else(|error| panic!("{command}: {error}"));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs lines of `ip` in one go.
pub(crate) fn ip(lines: &str) {
    let script = tempfile(lines);
    run(&format!("ip -batch {}", script.display()));
    fs::remove_file(script).unwrap();
}

fn tempfile(content: &str) -> PathBuf {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("palisade-{}-{number}", std::process::id()));
    fs::write(&path, content).unwrap();
    path
}

/// The index of a device of the node.
pub(crate) fn index(device: &str) -> u32 {
    let path = format!("/sys/class/net/{device}/ifindex");
    // sysfs shows the namespace it was mounted in, so ask `ip`.
    let line = output(&format!("ip -o link show dev {device}"));
    line.split(':')
        .next()
        .and_then(|index| index.trim().parse().ok())
        .unwrap_or_else(|| panic!("no {device} ({path})"))
}

/// Neighbours are known from the start, so that programs which drop everything, ARP too, do not keep
/// senders from sending.
const HOST_MAC: &str = "02:00:00:00:00:01";
const POD_MAC: &str = "02:00:00:00:00:02";

/// A pod with a device `veth-NAME` on the node and `eth0` inside, on a network of its own: both ends have a
/// route to the other's address.
pub(crate) fn ptp_pod(name: &str, v4: &str, v6: &str) {
    run(&format!("ip netns add {name}"));
    ip(&format!(
        "link add veth-{name} address {HOST_MAC} type veth peer name eth0 address {POD_MAC} netns {name}
         link set veth-{name} up
         addr add 169.254.1.1/32 dev veth-{name}
         neigh add {v4} lladdr {POD_MAC} dev veth-{name} nud permanent
         route add {v4}/32 dev veth-{name}
         route add {v6}/128 dev veth-{name}"
    ));
    inside(
        name,
        &format!(
            "link set lo up
         link set eth0 up
         addr add {v4}/32 dev eth0
         addr add {v6}/128 dev eth0 nodad
         neigh add 169.254.1.1 lladdr {HOST_MAC} dev eth0 nud permanent
         route add 169.254.1.1/32 dev eth0
         route add default via 169.254.1.1 dev eth0 onlink"
        ),
    );
}

/// A pod whose device is a port of a bridge.
pub(crate) fn bridge_pod(name: &str, bridge: &str, v4: &str, v6: &str) {
    run(&format!("ip netns add {name}"));
    ip(&format!(
        "link add veth-{name} type veth peer name eth0 netns {name}
         link set veth-{name} up master {bridge}"
    ));
    inside(
        name,
        &format!(
            "link set lo up
         link set eth0 up
         addr add {v4}/24 dev eth0
         addr add {v6}/64 dev eth0 nodad"
        ),
    );
}

/// Runs lines of `ip` in a pod.
pub(crate) fn inside(pod: &str, lines: &str) {
    let script = tempfile(lines);
    run(&format!("ip -n {pod} -batch {}", script.display()));
    fs::remove_file(script).unwrap();
}

/// Runs a closure in a pod's network namespace, on a thread of its own.
pub(crate) fn in_pod<T: Send + 'static>(
    pod: &str,
    run: impl FnOnce() -> T + Send + 'static,
) -> thread::JoinHandle<T> {
    let file = File::open(Path::new(NETNS).join(pod)).unwrap();
    thread::spawn(move || {
        // SAFETY: the descriptor is open; only this thread changes its namespace.
        let entered = unsafe { libc::setns(file.as_raw_fd(), libc::CLONE_NEWNET) };
        assert_eq!(entered, 0, "setns: {}", io::Error::last_os_error());
        run()
    })
}

/// The folder of an agent on this node, locked.
pub(crate) fn pins() -> Arc<Pins> {
    Arc::new(Pins::lock(&Path::new(BPFFS).join("palisade"), |_| false).unwrap())
}

/// Three programs that give back one TC action.
pub(crate) fn programs(action: i32) -> Programs {
    Programs {
        from_pod: program(action),
        to_pod: program(action),
        to_wire: program(action),
    }
}

/// `TC_ACT_UNSPEC`.
pub(crate) const PASS: i32 = -1;
/// `TC_ACT_OK`.
pub(crate) const OK: i32 = 0;
/// `TC_ACT_SHOT`.
pub(crate) const DROP: i32 = 2;

/// A classifier that gives back one TC action.
pub(crate) fn program(action: i32) -> LoadedProgram {
    program_of(BPF_PROG_TYPE_SCHED_CLS, action)
}

/// An XDP program that passes everything.
pub(crate) fn xdp_program() -> LoadedProgram {
    program_of(BPF_PROG_TYPE_XDP, 2)
}

const BPF_PROG_TYPE_SCHED_CLS: u32 = 3;
const BPF_PROG_TYPE_XDP: u32 = 6;

fn program_of(kind: u32, action: i32) -> LoadedProgram {
    #[repr(C)]
    struct Attributes {
        kind: u32,
        instruction_count: u32,
        instructions: u64,
        license: u64,
    }
    // r0 = action; exit
    let instructions: [u64; 2] = [0xb7 | (u64::from(action as u32) << 32), 0x95];
    let attributes = Attributes {
        kind,
        instruction_count: 2,
        instructions: instructions.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
    };
    // SAFETY: the attributes are those of BPF_PROG_LOAD, and lead to memory that outlives the call.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            5,
            &raw const attributes,
            size_of::<Attributes>(),
        )
    };
    assert!(fd >= 0, "BPF_PROG_LOAD: {}", io::Error::last_os_error());
    // SAFETY: the kernel made this descriptor for the call.
    let fd = unsafe { OwnedFd::from_raw_fd(fd as i32) };
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd())).unwrap();
    let id = info
        .lines()
        .find_map(|line| line.strip_prefix("prog_id:"))
        .and_then(|id| id.trim().parse().ok())
        .unwrap();
    LoadedProgram { fd, id }
}

/// Datagrams that a pod sends to the node without pause, and how many arrive.
pub(crate) struct Stream {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    receiver: UdpSocket,
    sender: Option<thread::JoinHandle<()>>,
}

impl Stream {
    pub(crate) fn start(pod: &str, node: IpAddr) -> Self {
        let receiver = UdpSocket::bind((node, 0)).unwrap();
        receiver.set_nonblocking(true).unwrap();
        let target: SocketAddr = receiver.local_addr().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let sent = Arc::new(AtomicU64::new(0));
        let (stopped, counter) = (Arc::clone(&stop), Arc::clone(&sent));
        let sender = in_pod(pod, move || {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            while !stopped.load(Ordering::Relaxed) {
                if socket.send_to(b"x", target).is_ok() {
                    counter.fetch_add(1, Ordering::Relaxed);
                }
                thread::sleep(Duration::from_micros(20));
            }
        });
        Self {
            stop,
            sent,
            receiver,
            sender: Some(sender),
        }
    }

    /// Waits until this many more have been sent.
    pub(crate) fn flow(&self, count: u64) {
        let target = self.sent.load(Ordering::Relaxed) + count;
        for _ in 0..10_000 {
            if self.sent.load(Ordering::Relaxed) >= target {
                return;
            }
            thread::sleep(Duration::from_millis(1));
        }
        panic!("the stream does not flow");
    }

    /// How many have arrived since the last call.
    pub(crate) fn arrived(&self) -> u64 {
        let mut count = 0;
        let mut buffer = [0; 16];
        while self.receiver.recv(&mut buffer).is_ok() {
            count += 1;
        }
        count
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(sender) = self.sender.take() {
            let ended = sender.join();
            assert!(ended.is_ok() || thread::panicking());
        }
    }
}
