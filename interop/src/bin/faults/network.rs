//! A network that loses and delays packets.

use std::process::Command;

use crate::bench::{Bench, Side};
use crate::running::Running;
use crate::{Case, Cases, NoCases, say};

const CODECS: [&str; 4] = ["none", "zlib", "zstd", "qpl"];

/// Two network namespaces with a wire between, which loses 1 % of the packets and delays each by 50 ms,
/// both ways. `true` as the program tells whether that can be had.
const NETWORK: &str = r#"set -e
program=$1 run=$2 new=$3; shift 3
ip link set lo up
unshare -n sleep 600 & other=$!
trap 'kill $other' EXIT
until [ "$(readlink /proc/$other/ns/net)" != "$(readlink /proc/self/ns/net)" ]; do sleep 0.05; done
ip link add here type veth peer name there netns $other
there() { nsenter -t $other -n "$@"; }
ip addr add 10.9.8.1/24 dev here; ip link set here up
there ip addr add 10.9.8.2/24 dev there; there ip link set there up
# Else one loss is that of many packets at once, and there are few to lose.
ip link set here gso_max_segs 1; there ip link set there gso_max_segs 1
tc qdisc add dev here root netem loss 1% delay 50ms
there tc qdisc add dev there root netem loss 1% delay 50ms
[ "$program" != true ] || exit 0
from=() to=()
for word; do
    case $word in tls) from+=(--tls-creds "$run/tls") ; to+=(--tls-creds "$run/tls") ;;
    *) from+=(--compression "$word"); to+=(--compression "$word") ;; esac
done
[[ " $* " != *" tls "* ]] || "$program" tls-init "$run/tls" --host 10.9.8.2 >/dev/null
there "$program" recv --force --listen tcp:10.9.8.2:4444 --to "$run/vm" "${to[@]}" 2>"$run/recv.err" & recv=$!
until grep -q 'listening on' "$run/recv.err"; do kill -0 $recv; sleep 0.05; done
"$program" send --from "$new" --to tcp:10.9.8.2:4444 "${from[@]}"
wait $recv
sent=0 lost=0
while read -r word _ _ packets _ _ dropped _; do
    [ "$word" != Sent ] || : $((sent += packets, lost += ${dropped%,}))
done < <(tc -s qdisc show dev here; there tc -s qdisc show dev there)
echo "$sent packets, $lost of them lost" >&2"#;

fn command() -> Command {
    let mut command = Command::new("unshare");
    command.args(["-rn", "bash", "-c", NETWORK, "network"]);
    command
}

pub(crate) fn cases(_bench: &Bench, quick: bool) -> Cases {
    let probe = command().args(["true", "", ""]).output();
    let probe = probe.map_err(|error| NoCases::CannotBeHad(format!("unshare: {error}")))?;
    if !probe.status.success() {
        let said = String::from_utf8_lossy(&probe.stderr).trim().replace('\n', "; ");
        return Err(NoCases::CannotBeHad(format!("no namespaces with netem here: {said}")));
    }
    let mut cases = Vec::new();
    for codec in CODECS.into_iter().take(if quick { 1 } else { 4 }) {
        for tls in [None, Some("tls")] {
            let name = format!("network/{codec}/{}", tls.unwrap_or("plain"));
            let network = name.clone();
            cases.push(Case::new(name, "1 % loss, 50 ms delay", Side::Source, move |bench| {
                let run = bench.run_folder().map_err(|error| error.to_string())?;
                let mut command = command();
                command.arg(&bench.program).arg(&run).arg(bench.path("new")).arg(codec).args(tls);
                let mut running = Running::start(&run, "network", command)?;
                let code = running.code();
                let why = |why| format!("{why}; {}", running.said());
                if code != Some(0) {
                    return Err(why(format!("ended with {code:?}")));
                }
                // Its last line says how many packets there were.
                say(&format!("{network}: {}", running.said().lines().last().unwrap_or_default()));
                bench.judge_image(&run, code).map_err(why)
            }));
        }
    }
    Ok(cases)
}
