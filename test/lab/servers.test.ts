/**
 * The kernel is changed under a Debian with systemd, and what runs goes on: redis as the service that Debian makes of it, PostgreSQL
 * in the middle of pgbench, a tree of a hundred processes. Their clients outside stay on their connections.
 */
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { bootDebian, debianDisk, modulesDisk } from '../../lab/debian.ts';
import { type KernelName, kernel } from '../../lab/kernels.ts';
import { RedisClient } from '../../lab/redis.ts';
import type { Vm } from '../../lab/vm.ts';
import { Bank, transactions } from './bank.ts';
import { faultProgram, runFault } from './faults.ts';
import { change, guestProgram, KEPT_MODULES, restoredPid, SLOW, SPARE_MODULES } from './keeping.ts';
import { KERNELS, kernelsDisk, mountKernels, nextKernel } from './next-kernels.ts';
import { keepsService } from './service.ts';

const full = process.env.TIDEOVER_FULL !== undefined;
const names: readonly KernelName[] = full ? ['6.12', '6.18', '7.2'] : ['6.12'];
const VALUE = 4000;
const KEYS = ((full ? 200 : 20) * 1_000_000) / VALUE;
const MEMORY = full ? 2048 : 1280;

const files = { ring: await guestProgram('ring'), 'fault.mjs': await faultProgram() };
const disk = await kernelsDisk(names, files, SPARE_MODULES, KEPT_MODULES);
after(() => disk.remove());

/** With its default of POSIX shared memory: a file in /dev/shm, of which nothing is there when the next kernel mounts that. */
const POSTGRES = `/usr/lib/postgresql/15/bin/postgres -D /var/lib/postgresql/15/main \
-c config_file=/etc/postgresql/15/main/postgresql.conf -c hba_file=/var/lib/postgresql/hba.conf -c listen_addresses=0.0.0.0 \
-c shared_buffers=16MB -c ssl=off`;
const AS_POSTGRES = 'setpriv --reuid=postgres --regid=postgres --init-groups --';

/** Is not kept, and says on the disk when it was stopped in an orderly way. */
const ORDERLY = `[Service]
ExecStart=/bin/sleep infinity
ExecStop=/bin/sh -c "touch /run/stops; sleep 1; echo orderly >>/root/stopped"
`;

/** Starts all that is to be kept. */
async function start(vm: Vm): Promise<void> {
  await vm.check('tideover update setup', SLOW);
  const settings = 'bind 0.0.0.0\\nprotected-mode no\\nsave \\"\\"\\n';
  await vm.check(`printf "${settings}" >>/etc/redis/redis.conf`);
  await vm.check('tideover keep redis-server && systemctl restart redis-server', SLOW);
  await vm.check(`cp ${KERNELS}/ring /root/ring && tideover run -d ring -- /root/ring`, SLOW);
  await vm.check("echo 'host all all 0.0.0.0/0 trust' >/var/lib/postgresql/hba.conf");
  await vm.check(`tideover run -d postgresql -- ${AS_POSTGRES} ${POSTGRES}`, SLOW);
  const ready = "grep -q 'ready to accept connections' /var/log/tideover/postgresql.log";
  await vm.check(`for i in $(seq 600); do ${ready} && exit; sleep 0.2; done; exit 1`, SLOW);
  await vm.check('cat >/etc/systemd/system/orderly.service && systemctl daemon-reload', { input: ORDERLY });
}

/** An update is killed while it stops a service; under TIDEOVER_FULL also before and after. */
const STOPPED: readonly (readonly [string, string])[] = [
  ['within', 'stop'],
  ...(full ? ['stop', 'precopy'] : []).map((step) => ['kill', step] as const),
];

/** The service runs again, and what was to be kept goes on. */
async function startsAgain(vm: Vm): Promise<void> {
  await vm.check('systemctl start orderly', SLOW);
  for (const fault of STOPPED) {
    const name = fault.join(' at ');
    await vm.check('rm -f /run/stops');
    const ran = await runFault(vm, fault, ['ring'], { stop: ['orderly'] });
    assert.equal(ran.status, 137, `${name}: ${ran.stdout}${ran.stderr}`);
    assert.match(await vm.check('tideover update abort', SLOW), /^started again: orderly$/m, name);
    assert.equal(
      (await vm.check('systemctl is-active orderly; cat /sys/kernel/kexec_loaded')).trim(),
      'active\n0',
      name,
    );
    const { record, waiting } = JSON.parse(await vm.check('tideover update status --json', SLOW));
    assert.deepEqual([record.state, waiting], ['failed', []], name);
    await untilRound(vm, (await rounds(vm)) + 10);
  }
  await vm.check('rm -f /root/stopped');
}

/** Rounds of the token so far; none is missing, and all processes took part with the ids that they had in the first. */
async function rounds(vm: Vm): Promise<number> {
  const lines = (await vm.check('cat /var/log/tideover/ring.log')).trim().split('\n');
  const ids = lines[0]!.split(' ').at(-1);
  assert.deepEqual(
    lines,
    lines.map((_, i) => `round ${i + 1}: 100 processes, ${ids}`),
  );
  return lines.length;
}

async function untilRound(vm: Vm, round: number): Promise<void> {
  const reached = `grep -q '^round ${round}:' /var/log/tideover/ring.log`;
  await vm.check(`for i in $(seq 600); do ${reached} && exit; sleep 0.2; done; exit 1`, SLOW);
}

/** Of the service, in its namespace. */
async function redisId(vm: Vm): Promise<string> {
  const child = 'p=$(systemctl show -p MainPID --value redis-server); set -- $(cat /proc/$p/task/$p/children)';
  return vm.check(`${child}; grep -E '^(Name|NSpid|Uid)' /proc/$1/status | sed 's/^NSpid:.*\\t//'`);
}

