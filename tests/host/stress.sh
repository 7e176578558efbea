#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Readers by the dozen while domains come and go, guests write and are upset, disks are uploaded,
# and libvirtd and the program are killed; ../stress/run.py does it.
#
#   STRESS_SECONDS=N  for how long (default: 40), besides begin and end
#   STRESS_SEED=N     what happens when (default: another one each time)
#   STRESS_READERS=N  (default: 64)
#   STRESS_LOGS=DIR   where all logs are kept after a failure
. "$(dirname "$0")/../lib/guest.sh"
. "$(dirname "$0")/../lib/openstack.sh"

STRESS_SECONDS=${STRESS_SECONDS:-40}
: "${STRESS_SEED:=$((RANDOM * 32768 + RANDOM))}"
again="STRESS_SECONDS=$STRESS_SECONDS STRESS_SEED=$STRESS_SEED"
echo "$again"

keep_logs() {
    [[ -n ${STRESS_LOGS:-} ]] || return 0
    mkdir -p "$STRESS_LOGS/$STRESS_SEED"
    mkdir -p "$T/state"
    cp -a "$T"/log.* "$T/state" "$STRESS_LOGS/$STRESS_SEED/"
    virsh list --all >"$STRESS_LOGS/$STRESS_SEED/log.domains" 2>&1
    echo "$again; all logs are in $STRESS_LOGS/$STRESS_SEED"
}
at_exit '((status == 0)) || keep_logs'

LISTEN_DEADLINE_S=300
cloud_start
cloud_login snap
# Memory is looked at where there is no sanitizer.
programs=("$VIRTSNAPFS")
[[ -z ${VIRTSNAPFS_PLAIN:-} ]] || programs=("$VIRTSNAPFS_PLAIN" "$VIRTSNAPFS")
mounts+=("$T/mnt")
python3 "$LIB_DIR/../stress/run.py" --folder "$T" --seconds "$STRESS_SECONDS" \
    --seed "$STRESS_SEED" --readers "${STRESS_READERS:-64}" "${programs[@]}" ||
    fail "what the run found stands above; again: $again"
