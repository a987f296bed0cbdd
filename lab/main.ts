/** `npm run lab`: guests for people. */
import { spawnSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { TideoverError } from '../src/errors.ts';
import { accelerator } from './accelerator.ts';
import { commandLine } from './boot.ts';
import { say } from './command.ts';
import { debianDisk, modulesDisk } from './debian.ts';
import { type KernelName, kernel, kernelNames, type Lock } from './kernels.ts';
import { requirePackages } from './packages.ts';
import { placeFirmware, qemuArguments } from './qemu.ts';
import { guestRoot } from './root.ts';
import { temporaryFolder } from './temporary.ts';

const help = `Virtual machines in which kernels may be loaded, jumped into and crashed without risk.

usage: npm run lab -- shell [options]    start a guest with its console on this terminal; ^A x ends it
       npm run lab -- list               kernels, and how guests are run on this machine

options of shell:
  --kernel NAME    ${kernelNames.join(', ')} (6.12)
  --memory MB      (512; 1024 with --debian)
  --cpus N         (1)
  --uefi           UEFI firmware instead of BIOS
  --debian         Debian 12 with systemd on a throw-away disk, instead of the small root
  --program NAME   put a program of this machine into the guest; may be given several times
  --append WORDS   add to the kernel's command line
`;

const options = {
  kernel: { type: 'string', default: '6.12' },
  memory: { type: 'string' },
  cpus: { type: 'string', default: '1' },
  uefi: { type: 'boolean', default: false },
  debian: { type: 'boolean', default: false },
  program: { type: 'string', multiple: true },
  append: { type: 'string', default: '' },
  help: { type: 'boolean', short: 'h', default: false },
} as const;

/** What was typed cannot be meant. */
class UsageError extends TideoverError {
  readonly code = 'usage';
}

async function main(args: string[]): Promise<number> {
  const { values, positionals } = parse(args);
  const [command, ...rest] = positionals;
  if (values.help || command === undefined) {
    process[values.help ? 'stdout' : 'stderr'].write(help);
    return values.help ? 0 : 2;
  }
  if (rest.length > 0) throw new UsageError(`too many words: ${rest.join(' ')}`);
  if (command === 'list') return list();
  if (command === 'shell') return shell(values);
  throw new UsageError(`there is no '${command}'; there are shell and list`);
}

async function list(): Promise<number> {
  await requirePackages('qemu');
  const { name: how, reason } = accelerator();
  const why = reason === '' ? '' : ` (KVM does not work here: ${reason})`;
  console.log(`guests run under ${how === 'kvm' ? 'KVM' : 'software emulation'}${why}\n`);
  const lock = JSON.parse(readFileSync(join(import.meta.dirname, 'kernels.lock.json'), 'utf8')) as Lock;
  for (const name of kernelNames) {
    const [deb] = lock[name] ?? [];
    const source =
      deb === undefined ? "the newest that Debian's archive has" : `${deb.package} ${deb.version} (${deb.suite})`;
    console.log(`${name.padEnd(6)} ${name === 'jump' ? 'built here, with kexec jump, from ' : ''}${source}`);
  }
  return 0;
}

async function shell(values: ReturnType<typeof parse>['values']): Promise<number> {
  if (!(kernelNames as readonly string[]).includes(values.kernel)) {
    throw new UsageError(`there is no kernel '${values.kernel}'; there are ${kernelNames.join(', ')}`);
  }
  const memory = positive('memory', values.memory ?? (values.debian ? '1024' : '512'));
  const cpus = positive('cpus', values.cpus);
  await requirePackages('qemu', ...(values.uefi ? (['uefi'] as const) : []));
  const chosen = await kernel(values.kernel as KernelName);
  const disk = values.debian ? await debianDisk() : undefined;
  const disks = disk === undefined ? [] : [disk, ...(await modulesDisk(chosen))];
  const folder = temporaryFolder();
  const machine = { memory, cpus, firmware: values.uefi ? ('uefi' as const) : ('bios' as const), disks };
  placeFirmware(machine, folder);
  writeFileSync(join(folder, 'initrd'), await guestRoot(chosen, { programs: values.program ?? [] }));
  const root = values.debian ? 'lab.root=/dev/vda ' : '';
  const append = `${commandLine} quiet lab.shell ${root}${values.append}`.trim();
  const args = qemuArguments(machine, { kernel: chosen.vmlinuz, initrd: 'initrd', append }, true);
  say(`starting ${chosen.release}; ^A x ends it, ^A h shows more keys`);
  const { status, error } = spawnSync('setpriv', ['--pdeathsig', 'KILL', 'qemu-system-x86_64', ...args], {
    cwd: folder,
    stdio: 'inherit',
  });
  if (error !== undefined) throw error;
  return status ?? 1;
}

function parse(args: string[]) {
  try {
    return parseArgs({ args, allowPositionals: true, options });
  } catch (error) {
    throw new UsageError((error as Error).message);
  }
}

function positive(option: string, text: string): number {
  if (/^[1-9][0-9]{0,6}$/.test(text)) return Number(text);
  throw new UsageError(`--${option}: '${text}' is not a whole number above 0`);
}

try {
  process.exitCode = await main(process.argv.slice(2));
} catch (error) {
  if (!(error instanceof TideoverError)) throw error;
  process.stderr.write(`lab: ${error.message}\n`);
  if (error instanceof UsageError) process.stderr.write(`\n${help}`);
  process.exitCode = error instanceof UsageError ? 2 : 1;
}