const last = names.at(-1)!;

test(`Debian with systemd, 6.1 -> ${names.join(' -> ')}: redis, PostgreSQL and a hundred processes go on${full ? '; and from the disk where the next kernel dies' : ''}`, async (t) => {
  const root = await debianDisk(['postgresql', 'redis-server']);
  const modules = await Promise.all(names.map(async (name) => [name, await modulesDisk(await kernel(name))] as const));
  const append = 'systemd.mask=postgresql.service';
  /** @param from its modules are there already */
  const machine = (from: KernelName) => {
    const disks = [disk, ...modules.flatMap(([name, of]) => (name === from ? [] : of))];
    return bootDebian({ kernel: from, memory: MEMORY, cpus: 2, disk: root, disks, append });
  };
  const inMachine = async (from: KernelName, work: (vm: Vm) => Promise<void>) => {
    const vm = await machine(from);
    try {
      await work(vm);
    } catch (error) {
      t.diagnostic(await whatThereIs(vm));
      throw error;
    } finally {
      await vm.close();
    }
  };
  try {
    let left = { rounds: 0, count: 0, transactions: 0 };
    await inMachine('6.1', async (vm) => {
      left = await changeAll(vm, (text) => t.diagnostic(text));
      if (!full) return;
      const { vmlinuz, initrdOptions } = await nextKernel(vm, last);
      const dies = '--append rdinit=/nonexistent';
      void vm.run(`tideover update --kernel ${vmlinuz} ${initrdOptions} ${dies}`, SLOW).catch(() => {});
      assert.equal(await vm.off(), 0, 'it has reset the machine');
    });
    if (!full) return;
    await inMachine(last, async (vm) => {
      await restoredPid(vm);
      t.diagnostic(await vm.check('tideover update status', SLOW));
      await untilRound(vm, left.rounds + 10);
      await rounds(vm);
      const redis = new RedisClient(await vm.hostPort(6379), left.count);
      try {
        await redis.counted(10);
        assert.equal(await redis.check(KEYS, VALUE), KEYS);
      } finally {
        redis.end();
      }
      assert.equal(await transactions(await vm.hostPort(5432)), left.transactions);
    });
  } finally {
    root.remove();
  }
});

/** From kernel to kernel, with clients outside that stay on their connections. @returns how far all were at the end */
async function changeAll(vm: Vm, say: (text: string) => void) {
  let redis: RedisClient | undefined;
  let bank: Bank | undefined;
  try {
    await mountKernels(vm);
    assert.equal((await vm.check('systemctl is-system-running')).trim(), 'running');
    if (!full) await keepsService(vm);
    await start(vm);
    await untilRound(vm, 1);
    await startsAgain(vm);
    redis = new RedisClient(await vm.hostPort(6379));
    await redis.fill(KEYS, VALUE);
    bank = await Bank.open(await vm.hostPort(5432));
    const id = await redisId(vm);
    const shared = await vm.check('ls /dev/shm');
    assert.match(shared, /^PostgreSQL\.\d+$/m);
    let stopped = '';
    for (const name of names) {
      await redis.counted(20);
      await bank.more(5);
      if (full) await plans(vm, name);
      const round = await rounds(vm);
      await vm.check('systemctl start orderly', SLOW);
      await change(vm, name, '--stop orderly');
      await restoredPid(vm);
      stopped += 'orderly\n';
      assert.equal(await vm.check('cat /root/stopped'), stopped);
      assert.equal(await vm.check('ls /dev/shm'), shared);
      await redis.counted(40);
      await bank.more(10);
      await untilRound(vm, round + 10);
      await rounds(vm);
      assert.equal(await redisId(vm), id);
      assert.match(await vm.check('systemctl status redis-server'), /Active: active \(running\)/);
      say(await vm.check('tideover update status', SLOW));
    }
    assert.equal(await redis.check(KEYS, VALUE), KEYS);
    const transactions = await bank.settle();
    const { longest } = redis.said;
    const count = await redis.stop();
    say(`redis counted to ${count}, ${(longest / 1000).toFixed(1)} s at most without an answer`);
    say(`PostgreSQL: ${transactions} transactions`);
    return { count, transactions, rounds: await rounds(vm) };
  } finally {
    redis?.end();
    bank?.end();
  }
}

/** With the kernel and its initramfs as a distribution installs them. */
async function plans(vm: Vm, name: KernelName): Promise<void> {
  const { vmlinuz, initrds, release } = await nextKernel(vm, name);
  await vm.check(`ln -s ${vmlinuz} /boot/vmlinuz-${release} && cat ${initrds.join(' ')} >/boot/initrd.img-${release}`);
  const said = await vm.check(`tideover update plan --kernel /boot/vmlinuz-${release} && rm /boot/*-${release}`, SLOW);
  for (const tree of ['postgresql', 'redis-server', 'ring']) assert.match(said, new RegExp(`^${tree} .* MiB$`, 'm'));
  assert.match(said, /^it takes .* MiB of memory until the next kernel starts; .* [MG]iB are free$/m);
  assert.match(said, /^they will stand still for about [\d.]+ s /m);
  assert.match(said, /^a copy goes to \/var\/lib\/tideover\/spilled: .* MiB$/m);
}

/** What a machine says in which something went wrong. */
async function whatThereIs(vm: Vm): Promise<string> {
  const look = `tideover update status; journalctl -q -b -o cat -n 40 -u 'tideover-*' -u redis-server; tail -n 5 /var/log/tideover/*.log`;
  const said = await vm.run(look, { timeout: 60_000 }).catch(() => undefined);
  return `${said?.stdout ?? ''}${said?.stderr ?? ''}${vm.console.lastLines()}`;
}
