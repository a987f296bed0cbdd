/**
 * Checkpoint and restore in guests, and from one kernel to another: 6.1 has no PAGEMAP_SCAN, no ids of timers to choose and no
 * guarded pages, and tells what was written by soft-dirty bits alone; 7.2 has another vdso. All programs of a guest are one tree, saved and restored at once; each checks itself.
 */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { boot } from '../../lab/boot.ts';
import { copyCriu } from '../../lab/criu.ts';
import { removeTemporary, temporaryFolder } from '../../lab/temporary.ts';
import type { Vm } from '../../lab/vm.ts';

const sources = new URL('../integration/process/programs/', import.meta.url).pathname;
const folder = temporaryFolder();
after(() => removeTemporary(folder));

/** What a guest needs to start programs, wait for them and end them: each has a folder with its output in `log`. */
const SCRIPT = `
group=/tmp/p/$2
case $1 in
run)
  shift 2
  for each in "$@"; do
    name=\${each%% *}
    mkdir -p $group/$name
    (cd $group/$name; exec /tmp/p/bin/$each >log 2>&1) &
    echo $! >$group/$name/pid
  done
  wait ;;
start)
  echo $3 >/proc/sys/kernel/ns_last_pid
  name=$2; shift 3
  setsid sh /tmp/p/sh run $name "$@" </dev/null >/dev/null 2>&1 &
  echo $! >/tmp/p/$name.pid
  for i in $(seq 600); do
    [ $(grep -l ready $group/*/log 2>/dev/null | wc -l) = $# ] && break
    sleep 0.1
  done
  sleep 0.5 ;;
gone)
  for pid in $(cat /tmp/p/$2.pid $group/*/pid); do
    for i in $(seq 100); do [ -e /proc/$pid ] || break; sleep 0.1; done
  done ;;
end)
  sleep 0.5
  for pid in $group/*/pid; do kill $(cat $pid); done
  for log in $group/*/log; do
    for i in $(seq 300); do grep -qE '^ok|faults' $log && break; sleep 0.1; done
    echo "$log: $(tail -n 1 $log)"
    grep -h 'not as it was' $log
  done ;;
esac
true
`;

const PROGRAMS = ['state 60', 'tree 4 3', 'more', 'clock 1'];

/** A folder for guests with all programs. They are static. */
before(async () => {
  const bin = join(folder, 'p/bin');
  mkdirSync(bin, { recursive: true });
  for (const name of [...PROGRAMS, 'written'].map((each) => each.split(' ')[0]!)) {
    execFileSync('gcc', ['-O1', '-static', '-pthread', '-o', join(bin, name), join(sources, `${name}.c`)]);
  }
  writeFileSync(join(folder, 'p/sh'), SCRIPT);
  await copyCriu('bookworm', join(folder, 'criu'));
});

async function start(vm: Vm, group: string, firstPid: number, programs: readonly string[]): Promise<void> {
  const names = programs.map((each) => `'${each}'`).join(' ');
  await vm.check(`sh /tmp/p/sh start ${group} ${firstPid} ${names}`, { timeout: 120_000 });
}

/** Saves a group into an image of its name, and waits until its ids are free. */
async function save(vm: Vm, group: string, command = 'tideover checkpoint'): Promise<void> {
  const options = `-D /tmp/p/${group}.image --file-locks --ghost-limit 1M`;
  const run = `mkdir -p /tmp/p/${group}.image; ${command} -t $(cat /tmp/p/${group}.pid) ${options}`;
  await vm.check(`${run} || { tail -n 30 /tmp/p/${group}.image/dump.log; false; }`, { timeout: 120_000 });
  await vm.check(`sh /tmp/p/sh gone ${group}`);
}

async function restore(vm: Vm, group: string): Promise<void> {
  await vm.check(`tideover restore -D /tmp/p/${group}.image -d --file-locks`, { timeout: 120_000 });
}

/** Ends the programs of a group. @returns what they say at last, by name */
async function end(vm: Vm, group: string): Promise<Record<string, string>> {
  const said = await vm.check(`sh /tmp/p/sh end ${group}`, { timeout: 120_000 });
  const lines = [...said.matchAll(/^\/tmp\/p\/\w+\/(\w+)\/log: (.*)\n((?:not as.*\n)*)/gm)];
  return Object.fromEntries(lines.map(([, name, last, faults]) => [name, `${last}${faults && `: ${faults}`}`]));
}

