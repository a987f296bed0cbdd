/**
 * `npm run demo`: the kernel of a virtual machine is changed under a database, a program and a shell, in front of the
 * user's eyes, while a client outside of the machine stays on one connection.
 */
import { copyFileSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { accelerator } from '../lab/accelerator.ts';
import { type BootOptions, boot } from '../lab/boot.ts';
import { run } from '../lab/command.ts';
import type { Disk } from '../lab/disk.ts';
import { type KernelName, kernel } from '../lab/kernels.ts';
import { requirePackages } from '../lab/packages.ts';
import { guestRoot } from '../lab/root.ts';
import { removeTemporary, temporaryFolder } from '../lab/temporary.ts';
import type { Vm } from '../lab/vm.ts';
import { cpio } from '../src/kexec/cpio.ts';
import { Client } from './demo-client.ts';

const [FROM, TO] = ['6.1', '6.12'] as const satisfies readonly KernelName[];
const KEYS = 5000;
const PATIENCE = { timeout: 300_000 };
/** What connections and giving memory back need of a kernel, and the disk. */
const root = {
  programs: ['redis-server'],
  modules: ['ext4', 'nf_tables', 'inet_diag', 'tcp_diag', 'udp_diag', 'unix_diag'],
  spareModules: ['device_dax', 'dax_hmem', 'kmem'],
} satisfies Partial<BootOptions>;

const SERIAL = 'demo';
/** The machine's disk: what it writes is there under the next kernel too. */
const MOUNT = `for d in /sys/block/vd*; do [ "$(cat $d/serial)" = ${SERIAL} ] && mkdir -p /var && mount -t ext4 /dev/\${d##*/} /var; done`;
/** What a system's units do: see docs/update.md. */
const EARLY = `${MOUNT}
tideover update resume --hold >/dev/null 2>&1
tideover update resume --json >/tmp/resumed 2>/tmp/resume.log &
`;

/** Counts in one thread, and the seconds by a timer in another one. */
const TICKER = `import { Worker, isMainThread, parentPort } from 'node:worker_threads';
if (!isMainThread) {
  let seconds = 0;
  setInterval(() => parentPort.postMessage(++seconds), 1000);
} else {
  let count = 0;
  let seconds = 0;
  setInterval(() => count++, 20);
  new Worker(import.meta.filename).on('message', (now) => {
    if (now !== ++seconds) throw new Error('a second is missing');
    console.log('process ' + process.pid + ': ' + seconds + ' seconds by its timer, ' + count + ' counted');
  });
}
`;

const begun = performance.now();
const folder = temporaryFolder();
let vm: Vm | undefined;
let client: Client | undefined;
try {
  await requirePackages('qemu', 'guest root', 'squashfs', 'kernels', 'disk images', 'database');
  step(
    `A virtual machine with Linux ${FROM}, ${accelerator().name === 'kvm' ? 'under KVM' : 'under software emulation'}`,
  );
  const disk = await machineDisk();
  vm = await boot({ kernel: FROM, memory: 1280, cpus: 2, disks: [disk], ...root });
  await vm.check(MOUNT);

  step('A database, a program with threads and timers, and a shell are started with tideover run');
  const redis = 'redis-server --port 6379 --bind 0.0.0.0 --protected-mode no --save "" --dir /var';
  await vm.check(`tideover run -d redis -- ${redis}`, PATIENCE);
  await vm.check('tideover run -d ticker -- node /var/ticker.mjs', PATIENCE);
  await vm.check('tideover run -dt shell -- sh -i', PATIENCE);
  await type(vm, 'answer=42');
  client = new Client(await vm.hostPort(6379));
  await client.fill(KEYS);
  await client.counted(20);
  const before = await look(vm);
  show(before);

  step(`tideover update: Linux ${FROM} -> ${TO}`);
  await change(vm);

  step('And now');
  await client.counted(40);
  const after = await look(vm);
  show(after);
  const answer = await ask(vm, 'answer');
  if (answer !== '42') throw new Error(`the variable of the shell is ${answer}`);
  say(`a variable of the shell:  answer=${answer}`);
  const kept = await client.check(KEYS);
  if (kept !== KEYS) throw new Error(`${KEYS - kept} of ${KEYS} keys are not what they were`);
  say(`keys of the database:     ${kept} of ${KEYS} are what they were`);
  const { count, longest } = client.said;
  say(`the client outside:       one connection; it counted to ${count}, without a gap or anything twice`);
  say(`its longest wait:         ${(longest / 1000).toFixed(1)} s`);
  if (JSON.stringify(before.ids) !== JSON.stringify(after.ids)) throw new Error('process ids are others');

  step('What took how long');
  process.stdout.write(await vm.check('tideover update status', PATIENCE));
  step(`Done in ${((performance.now() - begun) / 1000).toFixed(0)} s. Nothing is left running.`);
} catch (error) {
  console.error(`demo: ${(error as Error).message}`);
  console.error(await whatThereIs());
  process.exitCode = 1;
} finally {
  client?.end();
  await vm?.close();
  removeTemporary(folder);
}

/** With the next kernel and its initramfs on it, as a distribution installs them. */
async function machineDisk(): Promise<Disk> {
  const next = await kernel(TO);
  const [stage, path] = [join(folder, 'stage'), join(folder, 'disk')];
  mkdirSync(stage);
  copyFileSync(next.vmlinuz, join(stage, 'vmlinuz'));
  writeFileSync(join(stage, 'ticker.mjs'), TICKER);
  const early = cpio([{ name: 'lab/early', mode: 0o644, data: EARLY }]);
  writeFileSync(join(stage, 'initrd'), Buffer.concat([await guestRoot(next, root), early]));
  await run(['truncate', '-s', '1G', path]);
  await run(['mkfs.ext4', '-q', '-F', '-d', stage, path]);
  return { path, format: 'raw', serial: SERIAL };
}

/** What a machine says in which something went wrong. */
async function whatThereIs(): Promise<string> {
  const look = 'tideover update status; cat /tmp/resume.log; tail -n 5 /var/log/tideover/*.log';
  const said = await vm?.run(look, PATIENCE).catch(() => undefined);
  return `${said?.stdout ?? ''}${said?.stderr ?? ''}${vm?.console.lastLines() ?? ''}`;
}

/** Changes the kernel, and says on the way what the machine says. */
async function change(machine: Vm): Promise<void> {
  const greeting = machine.agent.greeting;
  const from = machine.console.text.length;
  let shown = from;
  const tell = setInterval(() => {
    const text = machine.console.text;
    const end = text.lastIndexOf('\n') + 1;
    for (const line of text.slice(shown, Math.max(shown, end)).split(/[\r\n]+/))
      if (/^tideover|^[A-Z]/.test(line)) say(line);
    shown = Math.max(shown, end);
  }, 200);
  try {
    const line = 'tideover update --kernel /var/vmlinuz --initrd /var/initrd >/dev/console 2>&1';
    const failed = machine.run(line, PATIENCE).then(
      ({ status }) => Promise.reject(new Error(`the update ended with ${status}`)),
      () => new Promise<never>(() => {}),
    );
    const next = machine.nextKernel(greeting, PATIENCE.timeout);
    const { release } = await Promise.race([next, failed]);
    say(`Linux ${release} is there, and the processes come back`);
    await machine.check('for i in $(seq 600); do [ -s /tmp/resumed ] && exit; sleep 0.2; done; exit 1', PATIENCE);
  } finally {
    clearInterval(tell);
  }
}

interface State {
  readonly release: string;
  /** Of the processes below each init, in its own namespace. */
  readonly ids: Readonly<Record<string, string>>;
  /** What the program says next. */
  readonly ticker: string;
}

async function look(machine: Vm): Promise<State> {
  const ids: Record<string, string> = {};
  for (const name of ['redis', 'ticker', 'shell']) {
    const find = `p=$(cat /run/tideover/workloads/${name}/pid); set -- $(cat /proc/$p/task/$p/children)`;
    ids[name] = (await machine.check(`${find}; sed -n 's/^NSpid:.*\\t//p' /proc/$1/status`)).trim();
  }
  const lines = '$(wc -l </var/log/tideover/ticker.log)';
  const more = `n=${lines}; for i in $(seq 600); do [ ${lines} -gt $n ] && exit; sleep 0.2; done; exit 1`;
  await machine.check(more, PATIENCE);
  const ticker = (await machine.check('tail -n 1 /var/log/tideover/ticker.log')).trim();
  return { release: (await machine.check('uname -r')).trim(), ids, ticker };
}

function show({ release, ids, ticker }: State): void {
  say(`kernel:                   ${release}`);
  say(
    `process ids:              ${Object.entries(ids)
      .map(([name, id]) => `${name} ${id}`)
      .join(', ')} (in their namespaces)`,
  );
  say(`the program says:         ${ticker}`);
}

/** Types a line into the shell. */
async function type(machine: Vm, line: string): Promise<void> {
  await machine.check(`(echo '${line}'; sleep 1) | tideover attach shell`, PATIENCE);
}

/** @returns what a variable of the shell is */
async function ask(machine: Vm, variable: string): Promise<string> {
  await type(machine, `echo "it is <$${variable}>"`);
  // In the log there is also what was typed.
  const find = "grep -o '^it is <.*>' /var/log/tideover/shell.log";
  const said = await machine.check(`for i in $(seq 300); do ${find} && exit; sleep 0.2; done; exit 1`, PATIENCE);
  return said.slice('it is <'.length, said.lastIndexOf('>'));
}

function step(text: string): void {
  console.log(`\n[${((performance.now() - begun) / 1000).toFixed(0).padStart(3)} s] ${text}`);
}

function say(text: string): void {
  console.log(`        ${text}`);
}
