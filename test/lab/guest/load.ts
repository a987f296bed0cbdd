/**
 * Runs in a guest, from a copy of the sources: loads a kernel as the library's users can and the command line cannot.
 *
 *     node load.ts OPTIONS
 *
 * with the command line that runs now. OPTIONS is JSON: `kernel` and `initrds`, paths; `reserve`, as for planLoad(); `file`, a
 * text that the next kernel finds in its root as /from-memory; `in32Bits`: as if the kernel had the 32-bit entry only; `damage`:
 * a segment's name, in which a byte is changed after the purgatory was told its digest.
 */
import { readFileSync } from 'node:fs';
import { cpio } from '../../../src/kexec/cpio.ts';
import { readKernel } from '../../../src/kexec/kernelfile.ts';
import { load } from '../../../src/kexec/load.ts';
import { readMachine } from '../../../src/kexec/machine.ts';
import type { Reservation } from '../../../src/kexec/memorymap.ts';
import { joinInitrds, planLoad } from '../../../src/kexec/plan.ts';
import { readProcText } from '../../../src/sys/proc.ts';

interface Options {
  readonly kernel: string;
  readonly initrds: readonly string[];
  readonly reserve?: readonly Reservation[];
  readonly file?: string;
  readonly in32Bits?: boolean;
  readonly damage?: string;
}

const options = JSON.parse(process.argv[2]!) as Options;
const { kernel, initrds, reserve = [], file, in32Bits = false, damage } = options;
const found = readKernel(kernel);
const image = in32Bits ? { ...found, entry64: undefined } : found;
const appended = file === undefined ? [] : [cpio([{ name: 'from-memory', mode: 0o100644, data: file }])];
const initrd = joinInitrds([...initrds.map((path) => readFileSync(path)), ...appended]);
const commandLine = readProcText('/proc/cmdline').trim();
const plan = planLoad({ image, initrd, commandLine, reserve }, readMachine());
if (damage !== undefined) {
  const { bytes } = plan.segments.find(({ name }) => name === damage)!;
  const at = Math.floor(bytes.length / 2);
  bytes[at] = bytes[at]! ^ 0x10;
}
load(plan);