const ALL_WELL = { state: 'ok', tree: 'ok', more: 'ok', clock: 'ok' };

/** CRIU does not keep that an eventfd is a semaphore, that SIGTRAP is ignored, nor that a timerfd that has gone off will again. */
const CRIUS_OWN = /^\d faults: not .*read\(sem.*\n(not .*timerfd_gettime\(again.*\n)?not .*signal\(SIGTRAP.*\n$/;

function withoutCrius(said: Record<string, string>): Record<string, string> {
  const state = said.state?.replace(CRIUS_OWN, 'ok');
  return { ...said, ...(state === undefined ? {} : { state }) };
}

const GROUPS = ['a', 'c'];

/** What sock_diag(7) takes; a guest loads no module when it is asked for. */
const DIAGNOSTICS = ['unix_diag', 'inet_diag', 'tcp_diag', 'udp_diag'];

async function bring(vm: Vm): Promise<void> {
  await vm.copyIn(join(folder, 'p'), '/tmp/p');
}

test('6.1: checkpoint, death and restore; and images for 7.2, by tideover and by CRIU 3.17', async () => {
  const vm = await boot({
    kernel: '6.1',
    memory: 1024,
    cpus: 2,
    modules: [...DIAGNOSTICS, 'nf_tables'],
  });
  try {
    await bring(vm);
    await vm.copyIn(join(folder, 'criu'), '/tmp/criu');
    await start(vm, 'a', 5000, PROGRAMS);
    await save(vm, 'a');
    await start(vm, 'c', 6000, PROGRAMS);
    const criu = '/tmp/criu/ld-linux-x86-64.so.2 --library-path /tmp/criu /tmp/criu/criu dump -v4 -o dump.log';
    await save(vm, 'c', criu);
    await vm.check(
      `tar -C /tmp/p -cf /tmp/groups.tar ${GROUPS.map((name) => `${name} ${name}.image ${name}.pid`).join(' ')}`,
    );
    await vm.copyOut('/tmp/groups.tar', join(folder, 'groups.tar'));
    await restore(vm, 'a');
    assert.deepEqual(await end(vm, 'a'), ALL_WELL);
    await inParts(vm, 'd', 7000);
  } finally {
    await vm.close();
  }
});

/** Pre-dumps of a program that writes all the time, the checkpoint after them, and its restore without waiting for memory. */
async function inParts(vm: Vm, group: string, firstPid: number): Promise<void> {
  await start(vm, group, firstPid, ['written']);
  const image = (i: number) => `/tmp/p/${group}.image${i}`;
  for (const i of [1, 2, 3]) {
    const what = i < 3 ? 'pre-dump' : 'checkpoint';
    const parent = i === 1 ? '' : ` --prev-images-dir ../${group}.image${i - 1}`;
    const said = await vm.check(`tideover ${what} -t $(cat /tmp/p/${group}.pid) -D ${image(i)}${parent} --json`);
    const { unchanged, unwatched } = JSON.parse(said.slice(said.indexOf('{')));
    assert.ok(!unwatched && unchanged > 0 === i > 1, said);
  }
  await vm.check(`sh /tmp/p/sh gone ${group}`);
  await vm.check(`tideover restore --lazy-pages -D ${image(3)} -d`);
  assert.deepEqual(await end(vm, group), { written: 'ok' });
}

test('7.2: what 6.1 saved goes on, by tideover and by CRIU 3.17, and is saved again', async () => {
  const vm = await boot({ kernel: '7.2', memory: 1024, cpus: 2, modules: DIAGNOSTICS });
  try {
    await bring(vm);
    await vm.copyIn(join(folder, 'groups.tar'), '/tmp/groups.tar');
    await vm.check('tar -C /tmp/p -xf /tmp/groups.tar');
    await restore(vm, 'a');
    await restore(vm, 'c');
    await vm.check('rm -r /tmp/p/a.image');
    await save(vm, 'a');
    await restore(vm, 'a');
    assert.deepEqual(await end(vm, 'a'), ALL_WELL);
    assert.deepEqual(withoutCrius(await end(vm, 'c')), ALL_WELL);
    await start(vm, 'b', 8000, PROGRAMS);
    await save(vm, 'b');
    await restore(vm, 'b');
    assert.deepEqual(await end(vm, 'b'), ALL_WELL);
  } finally {
    await vm.close();
  }
});
