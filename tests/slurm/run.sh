#!/usr/bin/env bash
# Runs a sweep on a Slurm of this one machine, stops and kills tasks of it, and compares the results with those of a local
# run. usage: tests/slurm/run.sh PROGRAM..., such as: tests/slurm/run.sh dotnet paper-repro/bin/Release/net10.0/patchup.dll
# Exit code 0: all is well; 77: Slurm is not installed or cannot start here, and the last line says why; else a failure.
set -uo pipefail

folder=$(mktemp -d -t patchup-slurm-XXXXXX)
processes=()
job=

leave() {
    if [ "$job" ] && [ "$(squeue -h -j "$job" 2>/dev/null)" ]; then
        timeout 5 scancel --full --signal=KILL "$job"
        timeout 5 scancel "$job"
        for _ in $(seq 50); do [ -z "$(squeue -h -j "$job" 2>/dev/null)" ] && break; sleep 0.1; done
    fi 2>/dev/null

    for process in "${processes[@]}"; do kill -KILL "$process" 2>/dev/null; done
    for process in "${processes[@]}"; do wait "$process" 2>/dev/null; done
    rm -rf "$folder"
}
trap leave EXIT
trap 'exit 130' INT TERM

skip() { echo "$1"; exit 77; }
fail() { echo "$1"; for log in "$folder"/*.log "$folder"/out/slurm/*.log; do echo "== $log"; tail -n 30 "$log"; done; exit 1; }

PATH=$PATH:/usr/sbin:/sbin
for tool in munged slurmctld slurmd sbatch scontrol squeue scancel; do
    command -v "$tool" >/dev/null || skip "$tool is not installed"
done

# ---- a Slurm of one's own ----

user=$(id -un)
port() { shuf -i 20000-32000 -n 1; }
chmod 755 "$folder"
mkdir -m 755 "$folder/munge" "$folder/state" "$folder/spool"
head -c 1024 /dev/urandom >"$folder/munge/key"
chmod 600 "$folder/munge/key"
host=$(hostname -s)

cat >"$folder/slurm.conf" <<END
ClusterName=patchup
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$(port)
SlurmdPort=$(port)
SlurmUser=$user
SlurmdUser=$user
AuthType=auth/munge
AuthInfo=socket=$folder/munge/socket
CredType=cred/munge
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/builtin
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
MailProg=/bin/true
ReturnToService=2
SlurmdParameters=config_overrides
KillWait=5
NodeName=$host NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
PartitionName=all Nodes=$host Default=YES MaxTime=10 State=UP
END
export SLURM_CONF=$folder/slurm.conf

munged --foreground --force --key-file="$folder/munge/key" --socket="$folder/munge/socket" --pid-file="$folder/munge/pid" \
    --log-file="$folder/munge.log" --seed-file="$folder/munge/seed" >"$folder/munged.out.log" 2>&1 &
processes+=($!)
for _ in $(seq 50); do [ -S "$folder/munge/socket" ] && break; sleep 0.1; done
[ -S "$folder/munge/socket" ] || skip "munged does not start here: $(tail -n 1 "$folder/munged.out.log")"

slurmctld -D -f "$SLURM_CONF" >"$folder/slurmctld.out.log" 2>&1 &
processes+=($!)
slurmd -D -f "$SLURM_CONF" -N "$host" >"$folder/slurmd.out.log" 2>&1 &
processes+=($!)
for _ in $(seq 100); do [ "$(sinfo -h -o %t 2>/dev/null)" = idle ] && break; sleep 0.2; done
[ "$(sinfo -h -o %t 2>/dev/null)" = idle ] || skip "Slurm does not start here: $(grep -h error "$folder"/slurm*.log | tail -n 1)"
echo "Slurm is up after $SECONDS s"

# ---- a sweep ----

sweep="$folder/sweep.json"
cat >"$sweep" <<'END'
{
  "methods": ["none", "soft-patchup"],
  "seeds": 2,
  "base": { "width": 1, "epochs": 60, "trainPerClass": 12, "testPerClass": 2, "batchSize": 20 }
}
END

"$@" sweep slurm "$sweep" --out "$folder/out" >"$folder/submit.log" 2>&1 || fail "it cannot be submitted"
cat "$folder/submit.log"
job=$(sed -n 's/^Submitted batch job \([0-9]*\).*/\1/p' "$folder/submit.log")
[ "$job" ] || fail "no job was submitted"

log() { cat "$folder/out/slurm/${job}_$1.log" 2>/dev/null; }
state() { scontrol -o show job "${job}_$1" 2>/dev/null | sed -n 's/.*JobState=\([A-Z]*\).*/\1/p'; }
training() { for _ in $(seq 900); do log "$1" | grep -q "epoch $2," && return; sleep 0.1; done; fail "task $1 does not come to epoch $2"; }
# A task that is queued again would wait for two minutes.
at_once() { for _ in $(seq 100); do [ "$(state "$1")" = PENDING ] && scontrol update JobId="${job}_$1" StartTime=now && return; sleep 0.1; done; fail "task $1 is not queued again: $(state "$1")"; }

# What Slurm does a minute before a task's time is up.
training 0 5
# It does not see that the signal came, since the task then is queued again at once, and would go on trying.
timeout 2 scancel --signal=USR1 --batch "${job}_0"
at_once 0
log 0 | grep -q "stopped, and kept" || fail "task 0 kept nothing"
echo "task 0 was stopped and queued again after $SECONDS s"

# What a node that fails does: no process of the task lives on.
training 1 5
scontrol requeue "${job}_1"
at_once 1
echo "task 1 was killed and queued again after $SECONDS s"

for _ in $(seq 2400); do [ -z "$(squeue -h -j "$job" 2>/dev/null)" ] && break; sleep 0.1; done
[ -z "$(squeue -h -j "$job" 2>/dev/null)" ] || fail "the tasks do not end: $(squeue -h -j "$job")"
log 0 | grep -q "goes on from its checkpoint" || fail "task 0 did not go on"
echo "all tasks ended after $SECONDS s"

"$@" sweep status "$sweep" --out "$folder/out" >"$folder/status.log"
grep -q "4 runs: 4 finished" "$folder/status.log" || fail "not all are finished"
"$@" sweep run "$sweep" --out "$folder/local" >"$folder/local.log" 2>&1 || fail "the local run failed"

for part in records weights logs; do
    diff -r "$folder/local/$part" "$folder/out/$part" || fail "$part differ"
done
[ "$(ls "$folder/out/records" | wc -l)" = 4 ] || fail "there are not four records"
echo "four records, weights and logs are byte for byte those of a local run, after $SECONDS s"
