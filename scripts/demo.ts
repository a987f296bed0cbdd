/**
 * `npm run demo`: the kernel of a virtual machine is changed under a database, a program and a shell, in front of the
 * user's eyes, while a client outside of the machine stays on one connection.
 *
 *     npm run demo [-- --svg FILE]     --svg: a picture of what took how long
 */
import { copyFileSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { accelerator } from '../lab/accelerator.ts';
import { type BootOptions, boot } from '../lab/boot.ts';
import { run } from '../lab/command.ts';
import type { Disk } from '../lab/disk.ts';
import { type KernelName, kernel } from '../lab/kernels.ts';
import { requirePackages } from '../lab/packages.ts';
import { RedisClient } from '../lab/redis.ts';
import { guestRoot } from '../lab/root.ts';
import { removeTemporary, temporaryFolder } from '../lab/temporary.ts';
import type { Vm } from '../lab/vm.ts';
import { cpio } from '../src/kexec/cpio.ts';

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
(tideover update resume --hold --stay --json 2>/tmp/resume.log >/tmp/resumed.new; mv /tmp/resumed.new /tmp/resumed) &
until [ -e /run/tideover/held ] || ! kill -0 $!; do sleep 0.1; done
`;

/** What is said of each step of the update as it begins. */
const STEPS: Readonly<Record<string, string>> = {
  plan: 'everything is looked at, and nothing is touched',
  memory: 'memory is taken that the next kernel will leave alone',
  precopy: 'memory of the processes is copied while they run',
  load: 'the next kernel is loaded',
  freeze: 'the processes stand still and are written into that memory',
  spill: 'a copy goes to the disk',
  settle: 'where everything lies is compared with what the kernel was loaded with',
  jump: 'the processes are ended, the file systems stand still, and the next kernel starts',
};

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

const { values: options } = parseArgs({ options: { svg: { type: 'string' } } });
const begun = performance.now();
const folder = temporaryFolder();
let vm: Vm | undefined;
let client: RedisClient | undefined;
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
  client = new RedisClient(await vm.hostPort(6379));
  await client.fill(KEYS, 1000);
  await client.counted(20);
  const before = await look(vm, client);
  show(before);

  step(`tideover update: Linux ${FROM} -> ${TO}`);
  await change(vm);

  step('And now');
  await client.counted(40);
  const after = await look(vm, client);
  show(after);
  const answer = await ask(vm, 'answer');
  if (answer !== '42') throw new Error(`the variable of the shell is ${answer}`);
  say(`a variable of the shell:  answer=${answer}`);
  const kept = await client.check(KEYS, 1000);
  if (kept !== KEYS) throw new Error(`${KEYS - kept} of ${KEYS} keys are not what they were`);
  say(`keys of the database:     ${kept} of ${KEYS} are what they were`);
  const { count, longest } = client.said;
  say(`the client outside:       it counted to ${count}, without a gap or anything twice`);
  say(`its longest wait:         ${(longest / 1000).toFixed(1)} s`);
  for (const what of ['ids', 'connection'] as const) {
    if (JSON.stringify(before[what]) !== JSON.stringify(after[what])) throw new Error(`the ${what} is not what it was`);
  }

  step('What took how long');
  process.stdout.write(await vm.check('tideover update status --svg /tmp/timeline.svg', PATIENCE));
  if (options.svg !== undefined) await vm.copyOut('/tmp/timeline.svg', options.svg);
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

/** Changes the kernel, and says on the way what the machine does. */
async function change(machine: Vm): Promise<void> {
  const greeting = machine.agent.greeting;
  let shown = machine.console.text.length;
  const tell = setInterval(() => {
    const text = machine.console.text;
    const end = text.lastIndexOf('\n') + 1;
    for (const line of text.slice(shown, Math.max(shown, end)).split(/[\r\n]+/)) {
      const [, version] = /\] (Linux version \S+)/.exec(line) ?? [];
      const what = STEPS[line] ?? version ?? (/^tideover: /.test(line) ? line : undefined);
      if (what !== undefined) say(`${since()} ${what}`);
    }
    shown = Math.max(shown, end);
  }, 100);
  try {
    const line = 'tideover update --kernel /var/vmlinuz --initrd /var/initrd >/dev/console 2>&1';
    const failed = machine.run(line, PATIENCE).then(
      ({ status }) => Promise.reject(new Error(`the update ended with ${status}`)),
      () => new Promise<never>(() => {}),
    );
    const next = machine.nextKernel(greeting, PATIENCE.timeout);
    await Promise.race([next, failed]);
    say(`${since()} the system is up, and the processes come back`);
    await machine.check('for i in $(seq 600); do [ -f /tmp/resumed ] && exit; sleep 0.2; done; exit 1', PATIENCE);
  } finally {
    clearInterval(tell);
  }
}

interface State {
  readonly release: string;
  /** Seconds that the machine runs, and the database as it says itself. */
  readonly uptime: { readonly machine: number; readonly redis: number };
  /** Of the processes below each init, in its own namespace. */
  readonly ids: Readonly<Record<string, string>>;
  /** The client's, as the database sees it. */
  readonly connection: string;
  /** What the program says next. */
  readonly ticker: string;
}

async function look(machine: Vm, redis: RedisClient): Promise<State> {
  const names = ['redis', 'ticker', 'shell'];
  const id = (name: string) =>
    `p=$(cat /run/tideover/workloads/${name}/pid); set -- $(cat /proc/$p/task/$p/children); sed -n 's/^NSpid:.*\\t//p' /proc/$1/status`;
  const lines = '$(wc -l </var/log/tideover/ticker.log)';
  const more = `n=${lines}; for i in $(seq 600); do [ ${lines} -gt $n ] && break; sleep 0.2; done; tail -n 1 /var/log/tideover/ticker.log`;
  const said = await machine.check(['uname -r; cat /proc/uptime', ...names.map(id), more].join('\n'), PATIENCE);
  const [release, up, ...rest] = said.trim().split('\n') as [string, string, ...string[]];
  return {
    release,
    uptime: { machine: Math.floor(Number.parseFloat(up)), redis: Number(await redis.info('uptime_in_seconds')) },
    ids: Object.fromEntries(names.map((name, i) => [name, rest[i]!])),
    connection: await redis.connection(),
    ticker: rest.at(-1)!,
  };
}

function show({ release, uptime, ids, connection, ticker }: State): void {
  const numbers = Object.entries(ids).map(([name, id]) => `${name} ${id}`);
  say(`kernel:                   ${release}, for ${uptime.machine} s`);
  say(`the database runs:        for ${uptime.redis} s, as it says`);
  say(`the program says:         ${ticker}`);
  say(`process ids:              ${numbers.join(', ')} (in their namespaces)`);
  say(`the client's connection:  ${connection}, as the database sees it`);
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
  console.log(`\n${since()} ${text}`);
}

function since(): string {
  return `[${((performance.now() - begun) / 1000).toFixed(0).padStart(3)} s]`;
}

function say(text: string): void {
  console.log(`        ${text}`);
}
