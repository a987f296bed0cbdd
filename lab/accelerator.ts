/**
 * How QEMU runs a guest's instructions: KVM where it really works, else software emulation (TCG). /dev/kvm may open
 * and still fail, so a machine of a few instructions is run to see. The answer is kept until the host boots again.
 */
import { spawnSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { cacheDirectory } from './cache.ts';
import { removeTemporary, temporaryFolder } from './temporary.ts';

export interface Accelerator {
  readonly name: 'kvm' | 'tcg';
  /** QEMU's -accel and -cpu. */
  readonly arguments: readonly string[];
  /** For people: why not KVM, or empty. */
  readonly reason: string;
}

/** Written to isa-debug-exit, which makes 2n+1 of it the exit status. */
const sign = 0x2a;

/** A boot sector: mov al, sign; out 0xf4, al; hlt; jmp to the hlt. */
const bootSector = Buffer.alloc(512);
bootSector.set([0xb0, sign, 0xe6, 0xf4, 0xf4, 0xeb, 0xfd]);
bootSector.set([0x55, 0xaa], 510);

/**
 * Software emulation runs all processors of a guest in one thread. With a thread for each, QEMU 7.2 may keep a translation of
 * code that another processor is just changing, and kernels change theirs: 1 of 120 boots with two processors ended in an oops
 * "int3" at an instruction that in memory was the right one again. It is no slower where the host has two cores.
 */
const argumentsOf = {
  kvm: ['-accel', 'kvm', '-cpu', 'host'],
  tcg: ['-accel', 'tcg,thread=single', '-cpu', 'max'],
};

type Verdict = Pick<Accelerator, 'name' | 'reason'>;

let known: Accelerator | undefined;

export function accelerator(): Accelerator {
  if (known === undefined) {
    const verdict = recorded() ?? probe();
    known = { ...verdict, arguments: argumentsOf[verdict.name] };
  }
  return known;
}

function recorded(): Verdict | undefined {
  try {
    const { boot, verdict } = JSON.parse(readFileSync(record(), 'utf8')) as { boot: string; verdict: Verdict };
    return boot === bootId() ? verdict : undefined;
  } catch {
    return undefined;
  }
}

function probe(): Verdict {
  const folder = temporaryFolder();
  const disk = join(folder, 'sector');
  writeFileSync(disk, bootSector);
  const machine = ['-machine', 'q35', ...argumentsOf.kvm, '-smp', '2', '-m', '128', '-nodefaults', '-display', 'none'];
  const exit = ['-device', 'isa-debug-exit,iobase=0xf4,iosize=1', '-no-reboot'];
  const drive = ['-drive', `file=${disk},format=raw,if=none,id=d`, '-device', 'ide-hd,drive=d'];
  const result = spawnSync('qemu-system-x86_64', [...machine, ...exit, ...drive], {
    timeout: 10_000,
    encoding: 'utf8',
  });
  removeTemporary(folder);
  const works = result.status === 2 * sign + 1;
  const said = result.stderr?.trim().split('\n')[0] || 'the machine that was tried did not run';
  const verdict: Verdict = works ? { name: 'kvm', reason: '' } : { name: 'tcg', reason: said };
  writeFileSync(record(), `${JSON.stringify({ boot: bootId(), verdict })}\n`);
  return verdict;
}

function record(): string {
  return join(cacheDirectory(), 'accelerator.json');
}

function bootId(): string {
  return readFileSync('/proc/sys/kernel/random/boot_id', 'latin1').trim();
}
